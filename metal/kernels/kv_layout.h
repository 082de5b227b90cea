/* Where keys and values lie in slabs of pages: the address arithmetic of pwk_kv_layout, by
 * the very steps of kernels-core/src/kv_layout/.
 *
 * Addresses count cells: an element, or of i4 the byte that two dims share, the even one in
 * its low nibble. No two places share a cell.
 */
#ifndef PAGEWISE_METAL_KV_LAYOUT_H
#define PAGEWISE_METAL_KV_LAYOUT_H

#include "kernel.h"

constant constexpr uint32_t KV_KEYS = 0;
constant constexpr uint32_t KV_VALUES = 1;

/* Elements of a cell, and its bytes. */
PWK_FN uint32_t kv_per_cell(uint32_t dtype) { return dtype == PWK_DTYPE_I4 ? 2 : 1; }

PWK_FN uint32_t kv_cell_bytes(uint32_t dtype) {
    const bool halves = dtype == PWK_DTYPE_F16 || dtype == PWK_DTYPE_BF16;
    return dtype == PWK_DTYPE_F32 ? 4 : (halves ? 2 : 1);
}

/* Cells of one token's K or V in one head. */
PWK_FN uint32_t kv_dim_cells(constant pwk_kv_layout &kv) {
    return kv.head_dim / kv_per_cell(kv.dtype);
}

/* Cells from one dim (of i4, pair of dims) to the next. */
PWK_FN uint64_t kv_dim_stride(constant pwk_kv_layout &kv, uint32_t part) {
    return part == KV_KEYS ? kv.k_dim_stride : 1;
}

/* Cells from one token to the next. */
PWK_FN uint64_t kv_token_stride(constant pwk_kv_layout &kv, uint32_t part) {
    return (part == KV_KEYS ? kv.k_token_stride : kv.v_token_stride) / kv_per_cell(kv.dtype);
}

/* The first cell of a token in its slab: of K's, or of V's where that is apart. Cell c of the
 * token, c below kv_dim_cells, lies c * kv_dim_stride after it. */
PWK_FN uint64_t kv_cell(constant pwk_kv_layout &kv, uint32_t part, uint32_t page, uint32_t head,
                        uint32_t token) {
    const bool keys = part == KV_KEYS;
    const uint64_t elements = page * kv.page_stride +
                              head * (keys ? kv.k_head_stride : kv.v_head_stride) +
                              token * (keys ? kv.k_token_stride : kv.v_token_stride) +
                              (keys ? 0 : kv.v_offset);
    return elements / kv_per_cell(kv.dtype);
}

/* The float of a token's scale in the slab of scales. */
PWK_FN uint64_t kv_scale(constant pwk_kv_layout &kv, uint32_t part, uint32_t page, uint32_t head,
                         uint32_t token) {
    const uint64_t column = (uint64_t(page) * kv.kv_heads + head) * 2 + part;
    return column * kv.page_len + token;
}

/* The slab of K or V. */
PWK_FN device uchar *kv_slab(constant pwk_kv_layout &kv, uint32_t part, device uchar *keys,
                             device uchar *values) {
    return part == KV_KEYS || kv.v_offset != 0 ? keys : values;
}

/* Strides of K or V that say where tokens lie, in bytes, all or'ed: what of it is a multiple
 * of 16 keeps tokens at multiples of 16. */
PWK_FN uint64_t kv_token_steps(constant pwk_kv_layout &kv, uint32_t part) {
    const uint64_t elements = part == KV_KEYS
                                  ? kv.page_stride | kv.k_head_stride | kv.k_token_stride
                                  : kv.page_stride | kv.v_head_stride | kv.v_token_stride |
                                        kv.v_offset;
    return elements / kv_per_cell(kv.dtype) * kv_cell_bytes(kv.dtype);
}

#endif /* PAGEWISE_METAL_KV_LAYOUT_H */
