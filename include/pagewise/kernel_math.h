/* Arithmetic that every kernel shares, for CUDA, Metal and the emulator, by the very steps
 * of kernels-core/src/math/: one exp, one log, one tanh, one source of noise, one way to
 * round to each small format. Values only, no memory. Private.
 */
#ifndef PAGEWISE_KERNEL_MATH_H
#define PAGEWISE_KERNEL_MATH_H

#include <pagewise/kernel_params.h>

#if defined(__METAL_VERSION__) || defined(PAGEWISE_METAL)
#define PWK_FN static inline
#define PWK_FMA(a, b, c) metal::fma(a, b, c)
#define PWK_RINT(x) metal::rint(x)
#define PWK_SQRT(x) metal::sqrt(x)
#define PWK_BITS(x) as_type<uint>(x)
#define PWK_FLOAT(bits) as_type<float>(uint(bits))
#define PWK_HIGH(a, b) metal::mulhi(a, b)
#define PWK_NEAREST(x) int(metal::rint(metal::clamp(x, -2147483000.0f, 2147483000.0f)))
#else
#define PWK_FN static __device__ __forceinline__
#define PWK_FMA(a, b, c) __fmaf_rn(a, b, c)
#define PWK_RINT(x) rintf(x)
#define PWK_SQRT(x) sqrtf(x)
#define PWK_BITS(x) __float_as_uint(x)
#define PWK_FLOAT(bits) __uint_as_float(bits)
#define PWK_HIGH(a, b) __umulhi(a, b)
#define PWK_NEAREST(x) __float2int_rn(x)
#endif

#define PWK_INFINITY PWK_FLOAT(0x7f800000u)
#define PWK_NAN PWK_FLOAT(0x7fc00000u)
#define PWK_FLT_MAX PWK_FLOAT(0x7f7fffffu)

/* Whether it is a zero, of either sign: by its bits, for Metal takes subnormal numbers for
 * zeros when it compares. */
PWK_FN bool pwk_is_zero(float x) { return (PWK_BITS(x) << 1) == 0u; }

/* The larger; b where a is NaN. */
PWK_FN float pwk_max(float a, float b) { return a > b ? a : b; }

/* e to the x where x is at most 88.37626, or NaN; any value elsewhere. 0 below -87. */
PWK_FN float pwk_exp_below(float x) {
    const int n = PWK_NEAREST(x * 1.44269504088896341f);
    const float whole = float(n);
    float r = PWK_FMA(whole, -0.69311523f, x);
    r = PWK_FMA(whole, -3.1946183e-5f, r);
    float p = PWK_FMA(0.0013814596f, r, 0.0083687175f);
    p = PWK_FMA(p, r, 0.04166839f);
    p = PWK_FMA(p, r, 0.16666521f);
    p = PWK_FMA(p, r, 0.49999994f);
    p = PWK_FMA(p, r, 1.0f);
    p = PWK_FMA(p, r, 1.0f);
    const float y = p * PWK_FLOAT((uint32_t(n) + 127u) << 23);
    return -87.0f > x ? 0.0f : y;
}

/* e to the x: exp(0) = 1, 0 below -87, infinite above 88.37626, NaN for NaN. */
PWK_FN float pwk_exp(float x) { return x > 88.37626f ? PWK_INFINITY : pwk_exp_below(x); }

/* The natural logarithm: -infinity at 0, NaN below it. */
PWK_FN float pwk_log(float x) {
    const bool small = 1.17549435e-38f > x;
    const float lifted = small ? x * 8388608.0f : x;
    const uint32_t bits = PWK_BITS(lifted);
    const int exponent = int(bits - 0x3f3504f3u) >> 23;
    const float m = PWK_FLOAT(bits - (uint32_t(exponent) << 23));
    const float e = float(exponent + (small ? -23 : 0));
    const float f = m - 1.0f;
    float p = PWK_FMA(-0.0763443f, f, 0.1276155f);
    p = PWK_FMA(p, f, -0.13160194f);
    p = PWK_FMA(p, f, 0.14201762f);
    p = PWK_FMA(p, f, -0.16623357f);
    p = PWK_FMA(p, f, 0.20001227f);
    p = PWK_FMA(p, f, -0.25000823f);
    p = PWK_FMA(p, f, 0.3333333f);
    const float square = f * f;
    float tail = (p * f) * square;
    tail = PWK_FMA(e, 3.1946183e-5f, tail);
    tail = PWK_FMA(square, -0.5f, tail);
    float y = PWK_FMA(e, 0.69311523f, f + tail);
    y = x == PWK_INFINITY ? x : y;
    y = x == 0.0f ? -PWK_INFINITY : y;
    return x >= 0.0f ? y : PWK_NAN;
}

/* tanh x, odd by bits, NaN for NaN. */
PWK_FN float pwk_tanh(float x) {
    const uint32_t bits = PWK_BITS(x);
    const float a = PWK_FLOAT(bits & 0x7fffffffu);
    const float z = a * a;
    float p = PWK_FMA(-0.0057170405f, z, 0.020650582f);
    p = PWK_FMA(p, z, -0.053743497f);
    p = PWK_FMA(p, z, 0.13331491f);
    p = PWK_FMA(p, z, -0.33333284f);
    const float low = PWK_FMA(a * z, p, a);
    const float high = 1.0f - 2.0f / (pwk_exp(a + a) + 1.0f);
    const float y = 0.625f > a ? low : high;
    return x == x ? PWK_FLOAT(PWK_BITS(y) | (bits & 0x80000000u)) : x;
}

/* ---- small formats ---- */

/* The number of these bf16 bits. */
PWK_FN float pwk_of_bf16(uint32_t bits) { return PWK_FLOAT(bits << 16); }

/* The bits of the bf16 nearest to x, ties to even. */
PWK_FN uint32_t pwk_bf16_of(float x) {
    const uint32_t bits = PWK_BITS(x);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded;
}

/* The number of these e4m3 bits. */
PWK_FN float pwk_of_e4m3(uint32_t code) {
    const uint32_t rest = code & 0x7fu;
    const uint32_t normal = (rest << 20) + (120u << 23);
    const uint32_t tiny = PWK_BITS(float(rest) * (1.0f / 512.0f));
    const uint32_t value = rest == 0x7fu ? 0x7fc00000u : (rest < 8u ? tiny : normal);
    return PWK_FLOAT(((code & 0x80u) << 24) | value);
}

/* The bits of the e4m3 nearest to x, ties to even, at most 448. */
PWK_FN uint32_t pwk_e4m3_of(float x) {
    const uint32_t bits = PWK_BITS(x);
    const float magnitude = PWK_FLOAT(bits & 0x7fffffffu);
    const float capped = magnitude > 448.0f ? 448.0f : magnitude;
    const uint32_t units = uint32_t(PWK_NEAREST(capped * 512.0f)) & 0xfu;
    const uint32_t whole = PWK_BITS(capped);
    const uint32_t rounded = (whole + 0x7ffffu + ((whole >> 20) & 1u)) >> 20;
    const uint32_t code = 0.015625f > capped ? units : rounded - (120u << 3);
    return ((bits >> 24) & 0x80u) | (x == x ? code : 0x7fu);
}

/* ---- noise ---- */

struct pwk_words {
    uint32_t word[4];
};

/* Philox4x32-10. */
PWK_FN pwk_words pwk_philox(uint32_t key0, uint32_t key1, pwk_words c) {
    for (int round = 0; round < 10; round++) {
        const uint32_t a = PWK_HIGH(c.word[0], 0xd2511f53u), low_a = c.word[0] * 0xd2511f53u;
        const uint32_t b = PWK_HIGH(c.word[2], 0xcd9e8d57u), low_b = c.word[2] * 0xcd9e8d57u;
        c.word[0] = b ^ c.word[1] ^ key0;
        c.word[1] = low_b;
        c.word[2] = a ^ c.word[3] ^ key1;
        c.word[3] = low_a;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return c;
}

/* A number in (0, 1): the upper 23 bits of a word and a half. */
PWK_FN float pwk_uniform(uint32_t word) {
    return (float(word >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

#endif /* PAGEWISE_KERNEL_MATH_H */
