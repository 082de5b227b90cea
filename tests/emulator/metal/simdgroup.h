/* Barriers, and what the threads of a SIMD group tell each other. Metal lets some of a group
 * do that while others are elsewhere; here all 32 (fewer in a last, ragged group) must come. */
#pragma once

#include "arithmetic.h"
#include "machine.h"

namespace emulator {

/* Reduces what the lanes brought, from the first lane on; the hardware has another order. */
template <class T, class Combine>
void perform_reduction(void *const *operands, uint32_t mask) {
    T result = *static_cast<const T *>(operands[0]);
    for (uint32_t rest = mask & (mask - 1); rest != 0; rest &= rest - 1) {
        result = Combine{}(result, *static_cast<const T *>(operands[__builtin_ctz(rest)]));
    }
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        *static_cast<T *>(operands[__builtin_ctz(rest)]) = result;
    }
}

template <class T, class Combine>
constexpr Collective reduction{"a reduction", perform_reduction<T, Combine>};

template <class Combine, class T>
T reduced(T value, const Site &site) {
    rendezvous(reduction<T, Combine>, warp_lanes(), &value, site);
    return value;
}

template <class T>
struct Shuffle {
    T value;
    uint32_t source;
    T taken;
};

template <class T>
void perform_shuffle(void *const *operands, uint32_t mask) {
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        auto &to = *static_cast<Shuffle<T> *>(operands[__builtin_ctz(rest)]);
        to.taken = static_cast<const Shuffle<T> *>(operands[to.source])->value;
    }
}

template <class T>
constexpr Collective shuffle{"a shuffle", perform_shuffle<T>};

template <class T>
T shuffled(T value, uint32_t source, const Site &site) {
    if (source >= warp_size || (warp_lanes() >> source & 1) == 0) {
        fault(EMULATED_COLLECTIVE, site, "takes from lane %u, which there is not", source);
    }
    Shuffle<T> shuffle_operand{value, source, value};
    rendezvous(shuffle<T>, warp_lanes(), &shuffle_operand, site);
    return shuffle_operand.taken;
}

struct Sum {
    template <class T>
    T operator()(T a, T b) const {
        return static_cast<T>(a + b);
    }
};

struct Largest {
    template <class T>
    T operator()(T a, T b) const {
        return metal::max(a, b);
    }
};

struct Smallest {
    template <class T>
    T operator()(T a, T b) const {
        return metal::min(a, b);
    }
};

} // namespace emulator

namespace metal {

using Site = emulator::Site;

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };

inline mem_flags operator|(mem_flags a, mem_flags b) {
    return static_cast<mem_flags>(static_cast<int>(a) | static_cast<int>(b));
}

/* Only this flag makes a barrier order shared memory. */
inline bool orders_shared(mem_flags flags) {
    return (static_cast<int>(flags) & static_cast<int>(mem_flags::mem_threadgroup)) != 0;
}

inline void threadgroup_barrier(mem_flags flags, Site site = Site::current()) {
    emulator::block_barrier(site, orders_shared(flags));
}

inline void simdgroup_barrier(mem_flags flags, Site site = Site::current()) {
    emulator::warp_barrier(emulator::warp_lanes(), site, orders_shared(flags));
}

/* What the threads of a SIMD group tell each other: Metal takes no number of eight bytes. */
template <class T>
concept Told = std::is_same_v<T, half> || (std::is_arithmetic_v<T> && sizeof(T) <= 4);

template <Told T>
T simd_sum(T value, Site site = Site::current()) {
    return emulator::reduced<emulator::Sum>(value, site);
}

template <Told T>
T simd_max(T value, Site site = Site::current()) {
    return emulator::reduced<emulator::Largest>(value, site);
}

template <Told T>
T simd_min(T value, Site site = Site::current()) {
    return emulator::reduced<emulator::Smallest>(value, site);
}

template <Told T>
T simd_shuffle(T value, ushort lane, Site site = Site::current()) {
    return emulator::shuffled(value, lane, site);
}

template <Told T>
T simd_broadcast(T value, ushort lane, Site site = Site::current()) {
    return emulator::shuffled(value, lane, site);
}

template <Told T>
T simd_shuffle_xor(T value, ushort lanes, Site site = Site::current()) {
    return emulator::shuffled(value, emulator::lane() ^ lanes, site);
}

/* Lanes that have none so far below or above keep what they brought: Metal leaves it open. */
template <Told T>
T simd_shuffle_up(T value, ushort delta, Site site = Site::current()) {
    uint32_t lane = emulator::lane();
    return emulator::shuffled(value, lane < delta ? lane : lane - delta, site);
}

template <Told T>
T simd_shuffle_down(T value, ushort delta, Site site = Site::current()) {
    uint32_t lane = emulator::lane(), source = lane + delta;
    bool inside = source < 32 && (emulator::warp_lanes() >> source & 1) != 0;
    return emulator::shuffled(value, inside ? source : lane, site);
}

/* A set of lanes. */
class simd_vote {
  public:
    using vote_t = ulong;

    explicit simd_vote(vote_t lanes) : lanes(lanes) {}
    explicit operator vote_t() const { return lanes; }
    bool all() const { return lanes == emulator::warp_lanes(); }
    bool any() const { return lanes != 0; }

  private:
    vote_t lanes;
};

inline simd_vote simd_ballot(bool predicate, Site site = Site::current()) {
    ulong own = ulong{predicate} << emulator::lane();
    return simd_vote(emulator::reduced<emulator::Sum>(own, site));
}

inline bool simd_any(bool predicate, Site site = Site::current()) {
    return simd_ballot(predicate, site).any();
}

inline bool simd_all(bool predicate, Site site = Site::current()) {
    return simd_ballot(predicate, site).all();
}

} // namespace metal

/* A thread's place, for ENTRY in msl_ops.h, where `thread` is no name. */
namespace emulator {

inline uint thread_index() { return position.thread.x; }
inline uint thread_count() { return position.threads.x; }
inline uint simdgroup() { return position.thread.x / warp_size; }
inline uint3 group() { return {position.block.x, position.block.y, position.block.z}; }
inline uint3 group_count() { return {position.grid.x, position.grid.y, position.grid.z}; }

} // namespace emulator
