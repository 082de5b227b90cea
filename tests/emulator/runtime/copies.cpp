#include "copies.h"

#include <cstring>

#include "block.h"
#include "faults.h"
#include "machine.h"
#include "traffic.h"

namespace emulator {

void copy_starts(void *shared, const void *global, uint32_t bytes, bool valid,
                 const Site &site) {
    uint32_t offset = shared_offset(shared, bytes, "copy_async", site);
    expect_aligned(global, bytes, "the source of copy_async", site);
    Copy copy{static_cast<unsigned char *>(shared), offset, bytes, 0, {}};
    if (valid) {
        if (is_shared(global)) {
            fault(EMULATED_SHARED, site, "the source of copy_async is shared memory");
        }
        std::memcpy(copy.data, global, bytes);
        counts.copied_bytes += bytes;
        if (watching != nullptr) {
            watching->touch(global, bytes, Traffic::Way::read_past_cache);
        }
    }
    if constexpr (races_sought) {
        uint32_t thread = position.thread.x;
        Conflict conflict = running->races.copy_starts(thread, offset, bytes);
        if (conflict.kind != Conflict::none) {
            end_at_conflict(conflict, thread, "copies to", location(site));
        }
    }
    Copies &copies = running->current().copies;
    copy.group = copies.group;
    copies.started.push_back(copy);
}

void copies_commit() { running->current().copies.group++; }

void copies_wait(uint32_t groups) {
    Copies &copies = running->current().copies;
    for (; copies.arrived < copies.started.size(); copies.arrived++) {
        const Copy &copy = copies.started[copies.arrived];
        if (copy.group + groups >= copies.group) {
            return;
        }
        std::memcpy(copy.to, copy.data, copy.bytes);
        if constexpr (races_sought) {
            running->races.copy_ends(position.thread.x, copy.offset, copy.bytes);
        }
    }
    copies.started.clear();
    copies.arrived = 0;
}

} // namespace emulator
