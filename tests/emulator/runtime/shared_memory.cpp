#include "shared_memory.h"

#include <algorithm>
#include <cstdlib>
#include <new>

#include "sanitizers.h"

/* The linker's names for the section's ends. There is none where no kernel has variables. */
extern "C" {
extern unsigned char __start_pagewise_shared[]
    __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_pagewise_shared[]
    __attribute__((weak, visibility("hidden")));
}

namespace emulator {

namespace {

/* As the hardware's own shared memory in CUDA: see SHARED() in device_ops.h. */
constexpr size_t alignment = 128;

constexpr uint32_t margin_bytes = sanitizers::address ? 0 : 128;
constexpr unsigned char poison_byte = 0xff;

uint32_t section_bytes() {
    auto first = reinterpret_cast<uintptr_t>(__start_pagewise_shared);
    auto end = reinterpret_cast<uintptr_t>(__stop_pagewise_shared);
    return static_cast<uint32_t>(end - first);
}

} // namespace

SharedMemory::SharedMemory(uint32_t dynamic_bytes)
    : dynamic_bytes(dynamic_bytes), variables(__start_pagewise_shared),
      variable_bytes(section_bytes()) {
    void *memory = nullptr;
    if (posix_memalign(&memory, alignment, dynamic_bytes + margin_bytes) != 0) {
        throw std::bad_alloc();
    }
    dynamic = static_cast<unsigned char *>(memory);
}

SharedMemory::~SharedMemory() { free(dynamic); }

void SharedMemory::poison() {
    std::memset(dynamic, poison_byte, dynamic_bytes + margin_bytes);
    if (variable_bytes != 0) {
        std::memset(variables, poison_byte, variable_bytes);
    }
}

bool SharedMemory::is_overrun() const {
    const unsigned char *margin = dynamic + dynamic_bytes;
    return !std::all_of(margin, margin + margin_bytes,
                        [](unsigned char byte) { return byte == poison_byte; });
}

bool SharedMemory::has_variables() { return section_bytes() != 0; }

} // namespace emulator
