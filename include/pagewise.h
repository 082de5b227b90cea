/* pagewise.h: kernels for rollouts, behind a C ABI.
 *
 * Every kernel is used in the same three steps:
 *
 *   query   is this call served, and what does it take? Launches nothing.
 *   plan    lengths on the host become bytes of yours, which may be moved and copied.
 *   run     enqueues the work. Allocates nothing, keeps nothing, prints nothing.
 *
 * You own all memory: buffers, plans, workspaces. Only handles (pw_device) are created and
 * destroyed. A device may be used by any thread; a plan and a workspace by one run at a time.
 *
 * A struct that may grow begins with struct_size, which you set to its sizeof. A shorter one
 * is read as if the rest of it were 0, which always means what it meant before there was a
 * rest. A longer one is taken if what this library does not know of it is 0.
 *
 * A function that can fail returns PW_OK or a status below zero, and says more in your
 * pw_error, if you pass one. Strides are bytes, in 64 bits and signed; what lies past 2^62 is
 * refused. docs/abi.md has the manual. C11 and C++17.
 */
#ifndef PAGEWISE_H
#define PAGEWISE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PW_API __attribute__((visibility("default")))
#else
#define PW_API
#endif

/* ---- version ------------------------------------------------------------------ */

/* Of this header. Until 1.0 a new minor version may change what it names; the soname tells. */
#define PW_VERSION_MAJOR 0u
#define PW_VERSION_MINOR 1u
#define PW_VERSION ((PW_VERSION_MAJOR << 16) | PW_VERSION_MINOR)

/* Of the library that runs: PW_VERSION of the header it was built with. */
PW_API uint32_t pw_version(void);

/* ---- status and errors ---------------------------------------------------------- */

typedef int32_t pw_status; /* values are only ever added */
#define PW_OK 0
#define PW_E_NULL (-1)        /* a pointer that must not be NULL is */
#define PW_E_SIZE (-2)        /* a struct_size that no version has, or a tail that is not 0 */
#define PW_E_ALIGN (-3)       /* an address that is not aligned to what lies there */
#define PW_E_ARGUMENT (-4)    /* a number or a buffer that the contract does not allow */
#define PW_E_UNSUPPORTED (-5) /* allowed, and not served by this device */
#define PW_E_SPACE (-6)       /* bytes given that are too few: got, of the expected */
#define PW_E_PLAN (-7)        /* no plan, or one of another descriptor */
#define PW_E_DEVICE (-8)      /* no such device here */
#define PW_E_MEMORY (-9)      /* no memory left */
#define PW_E_INTERNAL (-10)   /* a fault of this library: nothing of yours is to blame */
#define PW_E_GRAMMAR (-11)    /* a source that is no grammar, or asks for what is not honoured */
#define PW_E_TOO_MUCH (-12)   /* a grammar that is more than is built, in size, steps or time */
#define PW_E_BUSY (-13)       /* others wait for the same: ask again */
#define PW_E_NOT_ALLOWED (-14) /* a token that may not come; nothing was taken */

/* Yours; written only on failure, and only as much of it as struct_size says. */
typedef struct pw_error {
    uint32_t struct_size;
    pw_status status;
    char field[32];        /* what is at fault, as this header calls it: "kv.page_stride" */
    int64_t expected, got; /* where the fault is one of numbers; else 0 */
    char message[200];     /* a sentence, ended by 0 */
} pw_error;

/* ---- element types ---------------------------------------------------------------- */

typedef uint32_t pw_dtype; /* 0 is invalid */
#define PW_F32 1u
#define PW_F16 2u
#define PW_BF16 3u
#define PW_E4M3 4u /* fp8, finite only */
#define PW_I8 5u
#define PW_I4 6u /* two a byte, the low nibble first */

/* ---- devices ---------------------------------------------------------------------- */

typedef struct pw_device pw_device; /* never changes; any thread may use it */

typedef struct pw_device_options {
    uint32_t struct_size;
    uint32_t threads; /* of a CPU, the caller's included; 0: as many as it runs at once */
} pw_device_options;

/* Opens a device by its name, UTF-8 of name_bytes bytes: "cpu". Options may be NULL. */
PW_API pw_status pw_device_open(const char *name, uint64_t name_bytes,
                                const pw_device_options *options, pw_device **device,
                                pw_error *error);

/* Frees a device, once nothing uses it any more. NULL is fine. */
PW_API void pw_device_destroy(pw_device *device);

/* The id of a device's arithmetic: where it is the same, so are the bits. Lives as long as
 * the library; NULL for NULL. */
PW_API const char *pw_device_numerics(const pw_device *device);

/* What a call takes beside its buffers. */
typedef struct pw_needs {
    uint32_t struct_size;
    uint32_t alignment;       /* of plan and workspace, in bytes */
    uint64_t plan_bytes;      /* at most, for any lengths within the descriptor's capacity */
    uint64_t workspace_bytes; /* scratch while run runs; its contents mean nothing after */
} pw_needs;

/* ---- pages of keys and values ------------------------------------------------------ */

/* What turns stored numbers back into keys and values. */
#define PW_KV_SCALES_NONE 0u   /* nothing: F32, F16, BF16 */
#define PW_KV_SCALES_STATIC 1u /* k_scale and v_scale: E4M3, I8, I4 */
#define PW_KV_SCALES_TOKEN 2u  /* one float for each token, head, and K or V, in a slab of
                                  their own: [pages][kv_heads][2][page_len], K before V */

/* Where the key and the value of a token lie: page, head, token and dim each have a stride,
 * and each stride spans all that the smaller ones reach. NHD, HND and K stored by dim all
 * fit. Of I4 a dim is a pair of dims, which share a byte. */
typedef struct pw_kv_layout {
    int64_t page_stride;    /* between pages */
    int64_t k_head_stride;  /* between heads of K */
    int64_t k_token_stride; /* between tokens of K */
    int64_t k_dim_stride;   /* between dims of K */
    int64_t v_head_stride;  /* between heads of V */
    int64_t v_token_stride; /* between tokens of V; its dims are side by side */
    int64_t v_offset;       /* from a page's K to its V in one slab; 0: V has a slab of its own */
    uint32_t pages;         /* of the slab */
    uint32_t page_len;      /* tokens a page, 1 to 65536 */
    uint32_t kv_heads;      /* 1 to 1024 */
    uint32_t head_dim;      /* a multiple of 8, at most 256 */
    pw_dtype dtype;         /* any */
    uint32_t scales;        /* PW_KV_SCALES_*, as dtype asks */
    float k_scale;          /* STATIC: a key is its stored number times this; else 0 */
    float v_scale;          /* STATIC: a value is its stored number times this; else 0 */
} pw_kv_layout;

/* ---- attention ----------------------------------------------------------------------
 *
 * Decode, append and prefill rows of many sequences in one call, over pages.
 *
 * T rows of queries, S sequences, P page ids, H query heads, G heads of keys and values,
 * D = head_dim. The rows of a sequence are its last positions: row i of n lies at position
 * kv_len - n + i. Query head h reads head h / (H / G) of K and V. What a row sees does not
 * depend on its company: the same row has the same bits in any call. */

/* What hides a key from a row, beside the window; any of them together. */
#define PW_MASK_CAUSAL 1u    /* its position is after the row's */
#define PW_MASK_INTERVALS 2u /* it lies outside of the row's interval */
#define PW_MASK_TREE 4u      /* with INTERVALS: it lies past the end, and its tree bit is 0 */

#define PW_PAGES_LISTED 1u /* page ids one sequence after the other; page_start says where */
#define PW_PAGES_PADDED 2u /* [S][table_width]; page_start is NULL */

/* What does not change from step to step. */
typedef struct pw_attention_desc {
    uint32_t struct_size;
    uint32_t mask; /* PW_MASK_*, or 0: every row sees all */
    pw_kv_layout kv;
    int64_t q_row_stride, out_row_stride;
    pw_dtype q_dtype, out_dtype; /* F32, F16 or BF16 */
    uint32_t q_heads;            /* H, a multiple of kv_heads */
    uint32_t window;             /* positions a row sees, its own included; 0: all */
    float scale;                 /* a score is a dot product times this */
    float softcap;               /* c: scores become c * tanh(score / c); 0: none */
    uint32_t page_table;         /* PW_PAGES_* */
    uint32_t table_width;        /* PADDED: ids of a sequence; else 0 */
    uint32_t rows_max;           /* capacity, at most 2^20: one plan's room serves all below */
    uint32_t seqs_max;           /* at most 2^20 */
    uint32_t kv_len_max;         /* positions of a sequence, at most 2^30 */
    uint32_t page_ids_max;       /* LISTED: ids of all sequences together, at most 2^30; else 0 */
} pw_attention_desc;

/* Lengths of a step, in the host's memory. */
typedef struct pw_attention_lens {
    uint32_t struct_size;
    uint32_t seqs;                  /* S, at most seqs_max */
    const uint32_t *q_start;        /* [S + 1], ascending: each sequence's first row */
    const uint32_t *kv_len;         /* [S]: positions, those of its rows included */
    const uint32_t *page_start;     /* LISTED: [S + 1], ascending: each sequence's first id */
    const uint32_t *first_position; /* [S]: the first position kept, in the first page listed;
                                       NULL: 0 */
} pw_attention_lens;

/* Buffers of a step, in the device's memory. */
typedef struct pw_attention_args {
    uint32_t struct_size;
    uint32_t reserved;         /* 0 */
    const void *q;             /* [T][H * D] of q_dtype */
    const void *keys;          /* the slab of K, or of K and V */
    const void *values;        /* the slab of V, where v_offset is 0; else NULL */
    const float *kv_scales;    /* PW_KV_SCALES_TOKEN; else NULL */
    const uint32_t *page_ids;  /* [P], or [S][table_width] */
    const uint32_t *intervals; /* INTERVALS: [T][2], begin and end of what a row may see */
    const uint64_t *tree_bits; /* TREE: [T], one bit for each of 64 positions from the end */
    const float *sinks;        /* [H]: a logit that joins the denominator alone; or NULL */
    const float *slopes;       /* [H]: ALiBi; or NULL */
    void *out;                 /* [T][H * D] of out_dtype */
    float *lse;                /* [T][H]: natural logarithms of the denominators; or NULL */
    const void *plan;
    uint64_t plan_bytes;
    void *workspace;
    uint64_t workspace_bytes;
} pw_attention_args;

/* Served? PW_E_UNSUPPORTED or PW_E_ARGUMENT names the field. needs may be NULL. */
PW_API pw_status pw_attention_query(const pw_device *device, const pw_attention_desc *desc,
                                    pw_needs *needs, pw_error *error);

/* Lengths become a plan of plan_bytes bytes or fewer, which does not point to them. */
PW_API pw_status pw_attention_plan(const pw_device *device, const pw_attention_desc *desc,
                                   const pw_attention_lens *lens, void *plan,
                                   uint64_t plan_bytes, pw_error *error);

/* out = softmax(q * K^T) * V over what each row sees, and 0 where it sees nothing. stream is
 * NULL on a CPU, where all is done on return. */
PW_API pw_status pw_attention_run(const pw_device *device, const pw_attention_desc *desc,
                                  const pw_attention_args *args, void *stream,
                                  pw_error *error);

/* ---- grammars -------------------------------------------------------------------------
 *
 * What may come next of a text: a bit for each token of a vocabulary, in words of 32, the
 * lowest first, as masks of logits have them. Host objects: they need no device.
 *
 * Sources are looked over before anything is built: bytes, depth, references, properties,
 * repetitions. They are compiled on threads of their own, within bounded steps, and kept. A
 * keyword of JSON Schema that is not honoured is refused by name (docs/serving.md lists
 * them); nothing that would forbid something is ignored. */

typedef struct pw_grammars pw_grammars; /* of one vocabulary; any thread may use it */
typedef struct pw_matcher pw_matcher;   /* one text; one thread at a time */

typedef struct pw_vocabulary {
    uint32_t struct_size;
    uint32_t tokens;         /* 1 to 2^24 */
    const uint8_t *bytes;    /* of all tokens, one after the other; special ones: their names */
    const uint64_t *starts;  /* [tokens + 1], ascending from 0: where each begins in bytes */
    const uint32_t *special; /* [special_count] tokens that are never text: a grammar asks for
                                them by name, as in <|tool|>; or NULL */
    const uint32_t *ends;    /* [end_count] tokens that end a text; or NULL */
    uint32_t special_count;
    uint32_t end_count;
} pw_vocabulary;

typedef struct pw_grammars_options {
    uint32_t struct_size;
    uint32_t threads;     /* that compile what takes little; as many compile the rest; 0: 2 */
    uint32_t patience_ms; /* how long whoever asks waits; 0: 5000 */
    uint32_t waiting;     /* sources that may wait for a thread; 0: 64 */
    uint64_t kept_bytes;  /* of compiled grammars that are kept, roughly; 0: 256 MiB */
} pw_grammars_options;

/* Reads a vocabulary, which may go afterwards. Options may be NULL. */
PW_API pw_status pw_grammars_create(const pw_vocabulary *vocabulary,
                                    const pw_grammars_options *options,
                                    pw_grammars **grammars, pw_error *error);

/* Frees it, once nobody waits for it; its matchers go on. NULL is fine. */
PW_API void pw_grammars_destroy(pw_grammars *grammars);

/* How a source is written. */
#define PW_SOURCE_SCHEMA 1u  /* a JSON schema */
#define PW_SOURCE_COMPACT 2u /* the same; values are written without blanks between parts */
#define PW_SOURCE_OBJECT 3u  /* any JSON object: no bytes */
#define PW_SOURCE_REGEX 4u   /* a regular expression, matched whole */
#define PW_SOURCE_LARK 5u    /* a grammar in Lark's form */
#define PW_SOURCE_TAGS 6u    /* structural tags, as docs/structural-tags.md has them */

/* A text at its beginning, to be kept to a source of UTF-8. Waits until that is compiled, if
 * nobody asked for it before. On PW_E_GRAMMAR field is where, as a JSON pointer. */
PW_API pw_status pw_matcher_create(pw_grammars *grammars, uint32_t kind, const char *source,
                                   uint64_t source_bytes, pw_matcher **matcher,
                                   pw_error *error);

/* Frees it. NULL is fine. */
PW_API void pw_matcher_destroy(pw_matcher *matcher);

/* The same text once more, to be gone on with otherwise. */
PW_API pw_status pw_matcher_fork(const pw_matcher *matcher, pw_matcher **fork, pw_error *error);

/* The tokens that may come next: word_count words, of which those past the vocabulary are 0.
 * Where nothing more may come, the tokens that end a text. */
PW_API pw_status pw_matcher_mask(pw_matcher *matcher, uint32_t *words, uint64_t word_count,
                                 pw_error *error);

/* Takes tokens. PW_E_NOT_ALLOWED takes none of them, and tells the first that may not come. */
PW_API pw_status pw_matcher_accept(pw_matcher *matcher, const uint32_t *tokens, uint32_t count,
                                   pw_error *error);

/* How many of these tokens may come, one after the other. Takes none. */
PW_API pw_status pw_matcher_allowed(pw_matcher *matcher, const uint32_t *tokens,
                                    uint32_t count, uint32_t *allowed, pw_error *error);

/* Tokens that alone may come, one after the other, at most capacity of them. Takes none. */
PW_API pw_status pw_matcher_forced(pw_matcher *matcher, uint32_t *tokens, uint32_t capacity,
                                   uint32_t *count, pw_error *error);

/* Takes back the last tokens. */
PW_API pw_status pw_matcher_take_back(pw_matcher *matcher, uint32_t count, pw_error *error);

/* 1 if the text may end here, else 0. */
PW_API pw_status pw_matcher_may_end(pw_matcher *matcher, uint32_t *may_end, pw_error *error);

/* Masks of a draft tree in one walk: of the text, then after each node. A node has a token
 * and a parent, a node before it, or PW_NO_PARENT. The row of one that may not come is 0. */
#define PW_NO_PARENT 0xffffffffu
PW_API pw_status pw_matcher_tree_masks(pw_matcher *matcher,
                                       const uint32_t *tokens,  /* [count] */
                                       const uint32_t *parents, /* [count] */
                                       uint32_t count,
                                       uint32_t *words, /* [count + 1][row_words] */
                                       uint64_t row_words, pw_error *error);

/* ---- layout, as the library was built with it ----------------------------------------- */

#if defined(__cplusplus)
#define PW_ASSERT(condition) static_assert(condition, #condition)
#else
#define PW_ASSERT(condition) _Static_assert(condition, #condition)
#endif
PW_ASSERT(sizeof(pw_error) == 256);
PW_ASSERT(sizeof(pw_device_options) == 8);
PW_ASSERT(sizeof(pw_needs) == 24);
PW_ASSERT(sizeof(pw_kv_layout) == 88);
PW_ASSERT(sizeof(pw_attention_desc) == 160);
PW_ASSERT(sizeof(pw_grammars_options) == 24);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_vocabulary) == 48);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_attention_lens) == 40);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_attention_args) == 128);

#ifdef __cplusplus
}
#endif
#endif
