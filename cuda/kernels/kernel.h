/* What every CUDA kernel of the project begins with: the machine (device_ops.h), arithmetic
 * (kernel_math.h), elements of any type as f32, live counts, and faults of what a step
 * brings.
 *
 * A kernel's one argument is a struct of its pwk_ block, a pointer for each buffer as its
 * command! declares them (null where it is absent), and `pwk_launch`.
 */
#ifndef PAGEWISE_KERNEL_H
#define PAGEWISE_KERNEL_H

#include "device_ops.h"

#include <pagewise/kernel_math.h>

/* An element of a float type that is known when it runs. */
PWK_FN float load_float(uint32_t dtype, const void *from, uint64_t at) {
    if (dtype == PWK_DTYPE_F32) {
        return static_cast<const float *>(from)[at];
    }
    const uint16_t bits = static_cast<const uint16_t *>(from)[at];
    return dtype == PWK_DTYPE_F16 ? ops::of_f16(bits) : pwk_of_bf16(bits);
}

/* Stores the number nearest to x. */
PWK_FN void store_float(uint32_t dtype, void *to, uint64_t at, float x) {
    if (dtype == PWK_DTYPE_F32) {
        static_cast<float *>(to)[at] = x;
    } else {
        const uint32_t bits = dtype == PWK_DTYPE_F16 ? ops::f16_of(x) : pwk_bf16_of(x);
        static_cast<uint16_t *>(to)[at] = static_cast<uint16_t>(bits);
    }
}

/* x as it is once it is stored and loaded. */
PWK_FN float rounded(uint32_t dtype, float x) {
    if (dtype == PWK_DTYPE_F32) {
        return x;
    }
    return dtype == PWK_DTYPE_F16 ? ops::of_f16(ops::f16_of(x)) : pwk_of_bf16(pwk_bf16_of(x));
}

/* ---- faults ---- */

PWK_FN pwk_fault *fault_of(const pwk_launch &launch) {
    return reinterpret_cast<pwk_fault *>(launch.fault);
}

/* Whether an earlier command, or this one, has found a fault: then nothing is done. */
PWK_FN bool is_refused(const pwk_launch &launch) {
    return *const_cast<volatile uint32_t *>(&fault_of(launch)->claimed) != 0;
}

/* Tells a fault; the first one stays. */
PWK_FN void refuse(const pwk_launch &launch, uint32_t kind, uint32_t field, uint64_t at,
                   int64_t least, int64_t most, int64_t got) {
    pwk_fault *fault = fault_of(launch);
    if (atomicCAS(&fault->claimed, 0u, 1u) != 0) {
        return;
    }
    fault->at = at;
    fault->least = least;
    fault->most = most;
    fault->got = got;
    fault->command = launch.command;
    fault->field = field;
    fault->kind = kind;
}

/* Rows or sequences in use: what `count` says, or all; 0 where a command before has refused,
 * or where this does, for the count is above its capacity. The same in every thread, unless
 * another block of the same launch may refuse meanwhile: then live_in_block of
 * step_elements.h asks once for all. */
PWK_FN uint32_t live(const pwk_launch &launch, uint32_t field, const uint32_t *count,
                     uint32_t capacity) {
    const uint32_t used = count == nullptr ? capacity : *count;
    if (used > capacity) {
        if (threadIdx.x == 0) {
            refuse(launch, PWK_FAULT_ELEMENT, field, 0, 0, capacity, used);
        }
        return 0;
    }
    return is_refused(launch) ? 0 : used;
}

#endif /* PAGEWISE_KERNEL_H */
