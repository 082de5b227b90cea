//! The hyperbolic tangent.

use super::exp;
use crate::simd::Lanes;

/// tanh x: within 3 ulp, odd by bits, NaN for NaN.
///
/// Order, on a = |x|: below 0.625, z = a², a + a·z·P(z) by Horner in fma; from there
/// on 1 − 2 / (exp(2a) + 1). The sign of x goes back on.
#[inline(always)]
pub fn tanh<L: Lanes>(l: L, x: L::F) -> L::F {
    // A polynomial for (tanh(a) / a − 1) / a², relative error of tanh 4e-9.
    const P: [f32; 5] =
        [-0.333_332_84, 0.133_314_91, -0.053_743_497, 0.020_650_582, -0.005_717_040_5];
    let bits = l.bits_of(x);
    let a = l.float_of_bits(l.iand(bits, l.isplat(i32::MAX)));
    let z = l.mul(a, a);
    let p = l.splat(P[4]);
    let p = l.fma(p, z, l.splat(P[3]));
    let p = l.fma(p, z, l.splat(P[2]));
    let p = l.fma(p, z, l.splat(P[1]));
    let p = l.fma(p, z, l.splat(P[0]));
    let small = l.fma(l.mul(a, z), p, a);
    let one = l.splat(1.0);
    let large = l.sub(one, l.div(l.splat(2.0), l.add(exp(l, l.add(a, a)), one)));
    let y = l.select(l.gt(l.splat(0.625), a), small, large);
    let signed = l.ior(l.bits_of(y), l.iand(bits, l.isplat(i32::MIN)));
    l.select(l.eq(x, x), l.float_of_bits(signed), x)
}

crate::levels! {
    /// tanh x in place, at a level; for tests and for callers outside of a kernel.
    pub fn tanh_slice(values: &mut [f32]) = tanh_body;
}

#[inline(always)]
fn tanh_body<L: Lanes>(l: L, values: &mut [f32]) {
    for part in values.chunks_mut(crate::simd::LANES) {
        let y = tanh(l, crate::simd::load_part(l, part, 0.0));
        crate::simd::store_part(l, y, part);
    }
}
