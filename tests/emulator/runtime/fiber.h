/* Fibers: the stacks that a block's threads run on, and the switch between them, written by
 * hand for x86-64 (swapcontext makes a system call each time). */
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace emulator {

struct Stack {
    unsigned char *bottom = nullptr;
    size_t bytes = 0;
};

struct Fiber {
    void *stack_pointer = nullptr;
    Stack stack;
    void *fake_stack = nullptr; /* AddressSanitizer's, while the fiber does not run. */
};

/* Stacks for as many fibers as were ever asked for. Below each lies a page that faults. */
class Stacks {
  public:
    Stacks() = default;
    Stacks(const Stacks &) = delete;
    ~Stacks();

    Stack stack(uint32_t index);

    /* After a fault left fibers in the middle: their frames' marks are lifted. */
    void forget_frames();

  private:
    std::vector<Stack> stacks;
};

/* Makes `fiber` start in `start` when it is switched to. `index` spreads the tops of stacks
 * over the sets of the cache. */
void prepare(Fiber &fiber, Stack stack, uint32_t index, void (*start)());

/* The calling thread itself, as one that fibers can switch back to. */
Fiber calling_thread();

void switch_fiber(Fiber &from, Fiber &to);

/* The first thing that a fiber does. */
void fiber_started();

} // namespace emulator
