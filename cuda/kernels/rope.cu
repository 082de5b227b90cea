/* rope: pairs of dims turn by their row's angle, with the CPU's bits.
 *
 * Tiling: an item is eight dims of a head with the eight that turn with them (neox), eight
 * dims that hold four pairs (interleaved), or eight that are copied; where heads do not lie so,
 * a pair or a dim. A thread reads all of its item before it writes any, so it may turn in
 * place. Blocks along x share a row's items, along y they loop over rows. Memory: registers;
 * one word shared for checks.
 * Not measured yet.
 */
#include "pieces.h"
#include "step_elements.h"
#include "turn.h"

struct rope_arguments {
    pwk_rope p;
    const void *x;
    const float *table;
    const uint32_t *positions;
    void *out;
    const uint32_t *rows;
    pwk_launch launch;
};

constexpr uint32_t ROPE_POSITIONS = 2; /* place of `positions` among the buffers */
constexpr uint32_t ROPE_ROWS = 4;      /* place of `rows` */
constexpr uint32_t THREADS = 128;
constexpr uint32_t CHECKERS = 512;

static __device__ row_numbers rope_rows(const rope_arguments &a) {
    return {ROPE_POSITIONS, a.positions, a.p.table_len - 1, ROPE_ROWS, a.rows, a.p.rows_max};
}

static __device__ void check_body(const rope_arguments &a) {
    checked_rows(a.launch, rope_rows(a), true);
}

/* One head of one row. */
struct rope_head {
    const pwk_rope &p;
    const void *x;
    void *out;
    uint64_t from; /* its first element in x */
    uint64_t to;   /* and in out */
    const float *cosines;
    const float *sines;
};

/* Dims `first` on with those that turn with them, `count` of each. */
static __device__ void turn_apart(const rope_head &h, uint32_t first, uint32_t count,
                                  bool wide) {
    const uint32_t pairs = h.p.rotary_dims / 2;
    float a[PIECE], b[PIECE], cosine[PIECE], sine[PIECE];
    load_piece(h.p.x_dtype, h.x, h.from + first, count, wide, a);
    load_piece(h.p.x_dtype, h.x, h.from + pairs + first, count, wide, b);
    load_piece(PWK_DTYPE_F32, h.cosines, first, count, wide, cosine);
    load_piece(PWK_DTYPE_F32, h.sines, first, count, wide, sine);
#pragma unroll
    for (uint32_t i = 0; i < PIECE; i++) {
        const float turned = turned_first(a[i], b[i], cosine[i], sine[i]);
        b[i] = turned_second(a[i], b[i], cosine[i], sine[i]);
        a[i] = turned;
    }
    store_piece(h.p.out_dtype, h.out, h.to + first, count, wide, a);
    store_piece(h.p.out_dtype, h.out, h.to + pairs + first, count, wide, b);
}

/* Dims `first` on, `count` of them, an even number. */
static __device__ void turn_neighbours(const rope_head &h, uint32_t first, uint32_t count,
                                       bool wide) {
    float x[PIECE];
    load_piece(h.p.x_dtype, h.x, h.from + first, count, wide, x);
#pragma unroll
    for (uint32_t i = 0; i < PIECE; i += 2) {
        if (i < count) {
            const float a = x[i], b = x[i + 1];
            const float cosine = h.cosines[(first + i) / 2], sine = h.sines[(first + i) / 2];
            x[i] = turned_first(a, b, cosine, sine);
            x[i + 1] = turned_second(a, b, cosine, sine);
        }
    }
    store_piece(h.p.out_dtype, h.out, h.to + first, count, wide, x);
}

static __device__ void copy_dims(const rope_head &h, uint32_t first, uint32_t count,
                                 bool wide) {
    float x[PIECE];
    load_piece(h.p.x_dtype, h.x, h.from + first, count, wide, x);
    store_piece(h.p.out_dtype, h.out, h.to + first, count, wide, x);
}

/* Whether every item of every head is of whole pieces at multiples of 16 bytes. */
static __device__ bool heads_are_wide(const rope_arguments &a, const void *x, uint64_t stride) {
    const pwk_rope &p = a.p;
    const uint32_t whole = p.pairing == PWK_ROPE_NEOX ? p.rotary_dims / 2 : p.rotary_dims;
    return (whole | p.head_dim) % PIECE == 0 && is_wide(a.table, 0) &&
           is_wide_row(p.x_dtype, x, stride) &&
           is_wide_row(p.out_dtype, a.out, p.out_row_stride);
}

static __device__ void rope_body(const rope_arguments &a) {
    const pwk_rope &p = a.p;
    const uint32_t rows = checked_rows(a.launch, rope_rows(a), false);
    const bool in_place = a.x == nullptr;
    const void *x = in_place ? a.out : a.x;
    const uint64_t stride = in_place ? p.out_row_stride : p.x_row_stride;
    const bool wide = heads_are_wide(a, x, stride);
    const bool apart = p.pairing == PWK_ROPE_NEOX;
    const uint32_t unit = wide ? PIECE : 1;
    const uint32_t each = apart ? unit : (wide ? PIECE : 2);
    const uint32_t turning = (apart ? p.rotary_dims / 2 : p.rotary_dims) / each;
    const uint32_t items = turning + (in_place ? 0 : (p.head_dim - p.rotary_dims) / unit);
    for (uint64_t row = blockIdx.y; row < rows; row += gridDim.y) {
        const float *cosines = a.table + uint64_t(a.positions[row]) * p.rotary_dims;
        const uint32_t step = gridDim.x * THREADS;
        for (uint32_t at = blockIdx.x * THREADS + threadIdx.x; at < p.heads * items; at += step) {
            const uint32_t head = at / items, item = at % items;
            const uint64_t within = uint64_t(head) * p.head_dim;
            const rope_head h = {p,
                                 x,
                                 a.out,
                                 row * stride + within,
                                 row * p.out_row_stride + within,
                                 cosines,
                                 cosines + p.rotary_dims / 2};
            if (item >= turning) {
                copy_dims(h, p.rotary_dims + (item - turning) * unit, unit, wide);
            } else if (apart) {
                turn_apart(h, item * each, each, wide);
            } else {
                turn_neighbours(h, item * each, each, wide);
            }
        }
    }
}

ENTRY(pw_rope_check, CHECKERS, 1, rope_arguments, check_body)
ENTRY(pw_rope, THREADS, 6, rope_arguments, rope_body)
