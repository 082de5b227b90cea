/* What every Metal kernel of the project begins with: Metal's library and a thread's place
 * (msl_ops.h), arithmetic (kernel_math.h), elements of any type as f32, live counts, and
 * faults of what a step brings.
 *
 * A kernel's one argument is a struct of its pwk_ block, a `device` pointer for each buffer as
 * its command! declares them (null where it is absent), and `launch_of_call`. The host
 * writes addresses there (Metal 3).
 */
#ifndef PAGEWISE_METAL_KERNEL_H
#define PAGEWISE_METAL_KERNEL_H

#include "msl_ops.h"

#include <pagewise/kernel_math.h>

/* pwk_launch, with its addresses as pointers. */
struct launch_of_call {
    device uchar *workspace;
    device pwk_fault *fault;
    uint32_t command;
    uint32_t tile;
    uint32_t part;
    uint32_t reserved;
};
static_assert(sizeof(launch_of_call) == sizeof(pwk_launch), "the host writes a pwk_launch");

/* An element of a float type that is known when it runs. */
PWK_FN float load_float(uint32_t dtype, device const uchar *from, uint64_t at) {
    if (dtype == PWK_DTYPE_F32) {
        return reinterpret_cast<device const float *>(from)[at];
    }
    const ushort bits = reinterpret_cast<device const ushort *>(from)[at];
    return dtype == PWK_DTYPE_F16 ? float(as_type<half>(bits)) : pwk_of_bf16(bits);
}

/* Stores the number nearest to x. */
PWK_FN void store_float(uint32_t dtype, device uchar *to, uint64_t at, float x) {
    if (dtype == PWK_DTYPE_F32) {
        reinterpret_cast<device float *>(to)[at] = x;
    } else {
        const ushort bits = dtype == PWK_DTYPE_F16 ? as_type<ushort>(half(x))
                                                   : static_cast<ushort>(pwk_bf16_of(x));
        reinterpret_cast<device ushort *>(to)[at] = bits;
    }
}

/* x as it is once it is stored and loaded. */
PWK_FN float rounded(uint32_t dtype, float x) {
    if (dtype == PWK_DTYPE_F32) {
        return x;
    }
    return dtype == PWK_DTYPE_F16 ? float(half(x)) : pwk_of_bf16(pwk_bf16_of(x));
}

/* ---- faults ---- */

PWK_FN device atomic_uint *claim_of(constant launch_of_call &launch) {
    return reinterpret_cast<device atomic_uint *>(&launch.fault->claimed);
}

/* Whether an earlier command, or this one, has found a fault: then nothing is done. */
PWK_FN bool is_refused(constant launch_of_call &launch) {
    return atomic_load_explicit(claim_of(launch), memory_order_relaxed) != 0;
}

/* Tells a fault; the first one stays. */
PWK_FN void refuse(constant launch_of_call &launch, uint32_t kind, uint32_t field, uint64_t at,
                   int64_t least, int64_t most, int64_t got) {
    if (atomic_exchange_explicit(claim_of(launch), 1u, memory_order_relaxed) != 0) {
        return;
    }
    device pwk_fault *fault = launch.fault;
    fault->at = at;
    fault->least = least;
    fault->most = most;
    fault->got = got;
    fault->command = launch.command;
    fault->field = field;
    fault->kind = kind;
}

/* Rows or sequences in use: what `count` says, or all; 0 where a command before has refused,
 * or where this does, for the count is above its capacity. The same in every thread. */
PWK_FN uint32_t live(constant launch_of_call &launch, Place place, uint32_t field,
                     device const uint32_t *count, uint32_t capacity) {
    const uint32_t used = count == nullptr ? capacity : *count;
    if (used > capacity) {
        if (place.thread_index == 0) {
            refuse(launch, PWK_FAULT_ELEMENT, field, 0, 0, capacity, used);
        }
        return 0;
    }
    return is_refused(launch) ? 0 : used;
}

#endif /* PAGEWISE_METAL_KERNEL_H */
