/* norm: root mean square norm of vectors, by the very order of the contract, so with the
 * CPU's bits.
 *
 * Tiling: a threadgroup of two SIMD groups takes one vector, thread t its elements t, t + 64
 * and so on, which are the contract's 64 partial sums. Memory: 64 floats of a threadgroup.
 * Not measured yet. Emulated; not yet run on Apple hardware.
 */
#include "kernel.h"

struct norm_arguments {
    pwk_norm p;
    device const uchar *x;
    device const uchar *weight;
    device uchar *residual;
    device uchar *out;
    device const uint32_t *rows;
    launch_of_call launch;
};

constant constexpr uint32_t NORM_ROWS = 4; /* place of `rows` among the buffers */
constant constexpr uint32_t SUMS = 64;     /* partial sums of squares, and threads */

/* residual += x, rounded to its type. */
static void add_residual(constant norm_arguments &a, Place place, uint64_t x,
                         uint64_t residual) {
    for (uint32_t column = place.thread_index; column < a.p.columns; column += SUMS) {
        const float sum = load_float(a.p.x_dtype, a.residual, residual + column) +
                          load_float(a.p.x_dtype, a.x, x + column);
        store_float(a.p.x_dtype, a.residual, residual + column, sum);
    }
}

/* 1 / root mean square of a vector, the same in every thread. */
static float norm_scale(constant norm_arguments &a, Place place, device const uchar *from,
                        uint64_t at) {
    threadgroup float *sums = reinterpret_cast<threadgroup float *>(SHARED());
    const uint32_t thread_index = place.thread_index;
    float sum = 0.0f;
    for (uint32_t column = thread_index; column < a.p.columns; column += SUMS) {
        const float x = load_float(a.p.x_dtype, from, at + column);
        sum = PWK_FMA(x, x, sum);
    }
    sums[thread_index] = sum;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float lane = 0.0f;
    if (thread_index < 16) {
        lane = (sums[thread_index] + sums[thread_index + 16]) +
               (sums[thread_index + 32] + sums[thread_index + 48]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (place.simdgroup == 0) {
        for (ushort half_lanes = 8; half_lanes > 0; half_lanes /= 2) {
            lane += simd_shuffle_xor(lane, half_lanes);
        }
        if (thread_index == 0) {
            sums[0] = 1.0f / PWK_SQRT(lane / float(a.p.columns) + a.p.epsilon);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float scale = sums[0];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return scale;
}

static void norm_body(constant norm_arguments &a, Place place) {
    const uint64_t rows = live(a.launch, place, NORM_ROWS, a.rows, a.p.rows_max);
    for (uint64_t vector = place.group.x; vector < rows * a.p.heads;
         vector += place.group_count.x) {
        const uint64_t row = vector / a.p.heads;
        const uint64_t within = (vector % a.p.heads) * a.p.columns;
        const uint64_t residual = row * a.p.residual_row_stride + within;
        const bool adds = a.residual != nullptr;
        const uint64_t x = row * a.p.x_row_stride + within;
        if (adds) {
            add_residual(a, place, x, residual);
        }
        device const uchar *from = adds ? a.residual : a.x;
        const uint64_t at = adds ? residual : x;
        const float scale = norm_scale(a, place, from, at);
        const uint64_t out = row * a.p.out_row_stride + within;
        for (uint32_t column = place.thread_index; column < a.p.columns; column += SUMS) {
            const float weight = load_float(a.p.weight_dtype, a.weight, column) + a.p.weight_offset;
            const float y = (load_float(a.p.x_dtype, from, at + column) * scale) * weight;
            store_float(a.p.out_dtype, a.out, out + column, y);
        }
    }
}

ENTRY(pw_norm, SUMS, norm_arguments, norm_body)
