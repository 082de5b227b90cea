/* matmul: rows times a packed weight. Weights in groups and f32 weights have the CPU's bits;
 * bf16 and f16 weights go through tensor cores with f32 sums, held to the rule of errors.
 *
 * Tiling: rows are converted into the workspace by a launch of their own; then few rows go by
 * 16 and many by 64 or 128, as product_forms.h says, each a launch that returns at once where the
 * count, which only the device knows, is the other's. Both run the same instructions in the
 * same order on a row, so its bits do not depend on which took it. f32 weights know the first
 * form alone. Memory: 18 KiB shared for few rows (50 KiB with f32 weights), 24 KiB for many
 * of one piece of floats, else 12 KiB a piece. A lane reads weights as whole lines of 128
 * bytes, 64 of f16.
 * Not measured yet.
 * instructions: HMMA, IMMA, LDGSTS
 */
#include "product_forms.h"

struct matmul_arguments {
    pwk_matmul p;
    const void *x;
    const unsigned char *weight;
    const void *bias;
    void *out;
    const uint32_t *rows;
    pwk_launch launch;
};

constexpr uint32_t MATMUL_ROWS = 4; /* place of `rows` among the buffers */

static __device__ product product_of(const matmul_arguments &a) {
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

static __device__ void convert_body(const matmul_arguments &a) {
    convert_rows(product_of(a), live(a.launch, MATMUL_ROWS, a.rows, a.p.rows_max));
}

/* One output at a time, neighbours by neighbouring lanes. */
struct store_one {
    const matmul_arguments &a;
    const product &p;

    __device__ __forceinline__ void operator()(uint64_t row, uint32_t output,
                                               float total) const {
        store_float(a.p.out_dtype, a.out, row * a.p.out_row_stride + output,
                    with_bias(p, output, total));
    }
};

/* Up to launch.tile rows; any number where that is 0. */
template <class Part>
static __device__ void few_body(const matmul_arguments &a) {
    const uint32_t rows = live(a.launch, MATMUL_ROWS, a.rows, a.p.rows_max);
    if (a.launch.tile != 0 && rows > a.launch.tile) {
        return;
    }
    const product p = product_of(a);
    const uint64_t stride = uint64_t(gridDim.y) * FEW_ROWS;
    for (uint64_t first = uint64_t(blockIdx.y) * FEW_ROWS; first < rows; first += stride) {
        side_by_side<Part>(p, first, rows, blockIdx.x * tiles_at_once(p.weight),
                           store_one{a, p});
    }
}

/* Four neighbouring outputs, at once where they lie so. */
static __device__ void store_four(const matmul_arguments &a, const product &p, uint64_t row,
                                  uint32_t output, float4 v) {
    const float totals[4] = {v.x, v.y, v.z, v.w};
    const uint64_t at = row * a.p.out_row_stride + output;
    const uint64_t address = reinterpret_cast<uint64_t>(a.out) + at * 4;
    if (a.p.out_dtype == PWK_DTYPE_F32 && address % 16 == 0 && output + 4 <= p.weight.outputs) {
        *reinterpret_cast<float4 *>(static_cast<float *>(a.out) + at) =
            make_float4(with_bias(p, output, v.x), with_bias(p, output + 1, v.y),
                        with_bias(p, output + 2, v.z), with_bias(p, output + 3, v.w));
        return;
    }
#pragma unroll
    for (uint32_t j = 0; j < 4; j++) {
        if (output + j < p.weight.outputs) {
            store_float(a.p.out_dtype, a.out, at + j, with_bias(p, output + j, totals[j]));
        }
    }
}

/* More than launch.tile rows. */
template <class Form>
static __device__ void many_body(const matmul_arguments &a) {
    const uint32_t rows = live(a.launch, MATMUL_ROWS, a.rows, a.p.rows_max);
    if (rows <= a.launch.tile) {
        return;
    }
    const product p = product_of(a);
    const uint32_t tile = blockIdx.x * MANY_TILES + own_tile();
    constexpr uint64_t each = many_rows<Form>;
    for (uint64_t first = blockIdx.y * each; first < rows; first += gridDim.y * each) {
        tile_sums<Form::BLOCKS> totals;
        one_after_other<Form>(p, first, rows, tile, totals);
        const place own = own_place();
#pragma unroll
        for (uint32_t i = 0; i < Form::BLOCKS * 4; i++) {
            const uint64_t row = first + own_row<Form>() + i / 4 * 16 + i % 4 / 2 * 8 + own.g;
            if (row < rows) {
                store_four(a, p, row, tile * TILE + 8 * own.t + 4 * (i % 2), totals.four(i));
            }
        }
    }
}

#define FEW(name, blocks, ...)                                                           \
    ENTRY(pw_matmul_few_##name, WARPS * 32, blocks, matmul_arguments, few_body<__VA_ARGS__>)
#define MANY(name, ...)                                                                  \
    ENTRY(pw_matmul_many_##name, WARPS * 32, 1, matmul_arguments, many_body<__VA_ARGS__>)

ENTRY(pw_matmul_convert, 256, 4, matmul_arguments, convert_body)
FEW(f32, 2, by_fma)
FEW(i4, 1, by_products<group_form<true, 1>>)
FEW(i8, 1, by_products<group_form<false, 1>>)
FEW(bf16_1, 2, by_products<float_form<bf16_weight, 1, 1>>)
FEW(bf16_2, 2, by_products<float_form<bf16_weight, 2, 1>>)
FEW(bf16_3, 1, by_products<float_form<bf16_weight, 3, 1>>)
FEW(f16_1, 2, by_products<float_form<f16_weight, 1, 1>>)
FEW(f16_2, 2, by_products<float_form<f16_weight, 2, 1>>)
MANY(i4, group_form<true, 2>)
MANY(i8, group_form<false, 2>)
MANY(bf16_1, float_form<bf16_weight, 1, 4>)
MANY(bf16_2, float_form<bf16_weight, 2, 2>)
MANY(bf16_3, float_form<bf16_weight, 3, 2>)
MANY(f16_1, float_form<f16_weight, 1, 4>)
MANY(f16_2, float_form<f16_weight, 2, 2>)
