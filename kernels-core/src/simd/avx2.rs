//! AVX2 with FMA and F16C: two registers of eight lanes.

use super::{LANES, Lanes, detect};
use core::arch::x86_64::*;

/// The token of the AVX2 level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2 {
    proof: (),
}

impl Avx2 {
    /// The token, where the CPU and the system have AVX2, FMA, F16C and BMI.
    pub fn detect() -> Option<Self> {
        detect::avx2().then_some(Self { proof: () })
    }
}

impl Lanes for Avx2 {
    type F = [__m256; 2];
    type I = [__m256i; 2];
    /// All bits of a lane, or none.
    type M = [__m256i; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe { [_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from.as_ptr().add(8))] }
    }
    #[inline(always)]
    fn store(self, v: Self::F, to: &mut [f32; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1]);
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_sqrt_ps(a[0]), _mm256_sqrt_ps(a[1])] }
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[0]),
                _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a[1]),
            ]
        }
    }
    #[inline(always)]
    fn gt(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(a[0], b[0])),
                _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GT_OQ>(a[1], b[1])),
            ]
        }
    }
    #[inline(always)]
    fn ge(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GE_OQ>(a[0], b[0])),
                _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GE_OQ>(a[1], b[1])),
            ]
        }
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                _mm256_castps_si256(_mm256_cmp_ps::<_CMP_EQ_OQ>(a[0], b[0])),
                _mm256_castps_si256(_mm256_cmp_ps::<_CMP_EQ_OQ>(a[1], b[1])),
            ]
        }
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe {
            [
                _mm256_blendv_ps(b[0], a[0], _mm256_castsi256_ps(m[0])),
                _mm256_blendv_ps(b[1], a[1], _mm256_castsi256_ps(m[1])),
            ]
        }
    }
    #[inline(always)]
    fn mask(self, bits: u16) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe {
            let bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
            let low = _mm256_set1_epi32(i32::from(bits & 0xff));
            let high = _mm256_set1_epi32(i32::from(bits >> 8));
            [
                _mm256_cmpeq_epi32(_mm256_and_si256(low, bit), bit),
                _mm256_cmpeq_epi32(_mm256_and_si256(high, bit), bit),
            ]
        }
    }
    #[inline(always)]
    fn mask_bits(self, m: Self::M) -> u16 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let low = _mm256_movemask_ps(_mm256_castsi256_ps(m[0])) as u16;
            low | (_mm256_movemask_ps(_mm256_castsi256_ps(m[1])) as u16) << 8
        }
    }
    #[inline(always)]
    fn isplat(self, x: i32) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    fn iload(self, from: &[i32; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe {
            [
                _mm256_loadu_si256(from.as_ptr().cast()),
                _mm256_loadu_si256(from.as_ptr().add(8).cast()),
            ]
        }
    }
    #[inline(always)]
    fn istore(self, v: Self::I, to: &mut [i32; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe {
            _mm256_storeu_si256(to.as_mut_ptr().cast(), v[0]);
            _mm256_storeu_si256(to.as_mut_ptr().add(8).cast(), v[1]);
        }
    }
    #[inline(always)]
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn isub(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn imul(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_mullo_epi32(a[0], b[0]), _mm256_mullo_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn umul_high(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [umul_high(a[0], b[0]), umul_high(a[1], b[1])] }
    }
    #[inline(always)]
    fn iand(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])] }
    }
    #[inline(always)]
    fn ior(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
    }
    #[inline(always)]
    fn ixor(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_xor_si256(a[0], b[0]), _mm256_xor_si256(a[1], b[1])] }
    }
    #[inline(always)]
    fn shl<const N: u32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            let count = _mm_cvtsi32_si128(N as i32);
            [_mm256_sll_epi32(a[0], count), _mm256_sll_epi32(a[1], count)]
        }
    }
    #[inline(always)]
    fn shr<const N: u32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            let count = _mm_cvtsi32_si128(N as i32);
            [_mm256_srl_epi32(a[0], count), _mm256_srl_epi32(a[1], count)]
        }
    }
    #[inline(always)]
    fn sar<const N: u32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            let count = _mm_cvtsi32_si128(N as i32);
            [_mm256_sra_epi32(a[0], count), _mm256_sra_epi32(a[1], count)]
        }
    }
    #[inline(always)]
    fn igt(self, a: Self::I, b: Self::I) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_cmpgt_epi32(a[0], b[0]), _mm256_cmpgt_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_cmpeq_epi32(a[0], b[0]), _mm256_cmpeq_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    fn iselect(self, m: Self::M, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_blendv_epi8(b[0], a[0], m[0]), _mm256_blendv_epi8(b[1], a[1], m[1])] }
    }
    #[inline(always)]
    fn dot4(self, sums: Self::I, unsigned: Self::I, signed: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [dot4(sums[0], unsigned[0], signed[0]), dot4(sums[1], unsigned[1], signed[1])] }
    }
    #[inline(always)]
    fn to_int(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_cvtps_epi32(a[0]), _mm256_cvtps_epi32(a[1])] }
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_cvtepi32_ps(a[0]), _mm256_cvtepi32_ps(a[1])] }
    }
    #[inline(always)]
    fn bits_of(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_castps_si256(a[0]), _mm256_castps_si256(a[1])] }
    }
    #[inline(always)]
    fn float_of_bits(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { [_mm256_castsi256_ps(a[0]), _mm256_castsi256_ps(a[1])] }
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe {
            let all = _mm_loadu_si128(from.as_ptr().cast());
            [_mm256_cvtepu8_epi32(all), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(all))]
        }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe {
            let all = _mm_loadu_si128(from.as_ptr().cast());
            [_mm256_cvtepi8_epi32(all), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(all))]
        }
    }
    #[inline(always)]
    fn load_u16(self, from: &[u16; LANES]) -> Self::I {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe {
            [
                _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast())),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().add(8).cast())),
            ]
        }
    }
    #[inline(always)]
    fn store_u8(self, v: Self::I, to: &mut [u8; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), low_bytes(v)) }
    }
    #[inline(always)]
    fn store_u16(self, v: Self::I, to: &mut [u16; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), low_words(v)) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u16; LANES]) -> Self::F {
        // SAFETY: the token proves the instructions; the array is as long as the load.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().add(8).cast())),
            ]
        }
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, to: &mut [u16; LANES]) {
        // SAFETY: the token proves the instructions; the array is as long as the store.
        unsafe {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<NEAREST>(v[0]));
            _mm_storeu_si128(to.as_mut_ptr().add(8).cast(), _mm256_cvtps_ph::<NEAREST>(v[1]));
        }
    }
    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let eight = _mm256_add_ps(v[0], v[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn largest(self, v: Self::F) -> f32 {
        // SAFETY: the token proves the instructions.
        unsafe {
            let eight = _mm256_max_ps(v[0], v[1]);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    fn transpose(self, v: [Self::I; LANES]) -> [Self::I; LANES] {
        let mut out = v;
        let mut half = 0;
        while half < 2 {
            let mut rows = 0;
            while rows < 2 {
                let mut block = [v[0][0]; 8];
                let mut i = 0;
                while i < 8 {
                    block[i] = v[8 * rows + i][half];
                    i += 1;
                }
                // SAFETY: the token proves the instructions.
                let columns = unsafe { transpose_eight(block) };
                i = 0;
                while i < 8 {
                    out[8 * half + i][rows] = columns[i];
                    i += 1;
                }
                rows += 1;
            }
            half += 1;
        }
        out
    }
}

/// Even and odd bytes apart as words: adding pairs of byte products first, as
/// `vpmaddubsw` does, would saturate.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn dot4(sums: __m256i, unsigned: __m256i, signed: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let even = _mm256_and_si256(unsigned, _mm256_set1_epi16(0xff));
        let even_signed = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(signed));
        let odd = _mm256_srli_epi16::<8>(unsigned);
        let odd_signed = _mm256_srai_epi16::<8>(signed);
        let sums = _mm256_add_epi32(sums, _mm256_madd_epi16(even, even_signed));
        _mm256_add_epi32(sums, _mm256_madd_epi16(odd, odd_signed))
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn umul_high(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let even = _mm256_srli_epi64::<32>(_mm256_mul_epu32(a, b));
        let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b));
        _mm256_blend_epi32::<0b1010_1010>(even, odd)
    }
}

/// Eight rows of eight: pairs of words, pairs of double words, then halves.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn transpose_eight(v: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: the caller's.
    unsafe {
        let mut a = v;
        let mut i = 0;
        while i < 8 {
            // Rows i to i + 3: half h of a[i + j] is column 4h + j of them.
            let (p, q) =
                (_mm256_unpacklo_epi32(v[i], v[i + 1]), _mm256_unpackhi_epi32(v[i], v[i + 1]));
            let (r, s) = (
                _mm256_unpacklo_epi32(v[i + 2], v[i + 3]),
                _mm256_unpackhi_epi32(v[i + 2], v[i + 3]),
            );
            a[i] = _mm256_unpacklo_epi64(p, r);
            a[i + 1] = _mm256_unpackhi_epi64(p, r);
            a[i + 2] = _mm256_unpacklo_epi64(q, s);
            a[i + 3] = _mm256_unpackhi_epi64(q, s);
            i += 4;
        }
        let mut out = v;
        let mut j = 0;
        while j < 4 {
            out[j] = _mm256_permute2x128_si256::<0x20>(a[j], a[4 + j]);
            out[4 + j] = _mm256_permute2x128_si256::<0x31>(a[j], a[4 + j]);
            j += 1;
        }
        out
    }
}

/// The low word of each lane, in order.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn low_words(v: [__m256i; 2]) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let low = _mm256_set1_epi32(0xffff);
        let packed = _mm256_packus_epi32(_mm256_and_si256(v[0], low), _mm256_and_si256(v[1], low));
        _mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
    }
}

/// The low byte of each lane, in order.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn low_bytes(v: [__m256i; 2]) -> __m128i {
    // SAFETY: the caller's.
    unsafe {
        let low = _mm256_set1_epi32(0xff);
        let words = low_words([_mm256_and_si256(v[0], low), _mm256_and_si256(v[1], low)]);
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words))
    }
}
