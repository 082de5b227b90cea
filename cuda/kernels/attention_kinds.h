/* Kinds of numbers that attention multiplies: what holds keys, values, and pieces of queries
 * and weights. */
#ifndef PAGEWISE_ATTENTION_KINDS_H
#define PAGEWISE_ATTENTION_KINDS_H

#include "attention_call.h"

struct kind_f16 {
    static constexpr uint32_t bytes = 2;
    static constexpr float weight_unit = 32768.0f;

    static __device__ __forceinline__ uint32_t bits(float x) { return ops::f16_of(x); }
    static __device__ __forceinline__ float of(uint32_t bits) {
        return ops::of_f16(static_cast<uint16_t>(bits));
    }
    static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
        ops::mma_f16(d, a, b);
    }
    /* Pieces that hold a number of this type. */
    static __device__ __forceinline__ uint32_t pieces(uint32_t dtype) {
        return dtype == PWK_DTYPE_F32 ? 2 : 1;
    }
    static __device__ __forceinline__ bool is_scaled(uint32_t q_dtype) {
        return q_dtype != PWK_DTYPE_F16;
    }
    static constexpr uint32_t exponent = 0x7c00u; /* all ones: no finite number */
};

struct kind_bf16 {
    static constexpr uint32_t bytes = 2;
    static constexpr float weight_unit = 1.0f;

    static __device__ __forceinline__ uint32_t bits(float x) { return pwk_bf16_of(x); }
    static __device__ __forceinline__ float of(uint32_t bits) { return pwk_of_bf16(bits); }
    static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
        ops::mma_bf16(d, a, b);
    }
    static __device__ __forceinline__ uint32_t pieces(uint32_t dtype) {
        return dtype == PWK_DTYPE_F32 ? 3 : (dtype == PWK_DTYPE_F16 ? 2 : 1);
    }
    static __device__ __forceinline__ bool is_scaled(uint32_t) { return false; }
    static constexpr uint32_t exponent = 0x7f80u;
};

struct kind_f32 {
    static constexpr uint32_t bytes = 4;
    static constexpr float weight_unit = 1.0f;
    static __device__ __forceinline__ uint32_t pieces(uint32_t) { return 1; }
};

static __device__ __forceinline__ bool is_finite(float x) {
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

#endif /* PAGEWISE_ATTENTION_KINDS_H */
