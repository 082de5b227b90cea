/* What a step brings, checked by one block as the CPU checks it: the first element that is
 * not allowed is told.
 *
 * Short buffers are checked by every block of a launch before it writes (BLOCKS_CHECK), which
 * spares a launch; long ones by a launch of one block before it. Either way a refused command
 * writes nothing.
 */
#ifndef PAGEWISE_STEP_ELEMENTS_H
#define PAGEWISE_STEP_ELEMENTS_H

#include "kernel.h"

constexpr uint32_t NO_ELEMENT = 0xffffffffu;
constexpr uint32_t BLOCKS_CHECK = 1; /* told as `tile`: each block checks for itself */
constexpr uint32_t CHECK_WORDS = 1;  /* words of shared memory that checks take */

/* The same number in every thread: that of thread 0. */
PWK_FN uint32_t in_block(uint32_t *shared, uint32_t number) {
    if (threadIdx.x == 0) {
        *shared = number;
    }
    __syncthreads();
    const uint32_t same = *shared;
    __syncthreads();
    return same;
}

/* The least number of all threads, in every thread. */
PWK_FN uint32_t least_in_block(uint32_t *shared, uint32_t number) {
    if (threadIdx.x == 0) {
        *shared = NO_ELEMENT;
    }
    __syncthreads();
    if (number != NO_ELEMENT) {
        atomicMin(shared, number);
    }
    __syncthreads();
    const uint32_t least = *shared;
    __syncthreads();
    return least;
}

/* Whether all elements are at most `most`. */
PWK_FN bool check_elements(const pwk_launch &launch, uint32_t *shared, uint32_t field,
                           const uint32_t *values, uint32_t count, uint32_t most) {
    uint32_t bad = NO_ELEMENT;
    for (uint32_t at = threadIdx.x; at < count && bad == NO_ELEMENT; at += blockDim.x) {
        bad = values[at] > most ? at : NO_ELEMENT;
    }
    bad = least_in_block(shared, bad);
    if (bad != NO_ELEMENT && threadIdx.x == 0) {
        refuse(launch, PWK_FAULT_ELEMENT, field, bad, 0, most, values[bad]);
    }
    return bad == NO_ELEMENT;
}

/* Whether elements ascend, to at most `most`. */
PWK_FN bool check_ascending(const pwk_launch &launch, uint32_t *shared, uint32_t field,
                            const uint32_t *values, uint32_t count, uint32_t most) {
    if (!check_elements(launch, shared, field, values, count, most)) {
        return false;
    }
    uint32_t bad = NO_ELEMENT;
    for (uint32_t at = threadIdx.x + 1; at < count && bad == NO_ELEMENT; at += blockDim.x) {
        bad = values[at - 1] > values[at] ? at : NO_ELEMENT;
    }
    bad = least_in_block(shared, bad);
    if (bad != NO_ELEMENT && threadIdx.x == 0) {
        refuse(launch, PWK_FAULT_ELEMENT, field, bad, values[bad - 1], most, values[bad]);
    }
    return bad == NO_ELEMENT;
}

/* As `live`, the same in every thread even while another block refuses. */
PWK_FN uint32_t live_in_block(const pwk_launch &launch, uint32_t field, const uint32_t *count,
                              uint32_t capacity) {
    const uint32_t used = threadIdx.x == 0 ? live(launch, field, count, capacity) : 0;
    return in_block(reinterpret_cast<uint32_t *>(SHARED()), used);
}

/* Whether a command is refused, the same in every thread even while another block refuses. */
PWK_FN bool is_refused_in_block(const pwk_launch &launch) {
    const uint32_t refused = threadIdx.x == 0 && is_refused(launch) ? 1 : 0;
    return in_block(reinterpret_cast<uint32_t *>(SHARED()), refused) != 0;
}

/* One number a row, and how many rows are in use. */
struct row_numbers {
    uint32_t field; /* place of the numbers among the buffers */
    const uint32_t *values;
    uint32_t most;
    uint32_t count_field; /* place of the count among the buffers */
    const uint32_t *count;
    uint32_t capacity;
};

/* Rows in use; 0 where they, or their numbers, are refused. By `check`, or where blocks
 * check, it looks at the numbers. */
PWK_FN uint32_t checked_rows(const pwk_launch &launch, const row_numbers &rows, bool check) {
    uint32_t *shared = reinterpret_cast<uint32_t *>(SHARED());
    const uint32_t used = live_in_block(launch, rows.count_field, rows.count, rows.capacity);
    if (!check && launch.tile != BLOCKS_CHECK) {
        return used;
    }
    const bool right = check_elements(launch, shared, rows.field, rows.values, used, rows.most);
    return right ? used : 0;
}

#endif /* PAGEWISE_STEP_ELEMENTS_H */
