/* sample: one token for each row of logits, without a sort, with the CPU's bits.
 *
 * Launches, the first, second and fourth with 64 threads for each row and block of 4096 logits,
 * the others with 256 for each row:
 * 1. survey: a block's logits are read once into registers: the largest of its groups of 128,
 *    and its exponentials. raw_logits too, where they are given.
 * 2. weigh, only for top-p without top-k: masses by bins of z, in whole numbers.
 * 3. cut: where a row's filters end its ranking. The k-th largest group bounds what top-k can
 *    keep, a bin what top-p can; what lies above is set aside in shared memory (or read
 *    again from the row, where there is too much of it). Up to 256 tokens are ranked by a
 *    thread each; of more the end is found by narrowing ranges of ordered keys with exact
 *    counts and masses. A second block for each row lists its most likely tokens by the
 *    same means.
 * 4. draw: of the groups that can hold a kept token: scores, sums of exp(z), bits. A token is
 *    given a Gumbel number only if its word can bring it above the score of the row's most
 *    likely token.
 * 5. finish: blocks fold to a row's answer.
 * So a row is read once, and with top-k then only a few groups of it; a second time where no
 * filter stands or min-p alone, and a third with top-p alone.
 *
 * Memory: workspace of 4 KiB a row, 32 bytes a block and 8 a group; 33 KiB shared in cut.
 * Sums in shared memory are of 32-bit words with a carry: adds of 64 bits are loops there.
 * Not measured yet.
 */
#include "checks.h"
#include "step_elements.h"
#include "vocabulary.h"

struct sample_arguments {
    pwk_sample p;
    const float *logits;
    const float *raw_logits;
    const pwk_sample_row *settings;
    uint32_t *token;
    uint32_t *status;
    float *raw_logprob;
    float *processed_logprob;
    uint32_t *top_token;
    float *top_logprob;
    uint32_t *kept;
    uint32_t *kept_count;
    const uint32_t *rows;
    pwk_launch launch;
};

constexpr uint32_t SAMPLE_SETTINGS = 2; /* places among the buffers */
constexpr uint32_t SAMPLE_ROWS = 11;

constexpr float MASS_ONE = 536870912.0f; /* of the most likely token */
constexpr float MASS_LEAST = -21.0f;     /* below this z a mass is 0 */
constexpr uint32_t MASS_BINS = 512;      /* the largest z first */
constexpr float MASS_FINENESS = 24.0f;   /* bins for each unit of z */
constexpr uint32_t CUT_THREADS = 256;    /* of a block of a row */
constexpr uint32_t CUT_BINS = 1024;      /* of a range of keys */
constexpr uint32_t ASIDE = 3072;         /* tokens that are set aside */
constexpr uint32_t AT_ONCE = 4; /* groups that a warp reads before it uses the first */

/* ---- the workspace ---- */

/* What a row is drawn by: written by cut. */
struct row_state {
    exponentials own;
    exponentials raw;
    float factor;
    float cut_logit; /* tokens above are kept, */
    uint32_t cut_token; /* and of its equals those up to this one */
    float least_z; /* of what min-p keeps */
    float floor; /* the score of the most likely token */
    uint32_t status;
    uint32_t reserved[6];
};

static_assert(sizeof(row_state) == 64, "lowering gives it so much");

/* What a block of a row comes to. */
struct block_tally {
    exponentials own;
    float processed; /* the sum of exp(z) over its tokens kept */
    float score;
    uint32_t token;
    uint32_t count;
    exponentials raw;
};

static_assert(sizeof(block_tally) == 32, "lowering gives it so much");

/* A row's part of the workspace. */
struct row_desk {
    row_state *state;
    unsigned long long *bins; /* [MASS_BINS] */
    block_tally *blocks;
    float *groups;
    float *raw_groups;
};

static __device__ uint32_t blocks_of(const pwk_sample &p) { return (p.vocab + BLOCK - 1) / BLOCK; }

static __device__ uint32_t groups_of(const pwk_sample &p) { return (p.vocab + GROUP - 1) / GROUP; }

static __device__ row_desk desk_of(const sample_arguments &a, uint64_t row) {
    const uint64_t start = a.launch.workspace + row * (uint64_t(a.launch.tile) * 4);
    row_desk desk;
    desk.state = reinterpret_cast<row_state *>(start);
    desk.bins = reinterpret_cast<unsigned long long *>(desk.state + 1);
    desk.blocks = reinterpret_cast<block_tally *>(desk.bins + MASS_BINS);
    desk.groups = reinterpret_cast<float *>(desk.blocks + blocks_of(a.p));
    desk.raw_groups = desk.groups + groups_of(a.p);
    return desk;
}

/* ---- how a row is asked for ---- */

static __device__ float factor_of(const pwk_sample_row &asked) {
    const float inverse = 1.0f / asked.temperature;
    return inverse > PWK_FLT_MAX ? PWK_FLT_MAX : inverse;
}

static __device__ bool has_top_k(const pwk_sample &p, const pwk_sample_row &asked) {
    return asked.top_k > 0 && asked.top_k < p.vocab;
}

/* Whether all tokens are kept, as they are. */
static __device__ bool is_plain(const pwk_sample &p, const pwk_sample_row &asked) {
    return factor_of(asked) == 1.0f && !has_top_k(p, asked) && !(asked.top_p < 1.0f) &&
           !(asked.min_p > 0.0f);
}

/* Whether top-p stands without top-k. */
static __device__ bool is_weighed(const pwk_sample &p, const pwk_sample_row &asked) {
    return asked.temperature != 0.0f && asked.top_p < 1.0f && !has_top_k(p, asked);
}

static __device__ bool is_within(float x, float most) { return x >= 0.0f && x <= most; }

static __device__ void check_settings(const sample_arguments &a, uint32_t rows) {
    uint32_t *found = reinterpret_cast<uint32_t *>(SHARED());
    const uint32_t at = first_where(found, rows, [&](uint32_t i) {
        const pwk_sample_row asked = a.settings[i];
        return !is_within(asked.temperature, PWK_FLT_MAX) || !is_within(asked.top_p, 1.0f) ||
               !is_within(asked.min_p, 1.0f);
    });
    if (at == PWK_NONE || threadIdx.x != 0) {
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

/* The next group of a mask, which loses it; PWK_NONE of none. */
static __device__ uint32_t next_group(uint32_t &left) {
    const uint32_t group = left == 0 ? PWK_NONE : uint32_t(__ffs(int(left))) - 1;
    left &= left - 1;
    return group;
}

/* ---- 1: survey ---- */

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

/* The largest of each group of a block goes to `groups`; its exponentials come back. */
static __device__ exponentials survey_block(const float *x, uint32_t count, float *groups) {
    float *shared = reinterpret_cast<float *>(SHARED());
    const uint32_t thread = threadIdx.x, lane = thread % 32;
    float v[EACH];
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
        const uint32_t at = i * SUMS + thread;
        v[i] = at < count ? x[at] : -PWK_INFINITY;
    }
    float most[GROUPS];
#pragma unroll
    for (uint32_t i = 0; i < GROUPS; i++) {
        // In this order both pass over a NaN.
        most[i] = pwk_max(v[2 * i + 1], pwk_max(v[2 * i], -PWK_INFINITY));
    }
    shared[thread] = largest_of_groups<GROUPS / 2>(most);
    __syncthreads();
    const float group = pwk_max(shared[lane], shared[lane + 32]);
    if (thread < 32 && thread * GROUP < count) {
        groups[thread] = group;
    }
    float largest = group;
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        largest = pwk_max(__shfl_xor_sync(EVERY_LANE, largest, lanes), largest);
    }
    __syncthreads();
    const float least = anchor(largest);
    float sum = 0.0f;
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
        sum = sum + pwk_exp_below(v[i] - least);
    }
    const exponentials all = {largest, folded(shared, sum)};
    __syncthreads();
    return all;
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
        const float *x = raw ? a.raw_logits + row * p.raw_row_stride
                             : a.logits + row * p.row_stride;
        const uint32_t count = p.vocab - first < BLOCK ? p.vocab - first : BLOCK;
        float *groups = (raw ? desk.raw_groups : desk.groups) + block * GROUPS;
        const exponentials all = survey_block(x + first, count, groups);
        if (threadIdx.x == 0) {
            block_tally &tally = desk.blocks[block];
            (raw ? tally.raw : tally.own) = all;
        }
        if (!raw && block == 0 && is_weighed(p, a.settings[row])) {
            for (uint32_t bin = threadIdx.x; bin < MASS_BINS; bin += SUMS) {
                desk.bins[bin] = 0;
            }
        }
    }
}

/* ---- 2: masses ---- */

/* Sums of weights below 2^32 by two words each, for shared memory adds words alone at once. */
template <uint32_t count>
struct weight_bins {
    uint32_t low[count];
    uint32_t high[count];

    __device__ void clear() {
        for (uint32_t bin = threadIdx.x; bin < count; bin += blockDim.x) {
            low[bin] = 0;
            high[bin] = 0;
        }
    }
    __device__ void add(uint32_t bin, uint32_t weight) {
        const uint32_t before = atomicAdd(&low[bin], weight);
        if (before + weight < before) {
            atomicAdd(&high[bin], 1u);
        }
    }
    __device__ unsigned long long of(uint32_t bin) const {
        return static_cast<unsigned long long>(high[bin]) << 32 | low[bin];
    }
};

/* Logits as the filters see them. */
struct tempered {
    float most;
    float factor;

    __device__ float of(float x) const { return (x - most) * factor; }

    __device__ uint32_t mass(float x) const {
        return uint32_t(PWK_NEAREST(pwk_exp(of(x)) * MASS_ONE));
    }

    /* The bin of its mass: a larger z is never in a later one. */
    __device__ uint32_t bin(float x) const {
        return uint32_t(PWK_NEAREST(pwk_max(of(x), MASS_LEAST) * -MASS_FINENESS));
    }
};

/* The largest logit of a row, by a warp. */
static __device__ float largest_of_row(const row_desk &desk, uint32_t blocks) {
    float most = -PWK_INFINITY;
    for (uint32_t block = threadIdx.x % 32; block < blocks; block += 32) {
        most = pwk_max(desk.blocks[block].own.most, most);
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        most = pwk_max(__shfl_xor_sync(EVERY_LANE, most, lanes), most);
    }
    return most;
}

/* The masses of a block, of whose groups those that have any are read, four at a time. */
static __device__ void weigh_block(const row_desk &desk, const tempered &z, const float *x,
                                   uint32_t first, uint32_t vocab) {
    using mass_bins = weight_bins<MASS_BINS>;
    mass_bins &bins = *reinterpret_cast<mass_bins *>(SHARED());
    bins.clear();
    __syncthreads();
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t end = vocab - first < BLOCK ? vocab : first + BLOCK;
    const bool some = first + lane * GROUP < end;
    const float most = some ? desk.groups[first / GROUP + lane] : -PWK_INFINITY;
    uint32_t left = __ballot_sync(EVERY_LANE, z.of(most) >= MASS_LEAST);
    while (left != 0) {
        float v[2 * AT_ONCE];
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            const uint32_t group = next_group(left);
            const uint32_t at = first + group * GROUP + threadIdx.x;
            v[2 * i] = group != PWK_NONE && at < end ? x[at] : -PWK_INFINITY;
            v[2 * i + 1] = group != PWK_NONE && at + SUMS < end ? x[at + SUMS] : -PWK_INFINITY;
        }
#pragma unroll
        for (uint32_t i = 0; i < 2 * AT_ONCE; i++) {
            const uint32_t mass = z.mass(v[i]);
            if (mass > 0) {
                bins.add(z.bin(v[i]), mass);
            }
        }
    }
    __syncthreads();
    for (uint32_t bin = threadIdx.x; bin < MASS_BINS; bin += SUMS) {
        if (bins.of(bin) != 0) {
            atomicAdd(&desk.bins[bin], bins.of(bin));
        }
    }
    __syncthreads();
}

static __device__ void weigh_body(const sample_arguments &a) {
    const pwk_sample &p = a.p;
    const uint64_t rows = live(a.launch, SAMPLE_ROWS, a.rows, p.rows_max);
    const uint32_t blocks = blocks_of(p);
    for (uint64_t piece = blockIdx.x; piece < rows * blocks; piece += gridDim.x) {
        const uint64_t row = piece / blocks;
        const pwk_sample_row asked = a.settings[row];
        if (!is_weighed(p, asked)) {
            continue;
        }
        const row_desk desk = desk_of(a, row);
        const tempered z = {largest_of_row(desk, blocks), factor_of(asked)};
        const bool some = z.most > -PWK_INFINITY && z.most < PWK_INFINITY;
        if (some) {
            weigh_block(desk, z, a.logits + row * p.row_stride, uint32_t(piece % blocks) * BLOCK,
                        p.vocab);
        }
    }
}

/* ---- 3: cuts ---- */

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
    const float *row;
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
                const float x = token < vocab ? row[token] : -PWK_INFINITY;
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
                                       const float *row, const pwk_sample_row &asked,
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
                                       const float *row, const pwk_sample_row &asked,
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
static __device__ uint32_t first_token(const pwk_sample &p, const row_desk &desk,
                                       const float *row, float most) {
    uint32_t *found = &shared_of_cut().count;
    const uint32_t group = first_where(found, groups_of(p),
                                       [&](uint32_t i) { return desk.groups[i] == most; });
    const uint32_t start = group * GROUP;
    const uint32_t count = p.vocab - start < GROUP ? p.vocab - start : GROUP;
    return start + first_where(found, count, [&](uint32_t i) { return row[start + i] == most; });
}

static __device__ noise_source source_of(const pwk_sample_row &asked) {
    return {asked.seed, asked.position, asked.fork, PWK_NOISE_SAMPLE};
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
    const float *row = a.logits + at * a.p.row_stride;
    row_state state = totals_of(a, desk);
    if (state.status == PWK_STATUS_OK) {
        state.factor = factor_of(asked);
        const tempered z = {state.own.most, state.factor};
        const uint32_t first = first_token(a.p, desk, row, z.most);
        state.floor = gumbel(noise_uniform(noise_word(source_of(asked), first)));
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
    }
    if (threadIdx.x == 0) {
        *desk.state = state;
    }
}

/* ---- 3: the most likely tokens ---- */

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
    const float *row = raw ? a.raw_logits + at * a.p.raw_row_stride
                           : a.logits + at * a.p.row_stride;
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

/* ---- 4: draw ---- */

/* What a block of a row is drawn by. */
struct draw_block {
    const row_state &state;
    const pwk_sample_row &asked;
    const float *row;
    uint32_t first; /* token */
    uint32_t end;
    const float *groups;
    uint32_t *kept; /* words of the row, or null */
    uint32_t visited; /* a bit for each group that can hold a kept token */

    __device__ tempered z() const { return {state.own.most, state.factor}; }

    /* The logit of a token; -infinity past the end. */
    __device__ float logit(uint32_t token) const {
        return token < end ? row[token] : -PWK_INFINITY;
    }

    /* The largest logit of a group. */
    __device__ float largest(uint32_t group) const {
        return first + group * GROUP < end ? groups[group] : -PWK_INFINITY;
    }

    __device__ bool is_kept(float x, uint32_t token) const {
        const bool head =
            x > state.cut_logit || (x == state.cut_logit && token <= state.cut_token);
        return head && z().of(x) >= state.least_z;
    }
};

/* The largest v with which a token of that z, or a smaller one, can come to the floor; negative
 * if none can. A Gumbel number is -ln e with e >= v; the margin is far above errors. */
static __device__ float reach(float z, float floor) {
    return z + GUMBEL_MOST < floor ? -1.0f : pwk_exp(z - floor) * 1.001f;
}

/* The best of this thread's tokens: warps take every second group, half a warp 64 tokens. */
static __device__ scored score_block(const draw_block &block) {
    const uint32_t lane = threadIdx.x % 32;
    const noise_source source = source_of(block.asked);
    const tempered z = block.z();
    scored best = {-PWK_INFINITY, PWK_NONE};
    const float own_limit = reach(z.of(block.largest(lane)), block.state.floor);
    uint32_t left = __ballot_sync(EVERY_LANE, own_limit >= 0.0f) & block.visited &
                    (threadIdx.x < 32 ? 0x55555555u : 0xaaaaaaaau);
    while (left != 0) {
        uint32_t group[AT_ONCE];
        float x[AT_ONCE][4];
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            group[i] = next_group(left);
            const uint32_t token = block.first + group[i] * GROUP + lane / 16 * 64 + lane % 16;
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                x[i][j] = group[i] != PWK_NONE ? block.logit(token + j * 16) : -PWK_INFINITY;
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            if (group[i] == PWK_NONE) {
                continue;
            }
            const float limit = __shfl_sync(EVERY_LANE, own_limit, int(group[i]));
            const uint32_t unit = block.first + group[i] * GROUP + lane / 16 * 64;
            const pwk_words words = noise_words(source, unit, lane % 16);
#pragma unroll
            for (uint32_t j = 0; j < 4; j++) {
                const uint32_t token = unit + j * 16 + lane % 16;
                const float v = noise_uniform(words.word[j]);
                if (v <= limit && block.is_kept(x[i][j], token)) {
                    best = better(best, {z.of(x[i][j]) + gumbel(v), token});
                }
            }
        }
    }
    return best;
}

/* The bits and the count of the tokens kept, and the sum of exp(z) over them. */
static __device__ float tally_block(const draw_block &block, uint32_t &count) {
    const uint32_t lane = threadIdx.x % 32;
    const tempered z = block.z();
    float sum = 0.0f;
    for (uint32_t left = block.visited; left != 0;) {
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
            const bool kept = block.is_kept(x[i], token[i]);
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

/* Clears the bits of the groups of a block that are not visited. */
static __device__ void clear_bits(const draw_block &block) {
    for (uint32_t word = threadIdx.x; word < BLOCK / 32; word += SUMS) {
        if (block.first + word * 32 < block.end && !(block.visited >> (word / 4) & 1u)) {
            block.kept[block.first / 32 + word] = 0;
        }
    }
}

/* The groups of a block that can hold a kept token, by either warp. */
static __device__ uint32_t visited_groups(const draw_block &block) {
    return __ballot_sync(EVERY_LANE, block.is_kept(block.largest(threadIdx.x % 32), 0));
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
        draw_block block = {state, asked, a.logits + row * p.row_stride, first,
                            p.vocab - first < BLOCK ? p.vocab : first + BLOCK,
                            desk.groups + number * GROUPS,
                            a.kept == nullptr ? nullptr : a.kept + row * p.kept_words, 0};
        if (state.status == PWK_STATUS_OK) {
            block.visited = visited_groups(block);
        }
        if (block.kept != nullptr) {
            clear_bits(block);
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

/* ---- 5: finish ---- */

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
        const float tempered_logprob = (x - state.own.most) * state.factor - pwk_log(sum);
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

ENTRY(pw_sample_survey, SUMS, 8, sample_arguments, survey_body)
ENTRY(pw_sample_weigh, SUMS, 16, sample_arguments, weigh_body)
ENTRY(pw_sample_cut, CUT_THREADS, 2, sample_arguments, cut_body)
ENTRY(pw_sample_draw, SUMS, 10, sample_arguments, draw_body)
ENTRY(pw_sample_finish, 128, 4, sample_arguments, finish_body)
