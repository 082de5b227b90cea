//! Rows of an embedding table by token ids, which may come from the device: the
//! next step's ids need not pass through the host.
//!
//! Order: out = table · scale in f32, rounded once to the output's type; with scale 1
//! the row itself.

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
    /// `out[r] = table[tokens[r]] · scale`.
    pub struct Embed("embed", params::Embed) {
        /// `[vocabulary, columns]` of `table_dtype`, rows `table_row_stride` apart.
        table: Read,
        /// `[rows_max]` u32: token ids, below `vocabulary`.
        tokens: Read,
        /// `[rows_max, columns]` of `out_dtype`, rows `out_row_stride` apart.
        out: Write,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// The element types of a checked call.
#[derive(Clone, Copy, Debug)]
struct Types {
    table: Dtype,
    out: Dtype,
}

impl<M: Memory> Embed<M> {
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
        checks.range("vocabulary", p.vocabulary, 1..=i64::from(i32::MAX))?;
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        checks.range("columns", p.columns, 1..=1 << 24)?;
        checks.finite("scale", p.scale)?;
        let types = Types {
            table: Dtype::parse_float(checks, "table_dtype", p.table_dtype)?,
            out: Dtype::parse_float(checks, "out_dtype", p.out_dtype)?,
        };
        let matrix = |rows, row_stride| Rows { rows, row_stride, width: p.columns.into() };
        checks.matrix(
            "table",
            types.table,
            matrix(p.vocabulary, p.table_row_stride),
            &self.table,
        )?;
        checks.words("tokens", Some(p.rows_max.into()), &self.tokens)?;
        checks.matrix("out", types.out, matrix(p.rows_max, p.out_row_stride), &self.out)?;
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        Ok(types)
    }
}
