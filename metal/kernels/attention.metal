/* attention: rows of queries over pages of keys and values, by 8 x 8 matrices of f32, held to
 * the rule of errors.
 *
 * Tiling: a threadgroup of four SIMD groups takes 8 queries (a row and a head) that share a
 * head of K, and a split of 256 positions at a time. Scores: a SIMD group takes 32 keys, a
 * lane one of them, 8 dims staged at a time. Weights: sixteen threads for each query, by the
 * contract's sixteen sums. Values: a SIMD group takes a quarter of the dims, 8 keys staged at
 * a time. Splits fold ascending, in registers; or, where there are few queries for many
 * positions, each split has a threadgroup of its own, and states are folded by a launch of
 * their own: the same steps. Prompts and single tokens go the same way, so a row has the same
 * bits in any company: a row of a matrix knows nothing of the others. A value that is not
 * finite is a zero to the matrices; who sees it gets it by plain threads.
 * Memory: 28 KiB of a threadgroup.
 * Emulated; not yet run on Apple hardware. Not measured yet.
 */
#include "attention_call.h"

constant constexpr uint32_t THREADS = 128;
constant constexpr uint32_t SIMDGROUPS = THREADS / 32;
constant constexpr uint32_t QUERIES = 8;                      /* of a threadgroup */
constant constexpr uint32_t LANES = 16;                       /* threads of a query */
constant constexpr uint32_t DIMS_MAX = 256;                   /* of a head */
constant constexpr uint32_t OWN_DIMS = DIMS_MAX / LANES;      /* of a thread at most */
constant constexpr uint32_t VALUE_DIMS = DIMS_MAX / SIMDGROUPS; /* of a SIMD group at most */

/* Threadgroup memory. */
struct attention_desk {
    float q[QUERIES * DIMS_MAX];
    float scores[QUERIES * SPLIT];    /* then weights times scales of values */
    float staged[QUERIES * DIMS_MAX]; /* keys, or values, or sums of weighted values */
    uint64_t value_cells[SPLIT];
    seen_row rows[QUERIES];
    uint32_t seqs[QUERIES];
    uint32_t odd; /* 1: a value of the split is not finite */
};

/* Queries first to last of a threadgroup are of one sequence, and together see positions. */
struct attention_run {
    uint32_t seq;
    uint32_t head; /* of K */
    uint32_t first;
    uint32_t last;
    uint32_t begin;
    uint32_t end;
};

/* A thread's part of the state of its query: dims lane, lane + 16 and so on. */
struct attention_state {
    softmax_state softmax;
    float values[OWN_DIMS];
};

static threadgroup attention_desk *desk_of(Place place) {
    return reinterpret_cast<threadgroup attention_desk *>(SHARED());
}

PWK_FN bool is_finite(float x) { return (PWK_BITS(x) & 0x7f800000u) != 0x7f800000u; }

/* ---- queries ---- */

/* What queries from `query` on see, and their numbers. */
static void load_queries(constant attention_arguments &a, Place place, uint64_t query,
                         uint32_t head, uint32_t seqs) {
    threadgroup attention_desk *desk = desk_of(place);
    const uint32_t group = group_of(a), dims = a.p.kv.head_dim;
    if (place.thread_index < QUERIES) {
        const uint64_t row = (query + place.thread_index) / group;
        const uint32_t seq = seq_of_row(a, seqs, row);
        seen_row seen = {0, 0, ~uint64_t(0), 0, 0};
        if (seq != PWK_NONE) {
            seen = row_of(a, seq, row);
        }
        desk->seqs[place.thread_index] = seq;
        desk->rows[place.thread_index] = seen;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint32_t i = place.thread_index; i < QUERIES * dims; i += THREADS) {
        const uint64_t own = query + i / dims;
        const uint64_t at = own / group * a.p.q_row_stride +
                            (uint64_t(head) * group + own % group) * dims + i % dims;
        const bool there = desk->seqs[i / dims] != PWK_NONE;
        desk->q[i / dims * DIMS_MAX + i % dims] = there ? load_float(a.p.q_dtype, a.q, at) : 0.0f;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

/* The run that begins with query `first`. */
static attention_run run_from(Place place, uint32_t head, uint32_t first) {
    threadgroup attention_desk *desk = desk_of(place);
    attention_run run = {desk->seqs[first], head, first, first, PWK_NONE, 0};
    for (; run.last < QUERIES && desk->seqs[run.last] == run.seq; run.last++) {
        const seen_row seen = desk->rows[run.last];
        if (seen.begin < seen.end) {
            run.begin = seen.begin < run.begin ? seen.begin : run.begin;
            run.end = seen.end > run.end ? seen.end : run.end;
        }
    }
    return run;
}

/* ---- scores ---- */

/* Dot products with 32 keys from position `base` on, a lane's key beside its neighbours'. */
static void score_keys(constant attention_arguments &a, Place place, attention_run run,
                       uint32_t base, threadgroup float *to) {
    threadgroup attention_desk *desk = desk_of(place);
    threadgroup float *staged = desk->staged + place.simdgroup * QUERIES * 32;
    const uint32_t position = base + place.lane;
    const bool there = position >= run.begin && position < run.end;
    const uint64_t cell =
        there ? key_cell(a, run.head, place_of(a, run.seq, position)) : uint64_t(0);
    simdgroup_float8x8 sums[4];
    UNROLLED for (uint32_t j = 0; j < 4; j++) {
        sums[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
    for (uint32_t dim = 0; dim < a.p.kv.head_dim; dim += 8) {
        for (uint32_t i = 0; i < 8; i++) {
            staged[i * 32 + place.lane] = there ? key_of(a, cell, dim + i) : 0.0f;
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_float8x8 left;
        simdgroup_load(left, desk->q + dim, DIMS_MAX);
        UNROLLED for (uint32_t j = 0; j < 4; j++) {
            simdgroup_float8x8 right;
            simdgroup_load(right, staged + j * 8, 32);
            simdgroup_multiply_accumulate(sums[j], left, right, sums[j]);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    UNROLLED for (uint32_t j = 0; j < 4; j++) {
        simdgroup_store(sums[j], to + j * 8, SPLIT);
    }
}

/* A dot product as a score. */
static float score_of(constant attention_arguments &a, attention_run run, seen_row row,
                      uint32_t query_head, uint32_t position, float dot) {
    float score = dot;
    if (a.p.kv.scales != PWK_KV_SCALES_NONE) {
        score *= scale_of(a, run.head, place_of(a, run.seq, position), 0);
    }
    score *= a.p.scale;
    if (a.p.softcap > 0.0f) {
        score = a.p.softcap * pwk_tanh(score / a.p.softcap);
    }
    if (a.slopes != nullptr) {
        const float distance = float(int(int64_t(position) - row.position));
        score = PWK_FMA(a.slopes[query_head], distance, score);
    }
    return score;
}

/* Dot products of a thread's query and every sixteenth key become factors of values. */
static softmax_state weigh(constant attention_arguments &a, Place place, attention_run run,
                           uint32_t base, uint32_t query_head) {
    threadgroup attention_desk *desk = desk_of(place);
    const uint32_t own = place.thread_index / LANES, lane = place.thread_index % LANES;
    threadgroup float *scores = desk->scores + own * SPLIT;
    const seen_row row = desk->rows[own];
    const bool in_run = own >= run.first && own < run.last;
    softmax_state state = softmax_empty();
    for (uint32_t key = lane; key < SPLIT; key += LANES) {
        const bool seen = in_run && sees(row, base + key);
        const float score =
            seen ? score_of(a, run, row, query_head, base + key, scores[key]) : -PWK_INFINITY;
        state.most = pwk_max(state.most, score);
        scores[key] = score;
    }
    for (ushort lanes = 8; lanes > 0; lanes /= 2) {
        state.most = pwk_max(state.most, simd_shuffle_xor(state.most, lanes));
    }
    const float from = state.most == -PWK_INFINITY ? 0.0f : state.most;
    for (uint32_t key = lane; key < SPLIT; key += LANES) {
        const bool seen = in_run && sees(row, base + key);
        float weight = seen ? pwk_exp_below(scores[key] - from) : 0.0f;
        state.sum += weight;
        if (seen && a.p.kv.scales != PWK_KV_SCALES_NONE) {
            weight *= scale_of(a, run.head, place_of(a, run.seq, base + key), 1);
        }
        scores[key] = weight;
    }
    for (ushort lanes = 8; lanes > 0; lanes /= 2) {
        state.sum += simd_shuffle_xor(state.sum, lanes);
    }
    return state;
}

/* ---- values ---- */

/* Values of 8 keys from `key` on, dims [dim, dim + width), `[8][width]`; whether one of a
 * lane's is not finite. */
static bool stage_values(constant attention_arguments &a, Place place, attention_run run,
                         uint32_t base, uint32_t key, uint32_t dim, uint32_t width,
                         threadgroup float *staged) {
    threadgroup attention_desk *desk = desk_of(place);
    bool odd = false;
    for (uint32_t i = place.lane; i < 8 * width; i += 32) {
        const uint32_t own = key + i / width, position = base + own;
        const uint32_t own_dim = dim + i % width;
        const bool there = position >= run.begin && position < run.end && own_dim < a.p.kv.head_dim;
        const float value = there ? value_of(a, desk->value_cells[own], own_dim) : 0.0f;
        odd = odd || !is_finite(value);
        staged[i] = is_finite(value) ? value : 0.0f;
    }
    return odd;
}

/* Weighted values of a split, left in `staged`, `[8][DIMS_MAX]`. */
static void sum_values(constant attention_arguments &a, Place place, attention_run run,
                       uint32_t base) {
    threadgroup attention_desk *desk = desk_of(place);
    threadgroup float *staged = desk->staged + place.simdgroup * 8 * VALUE_DIMS;
    const uint32_t width = (a.p.kv.head_dim / 8 + SIMDGROUPS - 1) / SIMDGROUPS * 8;
    const uint32_t dim = place.simdgroup * width;
    simdgroup_float8x8 sums[VALUE_DIMS / 8];
    UNROLLED for (uint32_t j = 0; j < VALUE_DIMS / 8; j++) {
        sums[j] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    }
    bool odd = false;
    for (uint32_t key = 0; key < SPLIT; key += 8) {
        if (base + key + 8 <= run.begin || base + key >= run.end) {
            continue;
        }
        const bool found = stage_values(a, place, run, base, key, dim, width, staged);
        odd = odd || found;
        simdgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_float8x8 left;
        simdgroup_load(left, desk->scores + key, SPLIT);
        UNROLLED for (uint32_t j = 0; j < VALUE_DIMS / 8; j++) {
            if (j * 8 < width) {
                simdgroup_float8x8 right;
                simdgroup_load(right, staged + j * 8, width);
                simdgroup_multiply_accumulate(sums[j], left, right, sums[j]);
            }
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }
    const bool any = simd_any(odd);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (any && place.lane == 0) {
        atomic_store_explicit(reinterpret_cast<threadgroup atomic_uint *>(&desk->odd), 1u,
                              memory_order_relaxed);
    }
    UNROLLED for (uint32_t j = 0; j < VALUE_DIMS / 8; j++) {
        if (j * 8 < width && dim + j * 8 < a.p.kv.head_dim) {
            simdgroup_store(sums[j], desk->staged + dim + j * 8, DIMS_MAX);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

/* What values that are not finite add to a weighted value of a thread's query. */
static float with_odd_values(constant attention_arguments &a, Place place, attention_run run,
                             uint32_t base, uint32_t dim, float sum) {
    threadgroup attention_desk *desk = desk_of(place);
    const uint32_t own = place.thread_index / LANES;
    for (uint32_t key = 0; key < SPLIT; key++) {
        if (own >= run.first && own < run.last && sees(desk->rows[own], base + key)) {
            const float value = value_of(a, desk->value_cells[key], dim);
            sum = is_finite(value) ? sum : PWK_FMA(desk->scores[own * SPLIT + key], value, sum);
        }
    }
    return sum;
}

/* ---- splits ---- */

/* Folds a split into the state of a thread's query. */
static void fold_split(constant attention_arguments &a, Place place, attention_run run,
                       uint32_t base, uint32_t query_head, thread attention_state &state) {
    threadgroup attention_desk *desk = desk_of(place);
    for (uint32_t key = place.thread_index; key < SPLIT; key += THREADS) {
        if (base + key >= run.begin && base + key < run.end) {
            const kv_place at = place_of(a, run.seq, base + key);
            desk->value_cells[key] = value_cell(a, run.head, at);
        }
    }
    if (place.thread_index == 0) {
        desk->odd = 0;
    }
    for (uint32_t key = place.simdgroup * 32; key < SPLIT; key += SIMDGROUPS * 32) {
        if (base + key + 32 > run.begin && base + key < run.end) {
            score_keys(a, place, run, base + key, desk->scores + key);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const softmax_state later = weigh(a, place, run, base, query_head);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    sum_values(a, place, run, base);
    const softmax_fold fold = fold_later(state.softmax, later);
    const uint32_t own = place.thread_index / LANES;
    for (uint32_t i = 0; i < OWN_DIMS; i++) {
        const uint32_t dim = place.thread_index % LANES + i * LANES;
        if (dim < a.p.kv.head_dim && !fold.nothing) {
            float sum = desk->staged[own * DIMS_MAX + dim];
            if (desk->odd != 0) {
                sum = with_odd_values(a, place, run, base, dim, sum);
            }
            state.values[i] = folded(fold, state.values[i], sum);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

/* Folds what a run sees: of one split, where they are apart, or of all. */
static void fold_run(constant attention_arguments &a, Place place, attention_run run,
                     uint32_t query_head, thread attention_state &state) {
    if (run.begin >= run.end) {
        return;
    }
    const bool apart = a.launch.part != 0;
    const uint32_t first = run.begin / SPLIT, last = (run.end - 1) / SPLIT;
    const uint32_t own = place.group.z;
    if (apart && (own < first || own > last)) {
        return;
    }
    for (uint32_t split = apart ? own : first; split <= (apart ? own : last); split++) {
        fold_split(a, place, run, split * SPLIT, query_head, state);
    }
}

/* ---- the end ---- */

/* Writes a thread's part of an output. */
static void finish(constant attention_arguments &a, Place place, uint64_t row, uint32_t head,
                   thread const attention_state &state) {
    const uint32_t lane = place.thread_index % LANES;
    const softmax_end end = end_of(a, state.softmax, head);
    const uint64_t out = row * a.p.out_row_stride + uint64_t(head) * a.p.kv.head_dim;
    for (uint32_t i = 0; i < OWN_DIMS; i++) {
        const uint32_t dim = lane + i * LANES;
        if (dim < a.p.kv.head_dim) {
            store_float(a.p.out_dtype, a.out, out + dim, ended(end, state.values[i]));
        }
    }
    if (a.lse != nullptr && lane == 0) {
        a.lse[row * a.p.q_heads + head] = end.lse;
    }
}

/* Keeps a thread's part of the state of a split. */
static void keep(constant attention_arguments &a, Place place, uint64_t row, uint32_t head,
                 thread const attention_state &state) {
    const uint32_t lane = place.thread_index % LANES;
    device float *to = state_of(a, row, head, place.group.z);
    for (uint32_t i = 0; i < OWN_DIMS; i++) {
        const uint32_t dim = lane + i * LANES;
        if (dim < a.p.kv.head_dim) {
            to[2 + dim] = state.values[i];
        }
    }
    if (lane == 0) {
        to[0] = state.softmax.most;
        to[1] = state.softmax.sum;
    }
}

PWK_FN void clear_state(thread attention_state &state) {
    state.softmax = softmax_empty();
    for (uint32_t i = 0; i < OWN_DIMS; i++) {
        state.values[i] = 0.0f;
    }
}

static void attention_body(constant attention_arguments &a, Place place) {
    const uint32_t seqs = live(a.launch, place, ATTENTION_SEQS, a.seqs, a.p.seqs_max);
    if (seqs == 0) {
        return;
    }
    const uint32_t group = group_of(a), head = place.group.y;
    const uint64_t end = uint64_t(a.q_start[seqs]) * group;
    const uint64_t stride = uint64_t(place.group_count.x) * QUERIES;
    for (uint64_t query = uint64_t(place.group.x) * QUERIES; query < end; query += stride) {
        load_queries(a, place, query, head, seqs);
        const uint64_t own = query + place.thread_index / LANES;
        const uint32_t query_head = head * group + uint32_t(own % group);
        attention_state state;
        clear_state(state);
        for (uint32_t first = 0; first < QUERIES;) {
            const attention_run run = run_from(place, head, first);
            first = run.last;
            fold_run(a, place, run, query_head, state);
        }
        if (desk_of(place)->seqs[place.thread_index / LANES] == PWK_NONE) {
            /* No row of any sequence. */
        } else if (a.launch.part != 0) {
            keep(a, place, own / group, query_head, state);
        } else {
            finish(a, place, own / group, query_head, state);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
    }
}

/* Sixteen threads fold the splits of a row and head. */
static void merge_body(constant attention_arguments &a, Place place) {
    const uint32_t seqs = live(a.launch, place, ATTENTION_SEQS, a.seqs, a.p.seqs_max);
    if (seqs == 0) {
        return;
    }
    const uint64_t end = uint64_t(a.q_start[seqs]) * a.p.q_heads;
    const uint64_t stride = uint64_t(place.group_count.x) * QUERIES;
    uint64_t query = uint64_t(place.group.x) * QUERIES + place.thread_index / LANES;
    for (; query < end; query += stride) {
        const uint64_t row = query / a.p.q_heads;
        const uint32_t head = uint32_t(query % a.p.q_heads), seq = seq_of_row(a, seqs, row);
        if (seq == PWK_NONE) {
            continue;
        }
        const seen_row seen = row_of(a, seq, row);
        attention_state state;
        clear_state(state);
        for (uint32_t split = seen.begin / SPLIT; uint64_t(split) * SPLIT < seen.end; split++) {
            device const float *from = state_of(a, row, head, split);
            const softmax_state later = {from[0], from[1]};
            const softmax_fold fold = fold_later(state.softmax, later);
            for (uint32_t i = 0; i < OWN_DIMS; i++) {
                const uint32_t dim = place.thread_index % LANES + i * LANES;
                if (dim < a.p.kv.head_dim && !fold.nothing) {
                    state.values[i] = folded(fold, state.values[i], from[2 + dim]);
                }
            }
        }
        finish(a, place, row, head, state);
    }
}

static_assert(sizeof(attention_desk) <= 28 * 1024, "metal/src/lower/attention.rs asks for it");

ENTRY(pw_attention, THREADS, attention_arguments, attention_body)
ENTRY(pw_attention_merge, THREADS, attention_arguments, merge_body)
