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

/* ---- KV pages, shared by every kernel that reads or writes them --------------- */

/* What turns stored keys and values back into numbers. */
#define PWK_KV_SCALES_NONE 0u   /* nothing: f32, f16, bf16 */
#define PWK_KV_SCALES_STATIC 1u /* k_scale and v_scale of the layout: e4m3, i8, i4 */
#define PWK_KV_SCALES_TOKEN 2u  /* one f32 for each token, head and K or V, in a slab of their
                                   own: [pages][kv_heads][2][page_len], K before V */

/* Where key (page, head, token, dim) and its value lie in a slab of pages. Strides are in
 * elements; for i4 they are even and two elements share a byte along dim. The native
 * layout is [page][head][K: head_dim x page_len | V: page_len x head_dim]: K with
 * k_dim_stride page_len and k_token_stride 1. Embedders bring K as rows: k_dim_stride 1. */
struct pwk_kv_layout {
    uint64_t page_stride;    /* between pages */
    uint64_t k_head_stride;  /* between heads of K */
    uint64_t k_token_stride; /* between tokens of K: 1 where K is transposed */
    uint64_t k_dim_stride;   /* between dims of K: 1 where K is rows */
    uint64_t v_head_stride;  /* between heads of V */
    uint64_t v_token_stride; /* between tokens of V; its dims are consecutive */
    uint64_t v_offset;       /* from a page's K to its V in one slab; 0 if V has its own */
    uint32_t pages;          /* pages of the slab; 1 to 2^32 - 1 */
    uint32_t page_len;       /* tokens a page; 1 to 65536 */
    uint32_t kv_heads;       /* 1 to 1024 */
    uint32_t head_dim;       /* multiple of 8, at most 256 */
    uint32_t dtype;          /* any PWK_DTYPE */
    uint32_t scales;         /* PWK_KV_SCALES_*; as the dtype asks */
    float k_scale;           /* static: a key is its stored number times this; else 0 */
    float v_scale;           /* static: a value is its stored number times this; else 0 */
};
PWK_LAYOUT(pwk_kv_layout, 88, v_scale, 84);

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
