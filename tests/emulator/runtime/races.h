/* Finds races in shared memory, byte for byte and without guessing: two accesses, one of them
 * a write, race unless a barrier lies between them. Only block and warp barriers order. Since
 * a block barrier orders all threads, accesses on its two sides never race, and between two
 * of them nothing orders different warps: vector clocks need only span a warp, and start
 * again at each block barrier. */
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "machine.h"

namespace emulator {

/* What an access is in conflict with. */
struct Conflict {
    enum Kind : uint8_t { none, with_read, with_write, with_atomic, with_copy };
    Kind kind = none;
    uint32_t thread = 0;
    uint32_t offset = 0;
};

class Races {
  public:
    explicit Races(uint32_t shared_bytes);

    void block_starts(uint32_t thread_count);
    void block_barrier();
    void warp_barrier(uint32_t warp, uint32_t mask);

    Conflict access(uint32_t thread, uint32_t offset, uint32_t bytes, Access kind);

    /* A copy is a write whose bytes nobody may touch, its own thread included, until that
     * thread waits for it; only then does it take its place among the thread's accesses. */
    Conflict copy_starts(uint32_t thread, uint32_t offset, uint32_t bytes);
    void copy_ends(uint32_t thread, uint32_t offset, uint32_t bytes);

  private:
    static constexpr uint32_t lanes = 32;
    static constexpr int32_t nothing = -1;

    using Clocks = std::array<uint32_t, lanes>;

    /* The last write. Epochs count block barriers and blocks, from 1 and never back. */
    struct Write {
        uint32_t epoch, clock;
        uint16_t thread;
        bool copying, by_warp;
    };

    /* Accesses since the last write that no later one stands for. While the lanes of one warp
     * made them at one clock, a mask names them; after that, each lane's clock is kept. Of
     * several warps, only one other is known: then any write races. */
    struct Accesses {
        uint32_t epoch, clock, mask;
        int32_t clocks; /* Index into lane_clocks. */
        uint16_t warp;
        int16_t other; /* A thread of another warp. */
    };

    struct Cell {
        Write write;
        Accesses reads, atomics;
    };

    using Parts = std::array<Cell, 4>;

    /* Four bytes: one cell while they are accessed together, four once they were not, until
     * one write makes them alike again. */
    struct Word {
        Cell whole{};
        int32_t parts = nothing; /* Index into split_words. */
        bool is_split = false;
    };

    bool is_ordered(uint32_t earlier, uint32_t clock, uint32_t thread) const;
    bool is_stale(const Accesses &accesses) const { return accesses.epoch != epoch; }
    int32_t conflicting(const Accesses &accesses, uint32_t thread) const;
    Conflict conflict(const Cell &cell, uint32_t thread, Access kind) const;
    void add(Accesses &accesses, uint32_t thread);
    void record(Cell &cell, uint32_t thread, Access kind);
    Accesses copied(Accesses accesses);
    void split(Word &word);

    std::vector<Word> words;
    std::vector<Parts> split_words;
    std::vector<Clocks> known;       /* [thread]: what it knows of its warp's lanes' clocks. */
    std::vector<Clocks> lane_clocks; /* Emptied at each block barrier; what a mask leaves out
                                        means nothing. */
    uint32_t epoch = 0;
    uint32_t block_epoch = 0; /* The first of this block: an older copy never arrives. */
};

} // namespace emulator
