/* The part of CUDA C++ that kernels may use (see device_ops.h), on a CPU. What is missing
 * here does not compile, so that kernels stay within it. */
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "atomics.h"
#include "machine.h"

#define __device__
#define __host__
#define __global__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

/* In a section of their own, to be found and filled at each block's start. The section takes
 * no variables of templates. */
#define __shared__ static __attribute__((section("pagewise_shared")))

#define threadIdx emulator::position.thread
#define blockDim emulator::position.threads
#define blockIdx emulator::position.block
#define gridDim emulator::position.grid

struct alignas(8) uint2 {
    unsigned x, y;
};

struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

struct alignas(8) float2 {
    float x, y;
};

struct alignas(16) float4 {
    float x, y, z, w;
};

inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline void __syncthreads(emulator::Site site = emulator::Site::current()) {
    emulator::block_barrier(site);
}

inline void __syncwarp(unsigned mask = 0xffffffffu,
                       emulator::Site site = emulator::Site::current()) {
    emulator::warp_barrier(mask, site);
}

inline void __threadfence() {}

namespace emulator {

/* The bits that lane `source` brought. */
uint64_t shuffle(uint32_t mask, uint64_t bits, uint32_t source, const Site &site);

/* The lanes of the mask whose predicate holds. */
uint32_t ballot(uint32_t mask, bool predicate, const Site &site);

template <class T>
T shuffle_from(uint32_t mask, T value, uint32_t source, const Site &site) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    bits = shuffle(mask, bits, source, site);
    std::memcpy(&value, &bits, sizeof(T));
    return value;
}

/* The first lane of the running one's segment: `width` is a power of two. */
inline uint32_t segment(uint32_t width) { return lane() & ~(width - 1); }

} // namespace emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              emulator::Site site = emulator::Site::current()) {
    uint32_t in_segment = static_cast<uint32_t>(source) & (width - 1);
    return emulator::shuffle_from(mask, value, emulator::segment(width) + in_segment, site);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  emulator::Site site = emulator::Site::current()) {
    uint32_t lane = emulator::lane(), source = lane ^ static_cast<uint32_t>(lanes);
    bool inside = source < emulator::segment(width) + static_cast<uint32_t>(width);
    return emulator::shuffle_from(mask, value, inside ? source : lane, site);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 emulator::Site site = emulator::Site::current()) {
    uint32_t lane = emulator::lane();
    bool inside = lane - emulator::segment(width) >= delta;
    return emulator::shuffle_from(mask, value, inside ? lane - delta : lane, site);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   emulator::Site site = emulator::Site::current()) {
    uint32_t lane = emulator::lane();
    bool inside = lane - emulator::segment(width) + delta < static_cast<uint32_t>(width);
    return emulator::shuffle_from(mask, value, inside ? lane + delta : lane, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              emulator::Site site = emulator::Site::current()) {
    return emulator::ballot(mask, predicate != 0, site);
}

inline int __any_sync(unsigned mask, int predicate,
                      emulator::Site site = emulator::Site::current()) {
    return emulator::ballot(mask, predicate != 0, site) != 0;
}

inline int __all_sync(unsigned mask, int predicate,
                      emulator::Site site = emulator::Site::current()) {
    return emulator::ballot(mask, predicate != 0, site) == mask;
}

/* The operand's type is the address's, as overloads would have it. */
#define ATOMIC(name, accepted, result)                                              \
    template <class T>                                                              \
        requires(accepted)                                                          \
    T name(T *address, std::type_identity_t<T> operand,                             \
           emulator::Site site = emulator::Site::current()) {                       \
        auto change = []([[maybe_unused]] T old, T operand) -> T { return result; }; \
        return emulator::atomic_change(address, operand, change, site);             \
    }

ATOMIC(atomicAdd, emulator::atomic_number<T> || (std::is_same_v<T, float>), old + operand)
ATOMIC(atomicExch, emulator::atomic_number<T> || (std::is_same_v<T, float>), operand)
ATOMIC(atomicMax, emulator::atomic_number<T>, old > operand ? old : operand)
ATOMIC(atomicMin, emulator::atomic_number<T>, old < operand ? old : operand)
ATOMIC(atomicOr, emulator::atomic_number<T>, old | operand)

#undef ATOMIC

template <emulator::atomic_number T>
T atomicCAS(T *address, std::type_identity_t<T> expected, std::type_identity_t<T> desired,
            emulator::Site site = emulator::Site::current()) {
    return emulator::atomic_change(
        address, desired, [=](T old, T desired) { return old == expected ? desired : old; },
        site);
}

inline float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }

/* To the nearest, ties to even; the ends where it does not fit, 0 for what is no number. */
inline int __float2int_rn(float x) {
    if (x != x) {
        return 0;
    }
    float nearest = __builtin_rintf(x);
    if (nearest >= 0x1p31f) {
        return INT32_MAX;
    }
    return nearest <= -0x1p31f ? INT32_MIN : static_cast<int>(nearest);
}

inline unsigned __umulhi(unsigned x, unsigned y) {
    return static_cast<unsigned>(uint64_t{x} * y >> 32);
}

inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }

inline unsigned __brev(unsigned x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(x);
}

inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
