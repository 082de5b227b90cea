/* The C interface: the list of entries, and launches of them. */
#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <vector>

#include "block.h"
#include "sanitizers.h"

namespace emulator {

namespace {

/* Entries of all files, before any other initialisation: those of files come in any order. */
constinit const Entry *first_entry = nullptr;

/* `__shared__` variables are there once, so launches take turns where kernels have any. */
std::mutex variables_mutex;

const Entry *find(const char *name) {
    for (const Entry *entry = first_entry; entry != nullptr; entry = entry->next) {
        if (std::strcmp(entry->name, name) == 0) {
            return entry;
        }
    }
    return nullptr;
}

struct Outcome {
    int32_t code;
    std::string text;
};

Outcome check(const Entry *entry, const emulated_launch &launch) {
    std::string name = std::string("entry ") + launch.entry;
    if (entry == nullptr) {
        return {EMULATED_ENTRY, name + ": there is none of this name"};
    }
    if (launch.argument_bytes != entry->argument_bytes) {
        return {EMULATED_ARGUMENTS, name + ": its argument has " +
                                        std::to_string(entry->argument_bytes) + " bytes, not " +
                                        std::to_string(launch.argument_bytes)};
    }
    uint64_t blocks = uint64_t{launch.grid[0]} * launch.grid[1];
    bool fits = blocks <= INT32_MAX && blocks * launch.grid[2] <= INT32_MAX;
    if (!fits || blocks * launch.grid[2] == 0) {
        return {EMULATED_SHAPE, name + ": it needs between one block and 2^31 - 1"};
    }
    if (launch.block == 0 || launch.block > entry->threads) {
        return {EMULATED_SHAPE, name + ": its blocks have 1 to " +
                                    std::to_string(entry->threads) + " threads, not " +
                                    std::to_string(launch.block)};
    }
    return {EMULATED_OK, {}};
}

Outcome run(const emulated_launch &launch) {
    static thread_local Stacks stacks;
    const Entry *entry = find(launch.entry);
    Outcome outcome = check(entry, launch);
    if (outcome.code != EMULATED_OK) {
        return outcome;
    }
    sanitizers::listen();
    std::unique_lock<std::mutex> turn(variables_mutex, std::defer_lock);
    if (SharedMemory::has_variables()) {
        turn.lock();
    }
    /* A copy of exactly their size: the caller's is not changed nor read past its end. */
    auto *first = static_cast<const unsigned char *>(launch.arguments);
    std::vector<unsigned char> arguments(first, first + launch.argument_bytes);
    Block block(*entry, launch, arguments.data(), stacks);
    running = &block;
    block.run_all();
    running = nullptr;
    return {block.code, block.text};
}

} // namespace

Entry::Entry(const char *name, uint32_t threads, uint64_t argument_bytes,
             void (*body)(const void *))
    : name(name), threads(threads), argument_bytes(argument_bytes), body(body),
      next(first_entry) {
    first_entry = this;
}

} // namespace emulator

extern "C" {

int32_t emulated_run(const emulated_launch *launch, char *message, uint64_t message_bytes) {
    try {
        emulator::Outcome outcome = emulator::run(*launch);
        std::snprintf(message, message_bytes, "%s", outcome.text.c_str());
        return outcome.code;
    } catch (const std::exception &exception) {
        emulator::running = nullptr;
        std::snprintf(message, message_bytes, "the emulator failed: %s", exception.what());
        return EMULATED_FAILED;
    }
}

int32_t emulated_entry(uint32_t index, const char **name, uint32_t *threads) {
    const emulator::Entry *entry = emulator::first_entry;
    for (; entry != nullptr && index > 0; index--) {
        entry = entry->next;
    }
    if (entry == nullptr) {
        return EMULATED_ENTRY;
    }
    *name = entry->name;
    *threads = entry->threads;
    return EMULATED_OK;
}

void emulated_counted(emulated_counts *counts) { *counts = emulator::counts; }

void emulated_count_from_zero(void) { emulator::counts = {}; }

uint32_t emulated_build(void) {
    if (emulator::sanitizers::address) {
        return EMULATED_BUILD_ADDRESS;
    }
    return emulator::races_sought ? EMULATED_BUILD_RACES : EMULATED_BUILD_PLAIN;
}
}
