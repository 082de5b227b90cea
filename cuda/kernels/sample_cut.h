/* Where a row's filters end its ranking, and the list of its most likely tokens. */
#ifndef PAGEWISE_SAMPLE_CUT_H
#define PAGEWISE_SAMPLE_CUT_H

#include "sample_candidates.h"

/* Where their masses come to one. */
template <class Wanted>
static __device__ crossed mass_crossing(const candidates<Wanted> &all, const tempered &z,
                                        unsigned long long mass, uint32_t least) {
    return crossing(
        [&](auto add) {
            all.each([&](float x, uint32_t) { add(key_of(x), z.mass(x)); });
        },
        mass, least, key_of(z.most));
}

/* A share, of 2^32, of a mass, rounded up; at least 1. */
static __device__ unsigned long long share_of(unsigned long long total, float top_p) {
    const unsigned long long share = static_cast<unsigned long long>(rintf(top_p * 4294967296.0f));
    const unsigned long long low = total * share, high = __umul64hi(total, share);
    const unsigned long long part = (high << 32) + (low >> 32) + ((low & 0xffffffffu) != 0);
    return part > 0 ? part : 1;
}

/* The end of a ranking. */
struct cut_end {
    float logit;
    uint32_t token;
};

/* The end of a head that takes so much mass of the tokens from a key on. */
template <class Wanted>
static __device__ cut_end end_of_mass(const candidates<Wanted> &all, const tempered &z,
                                      unsigned long long mass, uint32_t least) {
    const crossed at = mass_crossing(all, z, mass, least);
    const float logit = logit_of(at.key);
    const unsigned long long each = z.mass(logit);
    const unsigned long long ties = (mass - at.above + each - 1) / (each > 0 ? each : 1);
    return {logit, last_of_ties(all, logit, ties)};
}

/* The sum of the masses above a key, the same in every thread. */
template <class Wanted>
static __device__ unsigned long long mass_above(const candidates<Wanted> &all, const tempered &z,
                                                uint32_t key) {
    unsigned long long own = 0;
    all.each([&](float x, uint32_t) { own += key_of(x) > key ? z.mass(x) : 0; });
    return sum_of_block(own);
}

/* A candidate's place among few: how many come before it, and their masses. */
struct ranked {
    float logit;
    uint32_t token;
    uint32_t rank;          /* PWK_NONE of a thread without a candidate */
    unsigned long long own; /* mass */
    unsigned long long before;
};

/* The place of this thread's candidate, where all of them are few enough for one each. */
template <class Wanted, class Mass>
static __device__ ranked rank_of(const candidates<Wanted> &all, Mass mass) {
    cut_shared &shared = shared_of_cut();
    uint32_t *masses = shared.bins.low;
    ranked own = {0.0f, PWK_NONE, PWK_NONE, 0, 0};
    if (threadIdx.x < all.count) {
        own.logit = shared.logits[threadIdx.x];
        own.token = shared.tokens[threadIdx.x];
        own.own = mass(own.logit);
        masses[threadIdx.x] = uint32_t(own.own);
    }
    __syncthreads();
    if (threadIdx.x < all.count) {
        own.rank = 0;
        for (uint32_t i = 0; i < all.count; i++) {
            const float x = shared.logits[i];
            const bool earlier =
                x > own.logit || (x == own.logit && shared.tokens[i] < own.token);
            own.rank += earlier ? 1 : 0;
            own.before += earlier ? masses[i] : 0;
        }
    }
    return own;
}

/* The end of the first `count` of few candidates, and with top-p of a mass of theirs: what is
 * given, or where that is 0 the share of all that they have. */
template <class Wanted>
static __device__ cut_end end_of_few(const candidates<Wanted> &all, const tempered &z,
                                     uint32_t count, float top_p, unsigned long long given) {
    cut_shared &shared = shared_of_cut();
    const ranked own = rank_of(all, [&](float x) { return top_p < 1.0f ? z.mass(x) : 0u; });
    const uint32_t taken = count < all.count ? count : all.count;
    const unsigned long long end =
        static_cast<unsigned long long>(PWK_BITS(own.logit)) << 32 | own.token;
    if (own.rank == taken - 1) {
        shared.above = own.before + own.own;
        shared.within = end;
    }
    __syncthreads();
    if (top_p < 1.0f) {
        const unsigned long long mass = given > 0 ? given : share_of(shared.above, top_p);
        __syncthreads();
        if (own.rank < taken && own.before < mass && own.before + own.own >= mass) {
            shared.within = end;
        }
        __syncthreads();
    }
    const unsigned long long found = shared.within;
    __syncthreads();
    return {PWK_FLOAT(uint32_t(found >> 32)), uint32_t(found)};
}

/* Everything but -infinity. */
static __device__ cut_end no_end() { return {-PWK_FLT_MAX, PWK_NONE}; }

/* The end by top-k, and by top-p within it. */
static __device__ cut_end end_of_top_k(const sample_arguments &a, const row_desk &desk,
                                       const logits_row &row, const pwk_sample_row &asked,
                                       const tempered &z) {
    const uint32_t vocab = a.p.vocab;
    const float least = nth_group(desk.groups, groups_of(a.p), asked.top_k, z.most);
    candidates<from_logit> all = {row, desk.groups, vocab, {least}, false, 0};
    all.gather();
    if (all.count <= CUT_THREADS) {
        return end_of_few(all, z, asked.top_k, asked.top_p, 0);
    }
    const float lowest = least > -PWK_INFINITY ? least : -PWK_FLT_MAX;
    const crossed at = count_crossing(all, asked.top_k, lowest, z.most);
    const unsigned long long ties = at.found ? asked.top_k - at.above : 0;
    if (!(asked.top_p < 1.0f)) {
        if (!at.found) {
            return no_end();
        }
        const float logit = logit_of(at.key);
        return {logit, last_of_ties(all, logit, ties)};
    }
    const uint32_t key = at.found ? at.key : 0;
    const unsigned long long above = mass_above(all, z, key);
    const unsigned long long each = at.found ? z.mass(logit_of(key)) : 0;
    const unsigned long long mass = share_of(above + ties * each, asked.top_p);
    if (mass <= above) {
        return end_of_mass(all, z, mass, key + 1);
    }
    const float logit = logit_of(key);
    return {logit, last_of_ties(all, logit, (mass - above + each - 1) / each)};
}

/* The end by top-p alone. */
static __device__ cut_end end_of_top_p(const sample_arguments &a, const row_desk &desk,
                                       const logits_row &row, const pwk_sample_row &asked,
                                       const tempered &z) {
    cut_shared &shared = shared_of_cut();
    unsigned long long own = 0;
    // The first bin has the largest z: the last one of a range.
    for (uint32_t bin = threadIdx.x; bin < CUT_BINS; bin += CUT_THREADS) {
        const unsigned long long sum = bin < MASS_BINS ? desk.bins[bin] : 0;
        shared.bins.low[CUT_BINS - 1 - bin] = uint32_t(sum);
        shared.bins.high[CUT_BINS - 1 - bin] = uint32_t(sum >> 32);
        own += sum;
    }
    const unsigned long long mass = share_of(sum_of_block(own), asked.top_p);
    find_bin(shared, mass);
    const uint32_t bin = CUT_BINS - 1 - shared.bin;
    const unsigned long long above = shared.above;
    candidates<in_bin> all = {row, desk.groups, a.p.vocab, {z, bin}, false, 0};
    all.gather();
    if (all.count <= CUT_THREADS) {
        return end_of_few(all, z, all.count, asked.top_p, mass - above);
    }
    return end_of_mass(all, z, mass - above, key_of(-PWK_FLT_MAX));
}

/* The first token that has the largest logit. */
static __device__ uint32_t first_token(const pwk_sample &p, const row_desk &desk, float most) {
    const uint32_t group = first_where(&shared_of_cut().count, groups_of(p),
                                       [&](uint32_t i) { return desk.groups[i] == most; });
    return group * GROUP + desk.leaders[group];
}

static __device__ float gumbel_of(const pwk_sample_row &asked, uint32_t token) {
    return gumbel(noise_uniform(noise_word(source_of(asked), token)));
}

/* The best score of the tokens that are the largest of their groups and kept, or the state's
 * floor where that is higher. In every thread. */
static __device__ float highest_floor(const pwk_sample &p, const row_desk &desk,
                                      const row_state &state, const pwk_sample_row &asked) {
    float floor = state.floor;
    for (uint32_t group = threadIdx.x; group < groups_of(p); group += CUT_THREADS) {
        const float most = desk.groups[group], z = tempered_of(state).of(most);
        const uint32_t token = group * GROUP + desk.leaders[group];
        if (z + GUMBEL_MOST >= floor && is_kept(state, most, token)) {
            floor = pwk_max(z + gumbel_of(asked, token), floor);
        }
    }
    return logit_of(~least_in_block(&shared_of_cut().count, ~key_of(floor)));
}

/* A row's totals and status. */
static __device__ row_state totals_of(const sample_arguments &a, const row_desk &desk) {
    const uint32_t blocks = blocks_of(a.p);
    row_state state = {};
    state.own = folded_row(blocks, [&](uint32_t block) { return desk.blocks[block].own; });
    state.raw = state.own;
    if (a.raw_logits != nullptr) {
        state.raw = folded_row(blocks, [&](uint32_t block) { return desk.blocks[block].raw; });
    }
    const uint32_t own = status_of(state.own), raw = status_of(state.raw);
    state.status = own > raw ? own : raw;
    return state;
}

static __device__ void cut_row(const sample_arguments &a, uint64_t at) {
    const row_desk desk = desk_of(a, at);
    const pwk_sample_row asked = a.settings[at];
    const logits_row row = own_row(a, at);
    row_state state = totals_of(a, desk);
    if (state.status == PWK_STATUS_OK) {
        state.factor = factor_of(asked);
        const tempered z = {state.own.most, state.factor};
        const uint32_t first = first_token(a.p, desk, z.most);
        state.floor = gumbel_of(asked, first);
        state.least_z = -PWK_INFINITY;
        cut_end end = no_end();
        if (asked.temperature == 0.0f) {
            end = {z.most, first};
        } else {
            state.least_z = asked.min_p > 0.0f ? pwk_log(asked.min_p) : -PWK_INFINITY;
            if (has_top_k(a.p, asked)) {
                end = end_of_top_k(a, desk, row, asked, z);
            } else if (asked.top_p < 1.0f) {
                end = end_of_top_p(a, desk, row, asked, z);
            }
        }
        state.cut_logit = end.logit;
        state.cut_token = end.token;
        if (asked.temperature != 0.0f) {
            state.floor = highest_floor(a.p, desk, state, asked);
        }
    }
    if (threadIdx.x == 0) {
        *desk.state = state;
    }
}

/* ---- the most likely tokens ---- */

/* Leaves only the tokens of the list, at most 128, aside. */
static __device__ void keep_top(candidates<from_logit> &all, uint32_t n, float most) {
    cut_shared &shared = shared_of_cut();
    const float lowest = all.wanted.least > -PWK_INFINITY ? all.wanted.least : -PWK_FLT_MAX;
    const crossed at = count_crossing(all, n, lowest, most);
    cut_end end = no_end();
    if (at.found) {
        end.logit = logit_of(at.key);
        end.token = last_of_ties(all, end.logit, n - at.above);
    }
    float *logits = reinterpret_cast<float *>(shared.bins.low);
    uint32_t *tokens = shared.bins.high;
    __syncthreads();
    if (threadIdx.x == 0) {
        shared.bin = 0;
    }
    __syncthreads();
    all.each([&](float x, uint32_t token) {
        if (x > end.logit || (x == end.logit && token <= end.token)) {
            const uint32_t place = atomicAdd(&shared.bin, 1u);
            logits[place] = x;
            tokens[place] = token;
        }
    });
    __syncthreads();
    all.count = shared.bin;
    if (threadIdx.x < all.count) {
        shared.logits[threadIdx.x] = logits[threadIdx.x];
        shared.tokens[threadIdx.x] = tokens[threadIdx.x];
    }
    __syncthreads();
}

static __device__ void top_row(const sample_arguments &a, uint64_t at) {
    const row_desk desk = desk_of(a, at);
    const uint32_t n = a.p.top_n, thread = threadIdx.x;
    const bool raw = a.raw_logits != nullptr;
    const logits_row row = raw ? raw_row(a, at) : own_row(a, at);
    const float *groups = raw ? desk.raw_groups : desk.groups;
    const row_state state = totals_of(a, desk);
    uint32_t count = 0;
    if (state.status == PWK_STATUS_OK) {
        const float least = nth_group(groups, groups_of(a.p), n, state.raw.most);
        candidates<from_logit> all = {row, groups, a.p.vocab, {least}, false, 0};
        all.gather();
        if (all.count > CUT_THREADS) {
            keep_top(all, n, state.raw.most);
        }
        count = all.count < n ? all.count : n;
        const ranked own = rank_of(all, [](float) { return 0u; });
        if (own.rank < count) {
            a.top_token[at * n + own.rank] = own.token;
            a.top_logprob[at * n + own.rank] = logprob_of(state.raw, own.logit);
        }
    }
    if (thread >= count && thread < n) {
        a.top_token[at * n + thread] = PWK_NONE;
        a.top_logprob[at * n + thread] = PWK_NAN;
    }
}

static __device__ void cut_body(const sample_arguments &a) {
    const uint64_t rows = live(a.launch, SAMPLE_ROWS, a.rows, a.p.rows_max);
    const uint64_t pieces = a.top_token != nullptr ? rows * 2 : rows;
    for (uint64_t piece = blockIdx.x; piece < pieces; piece += gridDim.x) {
        if (piece < rows) {
            cut_row(a, piece);
        } else {
            top_row(a, piece - rows);
        }
        __syncthreads();
    }
}

#endif /* PAGEWISE_SAMPLE_CUT_H */
