/* spec_verify: how far down its drafts the target follows each sequence, with the CPU's bits.
 *
 * Launches: 1. one block goes over the step's buffers, a warp for each sequence. 2. A block of
 * 512 threads for each sequence walks down its tree: it reads the rows of the nodes that it
 * comes to and no others. Sums are made by teams of 64 threads, a block of 4096 weights each.
 * 3. With places, one block lists what kv_copy has to move, sequences ascending.
 * Memory: 18 KiB shared; with REJECTION a row of weights for each block as workspace.
 * Not measured yet.
 */
#include "checks.h"
#include "vocabulary.h"

struct spec_verify_arguments {
    pwk_spec_verify p;
    const uint32_t *node_start;
    const uint32_t *tokens;
    const uint32_t *parents;
    const float *target;
    const float *draft;
    const uint32_t *sampled;
    const pwk_verify_request *requests;
    const uint32_t *places;
    const uint32_t *sequences;
    uint32_t *path;
    uint32_t *accepted;
    uint32_t *next;
    uint32_t *status;
    uint32_t *entries;
    uint32_t *count;
    pwk_launch launch;
};

/* Places among the buffers. */
constexpr uint32_t VERIFY_NODE_START = 0;
constexpr uint32_t VERIFY_TOKENS_FIELD = 1;
constexpr uint32_t VERIFY_PARENTS = 2;
constexpr uint32_t VERIFY_SAMPLED = 5;
constexpr uint32_t VERIFY_REQUESTS = 6;
constexpr uint32_t VERIFY_SEQUENCES = 8;

constexpr uint32_t POSITION_MAX = 0x7fffffffu; /* of a request */
constexpr uint32_t WALK_THREADS = 512;
constexpr uint32_t TEAMS = WALK_THREADS / SUMS; /* blocks of weights that are summed at once */
constexpr uint32_t BLOCKS_MAX = 4096;           /* of the largest vocabulary */
constexpr uint32_t IN_FLIGHT = 16; /* weights that a thread reads before it uses the first */
constexpr uint32_t MOVE_THREADS = 256;

/* ---- 1: checks ---- */

/* The first fault of a sequence's node: its buffer, and what is allowed there. */
struct node_fault {
    uint32_t field; /* PWK_NONE: none */
    int64_t most;
    uint32_t got;
};

/* Of its token and its parent. A root has neither. */
static __device__ node_fault fault_of_node(const spec_verify_arguments &a, uint32_t first,
                                           uint32_t node) {
    const uint32_t at = first + node;
    if (node > 0 && a.tokens[at] >= a.p.vocab) {
        return {VERIFY_TOKENS_FIELD, int64_t(a.p.vocab) - 1, a.tokens[at]};
    }
    if (node > 0 && a.parents != nullptr && a.parents[at] >= node) {
        return {VERIFY_PARENTS, int64_t(node) - 1, a.parents[at]};
    }
    return {PWK_NONE, 0, 0};
}

static __device__ bool is_sampled_wrong(const spec_verify_arguments &a, uint32_t at) {
    return a.sampled != nullptr && a.sampled[at] >= a.p.vocab && a.sampled[at] != PWK_NONE;
}

/* Tells the first thing that is wrong with a sequence, by one thread. */
static __device__ void refuse_sequence(const spec_verify_arguments &a, uint32_t sequence) {
    const uint32_t first = a.node_start[sequence], end = a.node_start[sequence + 1];
    for (uint32_t at = first; at < end; at++) {
        const node_fault fault = fault_of_node(a, first, at - first);
        if (fault.field != PWK_NONE) {
            refuse_element(a.launch, fault.field, at, 0, fault.most, fault.got);
            return;
        }
    }
    for (uint32_t at = first; at < end; at++) {
        if (is_sampled_wrong(a, at)) {
            refuse_element(a.launch, VERIFY_SAMPLED, at, 0, int64_t(a.p.vocab) - 1,
                           a.sampled[at]);
            return;
        }
    }
}

/* The starts of sequences: from 0 by 1 to 64. */
static __device__ bool are_starts_fine(const spec_verify_arguments &a, uint32_t *found,
                                       uint32_t sequences) {
    const uint32_t *starts = a.node_start;
    const auto most = [&](uint32_t before) {
        const uint32_t reach = before + PWK_TREE_NODES_MAX;
        return reach < a.p.nodes_max ? reach : a.p.nodes_max;
    };
    const uint32_t at = first_where(found, sequences + 1, [&](uint32_t i) {
        return i == 0 ? starts[0] != 0
                      : starts[i] <= starts[i - 1] || starts[i] > most(starts[i - 1]);
    });
    if (at == PWK_NONE) {
        return true;
    }
    const int64_t least = at == 0 ? 0 : int64_t(starts[at - 1]) + 1;
    refuse_element(a.launch, VERIFY_NODE_START, at, least, at == 0 ? 0 : most(starts[at - 1]),
                   starts[at]);
    return false;
}

static __device__ void check_body(const spec_verify_arguments &a) {
    uint32_t *found = reinterpret_cast<uint32_t *>(SHARED());
    const uint32_t sequences =
        live_in_block(a.launch, VERIFY_SEQUENCES, a.sequences, a.p.sequences_max);
    if (is_refused_in_block(a.launch) || !are_starts_fine(a, found, sequences)) {
        return;
    }
    uint32_t wrong = PWK_NONE;
    for (uint32_t sequence = threadIdx.x / 32; sequence < sequences && wrong == PWK_NONE;
         sequence += blockDim.x / 32) {
        const uint32_t first = a.node_start[sequence], end = a.node_start[sequence + 1];
        for (uint32_t at = first + threadIdx.x % 32; at < end; at += 32) {
            const bool fine = fault_of_node(a, first, at - first).field == PWK_NONE &&
                              !is_sampled_wrong(a, at);
            wrong = fine ? wrong : sequence;
        }
    }
    wrong = least_in_block(found, wrong);
    if (wrong != PWK_NONE) {
        if (threadIdx.x == 0) {
            refuse_sequence(a, wrong);
        }
        return;
    }
    if (a.requests == nullptr) {
        return;
    }
    const uint32_t at = first_where(
        found, sequences, [&](uint32_t i) { return a.requests[i].position > POSITION_MAX; });
    if (at != PWK_NONE) {
        refuse_element(a.launch, VERIFY_REQUESTS, at, 0, POSITION_MAX, a.requests[at].position);
    }
}

/* ---- 2: walks ---- */

struct walk_shared {
    float sums[WALK_THREADS];
    float blocks[BLOCKS_MAX];
    scored best[WALK_THREADS / 32];
    uint32_t path[PWK_TREE_NODES_MAX];
    uint32_t found;
    uint32_t wrong;
};

static_assert(sizeof(walk_shared) == 18 * 1024 + 128 + 256 + 8, "lowering gives it so much");

static __device__ walk_shared &shared_of_walk() {
    return *reinterpret_cast<walk_shared *>(SHARED());
}

/* Where a node leads: to a child; or to a token, which PWK_NONE is with a status. */
struct way {
    uint32_t child; /* PWK_NONE: none */
    uint32_t token;
    uint32_t status;
};

static __device__ way way_to_child(uint32_t child) { return {child, PWK_NONE, PWK_STATUS_OK}; }

static __device__ way way_to_token(uint32_t token) { return {PWK_NONE, token, PWK_STATUS_OK}; }

static __device__ way way_to_none(uint32_t status) { return {PWK_NONE, PWK_NONE, status}; }

/* The nodes of a sequence. */
struct walk_tree {
    const spec_verify_arguments &a;
    uint32_t sequence;
    uint32_t first;
    uint32_t count;

    __device__ uint32_t parent(uint32_t node) const {
        return a.parents == nullptr ? node - 1 : a.parents[first + node];
    }
    __device__ uint32_t token(uint32_t node) const { return a.tokens[first + node]; }
    __device__ const float *target(uint32_t node) const {
        return a.target + (uint64_t(first) + node) * a.p.target_row_stride;
    }
    __device__ const float *draft(uint32_t node) const {
        return a.draft + (uint64_t(first) + node) * a.p.draft_row_stride;
    }
};

/* Whether something is wrong in any thread of the block. */
static __device__ bool is_any_wrong(bool wrong) {
    walk_shared &shared = shared_of_walk();
    __syncthreads();
    if (threadIdx.x == 0) {
        shared.wrong = 0;
    }
    __syncthreads();
    if (wrong) {
        atomicOr(&shared.wrong, 1u);
    }
    __syncthreads();
    return shared.wrong != 0;
}

/* The best of the block, in every thread. */
static __device__ scored best_of_block(scored best) {
    walk_shared &shared = shared_of_walk();
    best = best_of_warp(best);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        shared.best[threadIdx.x / 32] = best;
    }
    __syncthreads();
    return best_of_warp(shared.best[threadIdx.x % (WALK_THREADS / 32)]);
}

/* The token with the largest logit. */
static __device__ way most_likely(const float *logits, uint32_t vocab) {
    scored best = {-PWK_INFINITY, PWK_NONE};
    bool wrong = false;
#pragma unroll 16
    for (uint32_t token = threadIdx.x; token < vocab; token += WALK_THREADS) {
        const float x = logits[token];
        wrong |= !(PWK_INFINITY > x);
        // Tokens ascend: of equals the first stays.
        best = x > best.score ? scored{x, token} : best;
    }
    if (is_any_wrong(wrong)) {
        return way_to_none(PWK_STATUS_NOT_FINITE);
    }
    best = best_of_block(best);
    return best.token == PWK_NONE ? way_to_none(PWK_STATUS_MASKED) : way_to_token(best.token);
}

/* The way with one certain token at each node. */
static __device__ way certain(const walk_tree &tree, uint32_t node) {
    const spec_verify_arguments &a = tree.a;
    way leads;
    if (a.p.mode == PWK_VERIFY_GREEDY) {
        leads = most_likely(tree.target(node), a.p.vocab);
    } else {
        const uint32_t token = a.sampled[tree.first + node];
        leads = token == PWK_NONE ? way_to_none(PWK_STATUS_MASKED) : way_to_token(token);
    }
    if (leads.token == PWK_NONE) {
        return leads;
    }
    const uint32_t after = node + 1;
    const uint32_t child = first_where(&shared_of_walk().found, tree.count - after,
                                       [&](uint32_t i) {
                                           return tree.parent(after + i) == node &&
                                                  tree.token(after + i) == leads.token;
                                       });
    return child == PWK_NONE ? leads : way_to_child(after + child);
}

/* The sum of use(token, load(token)) over the vocabulary, in the order of the contract and the
 * same in every thread; `wrong` tells whether one of them is below zero or NaN. What a thread
 * stores in `use` it loads no more, so loads go ahead of stores. */
template <class Load, class Use>
static __device__ float sum_of(uint32_t vocab, bool &wrong, Load load, Use use) {
    walk_shared &shared = shared_of_walk();
    const uint32_t blocks = (vocab + BLOCK - 1) / BLOCK;
    const uint32_t team = threadIdx.x / SUMS, member = threadIdx.x % SUMS;
    bool own_wrong = false;
    for (uint32_t first = 0; first < blocks; first += TEAMS) {
        const uint32_t block = first + team, start = block * BLOCK;
        const uint32_t count = start < vocab ? vocab - start : 0;
        const uint32_t end = start + (count < BLOCK ? count : BLOCK);
        float sum = 0.0f;
        for (uint32_t at = start + member; at < end; at += SUMS * IN_FLIGHT) {
            decltype(load(at)) loaded[IN_FLIGHT];
#pragma unroll
            for (uint32_t i = 0; i < IN_FLIGHT; i++) {
                loaded[i] = load(at + i * SUMS < end ? at + i * SUMS : at);
            }
#pragma unroll
            for (uint32_t i = 0; i < IN_FLIGHT; i++) {
                if (at + i * SUMS < end) {
                    const float x = use(at + i * SUMS, loaded[i]);
                    own_wrong |= !(x >= 0.0f);
                    sum = sum + x;
                }
            }
        }
        sum = folded(shared.sums, sum);
        if (member == 0 && block < blocks) {
            shared.blocks[block] = sum;
        }
        __syncthreads();
    }
    wrong = is_any_wrong(own_wrong);
    float total = 0.0f;
    for (uint32_t block = 0; block < blocks; block++) {
        total = total + shared.blocks[block];
    }
    __syncthreads();
    return total;
}

/* The sum of a row of weights, and why it is no distribution. */
struct row_mass {
    float sum;
    uint32_t status;
};

static __device__ row_mass mass_of(const float *weights, uint32_t vocab) {
    bool wrong;
    const float sum = sum_of(
        vocab, wrong, [&](uint32_t token) { return weights[token]; },
        [](uint32_t, float x) { return x; });
    if (wrong || sum == PWK_INFINITY) {
        return {sum, PWK_STATUS_NOT_FINITE};
    }
    return {sum, sum > 0.0f ? PWK_STATUS_OK : PWK_STATUS_MASKED};
}

/* A token in proportion to its weight. */
static __device__ way draw(const float *weights, uint32_t vocab, const noise_source &source) {
    const uint32_t lane = threadIdx.x % 16;
    scored best = {-PWK_INFINITY, PWK_NONE};
    for (uint32_t unit = threadIdx.x / 16 * 64; unit < vocab; unit += WALK_THREADS * 4) {
        float x[4];
        bool some = false;
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t token = unit + i * 16 + lane;
            x[i] = token < vocab ? weights[token] : 0.0f;
            some |= x[i] > 0.0f;
        }
        if (!some) {
            continue;
        }
        const pwk_words words = noise_words(source, unit, lane);
#pragma unroll
        for (uint32_t i = 0; i < 4; i++) {
            if (x[i] > 0.0f) {
                const float score = pwk_log(x[i]) + gumbel(noise_uniform(words.word[i]));
                best = better(best, {score, unit + i * 16 + lane});
            }
        }
    }
    best = best_of_block(best);
    return best.token == PWK_NONE ? way_to_none(PWK_STATUS_MASKED) : way_to_token(best.token);
}

/* What a refused child leaves, in `weights`: their sum. */
static __device__ float leave(const walk_tree &tree, uint32_t node, uint32_t child,
                              const float *from, float mass, float draft_mass,
                              float *weights) {
    const uint32_t vocab = tree.a.p.vocab;
    bool wrong;
    if (tree.a.draft == nullptr) {
        const uint32_t refused = tree.token(child);
        return sum_of(
            vocab, wrong, [&](uint32_t token) { return from[token]; },
            [&](uint32_t token, float x) {
                x = token == refused ? 0.0f : x;
                weights[token] = x;
                return x;
            });
    }
    const float *draft = tree.draft(node);
    return sum_of(
        vocab, wrong,
        [&](uint32_t token) { return make_float2(from[token], draft[token]); },
        [&](uint32_t token, float2 both) {
            const float x = pwk_max(both.x / mass - both.y / draft_mass, 0.0f);
            weights[token] = x;
            return x;
        });
}

/* The way by rejection sampling, from a node at a depth. */
static __device__ way rejection(const walk_tree &tree, uint32_t node, uint32_t depth,
                                float *weights) {
    const spec_verify_arguments &a = tree.a;
    const pwk_verify_request request = a.requests[tree.sequence];
    const noise_source accept = {request.seed, request.position + depth + 1, request.fork,
                                 PWK_NOISE_ACCEPT};
    const noise_source residual = {request.seed, request.position + depth + 1, request.fork,
                                   PWK_NOISE_RESIDUAL};
    const row_mass target = mass_of(tree.target(node), a.p.vocab);
    if (target.status != PWK_STATUS_OK) {
        return way_to_none(target.status);
    }
    const float *from = tree.target(node);
    float mass = target.sum, draft_mass = 0.0f;
    for (uint32_t child = node + 1; child < tree.count; child++) {
        if (tree.parent(child) != node) {
            continue;
        }
        const uint32_t token = tree.token(child);
        float drafted = 1.0f;
        if (a.draft != nullptr) {
            if (draft_mass == 0.0f) {
                const row_mass draft = mass_of(tree.draft(node), a.p.vocab);
                if (draft.status != PWK_STATUS_OK) {
                    return way_to_none(draft.status);
                }
                draft_mass = draft.sum;
            }
            drafted = tree.draft(node)[token] / draft_mass;
        }
        if (noise_uniform(noise_word(accept, token)) * drafted < from[token] / mass) {
            return way_to_child(child);
        }
        // What the others have just read may be what is written now.
        __syncthreads();
        mass = leave(tree, node, child, from, mass, draft_mass, weights);
        from = mass > 0.0f ? weights : tree.target(node);
        if (!(mass > 0.0f)) {
            break;
        }
    }
    return draw(from, a.p.vocab, residual);
}

/* Walks down a tree, and writes its path and what comes after. */
static __device__ void walk(const walk_tree &tree, float *weights) {
    walk_shared &shared = shared_of_walk();
    const spec_verify_arguments &a = tree.a;
    uint32_t node = 0, depth = 0;
    way leads;
    for (;;) {
        if (threadIdx.x == 0) {
            shared.path[depth] = node;
        }
        leads = a.p.mode == PWK_VERIFY_REJECTION ? rejection(tree, node, depth, weights)
                                                 : certain(tree, node);
        if (leads.child == PWK_NONE) {
            break;
        }
        node = leads.child;
        depth++;
        __syncthreads();
    }
    __syncthreads();
    if (threadIdx.x <= depth) {
        a.path[tree.first + threadIdx.x] = tree.first + shared.path[threadIdx.x];
    }
    if (threadIdx.x == 0) {
        a.accepted[tree.sequence] = depth + 1;
        a.next[tree.sequence] = leads.token;
        a.status[tree.sequence] = leads.status;
    }
    __syncthreads();
}

static __device__ void walk_body(const spec_verify_arguments &a) {
    const uint32_t sequences = live(a.launch, VERIFY_SEQUENCES, a.sequences, a.p.sequences_max);
    float *weights = reinterpret_cast<float *>(a.launch.workspace) +
                     uint64_t(blockIdx.x) * a.p.vocab;
    for (uint32_t sequence = blockIdx.x; sequence < sequences; sequence += gridDim.x) {
        const uint32_t first = a.node_start[sequence];
        walk({a, sequence, first, a.node_start[sequence + 1] - first}, weights);
    }
}

/* ---- 3: moves ---- */

/* Calls `act(place, node)` for the nodes of a path that are not where they belong; how many. */
template <class Act>
static __device__ uint32_t each_move(const spec_verify_arguments &a, uint32_t sequence,
                                     Act act) {
    const uint32_t first = a.node_start[sequence], len = a.accepted[sequence];
    uint32_t count = 0;
    for (uint32_t j = 0; j < len; j++) {
        const uint32_t node = a.path[first + j];
        if (node != first + j) {
            act(count, first + j, node);
            count++;
        }
    }
    return count;
}

/* How many moves threads before this one have, and all together; by the whole block. */
static __device__ uint32_t moves_before(uint32_t own, uint32_t &all) {
    uint32_t *warps = reinterpret_cast<uint32_t *>(SHARED());
    const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t sum = own;
    for (uint32_t step = 1; step < 32; step *= 2) {
        const uint32_t before = __shfl_up_sync(EVERY_LANE, sum, step);
        sum += lane >= step ? before : 0;
    }
    if (lane == 31) {
        warps[warp] = sum;
    }
    __syncthreads();
    uint32_t before = sum - own;
    all = 0;
    for (uint32_t i = 0; i < MOVE_THREADS / 32; i++) {
        before += i < warp ? warps[i] : 0;
        all += warps[i];
    }
    __syncthreads();
    return before;
}

static __device__ void move_body(const spec_verify_arguments &a) {
    const uint32_t sequences =
        live_in_block(a.launch, VERIFY_SEQUENCES, a.sequences, a.p.sequences_max);
    if (is_refused_in_block(a.launch)) {
        return;
    }
    uint32_t moved = 0;
    for (uint32_t first = 0; first < sequences; first += MOVE_THREADS) {
        const uint32_t sequence = first + threadIdx.x;
        const bool some = sequence < sequences;
        const uint32_t own =
            some ? each_move(a, sequence, [](uint32_t, uint32_t, uint32_t) {}) : 0;
        uint32_t all;
        const uint64_t start = moved + moves_before(own, all);
        if (some) {
            each_move(a, sequence, [&](uint32_t number, uint32_t to, uint32_t from) {
                uint32_t *entry = a.entries + (start + number) * 5;
                entry[0] = a.places[from * uint64_t(2)];
                entry[1] = a.places[from * uint64_t(2) + 1];
                entry[2] = a.places[to * uint64_t(2)];
                entry[3] = a.places[to * uint64_t(2) + 1];
                entry[4] = 1;
            });
        }
        moved += all;
    }
    if (threadIdx.x == 0) {
        a.count[0] = moved;
    }
}

ENTRY(pw_spec_verify_check, 256, 1, spec_verify_arguments, check_body)
ENTRY(pw_spec_verify, WALK_THREADS, 1, spec_verify_arguments, walk_body)
ENTRY(pw_spec_verify_move, MOVE_THREADS, 1, spec_verify_arguments, move_body)
