/* Packed masks over a vocabulary: bit t % 32 of word t / 32 of a mask allows token t. */
#ifndef PAGEWISE_METAL_MASKS_H
#define PAGEWISE_METAL_MASKS_H

#include "kernel.h"

/* What two masks of a row both allow. */
struct allowed_tokens {
    device const uint32_t *one; /* null where neither has to */
    device const uint32_t *other;
};

/* The bits of 32 tokens. */
static uint32_t allowed_word(allowed_tokens allowed, uint32_t at) {
    return allowed.one == nullptr ? 0xffffffffu : allowed.one[at] & allowed.other[at];
}

/* A call's slab of masks. */
struct mask_slab {
    device const uint32_t *words;
    uint32_t masks;
    uint32_t mask_words;
};

/* Null for any number that names none: it may be one that is refused meanwhile. */
static device const uint32_t *mask_of(mask_slab slab, uint32_t index) {
    return index < slab.masks ? slab.words + uint64_t(index) * slab.mask_words : nullptr;
}

static allowed_tokens both_masks(mask_slab slab, uint32_t first, uint32_t second) {
    device const uint32_t *one = mask_of(slab, first);
    device const uint32_t *other = mask_of(slab, second);
    return {one != nullptr ? one : other, other != nullptr ? other : one};
}

#endif /* PAGEWISE_METAL_MASKS_H */
