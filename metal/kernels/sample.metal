/* sample: one token for each row of logits, without a sort, with the CPU's bits.
 *
 * Launches, the first, second and fourth with 64 threads for each row and block of 4096 logits,
 * the others with 256 for each row:
 * 1. survey: a block's logits are read once into registers: the largest of its groups of 128,
 *    and its exponentials. raw_logits too, where they are given.
 * 2. weigh, only for top-p without top-k: masses by bins of z, in whole numbers of two words.
 * 3. cut: where a row's filters end its ranking. The k-th largest group bounds what top-k can
 *    keep, a bin what top-p can; what lies above is set aside in threadgroup memory (or read
 *    again from the row, where there is too much of it), and the end is found by narrowing
 *    ranges of ordered keys with exact counts and masses. A second threadgroup for each row
 *    lists its most likely tokens by the same means.
 * 4. draw: of the groups that can hold a kept token: scores, sums of exp(z), bits. A token is
 *    given a Gumbel number only if its word can bring it above the score of the row's most
 *    likely token.
 * 5. finish: blocks fold to a row's answer.
 * So a row is read once, and with top-k then only a few groups of it; a second time where no
 * filter stands or min-p alone, and a third with top-p alone.
 *
 * Memory: workspace of 4 KiB a row, 40 bytes a block and 8 a group; 25 KiB of a threadgroup in
 * cut.
 * Emulated; not yet run on Apple hardware.
 */
#include "checks.h"
#include "vocabulary.h"

struct sample_arguments {
    pwk_sample p;
    device const float *logits;
    device const float *raw_logits;
    device const pwk_sample_row *settings;
    device uint32_t *token;
    device uint32_t *status;
    device float *raw_logprob;
    device float *processed_logprob;
    device uint32_t *top_token;
    device float *top_logprob;
    device uint32_t *kept;
    device uint32_t *kept_count;
    device const uint32_t *rows;
    launch_of_call launch;
};

constant constexpr uint32_t SAMPLE_SETTINGS = 2; /* places among the buffers */
constant constexpr uint32_t SAMPLE_ROWS = 11;

constant constexpr float MASS_ONE = 536870912.0f; /* of the most likely token */
constant constexpr float MASS_LEAST = -21.0f;     /* below this z a mass is 0 */
constant constexpr uint32_t MASS_BINS = 512;      /* the largest z first */
constant constexpr float MASS_FINENESS = 24.0f;   /* bins for each unit of z */
constant constexpr uint32_t CUT_THREADS = 256;    /* of a threadgroup of a row */
constant constexpr uint32_t CUT_GROUPS = 8;       /* SIMD groups of that */
constant constexpr uint32_t CUT_BINS = 1024;      /* of a range of keys */
constant constexpr uint32_t ASIDE = 2048;         /* tokens that are set aside */
constant constexpr uint32_t TOP_MAX = 128;
constant constexpr uint32_t FINISHERS = 128;

/* ---- whole numbers of 64 bits, which have no atomics: two words, the low one first ---- */

/* Adds to a number; `Word` points to atomic_uint of some memory. */
template <class Word>
static void add_wide(Word words, uint64_t weight) {
    const uint32_t low = static_cast<uint32_t>(weight);
    const uint32_t before = atomic_fetch_add_explicit(words, low, memory_order_relaxed);
    const uint32_t carry = before + low < before ? 1 : 0;
    const uint32_t high = static_cast<uint32_t>(weight >> 32) + carry;
    if (high != 0) {
        atomic_fetch_add_explicit(words + 1, high, memory_order_relaxed);
    }
}

template <class Word>
static uint64_t load_wide(Word words) {
    const uint64_t high = atomic_load_explicit(words + 1, memory_order_relaxed);
    return high << 32 | atomic_load_explicit(words, memory_order_relaxed);
}

template <class Word>
static void store_wide(Word words, uint64_t number) {
    atomic_store_explicit(words, static_cast<uint32_t>(number), memory_order_relaxed);
    atomic_store_explicit(words + 1, static_cast<uint32_t>(number >> 32), memory_order_relaxed);
}

/* ---- the workspace ---- */

/* What a row is drawn by: written by cut. */
struct row_state {
    exponentials own;
    exponentials raw;
    float factor;
    float cut_logit;    /* tokens above are kept, */
    uint32_t cut_token; /* and of its equals those up to this one */
    float least_z;      /* of what min-p keeps */
    float floor_score;  /* of the most likely token */
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
    device row_state *state;
    device atomic_uint *bins; /* [MASS_BINS] of two words */
    device block_tally *blocks;
    device float *groups;
    device float *raw_groups;
};

static uint32_t blocks_of(constant pwk_sample &p) { return (p.vocab + BLOCK - 1) / BLOCK; }

static uint32_t groups_of(constant pwk_sample &p) { return (p.vocab + GROUP - 1) / GROUP; }

static row_desk desk_of(constant sample_arguments &a, uint64_t row) {
    device uchar *start = a.launch.workspace + row * (uint64_t(a.launch.tile) * 4);
    row_desk desk;
    desk.state = reinterpret_cast<device row_state *>(start);
    desk.bins = reinterpret_cast<device atomic_uint *>(desk.state + 1);
    desk.blocks = reinterpret_cast<device block_tally *>(desk.bins + 2 * MASS_BINS);
    desk.groups = reinterpret_cast<device float *>(desk.blocks + blocks_of(a.p));
    desk.raw_groups = desk.groups + groups_of(a.p);
    return desk;
}

/* ---- how a row is asked for ---- */

static float factor_of(thread const pwk_sample_row &asked) {
    const float inverse = 1.0f / asked.temperature;
    return inverse > PWK_FLT_MAX ? PWK_FLT_MAX : inverse;
}

static bool has_top_k(constant pwk_sample &p, thread const pwk_sample_row &asked) {
    return asked.top_k > 0 && asked.top_k < p.vocab;
}

/* Whether all tokens are kept, as they are. */
static bool is_plain(constant pwk_sample &p, thread const pwk_sample_row &asked) {
    return factor_of(asked) == 1.0f && !has_top_k(p, asked) && !(asked.top_p < 1.0f) &&
           !(asked.min_p > 0.0f);
}

/* Whether top-p stands without top-k. */
static bool is_weighed(constant pwk_sample &p, thread const pwk_sample_row &asked) {
    return !pwk_is_zero(asked.temperature) && asked.top_p < 1.0f && !has_top_k(p, asked);
}

static noise_source source_of(thread const pwk_sample_row &asked) {
    return {asked.seed, asked.position, asked.fork, PWK_NOISE_SAMPLE};
}

static bool is_within(float x, float most) { return x >= 0.0f && x <= most; }

/* Rows that ask for what they may not. */
struct is_row_wrong {
    device const pwk_sample_row *settings;

    bool operator()(uint32_t i) const {
        const pwk_sample_row asked = settings[i];
        return !is_within(asked.temperature, PWK_FLT_MAX) || !is_within(asked.top_p, 1.0f) ||
               !is_within(asked.min_p, 1.0f);
    }
};

static void check_settings(constant sample_arguments &a, Place place, uint32_t rows) {
    const is_row_wrong bad = {a.settings};
    const uint32_t at = first_where(place, check_word(place), rows, bad);
    if (at == PWK_NONE || place.thread_index != 0) {
        return;
    }
    const pwk_sample_row asked = a.settings[at];
    const float rest = !is_within(asked.top_p, 1.0f) ? asked.top_p : asked.min_p;
    const float first = !is_within(asked.temperature, PWK_FLT_MAX) ? asked.temperature : rest;
    const uint32_t range = first < 0.0f ? PWK_FAULT_BELOW : PWK_FAULT_ABOVE;
    const uint32_t kind = is_finite(first) ? range : PWK_FAULT_NOT_FINITE;
    refuse(a.launch, kind, SAMPLE_SETTINGS, at, 0, 0, 0);
}

/* ---- 1: survey ---- */

/* The largest of each group of a block goes to `groups`; its exponentials come back. */
static exponentials survey_block(Place place, device const float *x, uint32_t count,
                                 device float *groups) {
    threadgroup float *shared = reinterpret_cast<threadgroup float *>(SHARED());
    const uint32_t thread_index = place.thread_index, lane = place.lane;
    float v[BLOCK / SUMS];
    float largest_of_half = -PWK_INFINITY;
    for (uint32_t group = 0; group < GROUPS; group++) {
        const uint32_t first = 2 * group * SUMS + thread_index, second = first + SUMS;
        v[2 * group] = first < count ? x[first] : -PWK_INFINITY;
        v[2 * group + 1] = second < count ? x[second] : -PWK_INFINITY;
        /* In this order both pass over a NaN. */
        const float own = pwk_max(v[2 * group + 1], pwk_max(v[2 * group], -PWK_INFINITY));
        const float most = simd_max(own);
        largest_of_half = lane == group ? most : largest_of_half;
    }
    shared[thread_index] = largest_of_half;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float group = pwk_max(shared[lane], shared[lane + LANES]);
    if (thread_index < GROUPS && thread_index * GROUP < count) {
        groups[thread_index] = group;
    }
    const float largest = simd_max(group);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float least = anchor(largest);
    float sum = 0.0f;
    for (uint32_t i = 0; i < BLOCK / SUMS; i++) {
        sum = sum + pwk_exp_below(v[i] - least);
    }
    const exponentials all = {largest, folded(place, shared, sum)};
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return all;
}

static void survey_body(constant sample_arguments &a, Place place) {
    constant pwk_sample &p = a.p;
    const uint64_t rows = live_in_block(a.launch, place, SAMPLE_ROWS, a.rows, p.rows_max);
    if (place.group.x == 0) {
        check_settings(a, place, uint32_t(rows));
    }
    const uint32_t blocks = blocks_of(p), matrices = a.raw_logits == nullptr ? 1 : 2;
    for (uint64_t piece = place.group.x; piece < rows * blocks * matrices;
         piece += place.group_count.x) {
        const bool raw = piece >= rows * blocks;
        const uint64_t own = raw ? piece - rows * blocks : piece;
        const uint64_t row = own / blocks;
        const uint32_t block = uint32_t(own % blocks), first = block * BLOCK;
        const row_desk desk = desk_of(a, row);
        device const float *x =
            raw ? a.raw_logits + row * p.raw_row_stride : a.logits + row * p.row_stride;
        const uint32_t count = p.vocab - first < BLOCK ? p.vocab - first : BLOCK;
        device float *groups = (raw ? desk.raw_groups : desk.groups) + block * GROUPS;
        const exponentials all = survey_block(place, x + first, count, groups);
        if (place.thread_index == 0 && raw) {
            desk.blocks[block].raw = all;
        } else if (place.thread_index == 0) {
            desk.blocks[block].own = all;
        }
        const pwk_sample_row asked = a.settings[row];
        if (!raw && block == 0 && is_weighed(p, asked)) {
            for (uint32_t word = place.thread_index; word < 2 * MASS_BINS; word += SUMS) {
                atomic_store_explicit(desk.bins + word, 0u, memory_order_relaxed);
            }
        }
    }
}

/* ---- 2: masses ---- */

/* Logits as the filters see them. */
struct tempered {
    float most;
    float factor;
};

static float z_of(tempered z, float x) { return (x - z.most) * z.factor; }

static uint32_t mass_of(tempered z, float x) {
    return uint32_t(PWK_NEAREST(pwk_exp(z_of(z, x)) * MASS_ONE));
}

/* The bin of its mass: a larger z is never in a later one. */
static uint32_t bin_of(tempered z, float x) {
    return uint32_t(PWK_NEAREST(pwk_max(z_of(z, x), MASS_LEAST) * -MASS_FINENESS));
}

/* The largest logit of a row, by a SIMD group. */
static float largest_of_row(Place place, thread const row_desk &desk, uint32_t blocks) {
    float most = -PWK_INFINITY;
    for (uint32_t block = place.lane; block < blocks; block += LANES) {
        most = pwk_max(desk.blocks[block].own.most, most);
    }
    return simd_max(most);
}

static void weigh_block(Place place, thread const row_desk &desk, tempered z,
                        device const float *x, uint32_t first, uint32_t vocab) {
    threadgroup atomic_uint *bins = reinterpret_cast<threadgroup atomic_uint *>(SHARED());
    for (uint32_t word = place.thread_index; word < 2 * MASS_BINS; word += SUMS) {
        atomic_store_explicit(bins + word, 0u, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint32_t end = vocab - first < BLOCK ? vocab : first + BLOCK;
    for (uint32_t group = first; group < end; group += GROUP) {
        if (!(z_of(z, desk.groups[group / GROUP]) >= MASS_LEAST)) {
            continue;
        }
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t at = group + i * SUMS + place.thread_index;
            const uint32_t mass = at < end ? mass_of(z, x[at]) : 0;
            if (mass > 0) {
                add_wide(bins + 2 * bin_of(z, x[at]), mass);
            }
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint32_t bin = place.thread_index; bin < MASS_BINS; bin += SUMS) {
        const uint64_t mass = load_wide(bins + 2 * bin);
        if (mass != 0) {
            add_wide(desk.bins + 2 * bin, mass);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

static void weigh_body(constant sample_arguments &a, Place place) {
    constant pwk_sample &p = a.p;
    const uint64_t rows = live(a.launch, place, SAMPLE_ROWS, a.rows, p.rows_max);
    const uint32_t blocks = blocks_of(p);
    for (uint64_t piece = place.group.x; piece < rows * blocks; piece += place.group_count.x) {
        const uint64_t row = piece / blocks;
        const pwk_sample_row asked = a.settings[row];
        if (!is_weighed(p, asked)) {
            continue;
        }
        const row_desk desk = desk_of(a, row);
        const tempered z = {largest_of_row(place, desk, blocks), factor_of(asked)};
        if (z.most > -PWK_INFINITY && z.most < PWK_INFINITY) {
            weigh_block(place, desk, z, a.logits + row * p.row_stride,
                        uint32_t(piece % blocks) * BLOCK, p.vocab);
        }
    }
}

/* ---- 3: cuts ---- */

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

static threadgroup cut_shared &shared_of_cut(Place place) {
    return *reinterpret_cast<threadgroup cut_shared *>(SHARED());
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
    device const float *row;
    device const float *groups;
    uint32_t vocab;
    wanted_tokens wanted;
    bool aside;
    uint32_t count;
};

/* Whether a token is one of those that are wanted; its logit goes to x. */
static bool takes_token(thread const candidates &all, uint32_t token, thread float &x) {
    x = token < all.vocab ? all.row[token] : -PWK_INFINITY;
    return token < all.vocab && wants_logit(all.wanted, x);
}

/* Puts them aside, if there is room: SIMD groups take groups. */
static void gather(Place place, thread candidates &all) {
    threadgroup cut_shared &shared = shared_of_cut(place);
    const uint32_t groups = (all.vocab + GROUP - 1) / GROUP;
    in_block(place, &shared.count, 0);
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
                first = atomic_fetch_add_explicit(&shared.count, popcount(bits),
                                                  memory_order_relaxed);
            }
            first = simd_broadcast(first, ushort(0));
            const uint32_t at = first + popcount(bits & ((1u << place.lane) - 1));
            if (taken && at < ASIDE) {
                shared.logits[at] = x;
                shared.tokens[at] = token;
            }
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    all.count = atomic_load_explicit(&shared.count, memory_order_relaxed);
    all.aside = all.count <= ASIDE;
}

/* Calls `act(x, token)` for each of them, in any order. */
template <class Act>
static void for_each(Place place, thread const candidates &all, thread Act &act) {
    threadgroup const cut_shared &shared = shared_of_cut(place);
    if (all.aside) {
        for (uint32_t i = place.thread_index; i < all.count; i += CUT_THREADS) {
            act(shared.logits[i], shared.tokens[i]);
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
 * their sum above it; PWK_NONE in `shared.bin` if all of them do not. */
static void find_bin(Place place, uint64_t limit) {
    threadgroup cut_shared &shared = shared_of_cut(place);
    const uint32_t each = CUT_BINS / CUT_THREADS, thread_index = place.thread_index;
    const uint32_t last = CUT_BINS - 1 - thread_index * each;
    uint64_t own = 0;
    for (uint32_t i = 0; i < each; i++) {
        own += load_wide(shared.bins + 2 * (last - i));
    }
    uint64_t sum = own;
    for (ushort lanes = 1; lanes < LANES; lanes *= 2) {
        const uint64_t before = shuffle_up(sum, lanes);
        sum += place.lane >= lanes ? before : 0;
    }
    if (place.lane == LANES - 1) {
        store_wide(shared.sums + 2 * place.simdgroup, sum);
    }
    if (thread_index == 0) {
        atomic_store_explicit(&shared.bin, PWK_NONE, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    uint64_t above = sum - own;
    for (uint32_t group = 0; group < place.simdgroup; group++) {
        above += load_wide(shared.sums + 2 * group);
    }
    if (above < limit && above + own >= limit) {
        uint32_t bin = last;
        uint64_t weight = load_wide(shared.bins + 2 * bin);
        while (above + weight < limit) {
            above += weight;
            bin--;
            weight = load_wide(shared.bins + 2 * bin);
        }
        atomic_store_explicit(&shared.bin, bin, memory_order_relaxed);
        store_wide(shared.above, above);
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
    threadgroup cut_shared &shared = shared_of_cut(place);
    uint64_t above = 0;
    do {
        const uint32_t bits = 32 - clz(most - least);
        const uint32_t shift = bits > 10 ? bits - 10 : 0;
        for (uint32_t word = place.thread_index; word < 2 * CUT_BINS; word += CUT_THREADS) {
            atomic_store_explicit(shared.bins + word, 0u, memory_order_relaxed);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const key_range range = {shared.bins, least, most, shift};
        weights.add_all(place, range);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        find_bin(place, limit - above);
        const uint32_t bin = atomic_load_explicit(&shared.bin, memory_order_relaxed);
        if (bin == PWK_NONE) {
            return {false, 0, 0};
        }
        above += load_wide(shared.above);
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
    threadgroup cut_shared &shared = shared_of_cut(place);
    if (place.thread_index == 0) {
        store_wide(shared.above, 0);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    sum_above own = {z, key, 0};
    for_each(place, all, own);
    if (own.sum > 0) {
        add_wide(shared.above, own.sum);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint64_t sum = load_wide(shared.above);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return sum;
}

/* A row as cut goes over it. */
struct cut_work {
    row_desk desk;
    device const float *row;
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
    threadgroup cut_shared &shared = shared_of_cut(place);
    /* The first bin has the largest z: the last one of a range. */
    for (uint32_t bin = place.thread_index; bin < CUT_BINS; bin += CUT_THREADS) {
        const uint64_t mass = bin < MASS_BINS ? load_wide(work.desk.bins + 2 * bin) : 0;
        store_wide(shared.bins + 2 * (CUT_BINS - 1 - bin), mass);
    }
    if (place.thread_index == 0) {
        store_wide(shared.above, 0);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint32_t bin = place.thread_index; bin < MASS_BINS; bin += CUT_THREADS) {
        add_wide(shared.above, load_wide(work.desk.bins + 2 * bin));
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint64_t mass = share_of(load_wide(shared.above), work.asked.top_p);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    find_bin(place, mass);
    const uint32_t bin = CUT_BINS - 1 - atomic_load_explicit(&shared.bin, memory_order_relaxed);
    const uint64_t above = load_wide(shared.above);
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
                            device const float *row, float most) {
    threadgroup cut_shared &shared = shared_of_cut(place);
    const is_equal groups = {desk.groups, most};
    const uint32_t start = first_where(place, &shared.found, groups_of(p), groups) * GROUP;
    const uint32_t count = p.vocab - start < GROUP ? p.vocab - start : GROUP;
    const is_equal tokens = {row + start, most};
    return start + first_where(place, &shared.found, count, tokens);
}

/* Blocks' exponentials, of logits or of raw ones. */
struct block_exponentials {
    device const block_tally *blocks;
    bool raw;

    exponentials operator()(uint32_t block) const {
        return raw ? exponentials{blocks[block].raw.most, blocks[block].raw.sum}
                   : exponentials{blocks[block].own.most, blocks[block].own.sum};
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
        const pwk_sample_row asked = a.settings[at];
        device const float *row = a.logits + at * a.p.row_stride;
        state.factor = factor_of(asked);
        const tempered z = {state.own.most, state.factor};
        const cut_work work = {desk, row, asked, z};
        const uint32_t first = first_token(a.p, place, desk, row, z.most);
        state.floor_score = gumbel(noise_uniform(noise_word(source_of(asked), first)));
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
    }
    if (place.thread_index == 0) {
        *desk.state = state;
    }
}

/* ---- 3: the most likely tokens ---- */

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
    threadgroup cut_shared &shared = shared_of_cut(place);
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
    in_block(place, &shared.bin, 0);
    list_tokens act = {&shared, logits, tokens, end};
    for_each(place, all, act);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return atomic_load_explicit(&shared.bin, memory_order_relaxed);
}

static void top_row(constant sample_arguments &a, Place place, uint64_t at) {
    threadgroup cut_shared &shared = shared_of_cut(place);
    const row_desk desk = desk_of(a, at);
    const uint32_t n = a.p.top_n, thread_index = place.thread_index;
    const bool raw = a.raw_logits != nullptr;
    device const float *row =
        raw ? a.raw_logits + at * a.p.raw_row_stride : a.logits + at * a.p.row_stride;
    device const float *groups = raw ? desk.raw_groups : desk.groups;
    const row_state state = totals_of(a, place, desk);
    uint32_t count = 0;
    threadgroup float *logits = reinterpret_cast<threadgroup float *>(shared.bins);
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

/* ---- 4: draw ---- */

/* What a block of a row is drawn by. */
struct draw_block {
    row_state state;
    pwk_sample_row asked;
    device const float *row;
    uint32_t first; /* token */
    uint32_t end;
    device const float *groups;
    device uint32_t *kept; /* words of the row, or null */
    uint32_t visited;      /* a bit for each group that can hold a kept token */
};

static tempered tempered_of(thread const draw_block &block) {
    return {block.state.own.most, block.state.factor};
}

/* The logit of a token; -infinity past the end. */
static float logit_at(thread const draw_block &block, uint32_t token) {
    return token < block.end ? block.row[token] : -PWK_INFINITY;
}

static bool is_kept(thread const draw_block &block, float x, uint32_t token) {
    const float cut = block.state.cut_logit;
    const bool head = x > cut || (x == cut && token <= block.state.cut_token);
    return head && z_of(tempered_of(block), x) >= block.state.least_z;
}

/* The largest v with which a token of that z, or a smaller one, can come to the floor; negative
 * if none can. A Gumbel number is -ln e with e >= v; the margin is far above errors. */
static float reach(float z, float least) {
    return z + GUMBEL_MOST < least ? -1.0f : pwk_exp(z - least) * 1.001f;
}

/* The best of this thread's tokens: SIMD groups take every second group, half of one 64
 * tokens. */
static scored score_block(Place place, thread const draw_block &block) {
    const uint32_t lane = place.lane;
    const noise_source source = source_of(block.asked);
    const tempered z = tempered_of(block);
    scored best = {-PWK_INFINITY, PWK_NONE};
    uint32_t left = block.visited;
    for (uint32_t number = 0; left != 0; number++) {
        const uint32_t group = ctz(left);
        left &= left - 1;
        if (number % 2 != place.simdgroup) {
            continue;
        }
        const float limit = reach(z_of(z, block.groups[group]), block.state.floor_score);
        if (limit < 0.0f) {
            continue;
        }
        const uint32_t unit = block.first + group * GROUP + (lane / 16) * 64;
        const pwk_words words = noise_words(source, unit, lane % 16);
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t token = unit + i * 16 + lane % 16;
            const float x = logit_at(block, token);
            const float v = noise_uniform(words.word[i]);
            if (v <= limit && is_kept(block, x, token)) {
                const scored own = {z_of(z, x) + gumbel(v), token};
                best = better(best, own);
            }
        }
    }
    return best;
}

/* The bits and the count of the tokens kept, and the sum of exp(z) over them. */
static float tally_block(Place place, thread const draw_block &block, thread uint32_t &count) {
    const tempered z = tempered_of(block);
    float sum = 0.0f;
    for (uint32_t left = block.visited; left != 0; left &= left - 1) {
        const uint32_t group = ctz(left);
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t token = block.first + group * GROUP + i * SUMS + place.thread_index;
            const float x = logit_at(block, token);
            const bool kept = is_kept(block, x, token);
            const float own = pwk_exp(z_of(z, x));
            sum = sum + (kept ? own : 0.0f);
            const uint32_t bits = uint32_t(simd_vote::vote_t(simd_ballot(kept)));
            count += popcount(bits);
            const uint32_t word =
                (block.first + group * GROUP) / 32 + i * 2 + place.simdgroup;
            if (place.lane == 0 && block.kept != nullptr && word * 32 < block.end) {
                block.kept[word] = bits;
            }
        }
    }
    return sum;
}

/* Clears the bits of the groups of a block that are not visited. */
static void clear_bits(Place place, thread const draw_block &block) {
    for (uint32_t word = place.thread_index; word < BLOCK / 32; word += SUMS) {
        if (block.first + word * 32 < block.end && ((block.visited >> (word / 4)) & 1u) == 0) {
            block.kept[block.first / 32 + word] = 0;
        }
    }
}

/* The groups of a block that can hold a kept token, by either SIMD group. */
static uint32_t visited_groups(Place place, thread const draw_block &block) {
    const bool some = block.first + place.lane * GROUP < block.end;
    const float most = some ? block.groups[place.lane] : -PWK_INFINITY;
    return uint32_t(simd_vote::vote_t(simd_ballot(is_kept(block, most, 0))));
}

/* What two SIMD groups found of a block, to its tally. */
static void put_tally(Place place, device block_tally *tally, scored best, uint32_t count,
                      float sum) {
    threadgroup float *shared = reinterpret_cast<threadgroup float *>(SHARED());
    threadgroup uint32_t *words = reinterpret_cast<threadgroup uint32_t *>(SHARED()) + SUMS;
    const float processed = folded(place, shared, sum);
    best = best_of_lanes(best);
    if (place.thread_index == LANES) {
        words[0] = PWK_BITS(best.score);
        words[1] = best.token;
        words[2] = count;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (place.thread_index == 0) {
        const scored other = {PWK_FLOAT(words[0]), words[1]};
        best = better(best, other);
        tally->processed = processed;
        tally->score = best.score;
        tally->token = best.token;
        tally->count = count + words[2];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

static void draw_body(constant sample_arguments &a, Place place) {
    constant pwk_sample &p = a.p;
    const uint64_t rows = live(a.launch, place, SAMPLE_ROWS, a.rows, p.rows_max);
    const uint32_t blocks = blocks_of(p);
    for (uint64_t piece = place.group.x; piece < rows * blocks; piece += place.group_count.x) {
        const uint64_t row = piece / blocks;
        const uint32_t number = uint32_t(piece % blocks), first = number * BLOCK;
        const row_desk desk = desk_of(a, row);
        draw_block block;
        block.state = *desk.state;
        block.asked = a.settings[row];
        block.row = a.logits + row * p.row_stride;
        block.first = first;
        block.end = p.vocab - first < BLOCK ? p.vocab : first + BLOCK;
        block.groups = desk.groups + number * GROUPS;
        block.kept = a.kept == nullptr ? nullptr : a.kept + row * p.kept_words;
        const bool fine = block.state.status == PWK_STATUS_OK;
        block.visited = fine ? visited_groups(place, block) : 0;
        if (block.kept != nullptr) {
            clear_bits(place, block);
        }
        const bool summed = a.processed_logprob != nullptr && !is_plain(p, block.asked);
        scored best = {-PWK_INFINITY, PWK_NONE};
        uint32_t count = 0;
        float sum = 0.0f;
        if (block.visited != 0) {
            best = score_block(place, block);
            if (summed || block.kept != nullptr || a.kept_count != nullptr) {
                sum = tally_block(place, block, count);
            }
        }
        put_tally(place, desk.blocks + number, best, count, sum);
    }
}

/* ---- 5: finish ---- */

/* What a row comes to, to its outputs. */
static void put_answer(constant sample_arguments &a, uint64_t row, thread const row_state &state,
                       uint32_t token, uint32_t count, float sum) {
    const bool fine = state.status == PWK_STATUS_OK;
    a.token[row] = fine ? token : PWK_NONE;
    a.status[row] = state.status;
    if (a.kept_count != nullptr) {
        a.kept_count[row] = count;
    }
    const pwk_sample_row asked = a.settings[row];
    float raw = PWK_NAN, processed = PWK_NAN;
    if (fine) {
        const float x = a.logits[row * a.p.row_stride + token];
        const float from =
            a.raw_logits == nullptr ? x : a.raw_logits[row * a.p.raw_row_stride + token];
        const float tempered_logprob = (x - state.own.most) * state.factor - pwk_log(sum);
        const float own = is_plain(a.p, asked) ? logprob_of(state.own, x) : tempered_logprob;
        raw = logprob_of(state.raw, from);
        processed = pwk_is_zero(asked.temperature) ? 0.0f : own;
    }
    if (a.raw_logprob != nullptr) {
        a.raw_logprob[row] = raw;
    }
    if (a.processed_logprob != nullptr) {
        a.processed_logprob[row] = processed;
    }
}

/* Blocks fold to a row's answer, by a SIMD group. */
static void finish_row(constant sample_arguments &a, Place place, uint64_t row) {
    const uint32_t lane = place.lane, blocks = blocks_of(a.p);
    const row_desk desk = desk_of(a, row);
    const row_state state = *desk.state;
    scored best = {-PWK_INFINITY, PWK_NONE};
    uint32_t count = 0;
    float sum = 0.0f;
    for (uint32_t first = 0; first < blocks; first += LANES) {
        float processed = 0.0f;
        if (first + lane < blocks) {
            device const block_tally *tally = desk.blocks + first + lane;
            const scored own = {tally->score, tally->token};
            best = better(best, own);
            count += tally->count;
            processed = tally->processed;
        }
        /* Past the last block come zeros, which change no sum. */
        for (uint32_t i = 0; i < LANES; i++) {
            sum = sum + simd_shuffle(processed, static_cast<ushort>(i));
        }
    }
    best = best_of_lanes(best);
    count = simd_sum(count);
    if (lane == 0) {
        put_answer(a, row, state, best.token, count, sum);
    }
}

static void finish_body(constant sample_arguments &a, Place place) {
    const uint64_t rows = live(a.launch, place, SAMPLE_ROWS, a.rows, a.p.rows_max);
    const uint64_t simdgroups = FINISHERS / LANES;
    for (uint64_t row = place.group.x * simdgroups + place.simdgroup; row < rows;
         row += place.group_count.x * simdgroups) {
        finish_row(a, place, row);
    }
}

ENTRY(pw_sample_survey, SUMS, sample_arguments, survey_body)
ENTRY(pw_sample_weigh, SUMS, sample_arguments, weigh_body)
ENTRY(pw_sample_cut, CUT_THREADS, sample_arguments, cut_body)
ENTRY(pw_sample_draw, SUMS, sample_arguments, draw_body)
ENTRY(pw_sample_finish, FINISHERS, sample_arguments, finish_body)
