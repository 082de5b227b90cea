//! NEON: four registers of four lanes.

use super::{LANES, Lanes};
use core::arch::aarch64::*;

/// The token of the NEON level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neon {
    proof: (),
}

impl Neon {
    /// The token; every 64-bit Arm with an operating system has NEON.
    pub fn detect() -> Option<Self> {
        cfg!(target_feature = "neon").then_some(Self { proof: () })
    }
}

impl Lanes for Neon {
    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];
    /// All bits of a lane, or none.
    type M = [uint32x4_t; 4];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe {
            [
                vld1q_f32(from.as_ptr().add(4 * 0)),
                vld1q_f32(from.as_ptr().add(4 * 1)),
                vld1q_f32(from.as_ptr().add(4 * 2)),
                vld1q_f32(from.as_ptr().add(4 * 3)),
            ]
        }
    }
    #[inline(always)]
    fn store(self, v: Self::F, to: &mut [f32; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe {
            vst1q_f32(to.as_mut_ptr().add(4 * 0), v[0]);
            vst1q_f32(to.as_mut_ptr().add(4 * 1), v[1]);
            vst1q_f32(to.as_mut_ptr().add(4 * 2), v[2]);
            vst1q_f32(to.as_mut_ptr().add(4 * 3), v[3]);
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vaddq_f32(a[0], b[0]),
                vaddq_f32(a[1], b[1]),
                vaddq_f32(a[2], b[2]),
                vaddq_f32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vsubq_f32(a[0], b[0]),
                vsubq_f32(a[1], b[1]),
                vsubq_f32(a[2], b[2]),
                vsubq_f32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vmulq_f32(a[0], b[0]),
                vmulq_f32(a[1], b[1]),
                vmulq_f32(a[2], b[2]),
                vmulq_f32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vdivq_f32(a[0], b[0]),
                vdivq_f32(a[1], b[1]),
                vdivq_f32(a[2], b[2]),
                vdivq_f32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [vsqrtq_f32(a[0]), vsqrtq_f32(a[1]), vsqrtq_f32(a[2]), vsqrtq_f32(a[3])] }
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        self.select(self.gt(a, b), a, b)
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [vrndnq_f32(a[0]), vrndnq_f32(a[1]), vrndnq_f32(a[2]), vrndnq_f32(a[3])] }
    }
    #[inline(always)]
    fn gt(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vcgtq_f32(a[0], b[0]),
                vcgtq_f32(a[1], b[1]),
                vcgtq_f32(a[2], b[2]),
                vcgtq_f32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn ge(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vcgeq_f32(a[0], b[0]),
                vcgeq_f32(a[1], b[1]),
                vcgeq_f32(a[2], b[2]),
                vcgeq_f32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vceqq_f32(a[0], b[0]),
                vceqq_f32(a[1], b[1]),
                vceqq_f32(a[2], b[2]),
                vceqq_f32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vbslq_f32(m[0], a[0], b[0]),
                vbslq_f32(m[1], a[1], b[1]),
                vbslq_f32(m[2], a[2], b[2]),
                vbslq_f32(m[3], a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn mask(self, bits: u16) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe {
            let bit = |first: u32| vld1q_u32([first, first << 1, first << 2, first << 3].as_ptr());
            let all = vdupq_n_u32(u32::from(bits));
            [
                vtstq_u32(all, bit(1)),
                vtstq_u32(all, bit(1 << 4)),
                vtstq_u32(all, bit(1 << 8)),
                vtstq_u32(all, bit(1 << 12)),
            ]
        }
    }
    #[inline(always)]
    fn mask_bits(self, m: Self::M) -> u16 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let bit = vld1q_u32([1, 2, 4, 8].as_ptr());
            let mut bits = 0;
            let mut i = 0;
            while i < 4 {
                bits |= (vaddvq_u32(vandq_u32(m[i], bit)) as u16) << (4 * i);
                i += 1;
            }
            bits
        }
    }
    #[inline(always)]
    fn isplat(self, x: i32) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    fn iload(self, from: &[i32; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe {
            [
                vld1q_s32(from.as_ptr().add(4 * 0)),
                vld1q_s32(from.as_ptr().add(4 * 1)),
                vld1q_s32(from.as_ptr().add(4 * 2)),
                vld1q_s32(from.as_ptr().add(4 * 3)),
            ]
        }
    }
    #[inline(always)]
    fn istore(self, v: Self::I, to: &mut [i32; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe {
            vst1q_s32(to.as_mut_ptr().add(4 * 0), v[0]);
            vst1q_s32(to.as_mut_ptr().add(4 * 1), v[1]);
            vst1q_s32(to.as_mut_ptr().add(4 * 2), v[2]);
            vst1q_s32(to.as_mut_ptr().add(4 * 3), v[3]);
        }
    }
    #[inline(always)]
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vaddq_s32(a[0], b[0]),
                vaddq_s32(a[1], b[1]),
                vaddq_s32(a[2], b[2]),
                vaddq_s32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn isub(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vsubq_s32(a[0], b[0]),
                vsubq_s32(a[1], b[1]),
                vsubq_s32(a[2], b[2]),
                vsubq_s32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn imul(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vmulq_s32(a[0], b[0]),
                vmulq_s32(a[1], b[1]),
                vmulq_s32(a[2], b[2]),
                vmulq_s32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn umul_high(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                umul_high(a[0], b[0]),
                umul_high(a[1], b[1]),
                umul_high(a[2], b[2]),
                umul_high(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn iand(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vandq_s32(a[0], b[0]),
                vandq_s32(a[1], b[1]),
                vandq_s32(a[2], b[2]),
                vandq_s32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn ior(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vorrq_s32(a[0], b[0]),
                vorrq_s32(a[1], b[1]),
                vorrq_s32(a[2], b[2]),
                vorrq_s32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn ixor(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                veorq_s32(a[0], b[0]),
                veorq_s32(a[1], b[1]),
                veorq_s32(a[2], b[2]),
                veorq_s32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn shl<const N: u32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            let count = vdupq_n_s32(N as i32);
            [
                vshlq_s32(a[0], count),
                vshlq_s32(a[1], count),
                vshlq_s32(a[2], count),
                vshlq_s32(a[3], count),
            ]
        }
    }
    #[inline(always)]
    fn shr<const N: u32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            let count = vdupq_n_s32(-(N as i32));
            [
                vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[0]), count)),
                vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[1]), count)),
                vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[2]), count)),
                vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a[3]), count)),
            ]
        }
    }
    #[inline(always)]
    fn sar<const N: u32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            let count = vdupq_n_s32(-(N as i32));
            [
                vshlq_s32(a[0], count),
                vshlq_s32(a[1], count),
                vshlq_s32(a[2], count),
                vshlq_s32(a[3], count),
            ]
        }
    }
    #[inline(always)]
    fn igt(self, a: Self::I, b: Self::I) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vcgtq_s32(a[0], b[0]),
                vcgtq_s32(a[1], b[1]),
                vcgtq_s32(a[2], b[2]),
                vcgtq_s32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vceqq_s32(a[0], b[0]),
                vceqq_s32(a[1], b[1]),
                vceqq_s32(a[2], b[2]),
                vceqq_s32(a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn iselect(self, m: Self::M, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vbslq_s32(m[0], a[0], b[0]),
                vbslq_s32(m[1], a[1], b[1]),
                vbslq_s32(m[2], a[2], b[2]),
                vbslq_s32(m[3], a[3], b[3]),
            ]
        }
    }
    #[inline(always)]
    fn dot4(self, sums: Self::I, unsigned: Self::I, signed: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                dot4(sums[0], unsigned[0], signed[0]),
                dot4(sums[1], unsigned[1], signed[1]),
                dot4(sums[2], unsigned[2], signed[2]),
                dot4(sums[3], unsigned[3], signed[3]),
            ]
        }
    }
    #[inline(always)]
    fn to_int(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [vcvtnq_s32_f32(a[0]), vcvtnq_s32_f32(a[1]), vcvtnq_s32_f32(a[2]), vcvtnq_s32_f32(a[3])]
        }
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe {
            [vcvtq_f32_s32(a[0]), vcvtq_f32_s32(a[1]), vcvtq_f32_s32(a[2]), vcvtq_f32_s32(a[3])]
        }
    }
    #[inline(always)]
    fn bits_of(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vreinterpretq_s32_f32(a[0]),
                vreinterpretq_s32_f32(a[1]),
                vreinterpretq_s32_f32(a[2]),
                vreinterpretq_s32_f32(a[3]),
            ]
        }
    }
    #[inline(always)]
    fn float_of_bits(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                vreinterpretq_f32_s32(a[0]),
                vreinterpretq_f32_s32(a[1]),
                vreinterpretq_f32_s32(a[2]),
                vreinterpretq_f32_s32(a[3]),
            ]
        }
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe {
            let all = vld1q_u8(from.as_ptr());
            words([vmovl_u8(vget_low_u8(all)), vmovl_u8(vget_high_u8(all))])
        }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe {
            let all = vld1q_s8(from.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(all)), vmovl_s8(vget_high_s8(all)));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_s16(vget_high_s16(low)),
                vmovl_s16(vget_low_s16(high)),
                vmovl_s16(vget_high_s16(high)),
            ]
        }
    }
    #[inline(always)]
    fn load_u16(self, from: &[u16; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe { words([vld1q_u16(from.as_ptr()), vld1q_u16(from.as_ptr().add(8))]) }
    }
    #[inline(always)]
    fn store_u8(self, v: Self::I, to: &mut [u8; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe {
            let words = low_words(v);
            vst1q_u8(to.as_mut_ptr(), vcombine_u8(vmovn_u16(words[0]), vmovn_u16(words[1])));
        }
    }
    #[inline(always)]
    fn store_u16(self, v: Self::I, to: &mut [u16; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe {
            let words = low_words(v);
            vst1q_u16(to.as_mut_ptr(), words[0]);
            vst1q_u16(to.as_mut_ptr().add(8), words[1]);
        }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F {
        // Stable Rust has no f16 vectors on Arm; integers do it exactly: the normal
        // range by moving the exponent, subnormals by a subtraction.
        let half = self.load_u16(from);
        let sign = self.shl::<16>(self.iand(half, self.isplat(0x8000)));
        let rest = self.iand(half, self.isplat(0x7fff));
        let moved = self.iadd(self.shl::<13>(rest), self.isplat((127 - 15) << 23));
        let infinite = self.igt(rest, self.isplat(0x7bff));
        let moved = self.iselect(infinite, self.iadd(moved, self.isplat((255 - 143) << 23)), moved);
        let small = self.igt(self.isplat(0x0400), rest);
        let least = self.isplat((127 - 14) << 23);
        let lifted = self.float_of_bits(self.iadd(self.shl::<13>(rest), least));
        let tiny = self.bits_of(self.sub(lifted, self.float_of_bits(least)));
        self.float_of_bits(self.ior(sign, self.iselect(small, tiny, moved)))
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, to: &mut [u16; LANES]) {
        let bits = self.bits_of(v);
        let sign = self.iand(self.shr::<16>(bits), self.isplat(0x8000));
        let rest = self.iand(bits, self.isplat(0x7fff_ffff));
        // Normal results: round the 13 bits that go, ties to even, and move the exponent.
        let odd = self.iand(self.shr::<13>(rest), self.isplat(1));
        let nudged = self.iadd(rest, self.iadd(self.isplat(0xfff), odd));
        let normal = self.isub(self.shr::<13>(nudged), self.isplat((127 - 15) << 10));
        // Subnormal results: adding one half lets the FPU round at the right bit.
        let half = self.splat(0.5);
        let rounded = self.bits_of(self.add(self.float_of_bits(rest), half));
        let tiny = self.isub(rounded, self.bits_of(half));
        let small = self.igt(self.isplat((127 - 14) << 23), rest);
        let result = self.iselect(small, tiny, normal);
        let large = self.igt(rest, self.isplat(0x477f_efff));
        let result = self.iselect(large, self.isplat(0x7c00), result);
        let nan = self.igt(rest, self.isplat(0x7f80_0000));
        let result = self.iselect(nan, self.isplat(0x7e00), result);
        self.store_u16(self.ior(sign, result), to);
    }
}

/// Even and odd bytes apart as words, multiplied into double words.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn dot4(sums: int32x4_t, unsigned: int32x4_t, signed: int32x4_t) -> int32x4_t {
    // SAFETY: the caller's.
    unsafe {
        let (u, s) = (vreinterpretq_u16_s32(unsigned), vreinterpretq_s16_s32(signed));
        let even = vreinterpretq_s16_u16(vandq_u16(u, vdupq_n_u16(0xff)));
        let even_signed = vshrq_n_s16::<8>(vshlq_n_s16::<8>(s));
        let odd = vreinterpretq_s16_u16(vshrq_n_u16::<8>(u));
        let odd_signed = vshrq_n_s16::<8>(s);
        let low = vmull_s16(vget_low_s16(even), vget_low_s16(even_signed));
        let low = vmlal_s16(low, vget_low_s16(odd), vget_low_s16(odd_signed));
        let high = vmull_high_s16(even, even_signed);
        let high = vmlal_high_s16(high, odd, odd_signed);
        vaddq_s32(sums, vpaddq_s32(low, high))
    }
}

/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn umul_high(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: the caller's.
    unsafe {
        let (a, b) = (vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b));
        let low = vshrn_n_u64::<32>(vmull_u32(vget_low_u32(a), vget_low_u32(b)));
        let high = vshrn_n_u64::<32>(vmull_u32(vget_high_u32(a), vget_high_u32(b)));
        vreinterpretq_s32_u32(vcombine_u32(low, high))
    }
}

/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn words(v: [uint16x8_t; 2]) -> [int32x4_t; 4] {
    // SAFETY: the caller's.
    unsafe {
        [
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(v[0]))),
            vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(v[0]))),
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(v[1]))),
            vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(v[1]))),
        ]
    }
}

/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn low_words(v: [int32x4_t; 4]) -> [uint16x8_t; 2] {
    // SAFETY: the caller's.
    unsafe {
        let narrow = |low, high| {
            vcombine_u16(
                vmovn_u32(vreinterpretq_u32_s32(low)),
                vmovn_u32(vreinterpretq_u32_s32(high)),
            )
        };
        [narrow(v[0], v[1]), narrow(v[2], v[3])]
    }
}
