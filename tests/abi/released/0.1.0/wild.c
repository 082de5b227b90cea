/* Descriptors that nobody would write: whatever stands there, a query answers, and what is at
 * fault is never the library. */
#include "cases.h"

static uint64_t state = 2026;

static uint32_t dice(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

/* A word that passes some check or other: an end of a range, a power of two, anything. */
static uint32_t word(uint32_t was) {
    const uint32_t some[] = {0, 1, 2, 8, 64, 256, 1u << 16, 1u << 20, 1u << 24, 1u << 30, 0x7fffffff, 0x80000000, 0xffffffff};
    switch (dice(4)) {
    case 0: return some[dice(sizeof some / sizeof *some)];
    case 1: return was ^ (1u << dice(32));
    case 2: return dice(1000);
    default: return was;
    }
}

int main(void) {
    prepare();
    pw_device *device = NULL;
    CLAIM(pw_device_open("cpu", 3, NULL, &device, &error) == PW_OK);
    for (const struct kernel *kernel = kernels; kernel < kernels + KERNELS; kernel++) {
        struct made call = {.kernel = kernel, .desc = copy(kernel->desc, kernel->desc_bytes)};
        unsigned served = 0;
        for (int turn = 0; turn < 30000; turn++) {
            memcpy(call.desc, kernel->desc, kernel->desc_bytes);
            uint32_t *words = call.desc;
            const size_t changed = 1 + dice(turn % 2 ? 4 : 24);
            for (size_t i = 0; i < changed; i++) {
                const size_t at = 1 + dice((uint32_t)(kernel->desc_bytes / 4 - 1));
                words[at] = word(words[at]);
            }
            call.needs.struct_size = sizeof call.needs;
            const pw_status status = query(device, &call);
            served += status == PW_OK;
            CLAIM(status == PW_OK || status == PW_E_ARGUMENT || status == PW_E_UNSUPPORTED);
            CLAIM(status == PW_OK || (error.field[0] && error.message[0]));
        }
        CLAIM(served > 100 && served < 30000);
        free(call.desc);
    }
    pw_device_destroy(device);
    return 0;
}
