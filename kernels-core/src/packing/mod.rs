//! Weights as they lie in memory for [`matmul`](crate::matmul), for looking up one
//! row of a tied embedding, and for whatever else multiplies by them.
//!
//! A matrix `[outputs][inputs]` is cut into tiles of 32 outputs; a tile holds all
//! of its inputs one after the other, so that a product reads memory once and in
//! order. The last tile is as long as the others; what its absent outputs hold is
//! never looked at. Everything starts at a multiple of 64 bytes. A tile is
//!
//! - f32, f16: `[inputs][32]`;
//! - bf16: `[⌈inputs / 2⌉][32][2]`, two inputs of one output side by side;
//! - I8 in groups: for each group `[32] scale`, with an affine scheme `[32] bias`,
//!   then `[group / 4][32][4]` unsigned bytes, four inputs of one output together;
//! - I4 in groups: the same head, then `[group / 8][32][4]` bytes: byte j of eight
//!   inputs k has input k + j in its low nibble and k + 4 + j in its high one.
//!
//! Whole numbers of a symmetric scheme are stored with 128 or 8 added. The value of
//! a number q is q · scale, or fma(q, scale, bias) with an affine scheme.
//! Matrices that share their input (queries, keys and values; gate and up) are
//! packed as one, their outputs one after the other.

mod pack;
mod spec;
mod unpack;

use crate::command::Span;
use crate::dtype::Dtype;
use crate::error::{Checks, Error, Fault};
use crate::params;

pub use pack::{Source, pack, packed_bytes};
pub use spec::dequantise;
pub(crate) use unpack::Output;
pub use unpack::unpack_row;

/// Outputs of a tile: two vectors.
pub const TILE: usize = 32;
/// Where packed weights start: at a multiple of so many bytes.
pub const ALIGN: u64 = 64;

/// A packed matrix, as its checked parameters describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Rows of the matrix.
    pub outputs: usize,
    /// Its columns.
    pub inputs: usize,
    /// What its elements are.
    pub values: Values,
}

/// The elements of a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// f32, f16 or bf16.
    Floats(Dtype),
    /// Whole numbers in groups.
    Groups(Groups),
}

/// How whole numbers become values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Two numbers a byte, or one.
    pub nibbles: bool,
    /// Whether a group has a bias.
    pub affine: bool,
    /// Inputs of a group.
    pub len: usize,
    /// The type of scale and bias.
    pub scale: Dtype,
}

impl Groups {
    /// What is added to a number when it is stored.
    pub const fn offset(&self) -> i32 {
        match (self.affine, self.nibbles) {
            (true, _) => 0,
            (false, true) => 8,
            (false, false) => 128,
        }
    }

    /// Bytes of a group's scales, and of its biases where it has them.
    pub const fn head_bytes(&self) -> usize {
        TILE * self.scale.align() as usize * (1 + self.affine as usize)
    }

    /// Bytes of a group's numbers.
    pub const fn number_bytes(&self) -> usize {
        (TILE * self.len) >> self.nibbles as usize
    }

    /// Bytes of a group of a tile.
    pub const fn bytes(&self) -> usize {
        self.head_bytes() + self.number_bytes()
    }
}

impl Weight {
    /// The matrix that checked parameters describe.
    pub fn parse(checks: Checks, p: &params::Weight) -> Result<Self, Error> {
        checks.range("weight.outputs", p.outputs, 1..=1 << 24)?;
        checks.range("weight.inputs", p.inputs, 1..=1 << 20)?;
        let allowed = [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::I8, Dtype::I4];
        let dtype = Dtype::parse(checks, "weight.dtype", p.dtype, &allowed)?;
        let values = match dtype {
            Dtype::I8 | Dtype::I4 => {
                checks.range("weight.scheme", p.scheme, 1..=2)?;
                if ![32, 64, 128].contains(&p.group) {
                    let fault = Fault::Unsupported {
                        expected: "groups of 32, 64 and 128",
                        got: i64::from(p.group),
                    };
                    return Err(checks.refuse("weight.group", fault));
                }
                checks.multiple("weight.inputs", u64::from(p.group), u64::from(p.inputs))?;
                Values::Groups(Groups {
                    nibbles: dtype == Dtype::I4,
                    affine: p.scheme == params::SCHEME_AFFINE,
                    len: p.group as usize,
                    scale: Dtype::parse_float(checks, "weight.scale_dtype", p.scale_dtype)?,
                })
            }
            _ => {
                checks.equal("weight.scheme", 0, u64::from(p.scheme))?;
                checks.equal("weight.group", 0, u64::from(p.group))?;
                checks.equal("weight.scale_dtype", 0, u64::from(p.scale_dtype))?;
                Values::Floats(dtype)
            }
        };
        Ok(Self { outputs: p.outputs as usize, inputs: p.inputs as usize, values })
    }

    /// The buffer holds this matrix.
    pub fn check(&self, checks: Checks, field: &'static str, span: &dyn Span) -> Result<(), Error> {
        checks.holds(field, Some(self.bytes()), span.bytes())?;
        checks.aligned(field, ALIGN, span)
    }

    /// Tiles of the matrix.
    pub const fn tiles(&self) -> usize {
        self.outputs.div_ceil(TILE)
    }

    /// Bytes of a tile: at most 2²⁷.
    pub const fn tile_bytes(&self) -> usize {
        match self.values {
            Values::Floats(Dtype::F32) => self.inputs * TILE * 4,
            Values::Floats(Dtype::Bf16) => self.inputs.div_ceil(2) * TILE * 4,
            Values::Floats(_) => self.inputs * TILE * 2,
            Values::Groups(groups) => self.inputs / groups.len * groups.bytes(),
        }
    }

    /// Bytes of the matrix.
    pub const fn bytes(&self) -> u64 {
        self.tiles() as u64 * self.tile_bytes() as u64
    }

    /// The bytes of one tile of a checked buffer.
    pub fn tile<'a>(&self, packed: &'a [u8], tile: usize) -> &'a [u8] {
        let bytes = self.tile_bytes();
        &packed[tile * bytes..(tile + 1) * bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::{Groups, Values, Weight};
    use crate::dtype::Dtype;

    #[test]
    fn a_group_of_32_nibbles_with_f16_scale_and_bias_takes_640_bytes() {
        let groups = Groups { nibbles: true, affine: true, len: 32, scale: Dtype::F16 };
        assert_eq!(groups.bytes(), 64 + 64 + 32 * 16);
        let weight = Weight { outputs: 33, inputs: 64, values: Values::Groups(groups) };
        assert_eq!((weight.tiles(), weight.bytes()), (2, 2 * 2 * 640));
    }

    #[test]
    fn bf16_pads_an_odd_input() {
        let weight = Weight { outputs: 32, inputs: 3, values: Values::Floats(Dtype::Bf16) };
        assert_eq!(weight.bytes(), 2 * 128);
    }
}
