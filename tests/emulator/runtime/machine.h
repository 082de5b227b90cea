/* What the kernel languages (cuda/, metal/) build on: where a thread is, its block's shared
 * memory, barriers, operations of a warp, atomics, copies, and the way to report a fault. */
#pragma once

#include <cstdint>
#include <source_location>

#include "emulator.h"

namespace emulator {

#if defined(PAGEWISE_RACES)
constexpr bool races_sought = true;
#else
constexpr bool races_sought = false;
#endif

/* Where in a kernel's source something was asked for. */
using Site = std::source_location;

struct Index1 {
    uint32_t x;
};

struct Index3 {
    uint32_t x, y, z;
};

/* Where the running thread is. Blocks have one dimension: kernels that ask for more do not
 * compile. */
struct Position {
    Index1 thread, threads;
    Index3 block, grid;
};

/* `constinit` spares each use the call that would initialise them. */
extern constinit thread_local Position position;
extern constinit thread_local unsigned char *shared_memory;
extern constinit thread_local emulated_counts counts;

constexpr uint32_t warp_size = 32;

inline uint32_t lane() { return position.thread.x % warp_size; }

/* The lanes of the running thread's warp: all, except in a block's last, ragged one. */
uint32_t warp_lanes();

/* An entry enters itself into the list of all by being constructed. */
struct Entry {
    const char *name;
    uint32_t threads;
    uint64_t argument_bytes;
    void (*body)(const void *arguments);
    const Entry *next;

    Entry(const char *name, uint32_t threads, uint64_t argument_bytes,
          void (*body)(const void *));
};

/* Ends the launch. The second form names another thread than the running one. */
[[noreturn]] void fault(int32_t code, const Site &site, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
[[noreturn]] void fault_of(uint32_t thread, int32_t code, const Site &site,
                           const char *format, ...) __attribute__((format(printf, 4, 5)));

/* An operation that lanes of a warp do together. `perform` runs once, when all lanes of the
 * mask have come: operands[l] is what lane l brought, and where its result goes. */
struct Collective {
    const char *name;
    void (*perform)(void *const *operands, uint32_t mask);
};

void rendezvous(const Collective &what, uint32_t mask, void *operand, const Site &site);

/* The two operations that order shared memory; Metal's need not. */
void block_barrier(const Site &site, bool orders = true);
void warp_barrier(uint32_t mask, const Site &site, bool orders = true);

/* Before an atomic operation: another thread may go first, and the race build looks. */
void atomic_turn(const void *address, uint32_t bytes, const Site &site);

/* Where an instruction's operand of so many bytes lies in shared memory, from its start. It
 * is a fault if it does not, or if it is not aligned to them. */
uint32_t shared_offset(const void *address, uint32_t bytes, const char *instruction,
                       const Site &site);
bool is_shared(const void *address);
void expect_aligned(const void *address, uint32_t bytes, const char *instruction,
                    const Site &site);

/* For the race build: what an instruction does to shared memory for a thread. The compiler's
 * instrumentation does not see it. A warp's write is that of one lane, and nobody knows of
 * which. */
enum class Access : uint8_t { read, write, warp_write, atomic };

void instruction_accesses(uint32_t thread, uint32_t offset, uint32_t bytes, Access kind,
                          const Site &site);

/* Copies to shared memory in the running thread's name. They read their source at once and
 * write when they are waited for: a kernel that forgets to wait finds what was there. */
void copy_starts(void *shared, const void *global, uint32_t bytes, bool valid,
                 const Site &site);
void copies_commit();
void copies_wait(uint32_t groups);

} // namespace emulator
