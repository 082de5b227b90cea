/* lora: out += scale (x A') B' row by row, by the very order of the contract, so with the
 * CPU's bits.
 *
 * Tiling: a first block goes over the adapters. Down: a block takes one row (or eight, where
 * many may come) and 32 ranks, two panels of A; its eight warps take segments of 512 inputs
 * side by side, lane l rank l, 64 inputs of the rows staged at a time, and the sums fold
 * ascending in shared memory. Up: a block takes as many rows and 256 outputs, a thread one
 * output. Neighbouring rows of one adapter share each load of its weights; so a prompt reads
 * them once for eight rows. Memory: 24 KiB shared down, 8 KiB up; h in the workspace.
 * A lane reads one element of a line that its warp, or its next steps, read whole, and 16 of
 * them before it uses the first.
 * Not measured yet.
 */
#include "checks.h"
#include "pieces.h"

struct lora_arguments {
    pwk_lora p;
    const void *x;
    const void *a;
    const void *b;
    const uint32_t *ranks;
    const float *scales;
    const float *magnitudes;
    const uint32_t *adapters;
    const uint32_t *rows;
    float *out;
    pwk_launch launch;
};

/* Places among the buffers. */
constexpr uint32_t LORA_FIELD_RANKS = 3;
constexpr uint32_t LORA_FIELD_SCALES = 4;
constexpr uint32_t LORA_FIELD_ADAPTERS = 6;
constexpr uint32_t LORA_FIELD_ROWS = 7;

constexpr uint32_t THREADS = 256;
constexpr uint32_t WARPS = THREADS / 32;
constexpr uint32_t ROWS = 8;       /* of a block at most */
constexpr uint32_t STAGED = 64;    /* inputs of a row in shared memory */
constexpr uint32_t RANK_MAX = 256; /* the largest rank */
constexpr uint32_t AHEAD = 16;     /* weights of a lane on their way at once */

static __device__ uint32_t lora_rows(const lora_arguments &a) {
    return live(a.launch, LORA_FIELD_ROWS, a.rows, a.p.rows_max);
}

/* ---- what a step says ---- */

PWK_FN bool is_good(const lora_arguments &a, uint32_t slot) {
    if (slot == PWK_LORA_NONE) {
        return true;
    }
    if (slot >= a.p.slots || a.ranks[slot] == 0 || a.ranks[slot] > a.p.rank_max) {
        return false;
    }
    return is_finite(a.scales[slot]);
}

/* Tells what is wrong with a row's slot. */
static __device__ void refuse_row(const lora_arguments &a, uint32_t row) {
    const uint32_t slot = a.adapters[row];
    if (slot >= a.p.slots) {
        refuse(a.launch, PWK_FAULT_ELEMENT, LORA_FIELD_ADAPTERS, row, 0, int64_t(a.p.slots) - 1,
               slot);
    } else if (a.ranks[slot] == 0 || a.ranks[slot] > a.p.rank_max) {
        refuse(a.launch, PWK_FAULT_ELEMENT, LORA_FIELD_RANKS, slot, 1, a.p.rank_max,
               a.ranks[slot]);
    } else {
        refuse(a.launch, PWK_FAULT_NOT_FINITE, LORA_FIELD_SCALES, slot, 0, 0, 0);
    }
}

/* One block: the first row that names a bad slot is told. */
static __device__ void check_body(const lora_arguments &a) {
    uint32_t *found = reinterpret_cast<uint32_t *>(SHARED());
    const uint32_t row = first_where(found, lora_rows(a), [&](uint32_t i) {
        return !is_good(a, a.adapters[i]);
    });
    if (row != PWK_NONE && threadIdx.x == 0) {
        refuse_row(a, row);
    }
}

/* ---- rows that share an adapter ---- */

/* Consecutive rows of one slot. */
struct same_rows {
    uint64_t first;
    uint32_t count;
    uint32_t slot;
};

/* Those from `first` on, before `end`; the same in every thread. */
PWK_FN same_rows rows_from(const lora_arguments &a, uint64_t first, uint64_t end) {
    same_rows same{first, 1, a.adapters[first]};
    while (first + same.count < end && a.adapters[first + same.count] == same.slot) {
        same.count++;
    }
    return same;
}

/* Calls `each` for the blocks' runs of rows: launch.tile rows at a time. */
template <class Each>
static __device__ __forceinline__ void for_rows(const lora_arguments &a, const Each &each) {
    const uint32_t rows = lora_rows(a);
    const uint64_t at_once = a.launch.tile;
    for (uint64_t base = blockIdx.y * at_once; base < rows; base += gridDim.y * at_once) {
        const uint64_t end = base + at_once < rows ? base + at_once : rows;
        for (uint64_t row = base; row < end;) {
            const same_rows same = rows_from(a, row, end);
            if (same.slot != PWK_LORA_NONE) {
                each(same);
            }
            row += same.count;
        }
    }
}

/* Adds `count` products of a lane's weights, STRIDE apart, with rows in shared memory, PITCH
 * apart: of one row where COUNT is 1, else of up to ROWS. Past the end 0 times -0 leaves a sum
 * as it is. */
template <uint32_t COUNT, uint32_t STRIDE, uint32_t PITCH>
PWK_FN void add_products(uint32_t dtype, const void *weights, uint64_t at, const float *x,
                         uint32_t count, float (&sums)[ROWS]) {
    for (uint32_t first = 0; first < count; first += AHEAD) {
        float w[AHEAD];
        load_apart(dtype, weights, at + uint64_t(first) * STRIDE, STRIDE, count - first, w);
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            const uint32_t k = first + i;
#pragma unroll
            for (uint32_t row = 0; row < COUNT; row++) {
                const float other = k < count ? x[row * PITCH + k] : -0.0f;
                sums[row] = __fmaf_rn(w[i], other, sums[row]);
            }
        }
    }
}

/* ---- h = x A' ---- */

PWK_FN float *h_of(const lora_arguments &a, uint64_t row) {
    return reinterpret_cast<float *>(a.launch.workspace) + row * a.p.rank_max;
}

/* A warp's segment of some rows, for lane l's rank, into to[row][l]. */
static __device__ __forceinline__ void down_segment(const lora_arguments &a,
                                                    const same_rows &same, uint32_t rank,
                                                    uint32_t segment, float *x, float *to) {
    const pwk_lora &p = a.p;
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t begin = segment * PWK_LORA_SEGMENT, left = p.inputs - begin;
    const uint32_t inputs = left < PWK_LORA_SEGMENT ? left : PWK_LORA_SEGMENT;
    const uint64_t panel = rank / PWK_LORA_RANKS;
    const uint64_t slab = uint64_t(same.slot) * p.inputs * p.rank_max;
    const uint64_t own = slab + panel * p.inputs * PWK_LORA_RANKS + rank % PWK_LORA_RANKS;
    const bool works = rank < a.ranks[same.slot];
    float sums[ROWS] = {};
    for (uint32_t at = 0; at < inputs; at += STAGED) {
        const uint32_t count = inputs - at < STAGED ? inputs - at : STAGED;
        __syncwarp();
        for (uint32_t row = 0; row < same.count; row++) {
            const uint64_t from = (same.first + row) * p.x_row_stride + begin + at;
            for (uint32_t k = lane; k < count; k += 32) {
                x[row * STAGED + k] = load_float(p.x_dtype, a.x, from + k);
            }
        }
        __syncwarp();
        const uint64_t words = own + uint64_t(begin + at) * PWK_LORA_RANKS;
        if (works && same.count == 1) {
            add_products<1, PWK_LORA_RANKS, STAGED>(p.weight_dtype, a.a, words, x, count, sums);
        } else if (works) {
            add_products<ROWS, PWK_LORA_RANKS, STAGED>(p.weight_dtype, a.a, words, x, count,
                                                       sums);
        }
    }
#pragma unroll
    for (uint32_t row = 0; row < ROWS; row++) {
        to[row * 32 + lane] = sums[row];
    }
}

/* h of some rows and 32 ranks: a thread folds one row's rank. */
static __device__ __forceinline__ void down_rows(const lora_arguments &a,
                                                 const same_rows &same) {
    float *sums = reinterpret_cast<float *>(SHARED());
    const uint32_t warp = threadIdx.x / 32, rank = blockIdx.x * 32 + threadIdx.x % 32;
    float *x = sums + WARPS * ROWS * 32 + warp * ROWS * STAGED;
    const uint32_t segments = (a.p.inputs + PWK_LORA_SEGMENT - 1) / PWK_LORA_SEGMENT;
    if (blockIdx.x * 32 >= a.ranks[same.slot]) {
        return;
    }
    float total = 0.0f;
    for (uint32_t base = 0; base < segments; base += WARPS) {
        if (base + warp < segments) {
            down_segment(a, same, rank, base + warp, x, sums + warp * ROWS * 32);
        }
        __syncthreads();
        const uint32_t count = segments - base < WARPS ? segments - base : WARPS;
        for (uint32_t part = 0; part < count; part++) {
            total += sums[part * ROWS * 32 + threadIdx.x];
        }
        __syncthreads();
    }
    if (warp < same.count && rank < a.ranks[same.slot]) {
        h_of(a, same.first + warp)[rank] = total;
    }
}

static __device__ void down_body(const lora_arguments &a) {
    for_rows(a, [&](const same_rows &same) { down_rows(a, same); });
}

/* ---- out += scale h B' ---- */

/* A thread's output of some rows. */
static __device__ __forceinline__ void up_rows(const lora_arguments &a, const same_rows &same) {
    float *h = reinterpret_cast<float *>(SHARED());
    const pwk_lora &p = a.p;
    const uint32_t rank = a.ranks[same.slot], output = blockIdx.x * THREADS + threadIdx.x;
    for (uint32_t i = threadIdx.x; i < same.count * rank; i += THREADS) {
        h[i / rank * RANK_MAX + i % rank] = h_of(a, same.first + i / rank)[i % rank];
    }
    __syncthreads();
    if (output < p.outputs) {
        const uint64_t panels = (uint64_t(p.outputs) + PWK_LORA_OUTPUTS - 1) / PWK_LORA_OUTPUTS;
        const uint64_t slab = same.slot * panels * PWK_LORA_OUTPUTS * p.rank_max;
        const uint64_t panel = output / PWK_LORA_OUTPUTS;
        const uint64_t own =
            slab + panel * rank * PWK_LORA_OUTPUTS + output % PWK_LORA_OUTPUTS;
        float terms[ROWS] = {};
        if (same.count == 1) {
            add_products<1, PWK_LORA_OUTPUTS, RANK_MAX>(p.weight_dtype, a.b, own, h, rank, terms);
        } else {
            add_products<ROWS, PWK_LORA_OUTPUTS, RANK_MAX>(p.weight_dtype, a.b, own, h, rank,
                                                           terms);
        }
        const float scale = a.scales[same.slot];
#pragma unroll
        for (uint32_t row = 0; row < ROWS; row++) {
            if (row >= same.count) {
                break;
            }
            float &to = a.out[(same.first + row) * p.out_row_stride + output];
            const float v = __fmaf_rn(scale, terms[row], to);
            to = a.magnitudes == nullptr
                     ? v
                     : v * a.magnitudes[uint64_t(same.slot) * p.outputs + output];
        }
    }
    __syncthreads();
}

static __device__ void up_body(const lora_arguments &a) {
    for_rows(a, [&](const same_rows &same) { up_rows(a, same); });
}

ENTRY(pw_lora_check, THREADS, 1, lora_arguments, check_body)
ENTRY(pw_lora_down, THREADS, 2, lora_arguments, down_body)
ENTRY(pw_lora_up, THREADS, 3, lora_arguments, up_body)
