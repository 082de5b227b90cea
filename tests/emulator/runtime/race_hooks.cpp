/* What kernels compiled with -fsanitize=thread call at each load and store. The sanitizer's
 * own library is not linked: these look at shared memory, and count traffic with the rest. This file, and all of the
 * emulator that is not a kernel, is compiled without that flag. */
#if defined(PAGEWISE_RACES)

#include <dlfcn.h>

#include <cstdio>
#include <string>

#include "block.h"
#include "faults.h"
#include "traffic.h"

namespace {

using emulator::Access;

/* For addr2line: calls have no source line to give. */
std::string code_location(const void *code) {
    Dl_info info{};
    if (dladdr(code, &info) == 0) {
        return "unknown code";
    }
    auto offset = static_cast<const char *>(code) - static_cast<const char *>(info.dli_fbase);
    char text[512];
    std::snprintf(text, sizeof text, "%s+0x%tx", info.dli_fname, offset);
    return text;
}

__attribute__((noinline)) void look(uint32_t offset, uint32_t bytes, Access kind,
                                    const void *code) {
    uint32_t thread = emulator::position.thread.x;
    emulator::Conflict conflict =
        emulator::running->races.access(thread, offset, bytes, kind);
    if (conflict.kind != emulator::Conflict::none) {
        end_at_conflict(conflict, thread, verb(kind), code_location(code));
    }
}

inline void accessed(const void *address, uint32_t bytes, Access kind, const void *code) {
    if (emulator::running == nullptr) {
        return;
    }
    uint32_t offset = emulator::running->shared.offset(address, bytes);
    if (offset != emulator::SharedMemory::outside) {
        look(offset, bytes, kind, code);
    } else if (emulator::watching != nullptr) {
        using Way = emulator::Traffic::Way;
        emulator::watching->touch(address, bytes, kind == Access::read ? Way::read : Way::write);
    }
}

} // namespace

#define HOOK(name, bytes, kind)                                                     \
    void name(const void *address) {                                                \
        accessed(address, bytes, Access::kind, __builtin_return_address(0));        \
    }

extern "C" {

HOOK(__tsan_read1, 1, read)
HOOK(__tsan_read2, 2, read)
HOOK(__tsan_read4, 4, read)
HOOK(__tsan_read8, 8, read)
HOOK(__tsan_read16, 16, read)
HOOK(__tsan_unaligned_read2, 2, read)
HOOK(__tsan_unaligned_read4, 4, read)
HOOK(__tsan_unaligned_read8, 8, read)
HOOK(__tsan_unaligned_read16, 16, read)
HOOK(__tsan_write1, 1, write)
HOOK(__tsan_write2, 2, write)
HOOK(__tsan_write4, 4, write)
HOOK(__tsan_write8, 8, write)
HOOK(__tsan_write16, 16, write)
HOOK(__tsan_unaligned_write2, 2, write)
HOOK(__tsan_unaligned_write4, 4, write)
HOOK(__tsan_unaligned_write8, 8, write)
HOOK(__tsan_unaligned_write16, 16, write)

void __tsan_read_range(const void *address, unsigned long bytes) {
    accessed(address, static_cast<uint32_t>(bytes), Access::read,
             __builtin_return_address(0));
}

void __tsan_write_range(const void *address, unsigned long bytes) {
    accessed(address, static_cast<uint32_t>(bytes), Access::write,
             __builtin_return_address(0));
}

void __tsan_init() {}
void __tsan_func_entry(const void *) {}
void __tsan_func_exit() {}
}

#endif
