/* pool: one vector for each sequence from its rows, in the order of the contract, so with the
 * CPU's bits.
 *
 * Tiling: a thread takes eight columns of a sequence and adds its rows one after the other,
 * four of them on their way at once, in 16-byte pieces where rows lie so; blocks along x share
 * the columns, along y they loop over sequences. Where vectors are normalised a second launch
 * gives each a block: it brings 2048 elements at a time to shared memory, and 16 threads sum
 * their squares, for the contract has 16 sums. Memory: 8 KiB shared.
 * Not measured yet.
 */
#include "pieces.h"
#include "step_elements.h"

struct pool_arguments {
    pwk_pool p;
    const void *x;
    const uint32_t *starts;
    float *out;
    const uint32_t *seqs;
    pwk_launch launch;
};

constexpr uint32_t POOL_STARTS = 1; /* place of `starts` among the buffers */
constexpr uint32_t POOL_SEQS = 3;   /* place of `seqs` */
constexpr uint32_t THREADS = 128;
constexpr uint32_t CHECKERS = 512;
constexpr uint32_t ROWS = 4;       /* rows on their way at once */
constexpr uint32_t SUMS = 16;      /* partial sums of squares */
constexpr uint32_t STAGED = 2048;  /* elements in shared memory at once */
constexpr float LENGTH_LEAST = 1e-12f;

/* Sequences in use; 0 where they or their starts are refused. */
static __device__ uint32_t checked_seqs(const pool_arguments &a, bool check) {
    const uint32_t seqs = live_in_block(a.launch, POOL_SEQS, a.seqs, a.p.seqs_max);
    if (!check && a.launch.tile != BLOCKS_CHECK) {
        return seqs;
    }
    uint32_t *shared = reinterpret_cast<uint32_t *>(SHARED());
    const bool right =
        !is_refused_in_block(a.launch) &&
        check_ascending(a.launch, shared, POOL_STARTS, a.starts, seqs + 1, a.p.rows_max);
    return right ? seqs : 0;
}

static __device__ void check_body(const pool_arguments &a) { checked_seqs(a, true); }

/* The sum of rows `first` to `end`, of which there is one at least, in columns `column` on. */
static __device__ void sum_rows(const pool_arguments &a, uint64_t first, uint64_t end,
                                uint32_t column, uint32_t count, bool wide,
                                float (&sum)[PIECE]) {
    const uint64_t stride = a.p.x_row_stride;
    load_piece(a.p.x_dtype, a.x, first * stride + column, count, wide, sum);
    uint64_t row = first + 1;
    for (; row + ROWS <= end; row += ROWS) {
        float x[ROWS][PIECE];
#pragma unroll
        for (uint32_t i = 0; i < ROWS; i++) {
            load_piece(a.p.x_dtype, a.x, (row + i) * stride + column, count, wide, x[i]);
        }
#pragma unroll
        for (uint32_t i = 0; i < ROWS; i++) {
#pragma unroll
            for (uint32_t j = 0; j < PIECE; j++) {
                sum[j] = sum[j] + x[i][j];
            }
        }
    }
    for (; row < end; row++) {
        float x[PIECE];
        load_piece(a.p.x_dtype, a.x, row * stride + column, count, wide, x);
#pragma unroll
        for (uint32_t j = 0; j < PIECE; j++) {
            sum[j] = sum[j] + x[j];
        }
    }
}

static __device__ void pool_body(const pool_arguments &a) {
    const pwk_pool &p = a.p;
    const uint32_t seqs = checked_seqs(a, false);
    const bool wide = is_wide_row(p.x_dtype, a.x, p.x_row_stride);
    const bool wide_out = is_wide_row(PWK_DTYPE_F32, a.out, p.out_row_stride);
    const uint32_t step = gridDim.x * THREADS * PIECE;
    const uint32_t start = (blockIdx.x * THREADS + threadIdx.x) * PIECE;
    for (uint64_t seq = blockIdx.y; seq < seqs; seq += gridDim.y) {
        const uint64_t begin = a.starts[seq], end = a.starts[seq + 1];
        const uint64_t first = p.kind == PWK_POOL_LAST ? end - 1 : begin;
        const uint64_t past = p.kind == PWK_POOL_FIRST ? begin + 1 : end;
        const float rows = float(static_cast<uint32_t>(end - begin));
        for (uint32_t column = start; column < p.columns; column += step) {
            const uint32_t count = piece_count(column, p.columns);
            float sum[PIECE] = {};
            if (begin < end) {
                sum_rows(a, first, past, column, count, wide, sum);
            }
            if (begin < end && p.kind == PWK_POOL_MEAN) {
#pragma unroll
                for (uint32_t j = 0; j < PIECE; j++) {
                    sum[j] = sum[j] / rows;
                }
            }
            const uint64_t out = seq * p.out_row_stride + column;
            store_piece(PWK_DTYPE_F32, a.out, out, count, wide_out, sum);
        }
    }
}

/* The length of a vector, in every thread. */
static __device__ float vector_length(const float *vector, uint32_t columns) {
    float *staged = reinterpret_cast<float *>(SHARED());
    float sum = 0.0f;
    for (uint32_t from = 0; from < columns; from += STAGED) {
        const uint32_t count = columns - from < STAGED ? columns - from : STAGED;
        for (uint32_t at = threadIdx.x; at < count; at += THREADS) {
            staged[at] = vector[from + at];
        }
        __syncthreads();
        if (threadIdx.x < SUMS) {
#pragma unroll 8
            for (uint32_t at = threadIdx.x; at < count; at += SUMS) {
                sum = __fmaf_rn(staged[at], staged[at], sum);
            }
        }
        __syncthreads();
    }
    if (threadIdx.x < 32) {
        for (uint32_t half = SUMS / 2; half > 0; half /= 2) {
            sum += __shfl_down_sync(0xffffffffu, sum, half);
        }
        if (threadIdx.x == 0) {
            staged[0] = pwk_max(LENGTH_LEAST, sqrtf(sum));
        }
    }
    __syncthreads();
    const float length = staged[0];
    __syncthreads();
    return length;
}

static __device__ void normalise_body(const pool_arguments &a) {
    const uint32_t seqs = live_in_block(a.launch, POOL_SEQS, a.seqs, a.p.seqs_max);
    for (uint64_t seq = blockIdx.x; seq < seqs; seq += gridDim.x) {
        float *vector = a.out + seq * a.p.out_row_stride;
        const float length = vector_length(vector, a.p.columns);
        for (uint32_t column = threadIdx.x; column < a.p.columns; column += THREADS) {
            vector[column] = vector[column] / length;
        }
    }
}

ENTRY(pw_pool_check, CHECKERS, 1, pool_arguments, check_body)
ENTRY(pw_pool, THREADS, 4, pool_arguments, pool_body)
ENTRY(pw_pool_normalise, THREADS, 8, pool_arguments, normalise_body)
