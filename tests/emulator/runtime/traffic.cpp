#include "traffic.h"

#include <unordered_map>

#include "machine.h"

namespace emulator {

constinit thread_local Traffic *watching = nullptr;

namespace {

/* What memory moves at least. */
constexpr uint64_t SECTOR = 32;

/* Here a thread runs far ahead of its warp between barriers: what a warp reads at once comes
 * apart, and this brings it together again. A row of logits is still more than it. */
constexpr uint64_t CACHE_BYTES = 128 << 10;

/* Of a warp and an address past the cache: lanes that one instruction has served so far. */
thread_local std::unordered_map<uint64_t, uint32_t> served;

/* Whether memory must be asked: lanes of a warp that load the same at once are one request,
 * and a lane that comes again is another. */
bool is_asked(uint64_t address) {
    uint32_t &lanes = served[address * 32 + position.thread.x / warp_size];
    uint32_t own = 1u << lane();
    bool asked = lanes == 0 || (lanes & own) != 0;
    lanes = asked ? own : lanes | own;
    return asked;
}

} // namespace

Traffic::Traffic(emulated_piece *pieces, uint64_t count) : pieces(pieces), count(count) {
    for (uint64_t i = 0; i < count; i++) {
        sectors.emplace_back((pieces[i].bytes + SECTOR - 1) / SECTOR);
    }
}

void Traffic::block_starts() {
    time++;
    cached_bytes = 0;
    served.clear();
}

/* The last sector of a piece may be short. */
uint64_t Traffic::sector_bytes(const emulated_piece &piece, uint64_t sector) const {
    uint64_t rest = piece.bytes - sector * SECTOR;
    return rest < SECTOR ? rest : SECTOR;
}

void Traffic::touch(const void *pointer, uint32_t bytes, Way way) {
    auto address = reinterpret_cast<uint64_t>(pointer);
    auto inside = [&](uint64_t at) {
        return address >= pieces[at].address && address - pieces[at].address < pieces[at].bytes;
    };
    if (count == 0) {
        return;
    }
    if (!inside(last)) {
        uint64_t low = 0, high = count;
        while (high - low > 1) {
            uint64_t middle = low + (high - low) / 2;
            (pieces[middle].address <= address ? low : high) = middle;
        }
        if (!inside(low)) {
            return;
        }
        last = low;
    }
    emulated_piece &piece = pieces[last];
    uint64_t offset = address - piece.address;
    if (way == Way::read_past_cache && is_asked(address)) {
        piece.read_bytes += bytes;
    }
    for (uint64_t at = offset / SECTOR; at <= (offset + bytes - 1) / SECTOR; at++) {
        if (at >= sectors[last].size()) {
            return;
        }
        Sector &sector = sectors[last][at];
        uint64_t whole = sector_bytes(piece, at);
        bool writes = way == Way::write;
        uint32_t &touched = writes ? sector.written : sector.read;
        if (way != Way::read_past_cache && touched != time) {
            (writes ? piece.written_bytes : piece.read_bytes) += whole;
            touched = time;
            cached_bytes += SECTOR;
            if (cached_bytes > CACHE_BYTES) {
                time++;
                cached_bytes = 0;
            }
        }
        bool &was = writes ? sector.was_written : sector.was_read;
        if (!was) {
            (writes ? piece.written_once_bytes : piece.read_once_bytes) += whole;
            was = true;
        }
    }
}

} // namespace emulator

extern "C" void emulated_watch(emulated_piece *pieces, uint64_t count) {
    delete emulator::watching;
    emulator::watching = count == 0 ? nullptr : new emulator::Traffic(pieces, count);
}
