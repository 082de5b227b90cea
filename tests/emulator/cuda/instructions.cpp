/* The instructions of one thread that `ops` names. */
#include "emulated.h"
#include "traffic.h"

namespace ops {

int32_t dot4(uint32_t a, uint32_t b, int32_t sum) {
    /* The sum wraps as the instruction's does. */
    auto wrapping = static_cast<uint32_t>(sum);
    for (uint32_t shift = 0; shift < 32; shift += 8) {
        auto left = static_cast<int8_t>(a >> shift), right = static_cast<int8_t>(b >> shift);
        wrapping += static_cast<uint32_t>(left * right);
    }
    return static_cast<int32_t>(wrapping);
}

uint4 load_once(const void *global, Site site) {
    emulator::expect_aligned(global, sizeof(uint4), "load_once", site);
    if (emulator::is_shared(global)) {
        emulator::fault(EMULATED_SHARED, site, "load_once reads shared memory");
    }
    emulator::counts.loaded_bytes += sizeof(uint4);
    if (emulator::watching != nullptr) {
        emulator::watching->touch(global, sizeof(uint4), emulator::Traffic::Way::read_past_cache);
    }
    return *static_cast<const uint4 *>(global);
}

uint16_t f16_of(float x) {
    constexpr uint16_t not_a_number = 0x7fff;
    return x != x ? not_a_number : __builtin_bit_cast(uint16_t, static_cast<_Float16>(x));
}

float of_f16(uint16_t bits) {
    return static_cast<float>(__builtin_bit_cast(_Float16, bits));
}

} // namespace ops
