#include "sanitizers.h"

#if defined(__SANITIZE_ADDRESS__)

#include <cstdlib>
#include <cstring>
#include <string>

#include "block.h"

/* A find must not end the process, and the same line of a kernel must be found again under
 * another seed. AddressSanitizer calls this by its name. */
extern "C" const char *__asan_default_options() {
    return "halt_on_error=0:suppress_equal_pcs=0:detect_leaks=0:"
           "detect_stack_use_after_return=0";
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
