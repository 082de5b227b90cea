/* kv_copy: tokens between pages, as they are stored, with the CPU's bytes.
 *
 * Order matters only where entries meet: where one writes a token that another, or it itself
 * elsewhere, reads or writes. So a first launch of one threadgroup checks the entries. In the
 * second a threadgroup takes K or V of one head of one entry: it looks for entries that meet
 * its own, and if there are none it copies all tokens at once, in 16-byte pieces where they lie
 * so, without order; else it ties the entry. In the third, which ends at once if none is tied,
 * each thread owns some cells of every token, side by side up to 16 bytes, and copies those of
 * the tied entries one after the other: what order demands is that of one thread. Memory: the
 * workspace holds their count and a word for each entry; one word of a threadgroup.
 * Emulated; not yet run on Apple hardware.
 */
#include "checks.h"
#include "kv_layout.h"
#include "pieces.h"

struct kv_copy_arguments {
    pwk_kv_copy p;
    device uchar *keys;
    device uchar *values;
    device float *scales;
    device const uint32_t *entries;
    device const uint32_t *count;
    launch_of_call launch;
};

constant constexpr uint32_t COPY_ENTRIES = 3; /* places among the buffers */
constant constexpr uint32_t COPY_COUNT = 4;
constant constexpr uint32_t ENTRY_WORDS = 5;
constant constexpr uint32_t THREADS = 128;
constant constexpr uint32_t TOKENS = 4; /* tokens of a tied entry on their way at once */
constant constexpr uint32_t CHECKERS = 512;

struct copy_entry {
    uint32_t from_page, from_token, to_page, to_token, tokens;
};

static copy_entry entry_at(constant kv_copy_arguments &a, uint64_t at) {
    device const uint32_t *words = a.entries + at * ENTRY_WORDS;
    return {words[0], words[1], words[2], words[3], words[4]};
}

/* How many entries are tied, then for each whether it is. */
static device uint32_t *tied_of(constant kv_copy_arguments &a) {
    return reinterpret_cast<device uint32_t *>(a.launch.workspace);
}

/* ---- the check ---- */

/* The first word of an entry that is not allowed, or ENTRY_WORDS; `most`: what is. */
static uint32_t bad_word(constant kv_copy_arguments &a, thread const copy_entry &e,
                         thread uint32_t &most) {
    constant pwk_kv_layout &kv = a.p.kv;
    const uint32_t later = e.from_token > e.to_token ? e.from_token : e.to_token;
    const uint32_t left = later > kv.page_len ? 0 : kv.page_len - later;
    most = kv.pages - 1;
    if (e.from_page > most) {
        return 0;
    }
    most = kv.page_len;
    if (e.from_token > most) {
        return 1;
    }
    most = kv.pages - 1;
    if (e.to_page > most) {
        return 2;
    }
    most = kv.page_len;
    if (e.to_token > most) {
        return 3;
    }
    most = a.p.tokens_max < left ? a.p.tokens_max : left;
    return e.tokens > most ? 4 : ENTRY_WORDS;
}

static void check_body(constant kv_copy_arguments &a, Place place) {
    const uint32_t count = live_in_block(a.launch, place, COPY_COUNT, a.count, a.p.entries_max);
    if (place.thread_index == 0) {
        tied_of(a)[0] = 0;
    }
    uint32_t bad = PWK_NONE, most = 0;
    for (uint32_t at = place.thread_index; at < count && bad == PWK_NONE; at += CHECKERS) {
        const copy_entry entry = entry_at(a, at);
        bad = bad_word(a, entry, most) < ENTRY_WORDS ? at : PWK_NONE;
    }
    bad = least_in_block(place, check_word(place), bad);
    if (bad != PWK_NONE) {
        const copy_entry entry = entry_at(a, bad);
        const uint64_t at = uint64_t(bad) * ENTRY_WORDS + bad_word(a, entry, most);
        refuse_element(a.launch, place, COPY_ENTRIES, at, 0, most, a.entries[at]);
    }
}

/* ---- entries that meet no other ---- */

/* Some tokens of a page. */
struct token_run {
    uint32_t page, first, tokens;
};

static token_run source_of(thread const copy_entry &e) {
    return {e.from_page, e.from_token, e.tokens};
}

static token_run target_of(thread const copy_entry &e) {
    return {e.to_page, e.to_token, e.tokens};
}

/* Whether tokens of two runs are the same. */
static bool runs_meet(token_run a, token_run b) {
    return a.page == b.page && a.first < b.first + b.tokens && b.first < a.first + a.tokens &&
           a.tokens > 0 && b.tokens > 0;
}

/* Whether one writes what the other reads or writes. */
static bool entries_meet(thread const copy_entry &a, thread const copy_entry &b) {
    return runs_meet(target_of(a), target_of(b)) || runs_meet(target_of(a), source_of(b)) ||
           runs_meet(source_of(a), target_of(b));
}

/* Whether the entry meets another, or itself. The same in every thread. */
static bool is_tied(constant kv_copy_arguments &a, Place place, uint32_t at, uint32_t count,
                    thread const copy_entry &mine) {
    uint32_t met = runs_meet(source_of(mine), target_of(mine)) ? at : PWK_NONE;
    for (uint32_t other = place.thread_index; other < count && met == PWK_NONE;
         other += THREADS) {
        const copy_entry entry = entry_at(a, other);
        if (other != at && entries_meet(mine, entry)) {
            met = other;
        }
    }
    return least_in_block(place, check_word(place), met) != PWK_NONE;
}

/* A block of cells: `outer` steps of `outer_bytes`, in each `inner` pieces of `inner_bytes`. */
struct copy_block {
    device const uchar *from;
    device uchar *to;
    uint32_t outer, inner;
    uint64_t outer_bytes, inner_bytes;
};

template <class T>
static void copy_pieces(Place place, thread const copy_block &b) {
    for (uint32_t at = place.thread_index; at < b.outer * b.inner; at += THREADS) {
        const uint64_t offset = at / b.inner * b.outer_bytes + at % b.inner * b.inner_bytes;
        *reinterpret_cast<device T *>(b.to + offset) =
            *reinterpret_cast<device const T *>(b.from + offset);
    }
}

/* All tokens of an entry, of K or V of one head, in any order. */
static void copy_free(constant kv_copy_arguments &a, Place place, thread const copy_entry &e,
                      uint32_t part, uint32_t head) {
    constant pwk_kv_layout &kv = a.p.kv;
    device uchar *slab = kv_slab(kv, part, a.keys, a.values);
    const uint32_t cell_bytes = kv_cell_bytes(kv.dtype), cells = kv_dim_cells(kv);
    const uint64_t token_bytes = kv_token_stride(kv, part) * cell_bytes;
    const uint64_t dim_bytes = kv_dim_stride(kv, part) * cell_bytes;
    copy_block b = {slab + kv_cell(kv, part, e.from_page, head, e.from_token) * cell_bytes,
                    slab + kv_cell(kv, part, e.to_page, head, e.to_token) * cell_bytes,
                    e.tokens, cells, token_bytes, dim_bytes};
    /* The denser axis is the inner one. */
    if (token_bytes < dim_bytes) {
        b.outer = cells;
        b.inner = e.tokens;
        b.outer_bytes = dim_bytes;
        b.inner_bytes = token_bytes;
    }
    const uint64_t run_bytes = uint64_t(b.inner) * cell_bytes;
    if (b.inner_bytes == cell_bytes && is_wide(b.from, b.outer_bytes | run_bytes) &&
        is_wide(b.to, 0)) {
        b.inner = static_cast<uint32_t>(run_bytes / 16);
        b.inner_bytes = 16;
        copy_pieces<uint4>(place, b);
    } else if (cell_bytes == 4) {
        copy_pieces<uint>(place, b);
    } else if (cell_bytes == 2) {
        copy_pieces<ushort>(place, b);
    } else {
        copy_pieces<uchar>(place, b);
    }
    if (kv.scales != PWK_KV_SCALES_TOKEN) {
        return;
    }
    device const float *from =
        a.scales + kv_scale(kv, part, e.from_page, head, e.from_token);
    device float *to = a.scales + kv_scale(kv, part, e.to_page, head, e.to_token);
    for (uint32_t token = place.thread_index; token < e.tokens; token += THREADS) {
        to[token] = from[token];
    }
}

static void free_body(constant kv_copy_arguments &a, Place place) {
    const uint32_t count = live_in_block(a.launch, place, COPY_COUNT, a.count, a.p.entries_max);
    device uint32_t *tied = tied_of(a);
    for (uint32_t at = place.group.y; at < count; at += place.group_count.y) {
        const copy_entry mine = entry_at(a, at);
        const bool waits = is_tied(a, place, at, count, mine);
        if (place.group.x == 0 && place.thread_index == 0) {
            tied[1 + uint64_t(at)] = waits ? 1 : 0;
            if (waits) {
                atomic_fetch_add_explicit(reinterpret_cast<device atomic_uint *>(tied), 1u,
                                          memory_order_relaxed);
            }
        }
        const uint32_t columns = waits ? 0 : 2 * a.p.kv.kv_heads;
        for (uint32_t column = place.group.x; column < columns; column += place.group_count.x) {
            copy_free(a, place, mine, column % 2, column / 2);
        }
    }
}

/* ---- entries that meet ---- */

/* What one thread owns of every token: so many bytes from the token's first cell on, or its
 * scale. */
struct copy_lane {
    uint32_t part, head;
    uint64_t offset;
};

/* Tokens of one thread's bytes, as if by way of a third place: from the end that is away from
 * the target, TOKENS of them read before they are written. */
template <class T>
static void copy_run(device const uchar *from, device uchar *to, uint32_t tokens,
                     uint64_t stride, bool backward) {
    for (uint32_t first = 0; first < tokens; first += TOKENS) {
        T taken[TOKENS];
        for (uint32_t i = 0; i < TOKENS; i++) {
            const uint32_t turn = first + i;
            if (turn < tokens) {
                const uint64_t token = backward ? tokens - 1 - turn : turn;
                taken[i] = *reinterpret_cast<device const T *>(from + token * stride);
            }
        }
        for (uint32_t i = 0; i < TOKENS; i++) {
            const uint32_t turn = first + i;
            if (turn < tokens) {
                const uint64_t token = backward ? tokens - 1 - turn : turn;
                *reinterpret_cast<device T *>(to + token * stride) = taken[i];
            }
        }
    }
}

/* A thread's bytes of all tied entries, in order. */
template <class T>
static void copy_tied(constant kv_copy_arguments &a, uint32_t count,
                      thread const copy_lane &lane) {
    constant pwk_kv_layout &kv = a.p.kv;
    device const uint32_t *tied = tied_of(a) + 1;
    const uint32_t cell_bytes = kv_cell_bytes(kv.dtype);
    device uchar *slab = kv_slab(kv, lane.part, a.keys, a.values) + lane.offset;
    const uint64_t stride = kv_token_stride(kv, lane.part) * cell_bytes;
    for (uint32_t at = 0; at < count; at++) {
        if (tied[at] == 0) {
            continue;
        }
        const copy_entry e = entry_at(a, at);
        const uint64_t from = kv_cell(kv, lane.part, e.from_page, lane.head, e.from_token);
        const uint64_t to = kv_cell(kv, lane.part, e.to_page, lane.head, e.to_token);
        copy_run<T>(slab + from * cell_bytes, slab + to * cell_bytes, e.tokens, stride,
                    e.from_token < e.to_token);
    }
}

/* The scales of one head's K or V in all tied entries, in order. */
static void copy_tied_scales(constant kv_copy_arguments &a, uint32_t count,
                             thread const copy_lane &lane) {
    constant pwk_kv_layout &kv = a.p.kv;
    device const uint32_t *tied = tied_of(a) + 1;
    device uchar *scales = reinterpret_cast<device uchar *>(a.scales);
    for (uint32_t at = 0; at < count; at++) {
        if (tied[at] == 0) {
            continue;
        }
        const copy_entry e = entry_at(a, at);
        const uint64_t from = kv_scale(kv, lane.part, e.from_page, lane.head, e.from_token);
        const uint64_t to = kv_scale(kv, lane.part, e.to_page, lane.head, e.to_token);
        copy_run<uint>(scales + from * sizeof(float), scales + to * sizeof(float), e.tokens,
                       sizeof(float), e.from_token < e.to_token);
    }
}

/* One thread's part of a head's K or V: its cells, then, by one more thread, its scales. */
static void copy_column(constant kv_copy_arguments &a, Place place, uint32_t count,
                        uint32_t part, uint32_t head) {
    constant pwk_kv_layout &kv = a.p.kv;
    const uint32_t cell_bytes = kv_cell_bytes(kv.dtype), cells = kv_dim_cells(kv);
    const uint64_t dim_bytes = kv_dim_stride(kv, part) * cell_bytes;
    const bool wide = dim_bytes == cell_bytes && cells * cell_bytes % 16 == 0 &&
                      is_wide(kv_slab(kv, part, a.keys, a.values), kv_token_steps(kv, part));
    const uint32_t lanes = wide ? cells * cell_bytes / 16 : cells;
    for (uint32_t at = place.thread_index; at <= lanes; at += THREADS) {
        const copy_lane lane = {part, head, wide ? at * uint64_t(16) : at * dim_bytes};
        if (at == lanes) {
            if (kv.scales == PWK_KV_SCALES_TOKEN) {
                copy_tied_scales(a, count, lane);
            }
        } else if (wide) {
            copy_tied<uint4>(a, count, lane);
        } else if (cell_bytes == 4) {
            copy_tied<uint>(a, count, lane);
        } else if (cell_bytes == 2) {
            copy_tied<ushort>(a, count, lane);
        } else {
            copy_tied<uchar>(a, count, lane);
        }
    }
}

static void tied_body(constant kv_copy_arguments &a, Place place) {
    const uint32_t count = live(a.launch, place, COPY_COUNT, a.count, a.p.entries_max);
    if (count == 0 || *tied_of(a) == 0) {
        return;
    }
    const uint32_t columns = 2 * a.p.kv.kv_heads;
    for (uint32_t column = place.group.x; column < columns; column += place.group_count.x) {
        copy_column(a, place, count, column % 2, column / 2);
    }
}

ENTRY(pw_kv_copy_check, CHECKERS, kv_copy_arguments, check_body)
ENTRY(pw_kv_copy, THREADS, kv_copy_arguments, free_body)
ENTRY(pw_kv_copy_tied, THREADS, kv_copy_arguments, tied_body)
