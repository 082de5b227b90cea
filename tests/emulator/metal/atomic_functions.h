/* Metal's atomic types and the operations on them, of which all orders are relaxed. */
#pragma once

#include "atomics.h"
#include "vectors.h"

namespace metal {

using Site = emulator::Site;

enum memory_order { memory_order_relaxed };

template <class T>
struct atomic {
    T value;
};

using atomic_int = atomic<int>;
using atomic_uint = atomic<uint>;

/* Returns what was there. */
#define ATOMIC_FETCH(name, result)                                                  \
    template <class T>                                                              \
    T name(volatile atomic<T> *address, std::type_identity_t<T> operand,            \
           memory_order, Site site = Site::current()) {                             \
        return emulator::atomic_change(                                             \
            const_cast<T *>(&address->value), operand,                              \
            []([[maybe_unused]] T old, T operand) -> T { return result; }, site);   \
    }

ATOMIC_FETCH(atomic_exchange_explicit, operand)
ATOMIC_FETCH(atomic_fetch_add_explicit, old + operand)
ATOMIC_FETCH(atomic_fetch_sub_explicit, old - operand)
ATOMIC_FETCH(atomic_fetch_max_explicit, old > operand ? old : operand)
ATOMIC_FETCH(atomic_fetch_min_explicit, old < operand ? old : operand)
ATOMIC_FETCH(atomic_fetch_or_explicit, old | operand)
ATOMIC_FETCH(atomic_fetch_and_explicit, old & operand)
ATOMIC_FETCH(atomic_fetch_xor_explicit, old ^ operand)

#undef ATOMIC_FETCH

template <class T>
T atomic_load_explicit(const volatile atomic<T> *address, memory_order,
                       Site site = Site::current()) {
    return emulator::atomic_change(
        const_cast<T *>(&address->value), T(0), [](T old, T) { return old; }, site);
}

template <class T>
void atomic_store_explicit(volatile atomic<T> *address, std::type_identity_t<T> desired,
                           memory_order order, Site site = Site::current()) {
    atomic_exchange_explicit(address, desired, order, site);
}

/* Metal's may fail without a reason; this one does not. */
template <class T>
bool atomic_compare_exchange_weak_explicit(volatile atomic<T> *address, T *expected,
                                           std::type_identity_t<T> desired, memory_order,
                                           memory_order, Site site = Site::current()) {
    T sought = *expected;
    *expected = emulator::atomic_change(
        const_cast<T *>(&address->value), desired,
        [=](T old, T desired) { return old == sought ? desired : old; }, site);
    return *expected == sought;
}

} // namespace metal
