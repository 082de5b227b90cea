/* lora: out += scale (x A') B' row by row, by the very order of the contract, so with the
 * CPU's bits.
 *
 * Tiling: a first threadgroup goes over the adapters. Down: a threadgroup of eight SIMD groups
 * takes one row (or eight, where many may come) and 32 ranks, two panels of A; SIMD groups
 * take segments of 512 inputs side by side, lane l rank l, 64 inputs of the rows staged at a
 * time, and the sums fold ascending in threadgroup memory. Up: a threadgroup takes as many
 * rows and 256 outputs, a thread one output. Neighbouring rows of one adapter share each load
 * of its weights. Memory: 24 KiB of a threadgroup down, 8 KiB up; h in the workspace.
 * Emulated; not yet run on Apple hardware. Not measured yet.
 */
#include "kernel.h"

struct lora_arguments {
    pwk_lora p;
    device const uchar *x;
    device const uchar *a;
    device const uchar *b;
    device const uint32_t *ranks;
    device const float *scales;
    device const float *magnitudes;
    device const uint32_t *adapters;
    device const uint32_t *rows;
    device float *out;
    launch_of_call launch; /* tile: rows of a threadgroup */
};

/* Places among the buffers. */
constant constexpr uint32_t LORA_RANKS = 3;
constant constexpr uint32_t LORA_SCALES = 4;
constant constexpr uint32_t LORA_ADAPTERS = 6;
constant constexpr uint32_t LORA_ROWS = 7;

constant constexpr uint32_t THREADS = 256;
constant constexpr uint32_t SIMDGROUPS = THREADS / 32;
constant constexpr uint32_t ROWS = 8;       /* of a threadgroup at most */
constant constexpr uint32_t STAGED = 64;    /* inputs of a row in threadgroup memory */
constant constexpr uint32_t RANK_MAX = 256; /* the largest rank */

static uint32_t lora_rows(constant lora_arguments &a, Place place) {
    return live(a.launch, place, LORA_ROWS, a.rows, a.p.rows_max);
}

/* ---- what a step says ---- */

static bool is_good(constant lora_arguments &a, uint32_t slot) {
    if (slot == PWK_LORA_NONE) {
        return true;
    }
    if (slot >= a.p.slots || a.ranks[slot] == 0 || a.ranks[slot] > a.p.rank_max) {
        return false;
    }
    return (PWK_BITS(a.scales[slot]) & 0x7f800000u) != 0x7f800000u;
}

/* Tells what is wrong with a row's slot. */
static void refuse_row(constant lora_arguments &a, uint32_t row) {
    const uint32_t slot = a.adapters[row];
    if (slot >= a.p.slots) {
        refuse(a.launch, PWK_FAULT_ELEMENT, LORA_ADAPTERS, row, 0, int64_t(a.p.slots) - 1, slot);
    } else if (a.ranks[slot] == 0 || a.ranks[slot] > a.p.rank_max) {
        refuse(a.launch, PWK_FAULT_ELEMENT, LORA_RANKS, slot, 1, a.p.rank_max, a.ranks[slot]);
    } else {
        refuse(a.launch, PWK_FAULT_NOT_FINITE, LORA_SCALES, slot, 0, 0, 0);
    }
}

/* One threadgroup: the first row that names a bad slot is told. */
static void check_body(constant lora_arguments &a, Place place) {
    threadgroup uint32_t *firsts = reinterpret_cast<threadgroup uint32_t *>(SHARED());
    const uint32_t rows = lora_rows(a, place);
    uint32_t first = PWK_LORA_NONE;
    for (uint64_t row = place.thread_index; row < rows && first == PWK_LORA_NONE;
         row += THREADS) {
        first = is_good(a, a.adapters[row]) ? first : uint32_t(row);
    }
    first = simd_min(first);
    if (place.lane == 0) {
        firsts[place.simdgroup] = first;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (place.thread_index != 0) {
        return;
    }
    for (uint32_t i = 1; i < SIMDGROUPS; i++) {
        first = firsts[i] < first ? firsts[i] : first;
    }
    if (first != PWK_LORA_NONE) {
        refuse_row(a, first);
    }
}

/* ---- rows that share an adapter ---- */

/* Consecutive rows of one slot. */
struct same_rows {
    uint64_t first;
    uint32_t count;
    uint32_t slot;
};

/* Those from `first` on, before `end`; the same in every thread. */
static same_rows rows_from(constant lora_arguments &a, uint64_t first, uint64_t end) {
    same_rows same = {first, 1, a.adapters[first]};
    while (first + same.count < end && a.adapters[first + same.count] == same.slot) {
        same.count++;
    }
    return same;
}

/* ---- h = x A' ---- */

static device float *h_of(constant lora_arguments &a, uint64_t row) {
    return reinterpret_cast<device float *>(a.launch.workspace) + row * a.p.rank_max;
}

/* The next inputs of some rows into a SIMD group's `[rows][STAGED]`. */
static void stage_inputs(constant lora_arguments &a, Place place, same_rows same, uint32_t k,
                         uint32_t count, threadgroup float *x) {
    for (uint32_t row = 0; row < same.count; row++) {
        const uint64_t from = (same.first + row) * a.p.x_row_stride + k;
        for (uint32_t i = place.lane; i < count; i += 32) {
            x[row * STAGED + i] = load_float(a.p.x_dtype, a.x, from + i);
        }
    }
}

/* A SIMD group's segment of some rows, for lane l's rank, into to[row][l]. */
static void down_segment(constant lora_arguments &a, Place place, same_rows same, uint32_t rank,
                         uint32_t segment, threadgroup float *x, threadgroup float *to) {
    const uint32_t begin = segment * PWK_LORA_SEGMENT, left = a.p.inputs - begin;
    const uint32_t inputs = left < PWK_LORA_SEGMENT ? left : PWK_LORA_SEGMENT;
    const uint64_t slab = uint64_t(same.slot) * a.p.inputs * a.p.rank_max;
    const uint64_t panel = uint64_t(rank / PWK_LORA_RANKS) * a.p.inputs * PWK_LORA_RANKS;
    const uint64_t own = slab + panel + rank % PWK_LORA_RANKS;
    const bool works = rank < a.ranks[same.slot];
    float sums[ROWS];
    for (uint32_t row = 0; row < ROWS; row++) {
        sums[row] = 0.0f;
    }
    for (uint32_t at = 0; at < inputs; at += STAGED) {
        const uint32_t count = inputs - at < STAGED ? inputs - at : STAGED;
        simdgroup_barrier(mem_flags::mem_threadgroup);
        stage_inputs(a, place, same, begin + at, count, x);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint32_t k = 0; works && k < count; k++) {
            const uint64_t word = own + uint64_t(begin + at + k) * PWK_LORA_RANKS;
            const float w = load_float(a.p.weight_dtype, a.a, word);
            for (uint32_t row = 0; row < same.count; row++) {
                sums[row] = PWK_FMA(w, x[row * STAGED + k], sums[row]);
            }
        }
    }
    for (uint32_t row = 0; row < ROWS; row++) {
        to[row * 32 + place.lane] = sums[row];
    }
}

/* h of some rows and 32 ranks: a thread folds one row's rank. */
static void down_rows(constant lora_arguments &a, Place place, same_rows same) {
    threadgroup float *sums = reinterpret_cast<threadgroup float *>(SHARED());
    const uint32_t own = place.simdgroup, rank = place.group.x * 32 + place.lane;
    threadgroup float *x = sums + SIMDGROUPS * ROWS * 32 + own * ROWS * STAGED;
    const uint32_t segments = (a.p.inputs + PWK_LORA_SEGMENT - 1) / PWK_LORA_SEGMENT;
    if (place.group.x * 32 >= a.ranks[same.slot]) {
        return;
    }
    float total = 0.0f;
    for (uint32_t base = 0; base < segments; base += SIMDGROUPS) {
        if (base + own < segments) {
            down_segment(a, place, same, rank, base + own, x, sums + own * ROWS * 32);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        const uint32_t count = segments - base < SIMDGROUPS ? segments - base : SIMDGROUPS;
        for (uint32_t part = 0; part < count; part++) {
            total += sums[part * ROWS * 32 + place.thread_index];
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
    if (own < same.count && rank < a.ranks[same.slot]) {
        h_of(a, same.first + own)[rank] = total;
    }
}

/* ---- out += scale h B' ---- */

/* A thread's output of some rows, whose h lies in `[rows][RANK_MAX]`. */
static void up_output(constant lora_arguments &a, same_rows same, uint32_t output,
                      threadgroup const float *h) {
    const uint32_t rank = a.ranks[same.slot];
    const uint64_t panels = (uint64_t(a.p.outputs) + PWK_LORA_OUTPUTS - 1) / PWK_LORA_OUTPUTS;
    const uint64_t slab = same.slot * panels * PWK_LORA_OUTPUTS * a.p.rank_max;
    const uint64_t panel = uint64_t(output / PWK_LORA_OUTPUTS) * rank * PWK_LORA_OUTPUTS;
    const uint64_t own = slab + panel + output % PWK_LORA_OUTPUTS;
    float terms[ROWS];
    for (uint32_t row = 0; row < ROWS; row++) {
        terms[row] = 0.0f;
    }
    for (uint32_t j = 0; j < rank; j++) {
        const float w = load_float(a.p.weight_dtype, a.b, own + uint64_t(j) * PWK_LORA_OUTPUTS);
        for (uint32_t row = 0; row < same.count; row++) {
            terms[row] = PWK_FMA(w, h[row * RANK_MAX + j], terms[row]);
        }
    }
    const float scale = a.scales[same.slot];
    for (uint32_t row = 0; row < same.count; row++) {
        const uint64_t at = (same.first + row) * a.p.out_row_stride + output;
        const float v = PWK_FMA(scale, terms[row], a.out[at]);
        a.out[at] = a.magnitudes == nullptr
                        ? v
                        : v * a.magnitudes[uint64_t(same.slot) * a.p.outputs + output];
    }
}

static void up_rows(constant lora_arguments &a, Place place, same_rows same) {
    threadgroup float *h = reinterpret_cast<threadgroup float *>(SHARED());
    const uint32_t rank = a.ranks[same.slot];
    const uint32_t output = place.group.x * THREADS + place.thread_index;
    for (uint32_t i = place.thread_index; i < same.count * rank; i += THREADS) {
        h[i / rank * RANK_MAX + i % rank] = h_of(a, same.first + i / rank)[i % rank];
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (output < a.p.outputs) {
        up_output(a, same, output, h);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

/* ---- both ---- */

/* A threadgroup's runs of rows: launch.tile rows at a time. */
template <bool DOWN>
static void product_body(constant lora_arguments &a, Place place) {
    const uint32_t rows = lora_rows(a, place);
    const uint64_t at_once = a.launch.tile;
    for (uint64_t base = place.group.y * at_once; base < rows;
         base += place.group_count.y * at_once) {
        const uint64_t end = base + at_once < rows ? base + at_once : rows;
        for (uint64_t row = base; row < end;) {
            const same_rows same = rows_from(a, row, end);
            row += same.count;
            if (same.slot == PWK_LORA_NONE) {
                continue;
            }
            if (DOWN) {
                down_rows(a, place, same);
            } else {
                up_rows(a, place, same);
            }
        }
    }
}

ENTRY(pw_lora_check, THREADS, lora_arguments, check_body)
ENTRY(pw_lora_down, THREADS, lora_arguments, product_body<true>)
ENTRY(pw_lora_up, THREADS, lora_arguments, product_body<false>)
