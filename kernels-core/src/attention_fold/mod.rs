//! Folds states of attention that were computed apart: a prefix that sequences share
//! and what each has of its own, say, each with its output and its log-sum-exp.
//!
//! Order, per row and head, over the parts ascending: a part whose lse is −∞ saw
//! nothing and changes nothing; the first other is taken as M = lse, S = 1, A = out;
//! then M' = max(M, lse), α = exp(M − M'), β = exp(lse − M'), S = fma(β, 1, α·S),
//! A = fma(β, out, α·A). At last out = A / S and lse = M + log S; where no part saw
//! anything, 0 and −∞.

mod cpu;
mod spec;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::params;

pub use cpu::run;
pub use spec::spec;

crate::command! {
    /// One state of attention from several.
    pub struct AttentionFold("attention_fold", params::AttentionFold) {
        /// `[parts × rows_max, heads × head_dim]` of `part_dtype`, rows `part_row_stride`
        /// apart: part p of row r is row p · rows_max + r.
        parts: Read,
        /// `[parts, rows_max, heads]` f32: the natural logarithm of each denominator.
        part_lse: Read,
        /// `[rows_max, heads × head_dim]` of `out_dtype`, rows `out_row_stride` apart.
        out: Write,
        /// `[rows_max, heads]` f32: the logarithm of each denominator of all parts.
        lse: MaybeWrite,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// The element types of a checked call.
#[derive(Clone, Copy, Debug)]
struct Types {
    part: Dtype,
    out: Dtype,
}

impl<M: Memory> AttentionFold<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        self.types().map(drop)
    }

    /// What a checked call takes with so many workers: nothing.
    pub fn needs(&self, _workers: u32) -> Result<Needs, Error> {
        self.types().map(|_| Needs::default())
    }

    fn types(&self) -> Result<Types, Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        checks.range("rows_max", p.rows_max, 1..=1 << 20)?;
        checks.range("parts", p.parts, 1..=1024)?;
        checks.range("heads", p.heads, 1..=65_536)?;
        checks.range("head_dim", p.head_dim, 8..=256)?;
        checks.multiple("head_dim", 8, p.head_dim.into())?;
        let types = Types {
            part: Dtype::parse_float(checks, "part_dtype", p.part_dtype)?,
            out: Dtype::parse_float(checks, "out_dtype", p.out_dtype)?,
        };
        let width = u64::from(p.heads) * u64::from(p.head_dim);
        let matrix = |rows, row_stride| Rows { rows, row_stride, width };
        let all = p.parts * p.rows_max;
        checks.matrix("parts", types.part, matrix(all, p.part_row_stride), &self.parts)?;
        let states = u64::from(p.rows_max) * u64::from(p.heads);
        checks.words("part_lse", Some(u64::from(p.parts) * states), &self.part_lse)?;
        checks.matrix("out", types.out, matrix(p.rows_max, p.out_row_stride), &self.out)?;
        if let Some(lse) = self.lse.span() {
            checks.words("lse", Some(states), lse)?;
        }
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        Ok(types)
    }
}
