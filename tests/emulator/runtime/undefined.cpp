/* What kernels of the address build call where they do what C++ leaves undefined. UBSan's own
 * library is not linked: it reports a place once in a process, and cannot stop a thread before
 * a misaligned load brings the process down. These end the launch. */
#include "sanitizers.h"

#if defined(__SANITIZE_ADDRESS__)

#include <cstdlib>
#include <string>

#include "block.h"

namespace {

/* How the compiler's data about most such places begins. */
struct Place {
    const char *file;
    uint32_t line, column;
};

/* Outside launches a find is as deadly as elsewhere. */
void found(const Place *place, const char *what) {
    if (emulator::running == nullptr) {
        std::abort();
    }
    std::string text = std::string("undefined behaviour: ") + what + " (" + place->file + ":" +
                       std::to_string(place->line) + ")";
    emulator::running->note(EMULATED_UNDEFINED, emulator::position.thread.x, text);
    emulator::running->end();
}

} // namespace

#define HANDLER(name, what)                                                         \
    void __ubsan_handle_##name(const Place *place) { found(place, what); }

extern "C" {

HANDLER(type_mismatch_v1, "an address that is null, misaligned or past its object")
HANDLER(pointer_overflow, "an address that overflows")
HANDLER(out_of_bounds, "an index out of bounds")
HANDLER(shift_out_of_bounds, "a shift by too many bits or of a negative number")
HANDLER(add_overflow, "an overflowing sum")
HANDLER(sub_overflow, "an overflowing difference")
HANDLER(mul_overflow, "an overflowing product")
HANDLER(negate_overflow, "an overflowing negation")
HANDLER(divrem_overflow, "a division by zero or one that overflows")
HANDLER(float_cast_overflow, "a float that does not fit its new type")
HANDLER(load_invalid_value, "a value that its type does not have")
HANDLER(vla_bound_not_positive, "an array of no elements")
HANDLER(nonnull_arg, "a null argument")
HANDLER(invalid_builtin, "a builtin of zero")
HANDLER(builtin_unreachable, "a place that is never reached")
HANDLER(missing_return, "a function that returns nothing")
}

#endif
