/* A thread's copies to shared memory that are on their way, in the order of their start. */
#pragma once

#include <cstdint>
#include <vector>

namespace emulator {

struct Copy {
    unsigned char *to;
    uint32_t offset; /* Of `to` in shared memory. */
    uint32_t bytes;
    uint32_t group;
    unsigned char data[16];
};

struct Copies {
    std::vector<Copy> started;
    uint32_t arrived = 0; /* So many of the first have been written. */
    uint32_t group = 0;   /* The group that is open. */

    void clear() {
        started.clear();
        arrived = group = 0;
    }
};

} // namespace emulator
