/* spec_verify: how far down its drafts the target follows each sequence, with the CPU's bits.
 *
 * Launches, behind the check (spec_verify_check.metal): 1. A threadgroup of 512 threads for each
 * sequence walks down its tree: it reads the rows of the nodes that it comes to and no others.
 * Sums are made by teams of 64 threads, a block of 4096 weights each. 2. With places, one
 * threadgroup lists what kv_copy has to move, sequences ascending.
 * Memory: 19 KiB of a threadgroup; with REJECTION a row of weights for each threadgroup as
 * workspace.
 * Emulated; not yet run on Apple hardware.
 */
#include "spec_verify_call.h"
#include "vocabulary.h"

constant constexpr uint32_t WALK_THREADS = 512;
constant constexpr uint32_t WALK_GROUPS = WALK_THREADS / LANES; /* SIMD groups that walk */
constant constexpr uint32_t TEAMS = WALK_THREADS / SUMS; /* blocks that are summed at once */
constant constexpr uint32_t BLOCKS_MAX = 4096;           /* of the largest vocabulary */
constant constexpr uint32_t IN_FLIGHT = 8; /* weights that a thread reads ahead */
constant constexpr uint32_t MOVE_THREADS = 256;
constant constexpr uint32_t ENTRY_WORDS = 5;

/* ---- walks ---- */

struct walk_shared {
    atomic_uint found; /* what checks take */
    atomic_uint reserved[3];
    float sums[WALK_THREADS];
    float blocks[BLOCKS_MAX];
    scored best[WALK_GROUPS];
    uint32_t path[PWK_TREE_NODES_MAX];
};

static_assert(sizeof(walk_shared) == 18 * 1024 + 128 + 256 + 16, "lowering gives it so much");

static threadgroup walk_shared &shared_of_walk(Place place) {
    return *reinterpret_cast<threadgroup walk_shared *>(SHARED());
}

/* Where a node leads: to a child; or to a token, which PWK_NONE is with a status. */
struct way {
    uint32_t child; /* PWK_NONE: none */
    uint32_t token;
    uint32_t status;
};

static way way_to_child(uint32_t child) { return {child, PWK_NONE, PWK_STATUS_OK}; }

static way way_to_token(uint32_t token) { return {PWK_NONE, token, PWK_STATUS_OK}; }

static way way_to_none(uint32_t status) { return {PWK_NONE, PWK_NONE, status}; }

/* The nodes of a sequence. */
struct walk_tree {
    uint32_t sequence;
    uint32_t first;
    uint32_t count;
};

static uint32_t parent_of(constant spec_verify_arguments &a, walk_tree tree, uint32_t node) {
    return a.parents == nullptr ? node - 1 : a.parents[tree.first + node];
}

static uint32_t token_of(constant spec_verify_arguments &a, walk_tree tree, uint32_t node) {
    return a.tokens[tree.first + node];
}

static device const float *target_of(constant spec_verify_arguments &a, walk_tree tree,
                                     uint32_t node) {
    return a.target + (uint64_t(tree.first) + node) * a.p.target_row_stride;
}

static device const float *draft_of(constant spec_verify_arguments &a, walk_tree tree,
                                    uint32_t node) {
    return a.draft + (uint64_t(tree.first) + node) * a.p.draft_row_stride;
}

/* Whether something is wrong in any thread of the threadgroup. */
static bool is_any_wrong(Place place, bool wrong) {
    return least_in_block(place, &shared_of_walk(place).found, wrong ? 0 : PWK_NONE) == 0;
}

/* The best of the threadgroup, in every thread. */
static scored best_of_block(Place place, scored best) {
    threadgroup walk_shared &shared = shared_of_walk(place);
    best = best_of_lanes(best);
    if (place.lane == 0) {
        shared.best[place.simdgroup] = best;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const scored own = shared.best[place.lane % WALK_GROUPS];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return best_of_lanes(own);
}

/* The way to the best token, if there is one. */
static way way_to_best(Place place, scored best) {
    best = best_of_block(place, best);
    return best.token == PWK_NONE ? way_to_none(PWK_STATUS_MASKED) : way_to_token(best.token);
}

/* The token with the largest logit. */
static way most_likely(Place place, device const float *logits, uint32_t vocab) {
    scored best = {-PWK_INFINITY, PWK_NONE};
    bool wrong = false;
    for (uint32_t token = place.thread_index; token < vocab; token += WALK_THREADS) {
        const float x = logits[token];
        wrong = wrong || !(PWK_INFINITY > x);
        /* Tokens ascend: of equals the first stays. */
        const bool larger = x > best.score;
        best.token = larger ? token : best.token;
        best.score = larger ? x : best.score;
    }
    if (is_any_wrong(place, wrong)) {
        return way_to_none(PWK_STATUS_NOT_FINITE);
    }
    return way_to_best(place, best);
}

/* Nodes from one on that are a node's child with a token. */
struct is_child {
    constant spec_verify_arguments *a;
    walk_tree tree;
    uint32_t node;
    uint32_t token;

    bool operator()(uint32_t i) const {
        const uint32_t child = node + 1 + i;
        return parent_of(*a, tree, child) == node && token_of(*a, tree, child) == token;
    }
};

/* The way with one certain token at each node. */
static way certain(constant spec_verify_arguments &a, Place place, walk_tree tree,
                   uint32_t node) {
    way leads;
    if (a.p.mode == PWK_VERIFY_GREEDY) {
        leads = most_likely(place, target_of(a, tree, node), a.p.vocab);
    } else {
        const uint32_t token = a.sampled[tree.first + node];
        leads = token == PWK_NONE ? way_to_none(PWK_STATUS_MASKED) : way_to_token(token);
    }
    if (leads.token == PWK_NONE) {
        return leads;
    }
    const is_child drafted = {&a, tree, node, leads.token};
    threadgroup atomic_uint *found = &shared_of_walk(place).found;
    const uint32_t child = first_where(place, found, tree.count - node - 1, drafted);
    if (child != PWK_NONE) {
        leads = way_to_child(node + 1 + child);
    }
    return leads;
}

/* Weights as they are. */
struct plain_weights {
    device const float *from;

    float2 load(uint32_t token) const { return float2(from[token], 0.0f); }
    float use(uint32_t, float2 both) const { return both.x; }
};

/* What a refused certain token leaves, stored. */
struct weights_without {
    device const float *from;
    device float *weights;
    uint32_t refused;

    float2 load(uint32_t token) const { return float2(from[token], 0.0f); }
    float use(uint32_t token, float2 both) const {
        const float x = token == refused ? 0.0f : both.x;
        weights[token] = x;
        return x;
    }
};

/* What a refused token that was drawn from a draft leaves, stored. */
struct weights_beyond {
    device const float *from;
    device const float *draft;
    device float *weights;
    float mass;
    float draft_mass;

    float2 load(uint32_t token) const { return float2(from[token], draft[token]); }
    float use(uint32_t token, float2 both) const {
        const float x = pwk_max(both.x / mass - both.y / draft_mass, 0.0f);
        weights[token] = x;
        return x;
    }
};

/* The sum of work.use(token, work.load(token)) over the vocabulary, in the order of the
 * contract and the same in every thread; `wrong` tells whether one of them is below zero or
 * NaN. What a thread stores in `use` it loads no more, so loads go ahead of stores. */
template <class Work>
static float sum_of(Place place, uint32_t vocab, thread bool &wrong, Work work) {
    threadgroup walk_shared &shared = shared_of_walk(place);
    const uint32_t blocks = (vocab + BLOCK - 1) / BLOCK;
    const uint32_t team = place.thread_index / SUMS, member = place.thread_index % SUMS;
    bool own_wrong = false;
    for (uint32_t first = 0; first < blocks; first += TEAMS) {
        const uint32_t block = first + team, start = block * BLOCK;
        const uint32_t count = start < vocab ? vocab - start : 0;
        const uint32_t end = start + (count < BLOCK ? count : BLOCK);
        float sum = 0.0f;
        for (uint32_t at = start + member; at < end; at += SUMS * IN_FLIGHT) {
            float2 loaded[IN_FLIGHT];
            for (uint32_t i = 0; i < IN_FLIGHT; i++) {
                loaded[i] = work.load(at + i * SUMS < end ? at + i * SUMS : at);
            }
            for (uint32_t i = 0; i < IN_FLIGHT; i++) {
                if (at + i * SUMS < end) {
                    const float x = work.use(at + i * SUMS, loaded[i]);
                    own_wrong = own_wrong || !(x >= 0.0f);
                    sum = sum + x;
                }
            }
        }
        sum = folded(place, shared.sums, sum);
        if (member == 0 && block < blocks) {
            shared.blocks[block] = sum;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    wrong = is_any_wrong(place, own_wrong);
    float total = 0.0f;
    for (uint32_t block = 0; block < blocks; block++) {
        total = total + shared.blocks[block];
    }
    /* What was stored is read by other threads of the threadgroup. */
    threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
    return total;
}

/* The sum of a row of weights, and why it is no distribution. */
struct row_mass {
    float sum;
    uint32_t status;
};

static row_mass mass_of(Place place, device const float *weights, uint32_t vocab) {
    bool wrong;
    const plain_weights work = {weights};
    const float sum = sum_of(place, vocab, wrong, work);
    if (wrong || sum == PWK_INFINITY) {
        return {sum, PWK_STATUS_NOT_FINITE};
    }
    return {sum, sum > 0.0f ? PWK_STATUS_OK : PWK_STATUS_MASKED};
}

/* A token in proportion to its weight. */
static way draw(Place place, device const float *weights, uint32_t vocab, noise_source source) {
    const uint32_t lane = place.thread_index % 16;
    scored best = {-PWK_INFINITY, PWK_NONE};
    for (uint32_t unit = place.thread_index / 16 * 64; unit < vocab; unit += WALK_THREADS * 4) {
        float x[4];
        bool some = false;
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t token = unit + i * 16 + lane;
            x[i] = token < vocab ? weights[token] : 0.0f;
            some = some || x[i] > 0.0f;
        }
        if (!some) {
            continue;
        }
        const pwk_words words = noise_words(source, unit, lane);
        for (uint32_t i = 0; i < 4; i++) {
            if (x[i] > 0.0f) {
                const float score = pwk_log(x[i]) + gumbel(noise_uniform(words.word[i]));
                const scored own = {score, unit + i * 16 + lane};
                best = better(best, own);
            }
        }
    }
    return way_to_best(place, best);
}

/* What a walk by rejection sampling goes by at a node. */
struct walk_node {
    uint32_t node;
    device const float *from; /* weights */
    float mass;               /* their sum */
    float draft_mass;         /* 0: not known yet */
};

/* What a refused child leaves, in `weights`: their sum. */
static float leave(constant spec_verify_arguments &a, Place place, walk_tree tree, walk_node at,
                   uint32_t child, device float *weights) {
    bool wrong;
    if (a.draft == nullptr) {
        const weights_without work = {at.from, weights, token_of(a, tree, child)};
        return sum_of(place, a.p.vocab, wrong, work);
    }
    const weights_beyond work = {at.from, draft_of(a, tree, at.node), weights, at.mass,
                                 at.draft_mass};
    return sum_of(place, a.p.vocab, wrong, work);
}

/* The way by rejection sampling, from a node at a depth. */
static way rejection(constant spec_verify_arguments &a, Place place, walk_tree tree,
                     uint32_t node, uint32_t depth, device float *weights) {
    const pwk_verify_request request = a.requests[tree.sequence];
    noise_source noise = {request.seed, request.position + depth + 1, request.fork,
                          PWK_NOISE_ACCEPT};
    const row_mass target = mass_of(place, target_of(a, tree, node), a.p.vocab);
    if (target.status != PWK_STATUS_OK) {
        return way_to_none(target.status);
    }
    walk_node at = {node, target_of(a, tree, node), target.sum, 0.0f};
    for (uint32_t child = node + 1; child < tree.count; child++) {
        if (parent_of(a, tree, child) != node) {
            continue;
        }
        const uint32_t token = token_of(a, tree, child);
        float drafted = 1.0f;
        if (a.draft != nullptr) {
            if (at.draft_mass == 0.0f) {
                const row_mass draft = mass_of(place, draft_of(a, tree, node), a.p.vocab);
                if (draft.status != PWK_STATUS_OK) {
                    return way_to_none(draft.status);
                }
                at.draft_mass = draft.sum;
            }
            drafted = draft_of(a, tree, node)[token] / at.draft_mass;
        }
        if (noise_uniform(noise_word(noise, token)) * drafted < at.from[token] / at.mass) {
            return way_to_child(child);
        }
        /* Every thread has read its weight of the token before one of them overwrites it. */
        threadgroup_barrier(mem_flags::mem_device);
        at.mass = leave(a, place, tree, at, child, weights);
        if (!(at.mass > 0.0f)) {
            at.from = target_of(a, tree, node);
            break;
        }
        at.from = weights;
    }
    noise.purpose = PWK_NOISE_RESIDUAL;
    return draw(place, at.from, a.p.vocab, noise);
}

/* Walks down a tree, and writes its path and what comes after. */
static void walk(constant spec_verify_arguments &a, Place place, walk_tree tree,
                 device float *weights) {
    threadgroup walk_shared &shared = shared_of_walk(place);
    uint32_t node = 0, depth = 0;
    way leads;
    for (;;) {
        if (place.thread_index == 0) {
            shared.path[depth] = node;
        }
        leads = a.p.mode == PWK_VERIFY_REJECTION
                    ? rejection(a, place, tree, node, depth, weights)
                    : certain(a, place, tree, node);
        if (leads.child == PWK_NONE) {
            break;
        }
        node = leads.child;
        depth++;
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (place.thread_index <= depth) {
        a.path[tree.first + place.thread_index] = tree.first + shared.path[place.thread_index];
    }
    if (place.thread_index == 0) {
        a.accepted[tree.sequence] = depth + 1;
        a.next[tree.sequence] = leads.token;
        a.status[tree.sequence] = leads.status;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

static void walk_body(constant spec_verify_arguments &a, Place place) {
    const uint32_t sequences =
        live(a.launch, place, VERIFY_SEQUENCES, a.sequences, a.p.sequences_max);
    device float *weights = reinterpret_cast<device float *>(a.launch.workspace) +
                            uint64_t(place.group.x) * a.p.vocab;
    for (uint32_t sequence = place.group.x; sequence < sequences;
         sequence += place.group_count.x) {
        const uint32_t first = a.node_start[sequence];
        const walk_tree tree = {sequence, first, a.node_start[sequence + 1] - first};
        walk(a, place, tree, weights);
    }
}

/* ---- moves ---- */

/* Nodes of a path that are not where they belong; how many. */
static uint32_t count_moves(constant spec_verify_arguments &a, uint32_t sequence) {
    const uint32_t first = a.node_start[sequence], len = a.accepted[sequence];
    uint32_t count = 0;
    for (uint32_t j = 0; j < len; j++) {
        count += a.path[first + j] != first + j ? 1 : 0;
    }
    return count;
}

/* Writes their entries from one on. */
static void put_moves(constant spec_verify_arguments &a, uint32_t sequence, uint64_t start) {
    const uint32_t first = a.node_start[sequence], len = a.accepted[sequence];
    device uint32_t *entry = a.entries + start * ENTRY_WORDS;
    for (uint32_t j = 0; j < len; j++) {
        const uint64_t to = first + j, from = a.path[first + j];
        if (from == to) {
            continue;
        }
        entry[0] = a.places[from * 2];
        entry[1] = a.places[from * 2 + 1];
        entry[2] = a.places[to * 2];
        entry[3] = a.places[to * 2 + 1];
        entry[4] = 1;
        entry += ENTRY_WORDS;
    }
}

/* How many moves threads before this one have, and all together; by the whole threadgroup. */
static uint32_t moves_before(Place place, uint32_t own, thread uint32_t &all) {
    threadgroup uint32_t *sums = reinterpret_cast<threadgroup uint32_t *>(SHARED());
    uint32_t sum = own;
    for (ushort lanes = 1; lanes < LANES; lanes *= 2) {
        const uint32_t before = simd_shuffle_up(sum, lanes);
        sum += place.lane >= lanes ? before : 0;
    }
    if (place.lane == LANES - 1) {
        sums[place.simdgroup] = sum;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    uint32_t before = sum - own;
    all = 0;
    for (uint32_t i = 0; i < MOVE_THREADS / LANES; i++) {
        before += i < place.simdgroup ? sums[i] : 0;
        all += sums[i];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return before;
}

static void move_body(constant spec_verify_arguments &a, Place place) {
    const uint32_t sequences =
        live_in_block(a.launch, place, VERIFY_SEQUENCES, a.sequences, a.p.sequences_max);
    if (is_refused_in_block(a.launch, place)) {
        return;
    }
    uint32_t moved = 0;
    for (uint32_t first = 0; first < sequences; first += MOVE_THREADS) {
        const uint32_t sequence = first + place.thread_index;
        const bool some = sequence < sequences;
        const uint32_t own = some ? count_moves(a, sequence) : 0;
        uint32_t all;
        const uint64_t start = moved + moves_before(place, own, all);
        if (some) {
            put_moves(a, sequence, start);
        }
        moved += all;
    }
    if (place.thread_index == 0) {
        a.count[0] = moved;
    }
}

ENTRY(pw_spec_verify, WALK_THREADS, spec_verify_arguments, walk_body)
ENTRY(pw_spec_verify_move, MOVE_THREADS, spec_verify_arguments, move_body)
