/* What every kernel over a vocabulary shares, by the order of kernels-core/src/vocabulary/:
 * sums of blocks of 4096, their fold over a row, and the noise of sampling.
 *
 * A block of 4096 is summed by 64 threads, thread t its elements t, t + 64 and so on.
 */
#ifndef PAGEWISE_VOCABULARY_H
#define PAGEWISE_VOCABULARY_H

#include "kernel.h"

constexpr uint32_t BLOCK = 4096; /* logits of a block */
constexpr uint32_t SUMS = 64;    /* partial sums of a block */
constexpr uint32_t EACH = BLOCK / SUMS; /* elements of a partial sum */
constexpr uint32_t GROUP = 128;  /* logits that are passed over together */
constexpr uint32_t GROUPS = BLOCK / GROUP; /* groups of a block */
constexpr uint32_t EVERY_LANE = 0xffffffffu;

/* The largest logit of some blocks, and the sum of exp(x - most). */
struct exponentials {
    float most;
    float sum;
};

/* What is subtracted before exp: the largest, or 0 where there is none. */
PWK_FN float anchor(float most) { return most == -PWK_INFINITY ? 0.0f : most; }

/* PWK_STATUS_* of a whole row. */
PWK_FN uint32_t status_of(exponentials total) {
    if (!(total.sum == total.sum)) {
        return PWK_STATUS_NOT_FINITE;
    }
    return total.most == -PWK_INFINITY ? PWK_STATUS_MASKED : PWK_STATUS_OK;
}

/* The log-probability of a logit of the row. */
PWK_FN float logprob_of(exponentials total, float x) {
    return (x - total.most) - pwk_log(total.sum);
}

/* The sum of 64 partial sums, in every one of the 64 threads that bring them; a block may be
 * several such teams. `shared` holds a float for each thread, and is free again behind the
 * next barrier. */
PWK_FN float folded(float *shared, float sum) {
    shared[threadIdx.x] = sum;
    __syncthreads();
    const float *own = shared + (threadIdx.x & ~(SUMS - 1)) + threadIdx.x % 16;
    float four = (own[0] + own[16]) + (own[32] + own[48]);
    for (uint32_t half = 8; half > 0; half /= 2) {
        four += __shfl_down_sync(EVERY_LANE, four, half, 16);
    }
    return __shfl_sync(EVERY_LANE, four, 0, 16);
}

/* Blocks folded ascending, by a whole warp: `block(i)` is the i-th. The largest so far of each
 * block and its exponentials are found side by side; only products and sums go one by one. */
template <class Block>
static __device__ exponentials folded_row(uint32_t blocks, Block block) {
    const uint32_t lane = threadIdx.x % 32;
    exponentials total = {-PWK_INFINITY, 0.0f};
    for (uint32_t first = 0; first < blocks; first += 32) {
        exponentials own = {-PWK_INFINITY, 0.0f};
        if (first + lane < blocks) {
            own = block(first + lane);
        }
        float most = lane == 0 ? pwk_max(own.most, total.most) : own.most;
        for (uint32_t step = 1; step < 32; step *= 2) {
            const float before = __shfl_up_sync(EVERY_LANE, most, step);
            most = lane >= step ? pwk_max(most, before) : most;
        }
        const float above = __shfl_up_sync(EVERY_LANE, most, 1);
        const float before = lane == 0 ? total.most : above;
        const float old_scale = pwk_exp(before - anchor(most));
        const float new_scale = pwk_exp(own.most - anchor(most));
        const uint32_t count = blocks - first < 32 ? blocks - first : 32;
        for (uint32_t i = 0; i < count; i++) {
            const float scaled = total.sum * __shfl_sync(EVERY_LANE, old_scale, i);
            const float sum = __shfl_sync(EVERY_LANE, own.sum, i);
            total.sum = __fmaf_rn(sum, __shfl_sync(EVERY_LANE, new_scale, i), scaled);
        }
        total.most = __shfl_sync(EVERY_LANE, most, 31);
    }
    return total;
}

/* ---- noise ---- */

constexpr float GUMBEL_MOST = 22.25f; /* no Gumbel number is larger */

/* Whose noise it is. */
struct noise_source {
    uint64_t seed;
    uint32_t position;
    uint32_t fork;
    uint32_t purpose;
};

/* The words of tokens unit + lane, and 16, 32 and 48 after it; unit is a multiple of 64 and
 * lane below 16. */
PWK_FN pwk_words noise_words(const noise_source &source, uint32_t unit, uint32_t lane) {
    const pwk_words counter = {
        {unit / 4 + lane, source.position, source.fork, source.purpose}};
    return pwk_philox(uint32_t(source.seed), uint32_t(source.seed >> 32), counter);
}

/* The word of one token. */
PWK_FN uint32_t noise_word(const noise_source &source, uint32_t token) {
    const pwk_words words = noise_words(source, token & ~63u, token % 16);
    const uint32_t low = token & 16 ? words.word[1] : words.word[0];
    const uint32_t high = token & 16 ? words.word[3] : words.word[2];
    return token & 32 ? high : low;
}

/* The uniform number of a word. */
PWK_FN float noise_uniform(uint32_t word) {
    return __fmaf_rn(float(int32_t(word >> 1)), 1.0f / 2147483648.0f, 1.0f / 4294967296.0f);
}

/* The Gumbel number of a uniform one. */
PWK_FN float gumbel(float v) {
    const float u = pwk_max(1.0f - v, 1.0f / 33554432.0f);
    const float ratio = v / (1.0f - u);
    const float e = (0.0f - pwk_log(u)) * ratio;
    return 0.0f - pwk_log(u == 1.0f ? v : e);
}

/* A token and its score; the lowest of equals is the better one. */
struct scored {
    float score;
    uint32_t token;
};

PWK_FN scored better(scored a, scored b) {
    const bool second = b.score > a.score || (b.score == a.score && b.token < a.token);
    return second ? b : a;
}

/* The best of a warp, in every lane. */
PWK_FN scored best_of_warp(scored best) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        const scored other = {__shfl_xor_sync(EVERY_LANE, best.score, lanes),
                              __shfl_xor_sync(EVERY_LANE, best.token, lanes)};
        best = better(best, other);
    }
    return best;
}

#endif /* PAGEWISE_VOCABULARY_H */
