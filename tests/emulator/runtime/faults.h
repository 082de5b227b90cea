/* How faults are put into words. */
#pragma once

#include <cstdint>
#include <string>

#include "machine.h"
#include "races.h"

namespace emulator {

/* file:line. */
std::string location(const Site &site);

const char *verb(Access kind);

/* Ends the launch: a thread's access, or what it does to shared memory, meets another's. */
[[noreturn]] void end_at_conflict(const Conflict &conflict, uint32_t thread, const char *does,
                                  const std::string &where);

} // namespace emulator
