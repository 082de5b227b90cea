//! Rows of a matrix by their numbers: the last rows of sequences, above all. Elements
//! are copied as they are stored.

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
    /// `out[r] = x[indices[r]]`.
    pub struct Gather("gather", params::Gather) {
        /// `[x_rows, columns]` of `dtype`, rows `x_row_stride` apart.
        x: Read,
        /// `[rows_max]` u32, below `x_rows`: the row of x that each row of out is.
        indices: Read,
        /// `[rows_max, columns]` of `dtype`, rows `out_row_stride` apart.
        out: Write,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// What gather copies: anything whose elements have a byte of their own.
pub const DTYPES: [Dtype; 5] = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::E4m3, Dtype::I8];

impl<M: Memory> Gather<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        self.dtype().map(drop)
    }

    /// What a checked call takes with so many workers: nothing.
    pub fn needs(&self, _workers: u32) -> Result<Needs, Error> {
        self.dtype().map(|_| Needs::default())
    }

    fn dtype(&self) -> Result<Dtype, Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        checks.range("x_rows", p.x_rows, 1..=i64::from(u32::MAX))?;
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        checks.range("columns", p.columns, 1..=1 << 24)?;
        let dtype = Dtype::parse(checks, "dtype", p.dtype, &DTYPES)?;
        let matrix = |rows, row_stride| Rows { rows, row_stride, width: p.columns.into() };
        checks.matrix("x", dtype, matrix(p.x_rows, p.x_row_stride), &self.x)?;
        checks.words("indices", Some(p.rows_max.into()), &self.indices)?;
        checks.matrix("out", dtype, matrix(p.rows_max, p.out_row_stride), &self.out)?;
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        Ok(dtype)
    }
}
