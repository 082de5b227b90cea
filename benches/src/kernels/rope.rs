//! Benches of `rope`: queries and keys of one row, of many, and of enough to leave the
//! caches.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work, assert_scalar_bits};
use kernels_core::command::Host;
use kernels_core::rope::{self, Rope};
use pagewise_tests::cases::rope::{RopeCase, Shape};
use pagewise_tests::harness::Bytes;

/// Times f32 rows, from one buffer to another.
pub fn bench(bench: &mut Bench) {
    for rows in [1, 32, 512] {
        let entry = Entry {
            kernel: "rope",
            shape: format!("{rows}x36 heads d64 f32"),
            work: Work::Items(u64::from(rows)),
        };
        bench.time(entry, |_| Turned::new(Shape::plain(rows, 36, 64, 64), 1));
    }
    let (rows, heads, head_dim) = (1024, 40, 128);
    let bytes = u64::from(rows * heads * head_dim) * 4;
    let entry = Entry {
        kernel: "rope",
        shape: format!("{rows}x{heads} heads d{head_dim} f32 cold"),
        work: Work::Copied(2 * bytes),
    };
    bench.time(entry, |bench| {
        let shape = Shape::plain(rows, heads, head_dim, head_dim);
        Turned::new(shape, bench.cycle(2 * bytes as usize))
    });
}

struct Turned {
    case: RopeCase,
    positions: Bytes,
    x: Copies,
    out: Copies,
}

impl Turned {
    fn new(shape: Shape, copies: usize) -> Self {
        let case = shape.case();
        let x = case.x.as_ref().expect("the shape is not in place");
        Self {
            positions: Bytes::of(&case.positions),
            x: Copies::new(x.as_slice(), copies),
            out: Copies::new(case.out.as_slice(), copies),
            case,
        }
    }
}

impl Subject for Turned {
    fn check(&mut self, on: On<'_>) {
        assert_scalar_bits(&self.case, on);
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        let command = Rope::<Host> {
            params: self.case.params,
            x: Some(self.x.turn(turn)),
            table: self.case.table.as_slice(),
            positions: self.positions.as_slice(),
            out: self.out.turn_mut(turn),
            rows: None,
        };
        rope::run(on.level, on.workers, command).expect("the call is a good one");
    }
}
