//! `pool`, as C calls it.

use super::layout::{Matrix, reserved};
use super::plan::{LISTS, Step};
use super::source::Source;
use super::{Kernel, kernel};
use crate::error::Refusal;
use crate::memory::Buffers;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::params;
use kernels_core::pool::Pool;

const CHECKS: Checks = Pool::<Recorded>::CHECKS;

struct Call {
    params: params::Pool,
    x: Matrix,
    out: Matrix,
}

impl Kernel for Call {
    kernel!(pool Pool, pw_pool_desc, pw_pool_args, b"pw-poo-1");
    type Lens = (u32, *const u32);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let x = Dtype::parse_float(CHECKS, "x_dtype", desc.x_dtype)?;
        let columns = u64::from(desc.columns);
        let x = Matrix::new("x_row_stride", desc.x_row_stride, x, columns)?;
        let out = Matrix::new("out_row_stride", desc.out_row_stride, Dtype::F32, columns)?;
        let params = params::Pool {
            x_row_stride: x.row_stride,
            out_row_stride: out.row_stride,
            rows_max: desc.rows_max,
            seqs_max: desc.seqs_max,
            columns: desc.columns,
            kind: desc.kind,
            x_dtype: desc.x_dtype,
            normalise: desc.normalise,
        };
        Ok(Self { params, x, out })
    }

    fn most(&self) -> Step<'static> {
        Step::of([self.params.seqs_max, self.params.rows_max, 0])
    }

    fn lists(&self) -> [u64; LISTS] {
        [u64::from(self.params.seqs_max) + 1, 0, 0, 0, 0, 0]
    }

    unsafe fn step<'a>(&self, (seqs, starts): Self::Lens) -> Result<Step<'a>, Refusal> {
        CHECKS.range("seqs", seqs, 0..=self.params.seqs_max.into())?;
        let bytes = 4 * (u64::from(seqs) + 1);
        // SAFETY: as the caller of this says.
        let starts = unsafe { Buffers::new().read("starts", starts, bytes)? };
        let starts: &[u32] = bytemuck::cast_slice(starts);
        CHECKS.ascending("starts", starts, self.params.rows_max)?;
        if seqs > 0 {
            // A kernel without rows has nothing to read.
            CHECKS.elements("starts", &starts[seqs as usize..], 1..=self.params.rows_max)?;
        }
        let mut step = Step::of([seqs, starts[seqs as usize], 0]);
        step.lists[0] = starts;
        Ok(step)
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [seqs, rows, _] = step.counts;
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(Pool {
                params: params::Pool { rows_max: rows, seqs_max: seqs, ..self.params },
                x: at.read("x", args.x.cast::<u8>(), self.x.bytes(rows))?,
                starts: at.list(step, 0, u64::from(seqs) + 1),
                out: at.write("out", args.out, self.out.bytes(seqs))?,
                seqs: at.live(0),
            })
        }
    }
}

kernel!(
    export Call,
    pw_pool_query,
    pw_pool_plan(seqs: u32, starts: *const u32),
    pw_pool_run,
    48, 56
);
