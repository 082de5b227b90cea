#include "block.h"

#include <cstring>
#include <new>

#include "faults.h"
#include "traffic.h"

namespace emulator {

constinit thread_local Block *running = nullptr;
constinit thread_local Position position{};
constinit thread_local unsigned char *shared_memory = nullptr;
constinit thread_local emulated_counts counts{};

namespace {

/* Far more than atomics that real kernels do between barriers, and less than a second. */
constexpr uint32_t idle_turns_max = 1u << 24;

bool same(const Site &a, const Site &b) {
    return a.line() == b.line() && (a.file_name() == b.file_name() ||
                                    std::strcmp(a.file_name(), b.file_name()) == 0);
}

bool agree(const Thread &a, const Thread &b) {
    return a.collective == b.collective && a.mask == b.mask && same(a.site, b.site);
}

} // namespace

Block::Block(const Entry &entry, const emulated_launch &launch, const void *arguments,
             Stacks &stacks)
    : shared(launch.shared_bytes), races(races_sought ? shared.bytes() : 0), entry(entry),
      arguments(arguments), stacks(stacks), schedule(launch.seed), caller(calling_thread()),
      threads(launch.block), warps((launch.block + warp_size - 1) / warp_size) {
    position = {{0}, {launch.block}, {}, {launch.grid[0], launch.grid[1], launch.grid[2]}};
    shared_memory = shared.dynamic;
}

void Block::run_all() {
    Index3 grid = position.grid;
    for (uint32_t block : schedule.block_order(grid.x * grid.y * grid.z)) {
        position.block = {block % grid.x, block / grid.x % grid.y, block / grid.x / grid.y};
        run();
        if (shared.is_overrun()) {
            note(EMULATED_SHARED, position.thread.x, "it or another wrote past shared memory");
        }
        if (code != EMULATED_OK) {
            stacks.forget_frames();
            return;
        }
    }
}

void Block::run() {
    auto thread_count = static_cast<uint32_t>(threads.size());
    shared.poison();
    if (watching != nullptr) {
        watching->block_starts();
    }
    if constexpr (races_sought) {
        races.block_starts(thread_count);
    }
    schedule.clear(thread_count);
    for (uint32_t i = 0; i < thread_count; i++) {
        prepare(threads[i].fiber, stacks.stack(i), i, thread_main);
        threads[i].copies.clear();
        schedule.push(i);
    }
    warps.assign(warps.size(), {});
    at_barrier = returned = idle_turns = 0;
    position.thread.x = schedule.pop();
    switch_fiber(caller, current().fiber);
}

void Block::thread_main() {
    fiber_started();
    try {
        running->entry.body(running->arguments);
    } catch (const std::bad_alloc &) {
        running->note(EMULATED_FAILED, position.thread.x, "the emulator has no memory left");
    }
    running->thread_returns();
}

void Block::thread_returns() {
    if (code != EMULATED_OK) {
        end();
    }
    expect_none_waits("returns");
    if (at_barrier > 0) {
        fault(EMULATED_BARRIER, threads[barrier_thread].site,
              "returns while thread %u waits at a barrier", barrier_thread);
    }
    warp().returned |= 1u << lane();
    idle_turns = 0;
    if (++returned == threads.size()) {
        end();
    }
    wait();
    __builtin_unreachable();
}

/* Back to the caller: the block is done, or there was a fault. */
void Block::end() {
    switch_fiber(current().fiber, caller);
    __builtin_unreachable();
}

/* Another thread goes on, until this one is ready and its turn comes. */
void Block::wait() {
    if (schedule.empty()) {
        fault(EMULATED_DEADLOCK, current().site, "waits, as all other threads do");
    }
    resume(schedule.pop());
}

void Block::resume(uint32_t thread) {
    if (code != EMULATED_OK) {
        end();
    }
    if (thread != position.thread.x) {
        Fiber &from = current().fiber;
        position.thread.x = thread;
        counts.switch_count++;
        switch_fiber(from, current().fiber);
    }
}

void Block::barrier(const Site &site, bool orders) {
    current().site = site;
    if (at_barrier > 0 && !same(site, threads[barrier_thread].site)) {
        fault(EMULATED_BARRIER, site, "comes to a barrier while thread %u waits at that of %s",
              barrier_thread, location(threads[barrier_thread].site).c_str());
    }
    if (returned > 0) {
        fault(EMULATED_BARRIER, site, "comes to a barrier after %u threads have returned",
              returned);
    }
    expect_none_waits("comes to a barrier");
    warp().at_barrier |= 1u << lane();
    if (at_barrier++ == 0) {
        barrier_thread = position.thread.x;
    }
    if (at_barrier == threads.size()) {
        at_barrier = idle_turns = 0;
        for (Warp &warp : warps) {
            warp.at_barrier = 0;
        }
        for (uint32_t i = 0; i < threads.size(); i++) {
            schedule.push(i);
        }
        if (races_sought && orders) {
            races.block_barrier();
        }
    }
    wait();
}

void Block::rendezvous(const Collective &what, uint32_t mask, void *operand,
                       const Site &site) {
    Thread &thread = current();
    thread.site = site;
    thread.collective = &what;
    thread.mask = mask;
    thread.operand = operand;
    expect_company(site);
    warp().at_collective |= 1u << lane();
    if ((mask & ~warp().at_collective) == 0) {
        perform(what, mask);
    }
    wait();
}

/* Every lane of the mask can still come to the same operation, and no lane waits for this one
 * at another. */
void Block::expect_company(const Site &site) {
    const Thread &thread = current();
    Warp &warp = this->warp();
    const char *name = thread.collective->name;
    if ((thread.mask >> lane() & 1) == 0) {
        fault(EMULATED_COLLECTIVE, site, "comes to %s whose mask %08x leaves it out", name,
              thread.mask);
    }
    uint32_t gone = thread.mask & (warp.returned | warp.at_barrier | ~warp_lanes());
    if (gone != 0) {
        fault(EMULATED_COLLECTIVE, site,
              "comes to %s with mask %08x, of which lane %d has returned or waits at a barrier",
              name, thread.mask, __builtin_ctz(gone));
    }
    if (warp.at_collective == 0) {
        return;
    }
    const Thread *lanes = &threads[position.thread.x / warp_size * warp_size];
    if (!warp.mixed && agree(thread, lanes[__builtin_ctz(warp.at_collective)])) {
        return;
    }
    for (uint32_t rest = warp.at_collective; rest != 0; rest &= rest - 1) {
        const Thread &other = lanes[__builtin_ctz(rest)];
        if ((thread.mask & other.mask) != 0 && !agree(thread, other)) {
            fault(EMULATED_COLLECTIVE, site,
                  "comes to %s with mask %08x while lane %d waits at %s with mask %08x, %s",
                  name, thread.mask, __builtin_ctz(rest), other.collective->name, other.mask,
                  location(other.site).c_str());
        }
    }
    warp.mixed = true;
}

/* No lane of its warp waits for the running thread, which `does` something else. */
void Block::expect_none_waits(const char *does) {
    const Thread *lanes = &threads[position.thread.x / warp_size * warp_size];
    for (uint32_t rest = warp().at_collective; rest != 0; rest &= rest - 1) {
        const Thread &waiting = lanes[__builtin_ctz(rest)];
        if (waiting.mask >> lane() & 1) {
            fault(EMULATED_COLLECTIVE, waiting.site,
                  "%s while lane %d waits for it at %s with mask %08x", does,
                  __builtin_ctz(rest), waiting.collective->name, waiting.mask);
        }
    }
}

void Block::perform(const Collective &what, uint32_t mask) {
    uint32_t first = position.thread.x / warp_size * warp_size;
    void *operands[warp_size];
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        uint32_t lane = __builtin_ctz(rest);
        operands[lane] = threads[first + lane].operand;
        schedule.push(first + lane);
    }
    what.perform(operands, mask);
    warp().at_collective &= ~mask;
    warp().mixed &= warp().at_collective != 0;
    idle_turns = 0;
}

void Block::atomic_turn(const Site &site) {
    if (++idle_turns == idle_turns_max) {
        fault(EMULATED_DEADLOCK, site, "spins on an atomic, and no thread gets anywhere");
    }
    schedule.push(position.thread.x);
    wait();
}

uint32_t Block::warp_lanes() const {
    uint32_t rest = static_cast<uint32_t>(threads.size()) -
                    position.thread.x / warp_size * warp_size;
    return rest < warp_size ? (1u << rest) - 1 : ~0u;
}

void Block::note(int32_t code, uint32_t thread, const std::string &text) {
    if (this->code != EMULATED_OK) {
        return;
    }
    this->code = code;
    Index3 block = position.block;
    this->text = std::string("entry ") + entry.name + ", block (" + std::to_string(block.x) +
                 ", " + std::to_string(block.y) + ", " + std::to_string(block.z) +
                 "), thread " + std::to_string(thread) + ": " + text;
}

} // namespace emulator
