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

void order_nothing(void *const *, uint32_t) {}

constexpr Collective ordering{"a warp barrier", order_warp};
constexpr Collective not_ordering{"a warp barrier that orders nothing", order_nothing};

} // namespace

uint32_t warp_lanes() { return running->warp_lanes(); }

void rendezvous(const Collective &what, uint32_t mask, void *operand, const Site &site) {
    running->rendezvous(what, mask, operand, site);
}

void block_barrier(const Site &site, bool orders) { running->barrier(site, orders); }

void warp_barrier(uint32_t mask, const Site &site, bool orders) {
    running->rendezvous(orders ? ordering : not_ordering, mask, nullptr, site);
}

void atomic_turn(const void *address, uint32_t bytes, const Site &site) {
    expect_aligned(address, bytes, "an atomic operation", site);
    running->atomic_turn(site);
    uint32_t offset = running->shared.offset(address, bytes);
    if (races_sought && offset != SharedMemory::outside) {
        instruction_accesses(position.thread.x, offset, bytes, Access::atomic, site);
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

bool is_shared(const void *address) {
    return running->shared.offset(address, 1) != SharedMemory::outside;
}

void expect_aligned(const void *address, uint32_t bytes, const char *instruction,
                    const Site &site) {
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
        fault(EMULATED_ALIGNMENT, site, "gives %s the address %p, not aligned to %u bytes",
              instruction, address, bytes);
    }
}

void instruction_accesses(uint32_t thread, uint32_t offset, uint32_t bytes, Access kind,
                          const Site &site) {
    Conflict conflict = running->races.access(thread, offset, bytes, kind);
    if (conflict.kind != Conflict::none) {
        end_at_conflict(conflict, thread, verb(kind), location(site));
    }
}

} // namespace emulator
