/* A launch in progress, and the block of it that runs: its threads as fibers, and where they
 * wait for each other. Fibers switch to each other directly; the calling thread comes back
 * when the last has returned or at the first fault. */
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "copies.h"
#include "fiber.h"
#include "machine.h"
#include "races.h"
#include "schedule.h"
#include "shared_memory.h"

namespace emulator {

struct Thread {
    Fiber fiber;
    /* What it waits at. */
    Site site;
    const Collective *collective = nullptr;
    uint32_t mask = 0;
    void *operand = nullptr;
    Copies copies;
};

/* Lanes by what they do. While two groups with separate masks are under way, they are mixed:
 * then each that comes is compared with all. */
struct Warp {
    uint32_t at_barrier = 0, at_collective = 0, returned = 0;
    bool mixed = false;
};

class Block {
  public:
    Block(const Entry &entry, const emulated_launch &launch, const void *arguments,
          Stacks &stacks);

    /* All blocks of the launch, up to its first fault. */
    void run_all();

    /* Notes a fault without ending anything: the first one counts. */
    void note(int32_t code, uint32_t thread, const std::string &text);
    [[noreturn]] void end();

    Thread &current() { return threads[position.thread.x]; }
    Warp &warp() { return warps[position.thread.x / warp_size]; }
    uint32_t warp_lanes() const;

    void barrier(const Site &site, bool orders);
    void rendezvous(const Collective &what, uint32_t mask, void *operand, const Site &site);
    void atomic_turn(const Site &site);

    int32_t code = EMULATED_OK;
    std::string text;
    SharedMemory shared;
    Races races;

  private:
    void run();
    static void thread_main();
    [[noreturn]] void thread_returns();
    void wait();
    void resume(uint32_t thread);
    void expect_company(const Site &site);
    void expect_none_waits(const char *does);
    void perform(const Collective &what, uint32_t mask);

    const Entry &entry;
    const void *arguments;
    Stacks &stacks;
    uint32_t block_count;
    uint32_t shared_bytes;
    Schedule schedule;
    Fiber caller;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    uint32_t at_barrier = 0; /* Threads there. */
    uint32_t barrier_thread = 0; /* The first of them. */
    uint32_t returned = 0;
    uint32_t idle_turns = 0; /* At atomics, since a thread got anywhere else. */
};

/* The calling thread's launch, or null. */
extern constinit thread_local Block *running;

} // namespace emulator
