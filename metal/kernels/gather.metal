/* gather: rows by their numbers, copied as they are stored.
 *
 * Tiling: a thread takes 16 bytes of a row where rows lie so, and what is left element by
 * element; threadgroups along x share a row, along y they loop over rows. Memory: registers;
 * one word of a threadgroup for checks.
 * Emulated; not yet run on Apple hardware.
 */
#include "checks.h"
#include "pieces.h"

struct gather_arguments {
    pwk_gather p;
    device const uchar *x;
    device const uint32_t *indices;
    device uchar *out;
    device const uint32_t *rows;
    launch_of_call launch;
};

constant constexpr uint32_t GATHER_INDICES = 1; /* place of `indices` among the buffers */
constant constexpr uint32_t GATHER_ROWS = 3;    /* place of `rows` */
constant constexpr uint32_t THREADS = 128;
constant constexpr uint32_t CHECKERS = 512;

static row_numbers gather_rows(constant gather_arguments &a) {
    return {GATHER_INDICES, a.indices, a.p.x_rows - 1, GATHER_ROWS, a.rows, a.p.rows_max};
}

static void check_body(constant gather_arguments &a, Place place) {
    checked_rows(a.launch, place, gather_rows(a), true);
}

/* The elements of type T that this thread takes, from the one at `first` on. */
template <class T>
static void copy_elements(Place place, device const uchar *from, device uchar *to,
                          uint32_t first, uint32_t count) {
    device const T *elements = reinterpret_cast<device const T *>(from);
    device T *copies = reinterpret_cast<device T *>(to);
    const uint32_t stride = place.group_count.x * THREADS;
    uint32_t at = first + place.group.x * THREADS + place.thread_index;
    for (; at < count; at += stride) {
        copies[at] = elements[at];
    }
}

static void gather_body(constant gather_arguments &a, Place place) {
    constant pwk_gather &p = a.p;
    const uint32_t rows = checked_rows(a.launch, place, gather_rows(a), false);
    const bool bytes_alone = p.dtype == PWK_DTYPE_E4M3 || p.dtype == PWK_DTYPE_I8;
    const uint32_t element = bytes_alone ? 1 : float_bytes(p.dtype);
    const uint64_t from_stride = p.x_row_stride * element, to_stride = p.out_row_stride * element;
    const bool wide = is_wide(a.x, from_stride) && is_wide(a.out, to_stride);
    const uint32_t pieces = wide ? p.columns * element / 16 : 0;
    const uint32_t done = pieces * 16 / element;
    for (uint64_t row = place.group.y; row < rows; row += place.group_count.y) {
        device const uchar *from = a.x + a.indices[row] * from_stride;
        device uchar *to = a.out + row * to_stride;
        copy_elements<uint4>(place, from, to, 0, pieces);
        if (element == 4) {
            copy_elements<uint>(place, from, to, done, p.columns);
        } else if (element == 2) {
            copy_elements<ushort>(place, from, to, done, p.columns);
        } else {
            copy_elements<uchar>(place, from, to, done, p.columns);
        }
    }
}

ENTRY(pw_gather_check, CHECKERS, gather_arguments, check_body)
ENTRY(pw_gather, THREADS, gather_arguments, gather_body)
