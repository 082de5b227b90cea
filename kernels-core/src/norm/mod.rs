//! Root mean square norm: of whole rows, with a residual added first, or of each
//! head of a row (the norms of queries and keys).
//!
//! Order, per vector of `columns` elements x:
//! 1. with a residual, residual = residual + x, rounded to its type, and x is that
//!    sum as stored;
//! 2. squares into 64 partial sums, element i into sum i mod 64 by fma, i ascending;
//! 3. partial sums j, j + 16, j + 32, j + 48 fold as (a + b) + (c + d), then the
//!    sixteen as [`Lanes::sum`](crate::simd::Lanes::sum) says;
//! 4. scale = 1 / sqrt(sum / columns + epsilon), each step rounded;
//! 5. out = (x · scale) · (weight + weight_offset).

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
    /// `out = rms_norm(x + residual) · weight`.
    pub struct Norm("norm", params::Norm) {
        /// `[rows_max, heads × columns]` of `x_dtype`, rows `x_row_stride` apart.
        x: Read,
        /// `[columns]` of `weight_dtype`.
        weight: Read,
        /// `[rows_max, heads × columns]` of `x_dtype`, rows `residual_row_stride` apart:
        /// x is added to it before the norm.
        residual: MaybeUpdate,
        /// `[rows_max, heads × columns]` of `out_dtype`, rows `out_row_stride` apart.
        out: Write,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// The element types of a checked call.
#[derive(Clone, Copy, Debug)]
struct Types {
    x: Dtype,
    weight: Dtype,
    out: Dtype,
}

impl<M: Memory> Norm<M> {
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
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        checks.range("heads", p.heads, 1..=65_536)?;
        checks.range("columns", p.columns, 1..=1 << 24)?;
        let types = Types {
            x: Dtype::parse_float(checks, "x_dtype", p.x_dtype)?,
            weight: Dtype::parse_float(checks, "weight_dtype", p.weight_dtype)?,
            out: Dtype::parse_float(checks, "out_dtype", p.out_dtype)?,
        };
        checks.at_least_zero("epsilon", p.epsilon)?;
        checks.finite("weight_offset", p.weight_offset)?;
        let width = u64::from(p.heads) * u64::from(p.columns);
        let matrix = |row_stride| Rows { rows: p.rows_max, row_stride, width };
        checks.matrix("x", types.x, matrix(p.x_row_stride), &self.x)?;
        checks.buffer("weight", types.weight, Some(u64::from(p.columns)), &self.weight)?;
        if let Some(residual) = self.residual.span() {
            checks.matrix("residual", types.x, matrix(p.residual_row_stride), residual)?;
        } else {
            checks.equal("residual_row_stride", 0, p.residual_row_stride)?;
        }
        checks.matrix("out", types.out, matrix(p.out_row_stride), &self.out)?;
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        Ok(types)
    }
}
