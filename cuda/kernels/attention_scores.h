/* A chunk's dot products, by mma or by plain fma, and what becomes of them: scores, then
 * weights. */
#ifndef PAGEWISE_ATTENTION_SCORES_H
#define PAGEWISE_ATTENTION_SCORES_H

#include "attention_unit.h"

/* ---- scores ---- */

/* Dot products of this warp's rows with its keys of a chunk. */
ATTENDING(void)::dots(float (&s)[SCORE_TILES][4]) {
    for (uint32_t j = 0; j < SCORE_TILES; j++) {
        s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
    }
    if constexpr (PLAIN) {
        plain_dots(s);
    } else {
        const uint32_t pieces = Kind::pieces(a.p.q_dtype), dims = dims16();
        const uint32_t row_pitch = unit().row_pitch, piece_bytes = QUERIES * row_pitch;
        const unsigned char *rows = SHARED() + PIECES +
                                    (row_warp * 16 + at.lane % 16) * row_pitch +
                                    at.lane / 16 * 16;
        const bool transposed = unit().keys.transposed;
        const uint32_t pitch = unit().key_pitch, matrix = at.lane / 8, line = at.lane % 8;
        const uint32_t key = (key_warp * SCORE_TILES + matrix / 2) * 8;
        const uint32_t column = matrix % 2 * 8;
        /* This lane's line for dim 0 and the warp's first keys, and steps from there. */
        const unsigned char *tile =
            SHARED() + unit().key_tile +
            (transposed ? (column + line) * pitch + key * 2
                        : (key + line) * pitch + column * 2);
        const uint32_t dim_step = transposed ? pitch : 2, key_step = transposed ? 2 : pitch;
        for (uint32_t dim = 0; dim < dims; dim += 16) {
            uint32_t q[3][4];
#pragma unroll
            for (uint32_t piece = 0; piece < 3; piece++) {
                if (piece < pieces) {
                    ops::load_matrix_4(q[piece], rows + piece * piece_bytes + dim * 2);
                }
            }
#pragma unroll
            for (uint32_t j = 0; j < SCORE_TILES; j += 2) {
                const unsigned char *from = tile + dim * dim_step + j * 8 * key_step;
                uint32_t k[4];
                if (transposed) {
                    ops::load_matrix_4_transposed(k, from);
                } else {
                    ops::load_matrix_4(k, from);
                }
                const uint32_t low[2] = {k[0], k[1]}, high[2] = {k[2], k[3]};
#pragma unroll
                for (uint32_t piece = 0; piece < 3; piece++) {
                    if (piece < pieces) {
                        Kind::mma(s[j], q[piece], low);
                        Kind::mma(s[j + 1], q[piece], high);
                    }
                }
            }
        }
    }
}

ATTENDING(void)::plain_dots(float (&s)[SCORE_TILES][4]) {
    const bool transposed = unit().keys.transposed;
    const uint32_t pitch = unit().key_pitch, row_pitch = unit().row_pitch;
    const uint32_t key_step = transposed ? 4 : pitch, dim_step = transposed ? pitch : 4;
    const unsigned char *q = SHARED() + PIECES + (row_warp * 16 + at.group) * row_pitch;
    const unsigned char *tile = SHARED() + unit().key_tile;
    for (uint32_t dim = 0; dim < a.p.kv.head_dim; dim++) {
        const float q0 = reinterpret_cast<const float *>(q)[dim];
        const float q1 = reinterpret_cast<const float *>(q + 8 * row_pitch)[dim];
        for (uint32_t j = 0; j < SCORE_TILES; j++) {
            for (uint32_t b = 0; b < 2; b++) {
                const uint32_t key = (key_warp * SCORE_TILES + j) * 8 + at.thread * 2 + b;
                const float k = *reinterpret_cast<const float *>(
                    tile + key * key_step + dim * dim_step);
                s[j][b] = __fmaf_rn(q0, k, s[j][b]);
                s[j][2 + b] = __fmaf_rn(q1, k, s[j][2 + b]);
            }
        }
    }
}

/* Dot products of this warp's rows with all keys of a chunk. Ends with a barrier. */
ATTENDING(void)::all_dots(float (&s)[KEY_TILES][4]) {
    if constexpr (KEY_WARPS == 1) {
        dots(s);
        __syncthreads();
    } else {
        float own[SCORE_TILES][4];
        dots(own);
        for (uint32_t j = 0; j < SCORE_TILES; j++) {
            float *to = shared<float>(SCORES) + at.group * SCORE_PITCH +
                        (key_warp * SCORE_TILES + j) * 8 + at.thread * 2;
            *reinterpret_cast<float2 *>(to) = make_float2(own[j][0], own[j][1]);
            *reinterpret_cast<float2 *>(to + 8 * SCORE_PITCH) =
                make_float2(own[j][2], own[j][3]);
        }
        __syncthreads();
        for (uint32_t j = 0; j < KEY_TILES; j++) {
            const float *from =
                shared<float>(SCORES) + at.group * SCORE_PITCH + j * 8 + at.thread * 2;
            const float2 low = *reinterpret_cast<const float2 *>(from);
            const float2 high = *reinterpret_cast<const float2 *>(from + 8 * SCORE_PITCH);
            s[j][0] = low.x;
            s[j][1] = low.y;
            s[j][2] = high.x;
            s[j][3] = high.y;
        }
    }
}

/* ---- weights ---- */

ATTENDING(float)::slope_of(uint32_t r) const {
    const uint32_t group = group_of(a);
    return a.slopes[unit().head * group + (unit().query + r) % group];
}

/* Dot products of one row become scores, then weights; the state follows. */
ATTENDING(void)::weights(uint32_t half, uint32_t base, float (&s)[KEY_TILES][4], state &into) {
    const uint32_t r = row_warp * 16 + half * 8 + at.group;
    const uint64_t seen = seen_bits(rows()[r], base);
    const bool scaled = a.p.kv.scales != PWK_KV_SCALES_NONE, sloped = a.slopes != nullptr;
    const float factor = shared<float>(FACTORS)[r], scale = a.p.scale, cap = a.p.softcap;
    const float slope = sloped ? slope_of(r) : 0.0f;
    const int32_t distance =
        static_cast<int32_t>(int64_t(base) - rows()[r].position + at.thread * 2);
    float most = -PWK_INFINITY;
#pragma unroll
    for (uint32_t j = 0; j < KEY_TILES; j++) {
#pragma unroll
        for (uint32_t b = 0; b < 2; b++) {
            const uint32_t key = j * 8 + at.thread * 2 + b;
            float x = s[j][2 * half + b] * factor;
            x = scaled ? x * scales()[key] : x;
            x *= scale;
            x = cap > 0.0f ? cap * pwk_tanh(x / cap) : x;
            x = sloped ? __fmaf_rn(slope, float(distance + int32_t(j * 8 + b)), x) : x;
            x = seen >> key & 1 ? x : -PWK_INFINITY;
            most = pwk_max(most, x);
            s[j][2 * half + b] = x;
        }
    }
    most = pwk_max(most, __shfl_xor_sync(ALL, most, 1));
    most = pwk_max(most, __shfl_xor_sync(ALL, most, 2));
    const float before = into.row[half].most, top = pwk_max(before, most);
    const float kept = before == top ? 1.0f : pwk_exp(before - top);
    const float from = top == -PWK_INFINITY ? 0.0f : top;
    float sum = 0.0f;
#pragma unroll
    for (uint32_t j = 0; j < KEY_TILES; j++) {
#pragma unroll
        for (uint32_t b = 0; b < 2; b++) {
            const uint32_t key = j * 8 + at.thread * 2 + b;
            const bool sees = seen >> key & 1;
            const float weight = sees ? pwk_exp_below(s[j][2 * half + b] - from) : 0.0f;
            sum += weight;
            const float value = scaled ? weight * scales()[CHUNK + key] : weight;
            s[j][2 * half + b] =
                sees ? value * Kind::weight_unit + 0.0f : __uint_as_float(NOT_SEEN);
        }
    }
    sum += __shfl_xor_sync(ALL, sum, 1);
    sum += __shfl_xor_sync(ALL, sum, 2);
    into.row[half] = {top, __fmaf_rn(into.row[half].sum, kept, sum)};
    if (__any_sync(ALL, kept != 1.0f)) {
#pragma unroll
        for (uint32_t n = 0; n < DIM_TILES; n++) {
            into.o[n][2 * half] = into.o[n][2 * half] * kept + 0.0f;
            into.o[n][2 * half + 1] = into.o[n][2 * half + 1] * kept + 0.0f;
        }
    }
}

#endif /* PAGEWISE_ATTENTION_SCORES_H */
