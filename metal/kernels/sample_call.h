/* A call of `sample` as its launches share it: the argument, the workspace, how a row is asked
 * for, and logits as its filters see them. */
#ifndef PAGEWISE_METAL_SAMPLE_CALL_H
#define PAGEWISE_METAL_SAMPLE_CALL_H

#include "checks.h"
#include "masks.h"
#include "vocabulary.h"

struct sample_arguments {
    pwk_sample p;
    device const float *logits;
    device const float *raw_logits;
    device const pwk_sample_row *settings;
    device const uint32_t *masks;
    device const uint32_t *row_masks;
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
constant constexpr uint32_t SAMPLE_ROW_MASKS = 4;
constant constexpr uint32_t SAMPLE_ROWS = 13;

constant constexpr float MASS_ONE = 536870912.0f; /* of the most likely token */
constant constexpr float MASS_LEAST = -21.0f;     /* below this z a mass is 0 */
constant constexpr uint32_t MASS_BINS = 512;      /* the largest z first */
constant constexpr float MASS_FINENESS = 24.0f;   /* bins for each unit of z */

/* ---- the workspace ---- */

/* What a row is drawn by: written by cut. */
struct row_state {
    exponentials own;
    exponentials raw;
    float factor;
    float cut_logit;    /* tokens above are kept, */
    uint32_t cut_token; /* and of its equals those up to this one */
    float least_z;      /* of what min-p keeps */
    float floor_score;  /* of a kept token: no lower one is drawn */
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
    device row_state *state;
    device atomic_uint *bins; /* [MASS_BINS] of two words */
    device block_tally *blocks;
    device float *groups;
    device float *raw_groups;
    device uchar *leaders; /* in each group, the first token with its largest logit */
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
    desk.leaders = reinterpret_cast<device uchar *>(desk.raw_groups + groups_of(a.p));
    return desk;
}

/* Structs come from device memory and go there member by member: a copy of a whole one between
 * address spaces is not for every compiler. */

static exponentials load_exponentials(device const exponentials *from) {
    return {from->most, from->sum};
}

static void store_exponentials(device exponentials *to, exponentials all) {
    to->most = all.most;
    to->sum = all.sum;
}

static row_state load_state(device const row_state *from) {
    row_state state = {};
    state.own = load_exponentials(&from->own);
    state.raw = load_exponentials(&from->raw);
    state.factor = from->factor;
    state.cut_logit = from->cut_logit;
    state.cut_token = from->cut_token;
    state.least_z = from->least_z;
    state.floor_score = from->floor_score;
    state.status = from->status;
    return state;
}

static void store_state(device row_state *to, thread const row_state &state) {
    store_exponentials(&to->own, state.own);
    store_exponentials(&to->raw, state.raw);
    to->factor = state.factor;
    to->cut_logit = state.cut_logit;
    to->cut_token = state.cut_token;
    to->least_z = state.least_z;
    to->floor_score = state.floor_score;
    to->status = state.status;
}

/* ---- the logits of a row ---- */

/* As its masks leave them. */
struct logits_row {
    device const float *logits;
    allowed_tokens allowed;
};

static float logit_at(logits_row row, uint32_t token) {
    const uint32_t bit = allowed_word(row.allowed, token / 32) >> (token % 32) & 1u;
    return bit != 0 ? row.logits[token] : -PWK_INFINITY;
}

static logits_row own_row(constant sample_arguments &a, uint64_t row) {
    device const float *logits = a.logits + row * a.p.row_stride;
    if (a.row_masks == nullptr) {
        return {logits, {nullptr, nullptr}};
    }
    const mask_slab slab = {a.masks, a.p.masks, a.p.mask_words};
    return {logits, both_masks(slab, a.row_masks[2 * row], a.row_masks[2 * row + 1])};
}

/* What its raw log-probabilities are of, where that comes apart: no mask hides it. */
static logits_row raw_row(constant sample_arguments &a, uint64_t row) {
    return {a.raw_logits + row * a.p.raw_row_stride, {nullptr, nullptr}};
}

/* ---- how a row is asked for ---- */

static pwk_sample_row load_asked(device const pwk_sample_row *from) {
    pwk_sample_row asked;
    asked.seed = from->seed;
    asked.position = from->position;
    asked.fork = from->fork;
    asked.temperature = from->temperature;
    asked.top_k = from->top_k;
    asked.top_p = from->top_p;
    asked.min_p = from->min_p;
    return asked;
}

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

/* ---- passes over a row ---- */

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

static tempered tempered_of(thread const row_state &state) {
    return {state.own.most, state.factor};
}

/* Whether a row's filters keep a token with that logit. */
static bool is_kept(thread const row_state &state, float x, uint32_t token) {
    const bool head = x > state.cut_logit || (x == state.cut_logit && token <= state.cut_token);
    return head && z_of(tempered_of(state), x) >= state.least_z;
}

#endif /* PAGEWISE_METAL_SAMPLE_CALL_H */
