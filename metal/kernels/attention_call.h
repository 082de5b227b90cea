/* A call of `attention` as its launches share it: the argument, what a row sees, where keys
 * and values lie, and states of splits in the workspace. */
#ifndef PAGEWISE_METAL_ATTENTION_CALL_H
#define PAGEWISE_METAL_ATTENTION_CALL_H

#include "attention.h"

struct attention_arguments {
    pwk_attention p;
    device const uchar *q;
    device const uchar *keys;
    device const uchar *values;
    device const float *scales;
    device const uint32_t *q_start;
    device const uint32_t *kv_len;
    device const uint32_t *first_position;
    device const uint32_t *page_start;
    device const uint32_t *page_ids;
    device const uint32_t *intervals;
    device const uint32_t *tree_bits;
    device const float *sinks;
    device const float *slopes;
    device uchar *out;
    device float *lse;
    device const uint32_t *seqs;
    launch_of_call launch; /* part: splits that are apart; 0: a threadgroup has all of them */
};

/* Places among the buffers. */
constant constexpr uint32_t ATTENTION_Q_START = 4;
constant constexpr uint32_t ATTENTION_KV_LEN = 5;
constant constexpr uint32_t ATTENTION_FIRST_POSITION = 6;
constant constexpr uint32_t ATTENTION_PAGE_START = 7;
constant constexpr uint32_t ATTENTION_PAGE_IDS = 8;
constant constexpr uint32_t ATTENTION_SEQS = 15;

constant constexpr uint32_t SPLIT = 256; /* positions of a split */

PWK_FN uint32_t group_of(constant attention_arguments &a) {
    return a.p.q_heads / a.p.kv.kv_heads;
}

PWK_FN uint32_t first_of(constant attention_arguments &a, uint32_t seq) {
    return a.first_position == nullptr ? 0 : a.first_position[seq];
}

/* The place of a sequence's first page id. */
PWK_FN uint64_t listed_of(constant attention_arguments &a, uint32_t seq) {
    return a.page_start != nullptr ? a.page_start[seq] : uint64_t(seq) * a.p.table_width;
}

/* The sequence of a row: the last that begins at it or before; none for a row of none. */
PWK_FN uint32_t seq_of_row(constant attention_arguments &a, uint32_t seqs, uint64_t row) {
    if (row < a.q_start[0] || row >= a.q_start[seqs]) {
        return PWK_NONE;
    }
    uint32_t low = 0, high = seqs;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (a.q_start[middle] <= row) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* ---- what a row sees ---- */

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
    const uint32_t high = uint32_t(bits >> 32), low = uint32_t(bits);
    return high != 0 ? 64 - clz(high) : 32 - clz(low);
}

PWK_FN seen_row row_of(constant attention_arguments &a, uint32_t seq, uint64_t row) {
    const int64_t kv_len = a.kv_len[seq];
    seen_row seen;
    seen.position = kv_len - int64_t(a.q_start[seq + 1]) + int64_t(row);
    int64_t begin = first_of(a, seq), end = kv_len;
    if (a.p.causal == 1) {
        end = smaller_of(end, seen.position + 1);
    }
    if (a.p.window > 0) {
        begin = larger_of(begin, seen.position + 1 - int64_t(a.p.window));
    }
    seen.tree_at = end;
    seen.tree = ~uint64_t(0);
    if (a.intervals != nullptr) {
        begin = larger_of(begin, a.intervals[2 * row]);
        seen.tree_at = a.intervals[2 * row + 1];
        int64_t last = seen.tree_at;
        if (a.tree_bits != nullptr) {
            const uint64_t high = a.tree_bits[2 * row + 1];
            seen.tree = a.tree_bits[2 * row] | high << 32;
            last += width_of(seen.tree);
        }
        end = smaller_of(end, last);
    }
    const bool some = begin < end;
    seen.begin = some ? uint32_t(begin) : 0;
    seen.end = some ? uint32_t(end) : 0;
    return seen;
}

PWK_FN bool sees(seen_row row, uint32_t position) {
    const int64_t from = int64_t(position) - row.tree_at;
    const bool in_tree =
        row.tree == ~uint64_t(0) || from < 0 || (from < 64 && (row.tree >> from & 1) != 0);
    return position >= row.begin && position < row.end && in_tree;
}

/* ---- where keys and values lie ---- */

struct kv_place {
    uint32_t page;
    uint32_t token;
};

/* Where a position of a sequence lies, which must be one of those kept. */
PWK_FN kv_place place_of(constant attention_arguments &a, uint32_t seq, uint32_t position) {
    const uint32_t len = a.p.kv.page_len;
    const uint64_t at = listed_of(a, seq) + (position / len - first_of(a, seq) / len);
    const kv_place place = {a.page_ids[at], position % len};
    return place;
}

PWK_FN uint32_t dims_of_cell(constant attention_arguments &a) {
    return a.p.kv.dtype == PWK_DTYPE_I4 ? 2 : 1;
}

/* The first cell of a key. */
PWK_FN uint64_t key_cell(constant attention_arguments &a, uint32_t head, kv_place at) {
    const uint64_t elements = at.page * a.p.kv.page_stride + head * a.p.kv.k_head_stride +
                              at.token * a.p.kv.k_token_stride;
    return elements / dims_of_cell(a);
}

/* The first cell of a value. */
PWK_FN uint64_t value_cell(constant attention_arguments &a, uint32_t head, kv_place at) {
    const uint64_t elements = at.page * a.p.kv.page_stride + head * a.p.kv.v_head_stride +
                              at.token * a.p.kv.v_token_stride + a.p.kv.v_offset;
    return elements / dims_of_cell(a);
}

/* The scale of a key (part 0) or value (part 1). */
PWK_FN float scale_of(constant attention_arguments &a, uint32_t head, kv_place at,
                      uint32_t part) {
    if (a.p.kv.scales != PWK_KV_SCALES_TOKEN) {
        return part == 0 ? a.p.kv.k_scale : a.p.kv.v_scale;
    }
    const uint64_t line = (uint64_t(at.page) * a.p.kv.kv_heads + head) * 2 + part;
    return a.scales[line * a.p.kv.page_len + at.token];
}

/* The stored number of a dim in its cell. */
PWK_FN float stored(uint32_t dtype, device const uchar *slab, uint64_t cell, uint32_t dim) {
    if (dtype == PWK_DTYPE_E4M3) {
        return pwk_of_e4m3(slab[cell]);
    }
    if (dtype == PWK_DTYPE_I8) {
        return float(int(uint32_t(slab[cell]) << 24) >> 24);
    }
    if (dtype == PWK_DTYPE_I4) {
        return float(int(uint32_t(slab[cell]) << (dim % 2 == 0 ? 28 : 24)) >> 28);
    }
    return load_float(dtype, slab, cell);
}

PWK_FN float key_of(constant attention_arguments &a, uint64_t cell, uint32_t dim) {
    const uint64_t own = cell + dim / dims_of_cell(a) * a.p.kv.k_dim_stride;
    return stored(a.p.kv.dtype, a.keys, own, dim);
}

PWK_FN float value_of(constant attention_arguments &a, uint64_t cell, uint32_t dim) {
    device const uchar *slab = a.values == nullptr ? a.keys : a.values;
    return stored(a.p.kv.dtype, slab, cell + dim / dims_of_cell(a), dim);
}

/* ---- states of splits ---- */

/* The state of a split of a row's head: most, sum, and weighted values. */
PWK_FN device float *state_of(constant attention_arguments &a, uint64_t row, uint32_t head,
                              uint32_t split) {
    const uint64_t at = (row * a.p.q_heads + head) * a.launch.part + split;
    return reinterpret_cast<device float *>(a.launch.workspace) + at * (2 + a.p.kv.head_dim);
}

/* The end of a row's head. */
PWK_FN softmax_end end_of(constant attention_arguments &a, softmax_state state, uint32_t head) {
    return softmax_ends(state, a.sinks == nullptr ? -PWK_INFINITY : a.sinks[head]);
}

#endif /* PAGEWISE_METAL_ATTENTION_CALL_H */
