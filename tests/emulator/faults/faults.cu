/* Kernels that test the emulator: each comes right (good_) and with one fault (bad_). A block
 * of 64 threads takes 256 words of input and gives 256 of output. What must see the fault:
 *
 *   barrier           a race; elsewhere other words
 *   variable          the same with a `__shared__` variable
 *   copy_wait         a copy; elsewhere other words
 *   copy_group        the same: one group too few is waited for
 *   copy_barrier      a race; the words may be right
 *   matrix_barrier    a race; the words are right
 *   shuffle_barrier   a race; the words are right
 *   atomic_barrier    a race; the words may be right
 *   index             no code in any build: other words
 *   branch            a barrier in every build
 *   early_return      a barrier in every build
 *   shuffle_branch    a collective in every build
 *   mask              a collective in every build
 *   matrix_row        an alignment in every build
 *   copy_from         an alignment in every build
 *   copy_to           an alignment in every build
 *   copy_outside      shared memory in every build
 *   shared_end        shared memory; in the address build memory
 *   global_end        memory in the address build; elsewhere it harms the caller: do not run
 *   shift             undefined behaviour in the address build
 *   vector            undefined behaviour in the address build; elsewhere the process may
 *                     end: do not run
 *   spin              a deadlock in every build
 */
#include "device_ops.h"

struct fault_buffers {
    const uint32_t *input; /* [blocks][256] */
    uint32_t *output;      /* [blocks][256] */
};

namespace {

constexpr uint32_t threads = 64, block_words = 256, all_lanes = 0xffffffffu;

/* A block's part of a buffer. */
__device__ const uint32_t *input(const fault_buffers &buffers) {
    return buffers.input + blockIdx.x * block_words;
}

__device__ uint32_t *output(const fault_buffers &buffers) {
    return buffers.output + blockIdx.x * block_words;
}

__device__ uint32_t *shared_words() { return reinterpret_cast<uint32_t *>(SHARED()); }

/* output[t] = input[63 - t] */
template <bool faulty>
__device__ void barrier(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, *words = shared_words();
    words[t] = input(buffers)[t];
    if constexpr (!faulty) {
        __syncthreads();
    }
    output(buffers)[t] = words[threads - 1 - t];
}

/* output[t] = input[63 - t]. No template: variables would not find their section. */
__device__ void variable(const fault_buffers &buffers, bool faulty) {
    __shared__ uint32_t words[threads];
    uint32_t t = threadIdx.x;
    words[t] = input(buffers)[t];
    if (!faulty) {
        __syncthreads();
    }
    output(buffers)[t] = words[threads - 1 - t];
}

__device__ void good_variable(const fault_buffers &buffers) { variable(buffers, false); }
__device__ void bad_variable(const fault_buffers &buffers) { variable(buffers, true); }

/* output[t] = input[63 - t] */
template <bool waits, bool orders>
__device__ void copy(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, *words = shared_words();
    ops::copy_async_4(&words[t], &input(buffers)[t], true);
    ops::copy_async_commit();
    if constexpr (waits) {
        ops::copy_async_wait<0>();
    }
    if constexpr (orders) {
        __syncthreads();
    }
    output(buffers)[t] = words[threads - 1 - t];
}

/* output[t] = input[t] + input[64 + t], the first group used while the second comes */
template <bool faulty>
__device__ void copy_group(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, *words = shared_words();
    ops::copy_async_4(&words[t], &input(buffers)[t], true);
    ops::copy_async_commit();
    ops::copy_async_4(&words[threads + t], &input(buffers)[threads + t], true);
    ops::copy_async_commit();
    ops::copy_async_wait<1>();
    uint32_t sum = words[t];
    if constexpr (!faulty) {
        ops::copy_async_wait<0>();
    }
    output(buffers)[t] = sum + words[threads + t];
}

/* Each warp has a tile of 32 rows of 4 words, of which lane l writes row l ^ 1. Lane l gets
 * output[4 t + m] = tile[8 m + l / 4][l % 4] */
template <bool orders, uint32_t shift>
__device__ void matrix(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, *words = shared_words();
    for (uint32_t i = 0; i < 4; i++) {
        words[(t ^ 1) * 4 + i] = input(buffers)[(t ^ 1) * 4 + i];
    }
    if constexpr (orders) {
        __syncwarp();
    }
    uint32_t loaded[4];
    ops::load_matrix_4(loaded, &words[t * 4 + shift]);
    for (uint32_t i = 0; i < 4; i++) {
        output(buffers)[t * 4 + i] = loaded[i];
    }
}

/* output[t] = 2 input[t ^ 1] */
template <bool faulty>
__device__ void shuffle_barrier(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, *words = shared_words();
    uint32_t own = input(buffers)[t];
    words[t] = own;
    uint32_t other = __shfl_xor_sync(all_lanes, own, 1);
    if constexpr (!faulty) {
        __syncwarp();
    }
    output(buffers)[t] = other + words[t ^ 1];
}

/* output[t] = the sum of the first 64 words */
template <bool faulty>
__device__ void atomic_barrier(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, *words = shared_words();
    if (t == 0) {
        words[0] = 0;
    }
    __syncthreads();
    atomicAdd(&words[0], input(buffers)[t]);
    if constexpr (!faulty) {
        __syncthreads();
    }
    output(buffers)[t] = words[0];
}

/* output[t] = input[63 - t] */
template <bool faulty>
__device__ void index(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, *words = shared_words();
    words[t] = input(buffers)[t];
    __syncthreads();
    output(buffers)[t] = words[(threads - 1 - t + faulty) % threads];
}

/* output[t] = input[t] */
template <bool faulty>
__device__ void branch(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x;
    output(buffers)[t] = input(buffers)[t];
    if (faulty && t < threads / 2) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

/* output[t] = input[t] */
template <bool faulty>
__device__ void early_return(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x;
    output(buffers)[t] = input(buffers)[t];
    if (faulty && t == threads - 1) {
        return;
    }
    __syncthreads();
}

/* output[t] = input[t ^ 1] */
template <bool faulty>
__device__ void shuffle_branch(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x;
    if (!faulty || t % 32 < 16) {
        output(buffers)[t] = __shfl_xor_sync(all_lanes, input(buffers)[t], 1);
    }
}

/* output[t] = all_lanes */
template <bool faulty>
__device__ void mask(const fault_buffers &buffers) {
    output(buffers)[threadIdx.x] = __ballot_sync(faulty ? 0xffffu : all_lanes, 1);
}

/* output[4 t + i] = input[4 t + i] */
template <uint32_t to_shift, uint32_t from_shift, uint32_t outside>
__device__ void copy_place(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, *words = shared_words();
    ops::copy_async_16(&words[t * 4 + to_shift + outside * block_words],
                       &input(buffers)[t * 4 + from_shift], true);
    ops::copy_async_commit();
    ops::copy_async_wait<0>();
    for (uint32_t i = 0; i < 4; i++) {
        output(buffers)[t * 4 + i] = words[t * 4 + i];
    }
}

/* output[t] = input[t] */
template <bool faulty>
__device__ void shared_end(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, *words = shared_words() + block_words - threads + faulty;
    words[t] = input(buffers)[t];
    output(buffers)[t] = words[t];
}

/* output[192 + t] = input[t] */
template <bool faulty>
__device__ void global_end(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x;
    output(buffers)[block_words - threads + t + faulty] = input(buffers)[t];
}

/* output[t] = 1 */
template <bool faulty>
__device__ void shift(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, bits = faulty ? 32 + t : 0;
    output(buffers)[t] = 1u << bits;
}

/* output[t] = input[t] */
template <bool faulty>
__device__ void vector(const fault_buffers &buffers) {
    uint32_t t = threadIdx.x, *words = shared_words();
    words[t] = input(buffers)[t];
    __syncthreads();
    if (t < threads / 4 - 1) {
        uint4 four = *reinterpret_cast<const uint4 *>(&words[t * 4 + faulty]);
        *reinterpret_cast<uint4 *>(&output(buffers)[t * 4]) = four;
    } else if (t >= threads - 4) {
        output(buffers)[t] = words[t];
    }
}

/* output[0] = 1, which thread 0 does and all wait for */
template <bool faulty>
__device__ void spin(const fault_buffers &buffers) {
    if (threadIdx.x == 0) {
        atomicExch(output(buffers), faulty ? 0u : 1u);
    }
    while (atomicAdd(output(buffers), 0u) != 1) {
    }
}

} // namespace

#define PAIR(name, good, bad)                                                       \
    ENTRY(good_##name, threads, 1, fault_buffers, good)                             \
    ENTRY(bad_##name, threads, 1, fault_buffers, bad)

PAIR(barrier, barrier<false>, barrier<true>)
PAIR(variable, good_variable, bad_variable)
ENTRY(good_copy_wait, threads, 1, fault_buffers, copy<true, true>)
ENTRY(bad_copy_wait, threads, 1, fault_buffers, copy<false, true>)
ENTRY(good_copy_barrier, threads, 1, fault_buffers, copy<true, true>)
ENTRY(bad_copy_barrier, threads, 1, fault_buffers, copy<true, false>)
PAIR(copy_group, copy_group<false>, copy_group<true>)
ENTRY(good_matrix_barrier, threads, 1, fault_buffers, matrix<true, 0>)
ENTRY(bad_matrix_barrier, threads, 1, fault_buffers, matrix<false, 0>)
ENTRY(good_matrix_row, threads, 1, fault_buffers, matrix<true, 0>)
ENTRY(bad_matrix_row, threads, 1, fault_buffers, matrix<true, 2>)
PAIR(shuffle_barrier, shuffle_barrier<false>, shuffle_barrier<true>)
PAIR(atomic_barrier, atomic_barrier<false>, atomic_barrier<true>)
PAIR(index, index<false>, index<true>)
PAIR(branch, branch<false>, branch<true>)
PAIR(early_return, early_return<false>, early_return<true>)
PAIR(shuffle_branch, shuffle_branch<false>, shuffle_branch<true>)
PAIR(mask, mask<false>, mask<true>)
ENTRY(good_copy_to, threads, 1, fault_buffers, copy_place<0, 0, 0>)
ENTRY(bad_copy_to, threads, 1, fault_buffers, copy_place<2, 0, 0>)
ENTRY(good_copy_from, threads, 1, fault_buffers, copy_place<0, 0, 0>)
ENTRY(bad_copy_from, threads, 1, fault_buffers, copy_place<0, 2, 0>)
ENTRY(good_copy_outside, threads, 1, fault_buffers, copy_place<0, 0, 0>)
ENTRY(bad_copy_outside, threads, 1, fault_buffers, copy_place<0, 0, 1>)
PAIR(shared_end, shared_end<false>, shared_end<true>)
PAIR(global_end, global_end<false>, global_end<true>)
PAIR(shift, shift<false>, shift<true>)
PAIR(vector, vector<false>, vector<true>)
PAIR(spin, spin<false>, spin<true>)
