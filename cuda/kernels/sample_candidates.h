/* The tokens of a row that `sample` may keep, in a block's shared memory, and where their counts
 * or masses, summed over the largest logits first, come to a limit. */
#ifndef PAGEWISE_SAMPLE_CANDIDATES_H
#define PAGEWISE_SAMPLE_CANDIDATES_H

#include "sample_bins.h"
#include "sample_call.h"

constexpr uint32_t CUT_THREADS = 256;    /* of a block of a row */
constexpr uint32_t CUT_BINS = 1024;      /* of a range of keys */
constexpr uint32_t ASIDE = 3072;         /* tokens that are set aside */

/* A number that is larger where the logit is; the zeros are equal. */
static __device__ uint32_t key_of(float logit) {
    const uint32_t bits = PWK_BITS(logit + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

static __device__ float logit_of(uint32_t key) {
    return PWK_FLOAT(key >> 31 ? key & 0x7fffffffu : ~key);
}

/* Shared memory of a row's block. */
struct cut_shared {
    weight_bins<CUT_BINS> bins;
    unsigned long long warps[CUT_THREADS / 32];
    unsigned long long above;
    unsigned long long within;
    float logits[ASIDE];
    uint32_t tokens[ASIDE];
    uint32_t count;
    uint32_t bin;
};

static_assert(sizeof(cut_shared) == 32856, "lowering gives it so much");

static __device__ cut_shared &shared_of_cut() { return *reinterpret_cast<cut_shared *>(SHARED()); }

/* The sum over the block's threads, in each of them. */
static __device__ unsigned long long sum_of_block(unsigned long long sum) {
    cut_shared &shared = shared_of_cut();
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        sum += __shfl_xor_sync(EVERY_LANE, sum, lanes);
    }
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        shared.warps[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    unsigned long long all = 0;
    for (uint32_t warp = 0; warp < CUT_THREADS / 32; warp++) {
        all += shared.warps[warp];
    }
    __syncthreads();
    return all;
}

/* The tokens of a row that a filter may keep: set aside, or where there are too many, to be
 * found again in the groups that hold them. `Wanted` says of a group's largest whether to
 * look, and of a logit whether it is one. */
template <class Wanted>
struct candidates {
    logits_row row;
    const float *groups;
    uint32_t vocab;
    Wanted wanted;
    bool aside;
    uint32_t count;

    /* Goes over the row: warps take groups; every lane of a warp calls `take` together. */
    template <class Take>
    __device__ void scan(Take take) const {
        const uint32_t lane = threadIdx.x % 32, all = (vocab + GROUP - 1) / GROUP;
        for (uint32_t group = threadIdx.x / 32; group < all; group += CUT_THREADS / 32) {
            if (!wanted.group(groups[group])) {
                continue;
            }
            for (uint32_t i = 0; i < GROUP / 32; i++) {
                const uint32_t token = group * GROUP + i * 32 + lane;
                const float x = token < vocab ? row.at(token) : -PWK_INFINITY;
                take(x > -PWK_INFINITY && wanted.logit(x), x, token);
            }
        }
    }

    /* Puts them aside, if there is room. */
    __device__ void gather() {
        cut_shared &shared = shared_of_cut();
        __syncthreads();
        if (threadIdx.x == 0) {
            shared.count = 0;
        }
        __syncthreads();
        scan([&](bool taken, float x, uint32_t token) {
            const uint32_t lane = threadIdx.x % 32;
            const uint32_t bits = __ballot_sync(EVERY_LANE, taken);
            uint32_t first = 0;
            if (lane == 0 && bits != 0) {
                first = atomicAdd(&shared.count, uint32_t(__popc(bits)));
            }
            first = __shfl_sync(EVERY_LANE, first, 0);
            const uint32_t at = first + uint32_t(__popc(bits & ((1u << lane) - 1)));
            if (taken && at < ASIDE) {
                shared.logits[at] = x;
                shared.tokens[at] = token;
            }
        });
        __syncthreads();
        count = shared.count;
        aside = count <= ASIDE;
    }

    /* Calls `act(x, token)` for each of them, in any order. */
    template <class Act>
    __device__ void each(Act act) const {
        const cut_shared &shared = shared_of_cut();
        if (aside) {
            for (uint32_t i = threadIdx.x; i < count; i += CUT_THREADS) {
                act(shared.logits[i], shared.tokens[i]);
            }
            return;
        }
        scan([&](bool taken, float x, uint32_t token) {
            if (taken) {
                act(x, token);
            }
        });
    }
};

/* Every token of a row from a logit on. */
struct from_logit {
    float least;

    __device__ bool group(float most) const { return most >= least; }
    __device__ bool logit(float x) const { return x >= least; }
};

/* The tokens of one bin. */
struct in_bin {
    tempered z;
    uint32_t bin;

    __device__ bool group(float most) const {
        return most > -PWK_INFINITY && z.of(most) >= float(bin + 1) / -MASS_FINENESS;
    }
    __device__ bool logit(float x) const { return z.bin(x) == bin; }
};

/* The bin of a range in which weights, summed from the last bin down, come to `limit`; what is
 * above it, and within. PWK_NONE in `shared.bin` if all of them do not. */
static __device__ void find_bin(cut_shared &shared, unsigned long long limit) {
    constexpr uint32_t OWN = CUT_BINS / CUT_THREADS;
    const uint32_t thread = threadIdx.x, lane = thread % 32, last = CUT_BINS - 1 - thread * OWN;
    unsigned long long own = 0;
    for (uint32_t i = 0; i < OWN; i++) {
        own += shared.bins.of(last - i);
    }
    unsigned long long sum = own;
    for (uint32_t step = 1; step < 32; step *= 2) {
        const unsigned long long before = __shfl_up_sync(EVERY_LANE, sum, step);
        sum += lane >= step ? before : 0;
    }
    if (lane == 31) {
        shared.warps[thread / 32] = sum;
    }
    if (thread == 0) {
        shared.bin = PWK_NONE;
    }
    __syncthreads();
    unsigned long long above = sum - own;
    for (uint32_t warp = 0; warp < thread / 32; warp++) {
        above += shared.warps[warp];
    }
    if (above < limit && above + own >= limit) {
        uint32_t bin = last;
        while (above + shared.bins.of(bin) < limit) {
            above += shared.bins.of(bin);
            bin--;
        }
        shared.bin = bin;
        shared.above = above;
        shared.within = shared.bins.of(bin);
    }
    __syncthreads();
}

/* The key at which weights, summed over the largest keys first, come to a limit. */
struct crossed {
    bool found;
    uint32_t key;
    unsigned long long above; /* their sum above it */
};

/* `each(add)` calls add(key, weight) for this thread's part of them; only keys from least to
 * most count. With slack, a lower key will do down to which no more than that is added. By the
 * whole block. */
template <class Each>
static __device__ crossed crossing(Each each, unsigned long long limit, uint32_t least,
                                   uint32_t most, uint32_t slack = 0) {
    cut_shared &shared = shared_of_cut();
    unsigned long long above = 0, most_sum = limit + slack;
    do {
        const int bits = 32 - __clz(int(most - least));
        const uint32_t shift = bits > 10 ? uint32_t(bits - 10) : 0;
        shared.bins.clear();
        __syncthreads();
        each([&](uint32_t key, uint32_t weight) {
            const uint32_t within = key - least;
            if (within <= most - least) {
                shared.bins.add(within >> shift, weight);
            }
        });
        __syncthreads();
        find_bin(shared, limit - above);
        if (shared.bin == PWK_NONE) {
            return {false, 0, 0};
        }
        above += shared.above;
        least += shared.bin << shift;
        const uint32_t span = (1u << shift) - 1;
        most = most - least < span ? most : least + span;
        const bool enough = slack > 0 && above + shared.within <= most_sum;
        __syncthreads();
        if (enough) {
            break;
        }
    } while (least < most);
    return {true, least, above};
}

/* A logit from which on at least n tokens lie, and not many more; -infinity if groups cannot
 * tell: so many of them have one. */
static __device__ float nth_group(const float *groups, uint32_t count, uint32_t n, float most) {
    uint32_t *lowest = &shared_of_cut().count;
    __syncthreads();
    if (threadIdx.x == 0) {
        *lowest = key_of(most);
    }
    __syncthreads();
    uint32_t own = key_of(most);
    for (uint32_t group = threadIdx.x; group < count; group += CUT_THREADS) {
        const uint32_t key = key_of(groups[group]);
        own = key < own ? key : own;
    }
    atomicMin(lowest, own);
    __syncthreads();
    const uint32_t least = *lowest;
    const crossed nth = crossing(
        [&](auto add) {
            for (uint32_t group = threadIdx.x; group < count; group += CUT_THREADS) {
                add(key_of(groups[group]), 1u);
            }
        },
        n, least, key_of(most), 16);
    return nth.found ? logit_of(nth.key) : -PWK_INFINITY;
}

/* The last of the first `ties` tokens that have a logit, or PWK_NONE if all of them. */
template <class Wanted>
static __device__ uint32_t last_of_ties(const candidates<Wanted> &all, float logit,
                                        unsigned long long ties) {
    const crossed last = crossing(
        [&](auto add) {
            all.each([&](float x, uint32_t token) {
                if (x == logit) {
                    add(~token, 1u);
                }
            });
        },
        ties, ~(all.vocab - 1), 0xffffffffu);
    return last.found ? ~last.key : PWK_NONE;
}

/* Where the largest logits, from `most` on, come to a count. */
template <class Wanted>
static __device__ crossed count_crossing(const candidates<Wanted> &all, unsigned long long count,
                                         float least, float most) {
    return crossing(
        [&](auto add) { all.each([&](float x, uint32_t) { add(key_of(x), 1u); }); }, count,
        key_of(least), key_of(most));
}

#endif /* PAGEWISE_SAMPLE_CANDIDATES_H */
