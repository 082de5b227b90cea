/* embed: rows of a table by token ids, of plain rows or of the packed weight that matmul
 * multiplies by, with the CPU's bits.
 *
 * Tiling: a thread takes eight elements of a row. Plain rows: in 16-byte pieces where they lie
 * so. Packed: an output's words lie 128 bytes apart (packing/mod.rs draws them), so a thread
 * reads the words of its eight inputs, one for nibbles and up to eight for f32; neighbours
 * share no cache line, which is the price of one table for both kernels. Threadgroups along x
 * share a row, along y they loop over rows. Memory: registers; one word of a threadgroup for
 * checks.
 * Emulated; not yet run on Apple hardware.
 */
#include "checks.h"
#include "pieces.h"

struct embed_arguments {
    pwk_embed p;
    device const uchar *table;
    device const uint32_t *tokens;
    device uchar *out;
    device const uint32_t *rows;
    launch_of_call launch;
};

constant constexpr uint32_t EMBED_TOKENS = 1; /* place of `tokens` among the buffers */
constant constexpr uint32_t EMBED_ROWS = 3;   /* place of `rows` */
constant constexpr uint32_t TILE = 32;        /* outputs of a tile of packed weights */
constant constexpr uint32_t THREADS = 128;
constant constexpr uint32_t CHECKERS = 512;

static row_numbers embed_rows(constant embed_arguments &a) {
    const uint32_t most = a.p.weight.outputs - 1;
    return {EMBED_TOKENS, a.tokens, most, EMBED_ROWS, a.rows, a.p.rows_max};
}

static void check_body(constant embed_arguments &a, Place place) {
    checked_rows(a.launch, place, embed_rows(a), true);
}

/* Packed floats of one output from input `first` on, `count` of them. */
static void load_floats(constant pwk_weight &w, device const uchar *table, uint32_t output,
                        uint32_t first, uint32_t count, thread float *x) {
    const bool pairs = w.dtype == PWK_DTYPE_BF16;
    const uint64_t inputs = pairs ? (uint64_t(w.inputs) + 1) / 2 * 2 : w.inputs;
    const uint64_t tile = output / TILE * inputs * TILE;
    const uint32_t lane = output % TILE;
    for (uint32_t i = 0; i < PIECE; i++) {
        const uint64_t k = first + i;
        const uint64_t at = pairs ? (k / 2 * TILE + lane) * 2 + k % 2 : k * TILE + lane;
        x[i] = i < count ? load_float(w.dtype, table, tile + at) : 0.0f;
    }
}

/* Eight values of one output of a weight in groups, from input `first` on. */
static void load_groups(constant pwk_weight &w, device const uchar *table, uint32_t output,
                        uint32_t first, thread float *x) {
    const bool nibbles = w.dtype == PWK_DTYPE_I4;
    const bool affine = w.scheme == PWK_SCHEME_AFFINE;
    const uint32_t heads = TILE * float_bytes(w.scale_dtype) * (affine ? 2 : 1);
    const uint64_t group_bytes = heads + (TILE * w.group >> (nibbles ? 1 : 0));
    const uint64_t group = output / TILE * uint64_t(w.inputs / w.group) + first / w.group;
    device const uchar *head = table + group * group_bytes;
    device const uint32_t *body = reinterpret_cast<device const uint32_t *>(head + heads);
    const uint32_t lane = output % TILE, within = first % w.group;
    uint32_t low, high;
    if (nibbles) {
        const uint32_t word = body[within / 8 * TILE + lane];
        low = word & 0x0f0f0f0fu;
        high = (word >> 4) & 0x0f0f0f0fu;
    } else {
        low = body[within / 4 * TILE + lane];
        high = body[(within / 4 + 1) * TILE + lane];
    }
    const int offset = affine ? 0 : (nibbles ? 8 : 128);
    const float scale = load_float(w.scale_dtype, head, lane);
    const float bias = affine ? load_float(w.scale_dtype, head, TILE + lane) : 0.0f;
    for (uint32_t i = 0; i < PIECE; i++) {
        const uint32_t stored = ((i < 4 ? low : high) >> (i % 4 * 8)) & 0xffu;
        const float number = float(int(stored) - offset);
        x[i] = affine ? PWK_FMA(number, scale, bias) : number * scale;
    }
}

static void embed_body(constant embed_arguments &a, Place place) {
    constant pwk_embed &p = a.p;
    constant pwk_weight &w = p.weight;
    const uint32_t rows = checked_rows(a.launch, place, embed_rows(a), false);
    const bool grouped = w.scheme != PWK_SCHEME_NONE;
    const bool wide = is_wide_row(w.dtype, a.table, p.table_row_stride);
    const bool wide_out = is_wide_row(p.out_dtype, a.out, p.out_row_stride);
    const uint32_t stride = place.group_count.x * THREADS * PIECE;
    const uint32_t start = (place.group.x * THREADS + place.thread_index) * PIECE;
    for (uint64_t row = place.group.y; row < rows; row += place.group_count.y) {
        const uint32_t token = a.tokens[row];
        for (uint32_t first = start; first < w.inputs; first += stride) {
            const uint32_t count = piece_count(first, w.inputs);
            float x[PIECE];
            if (grouped) {
                load_groups(w, a.table, token, first, x);
            } else if (p.packed != 0) {
                load_floats(w, a.table, token, first, count, x);
            } else {
                load_piece(w.dtype, a.table, token * p.table_row_stride + first, count, wide, x);
            }
            for (uint32_t i = 0; i < PIECE; i++) {
                x[i] = x[i] * p.scale;
            }
            const uint64_t out = row * p.out_row_stride + first;
            store_piece(p.out_dtype, a.out, out, count, wide_out, x);
        }
    }
}

ENTRY(pw_embed_check, CHECKERS, embed_arguments, check_body)
ENTRY(pw_embed, THREADS, embed_arguments, embed_body)
