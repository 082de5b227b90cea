//! Benches of `attention_fold`: eight states of many rows that no cache holds.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work, assert_scalar_bits};
use kernels_core::attention_fold::{self, AttentionFold};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use pagewise_tests::cases::attention_fold::{AttentionFoldCase, Shape};
use pagewise_tests::harness::Bytes;

const PARTS: u32 = 8;
const HEADS: u32 = 32;
const HEAD_DIM: u32 = 128;

/// Times parts in f32 and in bf16.
pub fn bench(bench: &mut Bench) {
    for (part, rows) in [(Dtype::F32, 1), (Dtype::F32, 64), (Dtype::Bf16, 64)] {
        let out_bytes = u64::from(rows * HEADS * HEAD_DIM) * 4;
        let bytes = u64::from(PARTS * rows * HEADS * HEAD_DIM) * part.align() + out_bytes;
        let work = if rows > 1 { Work::Copied(bytes) } else { Work::Items(rows.into()) };
        let shape = format!("{PARTS} parts {rows}x{HEADS} d{HEAD_DIM} {}", part.name());
        bench.time(Entry { kernel: "attention_fold", shape, work }, |bench| {
            let shape = Shape {
                sizes: (PARTS, rows, HEADS, HEAD_DIM),
                dtypes: (part, Dtype::F32),
                empty: 0,
                size: 4.0,
                seed: 1,
            };
            Folded::new(shape.case(), if rows > 1 { bench.cycle(bytes as usize) } else { 1 })
        });
    }
}

struct Folded {
    case: AttentionFoldCase,
    parts: Copies,
    out: Copies,
    lse: Bytes,
    rows: Bytes,
}

impl Folded {
    fn new(case: AttentionFoldCase, copies: usize) -> Self {
        Self {
            parts: Copies::new(case.parts.as_slice(), copies),
            out: Copies::new(&vec![0; case.out_bytes], copies),
            lse: Bytes::filled(case.lse_bytes, 0),
            rows: Bytes::of(&[case.rows]),
            case,
        }
    }
}

impl Subject for Folded {
    fn check(&mut self, on: On<'_>) {
        assert_scalar_bits(&self.case, on);
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        let command = AttentionFold::<Host> {
            params: self.case.params,
            parts: self.parts.turn(turn),
            part_lse: self.case.part_lse.as_slice(),
            out: self.out.turn_mut(turn),
            lse: Some(self.lse.as_mut_slice()),
            rows: Some(self.rows.as_slice()),
        };
        attention_fold::run(on.level, on.workers, command).expect("the call is a good one");
    }
}
