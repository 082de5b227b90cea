//! `attention_fold`, as C calls it.

use super::layout::{Matrix, reserved, words};
use super::plan::Step;
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use kernels_core::attention_fold::AttentionFold;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::params;

const CHECKS: Checks = AttentionFold::<Recorded>::CHECKS;

struct Call {
    params: params::AttentionFold,
    parts: Matrix,
    out: Matrix,
}

impl Kernel for Call {
    kernel!(
        attention_fold AttentionFold,
        pw_attention_fold_desc,
        pw_attention_fold_args,
        b"pw-fol-1"
    );
    kernel!(rows);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let parts = Dtype::parse_float(CHECKS, "part_dtype", desc.part_dtype)?;
        let out = Dtype::parse_float(CHECKS, "out_dtype", desc.out_dtype)?;
        // So that all rows of all parts have numbers.
        CHECKS.range("rows_max", desc.rows_max, 1..=1 << 20)?;
        CHECKS.range("parts", desc.parts, 1..=1024)?;
        let width = u64::from(desc.heads) * u64::from(desc.head_dim);
        let parts = Matrix::new("part_row_stride", desc.part_row_stride, parts, width)?;
        let out = Matrix::new("out_row_stride", desc.out_row_stride, out, width)?;
        let params = params::AttentionFold {
            part_row_stride: parts.row_stride,
            out_row_stride: out.row_stride,
            rows_max: desc.rows_max,
            parts: desc.parts,
            heads: desc.heads,
            head_dim: desc.head_dim,
            part_dtype: desc.part_dtype,
            out_dtype: desc.out_dtype,
        };
        Ok(Self { params, parts, out })
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, ..] = step.counts;
        let p = &self.params;
        let states = words(&[rows.into(), p.heads.into()]);
        let part_bytes = self.parts.bytes(rows * p.parts);
        let part_states = words(&[rows.into(), p.heads.into(), p.parts.into()]);
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(AttentionFold {
                params: params::AttentionFold { rows_max: rows, ..*p },
                parts: at.read("parts", args.parts.cast::<u8>(), part_bytes)?,
                part_lse: at.read("part_lse", args.part_lse, part_states)?,
                out: at.write("out", args.out.cast::<u8>(), self.out.bytes(rows))?,
                lse: at.maybe_write("lse", args.lse, There::Maybe, states)?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(
    export Call,
    pw_attention_fold_query,
    pw_attention_fold_plan(rows: u32),
    pw_attention_fold_run,
    48, 72
);
