//! `norm`, as C calls it.

use super::layout::{Matrix, bytes, reserved};
use super::plan::Step;
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::norm::Norm;
use kernels_core::params;

const CHECKS: Checks = Norm::<Recorded>::CHECKS;

struct Call {
    params: params::Norm,
    weight: Dtype,
    x: Matrix,
    residual: Option<Matrix>,
    out: Matrix,
}

impl Kernel for Call {
    kernel!(norm Norm, pw_norm_desc, pw_norm_args, b"pw-nor-1");
    kernel!(rows);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let x = Dtype::parse_float(CHECKS, "x_dtype", desc.x_dtype)?;
        let weight = Dtype::parse_float(CHECKS, "weight_dtype", desc.weight_dtype)?;
        let out = Dtype::parse_float(CHECKS, "out_dtype", desc.out_dtype)?;
        let width = u64::from(desc.heads) * u64::from(desc.columns);
        let residual = Matrix::maybe("residual_row_stride", desc.residual_row_stride, x, width)?;
        let x = Matrix::new("x_row_stride", desc.x_row_stride, x, width)?;
        let out = Matrix::new("out_row_stride", desc.out_row_stride, out, width)?;
        let params = params::Norm {
            x_row_stride: x.row_stride,
            residual_row_stride: residual.map_or(0, |residual| residual.row_stride),
            out_row_stride: out.row_stride,
            rows_max: desc.rows_max,
            heads: desc.heads,
            columns: desc.columns,
            x_dtype: desc.x_dtype,
            weight_dtype: desc.weight_dtype,
            out_dtype: desc.out_dtype,
            epsilon: desc.epsilon,
            weight_offset: desc.weight_offset,
        };
        Ok(Self { params, weight, x, residual, out })
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, ..] = step.counts;
        let there = There::If(self.residual.is_some(), "residual_row_stride");
        let residual_bytes = self.residual.map_or(0, |residual| residual.bytes(rows));
        let weight_bytes = bytes(self.weight, self.params.columns.into());
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(Norm {
                params: params::Norm { rows_max: rows, ..self.params },
                x: at.read("x", args.x.cast::<u8>(), self.x.bytes(rows))?,
                weight: at.read("weight", args.weight.cast::<u8>(), weight_bytes)?,
                residual: at.maybe_update(
                    "residual",
                    args.residual.cast::<u8>(),
                    there,
                    residual_bytes,
                )?,
                out: at.write("out", args.out.cast::<u8>(), self.out.bytes(rows))?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(export Call, pw_norm_query, pw_norm_plan(rows: u32), pw_norm_run, 64, 72);
