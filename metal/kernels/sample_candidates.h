/* The tokens of a row that `sample` may keep, in threadgroup memory, and where their counts or
 * masses, summed over the largest logits first, come to a limit. */
#ifndef PAGEWISE_METAL_SAMPLE_CANDIDATES_H
#define PAGEWISE_METAL_SAMPLE_CANDIDATES_H

#include "sample_bins.h"
#include "sample_call.h"

constant constexpr uint32_t CUT_THREADS = 256;    /* of a threadgroup of a row */
constant constexpr uint32_t CUT_GROUPS = 8;       /* SIMD groups of that */
constant constexpr uint32_t CUT_BINS = 1024;      /* of a range of keys */
constant constexpr uint32_t ASIDE = 2048;         /* tokens that are set aside */

/* A number that is larger where the logit is; the zeros are equal. */
static uint32_t key_of(float logit) {
    const uint32_t bits = PWK_BITS(logit + 0.0f);
    return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

static float logit_of(uint32_t key) {
    return PWK_FLOAT((key >> 31) != 0 ? key & 0x7fffffffu : ~key);
}

/* Threadgroup memory of a row. Numbers of 64 bits are two words. */
struct cut_shared {
    atomic_uint found; /* what checks take */
    atomic_uint count;
    atomic_uint bin;
    atomic_uint reserved;
    atomic_uint above[2];
    atomic_uint sums[2 * CUT_GROUPS];
    atomic_uint bins[2 * CUT_BINS];
    float logits[ASIDE];
    uint32_t tokens[ASIDE];
};

static_assert(sizeof(cut_shared) == 24664, "lowering gives it so much");

static threadgroup cut_shared *shared_of_cut(Place place) {
    return reinterpret_cast<threadgroup cut_shared *>(SHARED());
}

/* What of a row may be kept: tokens from a logit on, or those of one bin. */
struct wanted_tokens {
    bool by_bin;
    float least; /* logit */
    tempered z;
    uint32_t bin;
};

/* Whether to look into a group with that largest logit. */
static bool wants_group(thread const wanted_tokens &wanted, float most) {
    if (wanted.by_bin) {
        return most > -PWK_INFINITY &&
               z_of(wanted.z, most) >= float(wanted.bin + 1) / -MASS_FINENESS;
    }
    return most >= wanted.least;
}

static bool wants_logit(thread const wanted_tokens &wanted, float x) {
    const bool some = wanted.by_bin ? bin_of(wanted.z, x) == wanted.bin : x >= wanted.least;
    return x > -PWK_INFINITY && some;
}

/* The tokens of a row that a filter may keep: set aside, or where there are too many, to be
 * found again in the groups that hold them. */
struct candidates {
    logits_row row;
    device const float *groups;
    uint32_t vocab;
    wanted_tokens wanted;
    bool aside;
    uint32_t count;
};

/* Whether a token is one of those that are wanted; its logit goes to x. */
static bool takes_token(thread const candidates &all, uint32_t token, thread float &x) {
    x = token < all.vocab ? logit_at(all.row, token) : -PWK_INFINITY;
    return token < all.vocab && wants_logit(all.wanted, x);
}

/* Puts them aside, if there is room: SIMD groups take groups. */
static void gather(Place place, thread candidates &all) {
    threadgroup cut_shared *shared = shared_of_cut(place);
    const uint32_t groups = (all.vocab + GROUP - 1) / GROUP;
    in_block(place, &shared->count, 0);
    for (uint32_t group = place.simdgroup; group < groups; group += CUT_GROUPS) {
        if (!wants_group(all.wanted, all.groups[group])) {
            continue;
        }
        for (uint32_t i = 0; i < GROUP / LANES; i++) {
            const uint32_t token = group * GROUP + i * LANES + place.lane;
            float x;
            const bool taken = takes_token(all, token, x);
            const uint32_t bits = uint32_t(simd_vote::vote_t(simd_ballot(taken)));
            uint32_t first = 0;
            if (place.lane == 0 && bits != 0) {
                first = atomic_fetch_add_explicit(&shared->count, popcount(bits),
                                                  memory_order_relaxed);
            }
            first = simd_broadcast(first, ushort(0));
            const uint32_t at = first + popcount(bits & ((1u << place.lane) - 1));
            if (taken && at < ASIDE) {
                shared->logits[at] = x;
                shared->tokens[at] = token;
            }
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    all.count = atomic_load_explicit(&shared->count, memory_order_relaxed);
    all.aside = all.count <= ASIDE;
}

/* Calls `act(x, token)` for each of them, in any order. */
template <class Act>
static void for_each(Place place, thread const candidates &all, thread Act &act) {
    threadgroup const cut_shared *shared = shared_of_cut(place);
    if (all.aside) {
        for (uint32_t i = place.thread_index; i < all.count; i += CUT_THREADS) {
            act(shared->logits[i], shared->tokens[i]);
        }
        return;
    }
    const uint32_t groups = (all.vocab + GROUP - 1) / GROUP;
    for (uint32_t group = place.simdgroup; group < groups; group += CUT_GROUPS) {
        if (!wants_group(all.wanted, all.groups[group])) {
            continue;
        }
        for (uint32_t i = 0; i < GROUP / LANES; i++) {
            const uint32_t token = group * GROUP + i * LANES + place.lane;
            float x;
            if (takes_token(all, token, x)) {
                act(x, token);
            }
        }
    }
}

/* A number of 64 bits from the lane so far below, or the own one. */
static uint64_t shuffle_up(uint64_t number, ushort lanes) {
    const uint32_t low = simd_shuffle_up(static_cast<uint32_t>(number), lanes);
    const uint32_t high = simd_shuffle_up(static_cast<uint32_t>(number >> 32), lanes);
    return uint64_t(high) << 32 | low;
}

/* The bin of a range in which weights, summed from the last bin down, come to `limit`, and
 * their sum above it; PWK_NONE in `shared->bin` if all of them do not. */
static void find_bin(Place place, uint64_t limit) {
    threadgroup cut_shared *shared = shared_of_cut(place);
    const uint32_t each = CUT_BINS / CUT_THREADS, thread_index = place.thread_index;
    const uint32_t last = CUT_BINS - 1 - thread_index * each;
    uint64_t own = 0;
    for (uint32_t i = 0; i < each; i++) {
        own += load_wide(shared->bins + 2 * (last - i));
    }
    uint64_t sum = own;
    for (ushort lanes = 1; lanes < LANES; lanes *= 2) {
        const uint64_t before = shuffle_up(sum, lanes);
        sum += place.lane >= lanes ? before : 0;
    }
    if (place.lane == LANES - 1) {
        store_wide(shared->sums + 2 * place.simdgroup, sum);
    }
    if (thread_index == 0) {
        atomic_store_explicit(&shared->bin, PWK_NONE, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    uint64_t above = sum - own;
    for (uint32_t group = 0; group < place.simdgroup; group++) {
        above += load_wide(shared->sums + 2 * group);
    }
    if (above < limit && above + own >= limit) {
        uint32_t bin = last;
        uint64_t weight = load_wide(shared->bins + 2 * bin);
        while (above + weight < limit) {
            above += weight;
            bin--;
            weight = load_wide(shared->bins + 2 * bin);
        }
        atomic_store_explicit(&shared->bin, bin, memory_order_relaxed);
        store_wide(shared->above, above);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

/* The key at which weights, summed over the largest keys first, come to a limit. */
struct crossed {
    bool found;
    uint32_t key;
    uint64_t above; /* their sum above it */
};

/* Keys from least to most, in bins of 2^shift of them. */
struct key_range {
    threadgroup atomic_uint *bins;
    uint32_t least;
    uint32_t most;
    uint32_t shift;
};

static void add_key(thread const key_range &range, uint32_t key, uint32_t weight) {
    const uint32_t within = key - range.least;
    if (within <= range.most - range.least) {
        add_wide(range.bins + 2 * (within >> range.shift), weight);
    }
}

/* `weights.add_all(place, range)` adds this thread's part of the weights; only keys from least
 * to most count. By the whole threadgroup. */
template <class Weights>
static crossed crossing(Place place, thread const Weights &weights, uint64_t limit,
                        uint32_t least, uint32_t most) {
    threadgroup cut_shared *shared = shared_of_cut(place);
    uint64_t above = 0;
    do {
        const uint32_t bits = 32 - clz(most - least);
        const uint32_t shift = bits > 10 ? bits - 10 : 0;
        for (uint32_t word = place.thread_index; word < 2 * CUT_BINS; word += CUT_THREADS) {
            atomic_store_explicit(shared->bins + word, 0u, memory_order_relaxed);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const key_range range = {shared->bins, least, most, shift};
        weights.add_all(place, range);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        find_bin(place, limit - above);
        const uint32_t bin = atomic_load_explicit(&shared->bin, memory_order_relaxed);
        if (bin == PWK_NONE) {
            return {false, 0, 0};
        }
        above += load_wide(shared->above);
        least += bin << shift;
        const uint32_t span = (1u << shift) - 1;
        most = most - least < span ? most : least + span;
        threadgroup_barrier(mem_flags::mem_threadgroup);
    } while (least < most);
    return {true, least, above};
}

/* Groups, each once, by its largest logit. */
struct group_weights {
    device const float *groups;
    uint32_t count;

    void add_all(Place place, thread const key_range &range) const {
        for (uint32_t group = place.thread_index; group < count; group += CUT_THREADS) {
            add_key(range, key_of(groups[group]), 1);
        }
    }
};

/* The n-th largest of a row's groups, or -infinity of fewer: so many tokens lie from it on. */
static float nth_group(Place place, device const float *groups, uint32_t count, uint32_t n,
                       float most) {
    const group_weights weights = {groups, count};
    const crossed nth = crossing(place, weights, n, key_of(-PWK_INFINITY), key_of(most));
    return nth.found ? logit_of(nth.key) : -PWK_INFINITY;
}

/* What a candidate adds to a range. */
struct add_tie {
    key_range range;
    float logit;

    void operator()(float x, uint32_t token) const {
        if (x == logit) {
            add_key(range, ~token, 1);
        }
    }
};

struct add_count {
    key_range range;

    void operator()(float x, uint32_t) const { add_key(range, key_of(x), 1); }
};

struct add_mass {
    key_range range;
    tempered z;

    void operator()(float x, uint32_t) const { add_key(range, key_of(x), mass_of(z, x)); }
};

/* Candidates of one logit, by their tokens. */
struct tie_weights {
    candidates all;
    float logit;

    void add_all(Place place, thread const key_range &range) const {
        add_tie act = {range, logit};
        for_each(place, all, act);
    }
};

/* Candidates, each once, by their logits. */
struct count_weights {
    candidates all;

    void add_all(Place place, thread const key_range &range) const {
        add_count act = {range};
        for_each(place, all, act);
    }
};

/* Their masses. */
struct mass_weights {
    candidates all;
    tempered z;

    void add_all(Place place, thread const key_range &range) const {
        add_mass act = {range, z};
        for_each(place, all, act);
    }
};

/* The last of the first `ties` tokens that have a logit, or PWK_NONE if all of them. */
static uint32_t last_of_ties(Place place, thread const candidates &all, float logit,
                             uint64_t ties) {
    const tie_weights weights = {all, logit};
    const crossed last = crossing(place, weights, ties, ~(all.vocab - 1), 0xffffffffu);
    return last.found ? ~last.key : PWK_NONE;
}

#endif /* PAGEWISE_METAL_SAMPLE_CANDIDATES_H */
