/* The second pass of `sample`, for top-p without top-k: the masses of a row's tokens, by bins. */
#ifndef PAGEWISE_METAL_SAMPLE_WEIGH_H
#define PAGEWISE_METAL_SAMPLE_WEIGH_H

#include "sample_bins.h"
#include "sample_call.h"

/* The largest logit of a row, by a SIMD group. */
static float largest_of_row(Place place, thread const row_desk &desk, uint32_t blocks) {
    float most = -PWK_INFINITY;
    for (uint32_t block = place.lane; block < blocks; block += LANES) {
        most = pwk_max(desk.blocks[block].own.most, most);
    }
    return simd_max(most);
}

static void weigh_block(Place place, thread const row_desk &desk, tempered z, logits_row row,
                        uint32_t first, uint32_t vocab) {
    threadgroup atomic_uint *bins = reinterpret_cast<threadgroup atomic_uint *>(SHARED());
    for (uint32_t word = place.thread_index; word < 2 * MASS_BINS; word += SUMS) {
        atomic_store_explicit(bins + word, 0u, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint32_t end = vocab - first < BLOCK ? vocab : first + BLOCK;
    for (uint32_t group = first; group < end; group += GROUP) {
        if (!(z_of(z, desk.groups[group / GROUP]) >= MASS_LEAST)) {
            continue;
        }
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t at = group + i * SUMS + place.thread_index;
            const float x = at < end ? logit_at(row, at) : -PWK_INFINITY;
            // A factor that was flushed to 0 leaves no number of what is masked.
            const uint32_t mass = x > -PWK_INFINITY ? mass_of(z, x) : 0;
            if (mass > 0) {
                add_wide(bins + 2 * bin_of(z, x), mass);
            }
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint32_t bin = place.thread_index; bin < MASS_BINS; bin += SUMS) {
        const uint64_t mass = load_wide(bins + 2 * bin);
        if (mass != 0) {
            add_wide(desk.bins + 2 * bin, mass);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

static void weigh_body(constant sample_arguments &a, Place place) {
    constant pwk_sample &p = a.p;
    const uint64_t rows = live(a.launch, place, SAMPLE_ROWS, a.rows, p.rows_max);
    const uint32_t blocks = blocks_of(p);
    for (uint64_t piece = place.group.x; piece < rows * blocks; piece += place.group_count.x) {
        const uint64_t row = piece / blocks;
        const pwk_sample_row asked = load_asked(a.settings + row);
        if (!is_weighed(p, asked)) {
            continue;
        }
        const row_desk desk = desk_of(a, row);
        const tempered z = {largest_of_row(place, desk, blocks), factor_of(asked)};
        if (z.most > -PWK_INFINITY && z.most < PWK_INFINITY) {
            weigh_block(place, desk, z, own_row(a, row), uint32_t(piece % blocks) * BLOCK,
                        p.vocab);
        }
    }
}

#endif /* PAGEWISE_METAL_SAMPLE_WEIGH_H */
