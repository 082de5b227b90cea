/* kv_copy: tokens between pages, as they are stored, with the CPU's bytes.
 *
 * Order matters only where entries meet: where one writes a token that another, or it itself
 * elsewhere, reads or writes. So a first launch of one block checks the entries. In the second
 * a block takes K or V of one head of one entry: it looks for entries that meet its own, and
 * if there are none it copies all tokens at once, in 16-byte pieces where they lie so, without
 * order; else it ties the entry. In the third, which ends at once if none is tied, each thread
 * owns some cells of every token, side by side up to 16 bytes, and copies those of the tied
 * entries one after the other: what order demands is that of one thread. Memory: the
 * workspace holds their count and a word for each entry; one word shared.
 * Not measured yet.
 */
#include "kv_layout.h"
#include "pieces.h"
#include "step_elements.h"

struct kv_copy_arguments {
    pwk_kv_copy p;
    void *keys;
    void *values;
    float *scales;
    const uint32_t *entries;
    const uint32_t *count;
    pwk_launch launch;
};

constexpr uint32_t COPY_ENTRIES = 3; /* places among the buffers */
constexpr uint32_t COPY_COUNT = 4;
constexpr uint32_t ENTRY_WORDS = 5;
constexpr uint32_t THREADS = 128;
constexpr uint32_t CHECKERS = 512;
constexpr uint32_t TOKENS = 4; /* tokens of a tied entry on their way at once */

struct copy_entry {
    uint32_t from_page, from_token, to_page, to_token, tokens;
};

static __device__ copy_entry entry_at(const kv_copy_arguments &a, uint64_t at) {
    const uint32_t *words = a.entries + at * ENTRY_WORDS;
    return {words[0], words[1], words[2], words[3], words[4]};
}

/* How many entries are tied, then for each whether it is. */
static __device__ uint32_t *tied_of(const kv_copy_arguments &a) {
    return reinterpret_cast<uint32_t *>(a.launch.workspace);
}

/* ---- the check ---- */

/* The first word of an entry that is not allowed, or ENTRY_WORDS; `most`: what is. */
static __device__ uint32_t bad_word(const kv_copy_arguments &a, const copy_entry &e,
                                    uint32_t &most) {
    const pwk_kv_layout &kv = a.p.kv;
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

static __device__ void check_body(const kv_copy_arguments &a) {
    uint32_t *shared = reinterpret_cast<uint32_t *>(SHARED());
    const uint32_t count = live_in_block(a.launch, COPY_COUNT, a.count, a.p.entries_max);
    if (threadIdx.x == 0) {
        tied_of(a)[0] = 0;
    }
    uint32_t bad = NO_ELEMENT, most = 0;
    for (uint32_t at = threadIdx.x; at < count && bad == NO_ELEMENT; at += CHECKERS) {
        bad = bad_word(a, entry_at(a, at), most) < ENTRY_WORDS ? at : NO_ELEMENT;
    }
    bad = least_in_block(shared, bad);
    if (bad != NO_ELEMENT && threadIdx.x == 0) {
        const uint32_t word = bad_word(a, entry_at(a, bad), most);
        const uint64_t at = uint64_t(bad) * ENTRY_WORDS + word;
        refuse(a.launch, PWK_FAULT_ELEMENT, COPY_ENTRIES, at, 0, most, a.entries[at]);
    }
}

/* ---- entries that meet no other ---- */

/* Whether tokens of two runs of so many are the same. */
static __device__ bool runs_meet(uint32_t page, uint32_t token, uint32_t tokens,
                                 uint32_t other_page, uint32_t other_token,
                                 uint32_t other_tokens) {
    return page == other_page && token < other_token + other_tokens &&
           other_token < token + tokens && tokens > 0 && other_tokens > 0;
}

/* Whether one writes what the other reads or writes. */
static __device__ bool entries_meet(const copy_entry &a, const copy_entry &b) {
    return runs_meet(a.to_page, a.to_token, a.tokens, b.to_page, b.to_token, b.tokens) ||
           runs_meet(a.to_page, a.to_token, a.tokens, b.from_page, b.from_token, b.tokens) ||
           runs_meet(a.from_page, a.from_token, a.tokens, b.to_page, b.to_token, b.tokens);
}

/* Whether the entry meets another, or itself. The same in every thread. */
static __device__ bool is_tied(const kv_copy_arguments &a, uint32_t at, uint32_t count,
                               const copy_entry &mine) {
    const bool itself = runs_meet(mine.from_page, mine.from_token, mine.tokens, mine.to_page,
                                  mine.to_token, mine.tokens);
    uint32_t met = itself ? at : NO_ELEMENT;
    for (uint32_t other = threadIdx.x; other < count && met == NO_ELEMENT; other += THREADS) {
        if (other != at && entries_meet(mine, entry_at(a, other))) {
            met = other;
        }
    }
    return least_in_block(reinterpret_cast<uint32_t *>(SHARED()), met) != NO_ELEMENT;
}

/* A block of cells: `outer` steps of `outer_bytes`, in each `inner` pieces of `inner_bytes`. */
struct copy_block {
    const char *from;
    char *to;
    uint32_t outer, inner;
    uint64_t outer_bytes, inner_bytes;
};

template <class T>
static __device__ void copy_pieces(const copy_block &b) {
    for (uint32_t at = threadIdx.x; at < b.outer * b.inner; at += THREADS) {
        const uint64_t offset = at / b.inner * b.outer_bytes + at % b.inner * b.inner_bytes;
        *reinterpret_cast<T *>(b.to + offset) = *reinterpret_cast<const T *>(b.from + offset);
    }
}

/* All tokens of an entry, of K or V of one head, in any order. */
static __device__ void copy_free(const kv_copy_arguments &a, const copy_entry &e, uint32_t part,
                                 uint32_t head) {
    const pwk_kv_layout &kv = a.p.kv;
    char *slab = kv_slab(kv, part, a.keys, a.values);
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
        copy_pieces<uint4>(b);
    } else if (cell_bytes == 4) {
        copy_pieces<uint32_t>(b);
    } else if (cell_bytes == 2) {
        copy_pieces<uint16_t>(b);
    } else {
        copy_pieces<uint8_t>(b);
    }
    if (kv.scales != PWK_KV_SCALES_TOKEN) {
        return;
    }
    const float *from = a.scales + kv_scale(kv, part, e.from_page, head, e.from_token);
    float *to = a.scales + kv_scale(kv, part, e.to_page, head, e.to_token);
    for (uint32_t token = threadIdx.x; token < e.tokens; token += THREADS) {
        to[token] = from[token];
    }
}

static __device__ void free_body(const kv_copy_arguments &a) {
    const uint32_t count = live_in_block(a.launch, COPY_COUNT, a.count, a.p.entries_max);
    uint32_t *tied = tied_of(a);
    for (uint32_t at = blockIdx.y; at < count; at += gridDim.y) {
        const copy_entry mine = entry_at(a, at);
        const bool waits = is_tied(a, at, count, mine);
        if (blockIdx.x == 0 && threadIdx.x == 0) {
            tied[1 + uint64_t(at)] = waits ? 1 : 0;
            if (waits) {
                atomicAdd(tied, 1u);
            }
        }
        const uint32_t columns = waits ? 0 : 2 * a.p.kv.kv_heads;
        for (uint32_t column = blockIdx.x; column < columns; column += gridDim.x) {
            copy_free(a, mine, column % 2, column / 2);
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
static __device__ void copy_run(const char *from, char *to, uint32_t tokens, uint64_t stride,
                                bool backward) {
    for (uint32_t first = 0; first < tokens; first += TOKENS) {
        T taken[TOKENS];
#pragma unroll
        for (uint32_t i = 0; i < TOKENS; i++) {
            const uint32_t step = first + i;
            if (step < tokens) {
                const uint64_t token = backward ? tokens - 1 - step : step;
                taken[i] = *reinterpret_cast<const T *>(from + token * stride);
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < TOKENS; i++) {
            const uint32_t step = first + i;
            if (step < tokens) {
                const uint64_t token = backward ? tokens - 1 - step : step;
                *reinterpret_cast<T *>(to + token * stride) = taken[i];
            }
        }
    }
}

/* A thread's bytes of all tied entries, in order. */
template <class T>
static __device__ void copy_tied(const kv_copy_arguments &a, uint32_t count,
                                 const copy_lane &lane) {
    const pwk_kv_layout &kv = a.p.kv;
    const uint32_t *tied = tied_of(a) + 1;
    const uint32_t cell_bytes = kv_cell_bytes(kv.dtype);
    char *slab = kv_slab(kv, lane.part, a.keys, a.values) + lane.offset;
    const uint64_t stride = kv_token_stride(kv, lane.part) * cell_bytes;
    for (uint32_t at = 0; at < count; at++) {
        if (tied[at] == 0) {
            continue;
        }
        const copy_entry e = entry_at(a, at);
        const char *from =
            slab + kv_cell(kv, lane.part, e.from_page, lane.head, e.from_token) * cell_bytes;
        char *to = slab + kv_cell(kv, lane.part, e.to_page, lane.head, e.to_token) * cell_bytes;
        copy_run<T>(from, to, e.tokens, stride, e.from_token < e.to_token);
    }
}

/* The scales of one head's K or V in all tied entries, in order. */
static __device__ void copy_tied_scales(const kv_copy_arguments &a, uint32_t count,
                                        const copy_lane &lane) {
    const pwk_kv_layout &kv = a.p.kv;
    const uint32_t *tied = tied_of(a) + 1;
    for (uint32_t at = 0; at < count; at++) {
        if (tied[at] == 0) {
            continue;
        }
        const copy_entry e = entry_at(a, at);
        const float *from =
            a.scales + kv_scale(kv, lane.part, e.from_page, lane.head, e.from_token);
        float *to = a.scales + kv_scale(kv, lane.part, e.to_page, lane.head, e.to_token);
        copy_run<uint32_t>(reinterpret_cast<const char *>(from), reinterpret_cast<char *>(to),
                           e.tokens, sizeof(float), e.from_token < e.to_token);
    }
}

/* One thread's part of a head's K or V: its cells, then, by one more thread, its scales. */
static __device__ void copy_column(const kv_copy_arguments &a, uint32_t count, uint32_t part,
                                   uint32_t head) {
    const pwk_kv_layout &kv = a.p.kv;
    const uint32_t cell_bytes = kv_cell_bytes(kv.dtype), cells = kv_dim_cells(kv);
    const uint64_t dim_bytes = kv_dim_stride(kv, part) * cell_bytes;
    const bool wide = dim_bytes == cell_bytes && cells * cell_bytes % 16 == 0 &&
                      is_wide(kv_slab(kv, part, a.keys, a.values), kv_token_steps(kv, part));
    const uint32_t lanes = wide ? cells * cell_bytes / 16 : cells;
    for (uint32_t at = threadIdx.x; at <= lanes; at += THREADS) {
        const copy_lane lane = {part, head, wide ? at * uint64_t(16) : at * dim_bytes};
        if (at == lanes) {
            if (kv.scales == PWK_KV_SCALES_TOKEN) {
                copy_tied_scales(a, count, lane);
            }
        } else if (wide) {
            copy_tied<uint4>(a, count, lane);
        } else if (cell_bytes == 4) {
            copy_tied<uint32_t>(a, count, lane);
        } else if (cell_bytes == 2) {
            copy_tied<uint16_t>(a, count, lane);
        } else {
            copy_tied<uint8_t>(a, count, lane);
        }
    }
}

static __device__ void tied_body(const kv_copy_arguments &a) {
    const uint32_t count = live(a.launch, COPY_COUNT, a.count, a.p.entries_max);
    if (count == 0 || *tied_of(a) == 0) {
        return;
    }
    const uint32_t columns = 2 * a.p.kv.kv_heads;
    for (uint32_t column = blockIdx.x; column < columns; column += gridDim.x) {
        copy_column(a, count, column % 2, column / 2);
    }
}

ENTRY(pw_kv_copy_check, CHECKERS, 1, kv_copy_arguments, check_body)
ENTRY(pw_kv_copy, THREADS, 8, kv_copy_arguments, free_body)
ENTRY(pw_kv_copy_tied, THREADS, 8, kv_copy_arguments, tied_body)
