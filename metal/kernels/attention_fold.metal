/* attention_fold: states of attention that were computed apart become one, by the very order
 * of the contract, so with the CPU's bits.
 *
 * Tiling: a thread takes eight elements of a row's head over all parts, and works out the
 * factors for itself: two exps for eight elements that come from memory. Elements move 16
 * bytes at a time where rows are aligned to that. Memory: registers.
 * Emulated; not yet run on Apple hardware.
 */
#include "attention.h"
#include "pieces.h"

struct attention_fold_arguments {
    pwk_attention_fold p;
    device const uchar *parts;
    device const float *part_lse;
    device uchar *out;
    device float *lse;
    device const uint32_t *rows;
    launch_of_call launch;
};

constant constexpr uint32_t FOLD_ROWS = 4; /* place of `rows` among the buffers */
constant constexpr uint32_t FOLD_THREADS = 128;

static void attention_fold_body(constant attention_fold_arguments &a, Place place) {
    constant pwk_attention_fold &p = a.p;
    const uint64_t rows = live(a.launch, place, FOLD_ROWS, a.rows, p.rows_max);
    const uint64_t eights = p.head_dim / PIECE;
    const bool wide_parts = is_wide_row(p.part_dtype, a.parts, p.part_row_stride);
    const bool wide_out = is_wide_row(p.out_dtype, a.out, p.out_row_stride);
    const uint64_t threads = uint64_t(place.group_count.x) * FOLD_THREADS;
    uint64_t piece = uint64_t(place.group.x) * FOLD_THREADS + place.thread_index;
    for (; piece < rows * p.heads * eights; piece += threads) {
        const uint64_t within = piece % eights * PIECE, head = piece / eights % p.heads;
        const uint64_t row = piece / eights / p.heads;
        const uint64_t column = head * p.head_dim + within;
        softmax_state state = softmax_empty();
        float values[PIECE] = {0.0f};
        for (uint64_t part = 0; part < p.parts; part++) {
            const uint64_t from = part * p.rows_max + row;
            const float lse = a.part_lse[from * p.heads + head];
            float later[PIECE];
            load_piece(p.part_dtype, a.parts, from * p.part_row_stride + column, PIECE,
                       wide_parts, later);
            const float sum = lse == -PWK_INFINITY ? 0.0f : 1.0f;
            const softmax_fold fold = fold_later(state, {lse, sum});
            for (uint32_t i = 0; i < PIECE; i++) {
                values[i] = folded(fold, values[i], later[i]);
            }
        }
        const softmax_end end = softmax_ends(state, -PWK_INFINITY);
        for (uint32_t i = 0; i < PIECE; i++) {
            values[i] = ended(end, values[i]);
        }
        store_piece(p.out_dtype, a.out, row * p.out_row_stride + column, PIECE, wide_out, values);
        if (a.lse != nullptr && within == 0) {
            a.lse[row * p.heads + head] = end.lse;
        }
    }
}

ENTRY(pw_attention_fold, FOLD_THREADS, attention_fold_arguments, attention_fold_body)
