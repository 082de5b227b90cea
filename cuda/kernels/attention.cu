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

/* What threads of a block tell each other. */
struct attention_words {
    attention_count item;
    uint32_t begin; /* of what any row of the unit sees */
    uint32_t end;
    uint32_t marked; /* 1: O holds what is no finite number */
    uint32_t bad[2]; /* keys of the chunk with such values */
};

/* A block's shared memory; cuda/src/lower/attention.rs counts its bytes. */
struct attention_desk {
    attention_words *words;
    attention_place *places; /* [2][64]: of a chunk and the next */
    float *scales;           /* [2][64]: of keys, of values */
    seen_row *rows;          /* [queries] */
    float *factors;          /* [queries]: turn dot products back */
    float *folded;           /* [elements of a lane][threads] */
    float *scores;           /* [16][72], where warps share out keys */
    unsigned char *q;        /* [pieces][queries][q_pitch] */
    unsigned char *keys;
    unsigned char *values;
    unsigned char *raw_keys;
    unsigned char *raw_values;
    uint32_t row_pitch; /* bytes of a line of dims */
    uint32_t key_pitch; /* bytes of a line of the tile of K */
    uint32_t raw_key_pitch;
    uint32_t raw_value_pitch;
};

/* A matrix fragment's address: rows of 8 by lane. */
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

    const attention_arguments &a;
    attention_desk desk;
    lane_place at;
    uint32_t row_warp, key_warp;
    uint32_t dims16, group;
    attention_part keys, values;
    uint32_t seq, head, first; /* `first`: the first position that is kept */
    uint64_t query, queries;   /* the unit's first, and all of the sequence and head */

    __device__ __forceinline__ explicit attending(const attention_arguments &a) : a(a) {
        const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        at = {lane, lane / 4, lane % 4};
        row_warp = warp / KEY_WARPS;
        key_warp = warp % KEY_WARPS;
        dims16 = (a.p.kv.head_dim + 15) / 16 * 16;
        group = group_of(a);
        keys = keys_of(a, 0);
        lay_out();
        clear_padding();
    }

    __device__ __forceinline__ void lay_out() {
        unsigned char *next = SHARED();
        const auto take = [&next](uint32_t bytes) {
            unsigned char *piece = next;
            next += (bytes + 15) / 16 * 16;
            return piece;
        };
        const bool raw = keys.cell_bytes == 1;
        desk.row_pitch = dims16 * Kind::bytes + 16;
        desk.key_pitch = keys.transposed ? CHUNK * Kind::bytes + 16 : desk.row_pitch;
        desk.raw_value_pitch = (keys.cells + 15) / 16 * 16;
        desk.raw_key_pitch = keys.transposed ? CHUNK + 16 : desk.raw_value_pitch;
        desk.words = reinterpret_cast<attention_words *>(take(sizeof(attention_words)));
        desk.places = reinterpret_cast<attention_place *>(take(2 * CHUNK * 8));
        desk.scales = reinterpret_cast<float *>(take(2 * CHUNK * 4));
        desk.rows = reinterpret_cast<seen_row *>(take(QUERIES * sizeof(seen_row)));
        desk.factors = reinterpret_cast<float *>(take(QUERIES * 4));
        desk.folded = reinterpret_cast<float *>(take(QUERIES * DIMS * 4));
        desk.scores = reinterpret_cast<float *>(
            take(KEY_WARPS > 1 ? TILE_QUERIES * SCORE_PITCH * 4 : 0));
        desk.q = take(Kind::pieces(a.p.q_dtype) * QUERIES * desk.row_pitch);
        const uint32_t value_bytes = CHUNK * desk.row_pitch;
        const uint32_t key_bytes = keys.transposed ? dims16 * desk.key_pitch : value_bytes;
        desk.keys = take(PLAIN && value_bytes > key_bytes ? value_bytes : key_bytes);
        desk.values = PLAIN ? desk.keys : take(value_bytes);
        const uint32_t lines = keys.transposed ? keys.cells : CHUNK;
        desk.raw_keys = raw ? take(lines * desk.raw_key_pitch) : desk.keys;
        desk.raw_values = raw ? take(CHUNK * desk.raw_value_pitch) : desk.values;
        if (!raw) {
            desk.raw_key_pitch = desk.key_pitch;
            desk.raw_value_pitch = desk.row_pitch;
        }
    }

    /* Dims between head_dim and a multiple of 16 are zeros, for good. */
    __device__ __forceinline__ void clear_padding() {
        if (PLAIN || dims16 == a.p.kv.head_dim) {
            return;
        }
        const uint32_t dim = a.p.kv.head_dim * Kind::bytes;
        for (uint32_t i = threadIdx.x; i < CHUNK * 4; i += THREADS) {
            const uint32_t key = i / 4, word = i % 4 * 4;
            *reinterpret_cast<uint32_t *>(desk.values + key * desk.row_pitch + dim + word) = 0;
            if (!keys.transposed) {
                *reinterpret_cast<uint32_t *>(desk.keys + key * desk.key_pitch + dim + word) = 0;
            }
        }
        for (uint32_t i = threadIdx.x; keys.transposed && i < 8 * CHUNK / 2; i += THREADS) {
            const uint32_t line = a.p.kv.head_dim + i / (CHUNK / 2), word = i % (CHUNK / 2) * 4;
            *reinterpret_cast<uint32_t *>(desk.keys + line * desk.key_pitch + word) = 0;
        }
    }

    /* ---- a unit's queries ---- */

    /* What its rows see, and what they see together. */
    __device__ __forceinline__ void load_rows() {
        if (threadIdx.x == 0) {
            desk.words->begin = ALL;
            desk.words->end = 0;
            desk.words->marked = 0;
        }
        __syncthreads();
        if (threadIdx.x < QUERIES) {
            const uint64_t own = query + threadIdx.x;
            seen_row row = {0, 0, ~0ull, 0, 0};
            if (own < queries) {
                row = row_of(a, seq, a.q_start[seq] + static_cast<uint32_t>(own / group));
            }
            desk.rows[threadIdx.x] = row;
            if (row.begin < row.end) {
                atomicMin(&desk.words->begin, row.begin);
                atomicMax(&desk.words->end, row.end);
            }
        }
    }

    /* Queries as pieces; a warp takes one at a time. */
    __device__ __forceinline__ void load_queries() {
        const uint32_t dims = a.p.kv.head_dim;
        for (uint32_t r = threadIdx.x / 32; r < QUERIES; r += THREADS / 32) {
            const uint64_t own = query + r;
            const uint64_t row = a.q_start[seq] + own / group;
            const uint64_t start =
                row * a.p.q_row_stride + (uint64_t(head) * group + own % group) * dims;
            float x[DIMS / 32];
            uint32_t most = 0;
            for (uint32_t i = 0; i < DIMS / 32; i++) {
                const uint32_t dim = 32 * i + at.lane;
                const bool there = own < queries && dim < dims;
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
            desk.factors[r] = factor;
        }
        const uint32_t pieces = Kind::pieces(a.p.q_dtype);
        for (uint32_t piece = 0; piece < pieces; piece++) {
            unsigned char *to = desk.q + (piece * QUERIES + r) * desk.row_pitch;
            for (uint32_t i = 0; i < DIMS / 32; i++) {
                const uint32_t dim = 32 * i + at.lane;
                if (dim < dims16) {
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
            const uint64_t page = listed_of(a, seq) + (position / len - first / len);
            desk.places[chunk % 2 * CHUNK + threadIdx.x] = {a.page_ids[page], position % len};
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
            const attention_place place = desk.places[chunk % 2 * CHUNK + key];
            const uint64_t row = (uint64_t(place.page) * kv.kv_heads + head) * 2 + part;
            scale = a.scales[row * kv.page_len + place.token];
        }
        desk.scales[threadIdx.x] = scale;
    }

    __device__ __forceinline__ void stage_part(const attention_part &part, unsigned char *to,
                                               uint32_t pitch, uint32_t chunk, uint32_t low,
                                               uint32_t high) {
        const uint32_t base = chunk * CHUNK;
        const uint32_t from = low > base ? low - base : 0;
        const uint32_t until = high - base < CHUNK ? high - base : CHUNK;
        stage(part, desk.places + chunk % 2 * CHUNK, from, until, to, pitch);
    }

    __device__ __forceinline__ void stage_keys(uint32_t chunk, uint32_t low, uint32_t high) {
        stage_part(keys, desk.raw_keys, desk.raw_key_pitch, chunk, low, high);
    }

    __device__ __forceinline__ void stage_values(uint32_t chunk, uint32_t low, uint32_t high) {
        stage_part(values, desk.raw_values, desk.raw_value_pitch, chunk, low, high);
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
            const uint32_t pieces = Kind::pieces(a.p.q_dtype);
            for (uint32_t dim = 0; dim < dims16; dim += 16) {
                uint32_t q[3][4];
#pragma unroll
                for (uint32_t piece = 0; piece < 3; piece++) {
                    if (piece < pieces) {
                        const uint32_t r = piece * QUERIES + row_warp * 16 + at.lane % 16;
                        const uint32_t column = (dim + at.lane / 16 * 8) * 2;
                        ops::load_matrix_4(q[piece], desk.q + r * desk.row_pitch + column);
                    }
                }
#pragma unroll
                for (uint32_t j = 0; j < SCORE_TILES; j += 2) {
                    uint32_t k[4];
                    load_keys(k, key_warp * SCORE_TILES + j, dim);
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

    /* Sixteen dims of sixteen keys, from tile `tile` of eight on. */
    __device__ __forceinline__ void load_keys(uint32_t (&k)[4], uint32_t tile, uint32_t dim) {
        const uint32_t matrix = at.lane / 8, line = at.lane % 8;
        const uint32_t key = (tile + matrix / 2) * 8, column = dim + matrix % 2 * 8;
        if (keys.transposed) {
            ops::load_matrix_4_transposed(
                k, desk.keys + (column + line) * desk.key_pitch + key * 2);
        } else {
            ops::load_matrix_4(k, desk.keys + (key + line) * desk.key_pitch + column * 2);
        }
    }

    __device__ __forceinline__ void plain_dots(float (&s)[SCORE_TILES][4]) {
        const uint32_t key_step = keys.transposed ? 4 : desk.key_pitch;
        const uint32_t dim_step = keys.transposed ? desk.key_pitch : 4;
        const unsigned char *q = desk.q + (row_warp * 16 + at.group) * desk.row_pitch;
        for (uint32_t dim = 0; dim < a.p.kv.head_dim; dim++) {
            const float q0 = reinterpret_cast<const float *>(q)[dim];
            const float q1 = reinterpret_cast<const float *>(q + 8 * desk.row_pitch)[dim];
            for (uint32_t j = 0; j < SCORE_TILES; j++) {
                for (uint32_t b = 0; b < 2; b++) {
                    const uint32_t key = (key_warp * SCORE_TILES + j) * 8 + at.thread * 2 + b;
                    const float k = *reinterpret_cast<const float *>(
                        desk.keys + key * key_step + dim * dim_step);
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
                float *to = desk.scores + at.group * SCORE_PITCH +
                            (key_warp * SCORE_TILES + j) * 8 + at.thread * 2;
                *reinterpret_cast<float2 *>(to) = make_float2(own[j][0], own[j][1]);
                *reinterpret_cast<float2 *>(to + 8 * SCORE_PITCH) =
                    make_float2(own[j][2], own[j][3]);
            }
            __syncthreads();
            for (uint32_t j = 0; j < KEY_TILES; j++) {
                const float *from =
                    desk.scores + at.group * SCORE_PITCH + j * 8 + at.thread * 2;
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

    /* Dot products of one row become scores, then weights; the state follows. */
    __device__ __forceinline__ void weights(uint32_t half, uint32_t base,
                                            float (&s)[KEY_TILES][4], state &into) {
        const uint32_t r = row_warp * 16 + half * 8 + at.group;
        const uint64_t seen = seen_bits(desk.rows[r], base);
        const bool scaled = a.p.kv.scales != PWK_KV_SCALES_NONE, sloped = a.slopes != nullptr;
        const float factor = desk.factors[r], scale = a.p.scale, cap = a.p.softcap;
        const float slope = sloped ? a.slopes[head * group + (query + r) % group] : 0.0f;
        const int32_t distance =
            static_cast<int32_t>(int64_t(base) - desk.rows[r].position + at.thread * 2);
        float most = -PWK_INFINITY;
#pragma unroll
        for (uint32_t j = 0; j < KEY_TILES; j++) {
#pragma unroll
            for (uint32_t b = 0; b < 2; b++) {
                const uint32_t key = j * 8 + at.thread * 2 + b;
                float x = s[j][2 * half + b] * factor;
                x = scaled ? x * desk.scales[key] : x;
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
                const float value = scaled ? weight * desk.scales[CHUNK + key] : weight;
                s[j][2 * half + b] =
                    sees ? value * Kind::weight_unit + 0.0f : __uint_as_float(NOT_SEEN);
            }
        }
        sum += __shfl_xor_sync(ALL, sum, 1);
        sum += __shfl_xor_sync(ALL, sum, 2);
        into.row[half] = {top, __fmaf_rn(into.row[half].sum, kept, sum)};
        if (__any_sync(ALL, kept != 1.0f)) {
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
            const uint32_t pieces = Kind::pieces(a.p.out_dtype);
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
                    if (dim_of(n) < dims16) {
                        const uint32_t key = j * 8 + at.lane % 16;
                        const uint32_t column = (dim_of(n) + at.lane / 16 * 8) * 2;
                        uint32_t v[4];
                        ops::load_matrix_4_transposed(
                            v, desk.values + key * desk.row_pitch + column);
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
        for (uint32_t word = 0; word < 4; word++) {
            float (&p)[4] = word < 2 ? low : high;
            float &first = p[word % 2 * 2], &second = p[word % 2 * 2 + 1];
            const uint32_t a = Kind::bits(first), b = Kind::bits(second);
            weight[word] = a | b << 16;
            first -= Kind::of(a);
            second -= Kind::of(b);
        }
    }

    __device__ __forceinline__ void plain_weigh(float (&p)[KEY_TILES][4], state &into) {
#pragma unroll
        for (uint32_t j = 0; j < KEY_TILES; j++) {
#pragma unroll 1
            for (uint32_t i = 0; i < 8; i++) {
                const int from = static_cast<int>((at.lane & 28u) | i / 2);
                const float p0 = __shfl_sync(ALL, i % 2 ? p[j][1] : p[j][0], from);
                const float p1 = __shfl_sync(ALL, i % 2 ? p[j][3] : p[j][2], from);
                const unsigned char *line = desk.values + (j * 8 + i) * desk.row_pitch;
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
            desk.words->bad[threadIdx.x] = 0;
        }
        __syncthreads();
        const uint32_t dims = a.p.kv.head_dim;
        for (uint32_t i = threadIdx.x; i < CHUNK * dims; i += THREADS) {
            const uint32_t key = i / dims, dim = i % dims;
            uint16_t *value = reinterpret_cast<uint16_t *>(desk.values + key * desk.row_pitch);
            if ((value[dim] & Kind::exponent) == Kind::exponent) {
                value[dim] = 0;
                atomicOr(&desk.words->bad[key / 32], 1u << key % 32);
            }
        }
        __syncthreads();
    }

    /* Adds what they give to the rows that see them, by fma. */
    __device__ __forceinline__ void add_bad(uint32_t chunk, const float (&p)[KEY_TILES][4],
                                            state &into) {
        for (uint32_t key = 0; key < CHUNK; key++) {
            if ((desk.words->bad[key / 32] >> key % 32 & 1) == 0) {
                continue;
            }
            float p0 = 0.0f, p1 = 0.0f;
#pragma unroll
            for (uint32_t j = 0; j < KEY_TILES; j++) {
                if (j == key / 8) {
                    p0 = key % 2 ? p[j][1] : p[j][0];
                    p1 = key % 2 ? p[j][3] : p[j][2];
                }
            }
            const int from = static_cast<int>((at.lane & 28u) | key % 8 / 2);
            p0 = __shfl_sync(ALL, p0, from);
            p1 = __shfl_sync(ALL, p1, from);
            const attention_place place = desk.places[chunk % 2 * CHUNK + key];
#pragma unroll
            for (uint32_t n = 0; n < DIM_TILES; n++) {
                for (uint32_t b = 0; b < 2; b++) {
                    const uint32_t dim = dim_of(n) + at.thread * 2 + b;
                    if (dim < a.p.kv.head_dim) {
                        const float v = stored_value(a.p.kv.dtype, values, place, dim);
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
        for (uint32_t n = 0; n < DIM_TILES; n++) {
            into.o[n][0] = into.o[n][1] = into.o[n][2] = into.o[n][3] = 0.0f;
        }
        const bool raw = !PLAIN && keys.cell_bytes == 1;
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
                widen(a.p.kv.dtype, keys, desk.raw_keys, desk.raw_key_pitch, desk.keys,
                      desk.key_pitch);
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
                widen(a.p.kv.dtype, values, desk.raw_values, desk.raw_value_pitch, desk.values,
                      desk.row_pitch);
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
        for (uint32_t n = 0; n < DIM_TILES; n++) {
            for (uint32_t i = 0; i < 4; i++) {
                into.o[n][i] *= 1.0f / Kind::weight_unit;
            }
        }
    }

    /* Whether O holds what is no finite number, in the whole block. */
    __device__ __forceinline__ bool is_marked(const state &of) {
        bool marked = false;
        for (uint32_t n = 0; n < DIM_TILES; n++) {
            for (uint32_t i = 0; i < 4; i++) {
                marked |= !is_finite(of.o[n][i]);
            }
        }
        if (marked) {
            atomicOr(&desk.words->marked, 1u);
        }
        __syncthreads();
        return desk.words->marked != 0;
    }

    /* A split, done again with care where it must be. False where no row sees any of it. */
    __device__ __forceinline__ bool whole_split(uint32_t number, state &into) {
        const uint32_t base = number * SPLIT;
        const uint32_t begin = desk.words->begin, end = desk.words->end;
        const uint32_t low = begin > base ? begin : base;
        const uint32_t high = end < base + SPLIT ? end : base + SPLIT;
        if (low >= high) {
            return false;
        }
        /* A mark is not taken back: the splits that follow are done with care at once. */
        bool careful = desk.words->marked != 0;
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
        for (uint32_t half = 0; half < 2; half++) {
            const uint64_t own = query + row_warp * 16 + half * 8 + at.group;
            if (own >= queries) {
                continue;
            }
            float *to = state_of(a, plan, seq, head, number, own);
            if (key_warp == 0 && at.thread == 0) {
                to[0] = of.row[half].most;
                to[1] = some ? of.row[half].sum : 0.0f;
            }
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
        for (uint32_t half = 0; half < 2; half++) {
            const softmax_fold fold = fold_later(all[half], later.row[half]);
            for (uint32_t n = 0; n < DIM_TILES; n++) {
                for (uint32_t b = 0; b < 2; b++) {
                    float &value = desk.folded[(n * 4 + half * 2 + b) * THREADS + threadIdx.x];
                    value = folded(fold, value, later.o[n][2 * half + b]);
                }
            }
        }
    }

    __device__ __forceinline__ void finish(const softmax_state (&all)[2]) {
        for (uint32_t half = 0; half < 2; half++) {
            const uint64_t own = query + row_warp * 16 + half * 8 + at.group;
            if (own >= queries) {
                continue;
            }
            const uint64_t row = a.q_start[seq] + own / group;
            const uint64_t q_head = uint64_t(head) * group + own % group;
            const float sink = a.sinks == nullptr ? -PWK_INFINITY : a.sinks[q_head];
            const softmax_end end = softmax_ends(all[half], sink);
            const uint64_t out = row * a.p.out_row_stride + q_head * a.p.kv.head_dim;
            for (uint32_t n = 0; n < DIM_TILES; n++) {
                if (dim_of(n) < a.p.kv.head_dim) {
                    for (uint32_t b = 0; b < 2; b++) {
                        const uint32_t place = (n * 4 + half * 2 + b) * THREADS + threadIdx.x;
                        store_float(a.p.out_dtype, a.out, out + dim_of(n) + at.thread * 2 + b,
                                    ended(end, desk.folded[place]));
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

    __device__ __forceinline__ void attend(uint64_t item) {
        seq = seq_of(item);
        const attention_seq plan = seqs_of(a)[seq];
        const bool cut = plan.states != NO_STATES;
        const uint32_t count = cut ? plan.split_count : 1;
        const uint64_t rest = item - plan.first[LIST];
        queries = queries_of(a, seq);
        const uint64_t units = (queries + QUERIES - 1) / QUERIES, unit = rest / count;
        head = static_cast<uint32_t>(unit / units);
        query = unit % units * QUERIES;
        first = first_of(a, seq);
        keys = keys_of(a, head);
        values = values_of(a, head);
        load_rows();
        load_queries();
        __syncthreads();
        softmax_state all[2] = {softmax_empty(), softmax_empty()};
        uint32_t number = cut ? static_cast<uint32_t>(rest % count) : 0;
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
                desk.words->item = atomicAdd(&plan->taken[LIST], 1ull);
            }
            __syncthreads();
            const uint64_t item = desk.words->item;
            if (item >= plan->items[LIST]) {
                return;
            }
            attend(item);
            __syncthreads();
        }
    }
};

template <class Kind, uint32_t DIMS, uint32_t ROW_WARPS>
static __device__ void attention_body(const attention_arguments &a) {
    attending<Kind, DIMS, ROW_WARPS>(a).run();
}

ENTRY(pw_attention_f16_64, THREADS, 4, attention_arguments, attention_body<kind_f16, 64, 1>)
ENTRY(pw_attention_f16_128, THREADS, 4, attention_arguments, attention_body<kind_f16, 128, 1>)
ENTRY(pw_attention_f16_256, THREADS, 2, attention_arguments, attention_body<kind_f16, 256, 1>)
ENTRY(pw_attention_f16_64_wide, THREADS, 2, attention_arguments, attention_body<kind_f16, 64, 4>)
ENTRY(pw_attention_f16_128_wide, THREADS, 2, attention_arguments,
      attention_body<kind_f16, 128, 4>)
ENTRY(pw_attention_bf16_64, THREADS, 4, attention_arguments, attention_body<kind_bf16, 64, 1>)
ENTRY(pw_attention_bf16_128, THREADS, 4, attention_arguments, attention_body<kind_bf16, 128, 1>)
ENTRY(pw_attention_bf16_256, THREADS, 2, attention_arguments, attention_body<kind_bf16, 256, 1>)
ENTRY(pw_attention_bf16_64_wide, THREADS, 2, attention_arguments,
      attention_body<kind_bf16, 64, 4>)
ENTRY(pw_attention_bf16_128_wide, THREADS, 2, attention_arguments,
      attention_body<kind_bf16, 128, 4>)
ENTRY(pw_attention_f32, THREADS, 2, attention_arguments, attention_body<kind_f32, 256, 1>)
