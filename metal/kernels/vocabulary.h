/* What every kernel over a vocabulary shares, by the order of kernels-core/src/vocabulary/:
 * sums of blocks of 4096, their fold over a row, and the noise of sampling.
 *
 * A block of 4096 is summed by 64 threads, thread t its elements t, t + 64 and so on.
 */
#ifndef PAGEWISE_METAL_VOCABULARY_H
#define PAGEWISE_METAL_VOCABULARY_H

#include "kernel.h"

constant constexpr uint32_t BLOCK = 4096; /* logits of a block */
constant constexpr uint32_t SUMS = 64;    /* partial sums of a block */
constant constexpr uint32_t GROUP = 128;  /* logits that are passed over together */
constant constexpr uint32_t GROUPS = 32;  /* groups of a block */
constant constexpr uint32_t LANES = 32;   /* of a SIMD group */

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

/* The sum of a block's 64 partial sums, in every one of the block's 64 threads: each 64 threads
 * of a threadgroup have a block. `shared` holds a float for each thread, and is free again
 * behind the next barrier. */
PWK_FN float folded(Place place, threadgroup float *shared, float sum) {
    shared[place.thread_index] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup const float *own = shared + place.thread_index / 64 * 64 + place.thread_index % 16;
    float four = (own[0] + own[16]) + (own[32] + own[48]);
    for (ushort lanes = 8; lanes > 0; lanes /= 2) {
        four += simd_shuffle_xor(four, lanes);
    }
    return four;
}

/* Blocks folded ascending, by a whole SIMD group: `block(i)` is the i-th. The largest so far of
 * each block and its exponentials are found side by side; only products and sums go one by
 * one. */
template <class Block>
static exponentials folded_row(Place place, uint32_t blocks, Block block) {
    const uint32_t lane = place.lane;
    exponentials total = {-PWK_INFINITY, 0.0f};
    for (uint32_t first = 0; first < blocks; first += LANES) {
        exponentials own = {-PWK_INFINITY, 0.0f};
        if (first + lane < blocks) {
            own = block(first + lane);
        }
        float most = lane == 0 ? pwk_max(own.most, total.most) : own.most;
        for (ushort lanes = 1; lanes < LANES; lanes *= 2) {
            const float before = simd_shuffle_up(most, lanes);
            most = lane >= lanes ? pwk_max(most, before) : most;
        }
        const float above = simd_shuffle_up(most, ushort(1));
        const float before = lane == 0 ? total.most : above;
        const float old_scale = pwk_exp(before - anchor(most));
        const float new_scale = pwk_exp(own.most - anchor(most));
        const uint32_t count = blocks - first < LANES ? blocks - first : LANES;
        for (uint32_t i = 0; i < count; i++) {
            const ushort from = static_cast<ushort>(i);
            const float scaled = total.sum * simd_shuffle(old_scale, from);
            const float sum = simd_shuffle(own.sum, from);
            total.sum = PWK_FMA(sum, simd_shuffle(new_scale, from), scaled);
        }
        total.most = simd_shuffle(most, ushort(LANES - 1));
    }
    return total;
}

/* ---- noise ---- */

constant constexpr float GUMBEL_MOST = 22.25f; /* no Gumbel number is larger */

/* Whose noise it is. */
struct noise_source {
    uint64_t seed;
    uint32_t position;
    uint32_t fork;
    uint32_t purpose;
};

/* The words of tokens unit + lane, and 16, 32 and 48 after it; unit is a multiple of 64 and
 * lane below 16. */
PWK_FN pwk_words noise_words(noise_source source, uint32_t unit, uint32_t lane) {
    const pwk_words counter = {
        {unit / 4 + lane, source.position, source.fork, source.purpose}};
    return pwk_philox(uint32_t(source.seed), uint32_t(source.seed >> 32), counter);
}

/* The word of one token. */
PWK_FN uint32_t noise_word(noise_source source, uint32_t token) {
    const pwk_words words = noise_words(source, token & ~63u, token % 16);
    const uint32_t low = (token & 16) != 0 ? words.word[1] : words.word[0];
    const uint32_t high = (token & 16) != 0 ? words.word[3] : words.word[2];
    return (token & 32) != 0 ? high : low;
}

/* The uniform number of a word. */
PWK_FN float noise_uniform(uint32_t word) {
    return PWK_FMA(float(int(word >> 1)), 1.0f / 2147483648.0f, 1.0f / 4294967296.0f);
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

/* The best of a SIMD group, in every lane. */
PWK_FN scored best_of_lanes(scored best) {
    for (ushort lanes = LANES / 2; lanes > 0; lanes /= 2) {
        const scored other = {simd_shuffle_xor(best.score, lanes),
                              simd_shuffle_xor(best.token, lanes)};
        best = better(best, other);
    }
    return best;
}

#endif /* PAGEWISE_METAL_VOCABULARY_H */
