/* What a kernel asks of the machine beyond plain C++: one function for each instruction
 * that CUDA C++ has no name for, once as inline PTX (sm_80 and up) and once, under
 * PAGEWISE_EMULATED, as tests/emulator/cuda/emulated.h acts it out on a CPU.
 * cuda/probe/ has one tiny kernel for each. Kernels write no `asm` of their own.
 *
 * Beside them kernels use of CUDA C++ only what the emulator has: threadIdx.x, blockIdx,
 * blockDim.x, gridDim, __syncthreads, __syncwarp, __shfl_sync, __shfl_xor_sync,
 * __shfl_up_sync, __shfl_down_sync, __ballot_sync, __any_sync, __all_sync, atomicAdd,
 * atomicMax, atomicMin, atomicOr, atomicExch, atomicCAS, __threadfence, __fmaf_rn,
 * __float2int_rn, __umulhi, __umul64hi, __popc, __clz, __ffs, __brev, the __as_ casts,
 * sqrtf, fabsf, rintf, uint2, uint4, float2, float4 and what makes them.
 *
 * Shared memory is dynamic, one piece for each block:
 *     unsigned char *memory = SHARED();
 * Only barriers order it: what a thread wrote is another's after __syncthreads, or, in
 * one warp, after __syncwarp. Shuffles, votes, ldmatrix and mma order nothing. What
 * copy_async brings is the copying thread's after its wait, and others' after a barrier
 * behind that wait.
 */
#ifndef PAGEWISE_DEVICE_OPS_H
#define PAGEWISE_DEVICE_OPS_H

#include <pagewise/kernel_params.h>

#if defined(PAGEWISE_EMULATED)

#include "emulated.h"

#else

#define SHARED() pagewise_shared
extern __shared__ __align__(128) unsigned char pagewise_shared[];

/* A kernel's entry: its name, threads of a block, blocks that should fit a multiprocessor,
 * the type of its one argument, and the body that takes it. Entries are the list at the
 * bottom of a file. */
#define ENTRY(name, threads, blocks, type, ...)                                     \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                   \
        name(const __grid_constant__ type arguments) {                              \
        __VA_ARGS__(arguments);                                                     \
    }

namespace ops {

#define OPS static __device__ __forceinline__

/* The address in shared memory that instructions take. */
OPS uint32_t shared_address(const void *shared) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

/* Starts a copy of 16 bytes to shared memory, both ends aligned to them; zeros where it is
 * not valid, and then the source is not read. Past the first-level cache. */
OPS void copy_async_16(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}

/* The same of 8 bytes. */
OPS void copy_async_8(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 8 : 0)
                 : "memory");
}

/* The same of 4 bytes. */
OPS void copy_async_4(void *shared, const void *global, bool valid) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)),
                 "l"(global), "r"(valid ? 4 : 0)
                 : "memory");
}

/* Ends a group of this thread's copies. */
OPS void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Waits until at most so many of this thread's latest groups are on their way. */
template <int groups>
OPS void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

/* Four 8 x 8 matrices of 16-bit numbers from shared memory by a whole warp. Lane 8m + r
 * gives the address of row r of matrix m, aligned to 16 bytes. Lane l gets of matrix m,
 * in word m, the numbers 2(l % 4) and 2(l % 4) + 1 of row l / 4. */
OPS void load_matrix_4(uint32_t (&words)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* The same, each matrix transposed: lane l gets of matrix m the numbers of column l / 4 in
 * rows 2(l % 4) and 2(l % 4) + 1. */
OPS void load_matrix_4_transposed(uint32_t (&words)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* d += a b by a whole warp, a [16][16] and b [16][8] of bf16, d [16][8] of f32. With g = l / 4
 * and t = l % 4, lane l holds of a, two numbers a word from column 2t on: row g, row g + 8,
 * and the same from column 2t + 8 on; of b: column g in rows 2t and 2t + 1, then 2t + 8 and
 * 2t + 9; of d: columns 2t and 2t + 1 of row g, then of row g + 8. */
OPS void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The same of f16. */
OPS void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* d += a b, a [16][32] and b [32][8] of signed bytes, d [16][8] of 32-bit integers. As above
 * with four numbers a word: of a from column 4t and then 4t + 16 on, of b rows 4t to 4t + 3
 * and then 4t + 16 to 4t + 19. */
OPS void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The same with unsigned bytes in b. */
OPS void mma_s8_u8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* sum + the products of four signed bytes of a with those of b. */
OPS int32_t dot4(uint32_t a, uint32_t b, int32_t sum) {
    return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
}

/* 16 bytes that are read once and never written by this kernel: past the first-level
 * cache. */
OPS uint4 load_once(const void *global) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(global));
    return v;
}

/* The bits of the f16 nearest to x, ties to even. */
OPS uint16_t f16_of(float x) {
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

/* The number whose bits these are. */
OPS float of_f16(uint16_t bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

#undef OPS

} // namespace ops

#endif

#endif /* PAGEWISE_DEVICE_OPS_H */
