/* Where a row's filters end its ranking, and the list of its most likely tokens. */
#ifndef PAGEWISE_METAL_SAMPLE_CUT_H
#define PAGEWISE_METAL_SAMPLE_CUT_H

#include "sample_candidates.h"

constant constexpr uint32_t TOP_MAX = 128;

/* A share, of 2^32, of a mass, rounded up; at least 1. */
static uint64_t share_of(uint64_t total, float top_p) {
    const uint64_t share = static_cast<uint64_t>(PWK_RINT(top_p * 4294967296.0f));
    const uint64_t low = (total & 0xffffffffu) * share;
    const uint64_t rest = (low & 0xffffffffu) != 0 ? 1 : 0;
    const uint64_t whole = (total >> 32) * share + (low >> 32) + rest;
    return whole > 0 ? whole : 1;
}

/* The end of a ranking. */
struct cut_end {
    float logit;
    uint32_t token;
};

/* Everything but -infinity. */
static cut_end no_end() { return {-PWK_FLT_MAX, PWK_NONE}; }

/* The end of a head that takes so much mass of the tokens from a key on. */
static cut_end end_of_mass(Place place, thread const candidates &all, tempered z, uint64_t mass,
                           uint32_t least) {
    const mass_weights weights = {all, z};
    const crossed at = crossing(place, weights, mass, least, key_of(z.most));
    const float logit = logit_of(at.key);
    const uint64_t each = mass_of(z, logit);
    const uint64_t ties = (mass - at.above + each - 1) / (each > 0 ? each : 1);
    return {logit, last_of_ties(place, all, logit, ties)};
}

/* Sums masses above a key. */
struct sum_above {
    tempered z;
    uint32_t key;
    uint64_t sum;

    void operator()(float x, uint32_t) { sum += key_of(x) > key ? mass_of(z, x) : 0; }
};

/* The sum of the masses above a key, the same in every thread. */
static uint64_t mass_above(Place place, thread const candidates &all, tempered z, uint32_t key) {
    threadgroup cut_shared *shared = shared_of_cut(place);
    if (place.thread_index == 0) {
        store_wide(shared->above, 0);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    sum_above own = {z, key, 0};
    for_each(place, all, own);
    if (own.sum > 0) {
        add_wide(shared->above, own.sum);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint64_t sum = load_wide(shared->above);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return sum;
}

/* A row as cut goes over it. */
struct cut_work {
    row_desk desk;
    logits_row row;
    pwk_sample_row asked;
    tempered z;
};

/* The end by top-k, and by top-p within it. */
static cut_end end_of_top_k(constant sample_arguments &a, Place place,
                            thread const cut_work &work) {
    const tempered z = work.z;
    const uint32_t top_k = work.asked.top_k;
    const float least = nth_group(place, work.desk.groups, groups_of(a.p), top_k, z.most);
    candidates all = {work.row, work.desk.groups, a.p.vocab, {false, least, z, 0}, false, 0};
    gather(place, all);
    const float lowest = least > -PWK_INFINITY ? least : -PWK_FLT_MAX;
    const count_weights weights = {all};
    const crossed at = crossing(place, weights, top_k, key_of(lowest), key_of(z.most));
    const uint64_t ties = at.found ? top_k - at.above : 0;
    if (!(work.asked.top_p < 1.0f)) {
        if (!at.found) {
            return no_end();
        }
        const float logit = logit_of(at.key);
        return {logit, last_of_ties(place, all, logit, ties)};
    }
    const uint32_t key = at.found ? at.key : 0;
    const uint64_t above = mass_above(place, all, z, key);
    const uint64_t each = at.found ? mass_of(z, logit_of(key)) : 0;
    const uint64_t mass = share_of(above + ties * each, work.asked.top_p);
    if (mass <= above) {
        return end_of_mass(place, all, z, mass, key + 1);
    }
    const float logit = logit_of(key);
    return {logit, last_of_ties(place, all, logit, (mass - above + each - 1) / each)};
}

/* The end by top-p alone. */
static cut_end end_of_top_p(constant sample_arguments &a, Place place,
                            thread const cut_work &work) {
    threadgroup cut_shared *shared = shared_of_cut(place);
    /* The first bin has the largest z: the last one of a range. */
    for (uint32_t bin = place.thread_index; bin < CUT_BINS; bin += CUT_THREADS) {
        const uint64_t mass = bin < MASS_BINS ? load_wide(work.desk.bins + 2 * bin) : 0;
        store_wide(shared->bins + 2 * (CUT_BINS - 1 - bin), mass);
    }
    if (place.thread_index == 0) {
        store_wide(shared->above, 0);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint32_t bin = place.thread_index; bin < MASS_BINS; bin += CUT_THREADS) {
        add_wide(shared->above, load_wide(work.desk.bins + 2 * bin));
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint64_t mass = share_of(load_wide(shared->above), work.asked.top_p);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    find_bin(place, mass);
    const uint32_t bin = CUT_BINS - 1 - atomic_load_explicit(&shared->bin, memory_order_relaxed);
    const uint64_t above = load_wide(shared->above);
    candidates all = {work.row, work.desk.groups, a.p.vocab, {true, 0.0f, work.z, bin}, false, 0};
    gather(place, all);
    return end_of_mass(place, all, work.z, mass - above, key_of(-PWK_FLT_MAX));
}

/* Floats that are a number. */
struct is_equal {
    device const float *numbers;
    float number;

    bool operator()(uint32_t i) const { return numbers[i] == number; }
};

/* The first token that has the largest logit. */
static uint32_t first_token(constant pwk_sample &p, Place place, thread const row_desk &desk,
                            float most) {
    threadgroup atomic_uint *found = &shared_of_cut(place)->found;
    const is_equal groups = {desk.groups, most};
    const uint32_t group = first_where(place, found, groups_of(p), groups);
    return group * GROUP + desk.leaders[group];
}

static float gumbel_of(thread const pwk_sample_row &asked, uint32_t token) {
    return gumbel(noise_uniform(noise_word(source_of(asked), token)));
}

/* The best score of the tokens that are the largest of their groups and kept, or the state's
 * floor where that is higher. In every thread. */
static float highest_floor(constant pwk_sample &p, Place place, thread const cut_work &work,
                           thread const row_state &state) {
    float highest = state.floor_score;
    for (uint32_t group = place.thread_index; group < groups_of(p); group += CUT_THREADS) {
        const float most = work.desk.groups[group], z = z_of(work.z, most);
        const uint32_t token = group * GROUP + work.desk.leaders[group];
        if (z + GUMBEL_MOST >= highest && is_kept(state, most, token)) {
            highest = pwk_max(z + gumbel_of(work.asked, token), highest);
        }
    }
    threadgroup atomic_uint *found = &shared_of_cut(place)->found;
    return logit_of(~least_in_block(place, found, ~key_of(highest)));
}

/* Blocks' exponentials, of logits or of raw ones. */
struct block_exponentials {
    device const block_tally *blocks;
    bool raw;

    exponentials operator()(uint32_t block) const {
        return load_exponentials(raw ? &blocks[block].raw : &blocks[block].own);
    }
};

/* A row's totals and status. */
static row_state totals_of(constant sample_arguments &a, Place place,
                           thread const row_desk &desk) {
    const uint32_t blocks = blocks_of(a.p);
    row_state state = {};
    const block_exponentials own_blocks = {desk.blocks, false};
    state.own = folded_row(place, blocks, own_blocks);
    state.raw = state.own;
    if (a.raw_logits != nullptr) {
        const block_exponentials raw_blocks = {desk.blocks, true};
        state.raw = folded_row(place, blocks, raw_blocks);
    }
    const uint32_t own = status_of(state.own), raw = status_of(state.raw);
    state.status = own > raw ? own : raw;
    return state;
}

static void cut_row(constant sample_arguments &a, Place place, uint64_t at) {
    const row_desk desk = desk_of(a, at);
    row_state state = totals_of(a, place, desk);
    if (state.status == PWK_STATUS_OK) {
        const pwk_sample_row asked = load_asked(a.settings + at);
        const logits_row row = own_row(a, at);
        state.factor = factor_of(asked);
        const tempered z = {state.own.most, state.factor};
        const cut_work work = {desk, row, asked, z};
        const uint32_t first = first_token(a.p, place, desk, z.most);
        state.floor_score = gumbel_of(asked, first);
        state.least_z = -PWK_INFINITY;
        cut_end end = no_end();
        if (pwk_is_zero(asked.temperature)) {
            end.logit = z.most;
            end.token = first;
        } else {
            state.least_z = asked.min_p > 0.0f ? pwk_log(asked.min_p) : -PWK_INFINITY;
            if (has_top_k(a.p, asked)) {
                end = end_of_top_k(a, place, work);
            } else if (asked.top_p < 1.0f) {
                end = end_of_top_p(a, place, work);
            }
        }
        state.cut_logit = end.logit;
        state.cut_token = end.token;
        if (!pwk_is_zero(asked.temperature)) {
            state.floor_score = highest_floor(a.p, place, work, state);
        }
    }
    if (place.thread_index == 0) {
        store_state(desk.state, state);
    }
}

/* ---- the most likely tokens ---- */

/* Lists the candidates up to an end. */
struct list_tokens {
    threadgroup cut_shared *shared;
    threadgroup float *logits;
    threadgroup uint32_t *tokens;
    cut_end end;

    void operator()(float x, uint32_t token) const {
        if (x > end.logit || (x == end.logit && token <= end.token)) {
            const uint32_t at = atomic_fetch_add_explicit(&shared->bin, 1u, memory_order_relaxed);
            logits[at] = x;
            tokens[at] = token;
        }
    }
};

/* Puts the tokens that the list takes, at most TOP_MAX, where the bins were; how many. */
static uint32_t pick_top(Place place, thread const candidates &all, uint32_t n, float most,
                         threadgroup float *logits, threadgroup uint32_t *tokens) {
    threadgroup cut_shared *shared = shared_of_cut(place);
    const float least = all.wanted.least;
    const float lowest = least > -PWK_INFINITY ? least : -PWK_FLT_MAX;
    const count_weights weights = {all};
    const crossed at = crossing(place, weights, n, key_of(lowest), key_of(most));
    cut_end end = no_end();
    if (at.found) {
        end.logit = logit_of(at.key);
        end.token = last_of_ties(place, all, end.logit, n - at.above);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    in_block(place, &shared->bin, 0);
    list_tokens act = {shared, logits, tokens, end};
    for_each(place, all, act);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return atomic_load_explicit(&shared->bin, memory_order_relaxed);
}

static void top_row(constant sample_arguments &a, Place place, uint64_t at) {
    threadgroup cut_shared *shared = shared_of_cut(place);
    const row_desk desk = desk_of(a, at);
    const uint32_t n = a.p.top_n, thread_index = place.thread_index;
    const bool raw = a.raw_logits != nullptr;
    const logits_row row = raw ? raw_row(a, at) : own_row(a, at);
    device const float *groups = raw ? desk.raw_groups : desk.groups;
    const row_state state = totals_of(a, place, desk);
    uint32_t count = 0;
    threadgroup float *logits = reinterpret_cast<threadgroup float *>(shared->bins);
    threadgroup uint32_t *tokens = reinterpret_cast<threadgroup uint32_t *>(logits + TOP_MAX);
    if (state.status == PWK_STATUS_OK) {
        const float least = nth_group(place, groups, groups_of(a.p), n, state.raw.most);
        candidates all = {row, groups, a.p.vocab, {false, least, {0.0f, 0.0f}, 0}, false, 0};
        gather(place, all);
        count = pick_top(place, all, n, state.raw.most, logits, tokens);
    }
    device uint32_t *top_token = a.top_token + at * n;
    device float *top_logprob = a.top_logprob + at * n;
    if (thread_index < count) {
        const float x = logits[thread_index];
        const uint32_t token = tokens[thread_index];
        uint32_t rank = 0;
        for (uint32_t i = 0; i < count; i++) {
            rank += logits[i] > x || (logits[i] == x && tokens[i] < token) ? 1 : 0;
        }
        top_token[rank] = token;
        top_logprob[rank] = logprob_of(state.raw, x);
    } else if (thread_index < n) {
        top_token[thread_index] = PWK_NONE;
        top_logprob[thread_index] = PWK_NAN;
    }
}

static void cut_body(constant sample_arguments &a, Place place) {
    const uint64_t rows = live(a.launch, place, SAMPLE_ROWS, a.rows, a.p.rows_max);
    const uint64_t pieces = a.top_token != nullptr ? rows * 2 : rows;
    for (uint64_t piece = place.group.x; piece < pieces; piece += place.group_count.x) {
        if (piece < rows) {
            cut_row(a, place, piece);
        } else {
            top_row(a, place, piece - rows);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

#endif /* PAGEWISE_METAL_SAMPLE_CUT_H */
