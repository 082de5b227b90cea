/* Bytes of global memory that launches move, by pieces of it that are watched. A block has a
 * first-level cache of the sectors that it touched, which is emptied when it is full; what instructions bring past it
 * counts each time. Plain loads and stores are seen by the race build alone. */
#pragma once

#include <cstdint>
#include <vector>

#include "emulator.h"

namespace emulator {

class Traffic {
  public:
    Traffic(emulated_piece *pieces, uint64_t count);

    void block_starts();

    enum class Way : uint8_t { read, read_past_cache, write };

    void touch(const void *address, uint32_t bytes, Way way);

  private:
    /* When a sector was last touched: a block's time, 0 for never; and whether in this launch. */
    struct Sector {
        uint32_t read = 0, written = 0;
        bool was_read = false, was_written = false;
    };

    uint64_t sector_bytes(const emulated_piece &piece, uint64_t sector) const;

    emulated_piece *pieces;
    uint64_t count;
    std::vector<std::vector<Sector>> sectors;
    uint64_t last = 0; /* The piece that was found last. */
    uint32_t time = 1;
    uint64_t cached_bytes = 0;
};

/* Of the calling thread's launches, or null. */
extern constinit thread_local Traffic *watching;

} // namespace emulator
