/* Floats that are on their way at once. Eight of a row: 16 bytes of f16 or bf16, 32 of f32,
 * where rows lie so; else one by one. Or some that lie apart. The values are the same.
 */
#ifndef PAGEWISE_PIECES_H
#define PAGEWISE_PIECES_H

#include "kernel.h"

constexpr uint32_t PIECE = 8; /* elements of a piece */

PWK_FN uint32_t float_bytes(uint32_t dtype) { return dtype == PWK_DTYPE_F32 ? 4 : 2; }

/* Whether something at steps of so many bytes lies at multiples of 16. */
PWK_FN bool is_wide(const void *start, uint64_t step_bytes) {
    return ((reinterpret_cast<uint64_t>(start) | step_bytes) & 15) == 0;
}

/* Whether pieces of rows of floats can be taken at once. */
PWK_FN bool is_wide_row(uint32_t dtype, const void *start, uint64_t row_stride) {
    return is_wide(start, row_stride * float_bytes(dtype));
}

/* Eight floats as they are stored: a word each of f32, else two in each of the first four. */
struct piece_bits {
    uint32_t words[PIECE];
};

/* Those from `at` on, `count` of them at most; zeros past those. Where they are wide, nothing
 * waits for them before they are widened. */
PWK_FN piece_bits load_bits(uint32_t dtype, const void *from, uint64_t at, uint32_t count,
                            bool wide) {
    piece_bits bits = {};
    const bool is_f32 = dtype == PWK_DTYPE_F32;
    if (!wide || count < PIECE) {
#pragma unroll
        for (uint32_t i = 0; i < PIECE; i++) {
            if (i < count && is_f32) {
                bits.words[i] = static_cast<const uint32_t *>(from)[at + i];
            } else if (i < count) {
                const uint32_t half = static_cast<const uint16_t *>(from)[at + i];
                bits.words[i / 2] |= half << (i % 2 * 16);
            }
        }
        return bits;
    }
    const uint4 *words = reinterpret_cast<const uint4 *>(static_cast<const char *>(from) +
                                                         at * float_bytes(dtype));
    const uint4 low = words[0];
    const uint4 high = is_f32 ? words[1] : make_uint4(0, 0, 0, 0);
    return {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
}

PWK_FN void widen_piece(uint32_t dtype, const piece_bits &bits, float (&x)[PIECE]) {
    if (dtype == PWK_DTYPE_F32) {
#pragma unroll
        for (uint32_t i = 0; i < PIECE; i++) {
            x[i] = __uint_as_float(bits.words[i]);
        }
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < PIECE; i++) {
        const uint16_t half = static_cast<uint16_t>(bits.words[i / 2] >> (i % 2 * 16));
        x[i] = dtype == PWK_DTYPE_F16 ? ops::of_f16(half) : pwk_of_bf16(half);
    }
}

/* The floats from `at` on, `count` of them at most; zeros past those. */
PWK_FN void load_piece(uint32_t dtype, const void *from, uint64_t at, uint32_t count, bool wide,
                       float (&x)[PIECE]) {
    widen_piece(dtype, load_bits(dtype, from, at, count, wide), x);
}

/* Two floats as the 16-bit type has them, the first one low. */
PWK_FN uint32_t packed_pair(uint32_t dtype, float first, float second) {
    if (dtype == PWK_DTYPE_F16) {
        return ops::f16_of(first) | static_cast<uint32_t>(ops::f16_of(second)) << 16;
    }
    return pwk_bf16_of(first) | pwk_bf16_of(second) << 16;
}

/* Stores the first `count` of them, each rounded. */
PWK_FN void store_piece(uint32_t dtype, void *to, uint64_t at, uint32_t count, bool wide,
                        const float (&x)[PIECE]) {
    if (!wide || count < PIECE) {
#pragma unroll
        for (uint32_t i = 0; i < PIECE; i++) {
            if (i < count) {
                store_float(dtype, to, at + i, x[i]);
            }
        }
        return;
    }
    uint4 *words =
        reinterpret_cast<uint4 *>(static_cast<char *>(to) + at * float_bytes(dtype));
    if (dtype == PWK_DTYPE_F32) {
        words[0] = make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]),
                              __float_as_uint(x[2]), __float_as_uint(x[3]));
        words[1] = make_uint4(__float_as_uint(x[4]), __float_as_uint(x[5]),
                              __float_as_uint(x[6]), __float_as_uint(x[7]));
        return;
    }
    words[0] = make_uint4(packed_pair(dtype, x[0], x[1]), packed_pair(dtype, x[2], x[3]),
                          packed_pair(dtype, x[4], x[5]), packed_pair(dtype, x[6], x[7]));
}

/* Elements of the piece that begins there, of a row of so many. */
PWK_FN uint32_t piece_count(uint64_t at, uint32_t columns) {
    return at + PIECE <= columns ? PIECE : columns - static_cast<uint32_t>(at);
}

/* The first `count` of COUNT floats that lie `stride` apart, all loaded before the first is
 * widened; zeros past those. */
template <uint32_t COUNT>
PWK_FN void load_apart(uint32_t dtype, const void *from, uint64_t at, uint64_t stride,
                       uint32_t count, float (&x)[COUNT]) {
    if (dtype == PWK_DTYPE_F32) {
#pragma unroll
        for (uint32_t i = 0; i < COUNT; i++) {
            x[i] = i < count ? static_cast<const float *>(from)[at + i * stride] : 0.0f;
        }
        return;
    }
    uint16_t bits[COUNT];
#pragma unroll
    for (uint32_t i = 0; i < COUNT; i++) {
        bits[i] = i < count ? static_cast<const uint16_t *>(from)[at + i * stride] : 0;
    }
    if (dtype == PWK_DTYPE_F16) {
#pragma unroll
        for (uint32_t i = 0; i < COUNT; i++) {
            x[i] = ops::of_f16(bits[i]);
        }
    } else {
#pragma unroll
        for (uint32_t i = 0; i < COUNT; i++) {
            x[i] = pwk_of_bf16(bits[i]);
        }
    }
}

#endif /* PAGEWISE_PIECES_H */
