/* A call of `attention` as its launches share it: the argument, what a row sees, and the plan
 * that the first launch leaves in the workspace. */
#ifndef PAGEWISE_ATTENTION_CALL_H
#define PAGEWISE_ATTENTION_CALL_H

#include "attention.h"

struct attention_arguments {
    pwk_attention p;
    const void *q;
    const void *keys;
    const void *values;
    const float *scales;
    const uint32_t *q_start;
    const uint32_t *kv_len;
    const uint32_t *first_position;
    const uint32_t *page_start;
    const uint32_t *page_ids;
    const uint32_t *intervals;
    const uint32_t *tree_bits;
    const float *sinks;
    const float *slopes;
    void *out;
    float *lse;
    const uint32_t *seqs;
    pwk_launch launch; /* part: states there is room for; tile: as below */
};

/* Places among the buffers. */
constexpr uint32_t ATTENTION_Q_START = 4;
constexpr uint32_t ATTENTION_KV_LEN = 5;
constexpr uint32_t ATTENTION_FIRST_POSITION = 6;
constexpr uint32_t ATTENTION_PAGE_START = 7;
constexpr uint32_t ATTENTION_PAGE_IDS = 8;
constexpr uint32_t ATTENTION_SEQS = 15;

constexpr uint32_t SPLIT = 256;      /* positions of a split */
constexpr uint32_t TILE_QUERIES = 16; /* queries of a warp */

typedef unsigned long long attention_count;

/* ---- the plan ---- */

/* A unit is some queries of one sequence and head of K; an item is a unit with all of its
 * splits, or with one of them. There are two lists of items: of units of 16 queries, and of
 * wide ones. */
struct attention_plan {
    attention_count items[2];
    attention_count taken[2];
};

constexpr uint64_t NO_STATES = ~0ull;

/* What the plan says of a sequence. */
struct attention_seq {
    uint64_t first[2];    /* its first item in each list */
    uint64_t states;      /* its first state, or NO_STATES: an item has all splits */
    uint32_t split_begin; /* the first split that a row may see */
    uint32_t split_count;
};

PWK_FN attention_plan *plan_of(const attention_arguments &a) {
    return reinterpret_cast<attention_plan *>(a.launch.workspace);
}

PWK_FN attention_seq *seqs_of(const attention_arguments &a) {
    return reinterpret_cast<attention_seq *>(plan_of(a) + 1);
}

/* A state: most, sum, two floats of nothing, and weighted values. */
PWK_FN uint64_t state_floats(const attention_arguments &a) { return 4 + a.p.kv.head_dim; }

PWK_FN float *states_of(const attention_arguments &a) {
    return reinterpret_cast<float *>(seqs_of(a) + a.p.seqs_max);
}

/* Queries of a wide unit, and units of a sequence from which on it is not cut. */
PWK_FN uint32_t wide_queries(const attention_arguments &a) { return a.launch.tile & 0xffffu; }
PWK_FN uint32_t units_enough(const attention_arguments &a) { return a.launch.tile >> 16; }

PWK_FN uint32_t group_of(const attention_arguments &a) { return a.p.q_heads / a.p.kv.kv_heads; }

/* Queries of a sequence for each head of K. */
PWK_FN uint64_t queries_of(const attention_arguments &a, uint32_t seq) {
    return uint64_t(a.q_start[seq + 1] - a.q_start[seq]) * group_of(a);
}

/* The state of a split of a query: heads, splits, queries. */
PWK_FN float *state_of(const attention_arguments &a, const attention_seq &plan, uint32_t seq,
                       uint32_t head, uint32_t split, uint64_t query) {
    const uint64_t queries = queries_of(a, seq);
    const uint64_t place = (uint64_t(head) * plan.split_count + split) * queries + query;
    return states_of(a) + (plan.states + place) * state_floats(a);
}

/* ---- what a call says ---- */

PWK_FN uint32_t first_of(const attention_arguments &a, uint32_t seq) {
    return a.first_position == nullptr ? 0 : a.first_position[seq];
}

/* The place of a sequence's first page id. */
PWK_FN uint64_t listed_of(const attention_arguments &a, uint32_t seq) {
    return a.page_start != nullptr ? a.page_start[seq] : uint64_t(seq) * a.p.table_width;
}

/* What one row sees. */
struct seen_row {
    int64_t position; /* its own; negative before all keys */
    int64_t tree_at;  /* the position of the tree's first bit */
    uint64_t tree;    /* its bits; all without one */
    uint32_t begin;   /* the first position seen */
    uint32_t end;     /* after the last one; 0 where none is */
};

PWK_FN int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }
PWK_FN int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }

PWK_FN uint32_t width_of(uint64_t bits) {
    const uint32_t high = static_cast<uint32_t>(bits >> 32), low = static_cast<uint32_t>(bits);
    return high != 0 ? 64 - __clz(static_cast<int>(high)) : 32 - __clz(static_cast<int>(low));
}

PWK_FN seen_row row_of(const attention_arguments &a, uint32_t seq, uint32_t row) {
    const int64_t kv_len = a.kv_len[seq];
    seen_row seen;
    seen.position = kv_len - int64_t(a.q_start[seq + 1]) + row;
    int64_t begin = first_of(a, seq), end = kv_len;
    if (a.p.causal == 1) {
        end = smaller_of(end, seen.position + 1);
    }
    if (a.p.window > 0) {
        begin = larger_of(begin, seen.position + 1 - int64_t(a.p.window));
    }
    seen.tree_at = end;
    seen.tree = ~0ull;
    if (a.intervals != nullptr) {
        begin = larger_of(begin, a.intervals[2 * uint64_t(row)]);
        seen.tree_at = a.intervals[2 * uint64_t(row) + 1];
        int64_t last = seen.tree_at;
        if (a.tree_bits != nullptr) {
            const uint64_t high = a.tree_bits[2 * uint64_t(row) + 1];
            seen.tree = a.tree_bits[2 * uint64_t(row)] | high << 32;
            last += width_of(seen.tree);
        }
        end = smaller_of(end, last);
    }
    const bool some = begin < end;
    seen.begin = some ? static_cast<uint32_t>(begin) : 0;
    seen.end = some ? static_cast<uint32_t>(end) : 0;
    return seen;
}

/* Bit i: the row sees position base + i. */
PWK_FN uint64_t seen_bits(const seen_row &row, uint32_t base) {
    const int64_t begin = larger_of(int64_t(row.begin) - base, 0);
    const int64_t end = smaller_of(int64_t(row.end) - base, 64);
    if (begin >= end) {
        return 0;
    }
    uint64_t bits = (~0ull << begin) & (~0ull >> (64 - end));
    if (row.tree != ~0ull) {
        const int64_t from = int64_t(base) - row.tree_at;
        if (from >= 64) {
            bits = 0;
        } else if (from >= 0) {
            bits &= row.tree >> from;
        } else if (from > -64) {
            bits &= row.tree << -from | ((1ull << -from) - 1);
        }
    }
    return bits;
}

#endif /* PAGEWISE_ATTENTION_CALL_H */
