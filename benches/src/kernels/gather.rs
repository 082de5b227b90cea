//! Benches of `gather`: the last rows of a step, and rows of a matrix that no cache
//! holds.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work, assert_scalar_bits};
use kernels_core::command::Host;
use kernels_core::gather::{self, Gather};
use pagewise_tests::cases::gather::{GatherCase, Shape};
use pagewise_tests::harness::Bytes;

/// Times f32 rows, in any order.
pub fn bench(bench: &mut Bench) {
    let last = Shape { x_rows: 512, ..Shape::plain(32, 2048) };
    let entry =
        Entry { kernel: "gather", shape: "32 of 512x2048 f32".to_owned(), work: Work::Items(32) };
    bench.time(entry, |_| Gathered::new(last, 1));
    let many = Shape { x_rows: 1024, ..Shape::plain(1024, 4096) };
    let bytes = 2 * 1024 * 4096 * 4;
    let entry = Entry {
        kernel: "gather",
        shape: "1024 of 1024x4096 f32 cold".to_owned(),
        work: Work::Copied(bytes),
    };
    bench.time(entry, |bench| Gathered::new(many, bench.cycle(bytes as usize)));
}

struct Gathered {
    case: GatherCase,
    indices: Bytes,
    x: Copies,
    out: Copies,
}

impl Gathered {
    fn new(shape: Shape, copies: usize) -> Self {
        let case = shape.case();
        Self {
            indices: Bytes::of(&case.indices),
            x: Copies::new(case.x.as_slice(), copies),
            out: Copies::new(&vec![0; case.out_bytes], copies),
            case,
        }
    }
}

impl Subject for Gathered {
    fn check(&mut self, on: On<'_>) {
        assert_scalar_bits(&self.case, on);
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        let command = Gather::<Host> {
            params: self.case.params,
            x: self.x.turn(turn),
            indices: self.indices.as_slice(),
            out: self.out.turn_mut(turn),
            rows: None,
        };
        gather::run(on.level, on.workers, command).expect("the call is a good one");
    }
}
