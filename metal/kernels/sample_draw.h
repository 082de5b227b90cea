/* The last passes of `sample`: scores, sums and bits of the tokens kept, and a row's answer. */
#ifndef PAGEWISE_METAL_SAMPLE_DRAW_H
#define PAGEWISE_METAL_SAMPLE_DRAW_H

#include "sample_call.h"

constant constexpr uint32_t FINISHERS = 128;

/* What a block of a row is drawn by. */
struct draw_block {
    row_state state;
    pwk_sample_row asked;
    logits_row row;
    uint32_t first; /* token */
    uint32_t end;
    device const float *groups;
    device uint32_t *kept; /* words of the row, or null */
    uint32_t visited;      /* a bit for each group that can hold a kept token */
    uint32_t whole;        /* and for each of which all tokens are known to be kept */
};

/* The logit of a token; -infinity past the end. */
static float logit_at(thread const draw_block &block, uint32_t token) {
    return token < block.end ? logit_at(block.row, token) : -PWK_INFINITY;
}

/* The largest v with which a token of that z, or a smaller one, can come to the floor; negative
 * if none can. A Gumbel number is -ln e with e >= v; the margin is far above errors. */
static float reach(float z, float least) {
    return z + GUMBEL_MOST < least ? -1.0f : pwk_exp(z - least) * 1.001f;
}

/* The best of this thread's tokens: SIMD groups take every second group, half of one 64
 * tokens. Words come first: few are small enough that their logits matter. */
static scored score_block(Place place, thread const draw_block &block) {
    const uint32_t lane = place.lane;
    const noise_source source = source_of(block.asked);
    const tempered z = tempered_of(block.state);
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
            const float v = noise_uniform(words.word[i]);
            const float x = v <= limit ? logit_at(block, token) : -PWK_INFINITY;
            if (is_kept(block.state, x, token)) {
                const scored own = {z_of(z, x) + gumbel(v), token};
                best = better(best, own);
            }
        }
    }
    return best;
}

/* The bits and the count of the tokens kept, and the sum of exp(z) over them. */
static float tally_block(Place place, thread const draw_block &block, thread uint32_t &count) {
    const tempered z = tempered_of(block.state);
    float sum = 0.0f;
    count = popcount(block.whole) * (GROUP / 2);
    for (uint32_t left = block.visited & ~block.whole; left != 0; left &= left - 1) {
        const uint32_t group = ctz(left);
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t token = block.first + group * GROUP + i * SUMS + place.thread_index;
            const float x = logit_at(block, token);
            const bool kept = is_kept(block.state, x, token);
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

/* The bits of the groups of a block that tally_block does not read. */
static void put_known_bits(Place place, thread const draw_block &block) {
    const uint32_t read = block.visited & ~block.whole;
    for (uint32_t word = place.thread_index; word < BLOCK / 32; word += SUMS) {
        const uint32_t whole = (block.whole >> (word / 4)) & 1u;
        if (block.first + word * 32 < block.end && ((read >> (word / 4)) & 1u) == 0) {
            block.kept[block.first / 32 + word] = whole != 0 ? 0xffffffffu : 0;
        }
    }
}

/* The groups of a block that can hold a kept token, by either SIMD group. */
static uint32_t visited_groups(Place place, thread const draw_block &block) {
    const bool some = block.first + place.lane * GROUP < block.end;
    const float most = some ? block.groups[place.lane] : -PWK_INFINITY;
    return uint32_t(simd_vote::vote_t(simd_ballot(is_kept(block.state, most, 0))));
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
        block.state = load_state(desk.state);
        block.asked = load_asked(a.settings + row);
        block.row = own_row(a, row);
        block.first = first;
        block.end = p.vocab - first < BLOCK ? p.vocab : first + BLOCK;
        block.groups = desk.groups + number * GROUPS;
        block.kept = a.kept == nullptr ? nullptr : a.kept + row * p.kept_words;
        const bool fine = block.state.status == PWK_STATUS_OK;
        block.visited = fine ? visited_groups(place, block) : 0;
        block.whole = fine && is_plain(p, block.asked) ? desk.blocks[number].whole : 0;
        if (block.kept != nullptr) {
            put_known_bits(place, block);
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

/* ---- a row's answer ---- */

/* What a row comes to, to its outputs. */
static void put_answer(constant sample_arguments &a, uint64_t row, thread const row_state &state,
                       uint32_t token, uint32_t count, float sum) {
    const bool fine = state.status == PWK_STATUS_OK;
    a.token[row] = fine ? token : PWK_NONE;
    a.status[row] = state.status;
    if (a.kept_count != nullptr) {
        a.kept_count[row] = count;
    }
    const pwk_sample_row asked = load_asked(a.settings + row);
    float raw = PWK_NAN, processed = PWK_NAN;
    if (fine && token != PWK_NONE) {
        const float x = a.logits[row * a.p.row_stride + token];
        const float from =
            a.raw_logits == nullptr ? x : a.raw_logits[row * a.p.raw_row_stride + token];
        // A zero is +0, as on the CPU.
        const float tempered_logprob = (x - state.own.most) * state.factor - pwk_log(sum) + 0.0f;
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
    const row_state state = load_state(desk.state);
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

#endif /* PAGEWISE_METAL_SAMPLE_DRAW_H */
