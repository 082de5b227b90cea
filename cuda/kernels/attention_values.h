/* A chunk's weighted values, by mma or by plain fma, and those that are no finite number. */
#ifndef PAGEWISE_ATTENTION_VALUES_H
#define PAGEWISE_ATTENTION_VALUES_H

#include "attention_unit.h"

/* ---- weighted values ---- */

/* The first dim of a tile of eight. */
ATTENDING(uint32_t)::dim_of(uint32_t n) const {
    return (key_warp * DIM_TILES + n) * 8;
}

/* O += P V for a chunk. Weights are used up. */
ATTENDING(void)::weigh(float (&p)[KEY_TILES][4], state &into) {
    if constexpr (PLAIN) {
        plain_weigh(p, into);
    } else {
        const uint32_t pieces = Kind::pieces(a.p.out_dtype), dims = dims16();
        const uint32_t pitch = unit().row_pitch;
        const unsigned char *tile = SHARED() + unit().value_tile + at.lane % 16 * pitch +
                                    (dim_of(0) + at.lane / 16 * 8) * 2;
#pragma unroll
        for (uint32_t j = 0; j < KEY_TILES; j += 2) {
            uint32_t weight[3][4];
#pragma unroll
            for (uint32_t piece = 0; piece < 3; piece++) {
                if (piece < pieces) {
                    take_piece(weight[piece], p[j], p[j + 1]);
                }
            }
#pragma unroll
            for (uint32_t n = 0; n < DIM_TILES; n += 2) {
                if (dim_of(n) < dims) {
                    uint32_t v[4];
                    ops::load_matrix_4_transposed(v, tile + j * 8 * pitch + n * 16);
                    const uint32_t low[2] = {v[0], v[1]}, high[2] = {v[2], v[3]};
#pragma unroll
                    for (uint32_t piece = 0; piece < 3; piece++) {
                        if (piece < pieces) {
                            Kind::mma(into.o[n], weight[piece], low);
                            Kind::mma(into.o[n + 1], weight[piece], high);
                        }
                    }
                }
            }
        }
    }
}

/* The next piece of sixteen keys' weights; what is left of them stays. */
ATTENDING(void)::take_piece(uint32_t (&weight)[4], float (&low)[4], float (&high)[4]) {
    two_pieces(weight[0], low[0], low[1]);
    two_pieces(weight[1], low[2], low[3]);
    two_pieces(weight[2], high[0], high[1]);
    two_pieces(weight[3], high[2], high[3]);
}

ATTENDING(void)::two_pieces(uint32_t &word, float &first, float &second) {
    const uint32_t low = Kind::bits(first), high = Kind::bits(second);
    word = low | high << 16;
    first -= Kind::of(low);
    second -= Kind::of(high);
}

ATTENDING(void)::plain_weigh(float (&p)[KEY_TILES][4], state &into) {
    const unsigned char *tile = SHARED() + unit().value_tile;
    const uint32_t pitch = unit().row_pitch;
#pragma unroll
    for (uint32_t j = 0; j < KEY_TILES; j++) {
#pragma unroll 1
        for (uint32_t i = 0; i < 8; i++) {
            const int from = static_cast<int>((at.lane & 28u) | i / 2);
            const float p0 = __shfl_sync(ALL, i % 2 ? p[j][1] : p[j][0], from);
            const float p1 = __shfl_sync(ALL, i % 2 ? p[j][3] : p[j][2], from);
            const unsigned char *line = tile + (j * 8 + i) * pitch;
#pragma unroll
            for (uint32_t n = 0; n < DIM_TILES; n++) {
                if (dim_of(n) < a.p.kv.head_dim) {
                    const float2 v = *reinterpret_cast<const float2 *>(
                        line + (dim_of(n) + at.thread * 2) * 4);
                    add_seen(into.o[n][0], p0, v.x);
                    add_seen(into.o[n][1], p0, v.y);
                    add_seen(into.o[n][2], p1, v.x);
                    add_seen(into.o[n][3], p1, v.y);
                }
            }
        }
    }
}

ATTENDING(void)::add_seen(float &o, float weight, float value) {
    o = __float_as_uint(weight) == NOT_SEEN ? o : __fmaf_rn(weight, value, o);
}

/* ---- values that are no finite number ---- */

/* Makes them zeros, and names their keys. Between barriers. */
ATTENDING(void)::clear_bad() {
    if (threadIdx.x < 2) {
        unit().bad[threadIdx.x] = 0;
    }
    __syncthreads();
    const uint32_t dims = a.p.kv.head_dim;
    for (uint32_t i = threadIdx.x; i < CHUNK * dims; i += THREADS) {
        const uint32_t key = i / dims, dim = i % dims;
        uint16_t *value =
            shared<uint16_t>(unit().value_tile + key * unit().row_pitch);
        if ((value[dim] & Kind::exponent) == Kind::exponent) {
            value[dim] = 0;
            atomicOr(&unit().bad[key / 32], 1u << key % 32);
        }
    }
    __syncthreads();
}

/* Adds what they give to the rows that see them, by fma. */
ATTENDING(void)::add_bad(uint32_t chunk, const float (&p)[KEY_TILES][4], state &into) {
    for (uint32_t key = 0; key < CHUNK; key++) {
        if ((unit().bad[key / 32] >> key % 32 & 1) == 0) {
            continue;
        }
        const int from = static_cast<int>((at.lane & 28u) | key % 8 / 2);
        float p0 = 0.0f, p1 = 0.0f;
#pragma unroll
        for (uint32_t j = 0; j < KEY_TILES; j++) {
            const float low = __shfl_sync(ALL, key % 2 ? p[j][1] : p[j][0], from);
            const float high = __shfl_sync(ALL, key % 2 ? p[j][3] : p[j][2], from);
            p0 = j == key / 8 ? low : p0;
            p1 = j == key / 8 ? high : p1;
        }
        const attention_place place = places(chunk)[key];
#pragma unroll
        for (uint32_t n = 0; n < DIM_TILES; n++) {
            for (uint32_t b = 0; b < 2; b++) {
                const uint32_t dim = dim_of(n) + at.thread * 2 + b;
                if (dim < a.p.kv.head_dim) {
                    const float v = stored_value(a.p.kv.dtype, unit().values, place, dim);
                    if (!is_finite(v)) {
                        add_seen(into.o[n][b], p0, v);
                        add_seen(into.o[n][2 + b], p1, v);
                    }
                }
            }
        }
    }
}

#endif /* PAGEWISE_ATTENTION_VALUES_H */
