/* activation: a function of the gate, times up, element by element with the CPU's bits.
 *
 * Tiling: a thread takes eight elements of a row, in 16-byte pieces where rows lie so;
 * threadgroups along x share a row, along y they loop over rows. Memory: registers.
 * Emulated; not yet run on Apple hardware.
 */
#include "pieces.h"

struct activation_arguments {
    pwk_activation p;
    device const uchar *x;
    device uchar *out;
    device const uint32_t *rows;
    launch_of_call launch;
};

constant constexpr uint32_t ACTIVATION_ROWS = 2; /* place of `rows` among the buffers */
constant constexpr uint32_t THREADS = 128;
constant constexpr float GELU_LINEAR = 1.595769f;
constant constexpr float GELU_CUBIC = 0.071354814f;

static float activated(uint32_t kind, float g) {
    const float z =
        kind == PWK_ACTIVATION_SILU ? g : g * PWK_FMA(g * g, GELU_CUBIC, GELU_LINEAR);
    return g / (1.0f + pwk_exp(-0.0f - z));
}

static void activation_body(constant activation_arguments &a, Place place) {
    constant pwk_activation &p = a.p;
    const uint32_t rows = live(a.launch, place, ACTIVATION_ROWS, a.rows, p.rows_max);
    const bool wide_x = is_wide_row(p.x_dtype, a.x, p.x_row_stride | p.up_offset);
    const bool wide_out = is_wide_row(p.out_dtype, a.out, p.out_row_stride);
    const uint32_t stride = place.group_count.x * THREADS * PIECE;
    const uint32_t first = (place.group.x * THREADS + place.thread_index) * PIECE;
    for (uint64_t row = place.group.y; row < rows; row += place.group_count.y) {
        const uint64_t x = row * p.x_row_stride;
        for (uint32_t column = first; column < p.columns; column += stride) {
            const uint32_t count = piece_count(column, p.columns);
            float gate[PIECE], up[PIECE];
            load_piece(p.x_dtype, a.x, x + column, count, wide_x, gate);
            if (p.up_offset != 0) {
                load_piece(p.x_dtype, a.x, x + p.up_offset + column, count, wide_x, up);
            }
            for (uint32_t i = 0; i < PIECE; i++) {
                const float y = activated(p.kind, gate[i]);
                gate[i] = p.up_offset != 0 ? y * up[i] : y;
            }
            const uint64_t out = row * p.out_row_stride + column;
            store_piece(p.out_dtype, a.out, out, count, wide_out, gate);
        }
    }
}

ENTRY(pw_activation, THREADS, activation_arguments, activation_body)
