//! Pages read one number at a time: what specifications use.

use super::{KvLayout, Part, Place, Scales, per_cell};
use crate::dtype::Dtype;
use crate::math::{E4m3, Real};

/// Slabs to read one number at a time: what specifications use.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Where things lie.
    pub kv: &'a KvLayout,
    /// The slab of K, or of both.
    pub keys: &'a [u8],
    /// The slab of V where it is apart.
    pub values: Option<&'a [u8]>,
    /// The slab of token scales.
    pub scales: Option<&'a [u8]>,
}

impl Stored<'_> {
    /// The key or value of a dim: its stored number times its scale.
    pub fn number<R: Real>(&self, part: Part, place: Place, dim: u32) -> R {
        R::of(self.code(part, place, dim).into()) * R::of(self.scale(part, place).into())
    }

    /// The stored number.
    pub fn code(&self, part: Part, place: Place, dim: u32) -> f32 {
        let (kv, dim) = (self.kv, u64::from(dim));
        let slab = match part {
            Part::Values => self.values.unwrap_or(self.keys),
            Part::Keys => self.keys,
        };
        let cell = kv.cell(part, place) + dim / per_cell(kv.dtype) * kv.dim_stride(part);
        let at = (cell * kv.cell_bytes()) as usize;
        let half = u16::from_le_bytes([slab[at], *slab.get(at + 1).unwrap_or(&0)]);
        match kv.dtype {
            Dtype::F32 => {
                let bytes = slab[at..].first_chunk().expect("the slab was checked");
                f32::from_le_bytes(*bytes)
            }
            Dtype::F16 => half::f16::from_bits(half).to_f32(),
            Dtype::Bf16 => half::bf16::from_bits(half).to_f32(),
            Dtype::E4m3 => E4m3(slab[at]).to_f32(),
            Dtype::I8 => f32::from(slab[at] as i8),
            // Up to the sign's place, then down with the sign.
            Dtype::I4 if dim.is_multiple_of(2) => f32::from((slab[at] << 4) as i8 >> 4),
            Dtype::I4 => f32::from(slab[at] as i8 >> 4),
        }
    }

    /// What the stored number is to be multiplied by.
    pub fn scale(&self, part: Part, place: Place) -> f32 {
        match self.kv.scales {
            Scales::None => 1.0,
            Scales::Static { k, v } => {
                if part == Part::Keys {
                    k
                } else {
                    v
                }
            }
            Scales::Token => {
                let at = self.kv.scale(part, place) as usize * 4;
                let bytes = self.scales.and_then(|scales| scales[at..].first_chunk());
                f32::from_le_bytes(*bytes.expect("the slab of scales was checked"))
            }
        }
    }
}
