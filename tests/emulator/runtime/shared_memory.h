/* A block's shared memory: the dynamic piece, and the `__shared__` variables of all kernels,
 * which the linker gathers in one section. In the address build the dynamic piece is exactly as
 * large as the launch says, so that AddressSanitizer sees the first byte past it. In the others
 * a margin follows, to show at a block's end whether it was written to. */
#pragma once

#include <cstdint>
#include <cstring>

namespace emulator {

class SharedMemory {
  public:
    explicit SharedMemory(uint32_t dynamic_bytes);
    SharedMemory(const SharedMemory &) = delete;
    ~SharedMemory();

    /* Bytes of which float, half and bfloat all make a NaN: what a block finds. */
    void poison();

    /* Whether a block has written to the margin. */
    bool is_overrun() const;

    /* Bytes up to the last that has an offset. Variables follow the dynamic piece. */
    uint32_t bytes() const { return variables_offset() + variable_bytes; }

    static constexpr uint32_t outside = UINT32_MAX;

    /* Offset of so many bytes, or `outside` if they do not all lie in one of the pieces. */
    uint32_t offset(const void *address, uint32_t bytes) const {
        uint64_t at = static_cast<const unsigned char *>(address) - dynamic;
        if (at < dynamic_bytes) {
            return at + bytes <= dynamic_bytes ? static_cast<uint32_t>(at) : outside;
        }
        at = static_cast<const unsigned char *>(address) - variables;
        if (at < variable_bytes && at + bytes <= variable_bytes) {
            return variables_offset() + static_cast<uint32_t>(at);
        }
        return outside;
    }

    static bool has_variables();

    unsigned char *dynamic = nullptr;

  private:
    /* Offsets are aligned as addresses are, which the variables' start need not be. */
    uint32_t variables_offset() const {
        return ((dynamic_bytes + 15) & ~15u) + reinterpret_cast<uintptr_t>(variables) % 16;
    }

    uint32_t dynamic_bytes;
    unsigned char *variables;
    uint32_t variable_bytes;
};

} // namespace emulator
