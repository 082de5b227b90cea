/* norm: root mean square norm of vectors, by the very order of the contract, so with the
 * CPU's bits.
 *
 * Tiling: a block of two warps takes one vector. Thread t sums the squares of its elements t,
 * t + 64 and so on, the contract's 64 partial sums, 16 of them loaded before the first is used.
 * What has no order, adding the residual and writing, goes by pieces of eight. Memory: 64
 * floats shared. The second reading of x comes from cache.
 * Not measured yet.
 */
#include "pieces.h"

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
constexpr uint32_t AHEAD = 16;    /* elements of a partial sum on their way at once */
constexpr uint32_t PIECES = 2;    /* pieces of a row on their way at once */

/* A row of floats, from a column's first element on. */
struct norm_row {
    uint32_t dtype;
    void *start;
    uint64_t at;
    bool wide; /* whole pieces can be taken at once */
};

/* Rows so many elements apart, of vectors of so many columns. */
static __device__ norm_row row_of(uint32_t dtype, const void *start, uint64_t stride,
                                  const norm_arguments &a, uint64_t vector) {
    const uint64_t within = vector % a.p.heads * a.p.columns;
    return {dtype, const_cast<void *>(start), vector / a.p.heads * stride + within,
            is_wide_row(dtype, start, stride | a.p.columns)};
}

/* to[c] = make(one[c], other[c]) for all columns, PIECES pieces of each on their way at once. */
template <class Make>
static __device__ __forceinline__ void combine(const norm_row &one, const norm_row &other,
                                               const norm_row &to, uint32_t columns,
                                               Make make) {
    constexpr uint32_t step = SUMS * PIECE;
    for (uint64_t first = threadIdx.x * PIECE; first < columns; first += PIECES * step) {
        piece_bits ones[PIECES], others[PIECES];
        uint32_t counts[PIECES];
#pragma unroll
        for (uint32_t i = 0; i < PIECES; i++) {
            const uint64_t at = first + i * step;
            counts[i] = at < columns ? piece_count(at, columns) : 0;
            ones[i] = load_bits(one.dtype, one.start, one.at + at, counts[i], one.wide);
            others[i] = load_bits(other.dtype, other.start, other.at + at, counts[i], other.wide);
        }
#pragma unroll
        for (uint32_t i = 0; i < PIECES; i++) {
            float x[PIECE], y[PIECE];
            widen_piece(one.dtype, ones[i], x);
            widen_piece(other.dtype, others[i], y);
#pragma unroll
            for (uint32_t k = 0; k < PIECE; k++) {
                x[k] = make(x[k], y[k]);
            }
            store_piece(to.dtype, to.start, to.at + first + i * step, counts[i], to.wide, x);
        }
    }
}

/* 1 / root mean square, the same in every thread. */
static __device__ float norm_scale(const norm_arguments &a, const norm_row &row) {
    float *sums = reinterpret_cast<float *>(SHARED());
    const uint32_t thread = threadIdx.x;
    float sum = 0.0f;
    for (uint64_t first = thread; first < a.p.columns; first += AHEAD * SUMS) {
        const uint32_t left = (a.p.columns - static_cast<uint32_t>(first) + SUMS - 1) / SUMS;
        float x[AHEAD];
        load_apart(row.dtype, row.start, row.at + first, SUMS, left, x);
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            sum = __fmaf_rn(x[i], x[i], sum);
        }
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
        norm_row row = row_of(p.x_dtype, a.x, p.x_row_stride, a, vector);
        if (a.residual != nullptr) {
            const norm_row residual =
                row_of(p.x_dtype, a.residual, p.residual_row_stride, a, vector);
            combine(residual, row, residual, p.columns,
                    [](float before, float x) { return before + x; });
            __syncthreads();
            row = residual;
        }
        const float scale = norm_scale(a, row), offset = p.weight_offset;
        const norm_row weight = {p.weight_dtype, const_cast<void *>(a.weight), 0,
                                 is_wide(a.weight, 0)};
        const norm_row out = row_of(p.out_dtype, a.out, p.out_row_stride, a, vector);
        combine(row, weight, out, p.columns,
                [&](float x, float w) { return (x * scale) * (w + offset); });
    }
}

ENTRY(pw_norm, SUMS, 8, norm_arguments, norm_body)
