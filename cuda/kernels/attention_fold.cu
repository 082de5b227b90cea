/* attention_fold: states of attention that were computed apart become one, by the very order
 * of the contract, so with the CPU's bits.
 *
 * Tiling: a thread takes eight elements of a row's head over all parts, and works out the
 * factors for itself: two exps for eight elements that come from memory. No shared memory.
 * Elements move 16 bytes at a time where rows are aligned to that.
 * Not measured yet.
 */
#include "attention.h"

struct attention_fold_arguments {
    pwk_attention_fold p;
    const void *parts;
    const float *part_lse;
    void *out;
    float *lse;
    const uint32_t *rows;
    pwk_launch launch;
};

constexpr uint32_t FOLD_ROWS = 4; /* place of `rows` among the buffers */
constexpr uint32_t FOLD_THREADS = 128;

struct eight {
    float x[8];
};

static __device__ bool is_aligned(const void *base, uint64_t row_stride, uint32_t dtype) {
    const uint64_t bytes = dtype == PWK_DTYPE_F32 ? 4 : 2;
    return (reinterpret_cast<uint64_t>(base) | row_stride * bytes) % 16 == 0;
}

static __device__ float half_of(uint32_t dtype, uint32_t bits) {
    return dtype == PWK_DTYPE_F16 ? ops::of_f16(static_cast<uint16_t>(bits)) : pwk_of_bf16(bits);
}

static __device__ uint32_t half_bits(uint32_t dtype, float x) {
    return dtype == PWK_DTYPE_F16 ? ops::f16_of(x) : pwk_bf16_of(x);
}

static __device__ eight load_eight(uint32_t dtype, const void *from, uint64_t at, bool aligned) {
    eight v;
    if (!aligned) {
        for (uint32_t i = 0; i < 8; i++) {
            v.x[i] = load_float(dtype, from, at + i);
        }
    } else if (dtype == PWK_DTYPE_F32) {
        const float *floats = static_cast<const float *>(from) + at;
        const float4 low = *reinterpret_cast<const float4 *>(floats);
        const float4 high = *reinterpret_cast<const float4 *>(floats + 4);
        v = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
    } else {
        const uint16_t *halves = static_cast<const uint16_t *>(from) + at;
        const uint4 words = *reinterpret_cast<const uint4 *>(halves);
        const uint32_t word[4] = {words.x, words.y, words.z, words.w};
        for (uint32_t i = 0; i < 8; i++) {
            v.x[i] = half_of(dtype, (word[i / 2] >> (i % 2 * 16)) & 0xffffu);
        }
    }
    return v;
}

static __device__ void store_eight(uint32_t dtype, void *to, uint64_t at, bool aligned,
                                   const eight &v) {
    if (!aligned) {
        for (uint32_t i = 0; i < 8; i++) {
            store_float(dtype, to, at + i, v.x[i]);
        }
    } else if (dtype == PWK_DTYPE_F32) {
        float *floats = static_cast<float *>(to) + at;
        *reinterpret_cast<float4 *>(floats) = make_float4(v.x[0], v.x[1], v.x[2], v.x[3]);
        *reinterpret_cast<float4 *>(floats + 4) = make_float4(v.x[4], v.x[5], v.x[6], v.x[7]);
    } else {
        uint32_t word[4];
        for (uint32_t i = 0; i < 4; i++) {
            word[i] = half_bits(dtype, v.x[2 * i]) | half_bits(dtype, v.x[2 * i + 1]) << 16;
        }
        uint16_t *halves = static_cast<uint16_t *>(to) + at;
        *reinterpret_cast<uint4 *>(halves) = make_uint4(word[0], word[1], word[2], word[3]);
    }
}

static __device__ void attention_fold_body(const attention_fold_arguments &a) {
    const pwk_attention_fold &p = a.p;
    const uint64_t rows = live(a.launch, FOLD_ROWS, a.rows, p.rows_max);
    const uint64_t eights = p.head_dim / 8;
    const bool part_aligned = is_aligned(a.parts, p.part_row_stride, p.part_dtype);
    const bool out_aligned = is_aligned(a.out, p.out_row_stride, p.out_dtype);
    const uint64_t threads = uint64_t(gridDim.x) * FOLD_THREADS;
    uint64_t piece = uint64_t(blockIdx.x) * FOLD_THREADS + threadIdx.x;
    for (; piece < rows * p.heads * eights; piece += threads) {
        const uint64_t within = piece % eights * 8, head = piece / eights % p.heads;
        const uint64_t row = piece / eights / p.heads;
        const uint64_t column = head * p.head_dim + within;
        softmax_state state = softmax_empty();
        eight values = {};
        for (uint64_t part = 0; part < p.parts; part++) {
            const uint64_t from = part * p.rows_max + row;
            const float lse = a.part_lse[from * p.heads + head];
            const eight later = load_eight(p.part_dtype, a.parts,
                                           from * p.part_row_stride + column, part_aligned);
            const float sum = lse == -PWK_INFINITY ? 0.0f : 1.0f;
            const softmax_fold fold = fold_later(state, {lse, sum});
            for (uint32_t i = 0; i < 8; i++) {
                values.x[i] = folded(fold, values.x[i], later.x[i]);
            }
        }
        const softmax_end end = softmax_ends(state, -PWK_INFINITY);
        for (uint32_t i = 0; i < 8; i++) {
            values.x[i] = ended(end, values.x[i]);
        }
        store_eight(p.out_dtype, a.out, row * p.out_row_stride + column, out_aligned, values);
        if (a.lse != nullptr && within == 0) {
            a.lse[row * p.heads + head] = end.lse;
        }
    }
}

ENTRY(pw_attention_fold, FOLD_THREADS, 8, attention_fold_arguments, attention_fold_body)
