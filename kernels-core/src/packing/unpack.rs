//! From tiles back to one row: a token's embedding, where its weights are tied.

use super::{Groups, TILE, Values, Weight};
use crate::dtype::Dtype;
use crate::simd::{LANES, Lanes, load_part, store_part};
use half::{bf16, f16};

crate::levels! {
    /// The values of one output of a packed matrix, whose words are `packed`, as f32:
    /// floats exactly, numbers in groups as [`packing`](crate::packing) says.
    pub fn unpack_row(weight: &Weight, packed: &[u8], output: usize, row: &mut [f32]) = unpack_row_body;
}

/// [`unpack_row`] within a kernel's own level.
#[inline(always)]
pub(crate) fn unpack_row_body<L: Lanes>(
    l: L,
    weight: &Weight,
    packed: &[u8],
    output: usize,
    row: &mut [f32],
) {
    let (tile, lane) = (weight.tile(packed, output / TILE), output % TILE);
    let row = &mut row[..weight.inputs];
    match weight.values {
        Values::Floats(dtype) => {
            for (k, value) in row.iter_mut().enumerate() {
                let at = match dtype {
                    Dtype::Bf16 => (k / 2 * TILE + lane) * 2 + k % 2,
                    _ => k * TILE + lane,
                };
                *value = float(dtype, tile, at);
            }
        }
        Values::Groups(groups) => {
            let parts = tile.chunks_exact(groups.bytes()).zip(row.chunks_exact_mut(groups.len));
            for (part, values) in parts {
                unpack_group(l, groups, part, lane, values);
            }
        }
    }
}

/// One group of one output.
#[inline(always)]
fn unpack_group<L: Lanes>(l: L, groups: Groups, part: &[u8], lane: usize, values: &mut [f32]) {
    let (head, body) = part.split_at(groups.head_bytes());
    let scale = l.splat(float(groups.scale, head, lane));
    for (at, values) in values.chunks_exact_mut(LANES).enumerate() {
        let mut numbers = [0.0; LANES];
        for (i, number) in numbers.iter_mut().enumerate() {
            let k = at * LANES + i;
            let stored = if groups.nibbles {
                body[(k / 8 * TILE + lane) * 4 + k % 4] >> (k & 4) & 15
            } else {
                body[(k / 4 * TILE + lane) * 4 + k % 4]
            };
            *number = (i32::from(stored) - groups.offset()) as f32;
        }
        let number = load_part(l, &numbers, 0.0);
        let value = if groups.affine {
            l.fma(number, scale, l.splat(float(groups.scale, head, TILE + lane)))
        } else {
            l.mul(number, scale)
        };
        store_part(l, value, values);
    }
}

/// One float of packed bytes.
#[inline(always)]
fn float(dtype: Dtype, bytes: &[u8], at: usize) -> f32 {
    match dtype {
        Dtype::F32 => {
            let bytes = &bytes[4 * at..4 * at + 4];
            f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        }
        Dtype::F16 => f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32(),
        _ => bf16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32(),
    }
}
