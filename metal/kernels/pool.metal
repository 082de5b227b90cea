/* pool: one vector for each sequence from its rows, in the order of the contract, so with the
 * CPU's bits.
 *
 * Tiling: a thread takes eight columns of a sequence and adds its rows one after the other,
 * four of them on their way at once, in 16-byte pieces where rows lie so; threadgroups along x
 * share the columns, along y they loop over sequences. Where vectors are normalised a second
 * launch gives each a threadgroup: it brings 2048 elements at a time to threadgroup memory, and
 * 16 threads sum their squares, for the contract has 16 sums. Memory: 8 KiB of a threadgroup.
 * Emulated; not yet run on Apple hardware.
 */
#include "checks.h"
#include "pieces.h"

struct pool_arguments {
    pwk_pool p;
    device const uchar *x;
    device const uint32_t *starts;
    device uchar *out;
    device const uint32_t *seqs;
    launch_of_call launch;
};

constant constexpr uint32_t POOL_STARTS = 1; /* place of `starts` among the buffers */
constant constexpr uint32_t POOL_SEQS = 3;   /* place of `seqs` */
constant constexpr uint32_t THREADS = 128;
constant constexpr uint32_t CHECKERS = 512;
constant constexpr uint32_t ROWS = 4;      /* rows on their way at once */
constant constexpr uint32_t SUMS = 16;     /* partial sums of squares */
constant constexpr uint32_t STAGED = 2048; /* elements in threadgroup memory at once */
constant constexpr float LENGTH_LEAST = 1e-12f;

/* Sequences in use; 0 where they or their starts are refused. */
static uint32_t checked_seqs(constant pool_arguments &a, Place place, bool check) {
    const uint32_t seqs = live_in_block(a.launch, place, POOL_SEQS, a.seqs, a.p.seqs_max);
    if (!check && a.launch.tile != BLOCKS_CHECK) {
        return seqs;
    }
    const bool right =
        !is_refused_in_block(a.launch, place) &&
        check_ascending(a.launch, place, check_word(place), POOL_STARTS, a.starts, seqs + 1,
                        a.p.rows_max);
    return right ? seqs : 0;
}

static void check_body(constant pool_arguments &a, Place place) { checked_seqs(a, place, true); }

/* The sum of rows `first` to `end`, of which there is one at least, in columns `column` on. */
static void sum_rows(constant pool_arguments &a, uint64_t first, uint64_t end, uint32_t column,
                     uint32_t count, bool wide, thread float *sum) {
    const uint64_t stride = a.p.x_row_stride;
    load_piece(a.p.x_dtype, a.x, first * stride + column, count, wide, sum);
    uint64_t row = first + 1;
    for (; row + ROWS <= end; row += ROWS) {
        float x[ROWS * PIECE];
        for (uint32_t i = 0; i < ROWS; i++) {
            const uint64_t at = (row + i) * stride + column;
            load_piece(a.p.x_dtype, a.x, at, count, wide, x + i * PIECE);
        }
        for (uint32_t i = 0; i < ROWS; i++) {
            for (uint32_t j = 0; j < PIECE; j++) {
                sum[j] = sum[j] + x[i * PIECE + j];
            }
        }
    }
    for (; row < end; row++) {
        float x[PIECE];
        load_piece(a.p.x_dtype, a.x, row * stride + column, count, wide, x);
        for (uint32_t j = 0; j < PIECE; j++) {
            sum[j] = sum[j] + x[j];
        }
    }
}

static void pool_body(constant pool_arguments &a, Place place) {
    constant pwk_pool &p = a.p;
    const uint32_t seqs = checked_seqs(a, place, false);
    const bool wide = is_wide_row(p.x_dtype, a.x, p.x_row_stride);
    const bool wide_out = is_wide_row(PWK_DTYPE_F32, a.out, p.out_row_stride);
    const uint32_t stride = place.group_count.x * THREADS * PIECE;
    const uint32_t start = (place.group.x * THREADS + place.thread_index) * PIECE;
    for (uint64_t seq = place.group.y; seq < seqs; seq += place.group_count.y) {
        const uint64_t begin = a.starts[seq], end = a.starts[seq + 1];
        const uint64_t first = p.kind == PWK_POOL_LAST ? end - 1 : begin;
        const uint64_t past = p.kind == PWK_POOL_FIRST ? begin + 1 : end;
        const float rows = float(static_cast<uint32_t>(end - begin));
        for (uint32_t column = start; column < p.columns; column += stride) {
            const uint32_t count = piece_count(column, p.columns);
            float sum[PIECE] = {0.0f};
            if (begin < end) {
                sum_rows(a, first, past, column, count, wide, sum);
            }
            if (begin < end && p.kind == PWK_POOL_MEAN) {
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
static float vector_length(Place place, device const float *vector, uint32_t columns) {
    threadgroup float *staged = reinterpret_cast<threadgroup float *>(SHARED());
    float sum = 0.0f;
    for (uint32_t from = 0; from < columns; from += STAGED) {
        const uint32_t count = columns - from < STAGED ? columns - from : STAGED;
        for (uint32_t at = place.thread_index; at < count; at += THREADS) {
            staged[at] = vector[from + at];
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (place.thread_index < SUMS) {
            for (uint32_t at = place.thread_index; at < count; at += SUMS) {
                sum = PWK_FMA(staged[at], staged[at], sum);
            }
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    if (place.simdgroup == 0) {
        for (ushort lanes = SUMS / 2; lanes > 0; lanes /= 2) {
            sum += simd_shuffle_xor(sum, lanes);
        }
        if (place.thread_index == 0) {
            staged[0] = pwk_max(LENGTH_LEAST, PWK_SQRT(sum));
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float length = staged[0];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return length;
}

static void normalise_body(constant pool_arguments &a, Place place) {
    const uint32_t seqs = live_in_block(a.launch, place, POOL_SEQS, a.seqs, a.p.seqs_max);
    device float *vectors = reinterpret_cast<device float *>(a.out);
    for (uint64_t seq = place.group.x; seq < seqs; seq += place.group_count.x) {
        device float *vector = vectors + seq * a.p.out_row_stride;
        const float by = vector_length(place, vector, a.p.columns);
        for (uint32_t column = place.thread_index; column < a.p.columns; column += THREADS) {
            vector[column] = vector[column] / by;
        }
    }
}

ENTRY(pw_pool_check, CHECKERS, pool_arguments, check_body)
ENTRY(pw_pool, THREADS, pool_arguments, pool_body)
ENTRY(pw_pool_normalise, THREADS, pool_arguments, normalise_body)
