/* The emulator as Rust calls it: kernels run on a CPU, thread by thread, in an order that a
 * seed picks. A fault of a kernel comes back as a code and a text; nothing is thrown. State
 * belongs to the calling thread, so launches from several threads may run at once.
 */
#ifndef PAGEWISE_EMULATOR_H
#define PAGEWISE_EMULATOR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What ends a launch. */
#define EMULATED_OK 0
#define EMULATED_ENTRY (-1)      /* No entry has this name. */
#define EMULATED_ARGUMENTS (-2)  /* argument_bytes is not the size of the entry's argument. */
#define EMULATED_SHAPE (-3)      /* No blocks, no threads, or more than the launch bounds. */
#define EMULATED_BARRIER (-4)    /* A block's threads came to different barriers, or to none. */
#define EMULATED_COLLECTIVE (-5) /* The same of a warp's lanes and an operation of the warp. */
#define EMULATED_DEADLOCK (-6)   /* Threads spin on atomics and none gets anywhere. */
#define EMULATED_RACE (-7)       /* Unordered accesses to shared memory: race build only. */
#define EMULATED_COPY (-8)       /* A copy's bytes touched before its wait: race build only. */
#define EMULATED_ALIGNMENT (-9)  /* An instruction's address is not aligned. */
#define EMULATED_SHARED (-10)    /* An instruction's address is outside shared memory, or a
                                    block wrote past its end (not in the address build). */
#define EMULATED_MEMORY (-11)    /* AddressSanitizer's find: address build only. */
#define EMULATED_UNDEFINED (-12) /* UBSan's find: address build only. */
#define EMULATED_FAILED (-13)    /* The emulator's own failure: it has no memory left. */

struct emulated_launch {
    const char *entry;
    uint32_t grid[3];
    uint32_t block; /* Threads of a block. */
    uint32_t shared_bytes;
    uint64_t seed; /* Orders blocks and threads; 0: as they are numbered. */
    const void *arguments;
    uint64_t argument_bytes;
};

/* Runs a launch to its end or its first fault. The message (ended by a zero, cut to
 * message_bytes) names entry, block, thread and source. */
int32_t emulated_run(const struct emulated_launch *launch, char *message,
                     uint64_t message_bytes);

/* The name and the launch bounds of entry `index`. EMULATED_ENTRY past the last. */
int32_t emulated_entry(uint32_t index, const char **name, uint32_t *threads);

/* What the calling thread's launches did since the last reset. Plain loads and stores are
 * not counted. */
struct emulated_counts {
    uint64_t copied_bytes; /* Read by valid copies to shared memory. */
    uint64_t loaded_bytes; /* Read by load_once. */
    uint64_t mma_count;    /* Matrix products of a warp. */
    uint64_t matrix_count; /* Matrix loads of a warp. */
    uint64_t switch_count; /* Of one emulated thread to another. */
};

void emulated_counted(struct emulated_counts *counts);
void emulated_count_from_zero(void);

/* A piece of global memory, and what launches moved of it. In the race build all loads and
 * stores count; in others copies to shared memory, load_once and matrices of Metal alone. */
struct emulated_piece {
    uint64_t address, bytes;
    uint64_t read_bytes;         /* By blocks: each has a small cache of its own. */
    uint64_t written_bytes;
    uint64_t read_once_bytes;    /* However many blocks of a launch read them. */
    uint64_t written_once_bytes;
};

/* The calling thread's next launch adds to these pieces, in order of their addresses, until
 * others are watched, or none. They stay the caller's. */
void emulated_watch(struct emulated_piece *pieces, uint64_t count);

/* How the calling thread's tensor cores add from here on. */
#define EMULATED_ADDS_ROUNDING 0u   /* Ascending, each sum rounded to the nearest. */
#define EMULATED_ADDS_TRUNCATING 1u /* Aligned to the largest addend, the rest cut off. */
void emulated_tensor_core(uint32_t adds);

/* Which build this is. */
#define EMULATED_BUILD_PLAIN 0u
#define EMULATED_BUILD_ADDRESS 1u
#define EMULATED_BUILD_RACES 2u
uint32_t emulated_build(void);

#ifdef __cplusplus
}
#endif

#endif /* PAGEWISE_EMULATOR_H */
