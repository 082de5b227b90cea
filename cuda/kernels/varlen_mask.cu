/* varlen_mask: what each row of a step sees, in whole numbers.
 *
 * Launches: 1. one block goes over the step's buffers, a warp for each sequence. 2. A thread for
 * each row, which finds its sequence and its document by halving, and the way up its tree.
 * Memory: a word shared.
 * Not measured yet.
 */
#include "checks.h"

struct varlen_mask_arguments {
    pwk_varlen_mask p;
    const uint32_t *row_start;
    const uint32_t *lengths;
    const uint32_t *prefixes;
    const uint32_t *document_start;
    const uint32_t *documents;
    const uint32_t *tree_nodes;
    const uint32_t *parents;
    const uint32_t *sequences;
    uint32_t *intervals;
    unsigned long long *tree_bits;
    uint32_t *positions;
    pwk_launch launch;
};

/* Places among the buffers. */
constexpr uint32_t MASK_ROW_START = 0;
constexpr uint32_t MASK_LENGTHS = 1;
constexpr uint32_t MASK_PREFIXES = 2;
constexpr uint32_t MASK_DOCUMENT_START = 3;
constexpr uint32_t MASK_DOCUMENTS = 4;
constexpr uint32_t MASK_TREE_NODES = 5;
constexpr uint32_t MASK_PARENTS = 6;
constexpr uint32_t MASK_SEQUENCES = 7;

constexpr uint32_t LENGTH_MAX = 0x7fffffffu; /* of a sequence */

/* How many of some ascending numbers are at most x. */
static __device__ uint32_t count_up_to(const uint32_t *numbers, uint32_t count, uint32_t x) {
    uint32_t first = 0;
    while (count > 0) {
        const uint32_t half = count / 2;
        const bool within = numbers[first + half] <= x;
        first = within ? first + half + 1 : first;
        count = within ? count - half - 1 : half;
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

    __device__ mask_sequence(const varlen_mask_arguments &a, uint32_t sequence)
        : first(a.row_start[sequence]),
          end(a.row_start[sequence + 1]),
          length(a.lengths[sequence]),
          prefix(a.prefixes == nullptr ? 0 : a.prefixes[sequence]),
          nodes(a.tree_nodes == nullptr ? 0 : a.tree_nodes[sequence]),
          document(a.document_start == nullptr ? 0 : a.document_start[sequence]),
          documents(a.document_start == nullptr ? 0
                                                : a.document_start[sequence + 1] - document) {}

    __device__ uint32_t nodes_most() const {
        const uint32_t rows = end - first;
        return rows < PWK_TREE_NODES_MAX ? rows : PWK_TREE_NODES_MAX;
    }
};

/* ---- 1: checks ---- */

static __device__ bool is_document_wrong(const varlen_mask_arguments &a,
                                         const mask_sequence &own, uint32_t i) {
    const uint32_t at = own.document + i, begin = a.documents[at];
    return begin >= own.length || (i > 0 && begin <= a.documents[at - 1]);
}

/* A parent comes before its child; a root is the first. */
static __device__ bool is_parent_wrong(const varlen_mask_arguments &a, const mask_sequence &own,
                                       uint32_t node) {
    const uint32_t parent = a.parents[own.end - own.nodes + node];
    return parent != PWK_NO_PARENT && parent >= node;
}

/* Whether a warp finds anything wrong with a sequence. */
static __device__ bool is_sequence_wrong(const varlen_mask_arguments &a,
                                         const mask_sequence &own) {
    bool wrong = own.length < own.end - own.first || own.length > LENGTH_MAX ||
                 own.prefix > own.length || own.nodes > own.nodes_most();
    for (uint32_t i = threadIdx.x % 32; i < own.documents && !wrong; i += 32) {
        wrong = is_document_wrong(a, own, i);
    }
    if (own.nodes <= own.nodes_most()) {
        for (uint32_t i = threadIdx.x % 32; i < own.nodes && !wrong; i += 32) {
            wrong = is_parent_wrong(a, own, i);
        }
    }
    return __any_sync(0xffffffffu, wrong) != 0;
}

/* Tells the first thing that is wrong with a sequence, by one thread. */
static __device__ void refuse_sequence(const varlen_mask_arguments &a, uint32_t sequence) {
    const mask_sequence own(a, sequence);
    const pwk_launch &launch = a.launch;
    const uint32_t rows = own.end - own.first;
    if (own.length < rows || own.length > LENGTH_MAX) {
        refuse_element(launch, MASK_LENGTHS, sequence, rows, LENGTH_MAX, own.length);
        return;
    }
    if (own.prefix > own.length) {
        refuse_element(launch, MASK_PREFIXES, sequence, 0, own.length, own.prefix);
        return;
    }
    for (uint32_t i = 0; i < own.documents; i++) {
        if (is_document_wrong(a, own, i)) {
            const uint32_t at = own.document + i;
            const int64_t least = i > 0 ? int64_t(a.documents[at - 1]) + 1 : 0;
            refuse_element(launch, MASK_DOCUMENTS, at, least, int64_t(own.length) - 1,
                           a.documents[at]);
            return;
        }
    }
    if (own.nodes > own.nodes_most()) {
        refuse_element(launch, MASK_TREE_NODES, sequence, 0, own.nodes_most(), own.nodes);
        return;
    }
    for (uint32_t node = 0; node < own.nodes; node++) {
        if (is_parent_wrong(a, own, node)) {
            const uint32_t at = own.end - own.nodes + node;
            const int64_t least = node == 0 ? int64_t(PWK_NO_PARENT) : 0;
            const int64_t most = node == 0 ? int64_t(PWK_NO_PARENT) : int64_t(node) - 1;
            refuse_element(launch, MASK_PARENTS, at, least, most, a.parents[at]);
            return;
        }
    }
}

/* Offsets that ascend from 0. */
static __device__ bool are_offsets_fine(const varlen_mask_arguments &a, uint32_t field,
                                        uint32_t *found, const uint32_t *offsets,
                                        uint32_t sequences, uint32_t most) {
    if (offsets[0] != 0) {
        refuse_element(a.launch, field, 0, 0, 0, offsets[0]);
        return false;
    }
    return ascends(a.launch, field, found, offsets, sequences + 1, most);
}

static __device__ void check_body(const varlen_mask_arguments &a) {
    uint32_t *found = reinterpret_cast<uint32_t *>(SHARED());
    const uint32_t sequences =
        live_in_block(a.launch, MASK_SEQUENCES, a.sequences, a.p.sequences_max);
    if (is_refused_in_block(a.launch) ||
        !are_offsets_fine(a, MASK_ROW_START, found, a.row_start, sequences, a.p.rows_max)) {
        return;
    }
    if (a.document_start != nullptr &&
        !are_offsets_fine(a, MASK_DOCUMENT_START, found, a.document_start, sequences,
                          a.p.documents_max)) {
        return;
    }
    uint32_t wrong = PWK_NONE;
    for (uint32_t at = threadIdx.x / 32; at < sequences && wrong == PWK_NONE;
         at += blockDim.x / 32) {
        wrong = is_sequence_wrong(a, mask_sequence(a, at)) ? at : PWK_NONE;
    }
    wrong = least_in_block(found, wrong);
    if (wrong != PWK_NONE && threadIdx.x == 0) {
        refuse_sequence(a, wrong);
    }
}

/* ---- 2: rows ---- */

/* What a row sees. */
struct seen {
    uint32_t position;
    uint32_t begin;
    uint32_t end;
    unsigned long long bits;
};

/* The first position that a row may see, within its document. */
static __device__ uint32_t begin_of(uint32_t window, uint32_t document, uint32_t position) {
    const uint32_t recent =
        window == 0 || position + 1 < window ? 0 : position + 1 - window;
    return document > recent ? document : recent;
}

static __device__ seen seen_by_row(const varlen_mask_arguments &a, const mask_sequence &own,
                                   uint32_t row) {
    const uint32_t position = own.length - own.end + row;
    const uint32_t *documents = a.documents + own.document;
    const uint32_t next = count_up_to(documents, own.documents, position);
    const uint32_t document = next == 0 ? 0 : documents[next - 1];
    const uint32_t document_end = next < own.documents ? documents[next] : own.length;
    const uint32_t prefix = own.prefix < document_end ? own.prefix : document_end;
    const uint32_t end = prefix > position + 1 ? prefix : position + 1;
    return {position, begin_of(a.p.window, document, position), end, 0};
}

static __device__ seen seen_by_node(const varlen_mask_arguments &a, const mask_sequence &own,
                                    uint32_t node) {
    const uint32_t start = own.length - own.nodes;
    const uint32_t *parents = a.parents + (own.end - own.nodes);
    const uint32_t *documents = a.documents + own.document;
    const uint32_t next = count_up_to(documents, own.documents, start);
    const uint32_t document = next == 0 ? 0 : documents[next - 1];
    uint32_t depth = 0;
    for (uint32_t above = parents[node]; above != PWK_NO_PARENT; above = parents[above]) {
        depth++;
    }
    const uint32_t position = start + depth;
    const uint32_t begin = begin_of(a.p.window, document, position);
    unsigned long long bits = 1ull << node;
    // A window shorter than the path drops the nodes at its top.
    uint32_t above = parents[node];
    for (uint32_t place = position; above != PWK_NO_PARENT && place > begin; place--) {
        bits |= 1ull << above;
        above = parents[above];
    }
    return {position, begin < start ? begin : start, start, bits};
}

static __device__ void rows_body(const varlen_mask_arguments &a) {
    const uint32_t sequences = live(a.launch, MASK_SEQUENCES, a.sequences, a.p.sequences_max);
    const uint64_t rows = sequences == 0 ? 0 : a.row_start[sequences];
    const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
    for (uint64_t at = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; at < rows; at += step) {
        const uint32_t row = uint32_t(at);
        // The last that starts at or before it: those before that one at the same are empty.
        const mask_sequence own(a, count_up_to(a.row_start, sequences, row) - 1);
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

ENTRY(pw_varlen_mask_check, 256, 1, varlen_mask_arguments, check_body)
ENTRY(pw_varlen_mask, 128, 8, varlen_mask_arguments, rows_body)
