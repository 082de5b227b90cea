/* attention, before: one threadgroup goes over the step buffers in the CPU's order and refuses
 * as the CPU does. A thread takes a sequence, a SIMD group the page ids of one. Memory: a word
 * for each SIMD group. Emulated; not yet run on Apple hardware. Not measured yet.
 */
#include "attention_call.h"

constant constexpr uint32_t THREADS = 512;

/* The least of all threads' numbers, in every thread. */
static uint32_t least_of_group(Place place, uint32_t number) {
    threadgroup uint32_t *each = reinterpret_cast<threadgroup uint32_t *>(SHARED());
    number = simd_min(number);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (place.lane == 0) {
        each[place.simdgroup] = number;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint32_t i = 0; i < THREADS / 32; i++) {
        number = each[i] < number ? each[i] : number;
    }
    return number;
}

static void refuse_element(constant attention_arguments &a, Place place, uint32_t field,
                           uint64_t at, int64_t least, int64_t most, int64_t got) {
    if (place.thread_index == 0) {
        refuse(a.launch, PWK_FAULT_ELEMENT, field, at, least, most, got);
    }
}

/* Whether starts ascend and stay within `most`; else the first that does not is refused. */
static bool is_ascending(constant attention_arguments &a, Place place, uint32_t field,
                         device const uint32_t *starts, uint32_t seqs, uint32_t most) {
    uint32_t bad = PWK_NONE;
    for (uint32_t at = place.thread_index; at <= seqs && bad == PWK_NONE; at += THREADS) {
        const uint32_t least = at == 0 ? 0 : starts[at - 1];
        bad = starts[at] < least || starts[at] > most ? at : bad;
    }
    bad = least_of_group(place, bad);
    if (bad != PWK_NONE) {
        refuse_element(a, place, field, bad, bad == 0 ? 0 : starts[bad - 1], most, starts[bad]);
    }
    return bad == PWK_NONE;
}

static bool are_lengths_right(constant attention_arguments &a, Place place, uint32_t seqs) {
    uint32_t bad = PWK_NONE;
    for (uint32_t seq = place.thread_index; seq < seqs && bad == PWK_NONE; seq += THREADS) {
        bad = a.kv_len[seq] > a.p.kv_len_max ? seq : bad;
    }
    bad = least_of_group(place, bad);
    if (bad != PWK_NONE) {
        refuse_element(a, place, ATTENTION_KV_LEN, bad, 0, a.p.kv_len_max, a.kv_len[bad]);
    }
    return bad == PWK_NONE;
}

/* Page ids that a sequence's positions take; its first position is at most its length. */
static uint32_t needed_of(constant attention_arguments &a, uint32_t seq) {
    const uint32_t first = first_of(a, seq), kv_len = a.kv_len[seq], len = a.p.kv.page_len;
    return first == kv_len ? 0 : (kv_len - 1) / len - first / len + 1;
}

static uint64_t list_length(constant attention_arguments &a, uint32_t seq) {
    return a.page_start != nullptr ? a.page_start[seq + 1] - a.page_start[seq]
                                   : a.p.table_width;
}

static bool has_pages(constant attention_arguments &a, uint32_t seq) {
    return first_of(a, seq) <= a.kv_len[seq] && needed_of(a, seq) <= list_length(a, seq);
}

/* The first bad page id of a sequence among those that a lane looks at. */
static uint32_t bad_page(constant attention_arguments &a, uint32_t seq, uint32_t lane) {
    const uint64_t listed = listed_of(a, seq);
    const uint32_t needed = needed_of(a, seq);
    for (uint32_t at = lane; at < needed; at += 32) {
        if (a.page_ids[listed + at] >= a.p.kv.pages) {
            return at;
        }
    }
    return PWK_NONE;
}

/* Whether each sequence has its pages; else the first that has not is refused. */
static bool are_pages_right(constant attention_arguments &a, Place place, uint32_t seqs) {
    uint32_t bad = PWK_NONE;
    for (uint32_t seq = place.simdgroup; seq < seqs && bad == PWK_NONE; seq += THREADS / 32) {
        const bool right = has_pages(a, seq) && bad_page(a, seq, place.lane) == PWK_NONE;
        bad = right ? bad : seq;
    }
    bad = least_of_group(place, bad);
    if (bad == PWK_NONE) {
        return true;
    }
    const uint32_t first = first_of(a, bad), kv_len = a.kv_len[bad], len = a.p.kv.page_len;
    if (first > kv_len) {
        refuse_element(a, place, ATTENTION_FIRST_POSITION, bad, 0, kv_len, first);
    } else if (needed_of(a, bad) > list_length(a, bad)) {
        const uint64_t most = (first / len + list_length(a, bad)) * len;
        refuse_element(a, place, ATTENTION_KV_LEN, bad, 0, int64_t(most), kv_len);
    } else {
        const uint32_t own = place.simdgroup == 0 ? bad_page(a, bad, place.lane) : PWK_NONE;
        const uint64_t at = listed_of(a, bad) + least_of_group(place, own);
        refuse_element(a, place, ATTENTION_PAGE_IDS, at, 0, int64_t(a.p.kv.pages) - 1,
                       a.page_ids[at]);
    }
    return false;
}

static void check_body(constant attention_arguments &a, Place place) {
    const uint32_t seqs = live(a.launch, place, ATTENTION_SEQS, a.seqs, a.p.seqs_max);
    if (!is_ascending(a, place, ATTENTION_Q_START, a.q_start, seqs, a.p.rows_max)) {
        return;
    }
    if (a.page_start != nullptr &&
        !is_ascending(a, place, ATTENTION_PAGE_START, a.page_start, seqs, a.p.page_ids_max)) {
        return;
    }
    if (are_lengths_right(a, place, seqs)) {
        are_pages_right(a, place, seqs);
    }
}

ENTRY(pw_attention_check, THREADS, attention_arguments, check_body)
