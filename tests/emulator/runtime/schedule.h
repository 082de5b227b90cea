/* Which of a block's threads goes next: with seed 0 the one that has waited longest, so that
 * threads start in the order of their numbers; else any of them, as the seed has it. */
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace emulator {

class Random {
  public:
    explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15u) {}

    /* Any number below `end`. */
    uint32_t below(uint32_t end) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return static_cast<uint32_t>(
            (state * 0x2545f4914f6cdd1du >> 32) * static_cast<uint64_t>(end) >> 32);
    }

  private:
    uint64_t state;
};

class Schedule {
  public:
    explicit Schedule(uint64_t seed) : seeded(seed != 0), random(seed) {}

    /* A block of so many threads, none of them ready. */
    void clear(uint32_t thread_count) {
        uint32_t capacity = 1;
        while (capacity < thread_count) {
            capacity *= 2;
        }
        ready.resize(capacity);
        first = end = 0;
    }

    void push(uint32_t thread) { at(end++) = thread; }

    bool empty() const { return first == end; }

    uint32_t pop() {
        if (seeded) {
            std::swap(at(first), at(first + random.below(end - first)));
        }
        return at(first++);
    }

    /* The numbers below `count` in the order in which blocks run. */
    std::vector<uint32_t> block_order(uint32_t count) {
        std::vector<uint32_t> order(count);
        for (uint32_t i = 0; i < count; i++) {
            order[i] = i;
            if (seeded) {
                std::swap(order[i], order[random.below(i + 1)]);
            }
        }
        return order;
    }

  private:
    uint32_t &at(uint32_t i) { return ready[i & (ready.size() - 1)]; }

    bool seeded;
    Random random;
    std::vector<uint32_t> ready; /* A ring: its size is a power of two. */
    uint32_t first = 0, end = 0;
};

} // namespace emulator
