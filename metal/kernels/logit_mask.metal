/* logit_mask: lists, penalties, temperature and masks on rows of logits, by the order of the
 * contract, so with the CPU's bits.
 *
 * Launches: 1. one threadgroup goes over the step's buffers. 2. A threadgroup for each row: the
 * first row of a slot that counts tokens applies the lists of all rows of that slot, one after
 * the other; every entry leaves what its token's count was before it. 3. A threadgroup for each
 * row and 4096 logits: biases and bans on the few tokens that they name, then one pass. A row
 * sees counts as they stood at its turn: where later rows of its slot have counted a token, what
 * the first of their entries left is taken. A row that only has masks is written where they say
 * no and not read; one that asks for nothing is not touched.
 * Memory: 16 KiB of a threadgroup; a word for each row and half a one for each entry as
 * workspace.
 * Emulated; not yet run on Apple hardware.
 */
#include "checks.h"
#include "masks.h"

struct logit_mask_arguments {
    pwk_logit_mask p;
    device float *logits;
    device const pwk_logit_mask_row *settings;
    device const uint32_t *masks;
    device const uint32_t *banned_starts;
    device const uint32_t *banned;
    device const uint32_t *bias_starts;
    device const uint32_t *bias_tokens;
    device const float *bias_values;
    device ushort *counts;
    device const uint32_t *counted_starts;
    device const uint32_t *counted;
    device const uint32_t *rows;
    launch_of_call launch;
};

/* Places among the buffers. */
constant constexpr uint32_t LOGIT_SETTINGS = 1;
constant constexpr uint32_t LOGIT_BANNED_STARTS = 3;
constant constexpr uint32_t LOGIT_BANNED = 4;
constant constexpr uint32_t LOGIT_BIAS_STARTS = 5;
constant constexpr uint32_t LOGIT_BIAS_TOKENS = 6;
constant constexpr uint32_t LOGIT_BIAS_VALUES = 7;
constant constexpr uint32_t LOGIT_COUNTED_STARTS = 9;
constant constexpr uint32_t LOGIT_COUNTED = 10;
constant constexpr uint32_t LOGIT_ROWS = 11;

constant constexpr uint32_t TILE = 4096;   /* logits of a threadgroup */
constant constexpr uint32_t THREADS = 256; /* of a threadgroup, and entries of a list in hand */
constant constexpr uint32_t CHECKERS = 512;
constant constexpr uint32_t HASHES = 1024; /* places for tokens in hand */

/* A row's part of a list. */
struct part {
    uint32_t first;
    uint32_t end;
};

static part part_of(device const uint32_t *starts, uint64_t row) {
    part own = {0, 0};
    if (starts != nullptr) {
        own.first = starts[row];
        own.end = starts[row + 1];
    }
    return own;
}

/* [rows_max] u32: the first later row of the same slot that counts tokens, or PWK_NONE. */
static device uint32_t *next_rows(constant logit_mask_arguments &a) {
    return reinterpret_cast<device uint32_t *>(a.launch.workspace);
}

/* [counted_max] u16: the count of each entry's token before it. */
static device ushort *counts_before(constant logit_mask_arguments &a) {
    return reinterpret_cast<device ushort *>(next_rows(a) + a.p.rows_max);
}

static bool is_penalised(thread const pwk_logit_mask_row &asked) {
    return asked.repetition != 1.0f || !pwk_is_zero(asked.presence) ||
           !pwk_is_zero(asked.frequency);
}

/* Lets the threads of a threadgroup see what each has written, to its memory and to buffers. */
static void meet() { threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device); }

/* ---- 1: checks ---- */

static bool are_finite(thread const pwk_logit_mask_row &row) {
    return is_finite(row.temperature) && is_finite(row.repetition) && is_finite(row.presence) &&
           is_finite(row.frequency);
}

/* Whether a number is above zero: by its bits, as pwk_is_zero. */
static bool is_positive(float x) { return int(PWK_BITS(x)) > 0; }

static bool are_in_range(thread const pwk_logit_mask_row &row) {
    return (pwk_is_zero(row.temperature) || is_positive(row.temperature)) &&
           is_positive(row.repetition);
}

/* Rows that ask for what they may not. */
struct is_row_wrong {
    constant logit_mask_arguments *a;

    bool operator()(uint32_t i) const {
        const pwk_logit_mask_row row = a->settings[i];
        const bool indices = is_index(row.mask, a->p.masks) && is_index(row.action, a->p.masks) &&
                             is_index(row.slot, a->p.slots);
        const bool slotless = row.slot == PWK_NONE && is_penalised(row);
        return !indices || !are_finite(row) || !are_in_range(row) || slotless;
    }
};

/* Floats that are infinite or NaN. */
struct is_not_finite {
    device const float *values;

    bool operator()(uint32_t i) const { return !is_finite(values[i]); }
};

/* Rows that count tokens and have no slot for it. */
struct is_slotless {
    constant logit_mask_arguments *a;

    bool operator()(uint32_t i) const {
        return a->settings[i].slot == PWK_NONE && a->counted_starts[i] < a->counted_starts[i + 1];
    }
};

/* Entries that name no token, or say two things of it. */
struct is_entry_wrong {
    constant logit_mask_arguments *a;

    bool operator()(uint32_t i) const {
        const uint32_t both = PWK_COUNTED_PROMPT | PWK_COUNTED_BACK;
        const uint32_t entry = a->counted[i];
        return (entry & PWK_COUNTED_TOKEN) >= a->p.vocab || (entry & both) == both;
    }
};

/* Tells what is wrong with a row, the first thing first. */
static void refuse_row(constant logit_mask_arguments &a, Place place, uint32_t at) {
    const pwk_logit_mask_row row = a.settings[at];
    const uint32_t indices[3] = {row.mask, row.action, row.slot};
    const uint32_t counts[3] = {a.p.masks, a.p.masks, a.p.slots};
    for (uint32_t i = 0; i < 3; i++) {
        if (!is_index(indices[i], counts[i])) {
            refuse_element(a.launch, place, LOGIT_SETTINGS, at, 0, int64_t(counts[i]) - 1,
                           indices[i]);
            return;
        }
    }
    const bool finite = are_finite(row);
    const bool below = !are_in_range(row);
    if (finite && !below) {
        refuse_element(a.launch, place, LOGIT_SETTINGS, at, 0, int64_t(a.p.slots) - 1, row.slot);
    } else if (place.thread_index == 0) {
        const uint32_t kind = finite ? PWK_FAULT_BELOW : PWK_FAULT_NOT_FINITE;
        refuse(a.launch, kind, LOGIT_SETTINGS, at, 0, 0, 0);
    }
}

static bool are_starts_fine(constant logit_mask_arguments &a, Place place, uint32_t field,
                            device const uint32_t *starts, uint32_t rows, uint32_t most) {
    return starts == nullptr ||
           ascends(a.launch, place, check_word(place), field, starts, rows + 1, most);
}

/* Whether a list names tokens of the vocabulary, up to where the last row's part ends. */
static bool are_tokens_fine(constant logit_mask_arguments &a, Place place, uint32_t field,
                            device const uint32_t *tokens, uint32_t count) {
    return check_elements(a.launch, place, check_word(place), field, tokens, count,
                          a.p.vocab - 1);
}

static bool are_biases_fine(constant logit_mask_arguments &a, Place place, uint32_t rows) {
    if (a.bias_starts == nullptr) {
        return true;
    }
    const uint32_t end = a.bias_starts[rows];
    if (!are_tokens_fine(a, place, LOGIT_BIAS_TOKENS, a.bias_tokens, end)) {
        return false;
    }
    const is_not_finite bad = {a.bias_values};
    const uint32_t at = first_where(place, check_word(place), end, bad);
    if (at != PWK_NONE && place.thread_index == 0) {
        refuse(a.launch, PWK_FAULT_NOT_FINITE, LOGIT_BIAS_VALUES, at, 0, 0, 0);
    }
    return at == PWK_NONE;
}

static void check_counting(constant logit_mask_arguments &a, Place place, uint32_t rows) {
    if (a.counted_starts == nullptr) {
        return;
    }
    const is_slotless bad_row = {&a};
    const uint32_t row = first_where(place, check_word(place), rows, bad_row);
    if (row != PWK_NONE) {
        refuse_element(a.launch, place, LOGIT_SETTINGS, row, 0, int64_t(a.p.slots) - 1, PWK_NONE);
        return;
    }
    const is_entry_wrong bad = {&a};
    const uint32_t at = first_where(place, check_word(place), a.counted_starts[rows], bad);
    if (at != PWK_NONE) {
        refuse_element(a.launch, place, LOGIT_COUNTED, at, 0, int64_t(a.p.vocab) - 1,
                       a.counted[at]);
    }
}

static void check_body(constant logit_mask_arguments &a, Place place) {
    constant pwk_logit_mask &p = a.p;
    const uint32_t rows = live_in_block(a.launch, place, LOGIT_ROWS, a.rows, p.rows_max);
    const is_row_wrong bad = {&a};
    const uint32_t row = first_where(place, check_word(place), rows, bad);
    if (row != PWK_NONE) {
        refuse_row(a, place, row);
        return;
    }
    if (is_refused_in_block(a.launch, place) ||
        !are_starts_fine(a, place, LOGIT_BANNED_STARTS, a.banned_starts, rows, p.banned_max) ||
        !are_starts_fine(a, place, LOGIT_BIAS_STARTS, a.bias_starts, rows, p.bias_max) ||
        !are_starts_fine(a, place, LOGIT_COUNTED_STARTS, a.counted_starts, rows,
                         p.counted_max)) {
        return;
    }
    if (a.banned_starts != nullptr &&
        !are_tokens_fine(a, place, LOGIT_BANNED, a.banned, a.banned_starts[rows])) {
        return;
    }
    if (are_biases_fine(a, place, rows)) {
        check_counting(a, place, rows);
    }
}

/* ---- entries of a list, in order where they name the same thing ---- */

/* Lets `work` act on entries first to end: those of one place (`work.place_of(i)`) in ascending
 * order, others side by side. `owners` holds PWK_NONE at every place, `waiting` is a word. An
 * entry whose place is PWK_NONE is passed over. */
template <class Work>
static void in_order(Place place, threadgroup atomic_uint *owners,
                     threadgroup atomic_uint *waiting, part list, Work work) {
    for (uint64_t first = list.first; first < list.end; first += THREADS) {
        const uint64_t at = first + place.thread_index;
        const uint32_t own = at < list.end ? work.place_of(uint32_t(at)) : PWK_NONE;
        bool pending = own != PWK_NONE;
        for (bool some = true; some;) {
            if (place.thread_index == 0) {
                atomic_store_explicit(waiting, 0u, memory_order_relaxed);
            }
            if (pending) {
                atomic_fetch_min_explicit(owners + own, uint32_t(at), memory_order_relaxed);
            }
            meet();
            const bool turn =
                pending &&
                atomic_load_explicit(owners + own, memory_order_relaxed) == uint32_t(at);
            if (turn) {
                work.act(uint32_t(at));
            } else if (pending) {
                atomic_fetch_or_explicit(waiting, 1u, memory_order_relaxed);
            }
            meet();
            some = atomic_load_explicit(waiting, memory_order_relaxed) != 0;
            if (turn) {
                atomic_store_explicit(owners + own, PWK_NONE, memory_order_relaxed);
                pending = false;
            }
            meet();
        }
    }
}

/* ---- 2: counts ---- */

/* A count behind one entry. */
static uint32_t counted_once(uint32_t count, uint32_t entry) {
    const uint32_t generated = count & PWK_COUNT_GENERATED;
    const uint32_t prompt = count & PWK_COUNT_PROMPT;
    if ((entry & PWK_COUNTED_PROMPT) != 0) {
        return count | PWK_COUNT_PROMPT;
    }
    if ((entry & PWK_COUNTED_BACK) != 0) {
        return prompt | (generated == 0 ? 0 : generated - 1);
    }
    return prompt | (generated == PWK_COUNT_GENERATED ? generated : generated + 1);
}

/* Rows from one on that count tokens in a slot. */
struct is_counting_row {
    constant logit_mask_arguments *a;
    uint32_t slot;
    uint32_t first;

    bool operator()(uint32_t i) const {
        const uint64_t row = uint64_t(first) + i;
        return a->settings[row].slot == slot &&
               a->counted_starts[row] < a->counted_starts[row + 1];
    }
};

/* The first row from `first` on, below `end`, that counts tokens in a slot; or PWK_NONE. */
static uint32_t counting_row(constant logit_mask_arguments &a, Place place,
                             threadgroup atomic_uint *found, uint32_t slot, uint32_t first,
                             uint32_t end) {
    const is_counting_row counts = {&a, slot, first};
    const uint32_t at = first_where(place, found, end - first, counts);
    return at == PWK_NONE ? PWK_NONE : first + at;
}

/* Entries of a list, counted. */
struct count_entries {
    constant logit_mask_arguments *a;
    device ushort *counts; /* of the slot */

    uint32_t place_of(uint32_t i) const { return a->counted[i] & (HASHES - 1); }

    void act(uint32_t i) const {
        const uint32_t entry = a->counted[i];
        device ushort *count = counts + (entry & PWK_COUNTED_TOKEN);
        counts_before(*a)[i] = *count;
        *count = static_cast<ushort>(counted_once(*count, entry));
    }
};

static void count_body(constant logit_mask_arguments &a, Place place) {
    threadgroup atomic_uint *found = check_word(place), *waiting = found + 1;
    threadgroup atomic_uint *owners = found + CHECK_WORDS;
    const uint32_t rows = live(a.launch, place, LOGIT_ROWS, a.rows, a.p.rows_max);
    for (uint32_t at = place.thread_index; at < HASHES; at += THREADS) {
        atomic_store_explicit(owners + at, PWK_NONE, memory_order_relaxed);
    }
    meet();
    for (uint64_t at = place.group.x; at < rows; at += place.group_count.x) {
        const uint32_t first = uint32_t(at), slot = a.settings[first].slot;
        uint32_t next = PWK_NONE;
        if (slot != PWK_NONE) {
            next = counting_row(a, place, found, slot, first + 1, rows);
        }
        if (place.thread_index == 0) {
            next_rows(a)[first] = next;
        }
        const part own = part_of(a.counted_starts, first);
        const bool leads = slot != PWK_NONE && own.first < own.end &&
                           counting_row(a, place, found, slot, 0, first) == PWK_NONE;
        if (!leads) {
            continue;
        }
        const count_entries work = {&a, a.counts + slot * a.p.counts_stride};
        for (uint32_t row = first; row != PWK_NONE;) {
            in_order(place, owners, waiting, part_of(a.counted_starts, row), work);
            row = next;
            next = row == PWK_NONE ? PWK_NONE
                                   : counting_row(a, place, found, slot, row + 1, rows);
        }
    }
}

/* ---- 3: rows ---- */

/* Some columns of a row. */
struct logit_tile {
    pwk_logit_mask_row asked;
    uint64_t row;
    uint32_t first; /* column */
    uint32_t count; /* columns */
    device float *logits;
    threadgroup atomic_uint *owners; /* [TILE]: PWK_NONE; then who left a count */
    threadgroup atomic_uint *waiting;
};

/* A token as a column of the tile, or PWK_NONE. */
static uint32_t column_of(thread const logit_tile &tile, uint32_t token) {
    return token - tile.first < tile.count ? token - tile.first : PWK_NONE;
}

/* Biases of the tokens of a tile. */
struct add_biases {
    constant logit_mask_arguments *a;
    device float *logits;
    uint32_t first;
    uint32_t count;

    uint32_t place_of(uint32_t i) const {
        const uint32_t column = a->bias_tokens[i] - first;
        return column < count ? column : PWK_NONE;
    }

    void act(uint32_t i) const { logits[place_of(i)] += a->bias_values[i]; }
};

static void bias_and_ban(constant logit_mask_arguments &a, Place place,
                         thread const logit_tile &tile) {
    const add_biases work = {&a, tile.logits, tile.first, tile.count};
    in_order(place, tile.owners, tile.waiting, part_of(a.bias_starts, tile.row), work);
    const part banned = part_of(a.banned_starts, tile.row);
    for (uint64_t i = uint64_t(banned.first) + place.thread_index; i < banned.end; i += THREADS) {
        const uint32_t column = column_of(tile, a.banned[i]);
        if (column != PWK_NONE) {
            tile.logits[column] = -PWK_INFINITY;
        }
    }
    meet();
}

/* Lets each column know the first later entry that counts its token; whether there is one. */
static bool find_later(constant logit_mask_arguments &a, Place place,
                       thread const logit_tile &tile) {
    if (a.counted_starts == nullptr) {
        return false;
    }
    uint32_t next = next_rows(a)[tile.row];
    const bool some = next != PWK_NONE;
    for (; next != PWK_NONE; next = next_rows(a)[next]) {
        const part list = part_of(a.counted_starts, next);
        for (uint64_t i = uint64_t(list.first) + place.thread_index; i < list.end; i += THREADS) {
            const uint32_t column = column_of(tile, a.counted[i] & PWK_COUNTED_TOKEN);
            if (column != PWK_NONE) {
                atomic_fetch_min_explicit(tile.owners + column, uint32_t(i),
                                          memory_order_relaxed);
            }
        }
    }
    meet();
    return some;
}

/* Step 4 for one logit. */
static float penalised(float x, uint32_t count, thread const pwk_logit_mask_row &asked) {
    const uint32_t generated = count & PWK_COUNT_GENERATED;
    if (count > 0) {
        x = x > 0.0f ? x / asked.repetition : x * asked.repetition;
    }
    x = PWK_FMA(-asked.frequency, float(generated), x);
    return generated > 0 ? x - asked.presence : x;
}

/* The bits of four tokens from a multiple of four on. */
static uint32_t allowed_four(allowed_tokens allowed, uint32_t token) {
    return allowed_word(allowed, token / 32) >> (token % 32) & 15u;
}

/* Four floats, at once where they lie so. */
static float4 load_four(device const float *from, uint32_t count, bool whole) {
    if (whole) {
        return *reinterpret_cast<device const float4 *>(from);
    }
    return float4(from[0], count > 1 ? from[1] : 0.0f, count > 2 ? from[2] : 0.0f,
                  count > 3 ? from[3] : 0.0f);
}

static void store_four(device float *to, float4 x, uint32_t keep, bool whole) {
    if (whole && keep == 15u) {
        *reinterpret_cast<device float4 *>(to) = x;
        return;
    }
    const float values[4] = {x.x, x.y, x.z, x.w};
    for (uint32_t i = 0; i < 4; i++) {
        if (((keep >> i) & 1u) != 0) {
            to[i] = values[i];
        }
    }
}

/* Four counts, at once where they lie so. */
static void load_counts(thread uint32_t *counts, device const ushort *from, uint32_t left) {
    if (left >= 4 && reinterpret_cast<uint64_t>(from) % 8 == 0) {
        const uint2 words = *reinterpret_cast<device const uint2 *>(from);
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

/* The bits of the columns that there are, of four. */
static uint32_t valid_four(uint32_t left) { return left < 4 ? (1u << left) - 1 : 15u; }

/* Where masks say no, and nothing else. */
static void mask_tile(Place place, thread const logit_tile &tile,
                      allowed_tokens allowed, bool wide) {
    for (uint32_t at = place.thread_index * 4; at < tile.count; at += THREADS * 4) {
        const uint32_t never = ~allowed_four(allowed, tile.first + at);
        store_four(tile.logits + at, float4(-PWK_INFINITY), never & valid_four(tile.count - at),
                   wide);
    }
}

/* Penalties, temperature and masks. */
static void pass_tile(constant logit_mask_arguments &a, Place place,
                      thread const logit_tile &tile, allowed_tokens allowed,
                      bool wide, bool counted, bool later) {
    const float temperature = tile.asked.temperature;
    const float inverse = pwk_is_zero(temperature) ? 1.0f : 1.0f / temperature;
    const float factor = inverse > PWK_FLT_MAX ? PWK_FLT_MAX : inverse;
    device const ushort *counts =
        counted ? a.counts + tile.asked.slot * a.p.counts_stride + tile.first : nullptr;
    for (uint32_t at = place.thread_index * 4; at < tile.count; at += THREADS * 4) {
        const uint32_t left = tile.count - at;
        const bool whole = wide && left >= 4;
        const float4 four = load_four(tile.logits + at, left, whole);
        float values[4] = {four.x, four.y, four.z, four.w};
        const uint32_t bits = allowed_four(allowed, tile.first + at);
        uint32_t own[4] = {0, 0, 0, 0};
        if (counted) {
            load_counts(own, counts + at, left);
        }
        for (uint32_t i = 0; i < 4; i++) {
            if (counted) {
                const uint32_t owner =
                    later ? atomic_load_explicit(tile.owners + at + i, memory_order_relaxed)
                          : PWK_NONE;
                const uint32_t count = owner == PWK_NONE ? own[i] : counts_before(a)[owner];
                values[i] = penalised(values[i], count, tile.asked);
            }
            values[i] = ((bits >> i) & 1u) != 0 ? values[i] * factor : -PWK_INFINITY;
        }
        const float4 out = float4(values[0], values[1], values[2], values[3]);
        store_four(tile.logits + at, out, valid_four(left), whole);
    }
}

static void rows_body(constant logit_mask_arguments &a, Place place) {
    constant pwk_logit_mask &p = a.p;
    threadgroup atomic_uint *waiting = check_word(place), *owners = waiting + CHECK_WORDS;
    const uint64_t rows = live(a.launch, place, LOGIT_ROWS, a.rows, p.rows_max);
    const uint32_t tiles = (p.vocab + TILE - 1) / TILE;
    for (uint64_t piece = place.group.x; piece < rows * tiles; piece += place.group_count.x) {
        const uint64_t row = piece / tiles;
        const uint32_t first = uint32_t(piece % tiles) * TILE;
        const uint32_t count = p.vocab - first < TILE ? p.vocab - first : TILE;
        device float *logits = a.logits + row * p.row_stride + first;
        const logit_tile tile = {a.settings[row], row, first, count, logits, owners, waiting};
        const part biased = part_of(a.bias_starts, row), banned = part_of(a.banned_starts, row);
        const bool counted = is_penalised(tile.asked);
        const float temperature = tile.asked.temperature;
        const bool listed = biased.first < biased.end || banned.first < banned.end;
        meet();
        if (listed || counted) {
            for (uint32_t column = place.thread_index; column < TILE; column += THREADS) {
                atomic_store_explicit(owners + column, PWK_NONE, memory_order_relaxed);
            }
            meet();
        }
        if (listed) {
            bias_and_ban(a, place, tile);
        }
        const bool later = counted && find_later(a, place, tile);
        const mask_slab slab = {a.masks, p.masks, p.mask_words};
        const allowed_tokens allowed = both_masks(slab, tile.asked.mask, tile.asked.action);
        const bool wide = reinterpret_cast<uint64_t>(logits) % 16 == 0;
        if (counted || (!pwk_is_zero(temperature) && temperature != 1.0f)) {
            pass_tile(a, place, tile, allowed, wide, counted, later);
        } else if (allowed.one != nullptr) {
            mask_tile(place, tile, allowed, wide);
        }
    }
}

ENTRY(pw_logit_mask_check, CHECKERS, logit_mask_arguments, check_body)
ENTRY(pw_logit_mask_count, THREADS, logit_mask_arguments, count_body)
ENTRY(pw_logit_mask, THREADS, logit_mask_arguments, rows_body)
