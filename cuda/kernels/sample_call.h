/* A call of `sample` as its launches share it: the argument, the workspace, how a row is asked
 * for, and logits as its filters see them. */
#ifndef PAGEWISE_SAMPLE_CALL_H
#define PAGEWISE_SAMPLE_CALL_H

#include "checks.h"
#include "masks.h"
#include "vocabulary.h"

struct sample_arguments {
    pwk_sample p;
    const float *logits;
    const float *raw_logits;
    const pwk_sample_row *settings;
    const uint32_t *masks;
    const uint32_t *row_masks;
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
constexpr uint32_t SAMPLE_ROW_MASKS = 4;
constexpr uint32_t SAMPLE_ROWS = 13;

constexpr float MASS_ONE = 536870912.0f; /* of the most likely token */
constexpr float MASS_LEAST = -21.0f;     /* below this z a mass is 0 */
constexpr uint32_t MASS_BINS = 512;      /* the largest z first */
constexpr float MASS_FINENESS = 24.0f;   /* bins for each unit of z */
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
    float floor; /* the score of a kept token: no lower one is drawn */
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
    uint32_t whole; /* a bit for each group that has no token of -infinity */
};

static_assert(sizeof(block_tally) == 36, "lowering gives it so much");

/* A row's part of the workspace. */
struct row_desk {
    row_state *state;
    unsigned long long *bins; /* [MASS_BINS] */
    block_tally *blocks;
    float *groups;
    float *raw_groups;
    uint8_t *leaders; /* in each group, the first token with its largest logit */
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
    desk.leaders = reinterpret_cast<uint8_t *>(desk.raw_groups + groups_of(a.p));
    return desk;
}

/* ---- the logits of a row ---- */

/* As its masks leave them. */
struct logits_row {
    const float *logits;
    allowed_tokens allowed;

    __device__ float at(uint32_t token) const {
        const uint32_t bit = allowed.word(token / 32) >> (token % 32) & 1u;
        return bit != 0 ? logits[token] : -PWK_INFINITY;
    }
};

static __device__ logits_row own_row(const sample_arguments &a, uint64_t row) {
    const float *logits = a.logits + row * a.p.row_stride;
    if (a.row_masks == nullptr) {
        return {logits, {nullptr, nullptr}};
    }
    const mask_slab slab = {a.masks, a.p.masks, a.p.mask_words};
    return {logits, slab.both(a.row_masks[2 * row], a.row_masks[2 * row + 1])};
}

/* What its raw log-probabilities are of, where that comes apart: no mask hides it. */
static __device__ logits_row raw_row(const sample_arguments &a, uint64_t row) {
    return {a.raw_logits + row * a.p.raw_row_stride, {nullptr, nullptr}};
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

static __device__ noise_source source_of(const pwk_sample_row &asked) {
    return {asked.seed, asked.position, asked.fork, PWK_NOISE_SAMPLE};
}

/* ---- passes over a row ---- */

/* The next group of a mask, which loses it; PWK_NONE of none. */
static __device__ uint32_t next_group(uint32_t &left) {
    const uint32_t group = left == 0 ? PWK_NONE : uint32_t(__ffs(int(left))) - 1;
    left &= left - 1;
    return group;
}

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

static __device__ tempered tempered_of(const row_state &state) {
    return {state.own.most, state.factor};
}

/* Whether a row's filters keep a token with that logit. */
static __device__ bool is_kept(const row_state &state, float x, uint32_t token) {
    const bool head = x > state.cut_logit || (x == state.cut_logit && token <= state.cut_token);
    return head && tempered_of(state).of(x) >= state.least_z;
}

#endif /* PAGEWISE_SAMPLE_CALL_H */
