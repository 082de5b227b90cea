//! The scalar level: arrays of sixteen, for any machine, and for Miri.

use super::{LANES, Lanes};
use half::f16;

/// The token of the scalar level, which every machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar;

type F = [f32; LANES];
type I = [i32; LANES];
type M = [bool; LANES];

#[inline(always)]
fn map<A: Copy, R>(a: [A; LANES], f: impl Fn(A) -> R) -> [R; LANES] {
    core::array::from_fn(|i| f(a[i]))
}

#[inline(always)]
fn zip<A: Copy, B: Copy, R>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> R) -> [R; LANES] {
    core::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for Scalar {
    type F = F;
    type I = I;
    type M = M;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> F {
        *from
    }
    #[inline(always)]
    fn store(self, v: F, to: &mut [f32; LANES]) {
        *to = v;
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        core::array::from_fn(|i| libm::fmaf(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn sqrt(self, a: F) -> F {
        map(a, libm::sqrtf)
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        map(a, libm::rintf)
    }
    #[inline(always)]
    fn gt(self, a: F, b: F) -> M {
        zip(a, b, |a, b| a > b)
    }
    #[inline(always)]
    fn ge(self, a: F, b: F) -> M {
        zip(a, b, |a, b| a >= b)
    }
    #[inline(always)]
    fn eq(self, a: F, b: F) -> M {
        zip(a, b, |a, b| a == b)
    }
    #[inline(always)]
    fn select(self, m: M, a: F, b: F) -> F {
        core::array::from_fn(|i| if m[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn mask(self, bits: u16) -> M {
        core::array::from_fn(|i| bits >> i & 1 != 0)
    }
    #[inline(always)]
    fn mask_bits(self, m: M) -> u16 {
        (0..LANES).fold(0, |bits, i| bits | u16::from(m[i]) << i)
    }
    #[inline(always)]
    fn isplat(self, x: i32) -> I {
        [x; LANES]
    }
    #[inline(always)]
    fn iload(self, from: &[i32; LANES]) -> I {
        *from
    }
    #[inline(always)]
    fn istore(self, v: I, to: &mut [i32; LANES]) {
        *to = v;
    }
    #[inline(always)]
    fn iadd(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn isub(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn imul(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_mul)
    }
    #[inline(always)]
    fn umul_high(self, a: I, b: I) -> I {
        zip(a, b, |a, b| ((u64::from(a as u32) * u64::from(b as u32)) >> 32) as i32)
    }
    #[inline(always)]
    fn iand(self, a: I, b: I) -> I {
        zip(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn ior(self, a: I, b: I) -> I {
        zip(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn ixor(self, a: I, b: I) -> I {
        zip(a, b, |a, b| a ^ b)
    }
    #[inline(always)]
    fn shl<const N: u32>(self, a: I) -> I {
        map(a, |a| a << N)
    }
    #[inline(always)]
    fn shr<const N: u32>(self, a: I) -> I {
        map(a, |a| (a as u32 >> N) as i32)
    }
    #[inline(always)]
    fn sar<const N: u32>(self, a: I) -> I {
        map(a, |a| a >> N)
    }
    #[inline(always)]
    fn igt(self, a: I, b: I) -> M {
        zip(a, b, |a, b| a > b)
    }
    #[inline(always)]
    fn ieq(self, a: I, b: I) -> M {
        zip(a, b, |a, b| a == b)
    }
    #[inline(always)]
    fn iselect(self, m: M, a: I, b: I) -> I {
        core::array::from_fn(|i| if m[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn dot4(self, sums: I, unsigned: I, signed: I) -> I {
        core::array::from_fn(|i| {
            let (u, s) = (unsigned[i].to_le_bytes(), signed[i].to_le_bytes());
            let products = u.iter().zip(&s).map(|(&u, &s)| i32::from(u) * i32::from(s as i8));
            products.fold(sums[i], i32::wrapping_add)
        })
    }
    #[inline(always)]
    fn to_int(self, a: F) -> I {
        map(a, |a| libm::rintf(a) as i32)
    }
    #[inline(always)]
    fn to_float(self, a: I) -> F {
        map(a, |a| a as f32)
    }
    #[inline(always)]
    fn bits_of(self, a: F) -> I {
        map(a, |a| a.to_bits() as i32)
    }
    #[inline(always)]
    fn float_of_bits(self, a: I) -> F {
        map(a, |a| f32::from_bits(a as u32))
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> I {
        map(*from, i32::from)
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> I {
        map(*from, i32::from)
    }
    #[inline(always)]
    fn load_u16(self, from: &[u16; LANES]) -> I {
        map(*from, i32::from)
    }
    #[inline(always)]
    fn store_u8(self, v: I, to: &mut [u8; LANES]) {
        *to = map(v, |v| v as u8);
    }
    #[inline(always)]
    fn store_u16(self, v: I, to: &mut [u16; LANES]) {
        *to = map(v, |v| v as u16);
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> F {
        map(*from, |bits| f16::from_bits(bits).to_f32())
    }
    #[inline(always)]
    fn store_f16(self, v: F, to: &mut [u16; LANES]) {
        *to = map(v, |v| f16::from_f32(v).to_bits());
    }
}
