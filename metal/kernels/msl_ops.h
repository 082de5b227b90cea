/* What every Metal kernel begins with: Metal's library, where a thread is, its threadgroup
 * memory, and the list of entries. Under PAGEWISE_EMULATED, <metal_stdlib> is the one in
 * tests/emulator/metal/, and kernels run on a CPU. No Metal compiler has seen this file.
 *
 * Kernels keep to what both have: MSL 3.1, SIMD groups of 32 threads, all of which come to
 * each simd_ function and matrix, vectors by .x .y .z .w, no textures. Only barriers
 * with mem_flags::mem_threadgroup order threadgroup memory; simd_ functions and matrices
 * order nothing.
 *
 * A kernel is a function of its one argument, a struct of scalars and `device` pointers, and
 * of its place:
 *     void body(constant T &arguments, Place place)
 */
#ifndef PAGEWISE_MSL_OPS_H
#define PAGEWISE_MSL_OPS_H

#include <metal_stdlib>

#include <pagewise/kernel_params.h>

using namespace metal;

/* Products and sums are fused where a kernel says so, and nowhere else. */
#pragma STDC FP_CONTRACT OFF

/* Before a loop over matrices: an array of them has no memory, only registers by name. */
#define UNROLLED _Pragma("clang loop unroll(full)")

/* Where a thread is. Threadgroups have one dimension. */
struct Place {
    uint thread_index; /* In its threadgroup. */
    uint thread_count; /* Of a threadgroup. */
    uint lane;         /* In its SIMD group. */
    uint simdgroup;    /* In its threadgroup. */
    uint3 group;       /* The threadgroup in the grid. */
    uint3 group_count; /* Of the grid. */
    threadgroup uchar *memory;
};

/* Threadgroup memory: one piece, whose size the launch tells, in a function that has its
 * `place`. */
#define SHARED() (place.memory)

/* A kernel's entry: its name, threads of a threadgroup, the type of its argument, and the
 * function. Entries are the list at the bottom of a file. */
#if defined(PAGEWISE_EMULATED)

#define ENTRY(name, threads, type, ...)                                             \
    static const emulator::Entry name##_entry(                                      \
        "metal:" #name, threads, sizeof(type), [](const void *argument) {           \
            type arguments = *static_cast<const type *>(argument);                  \
            __VA_ARGS__(arguments,                                                  \
                        Place{emulator::thread_index(), emulator::thread_count(),   \
                              emulator::lane(), emulator::simdgroup(),              \
                              emulator::group(), emulator::group_count(),           \
                              emulator::shared_memory});                            \
        });

#else

#define ENTRY(name, threads, type, ...)                                             \
    [[kernel, max_total_threads_per_threadgroup(threads)]] void name(               \
        constant type &arguments [[buffer(0)]],                                     \
        threadgroup uchar *memory [[threadgroup(0)]],                               \
        uint thread_index [[thread_index_in_threadgroup]],                          \
        uint3 thread_counts [[threads_per_threadgroup]],                            \
        uint lane [[thread_index_in_simdgroup]],                                    \
        uint simdgroup [[simdgroup_index_in_threadgroup]],                          \
        uint3 group [[threadgroup_position_in_grid]],                               \
        uint3 group_count [[threadgroups_per_grid]]) {                              \
        __VA_ARGS__(arguments, Place{thread_index, thread_counts.x, lane,           \
                                     simdgroup, group, group_count, memory});       \
    }

#endif

#endif /* PAGEWISE_MSL_OPS_H */
