/* Two ways through a product of product.h, for whoever stores its sums.
 *
 * Few rows (side_by_side): a block takes 16 rows and one tile of 32 outputs, or several where
 * inputs are few; its eight warps take segments side by side, some chunks of 2 KiB or, of
 * nibbles, 1 KiB ahead of the one it multiplies, and the sums fold, ascending, in shared memory.
 * Many rows (one_after_other): a block takes 64 or 128 rows and 128 outputs, a warp half of
 * the rows and one tile. Rows come by cp.async, three stages; weights go from global memory to
 * registers, for the two warps that share them meet in the first-level cache. Segments come
 * one after the other, and their sums stay in registers.
 */
#ifndef PAGEWISE_PRODUCT_FORMS_H
#define PAGEWISE_PRODUCT_FORMS_H

#include "product.h"

constexpr uint32_t WARPS = 8;
constexpr uint32_t FEW_ROWS = 16;                 /* of a block */
constexpr uint32_t PART = FEW_ROWS * TILE;        /* sums of a warp */
constexpr uint32_t ROW_WARPS = 2;                 /* warps that share a tile */
constexpr uint32_t MANY_TILES = WARPS / ROW_WARPS; /* of a block */
constexpr uint32_t STAGES = 3;                    /* chunks of rows in shared memory */

/* ---- sums of a segment ---- */

/* Of a float weight. */
template <class Of, uint32_t PIECE_COUNT, uint32_t M>
struct float_form {
    using Weight = Of;
    static constexpr uint32_t PIECES = PIECE_COUNT;
    static constexpr uint32_t AHEAD = 2;
    static constexpr uint32_t BLOCKS = M;
    tile_sums<M> sums;

    __device__ __forceinline__ void begin() { sums.clear(); }

    /* Adds a chunk; x says what lane t holds of its rows. A tensor core may cut off what does
     * not fit beside the largest of its terms, always in one direction: so a chunk's products
     * are summed from zero, the smallest pieces first, and added to the others by f32's rule. */
    template <class X>
    __device__ __forceinline__ void add(const product &p, const unsigned char *, Weight &weight,
                                        uint32_t chunk, uint64_t, uint32_t, const X &x) {
        weight.finish(p.weight, chunk);
#pragma unroll
        for (uint32_t i = 0; i < M * 4; i++) {
            const uint32_t m = i / 4, j = i % 4;
            float own[4] = {};
#pragma unroll
            for (uint32_t piece = PIECES; piece-- > 0;) {
                const uint4 of[2] = {x.sixteen(m, piece, 0), x.sixteen(m, piece, 1)};
                add_products(own, of, weight, 0, j);
                add_products(own, of, weight, 1, j);
            }
#pragma unroll
            for (uint32_t k = 0; k < 4; k++) {
                sums.of[m][j][k] += own[k];
            }
        }
    }

    /* Undoes what the segment's rows were scaled by, which those of one piece, or of bf16, are
     * not. */
    __device__ __forceinline__ void end(const product &p, uint32_t segment, uint64_t first,
                                        uint32_t rows) {
        if constexpr (Of::IS_SCALED && PIECES > 1) {
#pragma unroll
            for (uint32_t i = 0; i < M * 2; i++) {
                const uint32_t m = i / 2, h = i % 2;
                const uint64_t row = first + 16 * m + 8 * h + own_place().g;
                float factor = 1.0f;
                if (row < rows) {
                    factor = reinterpret_cast<const float *>(row_tail(p, row))[segment];
                }
#pragma unroll
                for (uint32_t j = 0; j < 8; j++) {
                    sums.of[m][j / 2][2 * h + j % 2] *= factor;
                }
            }
        }
    }
};

/* Of a weight in groups. */
template <bool NIBBLES, uint32_t M>
struct group_form {
    using Weight = group_weight<NIBBLES>;
    static constexpr uint32_t PIECES = 1;
    static constexpr uint32_t AHEAD = NIBBLES ? 4 : 2;
    static constexpr uint32_t BLOCKS = M;
    tile_sums<M> sums;
    group_sums dots[M];
    group_rows own[M];

    __device__ __forceinline__ void begin() { sums.clear(); }

    template <class X>
    __device__ __forceinline__ void add(const product &p, const unsigned char *tile,
                                        Weight &weight, uint32_t chunk, uint64_t first,
                                        uint32_t rows, const X &x) {
        const pwk_weight &w = p.weight;
#pragma unroll
        for (uint32_t step = 0; step < 2; step++) {
            const uint32_t k = chunk * 64 + step * 32;
            if (k >= w.inputs) {
                break;
            }
            if (k % w.group == 0) {
#pragma unroll
                for (uint32_t m = 0; m < M; m++) {
                    own[m] = load_group_rows(p, first + 16 * m, rows, k);
                    dots[m].clear();
                }
            }
#pragma unroll
            for (uint32_t m = 0; m < M; m++) {
                const uint2 of[2] = {x.eight(m, step, 0), x.eight(m, step, 1)};
                dots[m].add(of, weight, step);
            }
            if ((k + 32) % w.group == 0) {
                add_groups(w, tile, weight, k, step, dots, own, sums);
            }
        }
    }

    __device__ __forceinline__ void end(const product &, uint32_t, uint64_t, uint32_t) {}
};

/* ---- few rows ---- */

/* A chunk on its way: weights, and 16 rows from the workspace. */
template <class Form>
struct chunk_ahead {
    typename Form::Weight weight;
    uint4 x[Form::PIECES][2];

    __device__ __forceinline__ void load(const product &p, const unsigned char *tile,
                                         uint32_t chunk, uint64_t first, uint32_t rows) {
        constexpr bool bytes = Form::Weight::CHUNK == 64;
        weight.template load<false>(p.weight, tile, chunk);
        const place at = own_place();
#pragma unroll
        for (uint32_t i = 0; i < Form::PIECES * 2; i++) {
            const uint64_t row = first + 8 * (i % 2) + at.g;
            const unsigned char *from = p.converted + row * row_bytes(p) +
                                        (uint64_t(chunk) * Form::PIECES + i / 2) * CHUNK_BYTES;
            uint4 v = no_words();
            if (row < rows && bytes) {
                const uint2 low = *reinterpret_cast<const uint2 *>(from + 8 * at.t);
                const uint2 high = *reinterpret_cast<const uint2 *>(from + 32 + 8 * at.t);
                v = make_uint4(low.x, low.y, high.x, high.y);
            } else if (row < rows) {
                v = *reinterpret_cast<const uint4 *>(from + 16 * at.t);
            }
            x[i / 2][i % 2] = v;
        }
    }

    __device__ __forceinline__ uint4 sixteen(uint32_t, uint32_t piece, uint32_t h) const {
        return x[piece][h];
    }

    __device__ __forceinline__ uint2 eight(uint32_t, uint32_t step, uint32_t h) const {
        const uint4 &v = x[0][h];
        return step == 0 ? make_uint2(v.x, v.y) : make_uint2(v.z, v.w);
    }
};

/* Chunks of a segment. */
template <class Weight>
PWK_FN uint32_t segment_chunks(const pwk_weight &w, uint32_t segment) {
    constexpr uint32_t most = SEGMENT / Weight::CHUNK;
    const uint32_t left = chunks_of(w) - segment * most;
    return left < most ? left : most;
}

/* A warp's segment of 16 rows and a tile, into `to`. */
template <class Form>
struct by_products {
    static constexpr uint32_t STAGED_BYTES = 0;

    static __device__ __forceinline__ void sum(const product &p, const unsigned char *tile,
                                               uint64_t first, uint32_t rows, uint32_t segment,
                                               float *to, unsigned char *) {
        const uint32_t count = segment_chunks<typename Form::Weight>(p.weight, segment);
        const uint32_t begin = segment * (SEGMENT / Form::Weight::CHUNK);
        constexpr uint32_t DEPTH = Form::AHEAD;
        chunk_ahead<Form> ahead[DEPTH];
        Form form;
        form.begin();
#pragma unroll
        for (uint32_t i = 0; i < DEPTH; i++) {
            if (i < count) {
                ahead[i].load(p, tile, begin + i, first, rows);
            }
        }
        for (uint32_t base = 0; base < count; base += DEPTH) {
#pragma unroll
            for (uint32_t i = 0; i < DEPTH; i++) {
                const uint32_t at = base + i;
                if (at < count) {
                    form.add(p, tile, ahead[i].weight, begin + at, first, rows, ahead[i]);
                    if (at + DEPTH < count) {
                        ahead[i].load(p, tile, begin + at + DEPTH, first, rows);
                    }
                }
            }
        }
        form.end(p, segment, first, rows);
        const place own = own_place();
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            float *four = to + (i / 2 * 8 + own.g) * TILE + 8 * own.t + 4 * (i % 2);
            *reinterpret_cast<float4 *>(four) = form.sums.four(i);
        }
    }
};

/* f32 weights by plain fma, lane l output l; each warp stages 64 inputs of 16 rows. */
struct by_fma {
    static constexpr uint32_t STAGED = 64; /* inputs */
    static constexpr uint32_t STAGED_BYTES = FEW_ROWS * STAGED * 4;

    template <uint32_t ROWS>
    static __device__ __forceinline__ void add(const float *tile, const float *x,
                                               uint32_t count, float (&sums)[FEW_ROWS]) {
        const uint32_t lane = threadIdx.x % 32;
        uint32_t k = 0;
#pragma unroll 4
        for (; k + 4 <= count; k += 4) {
            float w[4];
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                w[i] = tile[uint64_t(k + i) * TILE + lane];
            }
#pragma unroll
            for (uint32_t row = 0; row < ROWS; row++) {
                const float4 v = *reinterpret_cast<const float4 *>(x + row * STAGED + k);
                sums[row] = __fmaf_rn(w[0], v.x, sums[row]);
                sums[row] = __fmaf_rn(w[1], v.y, sums[row]);
                sums[row] = __fmaf_rn(w[2], v.z, sums[row]);
                sums[row] = __fmaf_rn(w[3], v.w, sums[row]);
            }
        }
        for (; k < count; k++) {
            const float w = tile[uint64_t(k) * TILE + lane];
#pragma unroll
            for (uint32_t row = 0; row < ROWS; row++) {
                sums[row] = __fmaf_rn(w, x[row * STAGED + k], sums[row]);
            }
        }
    }

    static __device__ __forceinline__ void sum(const product &p, const unsigned char *tile,
                                               uint64_t first, uint32_t rows, uint32_t segment,
                                               float *to, unsigned char *staged) {
        float *x = reinterpret_cast<float *>(staged);
        const uint32_t lane = threadIdx.x % 32;
        const uint32_t begin = segment * SEGMENT;
        const uint32_t left = p.weight.inputs - begin;
        const uint32_t inputs = left < SEGMENT ? left : SEGMENT;
        const uint64_t live_rows = rows - first;
        float sums[FEW_ROWS] = {};
        for (uint32_t at = 0; at < inputs; at += STAGED) {
            const uint32_t count = inputs - at < STAGED ? inputs - at : STAGED;
            __syncwarp();
            for (uint32_t row = 0; row < FEW_ROWS && row < live_rows; row++) {
                const uint64_t from = (first + row) * p.x_row_stride + begin + at;
                for (uint32_t k = lane; k < count; k += 32) {
                    x[row * STAGED + k] = load_float(p.x_dtype, p.x, from + k);
                }
            }
            __syncwarp();
            const float *words = reinterpret_cast<const float *>(tile) +
                                 uint64_t(begin + at) * TILE;
            if (live_rows <= 4) {
                add<4>(words, x, count, sums);
            } else {
                add<FEW_ROWS>(words, x, count, sums);
            }
        }
#pragma unroll
        for (uint32_t row = 0; row < FEW_ROWS; row++) {
            to[row * TILE + lane] = sums[row];
        }
    }
};

/* Bytes of shared memory of side_by_side. */
template <class Part>
constexpr uint32_t few_bytes() {
    return (WARPS + 1) * PART * 4 + WARPS * Part::STAGED_BYTES;
}

/* Tiles that a block takes: several where segments leave warps over. */
PWK_FN uint32_t tiles_at_once(const pwk_weight &w) {
    const uint32_t segments = segments_of(w);
    return segments < WARPS ? WARPS / segments : 1;
}

/* The totals of up to 16 rows from `first` and some tiles from `tile` on, each given once to
 * store(row, output, total); by the whole block. */
template <class Part, class Store>
static __device__ __forceinline__ void side_by_side(const product &p, uint64_t first,
                                                    uint32_t rows, uint32_t tile,
                                                    const Store &store) {
    float *sums = reinterpret_cast<float *>(SHARED());
    float *totals = sums + WARPS * PART;
    const pwk_weight &w = p.weight;
    const uint32_t warp = threadIdx.x / 32, segments = segments_of(w);
    const uint32_t together = tiles_at_once(w);
    const uint32_t at_once = segments < WARPS ? segments : WARPS;
    const uint32_t own = tile + warp / at_once;
    unsigned char *staged = SHARED() + (WARPS + 1) * PART * 4 + warp * Part::STAGED_BYTES;
    for (uint32_t base = 0; base < segments; base += at_once) {
        const uint32_t segment = base + warp % at_once;
        if (warp / at_once < together && own < tiles_of(w) && segment < segments) {
            Part::sum(p, p.packed + own * tile_bytes(w), first, rows, segment,
                      sums + warp * PART, staged);
        }
        __syncthreads();
        const uint32_t count = segments - base < at_once ? segments - base : at_once;
        for (uint32_t i = threadIdx.x; i < together * PART; i += WARPS * 32) {
            const uint32_t output = (tile + i / PART) * TILE + i % TILE;
            const uint64_t row = first + i % PART / TILE;
            if (row >= rows || output >= w.outputs) {
                continue;
            }
            float total = base == 0 ? 0.0f : totals[i];
            for (uint32_t part = 0; part < count; part++) {
                total += sums[(i / PART * at_once + part) * PART + i % PART];
            }
            if (base + at_once < segments) {
                totals[i] = total;
            } else {
                store(row, output, total);
            }
        }
        __syncthreads();
    }
}

/* ---- many rows ---- */

/* Rows of a warp, and of a block. */
template <class Form>
constexpr uint32_t warp_rows = 16 * Form::BLOCKS;
template <class Form>
constexpr uint32_t many_rows = ROW_WARPS * warp_rows<Form>;

/* A chunk of a block's rows in shared memory: piece, row, four times 16 bytes; those of every
 * other pair of rows change halves, so that neither width of reading meets a bank twice. */
template <class Form>
struct staged_rows {
    static constexpr uint32_t PIECE_BYTES = many_rows<Form> * CHUNK_BYTES;
    const unsigned char *chunk;
    uint32_t first; /* of the warp */

    static __device__ __forceinline__ uint32_t at(uint32_t row, uint32_t sixteen) {
        return row * CHUNK_BYTES + ((sixteen ^ (row & 2u)) * 16);
    }

    __device__ __forceinline__ uint4 sixteen(uint32_t m, uint32_t piece, uint32_t h) const {
        const place own = own_place();
        const uint32_t row = first + 16 * m + 8 * h + own.g;
        return *reinterpret_cast<const uint4 *>(chunk + piece * PIECE_BYTES + at(row, own.t));
    }

    __device__ __forceinline__ uint2 eight(uint32_t m, uint32_t step, uint32_t h) const {
        const place own = own_place();
        const uint32_t row = first + 16 * m + 8 * h + own.g;
        return *reinterpret_cast<const uint2 *>(chunk + at(row, 2 * step + own.t / 2) +
                                                own.t % 2 * 8);
    }
};

/* Starts the copy of a chunk of the block's rows. */
template <class Form>
PWK_FN void stage_chunk(const product &p, uint64_t first, uint32_t rows, uint32_t chunk) {
    using Staged = staged_rows<Form>;
    constexpr uint32_t PIECES = Form::PIECES;
    unsigned char *to = SHARED() + chunk % STAGES * PIECES * Staged::PIECE_BYTES;
#pragma unroll
    for (uint32_t i = 0; i < many_rows<Form> * 4 * PIECES / (WARPS * 32); i++) {
        const uint32_t at = threadIdx.x + i * WARPS * 32;
        const uint32_t row = at / (4 * PIECES), piece = at / 4 % PIECES, sixteen = at % 4;
        const bool valid = first + row < rows;
        const unsigned char *from =
            p.converted + (valid ? first + row : first) * row_bytes(p) +
            (uint64_t(chunk) * PIECES + piece) * CHUNK_BYTES + sixteen * 16;
        ops::copy_async_16(to + piece * Staged::PIECE_BYTES + Staged::at(row, sixteen), from,
                           valid);
    }
}

/* Bytes of shared memory of one_after_other. */
template <class Form>
constexpr uint32_t many_bytes() {
    return STAGES * Form::PIECES * staged_rows<Form>::PIECE_BYTES;
}

/* The first of a warp's rows among its block's, and its tile among the block's. */
template <class Form>
PWK_FN uint32_t own_row() {
    return threadIdx.x / 32 % ROW_WARPS * warp_rows<Form>;
}

PWK_FN uint32_t own_tile() { return threadIdx.x / 32 / ROW_WARPS; }

/* The totals of a warp's rows, from `first` + own_row() on, and of one tile; by the whole
 * block. Tiles that are none are passed over. */
template <class Form>
static __device__ __forceinline__ void one_after_other(const product &p, uint64_t first,
                                                       uint32_t rows, uint32_t tile,
                                                       tile_sums<Form::BLOCKS> &totals) {
    using Weight = typename Form::Weight;
    const pwk_weight &w = p.weight;
    const uint32_t own = own_row<Form>();
    const uint32_t chunks = chunks_of(w);
    const bool works = tile < tiles_of(w) && first + own < rows;
    const unsigned char *words = p.packed + tile * tile_bytes(w);
    Form form;
    Weight next;
    totals.clear();
    form.begin();
    if (works) {
        next.template load<true>(w, words, 0);
    }
    for (uint32_t chunk = 0; chunk < STAGES - 1; chunk++) {
        if (chunk < chunks) {
            stage_chunk<Form>(p, first, rows, chunk);
        }
        ops::copy_async_commit();
    }
    for (uint32_t chunk = 0; chunk < chunks; chunk++) {
        ops::copy_async_wait<STAGES - 2>();
        __syncthreads();
        if (chunk + STAGES - 1 < chunks) {
            stage_chunk<Form>(p, first, rows, chunk + STAGES - 1);
        }
        ops::copy_async_commit();
        if (!works) {
            continue;
        }
        Weight weight = next;
        if (chunk + 1 < chunks) {
            next.template load<true>(w, words, chunk + 1);
        }
        using Staged = staged_rows<Form>;
        const Staged x{SHARED() + chunk % STAGES * Form::PIECES * Staged::PIECE_BYTES, own};
        form.add(p, words, weight, chunk, first + own, rows, x);
        constexpr uint32_t each = SEGMENT / Weight::CHUNK;
        if (chunk % each == each - 1 || chunk + 1 == chunks) {
            form.end(p, chunk / each, first + own, rows);
            totals.add(form.sums);
            form.begin();
        }
    }
    __syncthreads();
}

#endif /* PAGEWISE_PRODUCT_FORMS_H */
