/* Eight floats of a row at once: 16 bytes of f16 or bf16, 32 of f32, where rows lie so; else
 * one by one. The values are the same.
 */
#ifndef PAGEWISE_METAL_PIECES_H
#define PAGEWISE_METAL_PIECES_H

#include "kernel.h"

constant constexpr uint32_t PIECE = 8; /* elements of a piece */

PWK_FN uint32_t float_bytes(uint32_t dtype) { return dtype == PWK_DTYPE_F32 ? 4 : 2; }

/* Whether something at steps of so many bytes lies at multiples of 16. */
PWK_FN bool is_wide(device const void *start, uint64_t step_bytes) {
    return ((reinterpret_cast<uint64_t>(start) | step_bytes) & 15) == 0;
}

/* Whether pieces of rows of floats can be taken at once. */
PWK_FN bool is_wide_row(uint32_t dtype, device const void *start, uint64_t row_stride) {
    return is_wide(start, row_stride * float_bytes(dtype));
}

/* A float of the 16-bit type from its bits. */
PWK_FN float half_of(uint32_t dtype, uint32_t bits) {
    const ushort low = static_cast<ushort>(bits);
    return dtype == PWK_DTYPE_F16 ? float(as_type<half>(low)) : pwk_of_bf16(low);
}

/* The bits of the nearest float of the 16-bit type. */
PWK_FN uint32_t half_bits(uint32_t dtype, float x) {
    return dtype == PWK_DTYPE_F16 ? uint32_t(as_type<ushort>(half(x))) : pwk_bf16_of(x);
}

/* Two floats as the 16-bit type has them, the first one low. */
PWK_FN uint32_t packed_pair(uint32_t dtype, float first, float second) {
    return half_bits(dtype, first) | half_bits(dtype, second) << 16;
}

/* The floats x[0] to x[PIECE - 1] from `at` on, `count` of them at most; zeros past those. */
PWK_FN void load_piece(uint32_t dtype, device const uchar *from, uint64_t at, uint32_t count,
                       bool wide, thread float *x) {
    if (!wide || count < PIECE) {
        for (uint32_t i = 0; i < PIECE; i++) {
            x[i] = i < count ? load_float(dtype, from, at + i) : 0.0f;
        }
        return;
    }
    device const uint4 *words =
        reinterpret_cast<device const uint4 *>(from + at * float_bytes(dtype));
    const uint4 low = words[0];
    const uint32_t first[4] = {low.x, low.y, low.z, low.w};
    if (dtype == PWK_DTYPE_F32) {
        const uint4 high = words[1];
        const uint32_t rest[4] = {high.x, high.y, high.z, high.w};
        for (uint32_t i = 0; i < 4; i++) {
            x[i] = as_type<float>(first[i]);
            x[4 + i] = as_type<float>(rest[i]);
        }
        return;
    }
    for (uint32_t i = 0; i < 4; i++) {
        x[2 * i] = half_of(dtype, first[i] & 0xffffu);
        x[2 * i + 1] = half_of(dtype, first[i] >> 16);
    }
}

/* Stores the first `count` of x[0] to x[PIECE - 1], each rounded. */
PWK_FN void store_piece(uint32_t dtype, device uchar *to, uint64_t at, uint32_t count, bool wide,
                        thread const float *x) {
    if (!wide || count < PIECE) {
        for (uint32_t i = 0; i < PIECE; i++) {
            if (i < count) {
                store_float(dtype, to, at + i, x[i]);
            }
        }
        return;
    }
    device uint4 *words = reinterpret_cast<device uint4 *>(to + at * float_bytes(dtype));
    if (dtype == PWK_DTYPE_F32) {
        words[0] = uint4(as_type<uint>(x[0]), as_type<uint>(x[1]), as_type<uint>(x[2]),
                         as_type<uint>(x[3]));
        words[1] = uint4(as_type<uint>(x[4]), as_type<uint>(x[5]), as_type<uint>(x[6]),
                         as_type<uint>(x[7]));
        return;
    }
    words[0] = uint4(packed_pair(dtype, x[0], x[1]), packed_pair(dtype, x[2], x[3]),
                     packed_pair(dtype, x[4], x[5]), packed_pair(dtype, x[6], x[7]));
}

/* Elements of the piece that begins there, of a row of so many. */
PWK_FN uint32_t piece_count(uint64_t at, uint32_t columns) {
    return at + PIECE <= columns ? PIECE : columns - static_cast<uint32_t>(at);
}

#endif /* PAGEWISE_METAL_PIECES_H */
