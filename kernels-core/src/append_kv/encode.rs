//! One token's K or V of one head, from f32 to the cells of its pages.

use crate::dtype::Dtype;
use crate::kv_layout::{KvLayout, Part, Place, Scales};
use crate::math::store_e4m3;
use crate::rope::HEAD_DIM_MAX;
use crate::simd::{LANES, Lanes, store_at};
use crate::workers::PagePart;
use half::{bf16, f16};

/// The smallest scale: below it 1 / scale may be infinite, and the row counts as zeros.
const SCALE_LEAST: f32 = f32::MIN_POSITIVE;

/// The cells of one token, whatever their type, and its scale where it has one.
pub(super) struct Encoded {
    words: [f32; HEAD_DIM_MAX],
    scale: Option<f32>,
}

impl Encoded {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { words: [0.0; HEAD_DIM_MAX], scale: None }
    }

    /// Takes the first `head_dim` numbers of `wide`; those past them are zero.
    #[inline(always)]
    pub(super) fn take<L: Lanes>(
        &mut self,
        l: L,
        kv: &KvLayout,
        part: Part,
        wide: &[f32; HEAD_DIM_MAX],
    ) {
        let head_dim = kv.params().head_dim as usize;
        let wide = &wide[..head_dim.next_multiple_of(LANES)];
        let steps = match kv.dtype() {
            Dtype::F32 => return self.words[..wide.len()].copy_from_slice(wide),
            Dtype::F16 => return round::<f16, L>(l, wide, &mut self.words),
            Dtype::Bf16 => return round::<bf16, L>(l, wide, &mut self.words),
            Dtype::E4m3 => 448.0,
            Dtype::I8 => 127.0,
            Dtype::I4 => 7.0,
        };
        let scale = match (kv.scales(), part) {
            (Scales::Static { k, .. }, Part::Keys) => k,
            (Scales::Static { v, .. }, Part::Values) => v,
            _ => token_scale(l, wide, steps),
        };
        let of_token = kv.scales() == Scales::Token;
        self.scale = of_token.then_some(scale);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words);
        // A scale of zero or NaN says it all.
        if of_token && (scale == 0.0 || scale.is_nan()) {
            bytes[..wide.len()].fill(0);
            return;
        }
        match kv.dtype() {
            Dtype::E4m3 => float_bytes(l, wide, scale, bytes),
            Dtype::I8 => whole_bytes(l, wide, scale, bytes),
            _ => nibbles(l, wide, scale, bytes),
        }
    }

    /// Writes the cells, and the scale, to one place.
    #[inline(always)]
    pub(super) fn put(&self, kv: &KvLayout, part: Part, place: Place, pages: &mut PagePart<'_>) {
        let cells = kv.dim_cells() as usize;
        match kv.cell_bytes() {
            4 => pages.write::<f32>(part, place, &self.words[..cells]),
            2 => pages.write(part, place, &bytemuck::cast_slice::<f32, u16>(&self.words)[..cells]),
            _ => pages.write(part, place, &bytemuck::cast_slice::<f32, u8>(&self.words)[..cells]),
        }
        if let Some(scale) = self.scale {
            pages.write_scale(part, place, scale);
        }
    }
}

#[inline(always)]
fn round<T: crate::simd::Element, L: Lanes>(l: L, wide: &[f32], words: &mut [f32; HEAD_DIM_MAX]) {
    let narrow: &mut [T] = bytemuck::cast_slice_mut(words);
    for (at, sixteen) in wide.as_chunks::<LANES>().0.iter().enumerate() {
        store_at(l, l.load(sixteen), narrow, at * LANES);
    }
}

/// The largest magnitude over `steps`: 0 where it is too small, NaN where a number is
/// not finite.
#[inline(always)]
fn token_scale<L: Lanes>(l: L, wide: &[f32], steps: f32) -> f32 {
    // As integers the magnitudes order like the floats, with infinity and NaN on top:
    // the largest is the same in any order.
    let mut most = l.isplat(0);
    for sixteen in wide.as_chunks::<LANES>().0 {
        let magnitude = l.iand(l.bits_of(l.load(sixteen)), l.isplat(0x7fff_ffff));
        most = l.iselect(l.igt(magnitude, most), magnitude, most);
    }
    let mut lanes = [0; LANES];
    l.istore(most, &mut lanes);
    let mut most = 0;
    for lane in lanes {
        most = if lane > most { lane } else { most };
    }
    let most = f32::from_bits(most as u32);
    let scale = most / steps;
    if !most.is_finite() {
        f32::NAN
    } else if scale < SCALE_LEAST {
        0.0
    } else {
        scale
    }
}

#[inline(always)]
fn float_bytes<L: Lanes>(l: L, wide: &[f32], scale: f32, bytes: &mut [u8]) {
    let to = bytes.as_chunks_mut::<LANES>().0;
    for (sixteen, to) in wide.as_chunks::<LANES>().0.iter().zip(to) {
        store_e4m3(l, l.div(l.load(sixteen), l.splat(scale)), to);
    }
}

/// x / scale as whole numbers within ±`most`; zero for NaN.
#[inline(always)]
fn whole<L: Lanes>(l: L, sixteen: &[f32; LANES], scale: f32, most: f32) -> L::I {
    let x = l.div(l.load(sixteen), l.splat(scale));
    let x = l.select(l.gt(x, l.splat(most)), l.splat(most), x);
    let x = l.select(l.gt(l.splat(-most), x), l.splat(-most), x);
    l.to_int(l.select(l.eq(x, x), x, l.splat(0.0)))
}

#[inline(always)]
fn whole_bytes<L: Lanes>(l: L, wide: &[f32], scale: f32, bytes: &mut [u8]) {
    let to = bytes.as_chunks_mut::<LANES>().0;
    for (sixteen, to) in wide.as_chunks::<LANES>().0.iter().zip(to) {
        l.store_u8(whole(l, sixteen, scale, 127.0), to);
    }
}

#[inline(always)]
fn nibbles<L: Lanes>(l: L, wide: &[f32], scale: f32, bytes: &mut [u8]) {
    let to = bytes.as_chunks_mut::<{ LANES / 2 }>().0;
    for (sixteen, to) in wide.as_chunks::<LANES>().0.iter().zip(to) {
        let mut codes = [0; LANES];
        l.store_u8(whole(l, sixteen, scale, 7.0), &mut codes);
        for (byte, pair) in to.iter_mut().zip(codes.as_chunks::<2>().0) {
            *byte = pair[0] & 15 | pair[1] << 4;
        }
    }
}
