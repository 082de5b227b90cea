/* Keys and values of 64 positions on their way from pages to shared memory, and from the
 * small formats to bf16 there.
 *
 * A tile is lines: of V, and of K in rows, a line for each key; of a transposed K a line for
 * each dim. Lines come 16 bytes at a time by cp.async where all of the layout is aligned to
 * that, else cell by cell. Keys outside of `low` to `high` are not read: in V they are zeros,
 * in K whatever was there, for a key's scores are its own.
 */
#ifndef PAGEWISE_ATTENTION_STAGE_H
#define PAGEWISE_ATTENTION_STAGE_H

#include "attention_call.h"

constexpr uint32_t CHUNK = 64;    /* positions at a time */
constexpr uint32_t THREADS = 128; /* of a block */

/* K or V of one head in its slab; strides in bytes. */
struct attention_part {
    const unsigned char *slab;
    uint64_t page_stride;
    uint64_t token_stride;
    uint64_t dim_stride; /* of cells */
    uint32_t cells;      /* of a token: i4 has two dims a cell */
    uint32_t cell_bytes;
    bool transposed;
    bool whole; /* 16 bytes at a time */
};

/* Where a position lies. */
struct attention_place {
    uint32_t page;
    uint32_t token;
};

PWK_FN uint32_t cell_bytes_of(uint32_t dtype) {
    return dtype == PWK_DTYPE_F32 ? 4 : (dtype == PWK_DTYPE_F16 || dtype == PWK_DTYPE_BF16 ? 2 : 1);
}

PWK_FN attention_part keys_of(const attention_arguments &a, uint32_t head) {
    const pwk_kv_layout &kv = a.p.kv;
    const uint32_t of = kv.dtype == PWK_DTYPE_I4 ? 2 : 1, bytes = cell_bytes_of(kv.dtype);
    attention_part part;
    part.slab = static_cast<const unsigned char *>(a.keys) + head * kv.k_head_stride / of * bytes;
    part.page_stride = kv.page_stride / of * bytes;
    part.token_stride = kv.k_token_stride / of * bytes;
    part.dim_stride = kv.k_dim_stride * bytes;
    part.cells = kv.head_dim / of;
    part.cell_bytes = bytes;
    part.transposed = kv.k_dim_stride != 1 && kv.k_token_stride == of;
    const uint64_t strides = reinterpret_cast<uint64_t>(part.slab) | part.page_stride;
    const uint64_t rows = part.token_stride | uint64_t(part.cells) * bytes;
    const uint64_t lines = part.dim_stride | uint64_t(kv.page_len) * bytes;
    part.whole = part.transposed ? (strides | lines) % 16 == 0
                                 : kv.k_dim_stride == 1 && (strides | rows) % 16 == 0;
    return part;
}

PWK_FN attention_part values_of(const attention_arguments &a, uint32_t head) {
    const pwk_kv_layout &kv = a.p.kv;
    const uint32_t of = kv.dtype == PWK_DTYPE_I4 ? 2 : 1, bytes = cell_bytes_of(kv.dtype);
    const void *slab = a.values != nullptr ? a.values : a.keys;
    const uint64_t start = (head * kv.v_head_stride + kv.v_offset) / of * bytes;
    attention_part part;
    part.slab = static_cast<const unsigned char *>(slab) + start;
    part.page_stride = kv.page_stride / of * bytes;
    part.token_stride = kv.v_token_stride / of * bytes;
    part.dim_stride = bytes;
    part.cells = kv.head_dim / of;
    part.cell_bytes = bytes;
    part.transposed = false;
    const uint64_t strides = reinterpret_cast<uint64_t>(part.slab) | part.page_stride;
    part.whole = (strides | part.token_stride | uint64_t(part.cells) * bytes) % 16 == 0;
    return part;
}

PWK_FN const unsigned char *cell_of(const attention_part &part, attention_place place,
                                    uint32_t cell) {
    return part.slab + place.page * part.page_stride + place.token * part.token_stride +
           cell * part.dim_stride;
}

PWK_FN void copy_cell(unsigned char *to, const unsigned char *from, uint32_t bytes, bool valid) {
    if (bytes == 4) {
        *reinterpret_cast<uint32_t *>(to) = valid ? *reinterpret_cast<const uint32_t *>(from) : 0;
    } else if (bytes == 2) {
        *reinterpret_cast<uint16_t *>(to) = valid ? *reinterpret_cast<const uint16_t *>(from) : 0;
    } else {
        *to = valid ? *from : 0;
    }
}

/* Lines of keys: by a block. */
PWK_FN void stage_rows(const attention_part &part, const attention_place *places, uint32_t low,
                       uint32_t high, unsigned char *tile, uint32_t pitch) {
    if (part.whole) {
        const uint32_t units = part.cells * part.cell_bytes / 16;
        for (uint32_t i = threadIdx.x; i < CHUNK * units; i += THREADS) {
            const uint32_t key = i / units, unit = i % units;
            const bool valid = key >= low && key < high;
            const attention_place place = places[valid ? key : low];
            const unsigned char *from = cell_of(part, place, 0) + 16 * unit;
            ops::copy_async_16(tile + key * pitch + 16 * unit, from, valid);
        }
        return;
    }
    for (uint32_t i = threadIdx.x; i < CHUNK * part.cells; i += THREADS) {
        const uint32_t key = i / part.cells, cell = i % part.cells;
        const bool valid = key >= low && key < high;
        const attention_place place = places[valid ? key : low];
        copy_cell(tile + key * pitch + cell * part.cell_bytes, cell_of(part, place, cell),
                  part.cell_bytes, valid);
    }
}

/* Lines of dims: by a block. */
PWK_FN void stage_columns(const attention_part &part, const attention_place *places,
                          uint32_t low, uint32_t high, unsigned char *tile, uint32_t pitch) {
    if (part.whole) {
        const uint32_t keys = 16 / part.cell_bytes, units = CHUNK / keys;
        for (uint32_t i = threadIdx.x; i < part.cells * units; i += THREADS) {
            const uint32_t line = i / units, first = i % units * keys;
            if (first < high && first + keys > low) {
                /* A unit lies in one page; its first key may not be kept, but one of it is. */
                const uint32_t key = first > low ? first : low;
                const unsigned char *from =
                    cell_of(part, places[key], line) - (key - first) * part.cell_bytes;
                ops::copy_async_16(tile + line * pitch + first * part.cell_bytes, from, true);
            }
        }
        return;
    }
    for (uint32_t i = threadIdx.x; i < part.cells * CHUNK; i += THREADS) {
        const uint32_t line = i / CHUNK, key = i % CHUNK;
        if (key >= low && key < high) {
            copy_cell(tile + line * pitch + key * part.cell_bytes,
                      cell_of(part, places[key], line), part.cell_bytes, true);
        }
    }
}

/* Starts to bring a tile; at least one key is wanted. */
PWK_FN void stage(const attention_part &part, const attention_place *places, uint32_t low,
                  uint32_t high, unsigned char *tile, uint32_t pitch) {
    if (part.transposed) {
        stage_columns(part, places, low, high, tile, pitch);
    } else {
        stage_rows(part, places, low, high, tile, pitch);
    }
}

/* ---- small formats ---- */

/* The number of a cell; of i4 the low one, or the high one. */
PWK_FN float number_of(uint32_t dtype, uint32_t bits, bool high) {
    if (dtype == PWK_DTYPE_E4M3) {
        return pwk_of_e4m3(bits & 0xffu);
    }
    if (dtype == PWK_DTYPE_I8) {
        return float(static_cast<int32_t>(bits << 24) >> 24);
    }
    return float(static_cast<int32_t>(bits << (high ? 24 : 28)) >> 28);
}

/* Two cells of a word as bf16, which has room for all numbers of the small formats. */
PWK_FN uint32_t two_bf16(uint32_t dtype, uint32_t first, uint32_t second, bool high) {
    const uint32_t low = __float_as_uint(number_of(dtype, first, high)) >> 16;
    return low | (__float_as_uint(number_of(dtype, second, high)) & 0xffff0000u);
}

/* A tile of one-byte cells becomes one of bf16, by a block. */
PWK_FN void widen(uint32_t dtype, const attention_part &part, const unsigned char *raw,
                  uint32_t raw_pitch, unsigned char *tile, uint32_t pitch) {
    const uint32_t lines = part.transposed ? part.cells : CHUNK;
    const uint32_t words = (part.transposed ? CHUNK : part.cells) / 4;
    const bool pairs = dtype == PWK_DTYPE_I4;
    for (uint32_t i = threadIdx.x; i < lines * words; i += THREADS) {
        const uint32_t line = i / words, word = i % words;
        const uint32_t x = *reinterpret_cast<const uint32_t *>(raw + line * raw_pitch + 4 * word);
        const uint32_t b0 = x & 0xffu, b1 = x >> 8 & 0xffu, b2 = x >> 16 & 0xffu, b3 = x >> 24;
        if (!pairs || part.transposed) {
            const uint32_t to = (pairs ? 2 * line : line) * pitch + 8 * word;
            *reinterpret_cast<uint2 *>(tile + to) =
                make_uint2(two_bf16(dtype, b0, b1, false), two_bf16(dtype, b2, b3, false));
            if (pairs) {
                *reinterpret_cast<uint2 *>(tile + to + pitch) =
                    make_uint2(two_bf16(dtype, b0, b1, true), two_bf16(dtype, b2, b3, true));
            }
        } else {
            uint32_t of[4];
            const uint32_t byte[4] = {b0, b1, b2, b3};
            for (uint32_t k = 0; k < 4; k++) {
                of[k] = __float_as_uint(number_of(dtype, byte[k], false)) >> 16 |
                        (__float_as_uint(number_of(dtype, byte[k], true)) & 0xffff0000u);
            }
            *reinterpret_cast<uint4 *>(tile + line * pitch + 16 * word) =
                make_uint4(of[0], of[1], of[2], of[3]);
        }
    }
}

/* A stored value as it is read. */
PWK_FN float stored_value(uint32_t dtype, const attention_part &part, attention_place place,
                          uint32_t dim) {
    const unsigned char *cell = cell_of(part, place, dtype == PWK_DTYPE_I4 ? dim / 2 : dim);
    if (part.cell_bytes == 1) {
        return number_of(dtype, *cell, dim % 2 != 0);
    }
    return load_float(dtype, cell, 0);
}

#endif /* PAGEWISE_ATTENTION_STAGE_H */
