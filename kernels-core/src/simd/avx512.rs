//! AVX-512 with VNNI: one register of sixteen lanes.

use super::{LANES, Lanes, detect};
use core::arch::x86_64::*;

/// The token of the AVX-512 level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512 {
    proof: (),
}

impl Avx512 {
    /// The token, where the CPU and the system have AVX-512 F, BW, DQ, VL and VNNI.
    pub fn detect() -> Option<Self> {
        detect::avx512().then_some(Self { proof: () })
    }
}

impl Lanes for Avx512 {
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;

    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: Self::F, to: &mut [f32; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn gt(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) }
    }
    #[inline(always)]
    fn ge(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b) }
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mask_blend_ps(m, b, a) }
    }
    #[inline(always)]
    fn mask(self, bits: u16) -> Self::M {
        bits
    }
    #[inline(always)]
    fn mask_bits(self, m: Self::M) -> u16 {
        m
    }
    #[inline(always)]
    fn isplat(self, x: i32) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    fn iload(self, from: &[i32; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn istore(self, v: Self::I, to: &mut [i32; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) }
    }
    #[inline(always)]
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn isub(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn imul(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    fn umul_high(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            let even = _mm512_srli_epi64::<32>(_mm512_mul_epu32(a, b));
            let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(a), _mm512_srli_epi64::<32>(b));
            _mm512_mask_blend_epi32(0xaaaa, even, odd)
        }
    }
    #[inline(always)]
    fn iand(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn ior(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn ixor(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_xor_si512(a, b) }
    }
    #[inline(always)]
    fn shl<const N: u32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_slli_epi32::<N>(a) }
    }
    #[inline(always)]
    fn shr<const N: u32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_srli_epi32::<N>(a) }
    }
    #[inline(always)]
    fn sar<const N: u32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_srai_epi32::<N>(a) }
    }
    #[inline(always)]
    fn igt(self, a: Self::I, b: Self::I) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmpgt_epi32_mask(a, b) }
    }
    #[inline(always)]
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmpeq_epi32_mask(a, b) }
    }
    #[inline(always)]
    fn iselect(self, m: Self::M, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mask_blend_epi32(m, b, a) }
    }
    #[inline(always)]
    fn dot4(self, sums: Self::I, unsigned: Self::I, signed: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_dpbusd_epi32(sums, unsigned, signed) }
    }
    #[inline(always)]
    fn to_int(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cvtps_epi32(a) }
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn bits_of(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_castps_si512(a) }
    }
    #[inline(always)]
    fn float_of_bits(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_castsi512_ps(a) }
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_u16(self, from: &[u16; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store_u8(self, v: Self::I, to: &mut [u8; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(v)) }
    }
    #[inline(always)]
    fn store_u16(self, v: Self::I, to: &mut [u16; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(v)) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        // Named thus it takes its words from memory, which spares a shuffle.
        unsafe {
            _mm512_cvt_roundph_ps::<_MM_FROUND_CUR_DIRECTION>(_mm256_loadu_si256(
                from.as_ptr().cast(),
            ))
        }
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, to: &mut [u16; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe {
            _mm256_storeu_si256(
                to.as_mut_ptr().cast(),
                _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v),
            )
        }
    }
    #[inline(always)]
    fn transpose(self, v: [Self::I; LANES]) -> [Self::I; LANES] {
        // SAFETY: the token proves the instructions.
        unsafe { transpose(v) }
    }
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn largest(self, v: Self::F) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let eight = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

/// In quarters of four lanes: pairs of words, pairs of double words, then quarters.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn transpose(v: [__m512i; LANES]) -> [__m512i; LANES] {
    // SAFETY: the caller's.
    unsafe {
        let mut a = v;
        let mut i = 0;
        while i < LANES {
            // Rows i to i + 3: quarter q of a[i + j] is column 4q + j of them.
            let (p, q) =
                (_mm512_unpacklo_epi32(v[i], v[i + 1]), _mm512_unpackhi_epi32(v[i], v[i + 1]));
            let (r, s) = (
                _mm512_unpacklo_epi32(v[i + 2], v[i + 3]),
                _mm512_unpackhi_epi32(v[i + 2], v[i + 3]),
            );
            a[i] = _mm512_unpacklo_epi64(p, r);
            a[i + 1] = _mm512_unpackhi_epi64(p, r);
            a[i + 2] = _mm512_unpacklo_epi64(q, s);
            a[i + 3] = _mm512_unpackhi_epi64(q, s);
            i += 4;
        }
        let mut out = v;
        let mut j = 0;
        while j < 4 {
            let low_01 = _mm512_shuffle_i32x4::<0b10_00_10_00>(a[j], a[4 + j]);
            let high_01 = _mm512_shuffle_i32x4::<0b11_01_11_01>(a[j], a[4 + j]);
            let low_23 = _mm512_shuffle_i32x4::<0b10_00_10_00>(a[8 + j], a[12 + j]);
            let high_23 = _mm512_shuffle_i32x4::<0b11_01_11_01>(a[8 + j], a[12 + j]);
            out[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low_01, low_23);
            out[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(high_01, high_23);
            out[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low_01, low_23);
            out[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(high_01, high_23);
            j += 1;
        }
        out
    }
}
