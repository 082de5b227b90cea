/* The first pass of `sample` over its rows: what each block of logits comes to. */
#ifndef PAGEWISE_METAL_SAMPLE_SURVEY_H
#define PAGEWISE_METAL_SAMPLE_SURVEY_H

#include "sample_call.h"

/* By bits, for the hardware takes subnormal numbers for zeros: from 0, either of them, to
 * `most`. */
static bool is_within(float x, float most) {
    return PWK_BITS(x) <= PWK_BITS(most) || PWK_BITS(x) == PWK_BITS(-0.0f);
}

/* Rows that ask for what they may not. */
struct is_row_wrong {
    device const pwk_sample_row *settings;

    bool operator()(uint32_t i) const {
        const pwk_sample_row asked = load_asked(settings + i);
        return !is_within(asked.temperature, PWK_FLT_MAX) || !is_within(asked.top_p, 1.0f) ||
               !is_within(asked.min_p, 1.0f);
    }
};

/* Rows of which a mask is not there. */
struct is_mask_wrong {
    constant sample_arguments *a;

    bool operator()(uint32_t i) const {
        device const uint32_t *masks = a->row_masks + 2 * uint64_t(i);
        return !is_index(masks[0], a->p.masks) || !is_index(masks[1], a->p.masks);
    }
};

static void check_masks(constant sample_arguments &a, Place place, uint32_t rows) {
    if (a.row_masks == nullptr) {
        return;
    }
    const is_mask_wrong bad = {&a};
    const uint32_t row = first_where(place, check_word(place), rows, bad);
    if (row != PWK_NONE) {
        const uint64_t first = 2 * uint64_t(row);
        const uint64_t at = is_index(a.row_masks[first], a.p.masks) ? first + 1 : first;
        refuse_element(a.launch, place, SAMPLE_ROW_MASKS, at, 0, int64_t(a.p.masks) - 1,
                       a.row_masks[at]);
    }
}

static void check_settings(constant sample_arguments &a, Place place, uint32_t rows) {
    const is_row_wrong bad = {a.settings};
    const uint32_t at = first_where(place, check_word(place), rows, bad);
    if (at == PWK_NONE) {
        check_masks(a, place, rows);
        return;
    }
    if (place.thread_index != 0) {
        return;
    }
    const pwk_sample_row asked = load_asked(a.settings + at);
    const float rest = !is_within(asked.top_p, 1.0f) ? asked.top_p : asked.min_p;
    const float first = !is_within(asked.temperature, PWK_FLT_MAX) ? asked.temperature : rest;
    const uint32_t range = PWK_BITS(first) >> 31 ? PWK_FAULT_BELOW : PWK_FAULT_ABOVE;
    const uint32_t kind = is_finite(first) ? range : PWK_FAULT_NOT_FINITE;
    refuse(a.launch, kind, SAMPLE_SETTINGS, at, 0, 0, 0);
}

/* The transpose of 32 words of 32 bits, a word in each lane of a SIMD group. */
static uint32_t transposed(Place place, uint32_t word) {
    uint32_t low = 0x0000ffffu; /* bits that stay in the lower of two lanes */
    for (uint32_t step = 16; step > 0; step /= 2) {
        const uint32_t other = simd_shuffle_xor(word, ushort(step));
        const bool upper = (place.lane & step) != 0;
        const uint32_t up = (word & ~low) | ((other & ~low) >> step);
        const uint32_t down = (word & low) | ((other & low) << step);
        word = upper ? up : down;
        low ^= low << (step / 2);
    }
    return word;
}

/* The tokens of a block that a row has and its masks allow: bit i of the word is token
 * (half * 32 + i) * SUMS + this thread, from the block's first on. */
static uint32_t own_tokens(Place place, logits_row row, uint32_t first, uint32_t count,
                           uint32_t half) {
    const uint32_t word = 2 * (half * LANES + place.lane) + place.simdgroup;
    const uint32_t left = count > word * 32 ? count - word * 32 : 0;
    const uint32_t there = left < 32 ? (1u << left) - 1 : 0xffffffffu;
    return transposed(place, left > 0 ? allowed_word(row.allowed, first / 32 + word) & there : 0);
}

/* What a block comes to, beside the largest of its groups. */
struct surveyed {
    exponentials all;
    uint32_t whole; /* as block_tally has it */
};

/* The largest of each group of a block goes to `groups`, its leader to `leaders` unless
 * that is null; the rest comes back. */
static surveyed survey_block(Place place, logits_row row, uint32_t block, uint32_t count,
                             device float *groups, device uchar *leaders) {
    threadgroup float *shared = reinterpret_cast<threadgroup float *>(SHARED());
    threadgroup uint32_t *whole_of_halves = reinterpret_cast<threadgroup uint32_t *>(shared) + SUMS;
    threadgroup uint32_t *leaders_of_halves = whole_of_halves + 2;
    const uint32_t thread_index = place.thread_index, lane = place.lane;
    device const float *x = row.logits + block * BLOCK;
    const uint32_t own_low = own_tokens(place, row, block * BLOCK, count, 0);
    const uint32_t own_high = own_tokens(place, row, block * BLOCK, count, 1);
    float v[BLOCK / SUMS];
    float largest_of_half = -PWK_INFINITY;
    uint32_t whole_of_half = 0, leader_of_half = 0;
    for (uint32_t group = 0; group < GROUPS; group++) {
        const uint32_t first = 2 * group * SUMS + thread_index, second = first + SUMS;
        const uint32_t bits = (group < 16 ? own_low : own_high) >> (2 * group % 32);
        v[2 * group] = (bits & 1) != 0 ? x[first] : -PWK_INFINITY;
        v[2 * group + 1] = (bits & 2) != 0 ? x[second] : -PWK_INFINITY;
        /* In this order both pass over a NaN. */
        const float own = pwk_max(v[2 * group + 1], pwk_max(v[2 * group], -PWK_INFINITY));
        const float most = simd_max(own);
        largest_of_half = lane == group ? most : largest_of_half;
        const uint32_t later = v[2 * group + 1] == most ? thread_index + SUMS : GROUP;
        const uint32_t leader = simd_min(v[2 * group] == most ? thread_index : later);
        leader_of_half = lane == group ? leader : leader_of_half;
        const bool some = v[2 * group] > -PWK_INFINITY && v[2 * group + 1] > -PWK_INFINITY;
        whole_of_half |= simd_all(some) ? 1u << group : 0;
    }
    shared[thread_index] = largest_of_half;
    leaders_of_halves[thread_index] = leader_of_half;
    if (lane == 0) {
        whole_of_halves[place.simdgroup] = whole_of_half;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float group = pwk_max(shared[lane], shared[lane + LANES]);
    if (thread_index < GROUPS && thread_index * GROUP < count) {
        groups[thread_index] = group;
        if (leaders != nullptr) {
            const scored first = {shared[lane], leaders_of_halves[lane]};
            const scored second = {shared[lane + LANES], leaders_of_halves[lane + LANES]};
            leaders[thread_index] = static_cast<uchar>(better(first, second).token);
        }
    }
    const uint32_t whole = whole_of_halves[0] & whole_of_halves[1];
    const float largest = simd_max(group);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float least = anchor(largest);
    float sum = 0.0f;
    for (uint32_t i = 0; i < BLOCK / SUMS; i++) {
        sum = sum + pwk_exp_below(v[i] - least);
    }
    const exponentials all = {largest, folded(place, shared, sum)};
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return {all, whole};
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
        const logits_row x = raw ? raw_row(a, row) : own_row(a, row);
        const uint32_t count = p.vocab - first < BLOCK ? p.vocab - first : BLOCK;
        device float *groups = (raw ? desk.raw_groups : desk.groups) + block * GROUPS;
        device uchar *leaders = raw ? nullptr : desk.leaders + block * GROUPS;
        const surveyed found = survey_block(place, x, block, count, groups, leaders);
        device block_tally *tally = desk.blocks + block;
        if (place.thread_index == 0 && raw) {
            store_exponentials(&tally->raw, found.all);
        } else if (place.thread_index == 0) {
            store_exponentials(&tally->own, found.all);
            tally->whole = found.whole;
        }
        const pwk_sample_row asked = load_asked(a.settings + row);
        if (!raw && block == 0 && is_weighed(p, asked)) {
            for (uint32_t word = place.thread_index; word < 2 * MASS_BINS; word += SUMS) {
                atomic_store_explicit(desk.bins + word, 0u, memory_order_relaxed);
            }
        }
    }
}

#endif /* PAGEWISE_METAL_SAMPLE_SURVEY_H */
