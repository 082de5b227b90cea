/* attention, before and after: the plan, and the fold of splits.
 *
 * The plan is one block. It goes over the step buffers in the CPU's order, refuses as the CPU
 * does, and leaves for each sequence its first item of each list and the room for its states.
 * A thread takes a sequence, a warp the page ids of one; prefix sums go through shared
 * memory. A sequence is cut into splits while it has fewer units than the device has blocks
 * and while there is room for its states: neither changes a bit.
 * The fold takes a warp for each row, head and 32 dims of sequences that were cut; each works
 * out the factors for itself.
 * Not measured yet.
 */
#include "attention_call.h"
#include "checks.h"

constexpr uint32_t PLAN_THREADS = 512;
constexpr uint32_t FOLD_WARPS = 4;
constexpr uint32_t IDS_AHEAD = 16;   /* page ids of a lane on their way at once */
constexpr uint32_t SPLITS_AHEAD = 8; /* splits of a query on their way at once */

/* ---- checks ---- */

/* The least of all threads' numbers, in every thread. */
static __device__ uint32_t least_of_block(uint32_t number) {
    return least_in_block(reinterpret_cast<uint32_t *>(SHARED()), number);
}

/* Whether starts ascend and stay within `most`; else the first that does not is refused. */
static __device__ bool is_ascending(const attention_arguments &a, uint32_t field,
                                    const uint32_t *starts, uint32_t seqs, uint32_t most) {
    uint32_t bad = PWK_NONE;
    for (uint32_t at = threadIdx.x; at <= seqs; at += PLAN_THREADS) {
        const uint32_t least = at == 0 ? 0 : starts[at - 1];
        if (starts[at] < least || starts[at] > most) {
            bad = bad < at ? bad : at;
        }
    }
    bad = least_of_block(bad);
    if (bad != PWK_NONE) {
        refuse_element(a.launch, field, bad, bad == 0 ? 0 : starts[bad - 1], most, starts[bad]);
    }
    return bad == PWK_NONE;
}

static __device__ bool are_lengths_right(const attention_arguments &a, uint32_t seqs) {
    uint32_t bad = PWK_NONE;
    for (uint32_t seq = threadIdx.x; seq < seqs; seq += PLAN_THREADS) {
        bad = bad == PWK_NONE && a.kv_len[seq] > a.p.kv_len_max ? seq : bad;
    }
    bad = least_of_block(bad);
    if (bad != PWK_NONE) {
        refuse_element(a.launch, ATTENTION_KV_LEN, bad, 0, a.p.kv_len_max, a.kv_len[bad]);
    }
    return bad == PWK_NONE;
}

/* Page ids that a sequence's positions take; its first position is at most its length. */
static __device__ uint32_t needed_of(const attention_arguments &a, uint32_t seq) {
    const uint32_t first = first_of(a, seq), kv_len = a.kv_len[seq], len = a.p.kv.page_len;
    return first == kv_len ? 0 : (kv_len - 1) / len - first / len + 1;
}

static __device__ uint64_t list_length(const attention_arguments &a, uint32_t seq) {
    return a.page_start != nullptr ? a.page_start[seq + 1] - a.page_start[seq]
                                   : a.p.table_width;
}

/* The first bad page id of a sequence among those that lane `lane` of 32 looks at. */
static __device__ uint32_t bad_page(const attention_arguments &a, uint32_t seq, uint32_t lane) {
    const uint64_t listed = listed_of(a, seq);
    const uint32_t needed = needed_of(a, seq);
    for (uint32_t first = lane; first < needed; first += 32 * IDS_AHEAD) {
        uint32_t ids[IDS_AHEAD];
#pragma unroll
        for (uint32_t i = 0; i < IDS_AHEAD; i++) {
            const uint32_t at = first + 32 * i;
            ids[i] = at < needed ? a.page_ids[listed + at] : 0;
        }
#pragma unroll
        for (uint32_t i = 0; i < IDS_AHEAD; i++) {
            if (ids[i] >= a.p.kv.pages) {
                return first + 32 * i;
            }
        }
    }
    return PWK_NONE;
}

static __device__ bool has_pages(const attention_arguments &a, uint32_t seq) {
    return first_of(a, seq) <= a.kv_len[seq] && needed_of(a, seq) <= list_length(a, seq);
}

/* Whether each sequence has its pages; else the first that has not is refused. */
static __device__ bool are_pages_right(const attention_arguments &a, uint32_t seqs) {
    const uint32_t lane = threadIdx.x % 32;
    uint32_t bad = PWK_NONE;
    for (uint32_t seq = threadIdx.x / 32; seq < seqs && bad == PWK_NONE; seq += PLAN_THREADS / 32) {
        if (!has_pages(a, seq) || bad_page(a, seq, lane) != PWK_NONE) {
            bad = seq;
        }
    }
    bad = least_of_block(bad);
    if (bad == PWK_NONE) {
        return true;
    }
    const uint32_t first = first_of(a, bad), kv_len = a.kv_len[bad], len = a.p.kv.page_len;
    if (first > kv_len) {
        refuse_element(a.launch, ATTENTION_FIRST_POSITION, bad, 0, kv_len, first);
    } else if (needed_of(a, bad) > list_length(a, bad)) {
        const uint64_t most = (first / len + list_length(a, bad)) * len;
        refuse_element(a.launch, ATTENTION_KV_LEN, bad, 0, static_cast<int64_t>(most), kv_len);
    } else {
        const uint32_t page = least_of_block(threadIdx.x < 32 ? bad_page(a, bad, lane) : PWK_NONE);
        const uint64_t at = listed_of(a, bad) + page;
        refuse_element(a.launch, ATTENTION_PAGE_IDS, at, 0, int64_t(a.p.kv.pages) - 1,
                       a.page_ids[at]);
    }
    return false;
}

/* ---- the plan ---- */

/* The sum of the numbers of all threads before this one; `total` grows by all of them. */
static __device__ uint64_t sum_before(uint64_t number, uint64_t &total) {
    uint64_t *sums = reinterpret_cast<uint64_t *>(SHARED());
    uint64_t sum = number;
    for (uint32_t step = 1; step < 32; step *= 2) {
        const uint64_t before = __shfl_up_sync(0xffffffffu, sum, step);
        sum += threadIdx.x % 32 >= step ? before : 0;
    }
    __syncthreads();
    if (threadIdx.x % 32 == 31) {
        sums[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    uint64_t before = total;
    for (uint32_t warp = 0; warp < PLAN_THREADS / 32; warp++) {
        before += warp < threadIdx.x / 32 ? sums[warp] : 0;
        total += sums[warp];
    }
    __syncthreads();
    return before + sum - number;
}

/* What a sequence asks for. */
struct asked {
    attention_seq plan;
    uint64_t units;  /* of all heads */
    uint64_t states; /* of all splits of all queries; 0: it is not cut */
    bool wide;
};

static __device__ asked ask(const attention_arguments &a, uint32_t seq) {
    const uint64_t queries = queries_of(a, seq), heads = a.p.kv.kv_heads;
    const int64_t kv_len = a.kv_len[seq];
    int64_t begin = first_of(a, seq);
    if (a.p.window > 0) {
        const int64_t position = kv_len - (a.q_start[seq + 1] - a.q_start[seq]);
        begin = larger_of(begin, position + 1 - int64_t(a.p.window));
    }
    asked is = {};
    is.wide = queries > TILE_QUERIES && wide_queries(a) > TILE_QUERIES;
    const uint32_t unit = is.wide ? wide_queries(a) : TILE_QUERIES;
    is.units = (queries + unit - 1) / unit * heads;
    if (begin < kv_len) {
        is.plan.split_begin = static_cast<uint32_t>(begin / SPLIT);
        is.plan.split_count = static_cast<uint32_t>((kv_len - 1) / SPLIT) + 1 - is.plan.split_begin;
    }
    const bool few = is.units < units_enough(a);
    is.states = few && is.plan.split_count > 1 ? queries * heads * is.plan.split_count : 0;
    return is;
}

static __device__ void attention_plan_body(const attention_arguments &a) {
    const uint32_t seqs = live_in_block(a.launch, ATTENTION_SEQS, a.seqs, a.p.seqs_max);
    attention_plan *plan = plan_of(a);
    const bool right =
        is_ascending(a, ATTENTION_Q_START, a.q_start, seqs, a.p.rows_max) &&
        (a.page_start == nullptr ||
         is_ascending(a, ATTENTION_PAGE_START, a.page_start, seqs, a.p.page_ids_max)) &&
        are_lengths_right(a, seqs) && are_pages_right(a, seqs);
    uint64_t items = 0, wide_items = 0, states = 0;
    for (uint64_t base = 0; right && base < seqs; base += PLAN_THREADS) {
        const uint32_t seq = static_cast<uint32_t>(base) + threadIdx.x;
        asked is = seq < seqs ? ask(a, seq) : asked{};
        const uint64_t state = sum_before(is.states, states);
        const bool cut = is.states > 0 && state + is.states <= a.launch.part;
        const uint64_t own = is.units * (cut ? is.plan.split_count : 1);
        is.plan.states = cut ? state : NO_STATES;
        is.plan.first[0] = sum_before(is.wide ? 0 : own, items);
        is.plan.first[1] = sum_before(is.wide ? own : 0, wide_items);
        if (seq < seqs) {
            seqs_of(a)[seq] = is.plan;
        }
    }
    if (threadIdx.x < 2) {
        plan->items[threadIdx.x] = threadIdx.x == 0 ? items : wide_items;
        plan->taken[threadIdx.x] = 0;
    }
}

/* ---- the fold ---- */

/* The sequence of a row: the last that begins at it or before. */
static __device__ uint32_t seq_of_row(const attention_arguments &a, uint32_t seqs, uint32_t row) {
    uint32_t low = 0, high = seqs;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        (a.q_start[middle] <= row ? low : high) = middle;
    }
    return low;
}

/* Folds the splits of a row and head in dims from `first` on, by a warp, and writes its
 * output. An empty split's values are loaded and not used. */
static __device__ void fold_query(const attention_arguments &a, uint32_t seq, uint32_t row,
                                  uint32_t head, uint32_t first) {
    const attention_seq plan = seqs_of(a)[seq];
    const uint32_t group = group_of(a), dims = a.p.kv.head_dim, dim = first + threadIdx.x % 32;
    const uint64_t query = uint64_t(row - a.q_start[seq]) * group + head % group;
    const float *state = state_of(a, plan, seq, head / group, 0, query);
    const uint64_t stride = queries_of(a, seq) * state_floats(a);
    softmax_state all = softmax_empty();
    float value = 0.0f;
    for (uint32_t split = 0; split < plan.split_count; split += SPLITS_AHEAD) {
        softmax_state later[SPLITS_AHEAD];
        float values[SPLITS_AHEAD];
#pragma unroll
        for (uint32_t i = 0; i < SPLITS_AHEAD; i++, state += stride) {
            const bool some = split + i < plan.split_count;
            later[i] = some ? softmax_state{state[0], state[1]} : softmax_empty();
            values[i] = some && dim < dims ? state[4 + dim] : 0.0f;
        }
#pragma unroll
        for (uint32_t i = 0; i < SPLITS_AHEAD; i++) {
            value = folded(fold_later(all, later[i]), value, values[i]);
        }
    }
    const softmax_end end =
        softmax_ends(all, a.sinks == nullptr ? -PWK_INFINITY : a.sinks[head]);
    if (dim < dims) {
        const uint64_t out = row * a.p.out_row_stride + uint64_t(head) * dims;
        store_float(a.p.out_dtype, a.out, out + dim, ended(end, value));
    }
    if (a.lse != nullptr && dim == 0) {
        a.lse[uint64_t(row) * a.p.q_heads + head] = end.lse;
    }
}

static __device__ void attention_merge_body(const attention_arguments &a) {
    const uint32_t seqs = live(a.launch, ATTENTION_SEQS, a.seqs, a.p.seqs_max);
    if (seqs == 0) {
        return;
    }
    const uint64_t first = uint64_t(a.q_start[0]) * a.p.q_heads;
    const uint64_t last = uint64_t(a.q_start[seqs]) * a.p.q_heads;
    const uint64_t parts = (a.p.kv.head_dim + 31) / 32;
    const uint64_t warps = uint64_t(gridDim.x) * FOLD_WARPS;
    uint64_t item = first * parts + uint64_t(blockIdx.x) * FOLD_WARPS + threadIdx.x / 32;
    for (; item < last * parts; item += warps) {
        const uint64_t query = item / parts;
        const uint32_t row = static_cast<uint32_t>(query / a.p.q_heads);
        const uint32_t seq = seq_of_row(a, seqs, row);
        if (seqs_of(a)[seq].states == NO_STATES) {
            // One that was not cut is passed over at once: it may have as many rows as there are.
            const uint64_t end = uint64_t(a.q_start[seq + 1]) * a.p.q_heads * parts;
            item += (end - 1 - item) / warps * warps;
            continue;
        }
        const uint32_t head = static_cast<uint32_t>(query % a.p.q_heads);
        fold_query(a, seq, row, head, static_cast<uint32_t>(item % parts) * 32);
    }
}

ENTRY(pw_attention_plan, PLAN_THREADS, 1, attention_arguments, attention_plan_body)
ENTRY(pw_attention_merge, 32 * FOLD_WARPS, 8, attention_arguments, attention_merge_body)
