/* append_kv: new keys and values into pages, turned and rounded on the way, with the CPU's
 * bits.
 *
 * A first launch of one threadgroup checks the step. It tells slots apart by a table with open
 * addresses, in threadgroup memory where it has room for it, else in the workspace.
 *
 * Tiling: a threadgroup takes K or V of one head of 16 rows. As many threads as a row has
 * pieces of eight dims, up to a power of two, encode it: the largest magnitude folds by
 * shuffles, which any order does. Where a token's dims lie side by side each thread writes its
 * cells at once. Where they do not (K transposed), cells go by way of threadgroup memory and
 * neighbouring threads write neighbouring rows, which mostly are neighbouring tokens. Memory:
 * at most 17 KiB of a threadgroup.
 * Emulated; not yet run on Apple hardware.
 */
#include "checks.h"
#include "kv_layout.h"
#include "pieces.h"
#include "turn.h"

struct append_kv_arguments {
    pwk_append_kv p;
    device const uchar *k;
    device const uchar *v;
    device uchar *keys;
    device uchar *values;
    device float *scales;
    device const uint32_t *slots;
    device const uint32_t *slot_starts;
    device const uchar *table;
    device const uint32_t *positions;
    device const uint32_t *rows;
    launch_of_call launch;
};

constant constexpr uint32_t APPEND_SLOTS = 5; /* places among the buffers */
constant constexpr uint32_t APPEND_STARTS = 6;
constant constexpr uint32_t APPEND_POSITIONS = 8;
constant constexpr uint32_t APPEND_ROWS = 9;
constant constexpr uint32_t THREADS = 256;
constant constexpr uint32_t CHECKERS = 512;
constant constexpr uint32_t ROWS = 16; /* rows of a threadgroup */
constant constexpr float SCALE_LEAST = 1.17549435e-38f;

/* ---- the check ---- */

/* Slots of the rows in use. */
struct used_slots {
    device const uint32_t *slots; /* the first one's page and token */
    uint32_t first;               /* its number */
    uint32_t count;
};

/* The larger of a slot's two words that is allowed. */
static uint32_t slot_most(constant append_kv_arguments &a, uint64_t word) {
    return word % 2 == 0 ? a.p.kv.pages - 1 : a.p.kv.page_len - 1;
}

/* Whether every slot lies in the pages. */
static bool check_slots(constant append_kv_arguments &a, Place place,
                        thread const used_slots &used) {
    uint32_t bad = PWK_NONE;
    const uint64_t words = 2 * uint64_t(used.count);
    for (uint64_t at = place.thread_index; at < words && bad == PWK_NONE; at += CHECKERS) {
        bad = used.slots[at] > slot_most(a, at) ? uint32_t(at) : PWK_NONE;
    }
    bad = least_in_block(place, check_word(place), bad);
    if (bad != PWK_NONE) {
        const uint64_t at = 2 * uint64_t(used.first) + bad;
        refuse_element(a.launch, place, APPEND_SLOTS, at, 0, slot_most(a, bad), used.slots[bad]);
    }
    return bad == PWK_NONE;
}

/* Where the search for a slot begins, in a table of mask + 1 places. */
static uint32_t first_place(thread const used_slots &used, uint32_t slot, uint32_t mask) {
    const uint64_t page = used.slots[2 * uint64_t(slot)];
    const uint64_t key = page << 32 | used.slots[2 * uint64_t(slot) + 1];
    return static_cast<uint32_t>((key * 0x9e3779b97f4a7c15ul) >> 32) & mask;
}

static bool are_same(thread const used_slots &used, uint32_t one, uint32_t other) {
    device const uint32_t *a = used.slots + 2 * uint64_t(one);
    device const uint32_t *b = used.slots + 2 * uint64_t(other);
    return a[0] == b[0] && a[1] == b[1];
}

/* What is at a place of the table, where a slot is put if nothing was: then 0. */
template <class Seen>
static uint32_t put_once(Seen seen, uint32_t slot) {
    uint32_t there = 0;
    while (there == 0 &&
           !atomic_compare_exchange_weak_explicit(seen, &there, slot + 1, memory_order_relaxed,
                                                  memory_order_relaxed)) {
    }
    return there;
}

/* Puts a slot into the table, whose places hold the least number that names a slot, and one
 * more. PWK_NONE if no other was there that names it, or the later of the two. */
template <class Seen>
static uint32_t put_slot(thread const used_slots &used, Seen seen, uint32_t mask,
                         uint32_t slot) {
    uint32_t at = first_place(used, slot, mask);
    for (;;) {
        const uint32_t there = put_once(seen + at, slot);
        if (there == 0) {
            return PWK_NONE;
        }
        if (are_same(used, slot, there - 1)) {
            const uint32_t earlier =
                atomic_fetch_min_explicit(seen + at, slot + 1, memory_order_relaxed) - 1;
            return earlier > slot ? earlier : slot;
        }
        at = (at + 1) & mask;
    }
}

/* Whether no slot is named twice, by a table that is cleared and visible; else the first that
 * an earlier one names too is told. */
template <class Seen>
static bool check_repeats(constant append_kv_arguments &a, Place place,
                          thread const used_slots &used, Seen seen) {
    const uint32_t mask = a.launch.part;
    uint32_t repeated = PWK_NONE;
    for (uint32_t slot = place.thread_index; slot < used.count; slot += CHECKERS) {
        const uint32_t later = put_slot(used, seen, mask, slot);
        repeated = later < repeated ? later : repeated;
    }
    repeated = least_in_block(place, check_word(place), repeated);
    if (repeated != PWK_NONE && place.thread_index == 0) {
        uint32_t at = first_place(used, repeated, mask);
        uint32_t there = atomic_load_explicit(seen + at, memory_order_relaxed);
        while (!are_same(used, repeated, there - 1)) {
            at = (at + 1) & mask;
            there = atomic_load_explicit(seen + at, memory_order_relaxed);
        }
        const uint64_t told = 2 * (uint64_t(used.first) + repeated);
        const int64_t earlier = 2 * (int64_t(used.first) + there - 1);
        refuse(a.launch, PWK_FAULT_REPEATED, APPEND_SLOTS, told, earlier, 0, 0);
    }
    return repeated == PWK_NONE;
}

/* The same, by a table in threadgroup memory or in the workspace, cleared first. */
static bool are_distinct(constant append_kv_arguments &a, Place place,
                         thread const used_slots &used) {
    const uint32_t mask = a.launch.part;
    threadgroup atomic_uint *near = check_word(place) + CHECK_WORDS;
    device atomic_uint *far = reinterpret_cast<device atomic_uint *>(a.launch.workspace);
    const bool is_near = a.launch.tile != 0;
    for (uint64_t at = place.thread_index; at <= mask; at += CHECKERS) {
        if (is_near) {
            atomic_store_explicit(near + at, 0u, memory_order_relaxed);
        } else {
            atomic_store_explicit(far + at, 0u, memory_order_relaxed);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
    return is_near ? check_repeats(a, place, used, near) : check_repeats(a, place, used, far);
}

static void check_body(constant append_kv_arguments &a, Place place) {
    constant pwk_append_kv &p = a.p;
    const uint32_t rows = live_in_block(a.launch, place, APPEND_ROWS, a.rows, p.rows_max);
    if (is_refused_in_block(a.launch, place)) {
        return;
    }
    used_slots used = {a.slots, 0, rows};
    if (a.slot_starts != nullptr) {
        if (!check_ascending(a.launch, place, check_word(place), APPEND_STARTS, a.slot_starts,
                             rows + 1, p.slots_max)) {
            return;
        }
        used.first = a.slot_starts[0];
        used.count = a.slot_starts[rows] - used.first;
        used.slots = a.slots + 2 * uint64_t(used.first);
    }
    if (check_slots(a, place, used) && are_distinct(a, place, used) && a.positions != nullptr) {
        check_elements(a.launch, place, check_word(place), APPEND_POSITIONS, a.positions, rows,
                       p.table_len - 1);
    }
}

/* ---- a piece, encoded ---- */

/* Turns eight dims of a key from `first` on, and rounds them as rope would store them. */
static void turn_piece(constant append_kv_arguments &a, uint64_t row, uint64_t from,
                       uint32_t first, bool wide, thread float *x) {
    constant pwk_append_kv &p = a.p;
    const uint32_t pairs = p.rotary_dims / 2;
    const uint64_t cosines = uint64_t(a.positions[row]) * p.rotary_dims;
    const uint64_t sines = cosines + pairs;
    const bool apart = p.rope == PWK_ROPE_NEOX;
    float other[PIECE], cosine[PIECE], sine[PIECE];
    if (apart && pairs % PIECE == 0) {
        const bool is_first = first < pairs;
        const uint32_t pair = is_first ? first : first - pairs;
        const uint64_t partner = from + (is_first ? first + pairs : pair);
        const bool wide_table = is_wide(a.table, 0);
        load_piece(p.x_dtype, a.k, partner, PIECE, wide, other);
        load_piece(PWK_DTYPE_F32, a.table, cosines + pair, PIECE, wide_table, cosine);
        load_piece(PWK_DTYPE_F32, a.table, sines + pair, PIECE, wide_table, sine);
    } else {
        for (uint32_t i = 0; i < PIECE; i++) {
            const uint32_t dim = first + i;
            const bool turns = dim < p.rotary_dims;
            const uint32_t across = dim < pairs ? dim + pairs : dim - pairs;
            const uint32_t partner = apart ? across : (dim ^ 1);
            const uint32_t pair = apart ? (dim < pairs ? dim : dim - pairs) : dim / 2;
            other[i] = turns ? load_float(p.x_dtype, a.k, from + partner) : 0.0f;
            cosine[i] = turns ? load_float(PWK_DTYPE_F32, a.table, cosines + pair) : 0.0f;
            sine[i] = turns ? load_float(PWK_DTYPE_F32, a.table, sines + pair) : 0.0f;
        }
    }
    for (uint32_t i = 0; i < PIECE; i++) {
        const uint32_t dim = first + i;
        const bool is_first = apart ? dim < pairs : dim % 2 == 0;
        const float turned = is_first ? turned_first(x[i], other[i], cosine[i], sine[i])
                                      : turned_second(other[i], x[i], cosine[i], sine[i]);
        x[i] = dim < p.rotary_dims ? rounded(p.x_dtype, turned) : x[i];
    }
}

/* The scale of a token whose largest magnitude has these bits. */
static float token_scale(uint32_t dtype, uint32_t most) {
    const float steps =
        dtype == PWK_DTYPE_E4M3 ? 448.0f : (dtype == PWK_DTYPE_I8 ? 127.0f : 7.0f);
    const float scale = as_type<float>(most) / steps;
    return most >= 0x7f800000u ? PWK_NAN : (scale < SCALE_LEAST ? 0.0f : scale);
}

/* x / scale as a whole number within most; 0 for NaN. */
static uint32_t whole(float x, float scale, float most) {
    x = x / scale;
    x = x > most ? most : x;
    x = -most > x ? -most : x;
    return static_cast<uint32_t>(PWK_NEAREST(x == x ? x : 0.0f));
}

/* Words that eight elements take: 8, 4, 2 or 1. */
static uint32_t piece_words(uint32_t dtype) {
    return kv_cell_bytes(dtype) * 2 / kv_per_cell(dtype);
}

/* The cells of eight numbers, the first ones low. A scale of 0 or NaN says it all. */
static void encode_piece(uint32_t dtype, thread const float *x, float scale,
                         thread uint32_t *words) {
    const bool says_all = scale == 0.0f || scale != scale;
    for (uint32_t i = 0; i < PIECE; i++) {
        words[i] = 0;
    }
    if (dtype == PWK_DTYPE_F32) {
        for (uint32_t i = 0; i < PIECE; i++) {
            words[i] = as_type<uint>(x[i]);
        }
    } else if (dtype == PWK_DTYPE_F16 || dtype == PWK_DTYPE_BF16) {
        for (uint32_t i = 0; i < PIECE / 2; i++) {
            words[i] = packed_pair(dtype, x[2 * i], x[2 * i + 1]);
        }
    } else if (!says_all) {
        for (uint32_t i = 0; i < PIECE; i++) {
            if (dtype == PWK_DTYPE_I4) {
                words[0] |= (whole(x[i], scale, 7.0f) & 15u) << (4 * i);
            } else {
                const uint32_t code = dtype == PWK_DTYPE_I8 ? whole(x[i], scale, 127.0f)
                                                            : pwk_e4m3_of(x[i] / scale);
                words[i / 4] |= (code & 255u) << (i % 4 * 8);
            }
        }
    }
}

/* ---- what writes ---- */

/* K or V of one head, of ROWS rows. */
struct append_tile {
    uint32_t part;
    uint32_t head;
    uint64_t row; /* the first one */
    uint32_t rows;
    device uchar *slab;
};

static uint64_t first_slot(constant append_kv_arguments &a, uint64_t row) {
    return a.slot_starts == nullptr ? row : a.slot_starts[row];
}

/* Where the tile's cells of a slot begin. */
static device uchar *slot_cells(constant append_kv_arguments &a, thread const append_tile &tile,
                                uint64_t slot) {
    const uint32_t page = a.slots[2 * slot], token = a.slots[2 * slot + 1];
    return tile.slab +
           kv_cell(a.p.kv, tile.part, page, tile.head, token) * kv_cell_bytes(a.p.kv.dtype);
}

/* Cells side by side, as one write of so many words or cell by cell. */
static void write_piece(device uchar *to, uint32_t cell_bytes, uint32_t words, bool wide,
                        thread const uint32_t *cells) {
    if (wide && words >= 4) {
        device uint4 *fours = reinterpret_cast<device uint4 *>(to);
        fours[0] = uint4(cells[0], cells[1], cells[2], cells[3]);
        if (words == 8) {
            fours[1] = uint4(cells[4], cells[5], cells[6], cells[7]);
        }
        return;
    }
    if (wide && words == 2) {
        *reinterpret_cast<device uint2 *>(to) = uint2(cells[0], cells[1]);
        return;
    }
    for (uint32_t i = 0; i < words; i++) {
        if (wide || cell_bytes == 4) {
            reinterpret_cast<device uint *>(to)[i] = cells[i];
        } else if (cell_bytes == 2) {
            reinterpret_cast<device ushort *>(to)[2 * i] = static_cast<ushort>(cells[i]);
            reinterpret_cast<device ushort *>(to)[2 * i + 1] =
                static_cast<ushort>(cells[i] >> 16);
        } else {
            for (uint32_t byte = 0; byte < 4; byte++) {
                to[4 * i + byte] = static_cast<uchar>(cells[i] >> (8 * byte));
            }
        }
    }
}

/* Words from one row's cells to the next in threadgroup memory: odd, so that rows meet in few
 * banks. */
static uint32_t staged_words(constant pwk_kv_layout &kv) {
    return (kv.head_dim / PIECE * piece_words(kv.dtype)) | 1;
}

/* The largest magnitude of a group's eights, as its bits. Every lane comes here. */
static uint32_t largest_of(thread const float *x, uint32_t group) {
    uint32_t most = 0;
    for (uint32_t i = 0; i < PIECE; i++) {
        const uint32_t magnitude = as_type<uint>(x[i]) & 0x7fffffffu;
        most = magnitude > most ? magnitude : most;
    }
    for (uint32_t lanes = group / 2; lanes > 0; lanes /= 2) {
        const uint32_t others = simd_shuffle_xor(most, static_cast<ushort>(lanes));
        most = others > most ? others : most;
    }
    return most;
}

/* The least power of two that is a number, 1 to 32, or more. */
static uint32_t power_from(uint32_t number) {
    uint32_t power = 1;
    while (power < number) {
        power *= 2;
    }
    return power;
}

/* Encodes the tile: to its slots where dims lie side by side, else to threadgroup memory. */
static void encode_tile(constant append_kv_arguments &a, Place place,
                        thread const append_tile &tile, threadgroup uint32_t *staged,
                        bool direct) {
    constant pwk_kv_layout &kv = a.p.kv;
    const bool keys = tile.part == KV_KEYS;
    device const uchar *x = keys ? a.k : a.v;
    const uint64_t stride = keys ? a.p.k_row_stride : a.p.v_row_stride;
    const bool wide = is_wide_row(a.p.x_dtype, x, stride);
    const bool wide_out = is_wide(tile.slab, kv_token_steps(kv, tile.part));
    const uint32_t pieces = kv.head_dim / PIECE, words = piece_words(kv.dtype);
    const uint32_t group = power_from(pieces), items = ROWS * group;
    const uint32_t passes = (items + THREADS - 1) / THREADS;
    for (uint32_t pass = 0; pass < passes; pass++) {
        const uint32_t item = pass * THREADS + place.thread_index;
        const uint32_t local = item / group, piece = item % group;
        const uint64_t row = tile.row + local;
        const bool mine = local < tile.rows && piece < pieces;
        const uint64_t from = row * stride + uint64_t(tile.head) * kv.head_dim;
        float number[PIECE] = {0.0f};
        if (mine) {
            load_piece(a.p.x_dtype, x, from + piece * PIECE, PIECE, wide, number);
            if (keys && piece * PIECE < a.p.rotary_dims) {
                turn_piece(a, row, from, piece * PIECE, wide, number);
            }
        }
        float scale = keys ? kv.k_scale : kv.v_scale;
        if (kv.scales == PWK_KV_SCALES_TOKEN) {
            scale = token_scale(kv.dtype, largest_of(number, group));
        }
        uint32_t cells[PIECE];
        encode_piece(kv.dtype, number, scale, cells);
        if (!mine) {
            continue;
        }
        for (uint32_t i = 0; !direct && i < words; i++) {
            staged[local * staged_words(kv) + piece * words + i] = cells[i];
        }
        const bool tells = kv.scales == PWK_KV_SCALES_TOKEN && piece == 0;
        const uint64_t end = direct || tells ? first_slot(a, row + 1) : 0;
        for (uint64_t slot = first_slot(a, row); slot < end; slot++) {
            if (direct) {
                device uchar *to = slot_cells(a, tile, slot) + piece * words * 4;
                write_piece(to, kv_cell_bytes(kv.dtype), words, wide_out, cells);
            }
            if (tells) {
                const uint32_t page = a.slots[2 * slot], token = a.slots[2 * slot + 1];
                a.scales[kv_scale(kv, tile.part, page, tile.head, token)] = scale;
            }
        }
    }
}

/* From threadgroup memory to the slots: neighbouring threads take neighbouring rows. */
template <class Cell>
static void write_tile(constant append_kv_arguments &a, Place place,
                       thread const append_tile &tile, threadgroup const uint32_t *staged) {
    constant pwk_kv_layout &kv = a.p.kv;
    const uint32_t local = place.thread_index % ROWS;
    if (local >= tile.rows) {
        return;
    }
    threadgroup const Cell *from =
        reinterpret_cast<threadgroup const Cell *>(staged + local * staged_words(kv));
    const uint64_t stride = kv_dim_stride(kv, tile.part);
    const uint32_t first = place.thread_index / ROWS;
    const uint64_t end = first_slot(a, tile.row + local + 1);
    for (uint64_t slot = first_slot(a, tile.row + local); slot < end; slot++) {
        device Cell *to = reinterpret_cast<device Cell *>(slot_cells(a, tile, slot));
        for (uint32_t cell = first; cell < kv_dim_cells(kv); cell += THREADS / ROWS) {
            to[cell * stride] = from[cell];
        }
    }
}

static void append_body(constant append_kv_arguments &a, Place place) {
    constant pwk_kv_layout &kv = a.p.kv;
    threadgroup uint32_t *staged = reinterpret_cast<threadgroup uint32_t *>(SHARED());
    const uint64_t rows = live(a.launch, place, APPEND_ROWS, a.rows, a.p.rows_max);
    const uint32_t columns = 2 * kv.kv_heads;
    const uint64_t tiles = (rows + ROWS - 1) / ROWS * columns;
    for (uint64_t at = place.group.x; at < tiles; at += place.group_count.x) {
        const uint32_t column = static_cast<uint32_t>(at % columns), part = column % 2;
        const uint64_t row = at / columns * ROWS;
        const uint32_t count = rows - row < ROWS ? static_cast<uint32_t>(rows - row) : ROWS;
        device uchar *slab = kv_slab(kv, part, a.keys, a.values);
        const append_tile tile = {part, column / 2, row, count, slab};
        const bool direct = kv_dim_stride(kv, part) == 1;
        encode_tile(a, place, tile, staged, direct);
        if (direct) {
            continue;
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const uint32_t cell_bytes = kv_cell_bytes(kv.dtype);
        if (cell_bytes == 4) {
            write_tile<uint>(a, place, tile, staged);
        } else if (cell_bytes == 2) {
            write_tile<ushort>(a, place, tile, staged);
        } else {
            write_tile<uchar>(a, place, tile, staged);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

ENTRY(pw_append_kv_check, CHECKERS, append_kv_arguments, check_body)
ENTRY(pw_append_kv, THREADS, append_kv_arguments, append_body)
