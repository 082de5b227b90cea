#include "races.h"

#include <algorithm>

namespace emulator {

namespace {

bool is_write(Access kind) { return kind == Access::write || kind == Access::warp_write; }

} // namespace

Races::Races(uint32_t shared_bytes) : words((shared_bytes + 3) / 4) {}

void Races::block_starts(uint32_t thread_count) {
    known.resize(thread_count);
    block_barrier();
    block_epoch = epoch;
}

void Races::block_barrier() {
    epoch++;
    lane_clocks.clear();
    for (uint32_t thread = 0; thread < known.size(); thread++) {
        known[thread].fill(0);
        known[thread][thread % lanes] = 1;
    }
}

void Races::warp_barrier(uint32_t warp, uint32_t mask) {
    Clocks joined{};
    Clocks *of_lane = &known[warp * lanes];
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        const Clocks &clocks = of_lane[__builtin_ctz(rest)];
        for (uint32_t i = 0; i < lanes; i++) {
            joined[i] = std::max(joined[i], clocks[i]);
        }
    }
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        uint32_t lane = __builtin_ctz(rest);
        of_lane[lane] = joined;
        of_lane[lane][lane]++;
    }
}

Conflict Races::access(uint32_t thread, uint32_t offset, uint32_t bytes, Access kind) {
    uint32_t end = offset + bytes;
    for (uint32_t at = offset; at < end;) {
        Word &word = words[at / 4];
        uint32_t word_end = std::min(end, (at | 3) + 1);
        bool whole = word_end - at == 4;
        if (!whole && !word.is_split) {
            split(word);
        }
        Cell *cells = word.is_split ? &split_words[word.parts][at % 4] : &word.whole;
        uint32_t cell_count = word.is_split ? word_end - at : 1;
        for (uint32_t i = 0; i < cell_count; i++) {
            Conflict found = conflict(cells[i], thread, kind);
            if (kind == Access::warp_write && found.kind == Conflict::none) {
                found = conflict(cells[i], thread ^ 1, kind);
            }
            if (found.kind != Conflict::none) {
                found.offset = at + i;
                return found;
            }
            record(cells[i], thread, kind);
        }
        if (whole && word.is_split && is_write(kind)) {
            word.whole = cells[0];
            word.is_split = false;
        }
        at = word_end;
    }
    return {};
}

Conflict Races::copy_starts(uint32_t thread, uint32_t offset, uint32_t bytes) {
    Conflict found = access(thread, offset, bytes, Access::write);
    for (uint32_t at = offset; at < offset + bytes; at += 4) {
        words[at / 4].whole.write.copying = true;
    }
    return found;
}

void Races::copy_ends(uint32_t thread, uint32_t offset, uint32_t bytes) {
    for (uint32_t at = offset; at < offset + bytes; at += 4) {
        record(words[at / 4].whole, thread, Access::write);
    }
}

/* Whether `thread` comes after what its warp's thread `earlier` did at that clock. */
bool Races::is_ordered(uint32_t earlier, uint32_t clock, uint32_t thread) const {
    return earlier == thread ||
           (earlier / lanes == thread / lanes && clock <= known[thread][earlier % lanes]);
}

/* One of the accesses' threads that `thread` is not ordered after. */
int32_t Races::conflicting(const Accesses &accesses, uint32_t thread) const {
    if (is_stale(accesses)) {
        return nothing;
    }
    uint32_t first = accesses.warp * lanes;
    if (accesses.warp != thread / lanes) {
        return static_cast<int32_t>(first + __builtin_ctz(accesses.mask));
    }
    if (accesses.other != nothing) {
        return accesses.other;
    }
    for (uint32_t rest = accesses.mask; rest != 0; rest &= rest - 1) {
        uint32_t lane = __builtin_ctz(rest);
        uint32_t clock =
            accesses.clocks == nothing ? accesses.clock : lane_clocks[accesses.clocks][lane];
        if (!is_ordered(first + lane, clock, thread)) {
            return static_cast<int32_t>(first + lane);
        }
    }
    return nothing;
}

Conflict Races::conflict(const Cell &cell, uint32_t thread, Access kind) const {
    if (cell.write.copying && cell.write.epoch >= block_epoch) {
        return {Conflict::with_copy, cell.write.thread};
    }
    /* A warp's write may have been any lane's: for its own thread, the neighbour's. */
    bool own = cell.write.by_warp && cell.write.thread == thread;
    uint32_t writer = own ? thread ^ 1 : cell.write.thread;
    if (cell.write.epoch == epoch && !is_ordered(writer, cell.write.clock, thread)) {
        return {Conflict::with_write, writer};
    }
    if (kind != Access::read) {
        int32_t reader = conflicting(cell.reads, thread);
        if (reader != nothing) {
            return {Conflict::with_read, static_cast<uint32_t>(reader)};
        }
    }
    if (kind != Access::atomic) {
        int32_t other = conflicting(cell.atomics, thread);
        if (other != nothing) {
            return {Conflict::with_atomic, static_cast<uint32_t>(other)};
        }
    }
    return {};
}

void Races::add(Accesses &accesses, uint32_t thread) {
    uint32_t lane = thread % lanes, warp = thread / lanes;
    uint32_t clock = known[thread][lane];
    if (is_stale(accesses) || (accesses.warp == warp && accesses.clock != clock &&
                               conflicting(accesses, thread) == nothing)) {
        accesses = {epoch, clock, 1u << lane, nothing, static_cast<uint16_t>(warp), nothing};
    } else if (accesses.warp != warp) {
        accesses.other = static_cast<int16_t>(thread);
    } else if (accesses.clocks == nothing && accesses.clock == clock) {
        accesses.mask |= 1u << lane;
    } else {
        if (accesses.clocks == nothing) {
            accesses.clocks = static_cast<int32_t>(lane_clocks.size());
            lane_clocks.emplace_back().fill(accesses.clock);
        }
        lane_clocks[accesses.clocks][lane] = clock;
        accesses.mask |= 1u << lane;
    }
}

void Races::record(Cell &cell, uint32_t thread, Access kind) {
    if (kind == Access::read) {
        add(cell.reads, thread);
    } else if (kind == Access::atomic) {
        add(cell.atomics, thread);
    } else {
        uint32_t clock = known[thread][thread % lanes];
        bool by_warp = kind == Access::warp_write;
        cell = {{epoch, clock, static_cast<uint16_t>(thread), false, by_warp}, {}, {}};
    }
}

/* Bytes that part have clocks of their own. */
Races::Accesses Races::copied(Accesses accesses) {
    if (!is_stale(accesses) && accesses.clocks != nothing) {
        Clocks clocks = lane_clocks[accesses.clocks];
        accesses.clocks = static_cast<int32_t>(lane_clocks.size());
        lane_clocks.push_back(clocks);
    }
    return accesses;
}

void Races::split(Word &word) {
    if (word.parts == nothing) {
        word.parts = static_cast<int32_t>(split_words.size());
        split_words.emplace_back();
    }
    const Cell &whole = word.whole;
    for (Cell &part : split_words[word.parts]) {
        part = {whole.write, copied(whole.reads), copied(whole.atomics)};
    }
    word.is_split = true;
}

} // namespace emulator
