//! `matmul`, as C calls it.

use super::layout::{Matrix, bytes, reserved, weight};
use super::plan::Step;
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::matmul::Matmul;
use kernels_core::packing::Weight;
use kernels_core::params;

const CHECKS: Checks = Matmul::<Recorded>::CHECKS;

struct Call {
    params: params::Matmul,
    weight_bytes: u64,
    bias_bytes: Option<u64>,
    x: Matrix,
    out: Matrix,
}

impl Kernel for Call {
    kernel!(matmul Matmul, pw_matmul_desc, pw_matmul_args, b"pw-mul-1", workspace);
    kernel!(rows);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let weight = weight(&desc.weight);
        let parsed = Weight::parse(CHECKS, &weight)?;
        let x = Dtype::parse_float(CHECKS, "x_dtype", desc.x_dtype)?;
        let out = Dtype::parse_float(CHECKS, "out_dtype", desc.out_dtype)?;
        let (inputs, outputs) = (u64::from(weight.inputs), u64::from(weight.outputs));
        let x = Matrix::new("x_row_stride", desc.x_row_stride, x, inputs)?;
        let out = Matrix::new("out_row_stride", desc.out_row_stride, out, outputs)?;
        let params = params::Matmul {
            x_row_stride: x.row_stride,
            out_row_stride: out.row_stride,
            rows_max: desc.rows_max,
            x_dtype: desc.x_dtype,
            bias_dtype: desc.bias_dtype,
            out_dtype: desc.out_dtype,
            weight,
        };
        let bias_bytes = match desc.bias_dtype {
            0 => None,
            dtype => Some(bytes(Dtype::parse_float(CHECKS, "bias_dtype", dtype)?, outputs)),
        };
        Ok(Self { params, weight_bytes: parsed.bytes(), bias_bytes, x, out })
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, ..] = step.counts;
        let there = There::If(self.bias_bytes.is_some(), "bias_dtype");
        let bias_bytes = self.bias_bytes.unwrap_or(0);
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(Matmul {
                params: params::Matmul { rows_max: rows, ..self.params },
                x: at.read("x", args.x.cast::<u8>(), self.x.bytes(rows))?,
                weight: at.read("weight", args.weight.cast::<u8>(), self.weight_bytes)?,
                bias: at.maybe_read("bias", args.bias.cast::<u8>(), there, bias_bytes)?,
                out: at.write("out", args.out.cast::<u8>(), self.out.bytes(rows))?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(export Call, pw_matmul_query, pw_matmul_plan(rows: u32), pw_matmul_run, 64, 72);
