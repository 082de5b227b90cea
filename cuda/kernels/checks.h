/* How a block goes over a step's buffers before anything is written: stage by stage, as the
 * CPU does, so that the fault it tells is the CPU's.
 */
#ifndef PAGEWISE_CHECKS_H
#define PAGEWISE_CHECKS_H

#include "step_elements.h"

/* The least index below `count` where `bad` holds, or PWK_NONE. By a whole block, the same in
 * every thread; `found` is a word of shared memory. */
template <class Bad>
static __device__ uint32_t first_where(uint32_t *found, uint32_t count, Bad bad) {
    __syncthreads();
    uint32_t first = PWK_NONE;
    for (uint64_t at = threadIdx.x; at < count && first == PWK_NONE; at += blockDim.x) {
        first = bad(static_cast<uint32_t>(at)) ? static_cast<uint32_t>(at) : PWK_NONE;
    }
    return least_in_block(found, first);
}

/* Whether a number is one of `count` things, or of none. */
PWK_FN bool is_index(uint32_t index, uint32_t count) { return index == PWK_NONE || index < count; }

/* An element of words: its place in its buffer, and what it may be. */
PWK_FN void refuse_element(const pwk_launch &launch, uint32_t field, uint64_t at, int64_t least,
                           int64_t most, uint32_t got) {
    if (threadIdx.x == 0) {
        refuse(launch, PWK_FAULT_ELEMENT, field, at, least, most, got);
    }
}

/* Whether no word of a list is `bound` or more; else it is refused. */
PWK_FN bool words_below(const pwk_launch &launch, uint32_t field, uint32_t *found,
                                   const uint32_t *words, uint32_t count, uint32_t bound) {
    const uint32_t at =
        first_where(found, count, [&](uint32_t i) { return words[i] >= bound; });
    if (at == PWK_NONE) {
        return true;
    }
    refuse_element(launch, field, at, 0, int64_t(bound) - 1, words[at]);
    return false;
}

/* Whether `count` offsets ascend up to `most`; else the first that does not is refused. */
PWK_FN bool ascends(const pwk_launch &launch, uint32_t field, uint32_t *found,
                               const uint32_t *starts, uint32_t count, uint32_t most) {
    const uint32_t at = first_where(found, count, [&](uint32_t i) {
        return starts[i] > most || (i > 0 && starts[i] < starts[i - 1]);
    });
    if (at == PWK_NONE) {
        return true;
    }
    refuse_element(launch, field, at, at > 0 ? starts[at - 1] : 0, most, starts[at]);
    return false;
}

/* Whether a float is neither infinite nor NaN. */
PWK_FN bool is_finite(float x) { return (PWK_BITS(x) & 0x7f800000u) != 0x7f800000u; }

#endif /* PAGEWISE_CHECKS_H */
