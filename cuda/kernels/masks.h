/* Packed masks over a vocabulary: bit t % 32 of word t / 32 of a mask allows token t. */
#ifndef PAGEWISE_MASKS_H
#define PAGEWISE_MASKS_H

#include "kernel.h"

/* What two masks of a row both allow. */
struct allowed_tokens {
    const uint32_t *one; /* null where neither has to */
    const uint32_t *other;

    /* The bits of 32 tokens. */
    __device__ uint32_t word(uint32_t at) const {
        return one == nullptr ? 0xffffffffu : one[at] & other[at];
    }

    __device__ bool are_all() const { return one == nullptr; }
};

/* A call's slab of masks. */
struct mask_slab {
    const uint32_t *words;
    uint32_t masks;
    uint32_t mask_words;

    /* Null for any number that names none: it may be one that is refused meanwhile. */
    __device__ const uint32_t *mask(uint32_t index) const {
        return index < masks ? words + uint64_t(index) * mask_words : nullptr;
    }

    __device__ allowed_tokens both(uint32_t first, uint32_t second) const {
        const uint32_t *one = mask(first), *other = mask(second);
        return {one != nullptr ? one : other, other != nullptr ? other : one};
    }
};

#endif /* PAGEWISE_MASKS_H */
