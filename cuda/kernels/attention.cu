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
#include "attention_load.h"
#include "attention_scores.h"
#include "attention_values.h"

/* ---- a split ---- */

/* The softmax of positions `low` to `high`, which lie in one split. */
ATTENDING(void)::split(uint32_t low, uint32_t high, bool careful, state &into) {
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
ATTENDING(bool)::is_marked(const state &of) {
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
ATTENDING(bool)::whole_split(uint32_t number, state &into) {
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
ATTENDING(void)::store_state(const attention_seq &plan, uint32_t number, bool some,
                             const state &of) {
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
ATTENDING(void)::fold(softmax_state (&all)[2], const state &later) {
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

ATTENDING(void)::finish(const softmax_state (&all)[2]) {
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
ATTENDING(uint32_t)::seq_of(uint64_t item) const {
    const attention_seq *plans = seqs_of(a);
    uint32_t low = 0, high = a.seqs == nullptr ? a.p.seqs_max : *a.seqs;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        (plans[middle].first[LIST] <= item ? low : high) = middle;
    }
    return low;
}

/* Says what an item is, by one thread. */
ATTENDING(void)::name_item() {
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

ATTENDING(void)::attend() {
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
ATTENDING(void)::run() {
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
