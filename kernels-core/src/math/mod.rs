//! Arithmetic that every kernel shares: one exp, one log, one source of noise,
//! one way to round to each small format.

mod fp8;
pub mod philox;
mod real;
mod tanh;

use crate::simd::Lanes;

pub use fp8::{E4m3, load_e4m3, store_e4m3};
pub use real::Real;
pub use tanh::{tanh, tanh_slice};

/// Below this, [`exp`] is exactly zero: results would be subnormal.
pub const EXP_LEAST: f32 = -87.0;
/// Above this, [`exp`] is infinite: its scale would leave the exponent's range.
pub const EXP_MOST: f32 = 88.376_26;

/// ln 2 with twelve bits to spare, so that small multiples of it are exact; and the rest.
const LN2_HIGH: f32 = 0.693_115_23;
const LN2_LOW: f32 = 3.194_618_3e-5;

/// eˣ: within 2 ulp, exp(0) = 1 exactly, 0 below [`EXP_LEAST`], infinite above
/// [`EXP_MOST`], NaN for NaN.
///
/// Order: n = round(x·log₂e); r = x − n·ln2 in two fma; a polynomial of degree 6 in
/// r by Horner in fma; times 2ⁿ.
#[inline(always)]
pub fn exp<L: Lanes>(l: L, x: L::F) -> L::F {
    l.select(l.gt(x, l.splat(EXP_MOST)), l.splat(f32::INFINITY), exp_below(l, x))
}

/// [`exp`] where x is at most [`EXP_MOST`], or NaN; any value elsewhere.
#[inline(always)]
pub fn exp_below<L: Lanes>(l: L, x: L::F) -> L::F {
    // A polynomial for (eʳ − 1 − r) / r² on |r| ≤ ln2 / 2, relative error of eʳ 3e-9.
    const C: [f32; 5] =
        [0.499_999_94, 0.166_665_21, 0.041_668_39, 0.008_368_717_5, 0.001_381_459_6];
    let n = l.to_int(l.mul(x, l.splat(core::f32::consts::LOG2_E)));
    let whole = l.to_float(n);
    let r = l.fma(whole, l.splat(-LN2_HIGH), x);
    let r = l.fma(whole, l.splat(-LN2_LOW), r);
    let p = l.splat(C[4]);
    let p = l.fma(p, r, l.splat(C[3]));
    let p = l.fma(p, r, l.splat(C[2]));
    let p = l.fma(p, r, l.splat(C[1]));
    let p = l.fma(p, r, l.splat(C[0]));
    let p = l.fma(p, r, l.splat(1.0));
    let p = l.fma(p, r, l.splat(1.0));
    let scale = l.float_of_bits(l.shl::<23>(l.iadd(n, l.isplat(127))));
    // NaN goes through r; where n means nothing the answer is chosen.
    l.select(l.gt(l.splat(EXP_LEAST), x), l.splat(0.0), l.mul(p, scale))
}

/// The natural logarithm: within 2 ulp; −∞ at 0, NaN below it, +∞ at +∞.
///
/// Order: x = m·2ᵉ with m in [√½, √2), f = m − 1;
/// ln x = e·ln2_low + (f³·P(f) − f²/2) + f + e·ln2_high, each step one fma.
#[inline(always)]
pub fn log<L: Lanes>(l: L, x: L::F) -> L::F {
    const P: [f32; 8] = [
        0.333_333_3,
        -0.250_008_23,
        0.200_012_27,
        -0.166_233_57,
        0.142_017_62,
        -0.131_601_94,
        0.127_615_5,
        -0.076_344_3,
    ];
    // Subnormals are lifted into the normal range first.
    let small = l.gt(l.splat(f32::MIN_POSITIVE), x);
    let lifted = l.select(small, l.mul(x, l.splat(8_388_608.0)), x);
    let offset = l.iselect(small, l.isplat(-23), l.isplat(0));
    // Subtracting the bits of √½ leaves the exponent of m in [√½, √2) on top.
    let root = l.isplat(0x3f35_04f3);
    let bits = l.bits_of(lifted);
    let exponent = l.sar::<23>(l.isub(bits, root));
    let m = l.float_of_bits(l.isub(bits, l.shl::<23>(exponent)));
    let e = l.to_float(l.iadd(exponent, offset));
    let f = l.sub(m, l.splat(1.0));
    let p = l.splat(P[7]);
    let p = l.fma(p, f, l.splat(P[6]));
    let p = l.fma(p, f, l.splat(P[5]));
    let p = l.fma(p, f, l.splat(P[4]));
    let p = l.fma(p, f, l.splat(P[3]));
    let p = l.fma(p, f, l.splat(P[2]));
    let p = l.fma(p, f, l.splat(P[1]));
    let p = l.fma(p, f, l.splat(P[0]));
    let square = l.mul(f, f);
    let tail = l.mul(l.mul(p, f), square);
    let tail = l.fma(e, l.splat(LN2_LOW), tail);
    let tail = l.fma(square, l.splat(-0.5), tail);
    let y = l.fma(e, l.splat(LN2_HIGH), l.add(f, tail));
    let y = l.select(l.eq(x, l.splat(f32::INFINITY)), x, y);
    let y = l.select(l.eq(x, l.splat(0.0)), l.splat(f32::NEG_INFINITY), y);
    l.select(l.ge(x, l.splat(0.0)), y, l.splat(f32::NAN))
}

/// [`exp`] of one number, by the same steps.
#[inline(always)]
pub fn exp_one<L: Lanes>(l: L, x: f32) -> f32 {
    first(l, exp(l, l.splat(x)))
}

/// [`log`] of one number, by the same steps.
#[inline(always)]
pub fn log_one<L: Lanes>(l: L, x: f32) -> f32 {
    first(l, log(l, l.splat(x)))
}

#[inline(always)]
fn first<L: Lanes>(l: L, v: L::F) -> f32 {
    let mut lane = [0.0; crate::simd::LANES];
    l.store(v, &mut lane);
    lane[0]
}

crate::levels! {
    /// eˣ in place, at a level; for tests and for callers outside of a kernel.
    pub fn exp_slice(values: &mut [f32]) = exp_body;
}

crate::levels! {
    /// ln x in place, at a level; for tests and for callers outside of a kernel.
    pub fn log_slice(values: &mut [f32]) = log_body;
}

#[inline(always)]
fn exp_body<L: Lanes>(l: L, values: &mut [f32]) {
    for part in values.chunks_mut(crate::simd::LANES) {
        let y = exp(l, crate::simd::load_part(l, part, 0.0));
        crate::simd::store_part(l, y, part);
    }
}

#[inline(always)]
fn log_body<L: Lanes>(l: L, values: &mut [f32]) {
    for part in values.chunks_mut(crate::simd::LANES) {
        let y = log(l, crate::simd::load_part(l, part, 1.0));
        crate::simd::store_part(l, y, part);
    }
}
