/* Products of rows with a packed weight: what `matmul` and `token_logprob` share.
 *
 * Float weights go through 8 x 8 matrices of f32: a chunk of 32 inputs of x and of a tile's
 * 32 outputs is widened into threadgroup memory, so one form serves every type, and whatever
 * lies beyond rows and inputs is a zero there. A segment of 512 inputs is summed from zero by
 * one SIMD group, inputs ascending by eights, and joins the totals in plain threads: so a row
 * has the same steps in every form, and the same bits.
 *
 * Weights in groups are multiplied in plain threads by exact sums of integers, lane l output
 * l, which has the CPU's bits. Their rows are quantised first, into the workspace:
 *   `[rows_max][inputs]` signed bytes, then for each row `[groups]` f32 scale and a word: the
 *   f32 mass, or what is added to integer sums.
 */
#ifndef PAGEWISE_METAL_PRODUCT_H
#define PAGEWISE_METAL_PRODUCT_H

#include "kernel.h"

constant constexpr uint32_t TILE = 32;        /* outputs of a tile of a weight */
constant constexpr uint32_t SEGMENT = 512;    /* inputs that are summed from zero */
constant constexpr uint32_t CHUNK = 32;       /* inputs in threadgroup memory */
constant constexpr uint32_t SIMDGROUPS = 4;   /* of a threadgroup */
constant constexpr uint32_t THREADS = 128;    /* of a threadgroup */
constant constexpr uint32_t FEW_ROWS = 8;     /* of a threadgroup that takes few */
constant constexpr uint32_t MANY_ROWS = 64;   /* of one that takes many */
constant constexpr uint32_t FEW_TOTALS = FEW_ROWS * TILE / THREADS;   /* of a thread */
constant constexpr uint32_t MANY_TOTALS = MANY_ROWS * TILE / THREADS; /* of a thread */

/* What is multiplied. */
struct product {
    device const uchar *x;
    uint64_t x_row_stride;
    uint32_t x_dtype;
    uint32_t rows_max;
    constant pwk_weight &weight;
    device const uchar *packed;
    device const uchar *bias;
    uint32_t bias_dtype;
    device uchar *converted;
};

/* That of a call of either kernel. */
template <class Arguments>
static product product_of(constant Arguments &a) {
    return {a.x, a.p.x_row_stride, a.p.x_dtype, a.p.rows_max, a.p.weight,
            a.weight, a.bias, a.p.bias_dtype, a.launch.workspace};
}

/* Rows [first, rows) of which a threadgroup takes some, times one tile. */
struct product_place {
    uint64_t first;
    uint32_t rows;
    uint32_t tile;
};

/* ---- places ---- */

PWK_FN bool has_groups(constant pwk_weight &w) { return w.group != 0; }

PWK_FN uint32_t segments_of(constant pwk_weight &w) {
    return (w.inputs + SEGMENT - 1) / SEGMENT;
}

PWK_FN uint32_t segment_end(constant pwk_weight &w, uint32_t segment) {
    const uint32_t begin = segment * SEGMENT;
    return w.inputs - begin < SEGMENT ? w.inputs : begin + SEGMENT;
}

PWK_FN uint32_t tiles_of(constant pwk_weight &w) { return (w.outputs + TILE - 1) / TILE; }

/* Scales of its groups that a quantised row has behind all rows. */
PWK_FN device uint2 *row_tail(thread const product &p, uint64_t row) {
    device uchar *tails = p.converted + uint64_t(p.rows_max) * p.weight.inputs;
    return reinterpret_cast<device uint2 *>(tails) + row * (p.weight.inputs / p.weight.group);
}

/* Bytes of all quantised rows. */
PWK_FN uint64_t converted_bytes(constant pwk_weight &w, uint32_t rows_max) {
    const uint64_t each = has_groups(w) ? uint64_t(w.inputs) + w.inputs / w.group * 8 : 0;
    return rows_max * each;
}

PWK_FN uint32_t scale_bytes(constant pwk_weight &w) {
    return w.scale_dtype == PWK_DTYPE_F32 ? 4 : 2;
}

/* Bytes of the scales of a group of a tile, and of its biases. */
PWK_FN uint32_t head_bytes(constant pwk_weight &w) {
    return TILE * scale_bytes(w) * (w.scheme == PWK_SCHEME_AFFINE ? 2 : 1);
}

PWK_FN uint32_t group_bytes(constant pwk_weight &w) {
    return head_bytes(w) + TILE * w.group / (w.dtype == PWK_DTYPE_I4 ? 2 : 1);
}

PWK_FN uint64_t tile_bytes(constant pwk_weight &w) {
    if (has_groups(w)) {
        return uint64_t(w.inputs / w.group) * group_bytes(w);
    }
    if (w.dtype == PWK_DTYPE_BF16) {
        return (uint64_t(w.inputs) + 1) / 2 * TILE * 4;
    }
    return uint64_t(w.inputs) * TILE * (w.dtype == PWK_DTYPE_F32 ? 4 : 2);
}

/* The total and the bias of an output, if there is one. */
PWK_FN float with_bias(thread const product &p, uint32_t output, float total) {
    return p.bias == nullptr ? total : total + load_float(p.bias_dtype, p.bias, output);
}

/* ---- rows, quantised ---- */

/* The largest of the `lanes` neighbours, as bits of magnitudes. */
PWK_FN uint32_t largest_of(uint32_t bits, uint32_t lanes) {
    for (ushort other_lanes = 1; other_lanes < lanes; other_lanes *= 2) {
        const uint32_t other = simd_shuffle_xor(bits, other_lanes);
        bits = other > bits ? other : bits;
    }
    return bits;
}

/* 128 inputs of a row, of which a lane takes four from k on: signed bytes, and the scale and
 * what belongs to it for each group. */
PWK_FN void quantise_part(thread const product &p, uint64_t row, uint32_t k) {
    constant pwk_weight &w = p.weight;
    const bool there = k < w.inputs;
    float x[4];
    uint32_t most_bits = 0;
    for (uint32_t j = 0; j < 4; j++) {
        x[j] = there ? load_float(p.x_dtype, p.x, row * p.x_row_stride + k + j) : 0.0f;
        const uint32_t bits = PWK_BITS(x[j]) & 0x7fffffffu;
        most_bits = bits > most_bits ? bits : most_bits;
    }
    most_bits = largest_of(most_bits, w.group / 4);
    const float most = PWK_FLOAT(most_bits);
    const bool small = PWK_FLOAT((127u - 100u) << 23) > most;
    const bool endless = most_bits > 0x7f7fffffu;
    const bool zero = small || endless;
    const float inverse = zero ? 0.0f : 127.0f / most;
    uint32_t word = 0;
    int sum = 0;
    for (uint32_t j = 0; j < 4; j++) {
        const int number = zero ? 0 : PWK_NEAREST(x[j] * inverse);
        word |= (uint32_t(number) & 0xffu) << (8 * j);
        sum += number;
    }
    for (ushort other_lanes = 1; other_lanes < w.group / 4; other_lanes *= 2) {
        sum += simd_shuffle_xor(sum, other_lanes);
    }
    if (!there) {
        return;
    }
    *reinterpret_cast<device uint32_t *>(p.converted + row * w.inputs + k) = word;
    if (k % w.group == 0) {
        const float scale = endless ? PWK_NAN : (small ? 0.0f : most / 127.0f);
        const int offset = w.dtype == PWK_DTYPE_I4 ? 8 : 128;
        const uint32_t mass = w.scheme == PWK_SCHEME_AFFINE ? PWK_BITS(scale * float(sum))
                                                            : uint32_t(-offset * sum);
        row_tail(p, row)[k / w.group] = uint2(PWK_BITS(scale), mass);
    }
}

/* Every row in use into the workspace, a SIMD group for each segment. */
PWK_FN void convert_rows(thread const product &p, Place place, uint32_t rows) {
    const uint64_t segments = segments_of(p.weight);
    const uint64_t stride = uint64_t(place.group_count.x) * SIMDGROUPS;
    uint64_t unit = uint64_t(place.group.x) * SIMDGROUPS + place.simdgroup;
    for (; unit < rows * segments; unit += stride) {
        const uint32_t begin = uint32_t(unit % segments) * SEGMENT;
        for (uint32_t part = 0; part < SEGMENT; part += 128) {
            quantise_part(p, unit / segments, begin + part + place.lane * 4);
        }
    }
}

/* ---- float weights ---- */

/* The weight of input k and output `lane` of a tile. */
PWK_FN float weight_of(uint32_t dtype, device const uchar *tile, uint32_t k, uint32_t lane) {
    const uint64_t at = dtype == PWK_DTYPE_BF16
                            ? (uint64_t(k / 2) * TILE + lane) * 2 + k % 2
                            : uint64_t(k) * TILE + lane;
    return load_float(dtype, tile, at);
}

/* Lines [line, lines) of a chunk of rows from `row` on, as f32, by steps of `step`. */
PWK_FN void stage_rows(thread const product &p, Place place, product_place at, uint32_t k,
                       uint32_t end, uint32_t line, uint32_t lines, uint32_t step,
                       threadgroup float *to) {
    for (; line < lines; line += step) {
        const uint64_t row = at.first + line;
        const bool there = row < at.rows && k + place.lane < end;
        to[line * CHUNK + place.lane] =
            there ? load_float(p.x_dtype, p.x, row * p.x_row_stride + k + place.lane) : 0.0f;
    }
}

/* The same of a chunk of a tile: a line is the 32 outputs of an input. */
PWK_FN void stage_weight(thread const product &p, Place place, product_place at, uint32_t k,
                         uint32_t end, uint32_t line, uint32_t step, threadgroup float *to) {
    device const uchar *tile = p.packed + at.tile * tile_bytes(p.weight);
    for (; line < CHUNK; line += step) {
        to[line * TILE + place.lane] =
            k + line < end ? weight_of(p.weight.dtype, tile, k + line, place.lane) : 0.0f;
    }
}

/* Adds a chunk of 8 rows to their sums of 32 outputs. */
PWK_FN void add_chunk(thread simdgroup_float8x8 *sums, threadgroup const float *x,
                      threadgroup const float *weight) {
    for (uint32_t k = 0; k < CHUNK; k += 8) {
        simdgroup_float8x8 left;
        simdgroup_load(left, x + k, CHUNK);
        UNROLLED for (uint32_t j = 0; j < TILE / 8; j++) {
            simdgroup_float8x8 right;
            simdgroup_load(right, weight + k * TILE + j * 8, TILE);
            simdgroup_multiply_accumulate(sums[j], left, right, sums[j]);
        }
    }
}

PWK_FN void clear_sums(thread simdgroup_float8x8 *sums) {
    UNROLLED for (uint32_t j = 0; j < TILE / 8; j++) {
        sums[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
}

PWK_FN void store_sums(thread const simdgroup_float8x8 *sums, threadgroup float *to) {
    UNROLLED for (uint32_t j = 0; j < TILE / 8; j++) {
        simdgroup_store(sums[j], to + j * 8, TILE);
    }
}

/* A segment of 8 rows by one SIMD group, into `to`, `[8][32]`; `staged` is its own. */
PWK_FN void float_segment(thread const product &p, Place place, product_place at,
                          uint32_t segment, threadgroup float *staged, threadgroup float *to) {
    threadgroup float *weight = staged + FEW_ROWS * CHUNK;
    const uint32_t end = segment_end(p.weight, segment);
    simdgroup_float8x8 sums[TILE / 8];
    clear_sums(sums);
    for (uint32_t k = segment * SEGMENT; k < end; k += CHUNK) {
        stage_rows(p, place, at, k, end, 0, FEW_ROWS, 1, staged);
        stage_weight(p, place, at, k, end, 0, 1, weight);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        add_chunk(sums, staged, weight);
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    store_sums(sums, to);
}

/* The totals of MANY_ROWS rows and a tile: total i of a thread is number thread + 128 i of
 * `[64][32]`. A SIMD group takes two times 8 rows. */
PWK_FN void many_totals(thread const product &p, Place place, product_place at,
                        thread float *totals) {
    threadgroup float *x = reinterpret_cast<threadgroup float *>(SHARED());
    threadgroup float *weight = x + MANY_ROWS * CHUNK;
    threadgroup float *sums = weight + CHUNK * TILE;
    const uint32_t own = place.simdgroup * 16;
    for (uint32_t i = 0; i < MANY_TOTALS; i++) {
        totals[i] = 0.0f;
    }
    for (uint32_t segment = 0; segment < segments_of(p.weight); segment++) {
        const uint32_t end = segment_end(p.weight, segment);
        simdgroup_float8x8 low[TILE / 8], high[TILE / 8];
        clear_sums(low);
        clear_sums(high);
        for (uint32_t k = segment * SEGMENT; k < end; k += CHUNK) {
            stage_rows(p, place, at, k, end, place.simdgroup, MANY_ROWS, SIMDGROUPS, x);
            stage_weight(p, place, at, k, end, place.simdgroup, SIMDGROUPS, weight);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            add_chunk(low, x + own * CHUNK, weight);
            add_chunk(high, x + (own + 8) * CHUNK, weight);
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
        store_sums(low, sums + own * TILE);
        store_sums(high, sums + (own + 8) * TILE);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint32_t i = 0; i < MANY_TOTALS; i++) {
            totals[i] += sums[place.thread_index + i * THREADS];
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

/* ---- weights in groups ---- */

/* Adds four unsigned numbers of an output times four signed ones of each row. */
PWK_FN void add_four(thread int *dots, uint32_t numbers, thread const uint32_t *x) {
    for (uint32_t j = 0; j < 4; j++) {
        const int number = int(numbers >> (8 * j) & 0xffu);
        for (uint32_t row = 0; row < FEW_ROWS; row++) {
            dots[row] += number * (int(x[row] << (24 - 8 * j)) >> 24);
        }
    }
}

/* Word k / 4 of the quantised rows; of the last row for those beyond. */
PWK_FN void load_quads(thread const product &p, product_place at, uint32_t k,
                       thread uint32_t *x) {
    for (uint32_t i = 0; i < FEW_ROWS; i++) {
        const uint64_t row = at.first + i < at.rows ? at.first + i : at.rows - 1;
        x[i] = *reinterpret_cast<device const uint32_t *>(p.converted + row * p.weight.inputs + k);
    }
}

/* Exact sums of the group that begins at input k. */
PWK_FN void group_dots(thread const product &p, Place place, product_place at, uint32_t k,
                       device const uint32_t *words, thread int *dots) {
    const bool nibbles = p.weight.dtype == PWK_DTYPE_I4;
    const uint32_t each = nibbles ? 8 : 4;
    for (uint32_t i = 0; i < FEW_ROWS; i++) {
        dots[i] = 0;
    }
    for (uint32_t at_word = 0; at_word < p.weight.group / each; at_word++) {
        const uint32_t word = words[at_word * TILE + place.lane];
        uint32_t x[FEW_ROWS];
        load_quads(p, at, k + at_word * each, x);
        add_four(dots, nibbles ? word & 0x0f0f0f0fu : word, x);
        if (nibbles) {
            load_quads(p, at, k + at_word * each + 4, x);
            add_four(dots, word >> 4 & 0x0f0f0f0fu, x);
        }
    }
}

/* A segment of 8 rows by one SIMD group, lane l output l, into `to`, `[8][32]`. */
PWK_FN void group_segment(thread const product &p, Place place, product_place at,
                          uint32_t segment, threadgroup float *to) {
    constant pwk_weight &w = p.weight;
    const bool affine = w.scheme == PWK_SCHEME_AFFINE;
    const uint32_t end = segment_end(w, segment);
    device const uchar *tile = p.packed + at.tile * tile_bytes(w);
    float sums[FEW_ROWS];
    for (uint32_t i = 0; i < FEW_ROWS; i++) {
        sums[i] = 0.0f;
    }
    for (uint32_t k = segment * SEGMENT; k < end; k += w.group) {
        device const uchar *group = tile + uint64_t(k / w.group) * group_bytes(w);
        int dots[FEW_ROWS];
        group_dots(p, place, at, k,
                   reinterpret_cast<device const uint32_t *>(group + head_bytes(w)), dots);
        const float scale = load_float(w.scale_dtype, group, place.lane);
        const float bias = affine ? load_float(w.scale_dtype, group, TILE + place.lane) : 0.0f;
        for (uint32_t i = 0; i < FEW_ROWS; i++) {
            const uint64_t row = at.first + i < at.rows ? at.first + i : at.rows - 1;
            const uint2 tail = row_tail(p, row)[k / w.group];
            const int dot = dots[i] + (affine ? 0 : int(tail.y));
            sums[i] = PWK_FMA(float(dot), scale * PWK_FLOAT(tail.x), sums[i]);
            if (affine) {
                sums[i] = PWK_FMA(bias, PWK_FLOAT(tail.y), sums[i]);
            }
        }
    }
    for (uint32_t i = 0; i < FEW_ROWS; i++) {
        to[i * TILE + place.lane] = sums[i];
    }
}

/* ---- few rows ---- */

/* The totals of FEW_ROWS rows and a tile: total i of a thread is number thread + 128 i of
 * `[8][32]`. SIMD groups take segments side by side. */
PWK_FN void few_totals(thread const product &p, Place place, product_place at,
                       thread float *totals) {
    threadgroup float *sums = reinterpret_cast<threadgroup float *>(SHARED());
    threadgroup float *staged = sums + SIMDGROUPS * FEW_ROWS * TILE +
                                place.simdgroup * (FEW_ROWS + TILE) * CHUNK;
    threadgroup float *own = sums + place.simdgroup * FEW_ROWS * TILE;
    const uint32_t segments = segments_of(p.weight);
    for (uint32_t i = 0; i < FEW_TOTALS; i++) {
        totals[i] = 0.0f;
    }
    for (uint32_t base = 0; base < segments; base += SIMDGROUPS) {
        const uint32_t segment = base + place.simdgroup;
        if (segment < segments && has_groups(p.weight)) {
            group_segment(p, place, at, segment, own);
        } else if (segment < segments) {
            float_segment(p, place, at, segment, staged, own);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const uint32_t count = segments - base < SIMDGROUPS ? segments - base : SIMDGROUPS;
        for (uint32_t part = 0; part < count; part++) {
            for (uint32_t i = 0; i < FEW_TOTALS; i++) {
                totals[i] += sums[part * FEW_ROWS * TILE + place.thread_index + i * THREADS];
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

#endif /* PAGEWISE_METAL_PRODUCT_H */
