/* Parameters of every kernel: plain scalars, declared once for C11, C++17, CUDA,
 * Metal and Rust (through bindgen). Buffers are never named here: they are
 * arguments. Private: embedders include pagewise.h instead.
 *
 * Rules: fixed-width scalars only, 8-byte fields first, no padding, at most 16
 * fields a block, constants as unsigned macros. Sizes and offsets are asserted in
 * every language.
 */
#ifndef PAGEWISE_KERNEL_PARAMS_H
#define PAGEWISE_KERNEL_PARAMS_H

#if defined(__METAL_VERSION__)
#include <metal_stdlib>
typedef uint uint32_t;
typedef ulong uint64_t;
typedef long int64_t;
#define PWK_ASSERT(condition, text) static_assert(condition, text)
#elif defined(__cplusplus)
#include <cstdint>
#include <cstddef>
#define PWK_ASSERT(condition, text) static_assert(condition, text)
#else
#include <stddef.h>
#include <stdint.h>
#define PWK_ASSERT(condition, text) _Static_assert(condition, text)
#endif

/* Metal has no offsetof; its compiler lays structs out by the same C rules. */
#if defined(__METAL_VERSION__)
#define PWK_LAYOUT(block, bytes, last, at) \
    PWK_ASSERT(sizeof(struct block) == (bytes), #block " has padding or another size")
#else
#define PWK_LAYOUT(block, bytes, last, at)                                              \
    PWK_ASSERT(sizeof(struct block) == (bytes), #block " has padding or another size"); \
    PWK_ASSERT(offsetof(struct block, last) == (at), #block "." #last " has moved")
#endif

/* Element types. Zero is invalid. */
#define PWK_DTYPE_F32 1u
#define PWK_DTYPE_F16 2u
#define PWK_DTYPE_BF16 3u
#define PWK_DTYPE_E4M3 4u /* fp8, finite only: 448 is the largest value */
#define PWK_DTYPE_I8 5u
#define PWK_DTYPE_I4 6u /* two's complement nibbles, the low one first */

/* ---- norm ------------------------------------------------------------------ */

/* Root mean square norm of rows, or of each head of a row. */
struct pwk_norm {
    uint64_t x_row_stride;        /* elements between rows of x; at least heads * columns */
    uint64_t residual_row_stride; /* elements between rows of the residual; 0 without one */
    uint64_t out_row_stride;      /* elements between rows of out; at least heads * columns */
    uint32_t rows_max;            /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t heads;               /* vectors normed apart in a row; 1 to 65536 */
    uint32_t columns;             /* elements of one vector; 1 to 2^24 */
    uint32_t x_dtype;             /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t weight_dtype;        /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t out_dtype;           /* PWK_DTYPE_F32, F16 or BF16 */
    float epsilon;                /* added to the mean of squares; at least 0, finite */
    float weight_offset;          /* added to each weight: 0, or 1 where models store weight - 1 */
};
PWK_LAYOUT(pwk_norm, 56, weight_offset, 52);

#endif /* PAGEWISE_KERNEL_PARAMS_H */
