//! The log-probability of one token for each row of hidden states, without a matrix
//! of logits: the product with the output weights and the sum of exponentials go
//! block by block.
//!
//! Order, for one row: logits as [`matmul`](crate::matmul) computes them, in f32;
//! then everything as [`vocabulary`](crate::vocabulary) says, whose blocks are the
//! blocks here. So the result has the bits of the raw log-probability that
//! [`sample`](crate::sample) gives for those logits.

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
    /// `logprob = log_softmax(x · weightᵀ + bias)[token]`.
    pub struct TokenLogprob("token_logprob", params::TokenLogprob) {
        /// `[rows_max, inputs]` of `x_dtype`, rows `x_row_stride` apart.
        x: Read,
        /// The output weights, packed as `weight` says: a row for each token.
        weight: Read,
        /// `[outputs]` of `bias_dtype`.
        bias: MaybeRead,
        /// `[rows_max]` u32: the token of each row, below `outputs`.
        token: Read,
        /// `[rows_max]` f32: its log-probability, NaN where the status is not OK.
        logprob: Write,
        /// `[rows_max]` u32: `PWK_STATUS_*`.
        status: Write,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// What the numbers of a checked call mean.
#[derive(Clone, Copy, Debug)]
struct Types {
    x: Dtype,
    bias: Option<Dtype>,
    weight: Weight,
}

impl<M: Memory> TokenLogprob<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        self.types().map(drop)
    }

    /// What a checked call takes with so many workers.
    pub fn needs(&self, workers: u32) -> Result<Needs, Error> {
        let layout = cpu::Layout::new(self.types()?.weight, self.params.rows_max);
        Ok(Needs { workspace_bytes: layout.words(workers) as u64 * 4 })
    }

    fn types(&self) -> Result<Types, Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        checks.equal("reserved", 0, u64::from(p.reserved))?;
        let weight = Weight::parse(checks, &p.weight)?;
        let x = Dtype::parse_float(checks, "x_dtype", p.x_dtype)?;
        let (rows, width) = (p.rows_max, weight.inputs as u64);
        checks.matrix("x", x, Rows { rows, row_stride: p.x_row_stride, width }, &self.x)?;
        weight.check(checks, "weight", &self.weight)?;
        let bias = match self.bias.span() {
            None => {
                checks.equal("bias_dtype", 0, u64::from(p.bias_dtype))?;
                None
            }
            Some(bias) => {
                let dtype = Dtype::parse_float(checks, "bias_dtype", p.bias_dtype)?;
                checks.buffer("bias", dtype, Some(weight.outputs as u64), bias)?;
                Some(dtype)
            }
        };
        let rows = Some(u64::from(rows));
        checks.words("token", rows, &self.token)?;
        checks.words("logprob", rows, &self.logprob)?;
        checks.words("status", rows, &self.status)?;
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        Ok(Types { x, bias, weight })
    }
}
