//! Rows of an embedding table by token ids, which may come from the device: the
//! next step's ids need not pass through the host. Where a model ties its embedding to
//! its output weights, the table is the packed matrix that
//! [`matmul`](crate::matmul) multiplies by, in any of its formats.
//!
//! Order, for each element:
//! 1. its value in f32: floats are exact; a number q in a group is q · scale, or
//!    fma(q, scale, bias) with an affine scheme, on q without its storage offset;
//! 2. out = value · scale, rounded, then to the output's type; with scale 1 the value
//!    itself.

mod cpu;
mod spec;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::packing::Weight;
use crate::params;

pub use cpu::run;
pub use spec::spec;

crate::command! {
    /// `out[r] = table[tokens[r]] · scale`.
    pub struct Embed("embed", params::Embed) {
        /// The table: `[outputs, inputs]` of the weight's type, rows `table_row_stride`
        /// apart, or a packed matrix.
        table: Read,
        /// `[rows_max]` u32: token ids, below the weight's outputs.
        tokens: Read,
        /// `[rows_max, inputs]` of `out_dtype`, rows `out_row_stride` apart.
        out: Write,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// How the rows of a table lie.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Each by itself, of that type.
    Plain(Dtype),
    /// In tiles.
    Packed,
}

/// What the numbers of a checked call mean.
#[derive(Clone, Copy, Debug)]
struct Types {
    layout: Layout,
    weight: Weight,
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
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        checks.range("packed", p.packed, 0..=1)?;
        checks.finite("scale", p.scale)?;
        let weight = Weight::parse(checks, &p.weight)?;
        let out = Dtype::parse_float(checks, "out_dtype", p.out_dtype)?;
        let matrix = |rows, row_stride| Rows { rows, row_stride, width: p.weight.inputs.into() };
        let layout = if p.packed == 1 {
            checks.equal("table_row_stride", 0, p.table_row_stride)?;
            weight.check(checks, "table", &self.table)?;
            Layout::Packed
        } else {
            let dtype = Dtype::parse_float(checks, "weight.dtype", p.weight.dtype)?;
            let rows = matrix(p.weight.outputs, p.table_row_stride);
            checks.matrix("table", dtype, rows, &self.table)?;
            Layout::Plain(dtype)
        };
        checks.words("tokens", Some(p.rows_max.into()), &self.tokens)?;
        checks.matrix("out", out, matrix(p.rows_max, p.out_row_stride), &self.out)?;
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        Ok(Types { layout, weight, out })
    }
}
