//! Benches of `pool`: means of long texts that no cache holds, and last rows.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work, assert_scalar_bits};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::params;
use kernels_core::pool::{self, Pool};
use pagewise_tests::cases::pool::{PoolCase, Shape};
use pagewise_tests::harness::Bytes;

const COLUMNS: u32 = 2048;

/// Times normalised vectors.
pub fn bench(bench: &mut Bench) {
    for (x, lens) in
        [(Dtype::F32, [512; 8].as_slice()), (Dtype::Bf16, &[512; 8]), (Dtype::F32, &[4096])]
    {
        let rows: u32 = lens.iter().sum();
        let bytes = u64::from(rows * COLUMNS) * x.align();
        let shape = format!("mean {}x{} rows {COLUMNS} {}", lens.len(), lens[0], x.name());
        let entry = Entry { kernel: "pool", shape, work: Work::Read(bytes) };
        bench.time(entry, |bench| {
            let copies = bench.cycle(bytes as usize);
            Pooled::new(&Shape { x, ..Shape::plain(lens, COLUMNS, params::POOL_MEAN) }, copies)
        });
    }
    let shape = format!("last of 64x8 rows {COLUMNS} f32");
    let entry = Entry { kernel: "pool", shape, work: Work::Items(64) };
    bench.time(entry, |_| Pooled::new(&Shape::plain(&[8; 64], COLUMNS, params::POOL_LAST), 1));
}

struct Pooled {
    case: PoolCase,
    starts: Bytes,
    x: Copies,
    out: Bytes,
}

impl Pooled {
    fn new(shape: &Shape, copies: usize) -> Self {
        let case = Shape { normalise: true, ..shape.clone() }.case();
        Self {
            starts: Bytes::of(&case.starts),
            x: Copies::new(case.x.as_slice(), copies),
            out: Bytes::filled(case.out_bytes, 0),
            case,
        }
    }
}

impl Subject for Pooled {
    fn check(&mut self, on: On<'_>) {
        assert_scalar_bits(&self.case, on);
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        let command = Pool::<Host> {
            params: self.case.params,
            x: self.x.turn(turn),
            starts: self.starts.as_slice(),
            out: self.out.as_mut_slice(),
            seqs: None,
        };
        pool::run(on.level, on.workers, command).expect("the call is a good one");
    }
}
