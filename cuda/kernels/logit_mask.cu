/* logit_mask: lists, penalties, temperature and masks on rows of logits, by the order of the
 * contract, so with the CPU's bits.
 *
 * Launches: 1. one block goes over the step's buffers. 2. A block for each row: the first row
 * of a slot that counts tokens applies the lists of all rows of that slot, one after the other;
 * every entry leaves what its token's count was before it. 3. A block for each row and 4096
 * logits: biases and bans on the few tokens that they name, then one pass. A row sees counts
 * as they stood at its turn: where later rows of its slot have counted a token, what the
 * first of their entries left is taken. A row that only has masks is written where they say
 * no and not read; one that asks for nothing is not touched.
 * Memory: 16 KiB shared; a word for each row and half a one for each entry as workspace.
 * Not measured yet.
 */
#include "checks.h"
#include "masks.h"

struct logit_mask_arguments {
    pwk_logit_mask p;
    float *logits;
    const pwk_logit_mask_row *settings;
    const uint32_t *masks;
    const uint32_t *banned_starts;
    const uint32_t *banned;
    const uint32_t *bias_starts;
    const uint32_t *bias_tokens;
    const float *bias_values;
    uint16_t *counts;
    const uint32_t *counted_starts;
    const uint32_t *counted;
    const uint32_t *rows;
    pwk_launch launch;
};

/* Places among the buffers. */
constexpr uint32_t LOGIT_SETTINGS = 1;
constexpr uint32_t LOGIT_BANNED_STARTS = 3;
constexpr uint32_t LOGIT_BANNED = 4;
constexpr uint32_t LOGIT_BIAS_STARTS = 5;
constexpr uint32_t LOGIT_BIAS_TOKENS = 6;
constexpr uint32_t LOGIT_BIAS_VALUES = 7;
constexpr uint32_t LOGIT_COUNTED_STARTS = 9;
constexpr uint32_t LOGIT_COUNTED = 10;
constexpr uint32_t LOGIT_ROWS = 11;

constexpr uint32_t TILE = 4096;    /* logits of a block */
constexpr uint32_t THREADS = 256;  /* of a block, and entries of a list in hand */
constexpr uint32_t HASHES = 1024;  /* places for tokens in hand */

/* A row's part of a list. */
struct part {
    uint32_t first;
    uint32_t end;
};

static __device__ part part_of(const uint32_t *starts, uint64_t row) {
    return starts == nullptr ? part{0, 0} : part{starts[row], starts[row + 1]};
}

/* [rows_max] u32: the first later row of the same slot that counts tokens, or PWK_NONE. */
static __device__ uint32_t *next_rows(const logit_mask_arguments &a) {
    return reinterpret_cast<uint32_t *>(a.launch.workspace);
}

/* [counted_max] u16: the count of each entry's token before it. */
static __device__ uint16_t *counts_before(const logit_mask_arguments &a) {
    return reinterpret_cast<uint16_t *>(next_rows(a) + a.p.rows_max);
}

static __device__ bool is_penalised(const pwk_logit_mask_row &asked) {
    return asked.repetition != 1.0f || asked.presence != 0.0f || asked.frequency != 0.0f;
}

/* ---- 1: checks ---- */

static __device__ bool is_row_wrong(const pwk_logit_mask &p, const pwk_logit_mask_row &row) {
    const bool indices = is_index(row.mask, p.masks) && is_index(row.action, p.masks) &&
                         is_index(row.slot, p.slots);
    const bool finite = is_finite(row.temperature) && is_finite(row.repetition) &&
                        is_finite(row.presence) && is_finite(row.frequency);
    const bool ranges = row.temperature >= 0.0f && row.repetition > 0.0f;
    return !indices || !finite || !ranges || (row.slot == PWK_NONE && is_penalised(row));
}

/* Tells what is wrong with a row, the first thing first. */
static __device__ void refuse_row(const logit_mask_arguments &a, uint32_t at) {
    const pwk_logit_mask_row row = a.settings[at];
    const uint32_t indices[3] = {row.mask, row.action, row.slot};
    const uint32_t counts[3] = {a.p.masks, a.p.masks, a.p.slots};
    for (uint32_t i = 0; i < 3; i++) {
        if (!is_index(indices[i], counts[i])) {
            refuse_element(a.launch, LOGIT_SETTINGS, at, 0, int64_t(counts[i]) - 1, indices[i]);
            return;
        }
    }
    const bool finite = is_finite(row.temperature) && is_finite(row.repetition) &&
                        is_finite(row.presence) && is_finite(row.frequency);
    const bool below = row.temperature < 0.0f || row.repetition <= 0.0f;
    if (finite && !below) {
        refuse_element(a.launch, LOGIT_SETTINGS, at, 0, int64_t(a.p.slots) - 1, row.slot);
    } else if (threadIdx.x == 0) {
        const uint32_t kind = finite ? PWK_FAULT_BELOW : PWK_FAULT_NOT_FINITE;
        refuse(a.launch, kind, LOGIT_SETTINGS, at, 0, 0, 0);
    }
}

static __device__ bool are_starts_fine(const logit_mask_arguments &a, uint32_t *found,
                                       uint32_t rows, uint32_t field, const uint32_t *starts,
                                       uint32_t most) {
    return starts == nullptr || ascends(a.launch, field, found, starts, rows + 1, most);
}

static __device__ bool is_counting_fine(const logit_mask_arguments &a, uint32_t *found,
                                        uint32_t rows) {
    if (a.counted_starts == nullptr) {
        return true;
    }
    const uint32_t row = first_where(found, rows, [&](uint32_t i) {
        return a.settings[i].slot == PWK_NONE && a.counted_starts[i] < a.counted_starts[i + 1];
    });
    if (row != PWK_NONE) {
        refuse_element(a.launch, LOGIT_SETTINGS, row, 0, int64_t(a.p.slots) - 1, PWK_NONE);
        return false;
    }
    const uint32_t both = PWK_COUNTED_PROMPT | PWK_COUNTED_BACK;
    const uint32_t at = first_where(found, a.counted_starts[rows], [&](uint32_t i) {
        const uint32_t entry = a.counted[i];
        return (entry & PWK_COUNTED_TOKEN) >= a.p.vocab || (entry & both) == both;
    });
    if (at != PWK_NONE) {
        refuse_element(a.launch, LOGIT_COUNTED, at, 0, int64_t(a.p.vocab) - 1, a.counted[at]);
    }
    return at == PWK_NONE;
}

static __device__ void check_body(const logit_mask_arguments &a) {
    uint32_t *found = reinterpret_cast<uint32_t *>(SHARED());
    const pwk_logit_mask &p = a.p;
    const uint32_t rows = live_in_block(a.launch, LOGIT_ROWS, a.rows, p.rows_max);
    const uint32_t row =
        first_where(found, rows, [&](uint32_t i) { return is_row_wrong(p, a.settings[i]); });
    if (row != PWK_NONE) {
        refuse_row(a, row);
        return;
    }
    if (is_refused_in_block(a.launch) ||
        !are_starts_fine(a, found, rows, LOGIT_BANNED_STARTS, a.banned_starts, p.banned_max) ||
        !are_starts_fine(a, found, rows, LOGIT_BIAS_STARTS, a.bias_starts, p.bias_max) ||
        !are_starts_fine(a, found, rows, LOGIT_COUNTED_STARTS, a.counted_starts,
                         p.counted_max)) {
        return;
    }
    if (a.banned_starts != nullptr &&
        !words_below(a.launch, LOGIT_BANNED, found, a.banned, a.banned_starts[rows], p.vocab)) {
        return;
    }
    if (a.bias_starts != nullptr) {
        const uint32_t end = a.bias_starts[rows];
        if (!words_below(a.launch, LOGIT_BIAS_TOKENS, found, a.bias_tokens, end, p.vocab)) {
            return;
        }
        const uint32_t at =
            first_where(found, end, [&](uint32_t i) { return !is_finite(a.bias_values[i]); });
        if (at != PWK_NONE) {
            if (threadIdx.x == 0) {
                refuse(a.launch, PWK_FAULT_NOT_FINITE, LOGIT_BIAS_VALUES, at, 0, 0, 0);
            }
            return;
        }
    }
    is_counting_fine(a, found, rows);
}

/* ---- entries of a list, in order where they name the same thing ---- */

/* Calls `act(i)` for entries first to end: those of one `place(i)` in ascending order, others
 * side by side. `owners` holds PWK_NONE at every place, `waiting` is a word; both are shared.
 * An entry whose place is PWK_NONE is passed over. */
template <class Place, class Act>
static __device__ void in_order(uint32_t *owners, uint32_t *waiting, part list, Place place,
                                Act act) {
    for (uint64_t first = list.first; first < list.end; first += THREADS) {
        const uint64_t at = first + threadIdx.x;
        const uint32_t own = at < list.end ? place(uint32_t(at)) : PWK_NONE;
        bool pending = own != PWK_NONE;
        for (bool some = true; some;) {
            if (threadIdx.x == 0) {
                *waiting = 0;
            }
            if (pending) {
                atomicMin(&owners[own], uint32_t(at));
            }
            __syncthreads();
            const bool turn = pending && owners[own] == uint32_t(at);
            if (turn) {
                act(uint32_t(at));
            } else if (pending) {
                atomicOr(waiting, 1u);
            }
            __syncthreads();
            some = *waiting != 0;
            if (turn) {
                owners[own] = PWK_NONE;
                pending = false;
            }
            __syncthreads();
        }
    }
}

/* ---- 2: counts ---- */

/* A count behind one entry. */
static __device__ uint32_t counted_once(uint32_t count, uint32_t entry) {
    const uint32_t generated = count & PWK_COUNT_GENERATED;
    const uint32_t prompt = count & PWK_COUNT_PROMPT;
    if (entry & PWK_COUNTED_PROMPT) {
        return count | PWK_COUNT_PROMPT;
    }
    if (entry & PWK_COUNTED_BACK) {
        return prompt | (generated == 0 ? 0 : generated - 1);
    }
    return prompt | (generated == PWK_COUNT_GENERATED ? generated : generated + 1);
}

/* The first row from `first` on, below `end`, that counts tokens in a slot; or PWK_NONE. */
static __device__ uint32_t counting_row(const logit_mask_arguments &a, uint32_t *found,
                                        uint32_t slot, uint32_t first, uint32_t end) {
    const uint32_t at = first_where(found, end - first, [&](uint32_t i) {
        const uint64_t row = uint64_t(first) + i;
        return a.settings[row].slot == slot &&
               a.counted_starts[row] < a.counted_starts[row + 1];
    });
    return at == PWK_NONE ? PWK_NONE : first + at;
}

static __device__ void count_body(const logit_mask_arguments &a) {
    uint32_t *owners = reinterpret_cast<uint32_t *>(SHARED());
    uint32_t *found = owners + HASHES, *waiting = found + 1;
    const uint32_t rows = live(a.launch, LOGIT_ROWS, a.rows, a.p.rows_max);
    for (uint32_t place = threadIdx.x; place < HASHES; place += THREADS) {
        owners[place] = PWK_NONE;
    }
    for (uint64_t at = blockIdx.x; at < rows; at += gridDim.x) {
        const uint32_t first = uint32_t(at), slot = a.settings[first].slot;
        uint32_t next = PWK_NONE;
        if (slot != PWK_NONE) {
            next = counting_row(a, found, slot, first + 1, rows);
        }
        if (threadIdx.x == 0) {
            next_rows(a)[first] = next;
        }
        const part own = part_of(a.counted_starts, first);
        const bool leads = slot != PWK_NONE && own.first < own.end &&
                           counting_row(a, found, slot, 0, first) == PWK_NONE;
        if (!leads) {
            continue;
        }
        uint16_t *counts = a.counts + slot * a.p.counts_stride;
        for (uint32_t row = first; row != PWK_NONE;) {
            in_order(
                owners, waiting, part_of(a.counted_starts, row),
                [&](uint32_t i) { return a.counted[i] & (HASHES - 1); },
                [&](uint32_t i) {
                    const uint32_t entry = a.counted[i];
                    uint16_t *count = &counts[entry & PWK_COUNTED_TOKEN];
                    counts_before(a)[i] = *count;
                    *count = uint16_t(counted_once(*count, entry));
                });
            row = next;
            next = row == PWK_NONE ? PWK_NONE : counting_row(a, found, slot, row + 1, rows);
        }
    }
}

/* ---- 3: rows ---- */

/* Some columns of a row. */
struct logit_tile {
    const logit_mask_arguments &a;
    pwk_logit_mask_row asked;
    uint64_t row;
    uint32_t first; /* column */
    uint32_t count; /* columns */
    uint32_t *owners; /* [TILE], shared: PWK_NONE; then who left a count */
    uint32_t *waiting;

    __device__ float *logits() const { return a.logits + row * a.p.row_stride + first; }

    /* A token as a column of the tile, or PWK_NONE. */
    __device__ uint32_t column(uint32_t token) const {
        return token - first < count ? token - first : PWK_NONE;
    }
};

static __device__ void bias_and_ban(const logit_tile &tile) {
    const logit_mask_arguments &a = tile.a;
    float *x = tile.logits();
    in_order(
        tile.owners, tile.waiting, part_of(a.bias_starts, tile.row),
        [&](uint32_t i) { return tile.column(a.bias_tokens[i]); },
        [&](uint32_t i) { x[tile.column(a.bias_tokens[i])] += a.bias_values[i]; });
    const part banned = part_of(a.banned_starts, tile.row);
    for (uint64_t i = uint64_t(banned.first) + threadIdx.x; i < banned.end; i += THREADS) {
        const uint32_t column = tile.column(a.banned[i]);
        if (column != PWK_NONE) {
            x[column] = -PWK_INFINITY;
        }
    }
    __syncthreads();
}

/* Lets each column know the first later entry that counts its token; whether there is one. */
static __device__ bool find_later(const logit_tile &tile) {
    const logit_mask_arguments &a = tile.a;
    if (a.counted_starts == nullptr) {
        return false;
    }
    uint32_t next = next_rows(a)[tile.row];
    const bool some = next != PWK_NONE;
    for (; next != PWK_NONE; next = next_rows(a)[next]) {
        const part list = part_of(a.counted_starts, next);
        for (uint64_t i = uint64_t(list.first) + threadIdx.x; i < list.end; i += THREADS) {
            const uint32_t column = tile.column(a.counted[i] & PWK_COUNTED_TOKEN);
            if (column != PWK_NONE) {
                atomicMin(&tile.owners[column], uint32_t(i));
            }
        }
    }
    __syncthreads();
    return some;
}

/* Step 4 for one logit. */
static __device__ float penalised(float x, uint32_t count, const pwk_logit_mask_row &asked) {
    const uint32_t generated = count & PWK_COUNT_GENERATED;
    if (count > 0) {
        x = x > 0.0f ? x / asked.repetition : x * asked.repetition;
    }
    x = __fmaf_rn(-asked.frequency, float(generated), x);
    return generated > 0 ? x - asked.presence : x;
}

/* The bits of four tokens from a multiple of four on. */
static __device__ uint32_t allowed_four(const allowed_tokens &allowed, uint32_t token) {
    return allowed.word(token / 32) >> (token % 32) & 15u;
}

/* Four floats, at once where they lie so. */
static __device__ float4 load_four(const float *from, uint32_t count, bool whole) {
    if (whole) {
        return *reinterpret_cast<const float4 *>(from);
    }
    float4 x = {0.0f, 0.0f, 0.0f, 0.0f};
    x.x = from[0];
    x.y = count > 1 ? from[1] : 0.0f;
    x.z = count > 2 ? from[2] : 0.0f;
    x.w = count > 3 ? from[3] : 0.0f;
    return x;
}

static __device__ void store_four(float *to, float4 x, uint32_t keep, bool whole) {
    if (whole && keep == 15u) {
        *reinterpret_cast<float4 *>(to) = x;
        return;
    }
    const float values[4] = {x.x, x.y, x.z, x.w};
    for (uint32_t i = 0; i < 4; i++) {
        if (keep >> i & 1u) {
            to[i] = values[i];
        }
    }
}

/* Four counts, at once where they lie so. */
static __device__ void load_counts(uint32_t (&counts)[4], const uint16_t *from, uint32_t left) {
    if (left >= 4 && reinterpret_cast<uint64_t>(from) % 8 == 0) {
        const uint2 words = *reinterpret_cast<const uint2 *>(from);
        counts[0] = words.x & 0xffffu;
        counts[1] = words.x >> 16;
        counts[2] = words.y & 0xffffu;
        counts[3] = words.y >> 16;
        return;
    }
    for (uint32_t i = 0; i < 4; i++) {
        counts[i] = i < left ? from[i] : 0;
    }
}

/* Where masks say no, and nothing else. */
static __device__ void mask_tile(const logit_tile &tile, const allowed_tokens &allowed,
                                 bool wide) {
    float *x = tile.logits();
    const float4 never = {-PWK_INFINITY, -PWK_INFINITY, -PWK_INFINITY, -PWK_INFINITY};
    for (uint32_t at = threadIdx.x * 4; at < tile.count; at += THREADS * 4) {
        const uint32_t left = tile.count - at;
        const uint32_t valid = left < 4 ? (1u << left) - 1 : 15u;
        store_four(x + at, never, ~allowed_four(allowed, tile.first + at) & valid, wide);
    }
}

/* Penalties, temperature and masks. */
static __device__ void pass_tile(const logit_tile &tile, const allowed_tokens &allowed,
                                 bool wide, bool counted, bool later) {
    const logit_mask_arguments &a = tile.a;
    const float inverse = tile.asked.temperature == 0.0f ? 1.0f : 1.0f / tile.asked.temperature;
    const float factor = inverse > PWK_FLT_MAX ? PWK_FLT_MAX : inverse;
    const uint16_t *counts =
        counted ? a.counts + tile.asked.slot * a.p.counts_stride + tile.first : nullptr;
    float *x = tile.logits();
    for (uint32_t at = threadIdx.x * 4; at < tile.count; at += THREADS * 4) {
        const uint32_t left = tile.count - at;
        const bool whole = wide && left >= 4;
        const float4 four = load_four(x + at, left, whole);
        float values[4] = {four.x, four.y, four.z, four.w};
        const uint32_t bits = allowed_four(allowed, tile.first + at);
        uint32_t own[4] = {0, 0, 0, 0};
        if (counted) {
            load_counts(own, counts + at, left);
        }
        for (uint32_t i = 0; i < 4; i++) {
            if (counted) {
                const uint32_t owner = later ? tile.owners[at + i] : PWK_NONE;
                const uint32_t count = owner == PWK_NONE ? own[i] : counts_before(a)[owner];
                values[i] = penalised(values[i], count, tile.asked);
            }
            values[i] = bits >> i & 1u ? values[i] * factor : -PWK_INFINITY;
        }
        const float4 out = {values[0], values[1], values[2], values[3]};
        store_four(x + at, out, left < 4 ? (1u << left) - 1 : 15u, whole);
    }
}

static __device__ void rows_body(const logit_mask_arguments &a) {
    uint32_t *owners = reinterpret_cast<uint32_t *>(SHARED());
    const pwk_logit_mask &p = a.p;
    const uint64_t rows = live(a.launch, LOGIT_ROWS, a.rows, p.rows_max);
    const uint32_t tiles = (p.vocab + TILE - 1) / TILE;
    for (uint64_t piece = blockIdx.x; piece < rows * tiles; piece += gridDim.x) {
        const uint64_t row = piece / tiles;
        const uint32_t first = uint32_t(piece % tiles) * TILE;
        const uint32_t count = p.vocab - first < TILE ? p.vocab - first : TILE;
        const logit_tile tile = {a, a.settings[row], row, first, count, owners, owners + TILE};
        const part biased = part_of(a.bias_starts, row), banned = part_of(a.banned_starts, row);
        const bool counted = is_penalised(tile.asked);
        const float temperature = tile.asked.temperature;
        const bool listed = biased.first < biased.end || banned.first < banned.end;
        __syncthreads();
        if (listed || counted) {
            for (uint32_t column = threadIdx.x; column < TILE; column += THREADS) {
                owners[column] = PWK_NONE;
            }
            __syncthreads();
        }
        if (listed) {
            bias_and_ban(tile);
        }
        const bool later = counted && find_later(tile);
        const mask_slab slab = {a.masks, p.masks, p.mask_words};
        const allowed_tokens allowed = slab.both(tile.asked.mask, tile.asked.action);
        const bool wide = reinterpret_cast<uint64_t>(tile.logits()) % 16 == 0;
        if (counted || (temperature != 0.0f && temperature != 1.0f)) {
            pass_tile(tile, allowed, wide, counted, later);
        } else if (!allowed.are_all()) {
            mask_tile(tile, allowed, wide);
        }
    }
}

ENTRY(pw_logit_mask_check, 1024, 1, logit_mask_arguments, check_body)
ENTRY(pw_logit_mask_count, THREADS, 4, logit_mask_arguments, count_body)
ENTRY(pw_logit_mask, THREADS, 4, logit_mask_arguments, rows_body)
