/* What the kernel languages' atomic operations are made of. One emulated thread of a launch
 * runs at a time, so plain C++ does. */
#pragma once

#include <type_traits>

#include "machine.h"

namespace emulator {

template <class T, class... Others>
concept one_of = (std::is_same_v<T, Others> || ...);

template <class T>
concept atomic_number = one_of<T, int, unsigned, unsigned long long>;

/* Returns what was there. The compiler must not report the two accesses as plain ones. */
template <class T, class Change>
__attribute__((noinline, no_sanitize("thread"))) T atomic_change(T *address, T operand,
                                                                 Change change,
                                                                 const Site &site) {
    atomic_turn(address, sizeof(T), site);
    T before = *address;
    *address = change(before, operand);
    return before;
}

} // namespace emulator
