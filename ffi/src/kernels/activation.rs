//! `activation`, as C calls it.

use super::layout::{Matrix, reserved};
use super::plan::Step;
use super::source::Source;
use super::{Kernel, kernel};
use crate::error::Refusal;
use kernels_core::activation::Activation;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::params;

const CHECKS: Checks = Activation::<Recorded>::CHECKS;

struct Call {
    params: params::Activation,
    x: Matrix,
    out: Matrix,
}

impl Kernel for Call {
    kernel!(activation Activation, pw_activation_desc, pw_activation_args, b"pw-act-1");
    kernel!(rows);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let x = Dtype::parse_float(CHECKS, "x_dtype", desc.x_dtype)?;
        let out = Dtype::parse_float(CHECKS, "out_dtype", desc.out_dtype)?;
        let columns = u64::from(desc.columns);
        let width = u64::from(desc.up_offset) + columns;
        let x = Matrix::new("x_row_stride", desc.x_row_stride, x, width)?;
        let out = Matrix::new("out_row_stride", desc.out_row_stride, out, columns)?;
        let params = params::Activation {
            x_row_stride: x.row_stride,
            out_row_stride: out.row_stride,
            rows_max: desc.rows_max,
            columns: desc.columns,
            up_offset: desc.up_offset,
            kind: desc.kind,
            x_dtype: desc.x_dtype,
            out_dtype: desc.out_dtype,
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
            Ok(Activation {
                params: params::Activation { rows_max: rows, ..self.params },
                x: at.read("x", args.x.cast::<u8>(), self.x.bytes(rows))?,
                out: at.write("out", args.out.cast::<u8>(), self.out.bytes(rows))?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(export Call, pw_activation_query, pw_activation_plan(rows: u32), pw_activation_run, 48, 56);
