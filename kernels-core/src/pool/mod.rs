//! One vector for each sequence from its rows of hidden states: the first row, the last
//! row, or their mean; divided by its length where embeddings are compared by angle.
//!
//! Order, for each sequence; nothing of another one takes part in it:
//! 1. first and last: the row itself, as f32;
//! 2. mean: each element is that of the first row plus those of the others one by one,
//!    rows ascending, and the sum is divided by the number of rows;
//! 3. normalised: squares into 16 partial sums, element i into sum i mod 16 by fma, i
//!    ascending, which fold as [`Lanes::sum`](crate::simd::Lanes::sum) says; length =
//!    max([`LENGTH_LEAST`], √sum); then each element is divided by it.
//!
//! A sequence without rows gives zeros. A NaN stays in its element, and with
//! `normalise` takes the whole vector of its sequence.

mod cpu;
mod spec;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::{Error, Fault};
use crate::params;

pub use cpu::run;
pub use spec::spec;

/// A vector shorter than this is divided by this: zeros stay zeros.
pub const LENGTH_LEAST: f32 = 1e-12;

crate::command! {
    /// `out[s] = pool(x[starts[s]..starts[s + 1]])`.
    pub struct Pool("pool", params::Pool) {
        /// `[rows_max, columns]` of `x_dtype`, rows `x_row_stride` apart.
        x: Read,
        /// `[seqs_max + 1]` u32, ascending, at most `rows_max`: sequence s has the rows
        /// from element s up to element s + 1.
        starts: Read,
        /// `[seqs_max, columns]` f32, rows `out_row_stride` apart.
        out: Write,
        /// `[1]` u32: sequences in use, at most `seqs_max`; absent, all of them.
        seqs: MaybeRead,
    }
}

/// Which rows a vector is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first: that of a class token.
    First,
    /// The last.
    Last,
    /// All, each as much.
    Mean,
}

/// What the numbers of a checked call mean.
#[derive(Clone, Copy, Debug)]
struct Call {
    x: Dtype,
    kind: Kind,
}

impl<M: Memory> Pool<M> {
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
        checks.range("seqs_max", p.seqs_max, 1..=1 << 24)?;
        checks.range("columns", p.columns, 1..=1 << 24)?;
        let x = Dtype::parse_float(checks, "x_dtype", p.x_dtype)?;
        let kind = match p.kind {
            params::POOL_FIRST => Kind::First,
            params::POOL_LAST => Kind::Last,
            params::POOL_MEAN => Kind::Mean,
            other => {
                let expected = "first, last and mean";
                let fault = Fault::Unsupported { expected, got: other.into() };
                return Err(checks.refuse("kind", fault));
            }
        };
        checks.range("normalise", p.normalise, 0..=1)?;
        let matrix = |rows, row_stride| Rows { rows, row_stride, width: p.columns.into() };
        checks.matrix("x", x, matrix(p.rows_max, p.x_row_stride), &self.x)?;
        checks.words("starts", Some(u64::from(p.seqs_max) + 1), &self.starts)?;
        checks.matrix("out", Dtype::F32, matrix(p.seqs_max, p.out_row_stride), &self.out)?;
        if let Some(seqs) = self.seqs.span() {
            checks.words("seqs", Some(1), seqs)?;
        }
        Ok(Call { x, kind })
    }
}
