/* Sums of weights by bins: whole numbers of 64 bits, which have no atomics, as two words, the low
 * one first. */
#ifndef PAGEWISE_METAL_SAMPLE_BINS_H
#define PAGEWISE_METAL_SAMPLE_BINS_H

#include "kernel.h"

/* Adds to a number; `Word` points to atomic_uint of some memory. */
template <class Word>
static void add_wide(Word words, uint64_t weight) {
    const uint32_t low = static_cast<uint32_t>(weight);
    const uint32_t before = atomic_fetch_add_explicit(words, low, memory_order_relaxed);
    const uint32_t carry = before + low < before ? 1 : 0;
    const uint32_t high = static_cast<uint32_t>(weight >> 32) + carry;
    if (high != 0) {
        atomic_fetch_add_explicit(words + 1, high, memory_order_relaxed);
    }
}

template <class Word>
static uint64_t load_wide(Word words) {
    const uint64_t high = atomic_load_explicit(words + 1, memory_order_relaxed);
    return high << 32 | atomic_load_explicit(words, memory_order_relaxed);
}

template <class Word>
static void store_wide(Word words, uint64_t number) {
    atomic_store_explicit(words, static_cast<uint32_t>(number), memory_order_relaxed);
    atomic_store_explicit(words + 1, static_cast<uint32_t>(number >> 32), memory_order_relaxed);
}

#endif /* PAGEWISE_METAL_SAMPLE_BINS_H */
