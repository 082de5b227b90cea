/* The first pass of `sample` over its rows: what each block of logits comes to. */
#ifndef PAGEWISE_SAMPLE_SURVEY_H
#define PAGEWISE_SAMPLE_SURVEY_H

#include "sample_call.h"
#include "step_elements.h"

static __device__ bool is_within(float x, float most) { return x >= 0.0f && x <= most; }

/* Whether every row's masks are there. */
static __device__ void check_masks(const sample_arguments &a, uint32_t *found, uint32_t rows) {
    if (a.row_masks == nullptr) {
        return;
    }
    const uint32_t masks = a.p.masks;
    const uint32_t row = first_where(found, rows, [&](uint32_t i) {
        const uint32_t *chosen = a.row_masks + 2 * uint64_t(i);
        return !is_index(chosen[0], masks) || !is_index(chosen[1], masks);
    });
    if (row != PWK_NONE) {
        const uint64_t first = 2 * uint64_t(row);
        const uint64_t at = is_index(a.row_masks[first], masks) ? first + 1 : first;
        refuse_element(a.launch, SAMPLE_ROW_MASKS, at, 0, int64_t(masks) - 1, a.row_masks[at]);
    }
}

static __device__ void check_settings(const sample_arguments &a, uint32_t rows) {
    uint32_t *found = reinterpret_cast<uint32_t *>(SHARED());
    const uint32_t at = first_where(found, rows, [&](uint32_t i) {
        const pwk_sample_row asked = a.settings[i];
        return !is_within(asked.temperature, PWK_FLT_MAX) || !is_within(asked.top_p, 1.0f) ||
               !is_within(asked.min_p, 1.0f);
    });
    if (at == PWK_NONE) {
        check_masks(a, found, rows);
        return;
    }
    if (threadIdx.x != 0) {
        return;
    }
    const pwk_sample_row asked = a.settings[at];
    const float first = !is_within(asked.temperature, PWK_FLT_MAX) ? asked.temperature
                        : !is_within(asked.top_p, 1.0f)            ? asked.top_p
                                                                   : asked.min_p;
    const uint32_t range = first < 0.0f ? PWK_FAULT_BELOW : PWK_FAULT_ABOVE;
    const uint32_t kind = is_finite(first) ? range : PWK_FAULT_NOT_FINITE;
    refuse(a.launch, kind, SAMPLE_SETTINGS, at, 0, 0, 0);
}

/* The largest of each group over the 32 lanes of a warp, lane g's of group g: each step hands
 * half of what is left to the other half of the lanes. */
template <uint32_t half>
static __device__ float largest_of_groups(float (&most)[GROUPS]) {
    const bool upper = (threadIdx.x & half) != 0;
#pragma unroll
    for (uint32_t i = 0; i < half; i++) {
        const float give = upper ? most[i] : most[i + half];
        const float keep = upper ? most[i + half] : most[i];
        most[i] = pwk_max(__shfl_xor_sync(EVERY_LANE, give, int(half)), keep);
    }
    if constexpr (half > 1) {
        return largest_of_groups<half / 2>(most);
    } else {
        return most[0];
    }
}

/* A bit for each group of which no lane of a warp has a token of -infinity. */
static __device__ uint32_t whole_groups(const float (&v)[EACH]) {
    uint32_t holes = 0;
#pragma unroll
    for (uint32_t i = 0; i < GROUPS; i++) {
        const bool whole = v[2 * i] > -PWK_INFINITY && v[2 * i + 1] > -PWK_INFINITY;
        holes |= whole ? 0 : 1u << i;
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        holes |= __shfl_xor_sync(EVERY_LANE, holes, lanes);
    }
    return ~holes;
}

/* Where in each group of a block its first token with the largest logit is; GROUP stays where
 * all are -infinity. `largest` has the groups of one warp, then of the other. */
static __device__ void find_leaders(const float (&v)[EACH], const float *largest,
                                    uint32_t *leaders) {
    const uint32_t thread = threadIdx.x;
#pragma unroll
    for (uint32_t i = 0; i < GROUPS; i++) {
        const float most = pwk_max(largest[i], largest[i + GROUPS]);
        if (most > -PWK_INFINITY && (v[2 * i] == most || v[2 * i + 1] == most)) {
            atomicMin(&leaders[i], v[2 * i] == most ? thread : thread + SUMS);
        }
    }
}

/* The transpose of 32 words of 32 bits, a word in each lane of a warp. */
static __device__ uint32_t transposed(uint32_t word) {
    uint32_t low = 0x0000ffffu; /* bits that stay in the lower of two lanes */
#pragma unroll
    for (uint32_t step = 16; step > 0; step /= 2) {
        const uint32_t other = __shfl_xor_sync(EVERY_LANE, word, int(step));
        const bool upper = (threadIdx.x & step) != 0;
        word = upper ? (word & ~low) | ((other & ~low) >> step) : (word & low) | ((other & low) << step);
        low ^= low << (step / 2);
    }
    return word;
}

/* The tokens of a block that a row has and its masks allow: bit i of word half is token
 * (half * 32 + i) * SUMS + this thread, from the block's first on. */
struct own_tokens {
    uint32_t half[2];
};

static __device__ own_tokens own_tokens_of(const logits_row &row, uint32_t first, uint32_t count) {
    own_tokens own;
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        const uint32_t i = half * 32 + threadIdx.x % 32, word = 2 * i + threadIdx.x / 32;
        const uint32_t left = count > word * 32 ? count - word * 32 : 0;
        const uint32_t there = left < 32 ? (1u << left) - 1 : 0xffffffffu;
        own.half[half] = transposed(left > 0 ? row.allowed.word(first / 32 + word) & there : 0);
    }
    return own;
}

/* What a block comes to, beside the largest of its groups. */
struct surveyed {
    exponentials all;
    uint32_t whole; /* as block_tally has it */
};

/* The largest of each group of a block goes to `groups`, its leader to `leaders` unless
 * that is null; the rest comes back. */
static __device__ surveyed survey_block(const logits_row &row, uint32_t block, uint32_t count,
                                        float *groups, uint8_t *leaders) {
    float *shared = reinterpret_cast<float *>(SHARED());
    uint32_t *whole_of_warps = reinterpret_cast<uint32_t *>(shared) + SUMS;
    uint32_t *found = whole_of_warps + 2;
    const uint32_t thread = threadIdx.x, lane = thread % 32;
    const float *x = row.logits + block * BLOCK;
    const own_tokens own = own_tokens_of(row, block * BLOCK, count);
    float v[EACH];
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
        const bool is_own = (own.half[i / 32] >> (i % 32) & 1u) != 0;
        v[i] = is_own ? x[i * SUMS + thread] : -PWK_INFINITY;
    }
    const uint32_t whole_of_warp = whole_groups(v);
    if (lane == 0) {
        whole_of_warps[thread / 32] = whole_of_warp;
    }
    float most[GROUPS];
#pragma unroll
    for (uint32_t i = 0; i < GROUPS; i++) {
        // In this order both pass over a NaN.
        most[i] = pwk_max(v[2 * i + 1], pwk_max(v[2 * i], -PWK_INFINITY));
    }
    shared[thread] = largest_of_groups<GROUPS / 2>(most);
    if (thread < GROUPS) {
        found[thread] = GROUP;
    }
    __syncthreads();
    const float group = pwk_max(shared[lane], shared[lane + 32]);
    if (thread < 32 && thread * GROUP < count) {
        groups[thread] = group;
    }
    const uint32_t whole = whole_of_warps[0] & whole_of_warps[1];
    float largest = group;
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        largest = pwk_max(__shfl_xor_sync(EVERY_LANE, largest, lanes), largest);
    }
    if (leaders != nullptr) {
        find_leaders(v, shared, found);
    }
    __syncthreads();
    if (leaders != nullptr && thread < GROUPS && thread * GROUP < count) {
        leaders[thread] = uint8_t(found[thread]);
    }
    const float least = anchor(largest);
    float sum = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
        sum = sum + pwk_exp_below(v[i] - least);
    }
    const exponentials all = {largest, folded(shared, sum)};
    __syncthreads();
    return {all, whole};
}

static __device__ void survey_body(const sample_arguments &a) {
    const pwk_sample &p = a.p;
    const uint32_t rows = live_in_block(a.launch, SAMPLE_ROWS, a.rows, p.rows_max);
    if (blockIdx.x == 0) {
        check_settings(a, rows);
        __syncthreads();
    }
    const uint32_t blocks = blocks_of(p), matrices = a.raw_logits == nullptr ? 1 : 2;
    for (uint64_t piece = blockIdx.x; piece < uint64_t(rows) * blocks * matrices;
         piece += gridDim.x) {
        const bool raw = piece >= uint64_t(rows) * blocks;
        const uint64_t own = raw ? piece - uint64_t(rows) * blocks : piece;
        const uint64_t row = own / blocks;
        const uint32_t block = uint32_t(own % blocks), first = block * BLOCK;
        const row_desk desk = desk_of(a, row);
        const logits_row x = raw ? raw_row(a, row) : own_row(a, row);
        const uint32_t count = p.vocab - first < BLOCK ? p.vocab - first : BLOCK;
        float *groups = (raw ? desk.raw_groups : desk.groups) + block * GROUPS;
        uint8_t *leaders = raw ? nullptr : desk.leaders + block * GROUPS;
        const surveyed found = survey_block(x, block, count, groups, leaders);
        block_tally &tally = desk.blocks[block];
        if (threadIdx.x == 0 && raw) {
            tally.raw = found.all;
        } else if (threadIdx.x == 0) {
            tally.own = found.all;
            tally.whole = found.whole;
        }
        if (!raw && block == 0 && is_weighed(p, a.settings[row])) {
            for (uint32_t bin = threadIdx.x; bin < MASS_BINS; bin += SUMS) {
                desk.bins[bin] = 0;
            }
        }
    }
}

#endif /* PAGEWISE_SAMPLE_SURVEY_H */
