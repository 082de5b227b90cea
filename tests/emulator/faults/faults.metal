/* Kernels that test the emulator's Metal side, as faults.cu does CUDA's. Entries begin with
 * `metal:`. A threadgroup of 64 threads takes 256 words of input and gives 256 of output. What
 * must see the fault:
 *
 *   barrier        a race; elsewhere other words
 *   flags          a race, for the barrier does not order this memory
 *   simd_barrier   a race; the words are right
 *   load           a race; the words are right
 *   store          a race; the words are right
 *   branch         a collective in every build
 *   matrix_end     shared memory in every build
 *   atomic         a race; the words may be right
 */
#include "msl_ops.h"

struct metal_fault_buffers {
    device const uint *input; /* [threadgroups][256] */
    device uint *output;      /* [threadgroups][256] */
};

namespace {

constant constexpr uint thread_count = 64, group_words = 256;

device const uint *input(constant metal_fault_buffers &buffers, Place place) {
    return buffers.input + place.group.x * group_words;
}

device uint *output(constant metal_fault_buffers &buffers, Place place) {
    return buffers.output + place.group.x * group_words;
}

threadgroup uint *shared_words(Place place) {
    return reinterpret_cast<threadgroup uint *>(SHARED());
}

/* output[t] = input[63 - t] */
template <bool comes, bool orders>
void barrier(constant metal_fault_buffers &buffers, Place place) {
    uint t = place.thread_index;
    threadgroup uint *words = shared_words(place);
    words[t] = input(buffers, place)[t];
    if (comes) {
        threadgroup_barrier(orders ? mem_flags::mem_threadgroup : mem_flags::mem_device);
    }
    output(buffers, place)[t] = words[thread_count - 1 - t];
}

/* output[t] = 2 input[t ^ 1] */
template <bool faulty>
void simd_barrier(constant metal_fault_buffers &buffers, Place place) {
    uint t = place.thread_index;
    threadgroup uint *words = shared_words(place);
    uint own = input(buffers, place)[t];
    words[t] = own;
    uint other = simd_shuffle_xor(own, 1);
    if (!faulty) {
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    output(buffers, place)[t] = other + words[t ^ 1];
}

/* Each SIMD group has a tile of 8 x 8: two words a thread.
 * output[2 t + i] = the float of the tile's word 2 t + i, plus its square's */
template <bool load_orders, bool store_orders, uint shift>
void matrix(constant metal_fault_buffers &buffers, Place place) {
    uint t = place.thread_index;
    threadgroup float *numbers = reinterpret_cast<threadgroup float *>(SHARED());
    for (uint i = 0; i < 2; i++) {
        numbers[t * 2 + i] = float(input(buffers, place)[t * 2 + i] % 16);
    }
    if (load_orders) {
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    threadgroup float *tile = numbers + place.simdgroup * 64 + shift;
    simdgroup_float8x8 a, square;
    simdgroup_load(a, tile, 8, ulong2(0, 0), false);
    simdgroup_multiply_accumulate(square, a, a, a);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    simdgroup_store(square, tile, 8, ulong2(0, 0), false);
    if (store_orders) {
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    for (uint i = 0; i < 2; i++) {
        output(buffers, place)[t * 2 + i] = uint(numbers[t * 2 + i]);
    }
}

/* output[t] = the sum of its SIMD group's words */
template <bool faulty>
void branch(constant metal_fault_buffers &buffers, Place place) {
    uint t = place.thread_index;
    if (!faulty || place.lane < 16) {
        output(buffers, place)[t] = simd_sum(input(buffers, place)[t]);
    }
}

/* output[t] = the sum of the first 64 words */
template <bool faulty>
void atomic_sum(constant metal_fault_buffers &buffers, Place place) {
    uint t = place.thread_index;
    threadgroup atomic_uint *sum = reinterpret_cast<threadgroup atomic_uint *>(SHARED());
    if (t == 0) {
        atomic_store_explicit(sum, 0, memory_order_relaxed);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    atomic_fetch_add_explicit(sum, input(buffers, place)[t], memory_order_relaxed);
    if (!faulty) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    output(buffers, place)[t] = shared_words(place)[0];
}

} // namespace

#define PAIR(name, good, bad)                                                       \
    ENTRY(good_##name, thread_count, metal_fault_buffers, good)                     \
    ENTRY(bad_##name, thread_count, metal_fault_buffers, bad)

ENTRY(good_barrier, thread_count, metal_fault_buffers, barrier<true, true>)
ENTRY(bad_barrier, thread_count, metal_fault_buffers, barrier<false, true>)
ENTRY(good_flags, thread_count, metal_fault_buffers, barrier<true, true>)
ENTRY(bad_flags, thread_count, metal_fault_buffers, barrier<true, false>)
PAIR(simd_barrier, simd_barrier<false>, simd_barrier<true>)
ENTRY(good_load, thread_count, metal_fault_buffers, matrix<true, true, 0>)
ENTRY(bad_load, thread_count, metal_fault_buffers, matrix<false, true, 0>)
ENTRY(good_store, thread_count, metal_fault_buffers, matrix<true, true, 0>)
ENTRY(bad_store, thread_count, metal_fault_buffers, matrix<true, false, 0>)
ENTRY(good_matrix_end, thread_count, metal_fault_buffers, matrix<true, true, 0>)
ENTRY(bad_matrix_end, thread_count, metal_fault_buffers, matrix<true, true, 160>)
PAIR(branch, branch<false>, branch<true>)
PAIR(atomic, atomic_sum<false>, atomic_sum<true>)
