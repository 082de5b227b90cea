//! Rotary positions: pairs of dims of each head turn by an angle that grows with
//! the row's position.
//!
//! Order, per pair (a, b) of a head with the table's cos and sin of its position:
//! a' = fma(a, cos, −(b · sin)), b' = fma(b, cos, a · sin), each product rounded
//! on its own; then both are rounded to the output's type. Dims past `rotary_dims`
//! keep their value. A pair is (i, i + rotary_dims/2), or (2i, 2i + 1) interleaved.

mod cpu;
mod spec;
pub mod table;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::{Checks, Error, Fault};
use crate::params;

pub(crate) use cpu::rotate;
pub use cpu::run;
pub use spec::spec;

/// The most dims of a head.
pub const HEAD_DIM_MAX: usize = table::ROTARY_DIMS_MAX as usize;

crate::command! {
    /// `out = turned(x)`, in place where there is no x.
    pub struct Rope("rope", params::Rope) {
        /// `[rows_max, heads × head_dim]` of `x_dtype`, rows `x_row_stride` apart; absent, in place.
        x: MaybeRead,
        /// `[table_len, rotary_dims]` f32: cosines, then sines, of each position.
        table: Read,
        /// `[rows_max]` u32: position of each row, below `table_len`.
        positions: Read,
        /// `[rows_max, heads × head_dim]` of `out_dtype`, rows `out_row_stride` apart.
        out: Update,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// Which dims turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Dim i with dim i + rotary_dims/2.
    Neox,
    /// Dim 2i with dim 2i + 1.
    Interleaved,
}

impl Pairing {
    /// The pairing of that number, or none where the kernel need not turn.
    pub fn parse(checks: Checks, field: &'static str, number: u32) -> Result<Option<Self>, Error> {
        match number {
            params::ROPE_NONE => Ok(None),
            params::ROPE_NEOX => Ok(Some(Self::Neox)),
            params::ROPE_INTERLEAVED => Ok(Some(Self::Interleaved)),
            got => {
                let expected = "neox and interleaved pairs";
                Err(checks.refuse(field, Fault::Unsupported { expected, got: got.into() }))
            }
        }
    }
}

/// The element types and the pairing of a checked call.
#[derive(Clone, Copy, Debug)]
struct Call {
    x: Dtype,
    out: Dtype,
    pairing: Pairing,
}

impl<M: Memory> Rope<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        self.call().map(drop)
    }

    /// What a checked call takes with so many workers: nothing.
    pub fn needs(&self, _workers: u32) -> Result<Needs, Error> {
        self.call().map(|_| Needs::default())
    }

    fn call(&self) -> Result<Call, Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        checks.range("heads", p.heads, 1..=65_536)?;
        checks.range("head_dim", p.head_dim, 2..=HEAD_DIM_MAX as i64)?;
        checks.range("rotary_dims", p.rotary_dims, 2..=i64::from(p.head_dim))?;
        checks.multiple("rotary_dims", 2, p.rotary_dims.into())?;
        checks.range("table_len", p.table_len, 1..=i64::from(u32::MAX))?;
        let pairing = Pairing::parse(checks, "pairing", p.pairing)?;
        let pairing =
            pairing.ok_or(checks.refuse("pairing", Fault::Missing { needed_by: "rope" }))?;
        let x = Dtype::parse_float(checks, "x_dtype", p.x_dtype)?;
        let out = Dtype::parse_float(checks, "out_dtype", p.out_dtype)?;
        let width = u64::from(p.heads) * u64::from(p.head_dim);
        let matrix = |row_stride| Rows { rows: p.rows_max, row_stride, width };
        if let Some(span) = self.x.span() {
            checks.matrix("x", x, matrix(p.x_row_stride), span)?;
        } else {
            checks.equal("x_row_stride", 0, p.x_row_stride)?;
            checks.equal("x_dtype", p.out_dtype.into(), p.x_dtype.into())?;
        }
        checks.matrix("out", out, matrix(p.out_row_stride), &self.out)?;
        let turns = u64::from(p.table_len) * u64::from(p.rotary_dims);
        checks.words("table", Some(turns), &self.table)?;
        checks.words("positions", Some(p.rows_max.into()), &self.positions)?;
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        Ok(Call { x, out, pairing })
    }
}
