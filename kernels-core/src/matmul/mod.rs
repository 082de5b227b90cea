//! Matrix product: rows times the transpose of a packed weight, plus a bias. Fused
//! products (queries, keys and values; gate and up) are one weight whose outputs
//! follow each other, so their input is converted or quantised once.
//!
//! Order, for each row x and each output; nothing else takes part in it:
//! - inputs are cut into segments of 512; a segment is summed from zero and added to
//!   the total, which starts at zero, segments ascending;
//! - floats: in a segment, sum = fma(w, x, sum), k ascending, on f32;
//! - groups: x is quantised group by group, with m its largest magnitude:
//!   scale = m / 127, q = round(x · (127 / m)) with ties to even, which lies within
//!   ±127, and mass = scale · Σq. Where m < 2⁻¹⁰⁰, scale and every q are 0; where it
//!   is not finite, scale is NaN and every q is 0. Then, groups ascending,
//!   sum = fma(Σ w·q, w_scale · scale, sum), the integer sum exact and of the numbers
//!   without their storage offset, and, with an affine scheme,
//!   sum = fma(w_bias, mass, sum);
//! - at the end, with a bias, total + bias; then it is rounded to the type of out.

mod cpu;
mod floats;
mod grouped;
mod plan;
mod quantise;
mod spec;
mod tile;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::Error;
use crate::packing::Weight;
use crate::params;

pub use cpu::{convert, run};
pub use plan::Plan;
pub(crate) use quantise::Input;
pub use spec::{quantised, spec};
pub(crate) use tile::{Matrix, Rows as Converted, tiles};

/// Inputs that are summed from zero before they join the total.
pub const SEGMENT: usize = 512;

/// Below this magnitude a group of x counts as zeros: 127 / m would overflow. 2⁻¹⁰⁰.
const LEAST: f32 = f32::from_bits((127 - 100) << 23);

crate::command! {
    /// `out = x · weightᵀ + bias`.
    pub struct Matmul("matmul", params::Matmul) {
        /// `[rows_max, inputs]` of `x_dtype`, rows `x_row_stride` apart.
        x: Read,
        /// The matrix, packed as `weight` says.
        weight: Read,
        /// `[outputs]` of `bias_dtype`.
        bias: MaybeRead,
        /// `[rows_max, outputs]` of `out_dtype`, rows `out_row_stride` apart.
        out: Write,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// What the numbers of a checked call mean.
#[derive(Clone, Copy, Debug)]
struct Types {
    x: Dtype,
    bias: Option<Dtype>,
    out: Dtype,
    weight: Weight,
}

impl<M: Memory> Matmul<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        self.types().map(drop)
    }

    /// What a checked call takes with so many workers.
    pub fn needs(&self, workers: u32) -> Result<Needs, Error> {
        let types = self.types()?;
        let plan = plan::Plan::new(types.weight, self.params.rows_max as usize);
        Ok(Needs { workspace_bytes: plan.workspace_bytes(workers) as u64 })
    }

    fn types(&self) -> Result<Types, Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        let weight = Weight::parse(checks, &p.weight)?;
        let x = Dtype::parse_float(checks, "x_dtype", p.x_dtype)?;
        let out = Dtype::parse_float(checks, "out_dtype", p.out_dtype)?;
        let matrix =
            |row_stride, width: usize| Rows { rows: p.rows_max, row_stride, width: width as u64 };
        checks.matrix("x", x, matrix(p.x_row_stride, weight.inputs), &self.x)?;
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
        checks.matrix("out", out, matrix(p.out_row_stride, weight.outputs), &self.out)?;
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        Ok(Types { x, bias, out, weight })
    }
}
