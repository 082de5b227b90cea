/* varlen_mask: what each row of a step sees, in whole numbers.
 *
 * Launches: 1. one threadgroup goes over the step's buffers, a SIMD group for each sequence.
 * 2. A thread for each row, which finds its sequence and its document by halving, and the way
 * up its tree. Memory: a word of a threadgroup.
 * Emulated; not yet run on Apple hardware.
 */
#include "checks.h"

struct varlen_mask_arguments {
    pwk_varlen_mask p;
    device const uint32_t *row_start;
    device const uint32_t *lengths;
    device const uint32_t *prefixes;
    device const uint32_t *document_start;
    device const uint32_t *documents;
    device const uint32_t *tree_nodes;
    device const uint32_t *parents;
    device const uint32_t *sequences;
    device uint32_t *intervals;
    device uint64_t *tree_bits;
    device uint32_t *positions;
    launch_of_call launch;
};

/* Places among the buffers. */
constant constexpr uint32_t MASK_ROW_START = 0;
constant constexpr uint32_t MASK_LENGTHS = 1;
constant constexpr uint32_t MASK_PREFIXES = 2;
constant constexpr uint32_t MASK_DOCUMENT_START = 3;
constant constexpr uint32_t MASK_DOCUMENTS = 4;
constant constexpr uint32_t MASK_TREE_NODES = 5;
constant constexpr uint32_t MASK_PARENTS = 6;
constant constexpr uint32_t MASK_SEQUENCES = 7;

constant constexpr uint32_t CHECKERS = 256;
constant constexpr uint32_t THREADS = 128;
constant constexpr uint32_t LANES = 32;              /* of a SIMD group */
constant constexpr uint32_t LENGTH_MAX = 0x7fffffff; /* of a sequence */

/* How many of some ascending numbers are at most x. */
static uint32_t count_up_to(device const uint32_t *numbers, uint32_t count, uint32_t x) {
    uint32_t first = 0;
    while (count > 0) {
        const uint32_t middle = count / 2;
        const bool within = numbers[first + middle] <= x;
        first = within ? first + middle + 1 : first;
        count = within ? count - middle - 1 : middle;
    }
    return first;
}

/* One sequence of a step whose starts ascend. */
struct mask_sequence {
    uint32_t first; /* row */
    uint32_t end;
    uint32_t length;
    uint32_t prefix;
    uint32_t nodes;
    uint32_t document; /* first boundary */
    uint32_t documents;
};

static mask_sequence sequence_at(constant varlen_mask_arguments &a, uint32_t sequence) {
    mask_sequence own = {a.row_start[sequence], a.row_start[sequence + 1], a.lengths[sequence],
                         0, 0, 0, 0};
    own.prefix = a.prefixes == nullptr ? 0 : a.prefixes[sequence];
    own.nodes = a.tree_nodes == nullptr ? 0 : a.tree_nodes[sequence];
    if (a.document_start != nullptr) {
        own.document = a.document_start[sequence];
        own.documents = a.document_start[sequence + 1] - own.document;
    }
    return own;
}

static uint32_t nodes_most(thread const mask_sequence &own) {
    const uint32_t rows = own.end - own.first;
    return rows < PWK_TREE_NODES_MAX ? rows : PWK_TREE_NODES_MAX;
}

/* ---- 1: checks ---- */

static bool is_document_wrong(constant varlen_mask_arguments &a, thread const mask_sequence &own,
                              uint32_t i) {
    const uint32_t at = own.document + i, begin = a.documents[at];
    return begin >= own.length || (i > 0 && begin <= a.documents[at - 1]);
}

/* A parent comes before its child; a root is the first. */
static bool is_parent_wrong(constant varlen_mask_arguments &a, thread const mask_sequence &own,
                            uint32_t node) {
    const uint32_t parent = a.parents[own.end - own.nodes + node];
    return parent != PWK_NO_PARENT && parent >= node;
}

/* Whether a SIMD group finds anything wrong with a sequence. */
static bool is_sequence_wrong(constant varlen_mask_arguments &a, Place place,
                              thread const mask_sequence &own) {
    bool wrong = own.length < own.end - own.first || own.length > LENGTH_MAX ||
                 own.prefix > own.length || own.nodes > nodes_most(own);
    for (uint32_t i = place.lane; i < own.documents && !wrong; i += LANES) {
        wrong = is_document_wrong(a, own, i);
    }
    const uint32_t nodes = own.nodes <= nodes_most(own) ? own.nodes : 0;
    for (uint32_t i = place.lane; i < nodes && !wrong; i += LANES) {
        wrong = is_parent_wrong(a, own, i);
    }
    return simd_any(wrong);
}

/* Tells the first thing that is wrong with a sequence, by one thread. */
static void refuse_sequence(constant varlen_mask_arguments &a, Place place, uint32_t sequence) {
    const mask_sequence own = sequence_at(a, sequence);
    constant launch_of_call &launch = a.launch;
    const uint32_t rows = own.end - own.first;
    if (own.length < rows || own.length > LENGTH_MAX) {
        refuse_element(launch, place, MASK_LENGTHS, sequence, rows, LENGTH_MAX, own.length);
        return;
    }
    if (own.prefix > own.length) {
        refuse_element(launch, place, MASK_PREFIXES, sequence, 0, own.length, own.prefix);
        return;
    }
    for (uint32_t i = 0; i < own.documents; i++) {
        if (is_document_wrong(a, own, i)) {
            const uint32_t at = own.document + i;
            const int64_t least = i > 0 ? int64_t(a.documents[at - 1]) + 1 : 0;
            refuse_element(launch, place, MASK_DOCUMENTS, at, least, int64_t(own.length) - 1,
                           a.documents[at]);
            return;
        }
    }
    if (own.nodes > nodes_most(own)) {
        refuse_element(launch, place, MASK_TREE_NODES, sequence, 0, nodes_most(own), own.nodes);
        return;
    }
    for (uint32_t node = 0; node < own.nodes; node++) {
        if (is_parent_wrong(a, own, node)) {
            const uint32_t at = own.end - own.nodes + node;
            const int64_t least = node == 0 ? int64_t(PWK_NO_PARENT) : 0;
            const int64_t most = node == 0 ? int64_t(PWK_NO_PARENT) : int64_t(node) - 1;
            refuse_element(launch, place, MASK_PARENTS, at, least, most, a.parents[at]);
            return;
        }
    }
}

/* Offsets that ascend from 0. */
static bool are_offsets_fine(constant varlen_mask_arguments &a, Place place, uint32_t field,
                             device const uint32_t *offsets, uint32_t sequences, uint32_t most) {
    if (offsets[0] != 0) {
        refuse_element(a.launch, place, field, 0, 0, 0, offsets[0]);
        return false;
    }
    return ascends(a.launch, place, check_word(place), field, offsets, sequences + 1, most);
}

static void check_body(constant varlen_mask_arguments &a, Place place) {
    const uint32_t sequences =
        live_in_block(a.launch, place, MASK_SEQUENCES, a.sequences, a.p.sequences_max);
    if (is_refused_in_block(a.launch, place) ||
        !are_offsets_fine(a, place, MASK_ROW_START, a.row_start, sequences, a.p.rows_max)) {
        return;
    }
    if (a.document_start != nullptr &&
        !are_offsets_fine(a, place, MASK_DOCUMENT_START, a.document_start, sequences,
                          a.p.documents_max)) {
        return;
    }
    uint32_t first = PWK_NONE;
    for (uint32_t at = place.simdgroup; at < sequences; at += CHECKERS / LANES) {
        const mask_sequence own = sequence_at(a, at);
        if (is_sequence_wrong(a, place, own)) {
            first = at;
            break;
        }
    }
    first = least_in_block(place, check_word(place), first);
    if (first != PWK_NONE && place.thread_index == 0) {
        refuse_sequence(a, place, first);
    }
}

/* ---- 2: rows ---- */

/* What a row sees. */
struct seen {
    uint32_t position;
    uint32_t begin;
    uint32_t end;
    uint64_t bits;
};

/* The first position that a row may see, within its document. */
static uint32_t begin_of(uint32_t window, uint32_t document, uint32_t position) {
    const uint32_t recent =
        window == 0 || position + 1 < window ? 0 : position + 1 - window;
    return document > recent ? document : recent;
}

static seen seen_by_row(constant varlen_mask_arguments &a, thread const mask_sequence &own,
                        uint32_t row) {
    const uint32_t position = own.length - own.end + row;
    device const uint32_t *documents = a.documents + own.document;
    const uint32_t next = count_up_to(documents, own.documents, position);
    const uint32_t document = next == 0 ? 0 : documents[next - 1];
    const uint32_t document_end = next < own.documents ? documents[next] : own.length;
    const uint32_t prefix = own.prefix < document_end ? own.prefix : document_end;
    const uint32_t end = prefix > position + 1 ? prefix : position + 1;
    return {position, begin_of(a.p.window, document, position), end, 0};
}

static seen seen_by_node(constant varlen_mask_arguments &a, thread const mask_sequence &own,
                         uint32_t node) {
    const uint32_t start = own.length - own.nodes;
    device const uint32_t *parents = a.parents + (own.end - own.nodes);
    device const uint32_t *documents = a.documents + own.document;
    const uint32_t next = count_up_to(documents, own.documents, start);
    const uint32_t document = next == 0 ? 0 : documents[next - 1];
    uint32_t depth = 0;
    for (uint32_t above = parents[node]; above != PWK_NO_PARENT; above = parents[above]) {
        depth++;
    }
    const uint32_t position = start + depth;
    const uint32_t begin = begin_of(a.p.window, document, position);
    uint64_t bits = uint64_t(1) << node;
    /* A window shorter than the path drops the nodes at its top. */
    uint32_t above = parents[node];
    for (uint32_t at = position; above != PWK_NO_PARENT && at > begin; at--) {
        bits |= uint64_t(1) << above;
        above = parents[above];
    }
    return {position, begin < start ? begin : start, start, bits};
}

static void rows_body(constant varlen_mask_arguments &a, Place place) {
    const uint32_t sequences =
        live(a.launch, place, MASK_SEQUENCES, a.sequences, a.p.sequences_max);
    const uint64_t rows = sequences == 0 ? 0 : a.row_start[sequences];
    const uint64_t threads = uint64_t(place.group_count.x) * THREADS;
    uint64_t at = uint64_t(place.group.x) * THREADS + place.thread_index;
    for (; at < rows; at += threads) {
        const uint32_t row = uint32_t(at);
        /* The last that starts at or before it: those before that one at the same are empty. */
        const mask_sequence own = sequence_at(a, count_up_to(a.row_start, sequences, row) - 1);
        const uint32_t nodes = own.end - own.nodes;
        const seen sees =
            row < nodes ? seen_by_row(a, own, row) : seen_by_node(a, own, row - nodes);
        a.intervals[at * 2] = sees.begin;
        a.intervals[at * 2 + 1] = sees.end;
        if (a.tree_bits != nullptr) {
            a.tree_bits[at] = sees.bits;
        }
        if (a.positions != nullptr) {
            a.positions[at] = sees.position;
        }
    }
}

ENTRY(pw_varlen_mask_check, CHECKERS, varlen_mask_arguments, check_body)
ENTRY(pw_varlen_mask, THREADS, varlen_mask_arguments, rows_body)
