/* How a threadgroup goes over a step's buffers before anything is written: stage by stage, as
 * the CPU does, so that the fault it tells is the CPU's.
 *
 * A buffer with one number a row is checked by every threadgroup of a launch where it is short
 * (BLOCKS_CHECK), which spares a launch; all else by a launch of one threadgroup before it.
 * Either way a refused command writes nothing. `found` is a word of threadgroup memory.
 */
#ifndef PAGEWISE_METAL_CHECKS_H
#define PAGEWISE_METAL_CHECKS_H

#include "kernel.h"

constant constexpr uint32_t BLOCKS_CHECK = 1; /* told as `tile`: each threadgroup checks */
constant constexpr uint32_t CHECK_WORDS = 4;  /* words of threadgroup memory that checks take */

/* Whether a number is one of `count` things, or of none. */
PWK_FN bool is_index(uint32_t index, uint32_t count) { return index == PWK_NONE || index < count; }

/* The word that checks take, at the start of threadgroup memory. */
PWK_FN threadgroup atomic_uint *check_word(Place place) {
    return reinterpret_cast<threadgroup atomic_uint *>(SHARED());
}

/* The same number in every thread: that of thread 0. */
PWK_FN uint32_t in_block(Place place, threadgroup atomic_uint *found, uint32_t number) {
    if (place.thread_index == 0) {
        atomic_store_explicit(found, number, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint32_t same = atomic_load_explicit(found, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return same;
}

/* The least number of all threads, in every thread. */
PWK_FN uint32_t least_in_block(Place place, threadgroup atomic_uint *found, uint32_t number) {
    if (place.thread_index == 0) {
        atomic_store_explicit(found, PWK_NONE, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (number != PWK_NONE) {
        atomic_fetch_min_explicit(found, number, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const uint32_t least = atomic_load_explicit(found, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return least;
}

/* The least index below `count` where `bad` holds, or PWK_NONE. By a whole threadgroup, the
 * same in every thread. */
template <class Bad>
static uint32_t first_where(Place place, threadgroup atomic_uint *found, uint32_t count,
                            Bad bad) {
    uint32_t first = PWK_NONE;
    for (uint64_t at = place.thread_index; at < count && first == PWK_NONE;
         at += place.thread_count) {
        first = bad(static_cast<uint32_t>(at)) ? static_cast<uint32_t>(at) : PWK_NONE;
    }
    return least_in_block(place, found, first);
}

/* An element of words: its place in its buffer, and what it may be. */
PWK_FN void refuse_element(constant launch_of_call &launch, Place place, uint32_t field,
                           uint64_t at, int64_t least, int64_t most, uint32_t got) {
    if (place.thread_index == 0) {
        refuse(launch, PWK_FAULT_ELEMENT, field, at, least, most, got);
    }
}

/* Words above a number. */
struct is_above {
    device const uint32_t *words;
    uint32_t most;

    bool operator()(uint32_t i) const { return words[i] > most; }
};

/* Words below the one before them. */
struct is_descent {
    device const uint32_t *words;

    bool operator()(uint32_t i) const { return i > 0 && words[i] < words[i - 1]; }
};

/* Words that do either. */
struct is_bad_start {
    device const uint32_t *words;
    uint32_t most;

    bool operator()(uint32_t i) const {
        return words[i] > most || (i > 0 && words[i] < words[i - 1]);
    }
};

/* Whether all words are at most `most`; else the first that is not is refused. */
PWK_FN bool check_elements(constant launch_of_call &launch, Place place,
                           threadgroup atomic_uint *found, uint32_t field,
                           device const uint32_t *words, uint32_t count, uint32_t most) {
    const is_above bad = {words, most};
    const uint32_t at = first_where(place, found, count, bad);
    if (at != PWK_NONE) {
        refuse_element(launch, place, field, at, 0, most, words[at]);
    }
    return at == PWK_NONE;
}

/* Whether words ascend to at most `most`: all bounds first, then their order. */
PWK_FN bool check_ascending(constant launch_of_call &launch, Place place,
                            threadgroup atomic_uint *found, uint32_t field,
                            device const uint32_t *words, uint32_t count, uint32_t most) {
    if (!check_elements(launch, place, found, field, words, count, most)) {
        return false;
    }
    const is_descent bad = {words};
    const uint32_t at = first_where(place, found, count, bad);
    if (at != PWK_NONE) {
        refuse_element(launch, place, field, at, words[at - 1], most, words[at]);
    }
    return at == PWK_NONE;
}

/* The same, bounds and order word by word. */
PWK_FN bool ascends(constant launch_of_call &launch, Place place, threadgroup atomic_uint *found,
                    uint32_t field, device const uint32_t *words, uint32_t count,
                    uint32_t most) {
    const is_bad_start bad = {words, most};
    const uint32_t at = first_where(place, found, count, bad);
    if (at != PWK_NONE) {
        const int64_t least = at > 0 ? int64_t(words[at - 1]) : 0;
        refuse_element(launch, place, field, at, least, most, words[at]);
    }
    return at == PWK_NONE;
}

/* As `live`, the same in every thread even while another threadgroup refuses. */
PWK_FN uint32_t live_in_block(constant launch_of_call &launch, Place place, uint32_t field,
                              device const uint32_t *count, uint32_t capacity) {
    const uint32_t used =
        place.thread_index == 0 ? live(launch, place, field, count, capacity) : 0;
    return in_block(place, check_word(place), used);
}

/* Whether a command is refused, the same in every thread even while another refuses. */
PWK_FN bool is_refused_in_block(constant launch_of_call &launch, Place place) {
    const uint32_t refused = place.thread_index == 0 && is_refused(launch) ? 1 : 0;
    return in_block(place, check_word(place), refused) != 0;
}

/* One number a row, and how many rows are in use. */
struct row_numbers {
    uint32_t field; /* place of the numbers among the buffers */
    device const uint32_t *values;
    uint32_t most;
    uint32_t count_field; /* place of the count among the buffers */
    device const uint32_t *count;
    uint32_t capacity;
};

/* Rows in use; 0 where they, or their numbers, are refused. By `check`, or where threadgroups
 * check, it looks at the numbers. */
PWK_FN uint32_t checked_rows(constant launch_of_call &launch, Place place, row_numbers rows,
                             bool check) {
    const uint32_t used = live_in_block(launch, place, rows.count_field, rows.count, rows.capacity);
    if (!check && launch.tile != BLOCKS_CHECK) {
        return used;
    }
    const bool right = check_elements(launch, place, check_word(place), rows.field, rows.values,
                                      used, rows.most);
    return right ? used : 0;
}

/* Whether a float is neither infinite nor NaN. */
PWK_FN bool is_finite(float x) { return (PWK_BITS(x) & 0x7f800000u) != 0x7f800000u; }

#endif /* PAGEWISE_METAL_CHECKS_H */
