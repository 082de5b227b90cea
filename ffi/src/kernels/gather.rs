//! `gather`, as C calls it.

use super::layout::{Matrix, reserved};
use super::plan::Step;
use super::source::Source;
use super::{Kernel, kernel};
use crate::error::Refusal;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::gather::{DTYPES, Gather};
use kernels_core::params;

const CHECKS: Checks = Gather::<Recorded>::CHECKS;

struct Call {
    params: params::Gather,
    x: Matrix,
    out: Matrix,
}

impl Kernel for Call {
    kernel!(gather Gather, pw_gather_desc, pw_gather_args, b"pw-gat-1");
    kernel!(rows);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let dtype = Dtype::parse(CHECKS, "dtype", desc.dtype, &DTYPES)?;
        let columns = u64::from(desc.columns);
        let x = Matrix::new("x_row_stride", desc.x_row_stride, dtype, columns)?;
        let out = Matrix::new("out_row_stride", desc.out_row_stride, dtype, columns)?;
        let params = params::Gather {
            x_row_stride: x.row_stride,
            out_row_stride: out.row_stride,
            x_rows: desc.x_rows,
            rows_max: desc.rows_max,
            columns: desc.columns,
            dtype: desc.dtype,
        };
        Ok(Self { params, x, out })
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, ..] = step.counts;
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(Gather {
                params: params::Gather { rows_max: rows, ..self.params },
                x: at.read("x", args.x.cast::<u8>(), self.x.bytes(self.params.x_rows))?,
                indices: at.read("indices", args.indices, 4 * u64::from(rows))?,
                out: at.write("out", args.out.cast::<u8>(), self.out.bytes(rows))?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(export Call, pw_gather_query, pw_gather_plan(rows: u32), pw_gather_run, 40, 64);
