/* The address build's side of the emulator: AddressSanitizer is told of switches between
 * fibers, and its finds end the launch with a code and not the process. In the other builds
 * all of it is nothing. */
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator::sanitizers {

#if defined(__SANITIZE_ADDRESS__)

constexpr bool address = true;

inline void switch_starts(void **fake_stack, const void *bottom, size_t bytes) {
    __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
}

inline void switch_ended(void *fake_stack) {
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

inline void unmark(const void *memory, size_t bytes) {
    __asan_unpoison_memory_region(memory, bytes);
}

/* From now on finds come to us. */
void listen();

#else

constexpr bool address = false;

inline void switch_starts(void **, const void *, size_t) {}
inline void switch_ended(void *) {}
inline void unmark(const void *, size_t) {}
inline void listen() {}

#endif

} // namespace emulator::sanitizers
