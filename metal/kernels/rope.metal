/* rope: pairs of dims turn by their row's angle, with the CPU's bits.
 *
 * Tiling: an item is eight dims of a head with the eight that turn with them (neox), eight
 * dims that hold four pairs (interleaved), or eight that are copied; where heads do not lie so,
 * a pair or a dim. A thread reads all of its item before it writes any, so it may turn in
 * place. Threadgroups along x share a row's items, along y they loop over rows. Memory:
 * registers; one word of a threadgroup for checks.
 * Emulated; not yet run on Apple hardware.
 */
#include "checks.h"
#include "pieces.h"
#include "turn.h"

struct rope_arguments {
    pwk_rope p;
    device const uchar *x;
    device const uchar *table;
    device const uint32_t *positions;
    device uchar *out;
    device const uint32_t *rows;
    launch_of_call launch;
};

constant constexpr uint32_t ROPE_POSITIONS = 2; /* place of `positions` among the buffers */
constant constexpr uint32_t ROPE_ROWS = 4;      /* place of `rows` */
constant constexpr uint32_t THREADS = 128;
constant constexpr uint32_t CHECKERS = 512;

static row_numbers rope_rows(constant rope_arguments &a) {
    return {ROPE_POSITIONS, a.positions, a.p.table_len - 1, ROPE_ROWS, a.rows, a.p.rows_max};
}

static void check_body(constant rope_arguments &a, Place place) {
    checked_rows(a.launch, place, rope_rows(a), true);
}

/* One head of one row. */
struct rope_head {
    device const uchar *x;
    uint64_t from;  /* its first element in x */
    uint64_t to;    /* and in out */
    uint64_t turns; /* the row's first cosine in the table */
    bool wide;      /* items are whole pieces at multiples of 16 bytes */
};

/* Dims `first` on with those that turn with them, `count` of each. */
static void turn_apart(constant rope_arguments &a, thread const rope_head &head, uint32_t first,
                       uint32_t count) {
    constant pwk_rope &p = a.p;
    const uint32_t pairs = p.rotary_dims / 2;
    const uint64_t turns = head.turns + first;
    float one[PIECE], other[PIECE], cosine[PIECE], sine[PIECE];
    load_piece(p.x_dtype, head.x, head.from + first, count, head.wide, one);
    load_piece(p.x_dtype, head.x, head.from + pairs + first, count, head.wide, other);
    load_piece(PWK_DTYPE_F32, a.table, turns, count, head.wide, cosine);
    load_piece(PWK_DTYPE_F32, a.table, turns + pairs, count, head.wide, sine);
    for (uint32_t i = 0; i < PIECE; i++) {
        const float turned = turned_first(one[i], other[i], cosine[i], sine[i]);
        other[i] = turned_second(one[i], other[i], cosine[i], sine[i]);
        one[i] = turned;
    }
    store_piece(p.out_dtype, a.out, head.to + first, count, head.wide, one);
    store_piece(p.out_dtype, a.out, head.to + pairs + first, count, head.wide, other);
}

/* Dims `first` on, `count` of them, an even number. */
static void turn_neighbours(constant rope_arguments &a, thread const rope_head &head,
                            uint32_t first, uint32_t count) {
    constant pwk_rope &p = a.p;
    const uint32_t pairs = p.rotary_dims / 2;
    float x[PIECE];
    load_piece(p.x_dtype, head.x, head.from + first, count, head.wide, x);
    for (uint32_t i = 0; i < PIECE; i += 2) {
        if (i < count) {
            const float one = x[i], other = x[i + 1];
            const uint64_t turn = head.turns + (first + i) / 2;
            const float cosine = load_float(PWK_DTYPE_F32, a.table, turn);
            const float sine = load_float(PWK_DTYPE_F32, a.table, turn + pairs);
            x[i] = turned_first(one, other, cosine, sine);
            x[i + 1] = turned_second(one, other, cosine, sine);
        }
    }
    store_piece(p.out_dtype, a.out, head.to + first, count, head.wide, x);
}

static void copy_dims(constant rope_arguments &a, thread const rope_head &head, uint32_t first,
                      uint32_t count) {
    float x[PIECE];
    load_piece(a.p.x_dtype, head.x, head.from + first, count, head.wide, x);
    store_piece(a.p.out_dtype, a.out, head.to + first, count, head.wide, x);
}

/* Whether every item of every head is of whole pieces at multiples of 16 bytes. */
static bool heads_are_wide(constant rope_arguments &a, device const uchar *x, uint64_t stride) {
    constant pwk_rope &p = a.p;
    const uint32_t whole = p.pairing == PWK_ROPE_NEOX ? p.rotary_dims / 2 : p.rotary_dims;
    return (whole | p.head_dim) % PIECE == 0 && is_wide(a.table, 0) &&
           is_wide_row(p.x_dtype, x, stride) &&
           is_wide_row(p.out_dtype, a.out, p.out_row_stride);
}

static void rope_body(constant rope_arguments &a, Place place) {
    constant pwk_rope &p = a.p;
    const uint32_t rows = checked_rows(a.launch, place, rope_rows(a), false);
    const bool in_place = a.x == nullptr;
    device const uchar *x = in_place ? a.out : a.x;
    const uint64_t row_stride = in_place ? p.out_row_stride : p.x_row_stride;
    const bool wide = heads_are_wide(a, x, row_stride);
    const bool apart = p.pairing == PWK_ROPE_NEOX;
    const uint32_t unit = wide ? PIECE : 1;
    const uint32_t each = apart ? unit : (wide ? PIECE : 2);
    const uint32_t turning = (apart ? p.rotary_dims / 2 : p.rotary_dims) / each;
    const uint32_t items = turning + (in_place ? 0 : (p.head_dim - p.rotary_dims) / unit);
    const uint32_t stride = place.group_count.x * THREADS;
    const uint32_t first = place.group.x * THREADS + place.thread_index;
    for (uint64_t row = place.group.y; row < rows; row += place.group_count.y) {
        const uint64_t turns = uint64_t(a.positions[row]) * p.rotary_dims;
        for (uint32_t at = first; at < p.heads * items; at += stride) {
            const uint32_t item = at % items;
            const uint64_t within = uint64_t(at / items) * p.head_dim;
            const rope_head head = {x, row * row_stride + within,
                                    row * p.out_row_stride + within, turns, wide};
            if (item >= turning) {
                copy_dims(a, head, p.rotary_dims + (item - turning) * unit, unit);
            } else if (apart) {
                turn_apart(a, head, item * each, each);
            } else {
                turn_neighbours(a, head, item * each, each);
            }
        }
    }
}

ENTRY(pw_rope_check, CHECKERS, rope_arguments, check_body)
ENTRY(pw_rope, THREADS, rope_arguments, rope_body)
