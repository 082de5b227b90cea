/* gather: rows by their numbers, copied as they are stored.
 *
 * Tiling: a thread takes 16 bytes of a row where rows lie so, and what is left element by
 * element; blocks along x share a row, along y they loop over rows. Memory: registers; one
 * word shared for checks.
 * Not measured yet.
 */
#include "pieces.h"
#include "step_elements.h"

struct gather_arguments {
    pwk_gather p;
    const void *x;
    const uint32_t *indices;
    void *out;
    const uint32_t *rows;
    pwk_launch launch;
};

constexpr uint32_t GATHER_INDICES = 1; /* place of `indices` among the buffers */
constexpr uint32_t GATHER_ROWS = 3;    /* place of `rows` */
constexpr uint32_t THREADS = 128;
constexpr uint32_t CHECKERS = 512;

static __device__ row_numbers gather_rows(const gather_arguments &a) {
    return {GATHER_INDICES, a.indices, a.p.x_rows - 1, GATHER_ROWS, a.rows, a.p.rows_max};
}

static __device__ void check_body(const gather_arguments &a) {
    checked_rows(a.launch, gather_rows(a), true);
}

/* The elements of type T that this thread takes, from the one at `first` on. */
template <class T>
static __device__ void copy_elements(const char *from, char *to, uint32_t first, uint32_t count) {
    const uint32_t step = gridDim.x * THREADS;
    for (uint32_t at = first + blockIdx.x * THREADS + threadIdx.x; at < count; at += step) {
        reinterpret_cast<T *>(to)[at] = reinterpret_cast<const T *>(from)[at];
    }
}

static __device__ void gather_body(const gather_arguments &a) {
    const pwk_gather &p = a.p;
    const uint32_t rows = checked_rows(a.launch, gather_rows(a), false);
    const bool bytes_alone = p.dtype == PWK_DTYPE_E4M3 || p.dtype == PWK_DTYPE_I8;
    const uint32_t element = bytes_alone ? 1 : float_bytes(p.dtype);
    const uint64_t from_stride = p.x_row_stride * element, to_stride = p.out_row_stride * element;
    const bool wide = is_wide(a.x, from_stride) && is_wide(a.out, to_stride);
    const uint32_t pieces = wide ? p.columns * element / 16 : 0;
    const uint32_t done = pieces * 16 / element;
    for (uint64_t row = blockIdx.y; row < rows; row += gridDim.y) {
        const char *from = static_cast<const char *>(a.x) + a.indices[row] * from_stride;
        char *to = static_cast<char *>(a.out) + row * to_stride;
        copy_elements<uint4>(from, to, 0, pieces);
        if (element == 4) {
            copy_elements<uint32_t>(from, to, done, p.columns);
        } else if (element == 2) {
            copy_elements<uint16_t>(from, to, done, p.columns);
        } else {
            copy_elements<uint8_t>(from, to, done, p.columns);
        }
    }
}

ENTRY(pw_gather_check, CHECKERS, 1, gather_arguments, check_body)
ENTRY(pw_gather, THREADS, 8, gather_arguments, gather_body)
