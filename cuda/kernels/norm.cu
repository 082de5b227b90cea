/* norm: root mean square norm of vectors, by the very order of the contract, so with the
 * CPU's bits.
 *
 * Tiling: a block of two warps takes one vector, thread t its elements t, t + 64 and so on,
 * which are the contract's 64 partial sums. Memory: 64 floats shared. The second reading of
 * x comes from cache.
 * Not measured yet.
 */
#include "kernel.h"

struct norm_arguments {
    pwk_norm p;
    const void *x;
    const void *weight;
    void *residual;
    void *out;
    const uint32_t *rows;
    pwk_launch launch;
};

constexpr uint32_t NORM_ROWS = 4; /* place of `rows` among the buffers */
constexpr uint32_t SUMS = 64;     /* partial sums of squares, and threads */

/* What a vector is: x, with the residual added where there is one. */
struct norm_input {
    const norm_arguments &a;
    const void *from;
    uint64_t at;

    __device__ float operator()(uint32_t column) const {
        return load_float(a.p.x_dtype, from, at + column);
    }
};

/* residual += x, rounded to its type. */
static __device__ void add_residual(const norm_arguments &a, uint64_t x, uint64_t residual) {
    for (uint32_t column = threadIdx.x; column < a.p.columns; column += SUMS) {
        const float sum = load_float(a.p.x_dtype, a.residual, residual + column) +
                          load_float(a.p.x_dtype, a.x, x + column);
        store_float(a.p.x_dtype, a.residual, residual + column, sum);
    }
}

/* 1 / root mean square, the same in every thread. */
static __device__ float norm_scale(const norm_arguments &a, const norm_input &input) {
    float *sums = reinterpret_cast<float *>(SHARED());
    const uint32_t thread = threadIdx.x;
    float sum = 0.0f;
    for (uint32_t column = thread; column < a.p.columns; column += SUMS) {
        const float x = input(column);
        sum = __fmaf_rn(x, x, sum);
    }
    sums[thread] = sum;
    __syncthreads();
    float lane = 0.0f;
    if (thread < 16) {
        lane = (sums[thread] + sums[thread + 16]) + (sums[thread + 32] + sums[thread + 48]);
    }
    __syncthreads();
    if (thread < 32) {
        for (uint32_t half = 8; half > 0; half /= 2) {
            lane += __shfl_down_sync(0xffffffffu, lane, half);
        }
        if (thread == 0) {
            const float mean = lane / float(a.p.columns);
            sums[0] = 1.0f / sqrtf(mean + a.p.epsilon);
        }
    }
    __syncthreads();
    const float scale = sums[0];
    __syncthreads();
    return scale;
}

static __device__ void norm_body(const norm_arguments &a) {
    const pwk_norm &p = a.p;
    const uint64_t rows = live(a.launch, NORM_ROWS, a.rows, p.rows_max);
    for (uint64_t vector = blockIdx.x; vector < rows * p.heads; vector += gridDim.x) {
        const uint64_t row = vector / p.heads;
        const uint64_t within = (vector % p.heads) * p.columns;
        const uint64_t x = row * p.x_row_stride + within;
        const uint64_t residual = row * p.residual_row_stride + within;
        if (a.residual != nullptr) {
            add_residual(a, x, residual);
        }
        const norm_input input = a.residual != nullptr ? norm_input{a, a.residual, residual}
                                                       : norm_input{a, a.x, x};
        const float scale = norm_scale(a, input);
        const uint64_t out = row * p.out_row_stride + within;
        for (uint32_t column = threadIdx.x; column < p.columns; column += SUMS) {
            const float weight =
                load_float(p.weight_dtype, a.weight, column) + p.weight_offset;
            store_float(p.out_dtype, a.out, out + column, (input(column) * scale) * weight);
        }
    }
}

ENTRY(pw_norm, SUMS, 8, norm_arguments, norm_body)
