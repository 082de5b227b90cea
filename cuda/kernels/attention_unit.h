/* What a block that attends knows of its unit, and where it keeps that in shared memory. */
#ifndef PAGEWISE_ATTENTION_UNIT_H
#define PAGEWISE_ATTENTION_UNIT_H

#include "attention_kinds.h"
#include "attention_stage.h"

constexpr uint32_t ALL = 0xffffffffu;
constexpr uint32_t KEY_TILES = CHUNK / 8;
constexpr uint32_t SCORE_PITCH = CHUNK + 8;
constexpr uint32_t NOT_SEEN = 0x80000000u; /* the weight of a key not seen: -0 */

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

/* A block at work on its items. Here is where it keeps things; what it does is defined in the
 * files that the declarations name. */
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

    /* attention_load.h: a unit's queries, then keys and values. */
    __device__ __forceinline__ void load_rows();
    __device__ __forceinline__ void load_queries();
    __device__ __forceinline__ void store_query(uint32_t r, float (&x)[DIMS / 32], uint32_t most);
    __device__ __forceinline__ void find_places(uint32_t chunk, uint32_t low, uint32_t high);
    __device__ __forceinline__ void find_scales(uint32_t chunk, uint32_t low, uint32_t high);
    __device__ __forceinline__ void stage_part(const attention_part &part, unsigned char *to,
                                               uint32_t pitch, uint32_t chunk, uint32_t low,
                                               uint32_t high);
    __device__ __forceinline__ void stage_keys(uint32_t chunk, uint32_t low, uint32_t high);
    __device__ __forceinline__ void stage_values(uint32_t chunk, uint32_t low, uint32_t high);

    /* attention_scores.h */
    __device__ __forceinline__ void dots(float (&s)[SCORE_TILES][4]);
    __device__ __forceinline__ void plain_dots(float (&s)[SCORE_TILES][4]);
    __device__ __forceinline__ void all_dots(float (&s)[KEY_TILES][4]);
    __device__ __forceinline__ float slope_of(uint32_t r) const;
    __device__ __forceinline__ void weights(uint32_t half, uint32_t base, float (&s)[KEY_TILES][4],
                                            state &into);

    /* attention_values.h: weighted values, then those that are no finite number. */
    __device__ __forceinline__ uint32_t dim_of(uint32_t n) const;
    __device__ __forceinline__ void weigh(float (&p)[KEY_TILES][4], state &into);
    __device__ __forceinline__ void take_piece(uint32_t (&weight)[4], float (&low)[4],
                                               float (&high)[4]);
    __device__ __forceinline__ void two_pieces(uint32_t &word, float &first, float &second);
    __device__ __forceinline__ void plain_weigh(float (&p)[KEY_TILES][4], state &into);
    __device__ __forceinline__ void add_seen(float &o, float weight, float value);
    __device__ __forceinline__ void clear_bad();
    __device__ __forceinline__ void add_bad(uint32_t chunk, const float (&p)[KEY_TILES][4],
                                            state &into);

    /* attention.cu: a split, the ends of an item, items. */
    __device__ __forceinline__ void split(uint32_t low, uint32_t high, bool careful, state &into);
    __device__ __forceinline__ bool is_marked(const state &of);
    __device__ __forceinline__ bool whole_split(uint32_t number, state &into);
    __device__ __forceinline__ void store_state(const attention_seq &plan, uint32_t number,
                                                bool some, const state &of);
    __device__ __forceinline__ void fold(softmax_state (&all)[2], const state &later);
    __device__ __forceinline__ void finish(const softmax_state (&all)[2]);
    __device__ __forceinline__ uint32_t seq_of(uint64_t item) const;
    __device__ __forceinline__ void name_item();
    __device__ __forceinline__ void attend();
    __device__ __forceinline__ void run();
};

/* What a member of `attending` that is defined outside of it begins with. */
#define ATTENDING(type)                                      \
    template <class Kind, uint32_t DIMS, uint32_t ROW_WARPS> \
    __device__ __forceinline__ type attending<Kind, DIMS, ROW_WARPS>

#endif /* PAGEWISE_ATTENTION_UNIT_H */
