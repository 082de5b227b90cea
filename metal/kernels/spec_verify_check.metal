/* spec_verify, before: one threadgroup goes over the step's buffers in the CPU's order, a SIMD
 * group for each sequence, and refuses as the CPU does. Memory: one word.
 * Emulated; not yet run on Apple hardware. Not measured yet.
 */
#include "spec_verify_call.h"
#include "vocabulary.h"

constant constexpr uint32_t POSITION_MAX = 0x7fffffff; /* of a request */
constant constexpr uint32_t CHECKERS = 256;

/* The first fault of a sequence's node: its buffer, and what is allowed there. */
struct node_fault {
    uint32_t field; /* PWK_NONE: none */
    int64_t most;
    uint32_t got;
};

/* Of its token and its parent. A root has neither. */
static node_fault fault_of_node(constant spec_verify_arguments &a, uint32_t first,
                                uint32_t node) {
    const uint32_t at = first + node;
    if (node > 0 && a.tokens[at] >= a.p.vocab) {
        return {VERIFY_TOKENS_FIELD, int64_t(a.p.vocab) - 1, a.tokens[at]};
    }
    if (node > 0 && a.parents != nullptr && a.parents[at] >= node) {
        return {VERIFY_PARENTS, int64_t(node) - 1, a.parents[at]};
    }
    return {PWK_NONE, 0, 0};
}

static bool is_sampled_wrong(constant spec_verify_arguments &a, uint32_t at) {
    return a.sampled != nullptr && a.sampled[at] >= a.p.vocab && a.sampled[at] != PWK_NONE;
}

/* Tells the first thing that is wrong with a sequence, by one thread. */
static void refuse_sequence(constant spec_verify_arguments &a, Place place, uint32_t sequence) {
    const uint32_t first = a.node_start[sequence], end = a.node_start[sequence + 1];
    for (uint32_t at = first; at < end; at++) {
        const node_fault fault = fault_of_node(a, first, at - first);
        if (fault.field != PWK_NONE) {
            refuse_element(a.launch, place, fault.field, at, 0, fault.most, fault.got);
            return;
        }
    }
    for (uint32_t at = first; at < end; at++) {
        if (is_sampled_wrong(a, at)) {
            refuse_element(a.launch, place, VERIFY_SAMPLED, at, 0, int64_t(a.p.vocab) - 1,
                           a.sampled[at]);
            return;
        }
    }
}

/* Where a sequence that begins there may end at most. */
static uint32_t end_most(constant spec_verify_arguments &a, uint32_t start) {
    const uint32_t end = start + PWK_TREE_NODES_MAX;
    return end < a.p.nodes_max ? end : a.p.nodes_max;
}

/* Starts of sequences that are not from 0 by 1 to 64. */
struct is_start_wrong {
    constant spec_verify_arguments *a;

    bool operator()(uint32_t i) const {
        const uint32_t start = a->node_start[i];
        if (i == 0) {
            return start != 0;
        }
        const uint32_t before = a->node_start[i - 1];
        return start <= before || start > end_most(*a, before);
    }
};

static bool are_starts_fine(constant spec_verify_arguments &a, Place place, uint32_t sequences) {
    device const uint32_t *starts = a.node_start;
    const is_start_wrong bad = {&a};
    const uint32_t at = first_where(place, check_word(place), sequences + 1, bad);
    if (at == PWK_NONE) {
        return true;
    }
    const int64_t least = at == 0 ? 0 : int64_t(starts[at - 1]) + 1;
    const int64_t most = at == 0 ? 0 : int64_t(end_most(a, starts[at - 1]));
    refuse_element(a.launch, place, VERIFY_NODE_START, at, least, most, starts[at]);
    return false;
}

/* Requests that begin too late. */
struct is_request_wrong {
    device const pwk_verify_request *requests;

    bool operator()(uint32_t i) const { return requests[i].position > POSITION_MAX; }
};

static void check_body(constant spec_verify_arguments &a, Place place) {
    const uint32_t sequences =
        live_in_block(a.launch, place, VERIFY_SEQUENCES, a.sequences, a.p.sequences_max);
    if (is_refused_in_block(a.launch, place) || !are_starts_fine(a, place, sequences)) {
        return;
    }
    uint32_t wrong = PWK_NONE;
    for (uint32_t sequence = place.simdgroup; sequence < sequences && wrong == PWK_NONE;
         sequence += CHECKERS / LANES) {
        const uint32_t first = a.node_start[sequence], end = a.node_start[sequence + 1];
        for (uint32_t at = first + place.lane; at < end; at += LANES) {
            const bool fine = fault_of_node(a, first, at - first).field == PWK_NONE &&
                              !is_sampled_wrong(a, at);
            wrong = fine ? wrong : sequence;
        }
    }
    wrong = least_in_block(place, check_word(place), wrong);
    if (wrong != PWK_NONE) {
        if (place.thread_index == 0) {
            refuse_sequence(a, place, wrong);
        }
        return;
    }
    if (a.requests == nullptr) {
        return;
    }
    const is_request_wrong bad = {a.requests};
    const uint32_t at = first_where(place, check_word(place), sequences, bad);
    if (at != PWK_NONE) {
        refuse_element(a.launch, place, VERIFY_REQUESTS, at, 0, POSITION_MAX,
                       a.requests[at].position);
    }
}

ENTRY(pw_spec_verify_check, CHECKERS, spec_verify_arguments, check_body)
