/* pagewise.h: kernels for rollouts, behind a C ABI.
 *
 * Every kernel is used in the same three steps:
 *
 *   query   is this call served, and what does it take? Launches nothing.
 *   plan    lengths on the host become bytes of yours, which may be moved and copied.
 *   run     enqueues the work. Allocates nothing, keeps nothing, prints nothing.
 *
 * You own all memory: buffers, plans, workspaces. Only handles are created and destroyed; one
 * that was destroyed is told apart, and refused. A device may be used by any thread; a
 * workspace by one run at a time.
 *
 * A struct that may grow begins with struct_size, which you set to its sizeof. A shorter one
 * is read as if the rest of it were 0, which always means what it meant before there was a
 * rest. A longer one is taken if what this library does not know of it is 0.
 *
 * A function that can fail returns PW_OK or a status below zero, and says more in your
 * pw_error, if you pass one. Strides are bytes, in 64 bits and signed; what lies past 2^62 is
 * refused, and so are rows more than 2^30 elements apart. A buffer is there and aligned also
 * where a step has no rows for it. docs/abi.md has the manual. C11 and C++17.
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

/* Of this header. Until 1.0 a new minor version may take away what this one names; it never
 * changes what a name means. */
#define PW_VERSION_MAJOR 0u
#define PW_VERSION_MINOR 2u
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
#define PW_E_DEVICE (-8)      /* no such device here, or it failed */
#define PW_E_MEMORY (-9)      /* no memory left */
#define PW_E_INTERNAL (-10)   /* a fault of this library: nothing of yours is to blame */
#define PW_E_GRAMMAR (-11)    /* a source that is no grammar, or asks for what is not honoured */
#define PW_E_TOO_MUCH (-12)   /* a grammar that is more than is built, in size, steps or time */
#define PW_E_BUSY (-13)       /* others wait for the same: ask again */
#define PW_E_NOT_ALLOWED (-14) /* a token that may not come; nothing was taken */
#define PW_E_PAGES (-15)       /* fewer pages are free: got, of the expected that are wanted.
                                  Nothing was taken; evict as many as lack, and ask again */
#define PW_E_STALE (-16)       /* a handle that was destroyed, or is no handle of this kind */

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
    uint32_t threads;       /* of a CPU, the caller's included, at most 1024; 0: as many as it runs.
                               Of a small model 1 is often best: others cost to wake */
    const char *plugins;    /* the folder of device plugins, UTF-8; NULL: that of this library */
    uint64_t plugins_bytes; /* of that path */
} pw_device_options;

/* Opens a device by its name, UTF-8 of name_bytes bytes: "cpu", or "cuda:0", which its plugin
 * brings, in the context that is current or else the primary one. Where there is none, the error
 * says what was looked for, and where. Options may be NULL.
 *
 * "cuda:0" is a device with streams: stream is a CUstream of its context, or NULL for the
 * default one. There a run waits for nothing and may be captured; buffers, plan and workspace
 * are in the device's memory, and buffers hold as many rows as the descriptor's capacity. */
PW_API pw_status pw_device_open(const char *name, uint64_t name_bytes,
                                const pw_device_options *options, pw_device **device,
                                pw_error *error);

/* Frees a device, once nothing uses it any more: with streams, after they are past its runs,
 * and after graphs that captured them are gone. NULL is fine. */
PW_API void pw_device_destroy(pw_device *device);

/* The id of a device's arithmetic: where it is the same, so are the bits. Lives as long as
 * the library; NULL for NULL. */
PW_API const char *pw_device_numerics(const pw_device *device);

/* A device with streams looks over what lies in buffers as it runs: a page past the slab, a
 * token past the vocabulary. The first such fault of a run stays in its plan, and all runs
 * with that plan write nothing more. Copy the plan back, to anywhere, and ask: what a CPU's
 * run would have refused is told as it would be, else PW_OK. A plan that is made anew has none. */
PW_API pw_status pw_plan_fault(const pw_device *device, const void *plan, uint64_t plan_bytes,
                               pw_error *error);

/* What a call takes beside its buffers. */
typedef struct pw_needs {
    uint32_t struct_size;
    uint32_t alignment;       /* of plan and workspace, in bytes */
    uint64_t plan_bytes;      /* at most, for any lengths within the descriptor's capacity */
    uint64_t workspace_bytes; /* scratch while run runs; its contents mean nothing after */
} pw_needs;

/* The same, given: every pw_*_args has one. Both are in the device's memory. */
typedef struct pw_run {
    const void *plan; /* what pw_*_plan wrote, or a copy of it; with streams, all plan_bytes, of
                         one stream at a time, for faults are written there */
    uint64_t plan_bytes;
    void *workspace; /* may be NULL where workspace_bytes is 0 */
    uint64_t workspace_bytes;
} pw_run;

#define PW_NONE 0xffffffffu /* in a list of indices: no mask, no slot, no token, no parent */

/* ---- weights -----------------------------------------------------------------------
 *
 * A matrix [outputs][inputs] as products read it: in tiles of 32 outputs, from a multiple of
 * 64 bytes. Matrices that share their input (queries, keys and values; gate and up) are one
 * weight whose outputs follow each other, so that their input is converted once. */

/* What turns whole numbers into values, in groups of inputs. */
#define PW_SCHEME_NONE 0u      /* nothing: F32, F16, BF16 */
#define PW_SCHEME_AFFINE 1u    /* unsigned numbers; number * scale + bias */
#define PW_SCHEME_SYMMETRIC 2u /* signed numbers; number * scale */

typedef struct pw_weight {
    uint32_t outputs; /* 1 to 2^24 */
    uint32_t inputs;  /* 1 to 2^20, and a multiple of group */
    pw_dtype dtype;   /* F32, F16, BF16, I8 or I4 */
    uint32_t scheme;  /* PW_SCHEME_* */
    uint32_t group;   /* I8, I4: 32, 64 or 128 inputs have a scale; else 0 */
    pw_dtype scale_dtype; /* I8, I4: F32, F16 or BF16; else 0 */
} pw_weight;

/* Rows of outputs as a checkpoint has them: little-endian, at any address. */
typedef struct pw_rows {
    uint32_t struct_size;
    pw_dtype dtype;     /* of floats: F32, F16 or BF16, whatever the weight is of; else 0 */
    uint32_t first;     /* outputs from this one on */
    uint32_t count;     /* so many */
    const void *values; /* [count][inputs]: floats, bytes, or nibbles, the low one first */
    const void *scales; /* I8, I4: [count][inputs / group] of scale_dtype; else NULL */
    const void *biases; /* AFFINE: [count][inputs / group] of scale_dtype; else NULL */
} pw_rows;

/* How many bytes a packed weight takes. */
PW_API pw_status pw_weight_bytes(const pw_weight *weight, uint64_t *bytes, pw_error *error);

/* Packs some outputs into their place; the rest of packed is left as it is. Where outputs are no
 * multiple of 32 begin with zeros: what no output has is read, and then thrown away. */
PW_API pw_status pw_weight_pack(const pw_weight *weight, const pw_rows *rows, void *packed,
                                uint64_t packed_bytes, pw_error *error);

/* ---- embed --------------------------------------------------------------------------
 *
 * out[r] = table[tokens[r]] * scale. */

typedef struct pw_embed_desc {
    uint32_t struct_size;
    uint32_t rows_max; /* capacity: rows of a call at most, 1 to 2^31 - 1, here and below */
    int64_t table_row_stride; /* 0 where packed */
    int64_t out_row_stride;
    pw_weight weight;   /* tokens are its outputs */
    uint32_t packed;    /* 1: table is a packed weight; 0: rows of floats */
    pw_dtype out_dtype; /* F32, F16 or BF16 */
    float scale;        /* 1: none */
    uint32_t reserved;  /* 0 */
} pw_embed_desc;

typedef struct pw_embed_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *table;
    const uint32_t *tokens; /* [rows] */
    void *out;              /* [rows][inputs] */
} pw_embed_args;

PW_API pw_status pw_embed_query(const pw_device *device, const pw_embed_desc *desc,
                                pw_needs *needs, pw_error *error);
/* A plan says how many rows there are; so it does of every kernel that has no more to say. */
PW_API pw_status pw_embed_plan(const pw_device *device, const pw_embed_desc *desc,
                               uint32_t rows, void *plan, uint64_t plan_bytes,
                               pw_error *error);
PW_API pw_status pw_embed_run(const pw_device *device, const pw_embed_desc *desc,
                              const pw_embed_args *args, void *stream, pw_error *error);

/* ---- norm ----------------------------------------------------------------------------
 *
 * out = x / sqrt(mean(x^2) + epsilon) * (weight + weight_offset): of whole rows, or of each
 * head of a row. With a residual, x is added to it first, and x is that sum as stored. */

typedef struct pw_norm_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    int64_t x_row_stride;
    int64_t residual_row_stride; /* 0: there is no residual */
    int64_t out_row_stride;
    uint32_t heads;        /* vectors of a row, 1 to 65536 */
    uint32_t columns;      /* numbers of a vector, 1 to 2^24 */
    pw_dtype x_dtype;      /* F32, F16 or BF16, here and below */
    pw_dtype weight_dtype;
    pw_dtype out_dtype;
    float epsilon;
    float weight_offset; /* 0, or 1 where a model stores weight - 1 */
    uint32_t reserved;   /* 0 */
} pw_norm_desc;

typedef struct pw_norm_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *x;      /* [rows][heads * columns] */
    const void *weight; /* [columns] */
    void *residual;     /* [rows][heads * columns] of x_dtype, or NULL */
    void *out;          /* [rows][heads * columns] */
} pw_norm_args;

PW_API pw_status pw_norm_query(const pw_device *device, const pw_norm_desc *desc,
                               pw_needs *needs, pw_error *error);
PW_API pw_status pw_norm_plan(const pw_device *device, const pw_norm_desc *desc, uint32_t rows,
                              void *plan, uint64_t plan_bytes, pw_error *error);
PW_API pw_status pw_norm_run(const pw_device *device, const pw_norm_desc *desc,
                             const pw_norm_args *args, void *stream, pw_error *error);

/* ---- matmul --------------------------------------------------------------------------
 *
 * out = x * weight^T + bias. With whole numbers in groups, x becomes whole numbers too. */

typedef struct pw_matmul_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    int64_t x_row_stride;
    int64_t out_row_stride;
    pw_weight weight;
    pw_dtype x_dtype;
    pw_dtype bias_dtype; /* 0: there is no bias */
    pw_dtype out_dtype;
    uint32_t reserved; /* 0 */
} pw_matmul_desc;

typedef struct pw_matmul_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *x;      /* [rows][inputs] */
    const void *weight; /* packed */
    const void *bias;   /* [outputs], or NULL */
    void *out;          /* [rows][outputs] */
} pw_matmul_args;

PW_API pw_status pw_matmul_query(const pw_device *device, const pw_matmul_desc *desc,
                                 pw_needs *needs, pw_error *error);
PW_API pw_status pw_matmul_plan(const pw_device *device, const pw_matmul_desc *desc,
                                uint32_t rows, void *plan, uint64_t plan_bytes,
                                pw_error *error);
PW_API pw_status pw_matmul_run(const pw_device *device, const pw_matmul_desc *desc,
                               const pw_matmul_args *args, void *stream, pw_error *error);

/* ---- lora ----------------------------------------------------------------------------
 *
 * out += scale * (x * A^T) * B^T, each row by the adapter in its slot; then, with magnitudes
 * (DoRA), times a number for each output. A row of PW_NONE is left as it is. */

typedef struct pw_lora_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    int64_t x_row_stride;
    int64_t out_row_stride;
    uint32_t inputs;       /* 1 to 2^24 */
    uint32_t outputs;      /* 1 to 2^24 */
    uint32_t slots;        /* 1 to 65536 */
    uint32_t rank_max;     /* a multiple of 16, at most 256 */
    pw_dtype x_dtype;
    pw_dtype weight_dtype; /* of A and B */
} pw_lora_desc;

typedef struct pw_lora_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *x;            /* [rows][inputs] */
    const void *a;            /* [slots], each of a_bytes of pw_lora_bytes */
    const void *b;            /* [slots], each of b_bytes */
    const uint32_t *ranks;    /* [slots] */
    const float *scales;      /* [slots] */
    const float *magnitudes;  /* [slots][outputs], 1 where there is no DoRA; or NULL */
    const uint32_t *adapters; /* [rows]: the slot of each row, or PW_NONE */
    float *out;               /* [rows][outputs]: the finished product without adapters */
} pw_lora_args;

PW_API pw_status pw_lora_query(const pw_device *device, const pw_lora_desc *desc,
                               pw_needs *needs, pw_error *error);
PW_API pw_status pw_lora_plan(const pw_device *device, const pw_lora_desc *desc, uint32_t rows,
                              void *plan, uint64_t plan_bytes, pw_error *error);
PW_API pw_status pw_lora_run(const pw_device *device, const pw_lora_desc *desc,
                             const pw_lora_args *args, void *stream, pw_error *error);

/* Bytes of a slot of A, and of one of B. */
PW_API pw_status pw_lora_bytes(const pw_lora_desc *desc, uint64_t *a_bytes, uint64_t *b_bytes,
                               pw_error *error);

/* Packs an adapter of weight_dtype into a slot of A and one of B. */
PW_API pw_status pw_lora_pack(const pw_lora_desc *desc, uint32_t rank,
                              const void *a, /* [rank][inputs], aligned to its type */
                              const void *b, /* [outputs][rank], as a */
                              void *a_slot, void *b_slot, pw_error *error);

/* ---- rope ----------------------------------------------------------------------------
 *
 * Pairs of dims of each head turn by an angle that grows with the row's position. */

#define PW_ROPE_NONE 0u
#define PW_ROPE_NEOX 1u        /* dim i with dim i + rotary_dims / 2 */
#define PW_ROPE_INTERLEAVED 2u /* dim 2i with dim 2i + 1 */

typedef struct pw_rope_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    int64_t x_row_stride; /* 0: in place */
    int64_t out_row_stride;
    uint32_t heads;       /* 1 to 65536 */
    uint32_t head_dim;    /* 2 to 256 */
    uint32_t rotary_dims; /* even; dims past them keep their value */
    uint32_t table_len;   /* positions of the table */
    uint32_t pairing;     /* PW_ROPE_NEOX or PW_ROPE_INTERLEAVED */
    pw_dtype x_dtype;     /* in place: out_dtype */
    pw_dtype out_dtype;
    uint32_t reserved; /* 0 */
} pw_rope_desc;

typedef struct pw_rope_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *x;             /* [rows][heads * head_dim], or NULL: in place */
    const float *table;        /* [table_len][rotary_dims]: cosines, then sines */
    const uint32_t *positions; /* [rows] */
    void *out;                 /* [rows][heads * head_dim] */
} pw_rope_args;

PW_API pw_status pw_rope_query(const pw_device *device, const pw_rope_desc *desc,
                               pw_needs *needs, pw_error *error);
PW_API pw_status pw_rope_plan(const pw_device *device, const pw_rope_desc *desc, uint32_t rows,
                              void *plan, uint64_t plan_bytes, pw_error *error);
PW_API pw_status pw_rope_run(const pw_device *device, const pw_rope_desc *desc,
                             const pw_rope_args *args, void *stream, pw_error *error);

/* How turns are slowed for more positions than a model was trained on. */
#define PW_ROPE_PLAIN 0u   /* not at all */
#define PW_ROPE_LINEAR 1u  /* factor */
#define PW_ROPE_DYNAMIC 2u /* factor, original_positions, positions */
#define PW_ROPE_YARN 3u    /* factor, original_positions, fast, slow, attention_factor, truncate */
#define PW_ROPE_LLAMA3 4u  /* factor, original_positions, slow and fast: its low and high factor */

typedef struct pw_rope_table {
    uint32_t struct_size;
    uint32_t rotary_dims;
    double base;                 /* pair i of d dims turns by base^(-2i / d) a position */
    uint32_t scaling;            /* PW_ROPE_PLAIN to PW_ROPE_LLAMA3; what it has no use for is 0 */
    uint32_t original_positions; /* that the model was trained on */
    uint32_t positions;          /* DYNAMIC: to reach */
    uint32_t truncate;           /* YARN: 1 where the ramp's ends are whole pairs, as is usual */
    double factor;               /* at least 1 */
    double fast;                 /* pairs with more turns keep them; of yarn 32 as a rule */
    double slow;                 /* pairs with fewer take the whole factor; of yarn 1 as a rule */
    double attention_factor;     /* YARN: times cosines and sines; 0: 0.1 ln(factor) + 1 */
} pw_rope_table;

/* Writes the rows of count positions from first on, made in double precision. */
PW_API pw_status pw_rope_table_fill(const pw_rope_table *table, uint32_t first,
                                    uint32_t count, float *rows, pw_error *error);

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
    int64_t page_stride;    /* between pages, of both slabs where there are two */
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

/* ---- append_kv -----------------------------------------------------------------------
 *
 * New keys and values into pages: keys turned by their position on the way, both rounded to
 * the type of the pages, each row to every slot that asks for it. */

typedef struct pw_append_kv_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    pw_kv_layout kv;
    int64_t k_row_stride;
    int64_t v_row_stride;
    uint32_t slots_max; /* slots of all rows together; rows_max where each row has one */
    pw_dtype x_dtype;   /* of k and v */
    uint32_t rope;      /* PW_ROPE_*; PW_ROPE_NONE: keys come turned */
    uint32_t rotary_dims; /* 0 without rope, as table_len */
    uint32_t table_len;
    uint32_t reserved; /* 0 */
} pw_append_kv_desc;

typedef struct pw_append_kv_lens {
    uint32_t struct_size;
    uint32_t rows;
    const uint32_t *slot_starts; /* [rows + 1], ascending: the first slot of each row; NULL: row
                                    r has slot r */
} pw_append_kv_lens;

typedef struct pw_append_kv_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *k;             /* [rows][kv_heads * head_dim] */
    const void *v;             /* [rows][kv_heads * head_dim] */
    void *keys;                /* the slabs, as attention has them */
    void *values;
    float *kv_scales;
    const uint32_t *slots;     /* [slots][2]: page and token; no two are the same */
    const float *table;        /* [table_len][rotary_dims] with rope; else NULL */
    const uint32_t *positions; /* [rows] with rope; else NULL */
} pw_append_kv_args;

PW_API pw_status pw_append_kv_query(const pw_device *device, const pw_append_kv_desc *desc,
                                    pw_needs *needs, pw_error *error);
PW_API pw_status pw_append_kv_plan(const pw_device *device, const pw_append_kv_desc *desc,
                                   const pw_append_kv_lens *lens, void *plan,
                                   uint64_t plan_bytes, pw_error *error);
PW_API pw_status pw_append_kv_run(const pw_device *device, const pw_append_kv_desc *desc,
                                  const pw_append_kv_args *args, void *stream,
                                  pw_error *error);

/* ---- kv_copy -------------------------------------------------------------------------
 *
 * Tokens copied between pages, as they are stored, entry by entry: for forks, and to bring
 * accepted drafts together. */

typedef struct pw_kv_copy_desc {
    uint32_t struct_size;
    uint32_t entries_max; /* 1 to 2^31 - 1 */
    pw_kv_layout kv;
    uint32_t tokens_max; /* tokens of an entry, 1 to page_len */
    uint32_t reserved;   /* 0 */
} pw_kv_copy_desc;

typedef struct pw_kv_copy_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    void *keys; /* the slabs, as attention has them */
    void *values;
    float *kv_scales;
    const uint32_t *entries; /* [entries][5]: from page, from token, to page, to token, tokens */
} pw_kv_copy_args;

PW_API pw_status pw_kv_copy_query(const pw_device *device, const pw_kv_copy_desc *desc,
                                  pw_needs *needs, pw_error *error);
PW_API pw_status pw_kv_copy_plan(const pw_device *device, const pw_kv_copy_desc *desc,
                                 uint32_t entries, void *plan, uint64_t plan_bytes,
                                 pw_error *error);
PW_API pw_status pw_kv_copy_run(const pw_device *device, const pw_kv_copy_desc *desc,
                                const pw_kv_copy_args *args, void *stream, pw_error *error);

/* ---- varlen_mask ---------------------------------------------------------------------
 *
 * What each row of a step sees, for attention: intervals of positions, and for the nodes of
 * a draft tree 64 bits; and the position of each row, for rope. */

typedef struct pw_varlen_mask_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    uint32_t seqs_max;      /* 1 to 2^24 */
    uint32_t documents_max; /* of all sequences together; 0: each is one document */
    uint32_t window;        /* positions a row sees, its own included; 0: all */
    uint32_t tree;          /* 1: the last rows of sequences may be nodes of draft trees */
} pw_varlen_mask_desc;

typedef struct pw_varlen_mask_lens {
    uint32_t struct_size;
    uint32_t seqs;                  /* S */
    const uint32_t *row_start;      /* [S + 1], ascending from 0: each sequence's first row */
    const uint32_t *lengths;        /* [S]: positions, those of its rows included */
    const uint32_t *prefixes;       /* [S]: leading positions that see each other both ways; or
                                       NULL */
    const uint32_t *document_start; /* [S + 1], ascending from 0; where documents_max is not 0 */
    const uint32_t *documents;      /* positions at which documents begin, ascending in each
                                       sequence */
    const uint32_t *tree_nodes;     /* [S]: the last rows that are nodes, at most 64; with tree */
} pw_varlen_mask_lens;

typedef struct pw_varlen_mask_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const uint32_t *parents; /* [rows] with tree: a node's parent in its tree, or PW_NONE */
    uint32_t *intervals;     /* [rows][2]: begin and end */
    uint64_t *tree_bits;     /* [rows]; or NULL without tree */
    uint32_t *positions;     /* [rows], or NULL */
} pw_varlen_mask_args;

PW_API pw_status pw_varlen_mask_query(const pw_device *device, const pw_varlen_mask_desc *desc,
                                      pw_needs *needs, pw_error *error);
PW_API pw_status pw_varlen_mask_plan(const pw_device *device, const pw_varlen_mask_desc *desc,
                                     const pw_varlen_mask_lens *lens, void *plan,
                                     uint64_t plan_bytes, pw_error *error);
PW_API pw_status pw_varlen_mask_run(const pw_device *device, const pw_varlen_mask_desc *desc,
                                    const pw_varlen_mask_args *args, void *stream,
                                    pw_error *error);

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
    const uint32_t *kv_len;         /* [S]: positions, those of its rows included. With fewer than
                                       rows the first rows lie before 0, where the causal mask
                                       hides all */
    const uint32_t *page_start;     /* LISTED: [S + 1], ascending: each sequence's first id */
    const uint32_t *first_position; /* [S]: the first position kept, in the first page listed;
                                       NULL: 0 */
} pw_attention_lens;

/* Buffers of a step, in the device's memory. */
typedef struct pw_attention_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
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

/* ---- attention_fold ------------------------------------------------------------------
 *
 * States of attention that were computed apart become one: a prefix that sequences share and
 * what each has of its own, say. */

typedef struct pw_attention_fold_desc {
    uint32_t struct_size;
    uint32_t rows_max;       /* 1 to 2^20 */
    int64_t part_row_stride;
    int64_t out_row_stride;
    uint32_t parts;          /* 1 to 1024 */
    uint32_t heads;          /* 1 to 65536 */
    uint32_t head_dim;       /* a multiple of 8, at most 256 */
    pw_dtype part_dtype;
    pw_dtype out_dtype;
    uint32_t reserved; /* 0 */
} pw_attention_fold_desc;

typedef struct pw_attention_fold_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *parts;     /* [parts][rows][heads * head_dim]; rows_max where there are streams */
    const float *part_lse; /* [parts][rows][heads], so too; -infinity: the part saw nothing */
    void *out;             /* [rows][heads * head_dim] */
    float *lse;            /* [rows][heads], or NULL */
} pw_attention_fold_args;

PW_API pw_status pw_attention_fold_query(const pw_device *device,
                                         const pw_attention_fold_desc *desc, pw_needs *needs,
                                         pw_error *error);
PW_API pw_status pw_attention_fold_plan(const pw_device *device,
                                        const pw_attention_fold_desc *desc, uint32_t rows,
                                        void *plan, uint64_t plan_bytes, pw_error *error);
PW_API pw_status pw_attention_fold_run(const pw_device *device,
                                       const pw_attention_fold_desc *desc,
                                       const pw_attention_fold_args *args, void *stream,
                                       pw_error *error);

/* ---- activation ----------------------------------------------------------------------
 *
 * out = f(gate) * up, or f(gate) alone. */

#define PW_ACTIVATION_SILU 1u
#define PW_ACTIVATION_GELU_TANH 2u

typedef struct pw_activation_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    int64_t x_row_stride;
    int64_t out_row_stride;
    uint32_t columns;   /* 1 to 2^24 */
    uint32_t up_offset; /* numbers from gate to up in a row of x; 0: gate alone */
    uint32_t kind;      /* PW_ACTIVATION_* */
    pw_dtype x_dtype;
    pw_dtype out_dtype;
    uint32_t reserved; /* 0 */
} pw_activation_desc;

typedef struct pw_activation_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *x; /* [rows][up_offset + columns] */
    void *out;     /* [rows][columns] */
} pw_activation_args;

PW_API pw_status pw_activation_query(const pw_device *device, const pw_activation_desc *desc,
                                     pw_needs *needs, pw_error *error);
PW_API pw_status pw_activation_plan(const pw_device *device, const pw_activation_desc *desc,
                                    uint32_t rows, void *plan, uint64_t plan_bytes,
                                    pw_error *error);
PW_API pw_status pw_activation_run(const pw_device *device, const pw_activation_desc *desc,
                                   const pw_activation_args *args, void *stream,
                                   pw_error *error);

/* ---- gather --------------------------------------------------------------------------
 *
 * out[r] = x[indices[r]], as it is stored: the last rows of sequences, say. */

typedef struct pw_gather_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    int64_t x_row_stride;
    int64_t out_row_stride;
    uint32_t x_rows;  /* rows of x */
    uint32_t columns; /* 1 to 2^24 */
    pw_dtype dtype;   /* any but I4 */
    uint32_t reserved; /* 0 */
} pw_gather_desc;

typedef struct pw_gather_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *x;           /* [x_rows][columns] */
    const uint32_t *indices; /* [rows] */
    void *out;               /* [rows][columns] */
} pw_gather_args;

PW_API pw_status pw_gather_query(const pw_device *device, const pw_gather_desc *desc,
                                 pw_needs *needs, pw_error *error);
PW_API pw_status pw_gather_plan(const pw_device *device, const pw_gather_desc *desc,
                                uint32_t rows, void *plan, uint64_t plan_bytes,
                                pw_error *error);
PW_API pw_status pw_gather_run(const pw_device *device, const pw_gather_desc *desc,
                               const pw_gather_args *args, void *stream, pw_error *error);

/* ---- pool ----------------------------------------------------------------------------
 *
 * One vector for each sequence of its rows. One without rows has zeros. */

#define PW_POOL_FIRST 1u
#define PW_POOL_LAST 2u
#define PW_POOL_MEAN 3u

typedef struct pw_pool_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    int64_t x_row_stride;
    int64_t out_row_stride;
    uint32_t seqs_max; /* 1 to 2^24 */
    uint32_t columns;  /* 1 to 2^24 */
    uint32_t kind;     /* PW_POOL_* */
    pw_dtype x_dtype;
    uint32_t normalise; /* 1: vectors of length 1 */
    uint32_t reserved;  /* 0 */
} pw_pool_desc;

typedef struct pw_pool_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *x; /* [rows][columns] */
    float *out;    /* [seqs][columns] */
} pw_pool_args;

PW_API pw_status pw_pool_query(const pw_device *device, const pw_pool_desc *desc,
                               pw_needs *needs, pw_error *error);
PW_API pw_status pw_pool_plan(const pw_device *device, const pw_pool_desc *desc, uint32_t seqs,
                              const uint32_t *starts, /* [seqs + 1], ascending: first rows;
                                                         all together have one at least */
                              void *plan, uint64_t plan_bytes, pw_error *error);
PW_API pw_status pw_pool_run(const pw_device *device, const pw_pool_desc *desc,
                             const pw_pool_args *args, void *stream, pw_error *error);

/* ---- logit_mask ----------------------------------------------------------------------
 *
 * What decides, before sampling, which tokens a row may take, in place and in one pass:
 * counts, biases, banned tokens, penalties, temperature, masks; in this order. Rows go one
 * after the other, and a row sees what those before it have counted. */

/* An entry of the list of tokens to count: a token, and what to do. */
#define PW_COUNTED_PROMPT 0x80000000u /* mark it as one of the prompt; without: count it */
#define PW_COUNTED_BACK 0x40000000u   /* take a generated one back */

typedef struct pw_logit_mask_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    int64_t row_stride;
    int64_t counts_stride; /* 0: no counts */
    uint32_t vocab;        /* 1 to 2^24 */
    uint32_t masks;        /* of the slab; 0: there is none */
    uint32_t mask_words;   /* words from one mask to the next; 0 without masks */
    uint32_t banned_max;   /* entries of all rows together; 0: there is no list, here and below */
    uint32_t bias_max;
    uint32_t counted_max;
    uint32_t slots;    /* of counts; 0: there are none */
    uint32_t reserved; /* 0 */
} pw_logit_mask_desc;

/* Lists: row r has the entries from starts[r] up to starts[r + 1]. */
typedef struct pw_logit_mask_lens {
    uint32_t struct_size;
    uint32_t rows;
    const uint32_t *banned_starts;  /* [rows + 1], where banned_max is not 0 */
    const uint32_t *bias_starts;    /* [rows + 1], where bias_max is not 0 */
    const uint32_t *counted_starts; /* [rows + 1], where counted_max is not 0 */
} pw_logit_mask_lens;

/* What a row asks for. */
typedef struct pw_logit_mask_row {
    uint32_t mask;     /* which mask allows its tokens, or PW_NONE */
    uint32_t action;   /* a second mask that must allow them too, or PW_NONE */
    uint32_t slot;     /* whose counts its penalties read, or PW_NONE */
    float temperature; /* logits are divided by it; 0: not at all, as where sample divides */
    float repetition;  /* 1: none, and without a slot */
    float presence;    /* 0: none, and without a slot */
    float frequency;   /* 0: none, and without a slot */
} pw_logit_mask_row;

typedef struct pw_logit_mask_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    float *logits;                     /* [rows][vocab] */
    const pw_logit_mask_row *settings; /* [rows] */
    const uint32_t *masks;             /* [masks][mask_words]: bit t % 32 of word t / 32 */
    const uint32_t *banned;            /* [entries] */
    const uint32_t *bias_tokens;       /* [entries] */
    const float *bias_values;          /* [entries] */
    const uint32_t *counted;           /* [entries] */
    uint16_t *counts; /* [slots][vocab]: bit 15 marks the prompt's, the others count */
} pw_logit_mask_args;

PW_API pw_status pw_logit_mask_query(const pw_device *device, const pw_logit_mask_desc *desc,
                                     pw_needs *needs, pw_error *error);
PW_API pw_status pw_logit_mask_plan(const pw_device *device, const pw_logit_mask_desc *desc,
                                    const pw_logit_mask_lens *lens, void *plan,
                                    uint64_t plan_bytes, pw_error *error);
PW_API pw_status pw_logit_mask_run(const pw_device *device, const pw_logit_mask_desc *desc,
                                   const pw_logit_mask_args *args, void *stream,
                                   pw_error *error);

/* ---- sample --------------------------------------------------------------------------
 *
 * One token for each row of logits: packed masks as the logits are read, temperature, top-k,
 * top-p and min-p without a sort, and Gumbel noise that is keyed by seed, position and fork, so
 * that a row's token does not depend on its company. */

/* Of a row of logits. */
#define PW_ROW_OK 0u
#define PW_ROW_MASKED 1u     /* every token is hidden: there is none */
#define PW_ROW_NOT_FINITE 2u /* NaN or infinity: there is no token */

typedef struct pw_sample_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    int64_t row_stride;
    int64_t raw_row_stride; /* 0: raw log-probabilities are of logits */
    uint32_t vocab;         /* 1 to 2^24 */
    uint32_t top_n;         /* most likely tokens told, at most 128 */
    uint32_t kept_words;    /* words from one row of kept to the next; 0: it is not told */
    uint32_t reserved;      /* 0 */
    uint32_t masks;         /* 0: there are none */
    uint32_t mask_words;    /* words from one mask to the next */
} pw_sample_desc;

/* How a row is sampled. */
typedef struct pw_sample_row {
    uint64_t seed;     /* of the request */
    uint32_t position; /* in its sequence, of the token that is sampled */
    uint32_t fork;     /* which answer of the request */
    float temperature; /* 0: the most likely token */
    uint32_t top_k;    /* 0: all */
    float top_p;       /* 1: all */
    float min_p;       /* 0: all */
} pw_sample_row;

typedef struct pw_sample_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const float *logits;           /* [rows][vocab]: penalised */
    const float *raw_logits;       /* [rows][vocab], which no mask hides; may be logits; or NULL */
    const pw_sample_row *settings; /* [rows] */
    uint32_t *token;               /* [rows]; PW_NONE where the status is not OK */
    uint32_t *status;              /* [rows]: PW_ROW_* */
    float *raw_logprob;            /* [rows]: before temperature and filters; or NULL */
    float *processed_logprob;      /* [rows]: after them; or NULL */
    uint32_t *top_token;           /* [rows][top_n], or NULL where that is 0 */
    float *top_logprob;            /* [rows][top_n], or NULL where that is 0 */
    uint32_t *kept;                /* [rows][kept_words]: bits of tokens that were kept; or NULL */
    uint32_t *kept_count;          /* [rows], or NULL */
    const uint32_t *masks;         /* [masks][mask_words]: bit t % 32 of word t / 32 */
    const uint32_t *row_masks;     /* [rows][2]: masks that both must allow a row's tokens, or
                                    * PW_NONE; NULL where there are no masks */
} pw_sample_args;

PW_API pw_status pw_sample_query(const pw_device *device, const pw_sample_desc *desc,
                                 pw_needs *needs, pw_error *error);
PW_API pw_status pw_sample_plan(const pw_device *device, const pw_sample_desc *desc,
                                uint32_t rows, void *plan, uint64_t plan_bytes,
                                pw_error *error);
PW_API pw_status pw_sample_run(const pw_device *device, const pw_sample_desc *desc,
                               const pw_sample_args *args, void *stream, pw_error *error);

/* ---- token_logprob -------------------------------------------------------------------
 *
 * The log-probability of one token for each row of hidden states, with the bits of matmul
 * and sample, and without their logits. */

typedef struct pw_token_logprob_desc {
    uint32_t struct_size;
    uint32_t rows_max;
    int64_t x_row_stride;
    pw_weight weight; /* a row of outputs for each token */
    pw_dtype x_dtype;
    pw_dtype bias_dtype; /* 0: there is no bias */
} pw_token_logprob_desc;

typedef struct pw_token_logprob_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const void *x;         /* [rows][inputs] */
    const void *weight;    /* packed */
    const void *bias;      /* [outputs], or NULL */
    const uint32_t *token; /* [rows] */
    float *logprob;        /* [rows]; NaN where the status is not OK */
    uint32_t *status;      /* [rows]: PW_ROW_* */
} pw_token_logprob_args;

PW_API pw_status pw_token_logprob_query(const pw_device *device,
                                        const pw_token_logprob_desc *desc, pw_needs *needs,
                                        pw_error *error);
PW_API pw_status pw_token_logprob_plan(const pw_device *device,
                                       const pw_token_logprob_desc *desc, uint32_t rows,
                                       void *plan, uint64_t plan_bytes, pw_error *error);
PW_API pw_status pw_token_logprob_run(const pw_device *device,
                                      const pw_token_logprob_desc *desc,
                                      const pw_token_logprob_args *args, void *stream,
                                      pw_error *error);

/* ---- spec_verify ---------------------------------------------------------------------
 *
 * How far down a chain or tree of drafts the target follows, and which token comes after.
 * A sequence has 1 to 64 nodes, the first its root: its last token that is certain. */

#define PW_VERIFY_GREEDY 1u    /* target rows are logits: the most likely token is followed */
#define PW_VERIFY_REJECTION 2u /* rows are probabilities: keeps the target's distribution */
#define PW_VERIFY_TOKENS 3u    /* sampled has the token after each node: bits of no drafts */

typedef struct pw_spec_verify_desc {
    uint32_t struct_size;
    uint32_t seqs_max; /* 1 to 2^24 */
    int64_t target_row_stride; /* 0 with TOKENS */
    int64_t draft_row_stride;  /* REJECTION: 0 where drafts were certain; else 0 */
    uint32_t nodes_max;        /* of all sequences together, 1 to 2^24 */
    uint32_t vocab;            /* 1 to 2^24 */
    uint32_t mode;             /* PW_VERIFY_* */
    uint32_t tree;             /* 1: parents are given; 0: every tree is a chain */
    uint32_t places;           /* 1: places are given, entries and count come back */
    uint32_t reserved;         /* 0 */
} pw_spec_verify_desc;

/* With REJECTION. */
typedef struct pw_verify_request {
    uint64_t seed;
    uint32_t position; /* of the root */
    uint32_t fork;
} pw_verify_request;

typedef struct pw_spec_verify_args {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    pw_run run;
    const uint32_t *tokens;            /* [nodes]; a root's is not read */
    const uint32_t *parents;           /* [nodes] with tree: numbers in the tree; else NULL */
    const float *target;               /* [nodes][vocab], or NULL with TOKENS */
    const float *draft;                /* [nodes][vocab], or NULL */
    const uint32_t *sampled;           /* [nodes] with TOKENS: what comes after each; else NULL */
    const pw_verify_request *requests; /* [seqs] with REJECTION; else NULL */
    const uint32_t *places;            /* [nodes][2]: page and token; or NULL */
    uint32_t *path;     /* [nodes]: from each sequence's first node on, its accepted nodes */
    uint32_t *accepted; /* [seqs]: how many, the root included */
    uint32_t *next;     /* [seqs]: the token after them, or PW_NONE */
    uint32_t *status;   /* [seqs]: PW_ROW_* */
    uint32_t *entries;  /* [nodes][5]: what kv_copy needs to bring them together; or NULL */
    uint32_t *count;    /* [1]: entries written; or NULL */
} pw_spec_verify_args;

PW_API pw_status pw_spec_verify_query(const pw_device *device, const pw_spec_verify_desc *desc,
                                      pw_needs *needs, pw_error *error);
PW_API pw_status pw_spec_verify_plan(const pw_device *device, const pw_spec_verify_desc *desc,
                                     uint32_t seqs,
                                     const uint32_t *node_start, /* [seqs + 1], from 0 */
                                     void *plan, uint64_t plan_bytes, pw_error *error);
PW_API pw_status pw_spec_verify_run(const pw_device *device, const pw_spec_verify_desc *desc,
                                    const pw_spec_verify_args *args, void *stream,
                                    pw_error *error);

/* ---- pages of a slab, by number --------------------------------------------------------
 *
 * Who holds each page, which ones a sequence has, and which prefixes they hold. Host objects:
 * numbers alone are here; what must be copied in a slab is told, as an entry of kv_copy.
 * Any thread may use them; calls of one table come one after the other. Tables and prefixes
 * keep what they need of their pages alive: they may be destroyed in any order. */

typedef struct pw_pages pw_pages;
typedef struct pw_table pw_table;       /* the pages of one sequence, in order */
typedef struct pw_prefixes pw_prefixes; /* full pages by the tokens down to them */

/* All pages of a slab, free: 1 to 2^31 of page_len tokens, 1 to 65536. */
PW_API pw_status pw_pages_create(uint32_t pages, uint32_t page_len, pw_pages **created,
                                 pw_error *error);
/* NULL is fine, of this as of any destroy. */
PW_API void pw_pages_destroy(pw_pages *pages);

typedef struct pw_pages_state {
    uint32_t struct_size;
    uint32_t total;
    uint32_t free; /* nobody holds them */
    uint32_t idle; /* prefixes alone hold them, and can let go of those that no used one follows */
} pw_pages_state;

PW_API pw_status pw_pages_count(const pw_pages *pages, pw_pages_state *state, pw_error *error);

/* Takes free pages, which have one holder each then. All or none: PW_E_PAGES. */
PW_API pw_status pw_pages_take(pw_pages *pages, uint32_t count, uint32_t *ids,
                               pw_error *error);
/* One more holder of each of these pages; all or none. */
PW_API pw_status pw_pages_hold(pw_pages *pages, const uint32_t *ids, uint32_t count,
                               pw_error *error);
/* One holder less, all or none; after its last a page is free. Only what you hold. */
PW_API pw_status pw_pages_release(pw_pages *pages, const uint32_t *ids, uint32_t count,
                                  pw_error *error);

/* A sequence without tokens. */
PW_API pw_status pw_table_create(pw_pages *pages, pw_table **table, pw_error *error);
/* Lets go of its pages. */
PW_API void pw_table_destroy(pw_table *table);

/* Makes room for more tokens, all or none: PW_E_PAGES. Where the sequence shared its last page
 * and has one of its own now, copied is 1 and entry what kv_copy must do before they are
 * written; else 0. */
PW_API pw_status pw_table_grow(pw_table *table, uint64_t tokens, uint32_t *entry, /* [5] */
                               uint32_t *copied, pw_error *error);
/* A second sequence with the same tokens, in the same pages. */
PW_API pw_status pw_table_fork(const pw_table *table, pw_table **fork, pw_error *error);
/* Forgets the tokens past the first so many, and lets go of their pages. */
PW_API pw_status pw_table_shorten(pw_table *table, uint64_t tokens, pw_error *error);

typedef struct pw_table_state {
    uint32_t struct_size;
    uint32_t pages;
    uint64_t tokens;
} pw_table_state;

PW_API pw_status pw_table_count(const pw_table *table, pw_table_state *state, pw_error *error);
/* Its page ids from page first on, for attention. */
PW_API pw_status pw_table_ids(const pw_table *table, uint32_t first, uint32_t count,
                              uint32_t *ids, pw_error *error);
/* Page and token of its tokens from first on, for append_kv. */
PW_API pw_status pw_table_slots(const pw_table *table, uint64_t first, uint32_t count,
                                uint32_t *slots, /* [count][2] */
                                pw_error *error);

/* What keys and values depend on beside tokens: those of one scope are never found under
 * another. */
typedef struct pw_scope {
    uint32_t struct_size;
    uint32_t salt_bytes;
    const uint8_t *salt; /* what a client shares with nobody else; or NULL */
    uint64_t weights;    /* the version of the weights */
    uint64_t adapter;    /* 0: none */
    uint64_t adapter_version;
} pw_scope;

/* Why a prefix ended where it did. */
#define PW_MISS_SHORT 1u   /* what is left fills no page */
#define PW_MISS_EVICTED 2u /* the next page was here, and had to go */
#define PW_MISS_SALT 3u    /* it is here under another salt */
#define PW_MISS_VERSION 4u /* it is here under other weights, or another adapter */
#define PW_MISS_COLD 5u    /* it was never here, as far as is remembered */

/* An index of nothing yet. */
PW_API pw_status pw_prefixes_create(pw_pages *pages, pw_prefixes **prefixes, pw_error *error);
PW_API void pw_prefixes_destroy(pw_prefixes *prefixes);

/* A sequence that begins with the longest start of these tokens whose full pages are there.
 * Leave out the last token of a prompt: its logits are wanted. */
PW_API pw_status pw_prefixes_find(pw_prefixes *prefixes, const pw_scope *scope,
                                  const uint32_t *tokens, uint32_t count, pw_table **table,
                                  uint32_t *miss, /* PW_MISS_*; or NULL */
                                  pw_error *error);
/* How many pages would be found, and how many of these are idle; holds none. */
PW_API pw_status pw_prefixes_probe(const pw_prefixes *prefixes, const pw_scope *scope,
                                   const uint32_t *tokens, uint32_t count, uint32_t *pages,
                                   uint32_t *idle, pw_error *error);
/* The full pages of these tokens, which begin the table's sequence and whose keys and values
 * are written, are found from now on. Says how many are new: of what is there already, the
 * first stays. */
PW_API pw_status pw_prefixes_publish(pw_prefixes *prefixes, const pw_scope *scope,
                                     const uint32_t *tokens, uint32_t count,
                                     const pw_table *table, uint32_t *published,
                                     pw_error *error);
/* Lets go of idle pages, the longest unused first, until so many more are free or none is
 * left. */
PW_API pw_status pw_prefixes_evict(pw_prefixes *prefixes, uint32_t wanted, uint32_t *freed,
                                   pw_error *error);

/* In which a scope must be the same to be forgotten; any of them together. */
#define PW_SAME_WEIGHTS 1u
#define PW_SAME_ADAPTER 2u
#define PW_SAME_ADAPTER_VERSION 4u
#define PW_SAME_SALT 8u

/* Lets go of everything in scopes that are the same as this one in these; 0: of all. */
PW_API pw_status pw_prefixes_forget(pw_prefixes *prefixes, const pw_scope *scope,
                                    uint32_t same, pw_error *error);

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
typedef struct pw_matcher pw_matcher;   /* one text; calls come one after the other */

typedef struct pw_vocabulary {
    uint32_t struct_size;
    uint32_t tokens;         /* 1 to 2^24 */
    const uint8_t *bytes;    /* of all tokens, one after the other; special ones: their names */
    const uint64_t *starts;  /* [tokens + 1], ascending from 0: where each begins in bytes */
    const uint32_t *special; /* [special_count] tokens that are never text: a grammar asks for
                                them by name, as in <|tool|>; or NULL */
    const uint32_t *ends;    /* [end_count] tokens that end a text; or NULL: after the end of one
                                no token may come, and its mask is of zeros */
    uint32_t special_count;
    uint32_t end_count;
} pw_vocabulary;

typedef struct pw_grammars_options {
    uint32_t struct_size;
    uint32_t threads;     /* that compile what takes little; as many compile the rest; at most
                             1024; 0: 2 */
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
 * nobody asked for it before. On PW_E_GRAMMAR field is where, as a JSON pointer, if that is
 * known; one that does not fit ends with "...", and stands whole in the message. */
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

/* Tokens that alone may come, one after the other, up to one that ends the text, at most
 * capacity of them. Takes none. */
PW_API pw_status pw_matcher_forced(pw_matcher *matcher, uint32_t *tokens, uint32_t capacity,
                                   uint32_t *count, pw_error *error);

/* Takes back the last tokens. */
PW_API pw_status pw_matcher_take_back(pw_matcher *matcher, uint32_t count, pw_error *error);

/* 1 if the text may end here, else 0. */
PW_API pw_status pw_matcher_may_end(pw_matcher *matcher, uint32_t *may_end, pw_error *error);

/* Masks of a draft tree in one walk: of the text, then after each node. A node has a token
 * and a parent, a node before it, or PW_NONE. The row of one that may not come is 0. */
PW_API pw_status pw_matcher_tree_masks(pw_matcher *matcher,
                                       const uint32_t *tokens,  /* [count] */
                                       const uint32_t *parents, /* [count] */
                                       uint32_t count,
                                       uint32_t *words, /* [count + 1][row_words] */
                                       uint64_t row_words, pw_error *error);

/* Threads that compute masks of many texts at once; any thread may ask them. */
typedef struct pw_masker pw_masker;

/* Starts so many, at most 1024; 0: as many as the machine runs at once. */
PW_API pw_status pw_masker_create(uint32_t threads, pw_masker **masker, pw_error *error);
/* Ends them, once each has done the mask that it is at. */
PW_API void pw_masker_destroy(pw_masker *masker);

/* Masks of many texts, each another: row i is of matchers[i]. Waits for deadline_us at most, 0:
 * until all are done. A row that is late is of zeros, and its status PW_E_BUSY: its mask is
 * computed all the same, and is there when it is asked for here again. While it is being
 * computed its matcher answers PW_E_BUSY, but may be destroyed; accept and take_back drop it.
 * A masker that is destroyed computes none that it has not begun. A handle that is none
 * refuses the whole batch. Without a masker rows are computed by the caller, one after the
 * other; late are those that were not begun in time, and none is computed on. */
PW_API pw_status pw_masker_masks(pw_masker *masker, /* or NULL */
                                 pw_matcher *const *matchers, /* [count] */
                                 uint32_t count, uint32_t deadline_us,
                                 uint32_t *words, /* [count][row_words] */
                                 uint64_t row_words,
                                 pw_status *statuses, /* [count]: of each row */
                                 uint32_t *late,      /* how many are; or NULL */
                                 pw_error *error);

/* ---- layout, as the library was built with it ----------------------------------------- */

#if defined(__cplusplus)
#define PW_ASSERT(condition) static_assert(condition, #condition)
#else
#define PW_ASSERT(condition) _Static_assert(condition, #condition)
#endif
PW_ASSERT(sizeof(pw_error) == 256);
PW_ASSERT(sizeof(pw_needs) == 24);
PW_ASSERT(sizeof(pw_kv_layout) == 88);
PW_ASSERT(sizeof(pw_attention_desc) == 160);
PW_ASSERT(sizeof(pw_grammars_options) == 24);
PW_ASSERT(sizeof(pw_embed_desc) == 64);
PW_ASSERT(sizeof(pw_norm_desc) == 64);
PW_ASSERT(sizeof(pw_matmul_desc) == 64);
PW_ASSERT(sizeof(pw_lora_desc) == 48);
PW_ASSERT(sizeof(pw_rope_desc) == 56);
PW_ASSERT(sizeof(pw_append_kv_desc) == 136);
PW_ASSERT(sizeof(pw_kv_copy_desc) == 104);
PW_ASSERT(sizeof(pw_varlen_mask_desc) == 24);
PW_ASSERT(sizeof(pw_attention_fold_desc) == 48);
PW_ASSERT(sizeof(pw_activation_desc) == 48);
PW_ASSERT(sizeof(pw_gather_desc) == 40);
PW_ASSERT(sizeof(pw_pool_desc) == 48);
PW_ASSERT(sizeof(pw_logit_mask_desc) == 56);
PW_ASSERT(sizeof(pw_sample_desc) == 48);
PW_ASSERT(sizeof(pw_token_logprob_desc) == 48);
PW_ASSERT(sizeof(pw_spec_verify_desc) == 48);
PW_ASSERT(sizeof(pw_weight) == 24);
PW_ASSERT(sizeof(pw_rope_table) == 64);
PW_ASSERT(sizeof(pw_logit_mask_row) == 28);
PW_ASSERT(sizeof(pw_sample_row) == 32);
PW_ASSERT(sizeof(pw_verify_request) == 16);
PW_ASSERT(sizeof(pw_pages_state) == 16);
PW_ASSERT(sizeof(pw_table_state) == 16);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_device_options) == 24);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_run) == 32);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_rows) == 40);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_embed_args) == 64);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_norm_args) == 72);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_matmul_args) == 72);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_lora_args) == 104);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_rope_args) == 72);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_append_kv_lens) == 16);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_append_kv_args) == 104);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_kv_copy_args) == 72);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_varlen_mask_lens) == 56);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_varlen_mask_args) == 72);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_attention_fold_args) == 72);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_activation_args) == 56);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_gather_args) == 64);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_pool_args) == 56);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_logit_mask_lens) == 32);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_logit_mask_args) == 104);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_sample_args) == 144);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_token_logprob_args) == 88);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_spec_verify_args) == 144);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_scope) == 40);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_vocabulary) == 48);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_attention_lens) == 40);
PW_ASSERT(sizeof(void *) != 8 || sizeof(pw_attention_args) == 128);

#ifdef __cplusplus
}
#endif
#endif
