//! `token_logprob`, as C calls it.

use super::layout::{Matrix, bytes, weight};
use super::plan::Step;
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::packing::Weight;
use kernels_core::params;
use kernels_core::token_logprob::TokenLogprob;

const CHECKS: Checks = TokenLogprob::<Recorded>::CHECKS;

struct Call {
    params: params::TokenLogprob,
    weight_bytes: u64,
    bias_bytes: Option<u64>,
    x: Matrix,
}

impl Kernel for Call {
    kernel!(
        token_logprob TokenLogprob,
        pw_token_logprob_desc,
        pw_token_logprob_args,
        b"pw-log-1",
        workspace
    );
    kernel!(rows);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        let weight = weight(&desc.weight);
        let parsed = Weight::parse(CHECKS, &weight)?;
        let x = Dtype::parse_float(CHECKS, "x_dtype", desc.x_dtype)?;
        let x = Matrix::new("x_row_stride", desc.x_row_stride, x, weight.inputs.into())?;
        let outputs = weight.outputs.into();
        let params = params::TokenLogprob {
            x_row_stride: x.row_stride,
            rows_max: desc.rows_max,
            x_dtype: desc.x_dtype,
            bias_dtype: desc.bias_dtype,
            reserved: 0,
            weight,
        };
        let bias_bytes = match desc.bias_dtype {
            0 => None,
            dtype => Some(bytes(Dtype::parse_float(CHECKS, "bias_dtype", dtype)?, outputs)),
        };
        Ok(Self { params, weight_bytes: parsed.bytes(), bias_bytes, x })
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, ..] = step.counts;
        let each = 4 * u64::from(rows);
        let there = There::If(self.bias_bytes.is_some(), "bias_dtype");
        let bias_bytes = self.bias_bytes.unwrap_or(0);
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(TokenLogprob {
                params: params::TokenLogprob { rows_max: rows, ..self.params },
                x: at.read("x", args.x.cast::<u8>(), self.x.bytes(rows))?,
                weight: at.read("weight", args.weight.cast::<u8>(), self.weight_bytes)?,
                bias: at.maybe_read("bias", args.bias.cast::<u8>(), there, bias_bytes)?,
                token: at.read("token", args.token, each)?,
                logprob: at.write("logprob", args.logprob, each)?,
                status: at.write("status", args.status, each)?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(
    export Call,
    pw_token_logprob_query,
    pw_token_logprob_plan(rows: u32),
    pw_token_logprob_run,
    48, 88
);
