/* The last passes of `sample`: scores, sums and bits of the tokens kept, and a row's answer. */
#ifndef PAGEWISE_SAMPLE_DRAW_H
#define PAGEWISE_SAMPLE_DRAW_H

#include "sample_call.h"

constexpr uint32_t SCORED_AT_ONCE = 2; /* groups whose words a warp makes before it reads */

/* What a block of a row is drawn by. */
struct draw_block {
    const row_state &state;
    const pwk_sample_row &asked;
    logits_row row;
    uint32_t first; /* token */
    uint32_t end;
    const float *groups;
    uint32_t *kept; /* words of the row, or null */
    uint32_t visited; /* a bit for each group that can hold a kept token */
    uint32_t whole;   /* and for each of which all tokens are known to be kept */

    /* The logit of a token; -infinity past the end. */
    __device__ float logit(uint32_t token) const {
        return token < end ? row.at(token) : -PWK_INFINITY;
    }

    /* The largest logit of a group. */
    __device__ float largest(uint32_t group) const {
        return first + group * GROUP < end ? groups[group] : -PWK_INFINITY;
    }
};

/* The largest v with which a token of that z, or a smaller one, can come to the floor; negative
 * if none can. A Gumbel number is -ln e with e >= v; the margin is far above errors. */
static __device__ float reach(float z, float floor) {
    return z + GUMBEL_MOST < floor ? -1.0f : pwk_exp(z - floor) * 1.001f;
}

/* The best of this thread's tokens: warps take every second group, half a warp 64 tokens. Words
 * come first: few are small enough that their logits matter. */
static __device__ scored score_block(const draw_block &block) {
    const uint32_t lane = threadIdx.x % 32;
    const noise_source source = source_of(block.asked);
    const tempered z = tempered_of(block.state);
    scored best = {-PWK_INFINITY, PWK_NONE};
    const float own_limit = reach(z.of(block.largest(lane)), block.state.floor);
    uint32_t left = __ballot_sync(EVERY_LANE, own_limit >= 0.0f) & block.visited &
                    (threadIdx.x < 32 ? 0x55555555u : 0xaaaaaaaau);
    while (left != 0) {
        uint32_t unit[SCORED_AT_ONCE];
        float v[SCORED_AT_ONCE][4], x[SCORED_AT_ONCE][4];
#pragma unroll
        for (uint32_t i = 0; i < SCORED_AT_ONCE; i++) {
            const uint32_t group = next_group(left);
            const float some = __shfl_sync(EVERY_LANE, own_limit, int(group % 32));
            const float limit = group != PWK_NONE ? some : -1.0f;
            unit[i] = block.first + group * GROUP + lane / 16 * 64;
            const pwk_words words = noise_words(source, unit[i], lane % 16);
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                const uint32_t token = unit[i] + j * 16 + lane % 16;
                v[i][j] = noise_uniform(words.word[j]);
                x[i][j] = v[i][j] <= limit ? block.logit(token) : -PWK_INFINITY;
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < SCORED_AT_ONCE; i++) {
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                const uint32_t token = unit[i] + j * 16 + lane % 16;
                if (is_kept(block.state, x[i][j], token)) {
                    best = better(best, {z.of(x[i][j]) + gumbel(v[i][j]), token});
                }
            }
        }
    }
    return best;
}

/* The bits and the count of the tokens kept, and the sum of exp(z) over them. */
static __device__ float tally_block(const draw_block &block, uint32_t &count) {
    const uint32_t lane = threadIdx.x % 32;
    const tempered z = tempered_of(block.state);
    float sum = 0.0f;
    count = uint32_t(__popc(block.whole)) * (GROUP / 2);
    for (uint32_t left = block.visited & ~block.whole; left != 0;) {
        uint32_t token[2 * AT_ONCE];
        float x[2 * AT_ONCE];
#pragma unroll
        for (uint32_t i = 0; i < 2 * AT_ONCE; i += 2) {
            const uint32_t group = next_group(left);
            const uint32_t start = block.first + group * GROUP + threadIdx.x;
            token[i] = group != PWK_NONE ? start : block.end;
            token[i + 1] = group != PWK_NONE ? start + SUMS : block.end;
            x[i] = block.logit(token[i]);
            x[i + 1] = block.logit(token[i + 1]);
        }
#pragma unroll
        for (uint32_t i = 0; i < 2 * AT_ONCE; i++) {
            const bool kept = is_kept(block.state, x[i], token[i]);
            const float own = pwk_exp(z.of(x[i]));
            sum = sum + (kept ? own : 0.0f);
            const uint32_t bits = __ballot_sync(EVERY_LANE, kept);
            count += uint32_t(__popc(bits));
            if (lane == 0 && block.kept != nullptr && token[i] < block.end) {
                block.kept[token[i] / 32] = bits;
            }
        }
    }
    return sum;
}

/* The bits of the groups of a block that tally_block does not read. */
static __device__ void put_known_bits(const draw_block &block) {
    const uint32_t read = block.visited & ~block.whole;
    for (uint32_t word = threadIdx.x; word < BLOCK / 32; word += SUMS) {
        const uint32_t whole = block.whole >> (word / 4) & 1u;
        if (block.first + word * 32 < block.end && (read >> (word / 4) & 1u) == 0) {
            block.kept[block.first / 32 + word] = whole != 0 ? 0xffffffffu : 0;
        }
    }
}

/* The groups of a block that can hold a kept token, by either warp. */
static __device__ uint32_t visited_groups(const draw_block &block) {
    const float most = block.largest(threadIdx.x % 32);
    return __ballot_sync(EVERY_LANE, is_kept(block.state, most, 0));
}

/* What two warps found of a block, to its tally. */
static __device__ void put_tally(block_tally &tally, scored best, uint32_t count, float sum) {
    float *shared = reinterpret_cast<float *>(SHARED());
    uint32_t *words = reinterpret_cast<uint32_t *>(shared) + SUMS;
    const float processed = folded(shared, sum);
    best = best_of_warp(best);
    if (threadIdx.x == 32) {
        words[0] = PWK_BITS(best.score);
        words[1] = best.token;
        words[2] = count;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        best = better(best, {PWK_FLOAT(words[0]), words[1]});
        tally.processed = processed;
        tally.score = best.score;
        tally.token = best.token;
        tally.count = count + words[2];
    }
    __syncthreads();
}

static __device__ void draw_body(const sample_arguments &a) {
    const pwk_sample &p = a.p;
    const uint64_t rows = live(a.launch, SAMPLE_ROWS, a.rows, p.rows_max);
    const uint32_t blocks = blocks_of(p);
    for (uint64_t piece = blockIdx.x; piece < rows * blocks; piece += gridDim.x) {
        const uint64_t row = piece / blocks;
        const uint32_t number = uint32_t(piece % blocks), first = number * BLOCK;
        const row_desk desk = desk_of(a, row);
        const row_state state = *desk.state;
        const pwk_sample_row asked = a.settings[row];
        draw_block block = {state, asked, own_row(a, row), first,
                            p.vocab - first < BLOCK ? p.vocab : first + BLOCK,
                            desk.groups + number * GROUPS,
                            a.kept == nullptr ? nullptr : a.kept + row * p.kept_words, 0, 0};
        if (state.status == PWK_STATUS_OK) {
            block.visited = visited_groups(block);
            block.whole = is_plain(p, asked) ? desk.blocks[number].whole : 0;
        }
        if (block.kept != nullptr) {
            put_known_bits(block);
        }
        const bool summed = a.processed_logprob != nullptr && !is_plain(p, asked);
        scored best = {-PWK_INFINITY, PWK_NONE};
        uint32_t count = 0;
        float sum = 0.0f;
        if (block.visited != 0) {
            best = score_block(block);
            if (summed || block.kept != nullptr || a.kept_count != nullptr) {
                sum = tally_block(block, count);
            }
        }
        put_tally(desk.blocks[number], best, count, sum);
    }
}

/* ---- a row's answer ---- */

/* Blocks fold to a row's answer, by a warp. */
static __device__ void finish_row(const sample_arguments &a, uint64_t row) {
    const uint32_t lane = threadIdx.x % 32, blocks = blocks_of(a.p);
    const row_desk desk = desk_of(a, row);
    const row_state state = *desk.state;
    scored best = {-PWK_INFINITY, PWK_NONE};
    uint32_t count = 0;
    float sum = 0.0f;
    for (uint32_t first = 0; first < blocks; first += 32) {
        float processed = 0.0f;
        if (first + lane < blocks) {
            const block_tally &tally = desk.blocks[first + lane];
            best = better(best, {tally.score, tally.token});
            count += tally.count;
            processed = tally.processed;
        }
        // Past the last block come zeros, which change no sum.
        for (uint32_t i = 0; i < 32; i++) {
            sum = sum + __shfl_sync(EVERY_LANE, processed, int(i));
        }
    }
    best = best_of_warp(best);
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        count += __shfl_xor_sync(EVERY_LANE, count, lanes);
    }
    if (lane != 0) {
        return;
    }
    const bool fine = state.status == PWK_STATUS_OK;
    a.token[row] = fine ? best.token : PWK_NONE;
    a.status[row] = state.status;
    if (a.kept_count != nullptr) {
        a.kept_count[row] = count;
    }
    const pwk_sample_row asked = a.settings[row];
    float raw = PWK_NAN, processed = PWK_NAN;
    if (fine) {
        const float x = a.logits[row * a.p.row_stride + best.token];
        const float from = a.raw_logits == nullptr
                               ? x
                               : a.raw_logits[row * a.p.raw_row_stride + best.token];
        // A zero is +0, as on the CPU.
        const float tempered_logprob = (x - state.own.most) * state.factor - pwk_log(sum) + 0.0f;
        const float own = is_plain(a.p, asked) ? logprob_of(state.own, x) : tempered_logprob;
        raw = logprob_of(state.raw, from);
        processed = asked.temperature == 0.0f ? 0.0f : own;
    }
    if (a.raw_logprob != nullptr) {
        a.raw_logprob[row] = raw;
    }
    if (a.processed_logprob != nullptr) {
        a.processed_logprob[row] = processed;
    }
}

static __device__ void finish_body(const sample_arguments &a) {
    const uint64_t rows = live(a.launch, SAMPLE_ROWS, a.rows, a.p.rows_max);
    const uint64_t warps = blockDim.x / 32;
    for (uint64_t row = blockIdx.x * warps + threadIdx.x / 32; row < rows;
         row += gridDim.x * warps) {
        finish_row(a, row);
    }
}

#endif /* PAGEWISE_SAMPLE_DRAW_H */
