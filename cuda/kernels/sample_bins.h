/* Sums of weights by bins, in shared memory. */
#ifndef PAGEWISE_SAMPLE_BINS_H
#define PAGEWISE_SAMPLE_BINS_H

#include "kernel.h"

/* Sums of weights below 2^32 by two words each, for shared memory adds words alone at once. */
template <uint32_t count>
struct weight_bins {
    uint32_t low[count];
    uint32_t high[count];

    __device__ void clear() {
        for (uint32_t bin = threadIdx.x; bin < count; bin += blockDim.x) {
            low[bin] = 0;
            high[bin] = 0;
        }
    }
    __device__ void add(uint32_t bin, uint32_t weight) {
        const uint32_t before = atomicAdd(&low[bin], weight);
        if (before + weight < before) {
            atomicAdd(&high[bin], 1u);
        }
    }
    __device__ unsigned long long of(uint32_t bin) const {
        return static_cast<unsigned long long>(high[bin]) << 32 | low[bin];
    }
};

#endif /* PAGEWISE_SAMPLE_BINS_H */
