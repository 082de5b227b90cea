//! What stands between the two halves of a feed-forward layer: silu(gate) · up
//! (SwiGLU) or gelu(gate) · up over rows `[gate | up]`, or either function alone.
//!
//! Order, per element g: silu = g / (1 + exp(−g)); gelu, by tanh, is the same with
//! exp(−z), z = g · fma(g · g, [`GELU_CUBIC`], [`GELU_LINEAR`]): for
//! (1 + tanh(t)) / 2 = 1 / (1 + exp(−2t)). Then times up. Each step is rounded once,
//! and the last one to the output's type. −∞ gives NaN, as its formula does; where
//! [`exp`](crate::math::exp) ends, past −88.38, results below 4e−37 are −0.

mod cpu;
mod spec;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::{Error, Fault};
use crate::params;

pub use cpu::run;
pub use spec::spec;

/// 2·√(2/π).
pub const GELU_LINEAR: f32 = 1.595_769;
/// 2·√(2/π) · 0.044715.
pub const GELU_CUBIC: f32 = 0.071_354_814;

crate::command! {
    /// `out = f(gate) · up`, or `f(gate)` without up.
    pub struct Activation("activation", params::Activation) {
        /// `[rows_max, up_offset + columns]` of `x_dtype`, rows `x_row_stride` apart: gate
        /// in the first columns, up from `up_offset` on. With `up_offset` 0, gate alone.
        x: Read,
        /// `[rows_max, columns]` of `out_dtype`, rows `out_row_stride` apart.
        out: Write,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// The function of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// g · sigmoid(g).
    Silu,
    /// g · (1 + tanh(√(2/π) · (g + 0.044715 · g³))) / 2.
    GeluTanh,
}

/// The element types and the function of a checked call.
#[derive(Clone, Copy, Debug)]
struct Call {
    x: Dtype,
    out: Dtype,
    kind: Kind,
}

impl<M: Memory> Activation<M> {
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
        checks.range("columns", p.columns, 1..=1 << 24)?;
        if p.up_offset != 0 {
            checks.range("up_offset", p.up_offset, p.columns.into()..=1 << 25)?;
        }
        let kind = match p.kind {
            params::ACTIVATION_SILU => Kind::Silu,
            params::ACTIVATION_GELU_TANH => Kind::GeluTanh,
            got => {
                let expected = "silu and gelu by tanh";
                return Err(checks.refuse("kind", Fault::Unsupported { expected, got: got.into() }));
            }
        };
        let x = Dtype::parse_float(checks, "x_dtype", p.x_dtype)?;
        let out = Dtype::parse_float(checks, "out_dtype", p.out_dtype)?;
        let width = u64::from(p.up_offset) + u64::from(p.columns);
        let matrix = |row_stride, width| Rows { rows: p.rows_max, row_stride, width };
        checks.matrix("x", x, matrix(p.x_row_stride, width), &self.x)?;
        checks.matrix("out", out, matrix(p.out_row_stride, p.columns.into()), &self.out)?;
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        Ok(Call { x, out, kind })
    }
}
