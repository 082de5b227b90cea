/* What a block brings: the rows and queries of its unit, and of a chunk of keys and values
 * where they lie, their scales and their tiles. */
#ifndef PAGEWISE_ATTENTION_LOAD_H
#define PAGEWISE_ATTENTION_LOAD_H

#include "attention_unit.h"

/* ---- a unit's queries ---- */

/* What its rows see, and what they see together. */
ATTENDING(void)::load_rows() {
    if (threadIdx.x < QUERIES) {
        const uint64_t own = unit().query + threadIdx.x;
        const uint32_t seq = unit().seq;
        seen_row row = {0, 0, ~0ull, 0, 0};
        if (own < unit().queries) {
            row = row_of(a, seq, a.q_start[seq] + static_cast<uint32_t>(own / group_of(a)));
        }
        rows()[threadIdx.x] = row;
        if (row.begin < row.end) {
            atomicMin(&unit().begin, row.begin);
            atomicMax(&unit().end, row.end);
        }
    }
}

/* Queries as pieces; a warp takes one at a time. */
ATTENDING(void)::load_queries() {
    const uint32_t dims = a.p.kv.head_dim, group = group_of(a);
    for (uint32_t r = threadIdx.x / 32; r < QUERIES; r += THREADS / 32) {
        const uint64_t own = unit().query + r;
        const uint64_t row = a.q_start[unit().seq] + own / group;
        const uint64_t start =
            row * a.p.q_row_stride + (uint64_t(unit().head) * group + own % group) * dims;
        float x[DIMS / 32];
        uint32_t most = 0;
        for (uint32_t i = 0; i < DIMS / 32; i++) {
            const uint32_t dim = 32 * i + at.lane;
            const bool there = own < unit().queries && dim < dims;
            x[i] = there ? load_float(a.p.q_dtype, a.q, start + dim) : 0.0f;
            const uint32_t size = __float_as_uint(x[i]) & 0x7fffffffu;
            most = most > size ? most : size;
        }
        store_query(r, x, most);
    }
}

ATTENDING(void)::store_query(uint32_t r, float (&x)[DIMS / 32], uint32_t most) {
    float factor = 1.0f;
    if constexpr (!PLAIN) {
        if (Kind::is_scaled(a.p.q_dtype)) {
            for (uint32_t step = 16; step > 0; step /= 2) {
                const uint32_t other = __shfl_xor_sync(ALL, most, step);
                most = most > other ? most : other;
            }
            /* The largest comes to lie between 2^14 and 2^15. */
            const uint32_t exponent = most >> 23 > 27 ? most >> 23 : 27;
            const float up = __uint_as_float((268 - exponent) << 23);
            factor = __uint_as_float((exponent - 14) << 23);
            for (uint32_t i = 0; i < DIMS / 32; i++) {
                x[i] *= up;
            }
        }
    }
    if (at.lane == 0) {
        shared<float>(FACTORS)[r] = factor;
    }
    const uint32_t pieces = Kind::pieces(a.p.q_dtype);
    for (uint32_t piece = 0; piece < pieces; piece++) {
        unsigned char *to = (SHARED() + PIECES) + (piece * QUERIES + r) * unit().row_pitch;
        for (uint32_t i = 0; i < DIMS / 32; i++) {
            const uint32_t dim = 32 * i + at.lane;
            if (dim < dims16()) {
                if constexpr (PLAIN) {
                    reinterpret_cast<float *>(to)[dim] = x[i];
                } else {
                    const uint32_t bits = Kind::bits(x[i]);
                    reinterpret_cast<uint16_t *>(to)[dim] = static_cast<uint16_t>(bits);
                    const float kept = Kind::of(bits);
                    x[i] = is_finite(kept) ? x[i] - kept : 0.0f;
                }
            }
        }
    }
}

/* ---- bringing keys and values ---- */

/* Where the positions of a chunk lie. */
ATTENDING(void)::find_places(uint32_t chunk, uint32_t low, uint32_t high) {
    const uint32_t position = chunk * CHUNK + threadIdx.x, len = a.p.kv.page_len;
    if (threadIdx.x < CHUNK && position >= low && position < high) {
        const uint64_t page = listed_of(a, unit().seq) + (position / len - unit().first / len);
        places(chunk)[threadIdx.x] = {a.page_ids[page], position % len};
    }
}

/* Scales of a chunk's keys and values: by token, or the same for all. */
ATTENDING(void)::find_scales(uint32_t chunk, uint32_t low, uint32_t high) {
    const pwk_kv_layout &kv = a.p.kv;
    const uint32_t key = threadIdx.x % CHUNK, part = threadIdx.x / CHUNK;
    const uint32_t position = chunk * CHUNK + key;
    if (kv.scales == PWK_KV_SCALES_NONE) {
        return;
    }
    float scale = part == 0 ? kv.k_scale : kv.v_scale;
    if (kv.scales == PWK_KV_SCALES_TOKEN && position >= low && position < high) {
        const attention_place place = places(chunk)[key];
        const uint64_t row = (uint64_t(place.page) * kv.kv_heads + unit().head) * 2 + part;
        scale = a.scales[row * kv.page_len + place.token];
    }
    scales()[threadIdx.x] = scale;
}

ATTENDING(void)::stage_part(const attention_part &part, unsigned char *to, uint32_t pitch,
                            uint32_t chunk, uint32_t low, uint32_t high) {
    const uint32_t base = chunk * CHUNK;
    const uint32_t from = low > base ? low - base : 0;
    const uint32_t until = high - base < CHUNK ? high - base : CHUNK;
    stage(part, places(chunk), from, until, to, pitch);
}

ATTENDING(void)::stage_keys(uint32_t chunk, uint32_t low, uint32_t high) {
    stage_part(unit().keys, SHARED() + unit().raw_key_tile, unit().raw_key_pitch, chunk,
               low, high);
}

ATTENDING(void)::stage_values(uint32_t chunk, uint32_t low, uint32_t high) {
    stage_part(unit().values, SHARED() + unit().raw_value_tile, unit().raw_value_pitch, chunk,
               low, high);
}

#endif /* PAGEWISE_ATTENTION_LOAD_H */
