//! fp8 with four bits of exponent and three of mantissa (e4m3, finite only).

use crate::simd::{LANES, Lanes};

/// The bits of an e4m3 number: sign, exponent biased by 7, mantissa. No infinity;
/// all ones is NaN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct E4m3(pub u8);

/// The largest e4m3 number.
const MOST: f32 = 448.0;
/// The smallest normal one, 2⁻⁶.
const LEAST_NORMAL: f32 = 0.015_625;

impl E4m3 {
    /// The nearest number, ties to even, beyond the largest one the largest one.
    pub fn from_f32(x: f32) -> Self {
        let mut code = [0; LANES];
        store_e4m3(crate::simd::Scalar, [x; LANES], &mut code);
        Self(code[0])
    }

    /// As f32, exactly.
    pub fn to_f32(self) -> f32 {
        load_e4m3(crate::simd::Scalar, &[self.0; LANES])[0]
    }
}

/// Sixteen numbers as f32.
#[inline(always)]
pub fn load_e4m3<L: Lanes>(l: L, from: &[u8; LANES]) -> L::F {
    let code = l.load_u8(from);
    let sign = l.shl::<24>(l.iand(code, l.isplat(0x80)));
    let rest = l.iand(code, l.isplat(0x7f));
    let normal = l.iadd(l.shl::<20>(rest), l.isplat((127 - 7) << 23));
    // Subnormals count in units of 2⁻⁹.
    let tiny = l.bits_of(l.mul(l.to_float(rest), l.splat(1.0 / 512.0)));
    let value = l.iselect(l.igt(l.isplat(8), rest), tiny, normal);
    let value = l.iselect(l.ieq(rest, l.isplat(0x7f)), l.isplat(0x7fc0_0000), value);
    l.float_of_bits(l.ior(sign, value))
}

/// Sixteen numbers, rounded to nearest even and saturated.
#[inline(always)]
pub fn store_e4m3<L: Lanes>(l: L, v: L::F, to: &mut [u8; LANES]) {
    let bits = l.bits_of(v);
    let sign = l.iand(l.shr::<24>(bits), l.isplat(0x80));
    let magnitude = l.float_of_bits(l.iand(bits, l.isplat(0x7fff_ffff)));
    let capped = l.select(l.gt(magnitude, l.splat(MOST)), l.splat(MOST), magnitude);
    let units = l.iand(l.to_int(l.mul(capped, l.splat(512.0))), l.isplat(0xf));
    let bits = l.bits_of(capped);
    let odd = l.iand(l.shr::<20>(bits), l.isplat(1));
    let rounded = l.shr::<20>(l.iadd(bits, l.iadd(l.isplat(0x7ffff), odd)));
    let normal = l.isub(rounded, l.isplat((127 - 7) << 3));
    let code = l.iselect(l.gt(l.splat(LEAST_NORMAL), capped), units, normal);
    let code = l.iselect(l.mask(l.mask_bits(l.eq(v, v))), code, l.isplat(0x7f));
    l.store_u8(l.ior(sign, code), to);
}
