/* Eight floats of a row at once: 16 bytes of f16 or bf16, 32 of f32, where rows lie so; else
 * one by one. The values are the same.
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

/* The floats from `at` on, `count` of them at most; zeros past those. */
PWK_FN void load_piece(uint32_t dtype, const void *from, uint64_t at, uint32_t count, bool wide,
                       float (&x)[PIECE]) {
    if (!wide || count < PIECE) {
#pragma unroll
        for (uint32_t i = 0; i < PIECE; i++) {
            x[i] = i < count ? load_float(dtype, from, at + i) : 0.0f;
        }
        return;
    }
    const uint4 *words = reinterpret_cast<const uint4 *>(static_cast<const char *>(from) +
                                                         at * float_bytes(dtype));
    const uint4 low = words[0];
    const uint32_t half[4] = {low.x, low.y, low.z, low.w};
    if (dtype == PWK_DTYPE_F32) {
        const uint4 high = words[1];
        const uint32_t rest[4] = {high.x, high.y, high.z, high.w};
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            x[i] = __uint_as_float(half[i]);
            x[4 + i] = __uint_as_float(rest[i]);
        }
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const bool is_f16 = dtype == PWK_DTYPE_F16;
        const uint16_t first = static_cast<uint16_t>(half[i]);
        x[2 * i] = is_f16 ? ops::of_f16(first) : pwk_of_bf16(first);
        const uint16_t second = static_cast<uint16_t>(half[i] >> 16);
        x[2 * i + 1] = is_f16 ? ops::of_f16(second) : pwk_of_bf16(second);
    }
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

#endif /* PAGEWISE_PIECES_H */
