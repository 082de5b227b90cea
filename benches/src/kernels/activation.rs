//! Benches of `activation`: SwiGLU of one row, of many, and of enough to leave the
//! caches.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work, assert_scalar_bits};
use kernels_core::activation::{self, Activation};
use kernels_core::command::Host;
use pagewise_tests::cases::activation::{ActivationCase, Shape};

const COLUMNS: u32 = 5632;

/// Times SwiGLU in f32.
pub fn bench(bench: &mut Bench) {
    for rows in [1, 32, 512] {
        let shape = format!("{rows}x{COLUMNS} silu f32");
        let entry = Entry { kernel: "activation", shape, work: Work::Items(u64::from(rows)) };
        bench.time(entry, |_| Gated::new(rows, 1));
    }
    // Reads gate and up, writes one row for both.
    let rows = 1024;
    let bytes = u64::from(rows * COLUMNS) * 4 * 3;
    let shape = format!("{rows}x{COLUMNS} silu f32 cold");
    let entry = Entry { kernel: "activation", shape, work: Work::Copied(bytes) };
    bench.time(entry, |bench| Gated::new(rows, bench.cycle(bytes as usize)));
}

struct Gated {
    case: ActivationCase,
    x: Copies,
    out: Copies,
}

impl Gated {
    fn new(rows: u32, copies: usize) -> Self {
        let case = Shape::plain(rows, COLUMNS).case();
        Self {
            x: Copies::new(case.x.as_slice(), copies),
            out: Copies::new(&vec![0; case.out_bytes], copies),
            case,
        }
    }
}

impl Subject for Gated {
    fn check(&mut self, on: On<'_>) {
        assert_scalar_bits(&self.case, on);
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        let command = Activation::<Host> {
            params: self.case.params,
            x: self.x.turn(turn),
            out: self.out.turn_mut(turn),
            rows: None,
        };
        activation::run(on.level, on.workers, command).expect("the call is a good one");
    }
}
