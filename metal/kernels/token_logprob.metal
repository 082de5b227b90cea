/* token_logprob: matmul's logits, by matmul's steps, and their sum of exponentials by the very
 * order of the contract: with the CPU's bits wherever matmul has them.
 *
 * Tiling: a first threadgroup looks at the tokens, and rows for weights in groups are
 * quantised. Then a threadgroup takes 8 rows, or of float weights 64 where there are many, and
 * a vocabulary block of 4096: it writes the logits to a place of its own in the workspace, a
 * tile of 32 at a time, sums them while they are in a cache, a SIMD group a row at a time, by
 * the contract's 64 partial sums, two a lane, and goes on to the next. At last a thread for
 * each row folds its blocks. Memory: 128 KiB or 1 MiB of the workspace for each threadgroup;
 * of a threadgroup as matmul's. Emulated; not yet run on Apple hardware. Not measured yet.
 */
#include "product.h"

struct token_logprob_arguments {
    pwk_token_logprob p;
    device const uchar *x;
    device const uchar *weight;
    device const uchar *bias;
    device const uint32_t *token;
    device float *logprob;
    device uint32_t *status;
    device const uint32_t *rows;
    launch_of_call launch; /* tile: rows from which on many go together; 0: never */
};

/* Places among the buffers. */
constant constexpr uint32_t LOGPROB_TOKEN = 3;
constant constexpr uint32_t LOGPROB_ROWS = 6;

constant constexpr uint32_t BLOCK = 4096; /* logits of a vocabulary block */
constant constexpr uint32_t FOLD_THREADS = 64;

static uint32_t logprob_rows(constant token_logprob_arguments &a, Place place) {
    return live(a.launch, place, LOGPROB_ROWS, a.rows, a.p.rows_max);
}

PWK_FN uint32_t blocks_of(constant pwk_weight &w) { return (w.outputs + BLOCK - 1) / BLOCK; }

/* ---- the workspace: quantised rows, partial results, logits ---- */

PWK_FN uint64_t aligned(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

/* `[rows_max][blocks]`: the largest logit of a block, and its sum of exponentials. */
PWK_FN device float2 *partials_of(thread const product &p) {
    const uint64_t bytes = aligned(converted_bytes(p.weight, p.rows_max));
    return reinterpret_cast<device float2 *>(p.converted + bytes);
}

/* `[rows_max]`: the logit of each row's token. */
PWK_FN device float *token_logits_of(thread const product &p) {
    const uint64_t partials = uint64_t(p.rows_max) * blocks_of(p.weight);
    return reinterpret_cast<device float *>(partials_of(p) + partials);
}

/* `[rows of a threadgroup][4096]` for each threadgroup. */
PWK_FN device float *logits_of(thread const product &p, Place place, uint32_t rows) {
    const uint64_t bytes = uint64_t(p.rows_max) * (uint64_t(blocks_of(p.weight)) * 8 + 4);
    device uchar *from = reinterpret_cast<device uchar *>(partials_of(p)) + aligned(bytes);
    return reinterpret_cast<device float *>(from) + uint64_t(place.group.x) * rows * BLOCK;
}

/* ---- the beginning ---- */

/* One threadgroup: the first row whose token is none is told. */
static void check_body(constant token_logprob_arguments &a, Place place) {
    threadgroup uint32_t *firsts = reinterpret_cast<threadgroup uint32_t *>(SHARED());
    const uint32_t rows = logprob_rows(a, place);
    uint32_t first = PWK_NONE;
    for (uint64_t row = place.thread_index; row < rows && first == PWK_NONE; row += THREADS) {
        first = a.token[row] < a.p.weight.outputs ? first : uint32_t(row);
    }
    first = simd_min(first);
    if (place.lane == 0) {
        firsts[place.simdgroup] = first;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (place.thread_index != 0) {
        return;
    }
    for (uint32_t i = 1; i < SIMDGROUPS; i++) {
        first = firsts[i] < first ? firsts[i] : first;
    }
    if (first != PWK_NONE) {
        refuse(a.launch, PWK_FAULT_ELEMENT, LOGPROB_TOKEN, first, 0,
               int64_t(a.p.weight.outputs) - 1, a.token[first]);
    }
}

static void convert_body(constant token_logprob_arguments &a, Place place) {
    const product p = product_of(a);
    convert_rows(p, place, logprob_rows(a, place));
}

/* ---- logits, and sums of exponentials ---- */

/* Logits of a vocabulary block, to `[ROWS][4096]`. */
template <uint32_t ROWS>
static void fill_block(thread const product &p, Place place, product_place at, uint32_t block,
                       device float *logits) {
    const uint32_t first = block * (BLOCK / TILE);
    for (uint32_t i = 0; i < BLOCK / TILE && first + i < tiles_of(p.weight); i++) {
        at.tile = first + i;
        float totals[ROWS * TILE / THREADS];
        if (ROWS == FEW_ROWS) {
            few_totals(p, place, at, totals);
        } else {
            many_totals(p, place, at, totals);
        }
        for (uint32_t j = 0; j < ROWS * TILE / THREADS; j++) {
            const uint32_t within = place.thread_index + j * THREADS;
            const uint32_t output = at.tile * TILE + within % TILE;
            if (at.first + within / TILE < at.rows && output < p.weight.outputs) {
                logits[within / TILE * BLOCK + i * TILE + within % TILE] =
                    with_bias(p, output, totals[j]);
            }
        }
    }
    threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup);
}

/* A SIMD group sums a row's logits of one vocabulary block; kept at the row's partial
 * results. */
static void sum_block(constant token_logprob_arguments &a, thread const product &p, Place place,
                      uint64_t row, uint32_t block, device const float *x) {
    const uint32_t left = p.weight.outputs - block * BLOCK;
    const uint32_t width = left < BLOCK ? left : BLOCK;
    float most = -PWK_INFINITY;
    for (uint32_t i = place.lane; i < width; i += 32) {
        most = pwk_max(x[i], most);
    }
    most = simd_max(most);
    const float least = most == -PWK_INFINITY ? 0.0f : most;
    float low = 0.0f, high = 0.0f;
    for (uint32_t i = place.lane; i < width; i += 64) {
        low += pwk_exp_below(x[i] - least);
        if (i + 32 < width) {
            high += pwk_exp_below(x[i + 32] - least);
        }
    }
    low += simd_shuffle_xor(low, 16);
    high += simd_shuffle_xor(high, 16);
    float sum = low + high;
    for (ushort half_lanes = 8; half_lanes > 0; half_lanes /= 2) {
        sum += simd_shuffle_xor(sum, half_lanes);
    }
    if (place.lane != 0) {
        return;
    }
    partials_of(p)[row * blocks_of(p.weight) + block] = float2(most, sum);
    const uint32_t token = a.token[row];
    if (token / BLOCK == block) {
        token_logits_of(p)[row] = x[token % BLOCK];
    }
}

/* ROWS rows and a vocabulary block at a time; neighbours share the block. */
template <uint32_t ROWS>
static void sums_body(constant token_logprob_arguments &a, Place place) {
    const uint32_t rows = logprob_rows(a, place);
    const bool are_many = a.launch.tile != 0 && rows > a.launch.tile;
    if (are_many != (ROWS == MANY_ROWS)) {
        return;
    }
    const product p = product_of(a);
    device float *logits = logits_of(p, place, ROWS);
    const uint64_t parts = (uint64_t(rows) + ROWS - 1) / ROWS;
    for (uint64_t piece = place.group.x; piece < parts * blocks_of(p.weight);
         piece += place.group_count.x) {
        const uint32_t block = uint32_t(piece / parts);
        const product_place at = {piece % parts * ROWS, rows, 0};
        fill_block<ROWS>(p, place, at, block, logits);
        for (uint32_t i = place.simdgroup; i < ROWS && at.first + i < rows; i += SIMDGROUPS) {
            sum_block(a, p, place, at.first + i, block, logits + i * BLOCK);
        }
        threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup);
    }
}

/* ---- the fold ---- */

/* A thread folds a row's blocks. */
static void fold_body(constant token_logprob_arguments &a, Place place) {
    const uint32_t rows = logprob_rows(a, place);
    const product p = product_of(a);
    const uint32_t blocks = blocks_of(p.weight);
    uint64_t row = uint64_t(place.group.x) * FOLD_THREADS + place.thread_index;
    for (; row < rows; row += uint64_t(place.group_count.x) * FOLD_THREADS) {
        float most = -PWK_INFINITY, sum = 0.0f;
        for (uint32_t block = 0; block < blocks; block++) {
            const float2 next = partials_of(p)[row * blocks + block];
            const float larger = pwk_max(next.x, most);
            const float least = larger == -PWK_INFINITY ? 0.0f : larger;
            sum = PWK_FMA(next.y, pwk_exp(next.x - least), sum * pwk_exp(most - least));
            most = larger;
        }
        const bool masked = most == -PWK_INFINITY;
        const uint32_t status =
            sum != sum ? PWK_STATUS_NOT_FINITE : (masked ? PWK_STATUS_MASKED : PWK_STATUS_OK);
        const float logprob = (token_logits_of(p)[row] - most) - pwk_log(sum);
        a.status[row] = status;
        a.logprob[row] = status == PWK_STATUS_OK ? logprob : PWK_NAN;
    }
}

ENTRY(pw_token_logprob_check, THREADS, token_logprob_arguments, check_body)
ENTRY(pw_token_logprob_convert, THREADS, token_logprob_arguments, convert_body)
ENTRY(pw_token_logprob_few, THREADS, token_logprob_arguments, sums_body<FEW_ROWS>)
ENTRY(pw_token_logprob_many, THREADS, token_logprob_arguments, sums_body<MANY_ROWS>)
ENTRY(pw_token_logprob_fold, FOLD_THREADS, token_logprob_arguments, fold_body)
