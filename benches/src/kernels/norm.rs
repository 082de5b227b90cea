//! Benches of `norm`: one row as in decoding, many as in prefill, and enough to
//! leave the caches.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work};
use half::bf16;
use kernels_core::command::Host;
use kernels_core::norm::{self, Norm};
use kernels_core::params;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::harness::{Bytes, Noise};

const COLUMNS: usize = 2048;
/// Rows that the scalar level answers too.
const ROWS_CHECKED: usize = 4;

/// Times norm with a residual: f32 states, bf16 weights.
pub fn bench(bench: &mut Bench) {
    for rows in [1, 32, 512] {
        let (shape, work) = (format!("{rows}x{COLUMNS} f32 residual"), Work::Items(rows as u64));
        let entry = Entry { kernel: "norm", shape, work };
        bench.time(entry, |_| Rows::new(rows, 1));
    }
    // Reads x and the residual, writes the residual and the output.
    let rows = 1024;
    let work = Work::Copied((rows * COLUMNS * 4 * 4) as u64);
    let shape = format!("{rows}x{COLUMNS} f32 residual cold");
    bench.time(Entry { kernel: "norm", shape, work }, |bench| {
        Rows::new(rows, bench.cycle(rows * COLUMNS * 4 * 3))
    });
}

struct Rows {
    rows: usize,
    x: Copies,
    weight: Bytes,
    residual: Copies,
    out: Copies,
}

impl Rows {
    fn new(rows: usize, copies: usize) -> Self {
        let mut noise = Noise::new(1);
        let row = Bytes::of(&noise.normals(COLUMNS, 1.0).repeat(rows));
        let weight = noise.normals(COLUMNS, 1.0).into_iter().map(bf16::from_f32);
        Self {
            rows,
            x: Copies::new(row.as_slice(), copies),
            weight: Bytes::of(&weight.collect::<Vec<_>>()),
            // Calls add to it over and over: zeros keep x, then grow slowly.
            residual: Copies::new(&vec![0; row.len()], copies),
            out: Copies::new(&vec![0; row.len()], copies),
        }
    }
}

fn run(on: On<'_>, rows: usize, buffers: (&[u8], &[u8], &mut [u8], &mut [u8])) {
    let (x, weight, residual, out) = buffers;
    let params = params::Norm {
        x_row_stride: COLUMNS as u64,
        residual_row_stride: COLUMNS as u64,
        out_row_stride: COLUMNS as u64,
        rows_max: rows as u32,
        heads: 1,
        columns: COLUMNS as u32,
        x_dtype: params::DTYPE_F32,
        weight_dtype: params::DTYPE_BF16,
        out_dtype: params::DTYPE_F32,
        epsilon: 1e-5,
        weight_offset: 0.0,
    };
    let command = Norm::<Host> { params, x, weight, residual: Some(residual), out, rows: None };
    norm::run(on.level, on.workers, command).expect("the call is a good one");
}

impl Subject for Rows {
    fn check(&mut self, on: On<'_>) {
        let (x, weight) = (self.x.turn(0), self.weight.as_slice());
        let mut residual = vec![0; x.len()];
        let mut out = vec![0; x.len()];
        run(on, self.rows, (x, weight, &mut residual, &mut out));
        let rows = self.rows.min(ROWS_CHECKED);
        let bytes = rows * COLUMNS * 4;
        let mut residual_scalar = vec![0; bytes];
        let mut out_scalar = vec![0; bytes];
        let scalar = Level::named("scalar").expect("every machine has the scalar level");
        let plain = On { level: scalar, workers: &Inline };
        run(plain, rows, (&x[..bytes], weight, &mut residual_scalar, &mut out_scalar));
        assert_eq!(residual[..bytes], residual_scalar, "the residual has the scalar level's bits");
        assert_eq!(out[..bytes], out_scalar, "the output has the scalar level's bits");
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        let buffers = (
            self.x.turn(turn),
            self.weight.as_slice(),
            self.residual.turn_mut(turn),
            self.out.turn_mut(turn),
        );
        run(on, self.rows, buffers);
    }
}
