/* token_logprob: matmul's logits, by matmul's instructions, and their sum of exponentials by
 * the very order of the contract: with the CPU's bits wherever matmul has them.
 *
 * Tiling: a first launch looks at the tokens and converts rows. Few rows: their logits go to
 * the workspace, a block for each tile of 32 outputs or several, and a warp for each row and
 * vocabulary block of 4096 sums them. Many rows: a block takes 64 rows (16 with f32 weights)
 * and a vocabulary block, writes its logits to a place of its own in the workspace, sums them
 * while they are in the second-level cache, and goes on to the next. At last a thread for each
 * row folds its blocks. A warp sums a vocabulary block by the contract's 64 partial sums, two
 * a lane. Memory: logits of 32 rows, or 1 MiB for each multiprocessor; shared as matmul's.
 * Not measured yet.
 * instructions: HMMA, IMMA, LDGSTS
 */
#include "product_forms.h"
#include "step_elements.h"

struct token_logprob_arguments {
    pwk_token_logprob p;
    const void *x;
    const unsigned char *weight;
    const void *bias;
    const uint32_t *token;
    float *logprob;
    uint32_t *status;
    const uint32_t *rows;
    pwk_launch launch;
};

/* Places among the buffers. */
constexpr uint32_t LOGPROB_FIELD_TOKEN = 3;
constexpr uint32_t LOGPROB_FIELD_ROWS = 6;

constexpr uint32_t BLOCK = 4096; /* logits of a vocabulary block */
constexpr uint32_t NO_ROW = 0xffffffffu;

static __device__ product product_of(const token_logprob_arguments &a) {
    return product{a.x,
                   a.p.x_row_stride,
                   a.p.x_dtype,
                   a.p.rows_max,
                   a.p.weight,
                   a.weight,
                   a.bias,
                   a.p.bias_dtype,
                   reinterpret_cast<unsigned char *>(a.launch.workspace)};
}

static __device__ uint32_t logprob_rows(const token_logprob_arguments &a) {
    return live(a.launch, LOGPROB_FIELD_ROWS, a.rows, a.p.rows_max);
}

PWK_FN uint32_t blocks_of(const pwk_weight &w) { return (w.outputs + BLOCK - 1) / BLOCK; }

/* ---- the workspace: converted rows, partial results, logits ---- */

PWK_FN uint64_t aligned(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

/* `[rows_max][blocks]`: the largest logit of a block, and its sum of exponentials. */
PWK_FN float2 *partials_of(const product &p) {
    return reinterpret_cast<float2 *>(p.converted + aligned(converted_bytes(p)));
}

/* `[rows_max]`: the logit of each row's token. */
PWK_FN float *token_logits_of(const product &p) {
    return reinterpret_cast<float *>(partials_of(p) + uint64_t(p.rows_max) * blocks_of(p.weight));
}

/* Logits of few rows, `[rows][tiles][32]`, or a place of `[rows of a block][4096]` for each
 * block. */
PWK_FN float *logits_of(const product &p) {
    const uint64_t bytes = uint64_t(p.rows_max) * (uint64_t(blocks_of(p.weight)) * 8 + 4);
    return reinterpret_cast<float *>(reinterpret_cast<unsigned char *>(partials_of(p)) +
                                     aligned(bytes));
}

PWK_FN uint64_t logits_stride(const pwk_weight &w) { return uint64_t(tiles_of(w)) * TILE; }

/* ---- the beginning ---- */

/* The first row whose token is none is told. */
static __device__ void check_tokens(const token_logprob_arguments &a, uint32_t rows) {
    uint32_t *first = reinterpret_cast<uint32_t *>(SHARED());
    if (threadIdx.x == 0) {
        *first = NO_ROW;
    }
    __syncthreads();
    for (uint32_t row = threadIdx.x; row < rows; row += blockDim.x) {
        if (a.token[row] >= a.p.weight.outputs) {
            atomicMin(first, row);
            break;
        }
    }
    __syncthreads();
    if (threadIdx.x == 0 && *first != NO_ROW) {
        refuse(a.launch, PWK_FAULT_ELEMENT, LOGPROB_FIELD_TOKEN, *first, 0,
               int64_t(a.p.weight.outputs) - 1, a.token[*first]);
    }
}

/* The first block looks at the tokens; all convert rows, where there is something to. */
static __device__ void begin_body(const token_logprob_arguments &a) {
    const uint32_t rows = live_in_block(a.launch, LOGPROB_FIELD_ROWS, a.rows, a.p.rows_max);
    if (blockIdx.x == 0) {
        check_tokens(a, rows);
    }
    if (a.p.weight.dtype != PWK_DTYPE_F32) {
        convert_rows(product_of(a), rows);
    }
}

/* ---- sums of exponentials ---- */

/* A warp sums a row's logits of one vocabulary block; kept at the row's partial results. */
static __device__ __forceinline__ void sum_block(const token_logprob_arguments &a,
                                                 const product &p, uint64_t row, uint32_t block,
                                                 const float *x) {
    const uint32_t lane = threadIdx.x % 32, left = p.weight.outputs - block * BLOCK;
    const uint32_t width = left < BLOCK ? left : BLOCK;
    float most = -PWK_INFINITY;
#pragma unroll 4
    for (uint32_t i = lane; i < width; i += 32) {
        most = pwk_max(x[i], most);
    }
    for (uint32_t half = 16; half > 0; half /= 2) {
        most = pwk_max(__shfl_xor_sync(ALL_LANES, most, half), most);
    }
    const float least = most == -PWK_INFINITY ? 0.0f : most;
    float low = 0.0f, high = 0.0f;
#pragma unroll 2
    for (uint32_t i = lane; i < width; i += 64) {
        low += pwk_exp_below(x[i] - least);
        if (i + 32 < width) {
            high += pwk_exp_below(x[i + 32] - least);
        }
    }
    low += __shfl_down_sync(ALL_LANES, low, 16);
    high += __shfl_down_sync(ALL_LANES, high, 16);
    float sum = low + high;
    for (uint32_t half = 8; half > 0; half /= 2) {
        sum += __shfl_down_sync(ALL_LANES, sum, half);
    }
    if (lane != 0) {
        return;
    }
    partials_of(p)[row * blocks_of(p.weight) + block] = make_float2(most, sum);
    const uint32_t within = a.token[row] - block * BLOCK;
    if (a.token[row] >= block * BLOCK && within < width) {
        token_logits_of(p)[row] = x[within];
    }
}

/* A thread folds a row's blocks. */
static __device__ void fold_body(const token_logprob_arguments &a) {
    const uint32_t rows = logprob_rows(a);
    const product p = product_of(a);
    const uint32_t blocks = blocks_of(p.weight);
    for (uint64_t row = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; row < rows;
         row += uint64_t(gridDim.x) * blockDim.x) {
        float most = -PWK_INFINITY, sum = 0.0f;
        for (uint32_t block = 0; block < blocks; block++) {
            const float2 next = partials_of(p)[row * blocks + block];
            const float larger = pwk_max(next.x, most);
            const float least = larger == -PWK_INFINITY ? 0.0f : larger;
            sum = __fmaf_rn(next.y, pwk_exp(next.x - least), sum * pwk_exp(most - least));
            most = larger;
        }
        const uint32_t status = sum != sum                ? PWK_STATUS_NOT_FINITE
                                : most == -PWK_INFINITY ? PWK_STATUS_MASKED
                                                        : PWK_STATUS_OK;
        const float logprob = (token_logits_of(p)[row] - most) - pwk_log(sum);
        a.status[row] = status;
        a.logprob[row] = status == PWK_STATUS_OK ? logprob : PWK_NAN;
    }
}

/* ---- few rows ---- */

/* Up to launch.tile rows; any number where that is 0. */
PWK_FN bool are_few(const token_logprob_arguments &a, uint32_t rows) {
    return a.launch.tile == 0 || rows <= a.launch.tile;
}

template <class Part>
static __device__ void few_body(const token_logprob_arguments &a) {
    const uint32_t rows = logprob_rows(a);
    if (!are_few(a, rows)) {
        return;
    }
    const product p = product_of(a);
    float *logits = logits_of(p);
    for (uint64_t first = uint64_t(blockIdx.y) * FEW_ROWS; first < rows;
         first += uint64_t(gridDim.y) * FEW_ROWS) {
        side_by_side<Part>(p, first, rows, blockIdx.x * tiles_at_once(p.weight),
                           [&](uint64_t row, uint32_t output, float total) {
                               logits[row * logits_stride(p.weight) + output] =
                                   with_bias(p, output, total);
                           });
    }
}

/* A warp for each row and vocabulary block. */
static __device__ void sums_body(const token_logprob_arguments &a) {
    const uint32_t rows = logprob_rows(a);
    if (!are_few(a, rows)) {
        return;
    }
    const product p = product_of(a);
    const uint64_t blocks = blocks_of(p.weight), warps = blockDim.x / 32;
    for (uint64_t unit = blockIdx.x * warps + threadIdx.x / 32; unit < rows * blocks;
         unit += gridDim.x * warps) {
        const uint64_t row = unit / blocks;
        const uint32_t block = static_cast<uint32_t>(unit % blocks);
        sum_block(a, p, row, block,
                  logits_of(p) + row * logits_stride(p.weight) + uint64_t(block) * BLOCK);
    }
}

/* ---- many rows ---- */

/* Logits of a vocabulary block by tensor cores, to `[ROWS][4096]`. */
template <class Form>
struct fill_by_products {
    static constexpr uint32_t ROWS = many_rows<Form>;

    static __device__ __forceinline__ void fill(const product &p, uint64_t first, uint32_t rows,
                                                uint32_t block, float *logits) {
        const uint32_t begin = block * (BLOCK / TILE);
        for (uint32_t at = 0; at < BLOCK / TILE && begin + at < tiles_of(p.weight);
             at += MANY_TILES) {
            const uint32_t tile = begin + at + own_tile();
            tile_sums<Form::BLOCKS> totals;
            one_after_other<Form>(p, first, rows, tile, totals);
            const place own = own_place();
#pragma unroll
            for (uint32_t i = 0; i < Form::BLOCKS * 4; i++) {
                const uint32_t row = own_row<Form>() + i / 4 * 16 + i % 4 / 2 * 8 + own.g;
                const uint32_t within = (at + own_tile()) * TILE + 8 * own.t + 4 * (i % 2);
                const uint32_t output = block * BLOCK + within;
                if (first + row < rows && output < p.weight.outputs) {
                    *reinterpret_cast<float4 *>(logits + row * BLOCK + within) =
                        with_biases(p, output, totals.four(i));
                }
            }
        }
    }

    /* Four neighbouring outputs, the first of which there is. */
    static __device__ __forceinline__ float4 with_biases(const product &p, uint32_t output,
                                                         float4 v) {
        const uint32_t left = p.weight.outputs - output;
        return make_float4(with_bias(p, output, v.x),
                           left > 1 ? with_bias(p, output + 1, v.y) : v.y,
                           left > 2 ? with_bias(p, output + 2, v.z) : v.z,
                           left > 3 ? with_bias(p, output + 3, v.w) : v.w);
    }
};

/* The same by plain fma. */
struct fill_by_fma {
    static constexpr uint32_t ROWS = FEW_ROWS;

    static __device__ __forceinline__ void fill(const product &p, uint64_t first, uint32_t rows,
                                                uint32_t block, float *logits) {
        const uint32_t begin = block * (BLOCK / TILE);
        for (uint32_t at = 0; at < BLOCK / TILE && begin + at < tiles_of(p.weight);
             at += tiles_at_once(p.weight)) {
            side_by_side<by_fma>(p, first, rows, begin + at,
                                 [&](uint64_t row, uint32_t output, float total) {
                                     logits[(row - first) * BLOCK + output - block * BLOCK] =
                                         with_bias(p, output, total);
                                 });
        }
    }
};

/* More than launch.tile rows: a block goes over rows and vocabulary blocks, neighbours over
 * the rows of one vocabulary block. */
template <class Fill>
static __device__ void many_body(const token_logprob_arguments &a) {
    const uint32_t rows = logprob_rows(a);
    if (rows <= a.launch.tile) {
        return;
    }
    const product p = product_of(a);
    float *logits = logits_of(p) + uint64_t(blockIdx.x) * Fill::ROWS * BLOCK;
    const uint64_t parts = (uint64_t(rows) + Fill::ROWS - 1) / Fill::ROWS;
    for (uint64_t piece = blockIdx.x; piece < parts * blocks_of(p.weight); piece += gridDim.x) {
        const uint64_t first = piece % parts * Fill::ROWS;
        const uint32_t block = static_cast<uint32_t>(piece / parts);
        Fill::fill(p, first, rows, block, logits);
        __syncthreads();
        for (uint32_t row = threadIdx.x / 32; row < Fill::ROWS && first + row < rows;
             row += WARPS) {
            sum_block(a, p, first + row, block, logits + row * BLOCK);
        }
        __syncthreads();
    }
}

#define FEW(name, blocks, ...)                                                          \
    ENTRY(pw_token_logprob_few_##name, WARPS * 32, blocks, token_logprob_arguments,     \
          few_body<__VA_ARGS__>)
#define MANY(name, ...)                                                                 \
    ENTRY(pw_token_logprob_many_##name, WARPS * 32, 1, token_logprob_arguments,         \
          many_body<__VA_ARGS__>)

ENTRY(pw_token_logprob_begin, 256, 4, token_logprob_arguments, begin_body)
ENTRY(pw_token_logprob_sums, 256, 4, token_logprob_arguments, sums_body)
ENTRY(pw_token_logprob_fold, 64, 8, token_logprob_arguments, fold_body)
FEW(f32, 2, by_fma)
FEW(i4, 1, by_products<group_form<true, 1>>)
FEW(i8, 1, by_products<group_form<false, 1>>)
FEW(bf16_1, 2, by_products<float_form<bf16_weight, 1, 1>>)
FEW(bf16_2, 2, by_products<float_form<bf16_weight, 2, 1>>)
FEW(bf16_3, 1, by_products<float_form<bf16_weight, 3, 1>>)
FEW(f16_1, 2, by_products<float_form<f16_weight, 1, 1>>)
FEW(f16_2, 2, by_products<float_form<f16_weight, 2, 1>>)
MANY(f32, fill_by_fma)
MANY(i4, fill_by_products<group_form<true, 2>>)
MANY(i8, fill_by_products<group_form<false, 2>>)
MANY(bf16_1, fill_by_products<float_form<bf16_weight, 1, 2>>)
MANY(bf16_2, fill_by_products<float_form<bf16_weight, 2, 2>>)
MANY(bf16_3, fill_by_products<float_form<bf16_weight, 3, 2>>)
MANY(f16_1, fill_by_products<float_form<f16_weight, 1, 2>>)
MANY(f16_2, fill_by_products<float_form<f16_weight, 2, 2>>)
