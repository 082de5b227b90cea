#include "faults.h"

#include <cstdarg>
#include <cstdio>

#include "block.h"

namespace emulator {

namespace {

std::string formatted(const char *format, va_list arguments) {
    char text[512];
    std::vsnprintf(text, sizeof text, format, arguments);
    return text;
}

const char *participle(Conflict::Kind kind) {
    switch (kind) {
    case Conflict::with_read:
        return "has read";
    case Conflict::with_write:
        return "has written";
    case Conflict::with_atomic:
        return "has changed atomically";
    default:
        return "copies to and has not waited for";
    }
}

} // namespace

const char *verb(Access kind) {
    switch (kind) {
    case Access::read:
        return "reads";
    case Access::write:
    case Access::warp_write:
        return "writes";
    default:
        return "changes atomically";
    }
}

std::string location(const Site &site) {
    return std::string(site.file_name()) + ":" + std::to_string(site.line());
}

void fault(int32_t code, const Site &site, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string text = formatted(format, arguments);
    va_end(arguments);
    running->note(code, position.thread.x, text + " (" + location(site) + ")");
    running->end();
}

void fault_of(uint32_t thread, int32_t code, const Site &site, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::string text = formatted(format, arguments);
    va_end(arguments);
    running->note(code, thread, text + " (" + location(site) + ")");
    running->end();
}

void end_at_conflict(const Conflict &conflict, uint32_t thread, const char *does,
                     const std::string &where) {
    bool copy = conflict.kind == Conflict::with_copy;
    char text[256];
    std::snprintf(text, sizeof text, "%s shared memory at byte %u, which thread %u %s%s", does,
                  conflict.offset, conflict.thread, participle(conflict.kind),
                  copy ? "" : ", with no barrier between");
    running->note(copy ? EMULATED_COPY : EMULATED_RACE, thread,
                  std::string(text) + " (" + where + ")");
    running->end();
}

} // namespace emulator
