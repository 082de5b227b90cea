/* append_kv: new keys and values into pages, turned and rounded on the way, with the CPU's
 * bits.
 *
 * A first launch of one block checks the step. It tells slots apart by a table with open
 * addresses, in shared memory where it has room for it, else in the workspace.
 *
 * Tiling: a block takes K or V of one head of 32 rows. As many threads as a row has pieces of
 * eight dims, up to a power of two, encode it: the largest magnitude folds by shuffles, which
 * any order does. Where a token's dims lie side by side each thread writes its cells at once.
 * Where they do not (K transposed), cells go by way of shared memory and neighbouring threads
 * write neighbouring rows, which mostly are neighbouring tokens. Memory: at most 33 KiB
 * shared.
 * Not measured yet.
 */
#include "kv_layout.h"
#include "pieces.h"
#include "step_elements.h"
#include "turn.h"

struct append_kv_arguments {
    pwk_append_kv p;
    const void *k;
    const void *v;
    void *keys;
    void *values;
    float *scales;
    const uint32_t *slots;
    const uint32_t *slot_starts;
    const float *table;
    const uint32_t *positions;
    const uint32_t *rows;
    pwk_launch launch;
};

constexpr uint32_t APPEND_SLOTS = 5; /* places among the buffers */
constexpr uint32_t APPEND_STARTS = 6;
constexpr uint32_t APPEND_POSITIONS = 8;
constexpr uint32_t APPEND_ROWS = 9;
constexpr uint32_t THREADS = 256;
constexpr uint32_t CHECKERS = 512;
constexpr uint32_t ROWS = 32; /* rows of a block */
constexpr float SCALE_LEAST = 1.17549435e-38f;

/* ---- the check ---- */

/* Slots of the rows in use. */
struct used_slots {
    const uint32_t *slots; /* the first one's page and token */
    uint32_t first;        /* its number */
    uint32_t count;
};

/* Whether every slot lies in the pages. */
static __device__ bool check_slots(const append_kv_arguments &a, uint32_t *shared,
                                   const used_slots &used) {
    const uint32_t page_most = a.p.kv.pages - 1, token_most = a.p.kv.page_len - 1;
    uint32_t bad = NO_ELEMENT;
    const uint64_t words = 2 * uint64_t(used.count);
    for (uint64_t at = threadIdx.x; at < words && bad == NO_ELEMENT; at += CHECKERS) {
        bad = used.slots[at] > (at % 2 == 0 ? page_most : token_most) ? uint32_t(at) : NO_ELEMENT;
    }
    bad = least_in_block(shared, bad);
    if (bad != NO_ELEMENT && threadIdx.x == 0) {
        const uint64_t at = 2 * uint64_t(used.first) + bad;
        const uint32_t most = at % 2 == 0 ? page_most : token_most;
        refuse(a.launch, PWK_FAULT_ELEMENT, APPEND_SLOTS, at, 0, most, used.slots[bad]);
    }
    return bad == NO_ELEMENT;
}

/* Where the search for a slot begins, in a table of mask + 1 places. */
static __device__ uint32_t first_place(const used_slots &used, uint32_t slot, uint32_t mask) {
    const uint64_t page = used.slots[2 * uint64_t(slot)];
    const uint64_t key = page << 32 | used.slots[2 * uint64_t(slot) + 1];
    return static_cast<uint32_t>(key * 0x9e3779b97f4a7c15u >> 32) & mask;
}

static __device__ bool are_same(const used_slots &used, uint32_t one, uint32_t other) {
    const uint32_t *a = used.slots + 2 * uint64_t(one), *b = used.slots + 2 * uint64_t(other);
    return a[0] == b[0] && a[1] == b[1];
}

/* Puts a slot into the table, whose places hold the least number that names a slot, and one
 * more. NO_ELEMENT if no other was there that names it, or the later of the two. */
static __device__ uint32_t put_slot(const used_slots &used, uint32_t *seen, uint32_t mask,
                                    uint32_t slot) {
    uint32_t place = first_place(used, slot, mask);
    for (;;) {
        const uint32_t there = atomicCAS(&seen[place], 0u, slot + 1);
        if (there == 0) {
            return NO_ELEMENT;
        }
        if (are_same(used, slot, there - 1)) {
            const uint32_t earlier = atomicMin(&seen[place], slot + 1) - 1;
            return earlier > slot ? earlier : slot;
        }
        place = (place + 1) & mask;
    }
}

/* Whether no slot is named twice; else the first that an earlier one names too is told. */
static __device__ bool check_repeats(const append_kv_arguments &a, uint32_t *shared,
                                     const used_slots &used) {
    const uint32_t mask = a.launch.part;
    uint32_t *seen = a.launch.tile != 0 ? shared + CHECK_WORDS
                                        : reinterpret_cast<uint32_t *>(a.launch.workspace);
    for (uint64_t place = threadIdx.x; place <= mask; place += CHECKERS) {
        seen[place] = 0;
    }
    __syncthreads();
    uint32_t repeated = NO_ELEMENT;
    for (uint32_t slot = threadIdx.x; slot < used.count; slot += CHECKERS) {
        const uint32_t later = put_slot(used, seen, mask, slot);
        repeated = later < repeated ? later : repeated;
    }
    repeated = least_in_block(shared, repeated);
    if (repeated != NO_ELEMENT && threadIdx.x == 0) {
        uint32_t place = first_place(used, repeated, mask);
        while (!are_same(used, repeated, seen[place] - 1)) {
            place = (place + 1) & mask;
        }
        const uint64_t at = 2 * (uint64_t(used.first) + repeated);
        const int64_t earlier = 2 * (int64_t(used.first) + seen[place] - 1);
        refuse(a.launch, PWK_FAULT_REPEATED, APPEND_SLOTS, at, earlier, 0, 0);
    }
    return repeated == NO_ELEMENT;
}

static __device__ void check_body(const append_kv_arguments &a) {
    const pwk_append_kv &p = a.p;
    uint32_t *shared = reinterpret_cast<uint32_t *>(SHARED());
    const uint32_t rows = live_in_block(a.launch, APPEND_ROWS, a.rows, p.rows_max);
    if (is_refused_in_block(a.launch)) {
        return;
    }
    used_slots used = {a.slots, 0, rows};
    if (a.slot_starts != nullptr) {
        if (!check_ascending(a.launch, shared, APPEND_STARTS, a.slot_starts, rows + 1,
                             p.slots_max)) {
            return;
        }
        used.first = a.slot_starts[0];
        used.count = a.slot_starts[rows] - used.first;
        used.slots = a.slots + 2 * uint64_t(used.first);
    }
    if (check_slots(a, shared, used) && check_repeats(a, shared, used) &&
        a.positions != nullptr) {
        check_elements(a.launch, shared, APPEND_POSITIONS, a.positions, rows, p.table_len - 1);
    }
}

/* ---- a piece, encoded ---- */

/* Turns eight dims of a key from `first` on, and rounds them as rope would store them. */
static __device__ void turn_piece(const append_kv_arguments &a, uint64_t row, uint64_t from,
                                  uint32_t first, bool wide, float (&x)[PIECE]) {
    const pwk_append_kv &p = a.p;
    const uint32_t pairs = p.rotary_dims / 2;
    const float *cosines = a.table + uint64_t(a.positions[row]) * p.rotary_dims;
    const float *sines = cosines + pairs;
    const bool apart = p.rope == PWK_ROPE_NEOX;
    float other[PIECE], cosine[PIECE], sine[PIECE];
    if (apart && pairs % PIECE == 0) {
        const bool is_first = first < pairs;
        const uint32_t pair = is_first ? first : first - pairs;
        const uint64_t partner = from + (is_first ? first + pairs : pair);
        const bool wide_table = is_wide(a.table, 0);
        load_piece(p.x_dtype, a.k, partner, PIECE, wide, other);
        load_piece(PWK_DTYPE_F32, cosines, pair, PIECE, wide_table, cosine);
        load_piece(PWK_DTYPE_F32, sines, pair, PIECE, wide_table, sine);
    } else {
#pragma unroll
        for (uint32_t i = 0; i < PIECE; i++) {
            const uint32_t dim = first + i;
            const bool turns = dim < p.rotary_dims;
            const uint32_t across = dim < pairs ? dim + pairs : dim - pairs;
            const uint32_t partner = apart ? across : (dim ^ 1);
            const uint32_t pair = apart ? (dim < pairs ? dim : dim - pairs) : dim / 2;
            other[i] = turns ? load_float(p.x_dtype, a.k, from + partner) : 0.0f;
            cosine[i] = turns ? cosines[pair] : 0.0f;
            sine[i] = turns ? sines[pair] : 0.0f;
        }
    }
#pragma unroll
    for (uint32_t i = 0; i < PIECE; i++) {
        const uint32_t dim = first + i;
        const bool is_first = apart ? dim < pairs : dim % 2 == 0;
        const float turned = is_first ? turned_first(x[i], other[i], cosine[i], sine[i])
                                      : turned_second(other[i], x[i], cosine[i], sine[i]);
        x[i] = dim < p.rotary_dims ? rounded(p.x_dtype, turned) : x[i];
    }
}

/* The scale of a token whose largest magnitude has these bits. */
static __device__ float token_scale(uint32_t dtype, uint32_t most) {
    const float steps =
        dtype == PWK_DTYPE_E4M3 ? 448.0f : (dtype == PWK_DTYPE_I8 ? 127.0f : 7.0f);
    const float scale = __uint_as_float(most) / steps;
    return most >= 0x7f800000u ? PWK_NAN : (scale < SCALE_LEAST ? 0.0f : scale);
}

/* x / scale as a whole number within most; 0 for NaN. */
static __device__ uint32_t whole(float x, float scale, float most) {
    x = x / scale;
    x = x > most ? most : x;
    x = -most > x ? -most : x;
    return static_cast<uint32_t>(PWK_NEAREST(x == x ? x : 0.0f));
}

/* Words that eight elements take: 8, 4, 2 or 1. */
static __device__ uint32_t piece_words(uint32_t dtype) {
    return kv_cell_bytes(dtype) * 2 / kv_per_cell(dtype);
}

/* The cells of eight numbers, the first ones low. A scale of 0 or NaN says it all. */
static __device__ void encode_piece(uint32_t dtype, const float (&x)[PIECE], float scale,
                                    uint32_t (&words)[PIECE]) {
    const bool says_all = scale == 0.0f || scale != scale;
#pragma unroll
    for (uint32_t i = 0; i < PIECE; i++) {
        words[i] = 0;
    }
    if (dtype == PWK_DTYPE_F32) {
#pragma unroll
        for (uint32_t i = 0; i < PIECE; i++) {
            words[i] = __float_as_uint(x[i]);
        }
    } else if (dtype == PWK_DTYPE_F16 || dtype == PWK_DTYPE_BF16) {
#pragma unroll
        for (uint32_t i = 0; i < PIECE / 2; i++) {
            words[i] = packed_pair(dtype, x[2 * i], x[2 * i + 1]);
        }
    } else if (!says_all) {
#pragma unroll
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
    const append_kv_arguments &a;
    uint32_t part;
    uint32_t head;
    uint64_t row; /* the first one */
    uint32_t rows;
    char *slab;

    __device__ uint64_t first_slot(uint64_t at) const {
        return a.slot_starts == nullptr ? at : a.slot_starts[at];
    }
    __device__ char *cells(uint64_t slot) const {
        const uint32_t page = a.slots[2 * slot], token = a.slots[2 * slot + 1];
        return slab + kv_cell(a.p.kv, part, page, head, token) * kv_cell_bytes(a.p.kv.dtype);
    }
};

/* Cells side by side, as one write of so many words or cell by cell. */
static __device__ void write_piece(char *to, uint32_t cell_bytes, uint32_t words, bool wide,
                                   const uint32_t (&cells)[PIECE]) {
    if (wide && words >= 4) {
        reinterpret_cast<uint4 *>(to)[0] = make_uint4(cells[0], cells[1], cells[2], cells[3]);
        if (words == 8) {
            reinterpret_cast<uint4 *>(to)[1] = make_uint4(cells[4], cells[5], cells[6], cells[7]);
        }
    } else if (wide && words == 2) {
        *reinterpret_cast<uint2 *>(to) = make_uint2(cells[0], cells[1]);
    } else if (wide) {
        *reinterpret_cast<uint32_t *>(to) = cells[0];
    } else {
#pragma unroll
        for (uint32_t i = 0; i < PIECE; i++) {
            if (i >= words) {
                break;
            }
            if (cell_bytes == 4) {
                reinterpret_cast<uint32_t *>(to)[i] = cells[i];
            } else if (cell_bytes == 2) {
                reinterpret_cast<uint16_t *>(to)[2 * i] = static_cast<uint16_t>(cells[i]);
                reinterpret_cast<uint16_t *>(to)[2 * i + 1] = static_cast<uint16_t>(cells[i] >> 16);
            } else {
                for (uint32_t byte = 0; byte < 4; byte++) {
                    to[4 * i + byte] = static_cast<char>(cells[i] >> (8 * byte));
                }
            }
        }
    }
}

/* Words from one row's cells to the next in shared memory: odd, so that rows meet in few
 * banks. */
static __device__ uint32_t staged_words(const pwk_kv_layout &kv) {
    return kv.head_dim / PIECE * piece_words(kv.dtype) | 1;
}

/* Encodes the tile: to its slots where dims lie side by side, else to shared memory. */
static __device__ void encode_tile(const append_tile &tile, uint32_t *staged, bool direct) {
    const append_kv_arguments &a = tile.a;
    const pwk_kv_layout &kv = a.p.kv;
    const bool keys = tile.part == KV_KEYS;
    const void *x = keys ? a.k : a.v;
    const uint64_t stride = keys ? a.p.k_row_stride : a.p.v_row_stride;
    const bool wide = is_wide_row(a.p.x_dtype, x, stride);
    const bool wide_out = is_wide(tile.slab, kv_token_steps(kv, tile.part));
    const uint32_t pieces = kv.head_dim / PIECE, words = piece_words(kv.dtype);
    const uint32_t group = pieces == 1 ? 1 : 1u << (32 - __clz(static_cast<int>(pieces - 1)));
    for (uint32_t item = threadIdx.x; item < ROWS * group; item += THREADS) {
        const uint32_t local = item / group, piece = item % group;
        const uint64_t row = tile.row + local;
        const bool mine = local < tile.rows && piece < pieces;
        const uint64_t from = row * stride + uint64_t(tile.head) * kv.head_dim;
        float number[PIECE] = {};
        if (mine) {
            load_piece(a.p.x_dtype, x, from + piece * PIECE, PIECE, wide, number);
            if (keys && piece * PIECE < a.p.rotary_dims) {
                turn_piece(a, row, from, piece * PIECE, wide, number);
            }
        }
        float scale = keys ? kv.k_scale : kv.v_scale;
        if (kv.scales == PWK_KV_SCALES_TOKEN) {
            uint32_t most = 0;
#pragma unroll
            for (uint32_t i = 0; i < PIECE; i++) {
                const uint32_t magnitude = __float_as_uint(number[i]) & 0x7fffffffu;
                most = magnitude > most ? magnitude : most;
            }
            for (uint32_t lanes = group / 2; lanes > 0; lanes /= 2) {
                const uint32_t others = __shfl_xor_sync(0xffffffffu, most, lanes);
                most = others > most ? others : most;
            }
            scale = token_scale(kv.dtype, most);
        }
        uint32_t cells[PIECE];
        encode_piece(kv.dtype, number, scale, cells);
        if (!mine) {
            continue;
        }
        if (!direct) {
#pragma unroll
            for (uint32_t i = 0; i < PIECE; i++) {
                if (i < words) {
                    staged[local * staged_words(kv) + piece * words + i] = cells[i];
                }
            }
        }
        const bool tells = kv.scales == PWK_KV_SCALES_TOKEN && piece == 0;
        const uint64_t end = direct || tells ? tile.first_slot(row + 1) : 0;
        for (uint64_t slot = tile.first_slot(row); slot < end; slot++) {
            if (direct) {
                char *to = tile.cells(slot) + piece * words * 4;
                write_piece(to, kv_cell_bytes(kv.dtype), words, wide_out, cells);
            }
            if (tells) {
                const uint32_t page = a.slots[2 * slot], token = a.slots[2 * slot + 1];
                a.scales[kv_scale(kv, tile.part, page, tile.head, token)] = scale;
            }
        }
    }
}

/* From shared memory to the slots: neighbouring threads take neighbouring rows. */
template <class Cell>
static __device__ void write_tile(const append_tile &tile, const uint32_t *staged) {
    const pwk_kv_layout &kv = tile.a.p.kv;
    const uint32_t local = threadIdx.x % ROWS;
    if (local >= tile.rows) {
        return;
    }
    const Cell *from = reinterpret_cast<const Cell *>(staged + local * staged_words(kv));
    const uint64_t stride = kv_dim_stride(kv, tile.part);
    const uint64_t end = tile.first_slot(tile.row + local + 1);
    for (uint64_t slot = tile.first_slot(tile.row + local); slot < end; slot++) {
        Cell *to = reinterpret_cast<Cell *>(tile.cells(slot));
        for (uint32_t cell = threadIdx.x / ROWS; cell < kv_dim_cells(kv); cell += THREADS / ROWS) {
            to[cell * stride] = from[cell];
        }
    }
}

static __device__ void append_body(const append_kv_arguments &a) {
    const pwk_kv_layout &kv = a.p.kv;
    uint32_t *staged = reinterpret_cast<uint32_t *>(SHARED());
    const uint64_t rows = live(a.launch, APPEND_ROWS, a.rows, a.p.rows_max);
    const uint32_t columns = 2 * kv.kv_heads;
    const uint64_t tiles = (rows + ROWS - 1) / ROWS * columns;
    for (uint64_t at = blockIdx.x; at < tiles; at += gridDim.x) {
        const uint32_t column = static_cast<uint32_t>(at % columns), part = column % 2;
        const uint64_t row = at / columns * ROWS;
        const uint32_t count = rows - row < ROWS ? static_cast<uint32_t>(rows - row) : ROWS;
        char *slab = kv_slab(kv, part, a.keys, a.values);
        const append_tile tile = {a, part, column / 2, row, count, slab};
        const bool direct = kv_dim_stride(kv, part) == 1;
        encode_tile(tile, staged, direct);
        if (direct) {
            continue;
        }
        __syncthreads();
        const uint32_t cell_bytes = kv_cell_bytes(kv.dtype);
        if (cell_bytes == 4) {
            write_tile<uint32_t>(tile, staged);
        } else if (cell_bytes == 2) {
            write_tile<uint16_t>(tile, staged);
        } else {
            write_tile<uint8_t>(tile, staged);
        }
        __syncthreads();
    }
}

ENTRY(pw_append_kv_check, CHECKERS, 1, append_kv_arguments, check_body)
ENTRY(pw_append_kv, THREADS, 3, append_kv_arguments, append_body)
