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

static void check_settings(constant sample_arguments &a, Place place, uint32_t rows) {
    const is_row_wrong bad = {a.settings};
    const uint32_t at = first_where(place, check_word(place), rows, bad);
    if (at == PWK_NONE || place.thread_index != 0) {
        return;
    }
    const pwk_sample_row asked = load_asked(a.settings + at);
    const float rest = !is_within(asked.top_p, 1.0f) ? asked.top_p : asked.min_p;
    const float first = !is_within(asked.temperature, PWK_FLT_MAX) ? asked.temperature : rest;
    const uint32_t range = PWK_BITS(first) >> 31 ? PWK_FAULT_BELOW : PWK_FAULT_ABOVE;
    const uint32_t kind = is_finite(first) ? range : PWK_FAULT_NOT_FINITE;
    refuse(a.launch, kind, SAMPLE_SETTINGS, at, 0, 0, 0);
}

/* What a block comes to, beside the largest of its groups. */
struct surveyed {
    exponentials all;
    uint32_t whole; /* as block_tally has it */
};

/* The largest of each group of a block goes to `groups`, its leader to `leaders` unless
 * that is null; the rest comes back. */
static surveyed survey_block(Place place, device const float *x, uint32_t count,
                             device float *groups, device uchar *leaders) {
    threadgroup float *shared = reinterpret_cast<threadgroup float *>(SHARED());
    threadgroup uint32_t *whole_of_halves = reinterpret_cast<threadgroup uint32_t *>(shared) + SUMS;
    threadgroup uint32_t *leaders_of_halves = whole_of_halves + 2;
    const uint32_t thread_index = place.thread_index, lane = place.lane;
    float v[BLOCK / SUMS];
    float largest_of_half = -PWK_INFINITY;
    uint32_t whole_of_half = 0, leader_of_half = 0;
    for (uint32_t group = 0; group < GROUPS; group++) {
        const uint32_t first = 2 * group * SUMS + thread_index, second = first + SUMS;
        v[2 * group] = first < count ? x[first] : -PWK_INFINITY;
        v[2 * group + 1] = second < count ? x[second] : -PWK_INFINITY;
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
        device const float *x =
            raw ? a.raw_logits + row * p.raw_row_stride : a.logits + row * p.row_stride;
        const uint32_t count = p.vocab - first < BLOCK ? p.vocab - first : BLOCK;
        device float *groups = (raw ? desk.raw_groups : desk.groups) + block * GROUPS;
        device uchar *leaders = raw ? nullptr : desk.leaders + block * GROUPS;
        const surveyed found = survey_block(place, x + first, count, groups, leaders);
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
