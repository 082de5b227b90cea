/* What kernels ask of the runtime, handed to the launch that runs on the calling thread. */
#include "machine.h"

#include "block.h"
#include "faults.h"

namespace emulator {

namespace {

void order_warp(void *const *, uint32_t mask) {
    if constexpr (races_sought) {
        running->races.warp_barrier(position.thread.x / warp_size, mask);
    }
}

constexpr Collective warp_barrier_collective{"a warp barrier", order_warp};

void instruction_accesses(uint32_t thread, uint32_t offset, uint32_t bytes, Access kind,
                          const char *does, const Site &site) {
    if constexpr (races_sought) {
        Conflict conflict = running->races.access(thread, offset, bytes, kind);
        if (conflict.kind != Conflict::none) {
            end_at_conflict(conflict, thread, does, location(site));
        }
    }
}

} // namespace

uint32_t warp_lanes() { return running->warp_lanes(); }

void rendezvous(const Collective &what, uint32_t mask, void *operand, const Site &site) {
    running->rendezvous(what, mask, operand, site);
}

void block_barrier(const Site &site) { running->barrier(site); }

void warp_barrier(uint32_t mask, const Site &site) {
    running->rendezvous(warp_barrier_collective, mask, nullptr, site);
}

void atomic_turn(const void *address, uint32_t bytes, const Site &site) {
    expect_aligned(address, bytes, "an atomic operation", site);
    running->atomic_turn(site);
    uint32_t offset = running->shared.offset(address, bytes);
    if (offset != SharedMemory::outside) {
        instruction_accesses(position.thread.x, offset, bytes, Access::atomic,
                             "changes atomically", site);
    }
}

uint32_t shared_offset(const void *address, uint32_t bytes, const char *instruction,
                       const Site &site) {
    expect_aligned(address, bytes, instruction, site);
    uint32_t offset = running->shared.offset(address, bytes);
    if (offset == SharedMemory::outside) {
        fault(EMULATED_SHARED, site, "gives %s %u bytes at %p, outside shared memory",
              instruction, bytes, address);
    }
    return offset;
}

void expect_aligned(const void *address, uint32_t bytes, const char *instruction,
                    const Site &site) {
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
        fault(EMULATED_ALIGNMENT, site, "gives %s the address %p, not aligned to %u bytes",
              instruction, address, bytes);
    }
}

void instruction_reads(uint32_t thread, uint32_t offset, uint32_t bytes, const Site &site) {
    instruction_accesses(thread, offset, bytes, Access::read, "reads", site);
}

void instruction_writes(uint32_t thread, uint32_t offset, uint32_t bytes, const Site &site) {
    instruction_accesses(thread, offset, bytes, Access::write, "writes", site);
}

} // namespace emulator
