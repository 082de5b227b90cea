//! Benches of `lora`: eight adapters of rank 16 in decoding, one row each, and with
//! 32 rows each. Their output is larger than all else a call touches.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work, assert_scalar_bits};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::lora::{self, Lora};
use pagewise_tests::cases::lora::{LoraCase, Shape};
use pagewise_tests::harness::Bytes;

const ADAPTERS: u32 = 8;
const RANK: u32 = 16;
const INPUTS: u32 = 2048;

/// Times lora: f32 states, bf16 adapters.
pub fn bench(bench: &mut Bench) {
    for outputs in [2048, 5632] {
        for rows_each in [1, 32] {
            let rows = ADAPTERS * rows_each;
            let shape = format!("{ADAPTERS}x{rows_each} rows r{RANK} {INPUTS}x{outputs} bf16");
            let weights = ADAPTERS * RANK * (INPUTS + outputs) * 2;
            // Both products' weights, x, and the output there and back.
            let bytes = weights + rows * (INPUTS + 2 * outputs) * 4;
            let entry = Entry { kernel: "lora", shape, work: Work::Copied(u64::from(bytes)) };
            bench.time(entry, |_| Adapted::new(outputs, rows_each));
        }
    }
}

struct Adapted {
    case: LoraCase,
    ranks: Bytes,
    scales: Bytes,
    adapters: Bytes,
    out: Copies,
    workspace: Bytes,
}

impl Adapted {
    fn new(outputs: u32, rows_each: u32) -> Self {
        let adapters: Vec<u32> = (0..ADAPTERS * rows_each).map(|row| row % ADAPTERS).collect();
        let ranks = [RANK; ADAPTERS as usize];
        let shape = Shape::plain(INPUTS, outputs, &ranks, &adapters);
        let mut case = Shape { dtypes: (Dtype::F32, Dtype::Bf16), ..shape }.case();
        // Calls add to the output over and over: small scales keep it finite.
        case.scales.fill(1e-3);
        let workspace = adapters.len() * (RANK as usize + 1) * 4;
        Self {
            ranks: Bytes::of(&case.ranks),
            scales: Bytes::of(&case.scales),
            adapters: Bytes::of(&case.adapters),
            out: Copies::new(case.out.as_slice(), 1),
            workspace: Bytes::filled(workspace, 0),
            case,
        }
    }
}

impl Subject for Adapted {
    fn check(&mut self, on: On<'_>) {
        assert_scalar_bits(&self.case, on);
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        let command = Lora::<Host> {
            params: self.case.params,
            x: self.case.x.as_slice(),
            a: self.case.a.as_slice(),
            b: self.case.b.as_slice(),
            ranks: self.ranks.as_slice(),
            scales: self.scales.as_slice(),
            magnitudes: None,
            adapters: self.adapters.as_slice(),
            rows: None,
            out: self.out.turn_mut(turn),
        };
        lora::run(on.level, on.workers, command, self.workspace.as_mut_slice())
            .expect("the call is a good one");
    }
}
