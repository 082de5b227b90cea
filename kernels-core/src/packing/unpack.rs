//! From tiles back to one row: a token's embedding, where its weights are tied.

use super::{Groups, TILE, Values, Weight};
use crate::dtype::Dtype;
use crate::simd::{LANES, Lanes, store_at};
use half::{bf16, f16};

crate::levels! {
    /// The values of one output of a packed matrix, whose words are `packed`, as f32:
    /// floats exactly, numbers in groups as [`packing`](crate::packing) says.
    pub fn unpack_row(weight: &Weight, packed: &[u8], output: usize, row: &mut [f32]) = unpack_row_body;
}

#[inline(always)]
fn unpack_row_body<L: Lanes>(l: L, weight: &Weight, packed: &[u8], output: usize, row: &mut [f32]) {
    let output = Output::of(weight, packed, output);
    let row = &mut row[..weight.inputs];
    let mut at = 0;
    while at < weight.inputs {
        store_at(l, output.load(l, at), row, at);
        at += LANES;
    }
}

/// One output of a packed matrix: a row, whose elements lie apart.
#[derive(Clone, Copy)]
pub(crate) struct Output<'a> {
    weight: &'a Weight,
    tile: &'a [u8],
    lane: usize,
}

impl<'a> Output<'a> {
    /// The output of that number.
    #[inline(always)]
    pub fn of(weight: &'a Weight, packed: &'a [u8], output: usize) -> Self {
        Self { weight, tile: weight.tile(packed, output / TILE), lane: output % TILE }
    }

    /// Sixteen values from input `at`, a multiple of sixteen; past the last one, zeros.
    #[inline(always)]
    pub fn load<L: Lanes>(self, l: L, at: usize) -> L::F {
        match self.weight.values {
            Values::Floats(dtype) => {
                let mut values = [0.0; LANES];
                for (value, k) in values.iter_mut().zip(at..self.weight.inputs) {
                    let place = match dtype {
                        Dtype::Bf16 => (k / 2 * TILE + self.lane) * 2 + k % 2,
                        _ => k * TILE + self.lane,
                    };
                    *value = float(dtype, self.tile, place);
                }
                l.load(&values)
            }
            Values::Groups(groups) => {
                let group = &self.tile[at / groups.len * groups.bytes()..][..groups.bytes()];
                load_group(l, groups, group, self.lane, at % groups.len)
            }
        }
    }
}

/// Sixteen values of one output from input `at` of a group, a multiple of sixteen.
#[inline(always)]
fn load_group<L: Lanes>(l: L, groups: Groups, group: &[u8], lane: usize, at: usize) -> L::F {
    let (head, body) = group.split_at(groups.head_bytes());
    let mut stored = [[0; 4]; LANES / 4];
    if groups.nibbles {
        let (eights, _) = stored.as_chunks_mut::<2>();
        for (i, [first, second]) in eights.iter_mut().enumerate() {
            let word = word(body, (at / 8 + i) * TILE + lane);
            *first = (word & 0x0f0f_0f0f).to_le_bytes();
            *second = (word >> 4 & 0x0f0f_0f0f).to_le_bytes();
        }
    } else {
        for (i, four) in stored.iter_mut().enumerate() {
            *four = word(body, (at / 4 + i) * TILE + lane).to_le_bytes();
        }
    }
    let stored = l.load_u8(bytemuck::must_cast_ref(&stored));
    let number = l.to_float(l.isub(stored, l.isplat(groups.offset())));
    let scale = l.splat(float(groups.scale, head, lane));
    if groups.affine {
        l.fma(number, scale, l.splat(float(groups.scale, head, TILE + lane)))
    } else {
        l.mul(number, scale)
    }
}

/// Four packed bytes, the first the lowest.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = &bytes[4 * at..4 * at + 4];
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// One float of packed bytes.
#[inline(always)]
fn float(dtype: Dtype, bytes: &[u8], at: usize) -> f32 {
    match dtype {
        Dtype::F32 => f32::from_bits(word(bytes, at)),
        Dtype::F16 => f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32(),
        _ => bf16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32(),
    }
}
