/* matmul: rows times a packed weight. Weights in groups have the CPU's bits; float weights go
 * through 8 x 8 matrices of f32, held to the rule of errors.
 *
 * Tiling: a threadgroup of four SIMD groups takes 32 outputs and 8 rows, segments of 512
 * inputs side by side, or, of float weights, 64 rows one segment after the other. Which of
 * the two, each launch sees on the device by the count; both have the same steps for a row,
 * so its bits do not depend on which took it. Rows for weights in groups are quantised by a
 * launch of their own. Memory: 24 KiB of a threadgroup for few rows (4 KiB with groups),
 * 20 KiB for many. Emulated; not yet run on Apple hardware. Not measured yet.
 */
#include "product.h"

struct matmul_arguments {
    pwk_matmul p;
    device const uchar *x;
    device const uchar *weight;
    device const uchar *bias;
    device uchar *out;
    device const uint32_t *rows;
    launch_of_call launch; /* tile: rows from which on many go together; 0: never */
};

constant constexpr uint32_t MATMUL_ROWS = 4; /* place of `rows` among the buffers */

static void convert_body(constant matmul_arguments &a, Place place) {
    const product p = product_of(a);
    convert_rows(p, place, live(a.launch, place, MATMUL_ROWS, a.rows, a.p.rows_max));
}

/* A thread's totals of a tile. */
static void store_totals(constant matmul_arguments &a, thread const product &p, Place place,
                         product_place at, thread const float *totals, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t within = place.thread_index + i * THREADS;
        const uint64_t row = at.first + within / TILE;
        const uint32_t output = at.tile * TILE + within % TILE;
        if (row < at.rows && output < p.weight.outputs) {
            store_float(a.p.out_dtype, a.out, row * a.p.out_row_stride + output,
                        with_bias(p, output, totals[i]));
        }
    }
}

/* Up to launch.tile rows; any number where that is 0. */
static void few_body(constant matmul_arguments &a, Place place) {
    const uint32_t rows = live(a.launch, place, MATMUL_ROWS, a.rows, a.p.rows_max);
    if (a.launch.tile != 0 && rows > a.launch.tile) {
        return;
    }
    const product p = product_of(a);
    const uint64_t stride = uint64_t(place.group_count.y) * FEW_ROWS;
    for (uint64_t first = uint64_t(place.group.y) * FEW_ROWS; first < rows; first += stride) {
        const product_place at = {first, rows, place.group.x};
        float totals[FEW_TOTALS];
        few_totals(p, place, at, totals);
        store_totals(a, p, place, at, totals, FEW_TOTALS);
    }
}

/* More than launch.tile rows. */
static void many_body(constant matmul_arguments &a, Place place) {
    const uint32_t rows = live(a.launch, place, MATMUL_ROWS, a.rows, a.p.rows_max);
    if (rows <= a.launch.tile) {
        return;
    }
    const product p = product_of(a);
    const uint64_t stride = uint64_t(place.group_count.y) * MANY_ROWS;
    for (uint64_t first = uint64_t(place.group.y) * MANY_ROWS; first < rows; first += stride) {
        const product_place at = {first, rows, place.group.x};
        float totals[MANY_TOTALS];
        many_totals(p, place, at, totals);
        store_totals(a, p, place, at, totals, MANY_TOTALS);
    }
}

ENTRY(pw_matmul_convert, THREADS, matmul_arguments, convert_body)
ENTRY(pw_matmul_few, THREADS, matmul_arguments, few_body)
ENTRY(pw_matmul_many, THREADS, matmul_arguments, many_body)
