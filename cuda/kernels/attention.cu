/* attention: rows of queries over pages of keys and values, by mma.
 *
 * Tiling: a block of four warps takes an item of the plan (attention_plan.cu): a unit of
 * queries of one sequence and head of K, rows and heads of the group flattened, over one split
 * of 256 positions or over all of them. It goes in chunks of 64 keys aligned to 64. S = Q Kt
 * by m16n8k16; then scores, and a maximum, a sum and O += P V that start anew in each split
 * and go on over its chunks; splits fold ascending by plain f32.
 *
 * Units are of 16 queries, whose keys and then whose dims the four warps share out (scores
 * meet in shared memory), or wide: 64 queries, 16 a warp, that share the staged keys and
 * values. An element of S or O sees the same instructions in the same order in both, and a
 * chunk of which a row sees nothing is exactly the identity for it: weights of keys not seen
 * are -0, and O, rescaled, never is. So a row has the same bits in decode and in prefill, and
 * however items are cut.
 *
 * Numbers: f16 keys and values go by mma of f16, all others but f32 by mma of bf16, which
 * holds the numbers of e4m3, i8 and i4. A query is one piece where it fits, else two of f16
 * (f32; scaled by a power of two first) or up to three of bf16. Weights likewise, by the
 * type of out; those of f16 are times 2^15, so that no piece is subnormal. f32 keys and values
 * go by plain fma.
 *
 * Values that are no finite number: 0 times one is NaN for rows that do not see it. They leave
 * their mark in O. Then the split is done again: such values are zeros for mma, and what they
 * give is added by fma to the rows that see them.
 *
 * Memory: one tile of K and one of V, each brought by cp.async while the other is worked on;
 * small formats come raw and are widened. Folded values wait in shared memory.
 * instructions: HMMA, LDSM, LDGSTS
 * Not measured yet.
 */
#include "attention_stage.h"

constexpr uint32_t ALL = 0xffffffffu;
constexpr uint32_t KEY_TILES = CHUNK / 8;
constexpr uint32_t SCORE_PITCH = CHUNK + 8;
constexpr uint32_t NOT_SEEN = 0x80000000u; /* the weight of a key not seen: -0 */

/* ---- kinds of numbers that are multiplied ---- */

struct kind_f16 {
    static constexpr uint32_t bytes = 2;
    static constexpr float weight_unit = 32768.0f;

    static __device__ __forceinline__ uint32_t bits(float x) { return ops::f16_of(x); }
    static __device__ __forceinline__ float of(uint32_t bits) {
        return ops::of_f16(static_cast<uint16_t>(bits));
    }
    static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
        ops::mma_f16(d, a, b);
    }
    /* Pieces that hold a number of this type. */
    static __device__ __forceinline__ uint32_t pieces(uint32_t dtype) {
        return dtype == PWK_DTYPE_F32 ? 2 : 1;
    }
    static __device__ __forceinline__ bool is_scaled(uint32_t q_dtype) {
        return q_dtype != PWK_DTYPE_F16;
    }
    static constexpr uint32_t exponent = 0x7c00u; /* all ones: no finite number */
};

struct kind_bf16 {
    static constexpr uint32_t bytes = 2;
    static constexpr float weight_unit = 1.0f;

    static __device__ __forceinline__ uint32_t bits(float x) { return pwk_bf16_of(x); }
    static __device__ __forceinline__ float of(uint32_t bits) { return pwk_of_bf16(bits); }
    static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
        ops::mma_bf16(d, a, b);
    }
    static __device__ __forceinline__ uint32_t pieces(uint32_t dtype) {
        return dtype == PWK_DTYPE_F32 ? 3 : (dtype == PWK_DTYPE_F16 ? 2 : 1);
    }
    static __device__ __forceinline__ bool is_scaled(uint32_t) { return false; }
    static constexpr uint32_t exponent = 0x7f80u;
};

struct kind_f32 {
    static constexpr uint32_t bytes = 4;
    static constexpr float weight_unit = 1.0f;
    static __device__ __forceinline__ uint32_t pieces(uint32_t) { return 1; }
};

static __device__ __forceinline__ bool is_finite(float x) {
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

/* ---- shared memory ---- */

/* What a block knows of its item, and of its shared memory: here, not in registers. */
struct attention_unit {
    attention_part keys;
    attention_part values;
    uint64_t query; /* the unit's first, of all of the sequence and head */
    uint64_t queries;
    attention_count item;
    uint32_t seq;
    uint32_t head;
    uint32_t first; /* the first position that is kept */
    uint32_t begin; /* of what any row of the unit sees */
    uint32_t end;
    uint32_t marked;   /* 1: O holds what is no finite number */
    uint32_t bad[2];   /* keys of the chunk with such values */
    uint32_t key_tile; /* where tiles begin, in bytes */
    uint32_t value_tile;
    uint32_t raw_key_tile;
    uint32_t raw_value_tile;
    uint32_t row_pitch; /* bytes of a line of dims */
    uint32_t key_pitch; /* bytes of a line of the tile of K */
    uint32_t raw_key_pitch;
    uint32_t raw_value_pitch;
};
static_assert(sizeof(attention_unit) == 184, "cuda/src/lower/attention.rs counts 192 bytes");

/* Where a lane stands in fragments. */
struct lane_place {
    uint32_t lane, group, thread; /* l, l / 4, l % 4 */
};

/* The softmax of a split under way: rows g and g + 8 of the lane's tile. */
template <uint32_t TILES>
struct attention_state {
    softmax_state row[2];
    float o[TILES][4];
};

template <class Kind, uint32_t DIMS, uint32_t ROW_WARPS>
struct attending {
    static constexpr uint32_t KEY_WARPS = 4 / ROW_WARPS;
    static constexpr uint32_t QUERIES = TILE_QUERIES * ROW_WARPS;
    static constexpr uint32_t DIM_TILES = DIMS / 8 / KEY_WARPS;
    static constexpr uint32_t SCORE_TILES = KEY_TILES / KEY_WARPS;
    static constexpr uint32_t LIST = ROW_WARPS > 1 ? 1 : 0;
    static constexpr bool PLAIN = Kind::bytes == 4;
    using state = attention_state<DIM_TILES>;

    /* Where pieces of shared memory begin; cuda/src/lower/attention.rs counts the bytes. */
    static constexpr uint32_t PLACES = 192;                               /* [2][64] */
    static constexpr uint32_t SCALES = PLACES + 2 * CHUNK * 8;            /* [2][64] f32 */
    static constexpr uint32_t ROWS = SCALES + 2 * CHUNK * 4;              /* [queries] */
    static constexpr uint32_t FACTORS = ROWS + QUERIES * sizeof(seen_row); /* [queries] f32 */
    static constexpr uint32_t FOLDED = FACTORS + QUERIES * 4; /* [of a lane][threads] f32 */
    static constexpr uint32_t SCORES = FOLDED + QUERIES * DIMS * 4; /* [16][72] f32 */
    static constexpr uint32_t PIECES = /* [pieces of q][queries][row_pitch] */
        SCORES + (KEY_WARPS > 1 ? TILE_QUERIES * SCORE_PITCH * 4 : 0);

    const attention_arguments &a;
    lane_place at;
    uint32_t row_warp, key_warp;

    __device__ __forceinline__ explicit attending(const attention_arguments &a) : a(a) {
        const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        at = {lane, lane / 4, lane % 4};
        row_warp = warp / KEY_WARPS;
        key_warp = warp % KEY_WARPS;
        if (threadIdx.x == 0) {
            lay_out();
        }
        __syncthreads();
        clear_padding();
    }

    template <class T>
    static __device__ __forceinline__ T *shared(uint32_t at) {
        return reinterpret_cast<T *>(SHARED() + at);
    }
    static __device__ __forceinline__ attention_unit &unit() { return *shared<attention_unit>(0); }
    static __device__ __forceinline__ attention_place *places(uint32_t chunk) {
        return shared<attention_place>(PLACES) + chunk % 2 * CHUNK;
    }
    static __device__ __forceinline__ float *scales() { return shared<float>(SCALES); }
    static __device__ __forceinline__ seen_row *rows() { return shared<seen_row>(ROWS); }

    __device__ __forceinline__ uint32_t dims16() const { return (a.p.kv.head_dim + 15) / 16 * 16; }

    __device__ __forceinline__ void lay_out() {
        attention_unit &to = unit();
        const attention_part keys = keys_of(a, 0);
        const bool raw = keys.cell_bytes == 1;
        const uint32_t cells = (keys.cells + 15) / 16 * 16;
        to.row_pitch = dims16() * Kind::bytes + 16;
        to.key_pitch = keys.transposed ? CHUNK * Kind::bytes + 16 : to.row_pitch;
        to.raw_key_pitch = !raw ? to.key_pitch : (keys.transposed ? CHUNK + 16 : cells);
        to.raw_value_pitch = raw ? cells : to.row_pitch;
        const uint32_t value_bytes = CHUNK * to.row_pitch;
        const uint32_t key_bytes = keys.transposed ? dims16() * to.key_pitch : value_bytes;
        const uint32_t lines = keys.transposed ? keys.cells : CHUNK;
        to.key_tile = PIECES + Kind::pieces(a.p.q_dtype) * QUERIES * to.row_pitch;
        to.value_tile = to.key_tile + (PLAIN ? 0 : key_bytes);
        to.raw_key_tile = raw ? to.value_tile + value_bytes : to.key_tile;
        to.raw_value_tile = raw ? to.raw_key_tile + lines * to.raw_key_pitch : to.value_tile;
    }

    /* Dims between head_dim and a multiple of 16 are zeros, for good. */
    __device__ __forceinline__ void clear_padding() {
        if (PLAIN || dims16() == a.p.kv.head_dim) {
            return;
        }
        const bool transposed = keys_of(a, 0).transposed;
        unsigned char *key_tile = SHARED() + unit().key_tile;
        unsigned char *value_tile = SHARED() + unit().value_tile;
        const uint32_t key_pitch = unit().key_pitch, row_pitch = unit().row_pitch;
        const uint32_t dim = a.p.kv.head_dim * Kind::bytes;
        for (uint32_t i = threadIdx.x; i < CHUNK * 4; i += THREADS) {
            const uint32_t key = i / 4, word = i % 4 * 4;
            *reinterpret_cast<uint32_t *>(value_tile + key * row_pitch + dim + word) = 0;
            if (!transposed) {
                *reinterpret_cast<uint32_t *>(key_tile + key * key_pitch + dim + word) = 0;
            }
        }
        for (uint32_t i = threadIdx.x; transposed && i < 8 * CHUNK / 2; i += THREADS) {
            const uint32_t line = a.p.kv.head_dim + i / (CHUNK / 2), word = i % (CHUNK / 2) * 4;
            *reinterpret_cast<uint32_t *>(key_tile + line * key_pitch + word) = 0;
        }
    }

    /* ---- a unit's queries ---- */

    /* What its rows see, and what they see together. */
    __device__ __forceinline__ void load_rows() {
        if (threadIdx.x < QUERIES) {
            const uint64_t own = unit().query + threadIdx.x;
            const uint32_t seq = unit().seq;
            seen_row row = {0, 0, ~0ull, 0, 0};
            if (own < unit().queries) {
                row = row_of(a, seq, a.q_start[seq] + static_cast<uint32_t>(own / group_of(a)));
            }
            rows()[threadIdx.x] = row;
            if (row.begin < row.end) {
                atomicMin(&unit().begin, row.begin);
                atomicMax(&unit().end, row.end);
            }
        }
    }

    /* Queries as pieces; a warp takes one at a time. */
    __device__ __forceinline__ void load_queries() {
        const uint32_t dims = a.p.kv.head_dim, group = group_of(a);
        for (uint32_t r = threadIdx.x / 32; r < QUERIES; r += THREADS / 32) {
            const uint64_t own = unit().query + r;
            const uint64_t row = a.q_start[unit().seq] + own / group;
            const uint64_t start =
                row * a.p.q_row_stride + (uint64_t(unit().head) * group + own % group) * dims;
            float x[DIMS / 32];
            uint32_t most = 0;
            for (uint32_t i = 0; i < DIMS / 32; i++) {
                const uint32_t dim = 32 * i + at.lane;
                const bool there = own < unit().queries && dim < dims;
                x[i] = there ? load_float(a.p.q_dtype, a.q, start + dim) : 0.0f;
                const uint32_t size = __float_as_uint(x[i]) & 0x7fffffffu;
                most = most > size ? most : size;
            }
            store_query(r, x, most);
        }
    }

    __device__ __forceinline__ void store_query(uint32_t r, float (&x)[DIMS / 32], uint32_t most) {
        float factor = 1.0f;
        if constexpr (!PLAIN) {
            if (Kind::is_scaled(a.p.q_dtype)) {
                for (uint32_t step = 16; step > 0; step /= 2) {
                    const uint32_t other = __shfl_xor_sync(ALL, most, step);
                    most = most > other ? most : other;
                }
                /* The largest comes to lie between 2^14 and 2^15. */
                const uint32_t exponent = most >> 23 > 27 ? most >> 23 : 27;
                const float up = __uint_as_float((268 - exponent) << 23);
                factor = __uint_as_float((exponent - 14) << 23);
                for (uint32_t i = 0; i < DIMS / 32; i++) {
                    x[i] *= up;
                }
            }
        }
        if (at.lane == 0) {
            shared<float>(FACTORS)[r] = factor;
        }
        const uint32_t pieces = Kind::pieces(a.p.q_dtype);
        for (uint32_t piece = 0; piece < pieces; piece++) {
            unsigned char *to = (SHARED() + PIECES) + (piece * QUERIES + r) * unit().row_pitch;
            for (uint32_t i = 0; i < DIMS / 32; i++) {
                const uint32_t dim = 32 * i + at.lane;
                if (dim < dims16()) {
                    if constexpr (PLAIN) {
                        reinterpret_cast<float *>(to)[dim] = x[i];
                    } else {
                        const uint32_t bits = Kind::bits(x[i]);
                        reinterpret_cast<uint16_t *>(to)[dim] = static_cast<uint16_t>(bits);
                        const float kept = Kind::of(bits);
                        x[i] = is_finite(kept) ? x[i] - kept : 0.0f;
                    }
                }
            }
        }
    }

    /* ---- bringing keys and values ---- */

    /* Where the positions of a chunk lie. */
    __device__ __forceinline__ void find_places(uint32_t chunk, uint32_t low, uint32_t high) {
        const uint32_t position = chunk * CHUNK + threadIdx.x, len = a.p.kv.page_len;
        if (threadIdx.x < CHUNK && position >= low && position < high) {
            const uint64_t page = listed_of(a, unit().seq) + (position / len - unit().first / len);
            places(chunk)[threadIdx.x] = {a.page_ids[page], position % len};
        }
    }

    /* Scales of a chunk's keys and values: by token, or the same for all. */
    __device__ __forceinline__ void find_scales(uint32_t chunk, uint32_t low, uint32_t high) {
        const pwk_kv_layout &kv = a.p.kv;
        const uint32_t key = threadIdx.x % CHUNK, part = threadIdx.x / CHUNK;
        const uint32_t position = chunk * CHUNK + key;
        if (kv.scales == PWK_KV_SCALES_NONE) {
            return;
        }
        float scale = part == 0 ? kv.k_scale : kv.v_scale;
        if (kv.scales == PWK_KV_SCALES_TOKEN && position >= low && position < high) {
            const attention_place place = places(chunk)[key];
            const uint64_t row = (uint64_t(place.page) * kv.kv_heads + unit().head) * 2 + part;
            scale = a.scales[row * kv.page_len + place.token];
        }
        scales()[threadIdx.x] = scale;
    }

    __device__ __forceinline__ void stage_part(const attention_part &part, unsigned char *to,
                                               uint32_t pitch, uint32_t chunk, uint32_t low,
                                               uint32_t high) {
        const uint32_t base = chunk * CHUNK;
        const uint32_t from = low > base ? low - base : 0;
        const uint32_t until = high - base < CHUNK ? high - base : CHUNK;
        stage(part, places(chunk), from, until, to, pitch);
    }

    __device__ __forceinline__ void stage_keys(uint32_t chunk, uint32_t low, uint32_t high) {
        stage_part(unit().keys, SHARED() + unit().raw_key_tile, unit().raw_key_pitch, chunk,
                   low, high);
    }

    __device__ __forceinline__ void stage_values(uint32_t chunk, uint32_t low, uint32_t high) {
        stage_part(unit().values, SHARED() + unit().raw_value_tile, unit().raw_value_pitch, chunk,
                   low, high);
    }

    /* ---- scores ---- */

    /* Dot products of this warp's rows with its keys of a chunk. */
    __device__ __forceinline__ void dots(float (&s)[SCORE_TILES][4]) {
        for (uint32_t j = 0; j < SCORE_TILES; j++) {
            s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
        }
        if constexpr (PLAIN) {
            plain_dots(s);
        } else {
            const uint32_t pieces = Kind::pieces(a.p.q_dtype), dims = dims16();
            const uint32_t row_pitch = unit().row_pitch, piece_bytes = QUERIES * row_pitch;
            const unsigned char *rows = SHARED() + PIECES +
                                        (row_warp * 16 + at.lane % 16) * row_pitch +
                                        at.lane / 16 * 16;
            const bool transposed = unit().keys.transposed;
            const uint32_t pitch = unit().key_pitch, matrix = at.lane / 8, line = at.lane % 8;
            const uint32_t key = (key_warp * SCORE_TILES + matrix / 2) * 8;
            const uint32_t column = matrix % 2 * 8;
            /* This lane's line for dim 0 and the warp's first keys, and steps from there. */
            const unsigned char *tile =
                SHARED() + unit().key_tile +
                (transposed ? (column + line) * pitch + key * 2
                            : (key + line) * pitch + column * 2);
            const uint32_t dim_step = transposed ? pitch : 2, key_step = transposed ? 2 : pitch;
            for (uint32_t dim = 0; dim < dims; dim += 16) {
                uint32_t q[3][4];
#pragma unroll
                for (uint32_t piece = 0; piece < 3; piece++) {
                    if (piece < pieces) {
                        ops::load_matrix_4(q[piece], rows + piece * piece_bytes + dim * 2);
                    }
                }
#pragma unroll
                for (uint32_t j = 0; j < SCORE_TILES; j += 2) {
                    const unsigned char *from = tile + dim * dim_step + j * 8 * key_step;
                    uint32_t k[4];
                    if (transposed) {
                        ops::load_matrix_4_transposed(k, from);
                    } else {
                        ops::load_matrix_4(k, from);
                    }
                    const uint32_t low[2] = {k[0], k[1]}, high[2] = {k[2], k[3]};
#pragma unroll
                    for (uint32_t piece = 0; piece < 3; piece++) {
                        if (piece < pieces) {
                            Kind::mma(s[j], q[piece], low);
                            Kind::mma(s[j + 1], q[piece], high);
                        }
                    }
                }
            }
        }
    }

    __device__ __forceinline__ void plain_dots(float (&s)[SCORE_TILES][4]) {
        const bool transposed = unit().keys.transposed;
        const uint32_t pitch = unit().key_pitch, row_pitch = unit().row_pitch;
        const uint32_t key_step = transposed ? 4 : pitch, dim_step = transposed ? pitch : 4;
        const unsigned char *q = SHARED() + PIECES + (row_warp * 16 + at.group) * row_pitch;
        const unsigned char *tile = SHARED() + unit().key_tile;
        for (uint32_t dim = 0; dim < a.p.kv.head_dim; dim++) {
            const float q0 = reinterpret_cast<const float *>(q)[dim];
            const float q1 = reinterpret_cast<const float *>(q + 8 * row_pitch)[dim];
            for (uint32_t j = 0; j < SCORE_TILES; j++) {
                for (uint32_t b = 0; b < 2; b++) {
                    const uint32_t key = (key_warp * SCORE_TILES + j) * 8 + at.thread * 2 + b;
                    const float k = *reinterpret_cast<const float *>(
                        tile + key * key_step + dim * dim_step);
                    s[j][b] = __fmaf_rn(q0, k, s[j][b]);
                    s[j][2 + b] = __fmaf_rn(q1, k, s[j][2 + b]);
                }
            }
        }
    }

    /* Dot products of this warp's rows with all keys of a chunk. Ends with a barrier. */
    __device__ __forceinline__ void all_dots(float (&s)[KEY_TILES][4]) {
        if constexpr (KEY_WARPS == 1) {
            dots(s);
            __syncthreads();
        } else {
            float own[SCORE_TILES][4];
            dots(own);
            for (uint32_t j = 0; j < SCORE_TILES; j++) {
                float *to = shared<float>(SCORES) + at.group * SCORE_PITCH +
                            (key_warp * SCORE_TILES + j) * 8 + at.thread * 2;
                *reinterpret_cast<float2 *>(to) = make_float2(own[j][0], own[j][1]);
                *reinterpret_cast<float2 *>(to + 8 * SCORE_PITCH) =
                    make_float2(own[j][2], own[j][3]);
            }
            __syncthreads();
            for (uint32_t j = 0; j < KEY_TILES; j++) {
                const float *from =
                    shared<float>(SCORES) + at.group * SCORE_PITCH + j * 8 + at.thread * 2;
                const float2 low = *reinterpret_cast<const float2 *>(from);
                const float2 high = *reinterpret_cast<const float2 *>(from + 8 * SCORE_PITCH);
                s[j][0] = low.x;
                s[j][1] = low.y;
                s[j][2] = high.x;
                s[j][3] = high.y;
            }
        }
    }

    /* ---- weights ---- */

    __device__ __forceinline__ float slope_of(uint32_t r) const {
        const uint32_t group = group_of(a);
        return a.slopes[unit().head * group + (unit().query + r) % group];
    }

    /* Dot products of one row become scores, then weights; the state follows. */
    __device__ __forceinline__ void weights(uint32_t half, uint32_t base,
                                            float (&s)[KEY_TILES][4], state &into) {
        const uint32_t r = row_warp * 16 + half * 8 + at.group;
        const uint64_t seen = seen_bits(rows()[r], base);
        const bool scaled = a.p.kv.scales != PWK_KV_SCALES_NONE, sloped = a.slopes != nullptr;
        const float factor = shared<float>(FACTORS)[r], scale = a.p.scale, cap = a.p.softcap;
        const float slope = sloped ? slope_of(r) : 0.0f;
        const int32_t distance =
            static_cast<int32_t>(int64_t(base) - rows()[r].position + at.thread * 2);
        float most = -PWK_INFINITY;
#pragma unroll
        for (uint32_t j = 0; j < KEY_TILES; j++) {
#pragma unroll
            for (uint32_t b = 0; b < 2; b++) {
                const uint32_t key = j * 8 + at.thread * 2 + b;
                float x = s[j][2 * half + b] * factor;
                x = scaled ? x * scales()[key] : x;
                x *= scale;
                x = cap > 0.0f ? cap * pwk_tanh(x / cap) : x;
                x = sloped ? __fmaf_rn(slope, float(distance + int32_t(j * 8 + b)), x) : x;
                x = seen >> key & 1 ? x : -PWK_INFINITY;
                most = pwk_max(most, x);
                s[j][2 * half + b] = x;
            }
        }
        most = pwk_max(most, __shfl_xor_sync(ALL, most, 1));
        most = pwk_max(most, __shfl_xor_sync(ALL, most, 2));
        const float before = into.row[half].most, top = pwk_max(before, most);
        const float kept = before == top ? 1.0f : pwk_exp(before - top);
        const float from = top == -PWK_INFINITY ? 0.0f : top;
        float sum = 0.0f;
#pragma unroll
        for (uint32_t j = 0; j < KEY_TILES; j++) {
#pragma unroll
            for (uint32_t b = 0; b < 2; b++) {
                const uint32_t key = j * 8 + at.thread * 2 + b;
                const bool sees = seen >> key & 1;
                const float weight = sees ? pwk_exp_below(s[j][2 * half + b] - from) : 0.0f;
                sum += weight;
                const float value = scaled ? weight * scales()[CHUNK + key] : weight;
                s[j][2 * half + b] =
                    sees ? value * Kind::weight_unit + 0.0f : __uint_as_float(NOT_SEEN);
            }
        }
        sum += __shfl_xor_sync(ALL, sum, 1);
        sum += __shfl_xor_sync(ALL, sum, 2);
        into.row[half] = {top, __fmaf_rn(into.row[half].sum, kept, sum)};
        if (__any_sync(ALL, kept != 1.0f)) {
#pragma unroll
 #pragma unroll
           for (uint32_t n = 0; n < DIM_TILES; n++) {
                into.o[n][2 * half] = into.o[n][2 * half] * kept + 0.0f;
                into.o[n][2 * half + 1] = into.o[n][2 * half + 1] * kept + 0.0f;
            }
        }
    }

    /* ---- weighted values ---- */

    /* The first dim of a tile of eight. */
    __device__ __forceinline__ uint32_t dim_of(uint32_t n) const {
        return (key_warp * DIM_TILES + n) * 8;
    }

    /* O += P V for a chunk. Weights are used up. */
    __device__ __forceinline__ void weigh(float (&p)[KEY_TILES][4], state &into) {
        if constexpr (PLAIN) {
            plain_weigh(p, into);
        } else {
            const uint32_t pieces = Kind::pieces(a.p.out_dtype), dims = dims16();
            const uint32_t pitch = unit().row_pitch;
            const unsigned char *tile = SHARED() + unit().value_tile + at.lane % 16 * pitch +
                                        (dim_of(0) + at.lane / 16 * 8) * 2;
#pragma unroll
            for (uint32_t j = 0; j < KEY_TILES; j += 2) {
                uint32_t weight[3][4];
#pragma unroll
                for (uint32_t piece = 0; piece < 3; piece++) {
                    if (piece < pieces) {
                        take_piece(weight[piece], p[j], p[j + 1]);
                    }
                }
#pragma unroll
                for (uint32_t n = 0; n < DIM_TILES; n += 2) {
                    if (dim_of(n) < dims) {
                        uint32_t v[4];
                        ops::load_matrix_4_transposed(v, tile + j * 8 * pitch + n * 16);
                        const uint32_t low[2] = {v[0], v[1]}, high[2] = {v[2], v[3]};
#pragma unroll
                        for (uint32_t piece = 0; piece < 3; piece++) {
                            if (piece < pieces) {
                                Kind::mma(into.o[n], weight[piece], low);
                                Kind::mma(into.o[n + 1], weight[piece], high);
                            }
                        }
                    }
                }
            }
        }
    }

    /* The next piece of sixteen keys' weights; what is left of them stays. */
    __device__ __forceinline__ void take_piece(uint32_t (&weight)[4], float (&low)[4],
                                               float (&high)[4]) {
        two_pieces(weight[0], low[0], low[1]);
        two_pieces(weight[1], low[2], low[3]);
        two_pieces(weight[2], high[0], high[1]);
        two_pieces(weight[3], high[2], high[3]);
    }

    __device__ __forceinline__ void two_pieces(uint32_t &word, float &first, float &second) {
        const uint32_t low = Kind::bits(first), high = Kind::bits(second);
        word = low | high << 16;
        first -= Kind::of(low);
        second -= Kind::of(high);
    }

    __device__ __forceinline__ void plain_weigh(float (&p)[KEY_TILES][4], state &into) {
        const unsigned char *tile = SHARED() + unit().value_tile;
        const uint32_t pitch = unit().row_pitch;
#pragma unroll
        for (uint32_t j = 0; j < KEY_TILES; j++) {
#pragma unroll 1
            for (uint32_t i = 0; i < 8; i++) {
                const int from = static_cast<int>((at.lane & 28u) | i / 2);
                const float p0 = __shfl_sync(ALL, i % 2 ? p[j][1] : p[j][0], from);
                const float p1 = __shfl_sync(ALL, i % 2 ? p[j][3] : p[j][2], from);
                const unsigned char *line = tile + (j * 8 + i) * pitch;
#pragma unroll
                for (uint32_t n = 0; n < DIM_TILES; n++) {
                    if (dim_of(n) < a.p.kv.head_dim) {
                        const float2 v = *reinterpret_cast<const float2 *>(
                            line + (dim_of(n) + at.thread * 2) * 4);
                        add_seen(into.o[n][0], p0, v.x);
                        add_seen(into.o[n][1], p0, v.y);
                        add_seen(into.o[n][2], p1, v.x);
                        add_seen(into.o[n][3], p1, v.y);
                    }
                }
            }
        }
    }

    __device__ __forceinline__ void add_seen(float &o, float weight, float value) {
        o = __float_as_uint(weight) == NOT_SEEN ? o : __fmaf_rn(weight, value, o);
    }

    /* ---- values that are no finite number ---- */

    /* Makes them zeros, and names their keys. Between barriers. */
    __device__ __forceinline__ void clear_bad() {
        if (threadIdx.x < 2) {
            unit().bad[threadIdx.x] = 0;
        }
        __syncthreads();
        const uint32_t dims = a.p.kv.head_dim;
        for (uint32_t i = threadIdx.x; i < CHUNK * dims; i += THREADS) {
            const uint32_t key = i / dims, dim = i % dims;
            uint16_t *value =
                shared<uint16_t>(unit().value_tile + key * unit().row_pitch);
            if ((value[dim] & Kind::exponent) == Kind::exponent) {
                value[dim] = 0;
                atomicOr(&unit().bad[key / 32], 1u << key % 32);
            }
        }
        __syncthreads();
    }

    /* Adds what they give to the rows that see them, by fma. */
    __device__ __forceinline__ void add_bad(uint32_t chunk, const float (&p)[KEY_TILES][4],
                                            state &into) {
        for (uint32_t key = 0; key < CHUNK; key++) {
            if ((unit().bad[key / 32] >> key % 32 & 1) == 0) {
                continue;
            }
            const int from = static_cast<int>((at.lane & 28u) | key % 8 / 2);
            float p0 = 0.0f, p1 = 0.0f;
#pragma unroll
            for (uint32_t j = 0; j < KEY_TILES; j++) {
                const float low = __shfl_sync(ALL, key % 2 ? p[j][1] : p[j][0], from);
                const float high = __shfl_sync(ALL, key % 2 ? p[j][3] : p[j][2], from);
                p0 = j == key / 8 ? low : p0;
                p1 = j == key / 8 ? high : p1;
            }
            const attention_place place = places(chunk)[key];
#pragma unroll
 #pragma unroll
           for (uint32_t n = 0; n < DIM_TILES; n++) {
                for (uint32_t b = 0; b < 2; b++) {
                    const uint32_t dim = dim_of(n) + at.thread * 2 + b;
                    if (dim < a.p.kv.head_dim) {
                        const float v = stored_value(a.p.kv.dtype, unit().values, place, dim);
                        if (!is_finite(v)) {
                            add_seen(into.o[n][b], p0, v);
                            add_seen(into.o[n][2 + b], p1, v);
                        }
                    }
                }
            }
        }
    }

    /* ---- a split ---- */

    /* The softmax of positions `low` to `high`, which lie in one split. */
    __device__ __forceinline__ void split(uint32_t low, uint32_t high, bool careful, state &into) {
        into.row[0] = into.row[1] = softmax_empty();
#pragma unroll
        for (uint32_t n = 0; n < DIM_TILES; n++) {
            into.o[n][0] = into.o[n][1] = into.o[n][2] = into.o[n][3] = 0.0f;
        }
        const bool raw = !PLAIN && unit().keys.cell_bytes == 1;
        const uint32_t last = (high - 1) / CHUNK;
        uint32_t chunk = low / CHUNK;
        find_places(chunk, low, high);
        __syncthreads();
        stage_keys(chunk, low, high);
        ops::copy_async_commit();
        for (;; chunk++) {
            const bool more = chunk < last;
            if (!PLAIN) {
                stage_values(chunk, low, high);
            }
            ops::copy_async_commit();
            find_scales(chunk, low, high);
            ops::copy_async_wait<1>();
            __syncthreads();
            if (raw) {
                widen(a.p.kv.dtype, unit().keys, SHARED() + unit().raw_key_tile,
                      unit().raw_key_pitch, SHARED() + unit().key_tile, unit().key_pitch);
                __syncthreads();
            }
            if (more) {
                find_places(chunk + 1, low, high);
            }
            float s[KEY_TILES][4];
            all_dots(s);
            if (PLAIN) {
                stage_values(chunk, low, high);
            } else if (more) {
                stage_keys(chunk + 1, low, high);
            }
            ops::copy_async_commit();
            weights(0, chunk * CHUNK, s, into);
            weights(1, chunk * CHUNK, s, into);
            if (PLAIN) {
                ops::copy_async_wait<0>();
            } else {
                ops::copy_async_wait<1>();
            }
            __syncthreads();
            if (raw) {
                widen(a.p.kv.dtype, unit().values, SHARED() + unit().raw_value_tile,
                      unit().raw_value_pitch, SHARED() + unit().value_tile, unit().row_pitch);
                __syncthreads();
            }
            if constexpr (!PLAIN) {
                if (careful) {
                    clear_bad();
                    add_bad(chunk, s, into);
                }
            }
            weigh(s, into);
            __syncthreads();
            if (!more) {
                break;
            }
            if (PLAIN) {
                stage_keys(chunk + 1, low, high);
                ops::copy_async_commit();
            }
        }
#pragma unroll
        for (uint32_t n = 0; n < DIM_TILES; n++) {
            for (uint32_t i = 0; i < 4; i++) {
                into.o[n][i] *= 1.0f / Kind::weight_unit;
            }
        }
    }

    /* Whether O holds what is no finite number, in the whole block. */
    __device__ __forceinline__ bool is_marked(const state &of) {
        bool marked = false;
#pragma unroll
        for (uint32_t n = 0; n < DIM_TILES; n++) {
            for (uint32_t i = 0; i < 4; i++) {
                marked |= !is_finite(of.o[n][i]);
            }
        }
        if (marked) {
            atomicOr(&unit().marked, 1u);
        }
        __syncthreads();
        return unit().marked != 0;
    }

    /* A split, done again with care where it must be. False where no row sees any of it. */
    __device__ __forceinline__ bool whole_split(uint32_t number, state &into) {
        const uint32_t base = number * SPLIT;
        const uint32_t begin = unit().begin, end = unit().end;
        const uint32_t low = begin > base ? begin : base;
        const uint32_t high = end < base + SPLIT ? end : base + SPLIT;
        if (low >= high) {
            return false;
        }
        /* A mark is not taken back: the splits that follow are done with care at once. */
        bool careful = unit().marked != 0;
        for (;;) {
            split(low, high, careful, into);
            if (PLAIN || careful || !is_marked(into)) {
                return true;
            }
            careful = true;
        }
    }

    /* ---- ends of an item ---- */

    /* Leaves a split's state in the workspace. */
    __device__ __forceinline__ void store_state(const attention_seq &plan, uint32_t number,
                                                bool some, const state &of) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint64_t own = unit().query + row_warp * 16 + half * 8 + at.group;
            if (own >= unit().queries) {
                continue;
            }
            float *to = state_of(a, plan, unit().seq, unit().head, number, own);
            if (key_warp == 0 && at.thread == 0) {
                to[0] = some ? of.row[half].most : -PWK_INFINITY;
                to[1] = some ? of.row[half].sum : 0.0f;
            }
#pragma unroll
            for (uint32_t n = 0; some && n < DIM_TILES; n++) {
                if (dim_of(n) < a.p.kv.head_dim) {
                    *reinterpret_cast<float2 *>(to + 4 + dim_of(n) + at.thread * 2) =
                        make_float2(of.o[n][2 * half], of.o[n][2 * half + 1]);
                }
            }
        }
    }

    /* Folds a split into those before; each lane's values wait in a place of its own. */
    __device__ __forceinline__ void fold(softmax_state (&all)[2], const state &later) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const softmax_fold fold = fold_later(all[half], later.row[half]);
#pragma unroll
            for (uint32_t n = 0; n < DIM_TILES; n++) {
                for (uint32_t b = 0; b < 2; b++) {
                    const uint32_t place = (n * 4 + half * 2 + b) * THREADS + threadIdx.x;
                    float &value = shared<float>(FOLDED)[place];
                    value = folded(fold, value, later.o[n][2 * half + b]);
                }
            }
        }
    }

    __device__ __forceinline__ void finish(const softmax_state (&all)[2]) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            const uint64_t own = unit().query + row_warp * 16 + half * 8 + at.group;
            if (own >= unit().queries) {
                continue;
            }
            const uint32_t group = group_of(a);
            const uint64_t row = a.q_start[unit().seq] + own / group;
            const uint64_t q_head = uint64_t(unit().head) * group + own % group;
            const float sink = a.sinks == nullptr ? -PWK_INFINITY : a.sinks[q_head];
            const softmax_end end = softmax_ends(all[half], sink);
            const uint64_t out = row * a.p.out_row_stride + q_head * a.p.kv.head_dim;
#pragma unroll
            for (uint32_t n = 0; n < DIM_TILES; n++) {
                if (dim_of(n) < a.p.kv.head_dim) {
                    for (uint32_t b = 0; b < 2; b++) {
                        const uint32_t place = (n * 4 + half * 2 + b) * THREADS + threadIdx.x;
                        store_float(a.p.out_dtype, a.out, out + dim_of(n) + at.thread * 2 + b,
                                    ended(end, shared<float>(FOLDED)[place]));
                    }
                }
            }
            if (a.lse != nullptr && key_warp == 0 && at.thread == 0) {
                a.lse[row * a.p.q_heads + q_head] = end.lse;
            }
        }
    }

    /* ---- items ---- */

    /* The sequence of an item: the last whose first item is at it or before. */
    __device__ __forceinline__ uint32_t seq_of(uint64_t item) const {
        const attention_seq *plans = seqs_of(a);
        uint32_t low = 0, high = a.seqs == nullptr ? a.p.seqs_max : *a.seqs;
        while (high - low > 1) {
            const uint32_t middle = low + (high - low) / 2;
            (plans[middle].first[LIST] <= item ? low : high) = middle;
        }
        return low;
    }

    /* Says what an item is, by one thread. */
    __device__ __forceinline__ void name_item() {
        attention_unit &to = unit();
        const uint32_t seq = seq_of(to.item);
        const attention_seq plan = seqs_of(a)[seq];
        const uint64_t rest = to.item - plan.first[LIST];
        const uint64_t number = plan.states != NO_STATES ? rest / plan.split_count : rest;
        to.seq = seq;
        to.queries = queries_of(a, seq);
        const uint64_t units = (to.queries + QUERIES - 1) / QUERIES;
        to.head = static_cast<uint32_t>(number / units);
        to.query = number % units * QUERIES;
        to.first = first_of(a, seq);
        to.keys = keys_of(a, to.head);
        to.values = values_of(a, to.head);
        to.begin = ALL;
        to.end = 0;
        to.marked = 0;
    }

    __device__ __forceinline__ void attend() {
        const attention_seq plan = seqs_of(a)[unit().seq];
        const bool cut = plan.states != NO_STATES;
        const uint64_t rest = unit().item - plan.first[LIST];
        load_rows();
        load_queries();
        __syncthreads();
        softmax_state all[2] = {softmax_empty(), softmax_empty()};
        uint32_t number = cut ? static_cast<uint32_t>(rest % plan.split_count) : 0;
        const uint32_t last = cut ? number + 1 : plan.split_count;
        for (; number < last; number++) {
            state now;
            const bool some = whole_split(plan.split_begin + number, now);
            if (cut) {
                store_state(plan, number, some, now);
            } else if (some) {
                fold(all, now);
            }
        }
        if (!cut) {
            finish(all);
        }
    }

    /* Takes items until none is left. */
    __device__ __forceinline__ void run() {
        attention_plan *plan = plan_of(a);
        for (;;) {
            if (threadIdx.x == 0) {
                unit().item = atomicAdd(&plan->taken[LIST], 1ull);
                if (unit().item < plan->items[LIST]) {
                    name_item();
                }
            }
            __syncthreads();
            if (unit().item >= plan->items[LIST]) {
                return;
            }
            attend();
            __syncthreads();
        }
    }
};

template <class Kind, uint32_t DIMS, uint32_t ROW_WARPS>
static __device__ void attention_body(const attention_arguments &a) {
    attending<Kind, DIMS, ROW_WARPS>(a).run();
}

ENTRY(pw_attention_f16_64, THREADS, 3, attention_arguments, attention_body<kind_f16, 64, 1>)
ENTRY(pw_attention_f16_128, THREADS, 3, attention_arguments, attention_body<kind_f16, 128, 1>)
ENTRY(pw_attention_f16_256, THREADS, 2, attention_arguments, attention_body<kind_f16, 256, 1>)
ENTRY(pw_attention_f16_64_wide, THREADS, 2, attention_arguments, attention_body<kind_f16, 64, 4>)
ENTRY(pw_attention_f16_128_wide, THREADS, 2, attention_arguments,
      attention_body<kind_f16, 128, 4>)
ENTRY(pw_attention_bf16_64, THREADS, 3, attention_arguments, attention_body<kind_bf16, 64, 1>)
ENTRY(pw_attention_bf16_128, THREADS, 2, attention_arguments, attention_body<kind_bf16, 128, 1>)
ENTRY(pw_attention_bf16_256, THREADS, 2, attention_arguments, attention_body<kind_bf16, 256, 1>)
ENTRY(pw_attention_bf16_64_wide, THREADS, 2, attention_arguments,
      attention_body<kind_bf16, 64, 4>)
ENTRY(pw_attention_bf16_128_wide, THREADS, 2, attention_arguments,
      attention_body<kind_bf16, 128, 4>)
ENTRY(pw_attention_f32, THREADS, 2, attention_arguments, attention_body<kind_f32, 256, 1>)
