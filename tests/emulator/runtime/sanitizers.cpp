#include "sanitizers.h"

#if defined(__SANITIZE_ADDRESS__)

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "block.h"

/* A find must not end the process, and the same line of a kernel must be found again under
 * another seed. The sanitizers call these by their names. */
extern "C" const char *__asan_default_options() {
    return "halt_on_error=0:suppress_equal_pcs=0:detect_leaks=0:"
           "detect_stack_use_after_return=0";
}

extern "C" const char *__ubsan_default_options() { return "halt_on_error=0"; }

extern "C" void __ubsan_get_current_report_data(const char **kind, const char **message,
                                                const char **file, unsigned *line,
                                                unsigned *column, char **memory);

/* UBSan holds its lock here: the fault is noted, and the thread goes on to its next barrier. */
extern "C" void __ubsan_on_report() {
    const char *kind, *message, *file;
    unsigned line, column;
    char *memory;
    __ubsan_get_current_report_data(&kind, &message, &file, &line, &column, &memory);
    if (emulator::running != nullptr) {
        std::string text = std::string(message) + " (" + file + ":" + std::to_string(line) + ")";
        emulator::running->note(EMULATED_UNDEFINED, emulator::position.thread.x, text);
    }
}

namespace emulator::sanitizers {

namespace {

/* The report's line after `mark`. */
std::string line_after(const char *report, const char *mark) {
    const char *start = std::strstr(report, mark);
    if (start == nullptr) {
        return {};
    }
    start += std::strlen(mark);
    return std::string(start, std::strcspn(start, "\n"));
}

/* Outside launches a find is as deadly as elsewhere. */
void found(const char *report) {
    if (running == nullptr) {
        std::abort();
    }
    running->note(EMULATED_MEMORY, position.thread.x,
                  line_after(report, "SUMMARY: AddressSanitizer: "));
}

} // namespace

void listen() { __asan_set_error_report_callback(found); }

} // namespace emulator::sanitizers

#endif
