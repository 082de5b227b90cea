/* The second pass of `sample`, for top-p without top-k: the masses of a row's tokens, by bins. */
#ifndef PAGEWISE_SAMPLE_WEIGH_H
#define PAGEWISE_SAMPLE_WEIGH_H

#include "sample_bins.h"
#include "sample_call.h"

/* The largest logit of a row, by a warp. */
static __device__ float largest_of_row(const row_desk &desk, uint32_t blocks) {
    float most = -PWK_INFINITY;
    for (uint32_t block = threadIdx.x % 32; block < blocks; block += 32) {
        most = pwk_max(desk.blocks[block].own.most, most);
    }
    for (int lanes = 16; lanes > 0; lanes /= 2) {
        most = pwk_max(__shfl_xor_sync(EVERY_LANE, most, lanes), most);
    }
    return most;
}

/* The masses of a block, of whose groups those that have any are read, four at a time. */
static __device__ void weigh_block(const row_desk &desk, const tempered &z, const logits_row &x,
                                   uint32_t first, uint32_t vocab) {
    using mass_bins = weight_bins<MASS_BINS>;
    mass_bins &bins = *reinterpret_cast<mass_bins *>(SHARED());
    bins.clear();
    __syncthreads();
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t end = vocab - first < BLOCK ? vocab : first + BLOCK;
    const bool some = first + lane * GROUP < end;
    const float most = some ? desk.groups[first / GROUP + lane] : -PWK_INFINITY;
    uint32_t left = __ballot_sync(EVERY_LANE, z.of(most) >= MASS_LEAST);
    while (left != 0) {
        float v[2 * AT_ONCE];
#pragma unroll
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            const uint32_t group = next_group(left);
            const uint32_t at = first + group * GROUP + threadIdx.x;
            v[2 * i] = group != PWK_NONE && at < end ? x.at(at) : -PWK_INFINITY;
            v[2 * i + 1] = group != PWK_NONE && at + SUMS < end ? x.at(at + SUMS) : -PWK_INFINITY;
        }
#pragma unroll
        for (uint32_t i = 0; i < 2 * AT_ONCE; i++) {
            const uint32_t mass = z.mass(v[i]);
            if (mass > 0) {
                bins.add(z.bin(v[i]), mass);
            }
        }
    }
    __syncthreads();
    for (uint32_t bin = threadIdx.x; bin < MASS_BINS; bin += SUMS) {
        if (bins.of(bin) != 0) {
            atomicAdd(&desk.bins[bin], bins.of(bin));
        }
    }
    __syncthreads();
}

static __device__ void weigh_body(const sample_arguments &a) {
    const pwk_sample &p = a.p;
    const uint64_t rows = live(a.launch, SAMPLE_ROWS, a.rows, p.rows_max);
    const uint32_t blocks = blocks_of(p);
    for (uint64_t piece = blockIdx.x; piece < rows * blocks; piece += gridDim.x) {
        const uint64_t row = piece / blocks;
        const pwk_sample_row asked = a.settings[row];
        if (!is_weighed(p, asked)) {
            continue;
        }
        const row_desk desk = desk_of(a, row);
        const tempered z = {largest_of_row(desk, blocks), factor_of(asked)};
        const bool some = z.most > -PWK_INFINITY && z.most < PWK_INFINITY;
        if (some) {
            weigh_block(desk, z, own_row(a, row), uint32_t(piece % blocks) * BLOCK, p.vocab);
        }
    }
}

#endif /* PAGEWISE_SAMPLE_WEIGH_H */
