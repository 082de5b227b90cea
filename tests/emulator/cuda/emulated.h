/* The other half of device_ops.h: entries, shared memory and every function of `ops`, acted
 * out on a CPU. */
#pragma once

#include "builtins.h"

#define SHARED() (emulator::shared_memory)

/* `blocks` asks the compiler to spare registers; there is nothing to spare here. */
#define ENTRY(name, threads, blocks, type, ...)                                     \
    static const emulator::Entry name##_entry(                                      \
        #name, threads, sizeof(type), [](const void *argument) {                    \
            const type &arguments = *static_cast<const type *>(argument);           \
            __VA_ARGS__(arguments);                                                 \
        });

namespace ops {

using Site = emulator::Site;

inline uint32_t shared_address(const void *shared, Site site = Site::current()) {
    return emulator::shared_offset(shared, 1, "shared_address", site);
}

inline void copy_async_16(void *shared, const void *global, bool valid,
                          Site site = Site::current()) {
    emulator::copy_starts(shared, global, 16, valid, site);
}

inline void copy_async_8(void *shared, const void *global, bool valid,
                         Site site = Site::current()) {
    emulator::copy_starts(shared, global, 8, valid, site);
}

inline void copy_async_4(void *shared, const void *global, bool valid,
                         Site site = Site::current()) {
    emulator::copy_starts(shared, global, 4, valid, site);
}

inline void copy_async_commit() { emulator::copies_commit(); }

template <int groups>
void copy_async_wait() {
    emulator::copies_wait(groups);
}

void load_matrix_4(uint32_t (&words)[4], const void *row, Site site = Site::current());
void load_matrix_4_transposed(uint32_t (&words)[4], const void *row,
                              Site site = Site::current());

/* Products of 16-bit numbers are exact in f32 or nearly so; they are added to d one by one,
 * fused, from column 0 of a to column 15. The hardware has another order. */
void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
              Site site = Site::current());
void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
             Site site = Site::current());
void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
            Site site = Site::current());
void mma_s8_u8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
               Site site = Site::current());

int32_t dot4(uint32_t a, uint32_t b, int32_t sum);
uint4 load_once(const void *global, Site site = Site::current());
uint16_t f16_of(float x);
float of_f16(uint16_t bits);

} // namespace ops
