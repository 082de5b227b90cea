/* Products of rows with a packed weight: what `matmul` and `token_logprob` share.
 *
 * Rows are converted once, into the workspace (convert_rows), 64 bytes at a time:
 *   `[rows_max][chunks][pieces][64 bytes]`, then for each row
 *   bytes:  `[groups]` f32 scale and a word: the f32 mass, or what is added to integer sums;
 *   floats: `[segments]` f32 that undoes the power of two that a segment was scaled by.
 * A chunk is 32 inputs of 16 bits or 64 of 8. Floats that do not fit 16 bits become pieces
 * that add up to them: three of bf16, each the upper eight bits of what is left, or two of
 * f16, each rounded, after scaling the row's segment by a power of two.
 *
 * Weights come straight from global memory as the right operands of mma: a lane's 16 bytes
 * are four outputs, one for each column block, so lane (g, t) computes of row g the outputs
 * 8t to 8t + 7. Which input stands in which of mma's places is free as long as both operands
 * agree: lane t takes consecutive inputs, 16 bytes a chunk, so x needs no ldmatrix either.
 *
 * A chunk's instructions on an accumulator are the same, in the same order, whatever the
 * tile: a row has one sum for each output.
 */
#ifndef PAGEWISE_PRODUCT_H
#define PAGEWISE_PRODUCT_H

#include "kernel.h"

constexpr uint32_t TILE = 32;        /* outputs of a tile of a weight */
constexpr uint32_t SEGMENT = 512;    /* inputs that are summed from zero */
constexpr uint32_t CHUNK_BYTES = 64; /* of one piece of one row */
constexpr uint32_t ALL_LANES = 0xffffffffu;

/* What is multiplied. */
struct product {
    const void *x;
    uint64_t x_row_stride;
    uint32_t x_dtype;
    uint32_t rows_max;
    const pwk_weight &weight;
    const unsigned char *packed;
    const void *bias;
    uint32_t bias_dtype;
    unsigned char *converted;
};

/* ---- places ---- */

PWK_FN bool has_groups(const pwk_weight &w) { return w.group != 0; }

PWK_FN uint32_t inputs_of_chunk(const pwk_weight &w) { return has_groups(w) ? 64 : 32; }

PWK_FN uint32_t chunks_of(const pwk_weight &w) {
    return (w.inputs + inputs_of_chunk(w) - 1) / inputs_of_chunk(w);
}

PWK_FN uint32_t segments_of(const pwk_weight &w) { return (w.inputs + SEGMENT - 1) / SEGMENT; }

/* Pieces that a number of x becomes. */
PWK_FN uint32_t pieces_of(const pwk_weight &w, uint32_t x_dtype) {
    if (has_groups(w) || w.dtype == x_dtype) {
        return 1;
    }
    return w.dtype == PWK_DTYPE_BF16 && x_dtype == PWK_DTYPE_F32 ? 3 : 2;
}

PWK_FN uint64_t row_bytes(const product &p) {
    const uint64_t chunks = chunks_of(p.weight);
    return chunks * pieces_of(p.weight, p.x_dtype) * CHUNK_BYTES;
}

/* Bytes of what a row has behind all rows. */
PWK_FN uint64_t tail_bytes(const pwk_weight &w) {
    return has_groups(w) ? uint64_t(w.inputs / w.group) * 8 : uint64_t(segments_of(w)) * 4;
}

/* What a row has there. */
PWK_FN unsigned char *row_tail(const product &p, uint64_t row) {
    return p.converted + p.rows_max * row_bytes(p) + row * tail_bytes(p.weight);
}

/* Bytes of all converted rows; f32 weights take them as they are. */
PWK_FN uint64_t converted_bytes(const product &p) {
    const uint64_t each = row_bytes(p) + tail_bytes(p.weight);
    return p.weight.dtype == PWK_DTYPE_F32 ? 0 : p.rows_max * each;
}

PWK_FN uint32_t scale_bytes(const pwk_weight &w) {
    return w.scale_dtype == PWK_DTYPE_F32 ? 4 : 2;
}

/* Bytes of the scales of a group of a tile, and of its biases. */
PWK_FN uint32_t head_bytes(const pwk_weight &w) {
    return TILE * scale_bytes(w) * (w.scheme == PWK_SCHEME_AFFINE ? 2 : 1);
}

PWK_FN uint32_t group_bytes(const pwk_weight &w) {
    return head_bytes(w) + TILE * w.group / (w.dtype == PWK_DTYPE_I4 ? 2 : 1);
}

PWK_FN uint64_t tile_bytes(const pwk_weight &w) {
    if (has_groups(w)) {
        return uint64_t(w.inputs / w.group) * group_bytes(w);
    }
    if (w.dtype == PWK_DTYPE_BF16) {
        return (uint64_t(w.inputs) + 1) / 2 * TILE * 4;
    }
    return uint64_t(w.inputs) * TILE * (w.dtype == PWK_DTYPE_F32 ? 4 : 2);
}

PWK_FN uint32_t tiles_of(const pwk_weight &w) { return (w.outputs + TILE - 1) / TILE; }

PWK_FN uint32_t word_of(const uint4 &v, uint32_t at) {
    return at == 0 ? v.x : at == 1 ? v.y : at == 2 ? v.z : v.w;
}

/* 16 bytes of a weight: past the first-level cache, unless other warps of the block read them
 * too. */
template <bool SHARED_BY_WARPS>
PWK_FN uint4 load_words(const unsigned char *from) {
    return SHARED_BY_WARPS ? *reinterpret_cast<const uint4 *>(from) : ops::load_once(from);
}

PWK_FN uint4 no_words() { return make_uint4(0, 0, 0, 0); }

/* The bias of an output, or 0. */
PWK_FN float with_bias(const product &p, uint32_t output, float total) {
    return p.bias == nullptr ? total : total + load_float(p.bias_dtype, p.bias, output);
}

/* ---- rows, converted ---- */

/* Four inputs that a lane takes of every 128 of a segment. */
struct segment_part {
    float x[4][4];
    uint32_t first; /* the first of the first four */
};

PWK_FN segment_part load_segment(const product &p, uint64_t row, uint32_t segment) {
    segment_part part;
    part.first = segment * SEGMENT + threadIdx.x % 32 * 4;
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t k = part.first + i * 128 + j;
            const uint64_t at = row * p.x_row_stride + k;
            part.x[i][j] = k < p.weight.inputs ? load_float(p.x_dtype, p.x, at) : 0.0f;
        }
    }
    return part;
}

/* Four numbers of a group, quantised, and their sum. */
struct quad {
    uint32_t word;
    int32_t sum;
};

PWK_FN quad quantised(const float (&x)[4], float inverse, bool zero) {
    quad q{0, 0};
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) {
        const int32_t number = zero ? 0 : __float2int_rn(x[j] * inverse);
        q.word |= (static_cast<uint32_t>(number) & 0xffu) << (8 * j);
        q.sum += number;
    }
    return q;
}

/* Groups of a segment: signed bytes, and the scale and what belongs to it for each. */
static __device__ void quantise_segment(const product &p, uint64_t row,
                                        const segment_part &part) {
    const pwk_weight &w = p.weight;
    const uint32_t lanes = w.group / 4;
    unsigned char *numbers = p.converted + row * row_bytes(p);
    uint2 *tail = reinterpret_cast<uint2 *>(row_tail(p, row));
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t k = part.first + i * 128;
        uint32_t most_bits = 0;
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            const uint32_t bits = __float_as_uint(part.x[i][j]) & 0x7fffffffu;
            most_bits = bits > most_bits ? bits : most_bits;
        }
        for (uint32_t half = lanes / 2; half > 0; half /= 2) {
            const uint32_t other = __shfl_xor_sync(ALL_LANES, most_bits, half);
            most_bits = other > most_bits ? other : most_bits;
        }
        const float most = __uint_as_float(most_bits);
        const bool small = __uint_as_float((127u - 100u) << 23) > most;
        const bool endless = most_bits > 0x7f7fffffu;
        const quad q = quantised(part.x[i], 127.0f / most, small || endless);
        int32_t sum = q.sum;
        for (uint32_t half = lanes / 2; half > 0; half /= 2) {
            sum += __shfl_xor_sync(ALL_LANES, sum, half);
        }
        if (k >= w.inputs) {
            continue;
        }
        *reinterpret_cast<uint32_t *>(numbers + k) = q.word;
        if (k % w.group == 0) {
            const float scale = endless ? PWK_NAN : small ? 0.0f : most / 127.0f;
            const int32_t offset = w.dtype == PWK_DTYPE_I4 ? 8 : 128;
            tail[k / w.group] = make_uint2(__float_as_uint(scale),
                                           w.scheme == PWK_SCHEME_AFFINE
                                               ? __float_as_uint(scale * float(sum))
                                               : static_cast<uint32_t>(-offset * sum));
        }
    }
}

PWK_FN bool is_finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

/* The next piece of x, of which what is left stays: nothing behind what is no number. */
PWK_FN uint32_t next_piece(uint32_t dtype, float &x) {
    uint32_t bits;
    float value;
    if (dtype == PWK_DTYPE_BF16) {
        bits = x == x ? __float_as_uint(x) >> 16 : 0x7fc0u;
        value = pwk_of_bf16(bits);
    } else {
        bits = ops::f16_of(x);
        value = ops::of_f16(static_cast<uint16_t>(bits));
    }
    x = is_finite(x) ? x - value : 0.0f;
    return bits;
}

/* The power of two that brings the segment's largest finite number to between 2^13 and 2^14;
 * the same in every lane. */
PWK_FN uint32_t scaling_exponent(const segment_part &part) {
    uint32_t most = 0;
#pragma unroll
    for (uint32_t i = 0; i < 16; i++) {
        const uint32_t bits = __float_as_uint(part.x[i / 4][i % 4]) & 0x7fffffffu;
        most = is_finite(part.x[i / 4][i % 4]) && bits > most ? bits : most;
    }
    for (uint32_t half = 16; half > 0; half /= 2) {
        const uint32_t other = __shfl_xor_sync(ALL_LANES, most, half);
        most = other > most ? other : most;
    }
    const uint32_t exponent = 267u - (most >> 23);
    return exponent < 253u ? exponent : 253u;
}

/* A segment as pieces of the weight's type. */
static __device__ void split_segment(const product &p, uint64_t row, uint32_t segment,
                                     segment_part &part) {
    const pwk_weight &w = p.weight;
    const uint32_t pieces = pieces_of(w, p.x_dtype);
    uint32_t exponent = 127;
    if (w.dtype == PWK_DTYPE_F16 && pieces > 1) {
        exponent = scaling_exponent(part);
    }
    if (threadIdx.x % 32 == 0) {
        reinterpret_cast<uint32_t *>(row_tail(p, row))[segment] = (254u - exponent) << 23;
    }
    const float factor = __uint_as_float(exponent << 23);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t k = part.first + i * 128;
        if (k / 32 >= chunks_of(w)) {
            continue;
        }
        float rest[4];
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            rest[j] = part.x[i][j] * factor;
        }
        unsigned char *to = p.converted + row * row_bytes(p) +
                            uint64_t(k / 32) * pieces * CHUNK_BYTES + k % 32 * 2;
        for (uint32_t piece = 0; piece < pieces; piece++) {
            uint32_t bits[4];
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                bits[j] = next_piece(w.dtype, rest[j]);
            }
            *reinterpret_cast<uint2 *>(to + piece * CHUNK_BYTES) =
                make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16);
        }
    }
}

/* Every row in use into the workspace, a warp for each segment. */
static __device__ void convert_rows(const product &p, uint32_t rows) {
    const uint32_t warps = blockDim.x / 32;
    const uint64_t segments = segments_of(p.weight);
    const uint64_t stride = uint64_t(gridDim.x) * warps;
    for (uint64_t unit = uint64_t(blockIdx.x) * warps + threadIdx.x / 32;
         unit < rows * segments; unit += stride) {
        const uint64_t row = unit / segments;
        const uint32_t segment = static_cast<uint32_t>(unit % segments);
        segment_part part = load_segment(p, row, segment);
        if (has_groups(p.weight)) {
            quantise_segment(p, row, part);
        } else {
            split_segment(p, row, segment, part);
        }
    }
}

/* ---- a lane's place ---- */

/* Lane l = 4g + t. */
struct place {
    uint32_t g, t;
};

PWK_FN place own_place() {
    const uint32_t lane = threadIdx.x % 32;
    return place{lane / 4, lane % 4};
}

/* Sums of 16 M rows and 32 outputs: [m][j][2h + c] is that of row 16m + 8h + g and output
 * 8t + 4c + j. */
template <uint32_t M>
struct tile_sums {
    float of[M][4][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (uint32_t i = 0; i < M * 16; i++) {
            of[i / 16][i / 4 % 4][i % 4] = 0.0f;
        }
    }

    /* Four neighbouring outputs, from 8t + 4 (i % 2) on, of row 16 (i / 4) + 8 (i % 4 / 2) + g. */
    __device__ __forceinline__ float4 four(uint32_t i) const {
        const float(&m)[4][4] = of[i / 4];
        return make_float4(m[0][i % 4], m[1][i % 4], m[2][i % 4], m[3][i % 4]);
    }

    __device__ __forceinline__ void add(const tile_sums &other) {
#pragma unroll
        for (uint32_t i = 0; i < M * 16; i++) {
            of[i / 16][i / 4 % 4][i % 4] += other.of[i / 16][i / 4 % 4][i % 4];
        }
    }
};

/* ---- float weights ---- */

/* A chunk of a tile of bf16: word 4i + j is the pair 4t + i of output 4g + j. */
struct bf16_weight {
    static constexpr uint32_t CHUNK = 32;
    static constexpr bool IS_SCALED = false; /* what it multiplies, if in pieces */
    uint32_t words[16];

    template <bool SHARED_BY_WARPS>
    __device__ __forceinline__ void load(const pwk_weight &w, const unsigned char *tile,
                                         uint32_t chunk) {
        const place at = own_place();
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t pair = chunk * 16 + 4 * at.t + i;
            uint4 v = no_words();
            if (2 * pair < w.inputs) {
                v = load_words<SHARED_BY_WARPS>(tile + uint64_t(pair) * TILE * 4 + at.g * 16);
            }
            words[4 * i] = v.x;
            words[4 * i + 1] = v.y;
            words[4 * i + 2] = v.z;
            words[4 * i + 3] = v.w;
        }
    }

    /* What pads an odd input is never multiplied. */
    __device__ __forceinline__ void finish(const pwk_weight &w, uint32_t chunk) {
        if (w.inputs % 2 == 0 || chunk != w.inputs / 32) {
            return;
        }
        const uint32_t last = w.inputs / 2 % 16;
        const place at = own_place();
#pragma unroll
        for (uint32_t i = 0; i < 16; i++) {
            words[i] = 4 * at.t + i / 4 == last ? words[i] & 0xffffu : words[i];
        }
    }

    __device__ __forceinline__ void operand(uint32_t step, uint32_t j, uint32_t (&b)[2]) const {
        b[0] = words[8 * step + j];
        b[1] = words[8 * step + 4 + j];
    }

    static __device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4],
                                                    const uint32_t (&b)[2]) {
        ops::mma_bf16(d, a, b);
    }
};

/* A chunk of a tile of f16: word 2i + h is input 8t + i of outputs 4g + 2h and 4g + 2h + 1. */
struct f16_weight {
    static constexpr uint32_t CHUNK = 32;
    static constexpr bool IS_SCALED = true;
    uint32_t words[16];

    template <bool SHARED_BY_WARPS>
    __device__ __forceinline__ void load(const pwk_weight &w, const unsigned char *tile,
                                         uint32_t chunk) {
        const place at = own_place();
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t k = chunk * 32 + 8 * at.t + i;
            uint2 v = make_uint2(0, 0);
            if (k < w.inputs) {
                v = *reinterpret_cast<const uint2 *>(tile + uint64_t(k) * TILE * 2 + at.g * 8);
            }
            words[2 * i] = v.x;
            words[2 * i + 1] = v.y;
        }
    }

    __device__ __forceinline__ void finish(const pwk_weight &, uint32_t) {}

    /* Two inputs of one output, side by side. */
    static __device__ __forceinline__ uint32_t pair(uint32_t a, uint32_t b, uint32_t j) {
        return j % 2 == 0 ? (a & 0xffffu) | b << 16 : a >> 16 | (b & 0xffff0000u);
    }

    __device__ __forceinline__ void operand(uint32_t step, uint32_t j, uint32_t (&b)[2]) const {
        const uint32_t first = 8 * step + j / 2;
        b[0] = pair(words[first], words[first + 2], j);
        b[1] = pair(words[first + 4], words[first + 6], j);
    }

    static __device__ __forceinline__ void multiply(float (&d)[4], const uint32_t (&a)[4],
                                                    const uint32_t (&b)[2]) {
        ops::mma_f16(d, a, b);
    }
};

/* Adds one piece of a step of 16 rows, for column block j: x[h] is lane t's 16 bytes of row
 * 8h + g. */
template <class Weight>
PWK_FN void add_products(float (&sums)[4], const uint4 (&x)[2], const Weight &weight,
                         uint32_t step, uint32_t j) {
    const uint32_t a[4] = {word_of(x[0], 2 * step), word_of(x[1], 2 * step),
                           word_of(x[0], 2 * step + 1), word_of(x[1], 2 * step + 1)};
    uint32_t b[2];
    weight.operand(step, j, b);
    Weight::multiply(sums, a, b);
}

/* ---- weights in groups ---- */

/* A chunk of a tile of groups, two steps of 32 inputs. Of nibbles, words 4s + j hold octet
 * 4s + t of output 4g + j; of bytes, words 8s + 4i + j quad 8s + 2t + i. Heads of 16 bits
 * come with the step that ends their group, scales and biases of outputs 8t to 8t + 7. */
template <bool NIBBLES>
struct group_weight {
    static constexpr uint32_t CHUNK = 64;
    static constexpr uint32_t STEP_WORDS = NIBBLES ? 4 : 8;
    uint32_t words[2 * STEP_WORDS];
    uint4 heads[2][2];

    template <bool SHARED_BY_WARPS>
    __device__ __forceinline__ void load(const pwk_weight &w, const unsigned char *tile,
                                         uint32_t chunk) {
        const place at = own_place();
#pragma unroll
        for (uint32_t step = 0; step < 2; step++) {
            const uint32_t k = chunk * 64 + step * 32;
            if (k >= w.inputs) {
                break;
            }
            const unsigned char *group = tile + uint64_t(k / w.group) * group_bytes(w);
            const unsigned char *from =
                group + head_bytes(w) + k % w.group * (NIBBLES ? TILE / 2 : TILE);
#pragma unroll
            for (uint32_t i = 0; i < STEP_WORDS / 4; i++) {
                const uint32_t line = NIBBLES ? at.t : 2 * at.t + i;
                const uint4 v = load_words<SHARED_BY_WARPS>(from + line * TILE * 4 + at.g * 16);
                words[step * STEP_WORDS + 4 * i] = v.x;
                words[step * STEP_WORDS + 4 * i + 1] = v.y;
                words[step * STEP_WORDS + 4 * i + 2] = v.z;
                words[step * STEP_WORDS + 4 * i + 3] = v.w;
            }
            if (w.scale_dtype != PWK_DTYPE_F32 && (k + 32) % w.group == 0) {
                heads[step][0] = load_words<SHARED_BY_WARPS>(group + at.t * 16);
                if (w.scheme == PWK_SCHEME_AFFINE) {
                    heads[step][1] = load_words<SHARED_BY_WARPS>(group + TILE * 2 + at.t * 16);
                }
            }
        }
    }

    __device__ __forceinline__ void operand(uint32_t step, uint32_t j, uint32_t (&b)[2]) const {
        if (NIBBLES) {
            b[0] = words[step * STEP_WORDS + j] & 0x0f0f0f0fu;
            b[1] = words[step * STEP_WORDS + j] >> 4 & 0x0f0f0f0fu;
        } else {
            b[0] = words[step * STEP_WORDS + j];
            b[1] = words[step * STEP_WORDS + 4 + j];
        }
    }

    /* Scales, or biases, of the group that a step ends. */
    __device__ __forceinline__ void head(const pwk_weight &w, const unsigned char *tile,
                                         uint32_t k, uint32_t step, uint32_t which,
                                         float (&values)[8]) const {
        const uint32_t t = own_place().t;
        if (w.scale_dtype == PWK_DTYPE_F32) {
            const unsigned char *group = tile + uint64_t(k / w.group) * group_bytes(w);
            const float4 *from =
                reinterpret_cast<const float4 *>(group + which * TILE * 4 + t * 32);
            const float4 low = from[0], high = from[1];
            values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
            values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
            return;
        }
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t bits = word_of(heads[step][which], i / 2) >> (16 * (i % 2)) & 0xffffu;
            values[i] = w.scale_dtype == PWK_DTYPE_F16
                            ? ops::of_f16(static_cast<uint16_t>(bits))
                            : pwk_of_bf16(bits);
        }
    }
};

/* What a lane knows of its rows' group: scale, and mass or what sums lack, of row 8h + g. */
struct group_rows {
    uint2 of[2];
};

/* Rows [first, first + 16) below `rows`; zeros for the others. */
PWK_FN group_rows load_group_rows(const product &p, uint64_t first, uint32_t rows, uint32_t k) {
    const uint32_t group = k / p.weight.group;
    group_rows own;
#pragma unroll
    for (uint32_t h = 0; h < 2; h++) {
        const uint64_t row = first + 8 * h + own_place().g;
        own.of[h] = make_uint2(0, 0);
        if (row < rows) {
            own.of[h] = reinterpret_cast<const uint2 *>(row_tail(p, row))[group];
        }
    }
    return own;
}

/* Exact sums of a group, of 16 rows and 32 outputs. */
struct group_sums {
    int32_t of[4][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (uint32_t i = 0; i < 16; i++) {
            of[i / 4][i % 4] = 0;
        }
    }

    /* x[h] is lane t's 8 bytes of row 8h + g. */
    template <class Weight>
    __device__ __forceinline__ void add(const uint2 (&x)[2], const Weight &weight,
                                        uint32_t step) {
        const uint32_t a[4] = {x[0].x, x[1].x, x[0].y, x[1].y};
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            uint32_t b[2];
            weight.operand(step, j, b);
            ops::mma_s8_u8(of[j], a, b);
        }
    }
};

/* Adds M finished groups, each of the same outputs and 16 rows of its own. */
template <uint32_t M, class Weight>
PWK_FN void add_groups(const pwk_weight &w, const unsigned char *tile, const Weight &weight,
                       uint32_t k, uint32_t step, const group_sums (&dots)[M],
                       const group_rows (&rows)[M], tile_sums<M> &sums) {
    const bool affine = w.scheme == PWK_SCHEME_AFFINE;
    float values[8];
    weight.head(w, tile, k, step, 0, values);
#pragma unroll
    for (uint32_t i = 0; i < M * 16; i++) {
        const uint32_t m = i / 16, j = i / 4 % 4, h = i % 4 / 2, c = i % 2;
        const float scale = values[4 * c + j] * __uint_as_float(rows[m].of[h].x);
        const int32_t extra = affine ? 0 : static_cast<int32_t>(rows[m].of[h].y);
        float &sum = sums.of[m][j][2 * h + c];
        sum = __fmaf_rn(float(dots[m].of[j][2 * h + c] + extra), scale, sum);
    }
    if (!affine) {
        return;
    }
    weight.head(w, tile, k, step, 1, values);
#pragma unroll
    for (uint32_t i = 0; i < M * 16; i++) {
        const uint32_t m = i / 16, j = i / 4 % 4, h = i % 4 / 2, c = i % 2;
        float &sum = sums.of[m][j][2 * h + c];
        sum = __fmaf_rn(values[4 * c + j], __uint_as_float(rows[m].of[h].y), sum);
    }
}

#endif /* PAGEWISE_PRODUCT_H */
