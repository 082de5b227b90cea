/* Parameters of every kernel: plain scalars, declared once for C11, C++17, CUDA,
 * Metal and Rust (through bindgen). Buffers are never named here: they are
 * arguments. Private: embedders include pagewise.h instead.
 *
 * Rules: fixed-width scalars only, 8-byte fields first, no padding, at most 16
 * fields a block, constants as unsigned macros. Sizes and offsets are asserted in
 * every language.
 */
#ifndef PAGEWISE_KERNEL_PARAMS_H
#define PAGEWISE_KERNEL_PARAMS_H

#if defined(__METAL_VERSION__)
#include <metal_stdlib>
typedef uint uint32_t;
typedef ulong uint64_t;
typedef long int64_t;
#define PWK_ASSERT(condition, text) static_assert(condition, text)
#elif defined(__cplusplus)
#include <cstdint>
#include <cstddef>
#define PWK_ASSERT(condition, text) static_assert(condition, text)
#else
#include <stddef.h>
#include <stdint.h>
#define PWK_ASSERT(condition, text) _Static_assert(condition, text)
#endif

/* Metal's library has no offsetof, and nothing that checks this header has Metal's compiler,
 * to show that a builtin stands in for it. So there the size alone is asserted: with fields
 * of 4 and 8 bytes, in order, a size without padding leaves none of them room to move. */
#if defined(__METAL_VERSION__)
#define PWK_LAYOUT(block, bytes, last, at) \
    PWK_ASSERT(sizeof(struct block) == (bytes), #block " has padding or another size")
#else
#define PWK_LAYOUT(block, bytes, last, at)                                              \
    PWK_ASSERT(sizeof(struct block) == (bytes), #block " has padding or another size"); \
    PWK_ASSERT(offsetof(struct block, last) == (at), #block "." #last " has moved")
#endif

/* Element types. Zero is invalid. */
#define PWK_DTYPE_F32 1u
#define PWK_DTYPE_F16 2u
#define PWK_DTYPE_BF16 3u
#define PWK_DTYPE_E4M3 4u /* fp8, finite only: 448 is the largest value */
#define PWK_DTYPE_I8 5u
#define PWK_DTYPE_I4 6u /* two's complement nibbles, the low one first */

/* ---- faults ------------------------------------------------------------------ */

/* What a device found wrong in a step's buffers, where the CPU refuses a call. */
#define PWK_FAULT_ELEMENT 1u    /* an element outside of least to most */
#define PWK_FAULT_REPEATED 2u   /* an element that says what the one at `least` says */
#define PWK_FAULT_NOT_FINITE 3u /* an element that is NaN or infinite */
#define PWK_FAULT_BELOW 4u      /* an element below what is allowed */
#define PWK_FAULT_ABOVE 5u      /* an element above what is allowed */

/* The first fault of a program; commands after it do nothing. */
struct pwk_fault {
    uint64_t at;      /* index of the element in its buffer */
    int64_t least;    /* the smallest value allowed */
    int64_t most;     /* the largest value allowed */
    int64_t got;      /* the value found */
    uint32_t kind;    /* PWK_FAULT_*; 0: none */
    uint32_t command; /* place of the command in its program */
    uint32_t field;   /* place of the buffer in the command's declaration */
    uint32_t claimed; /* 1: some thread has found one */
};
PWK_LAYOUT(pwk_fault, 48, claimed, 44);

/* What every launch of a kernel gets after its parameters and buffers. */
struct pwk_launch {
    uint64_t workspace; /* address of scratch */
    uint64_t fault;     /* address of the program's pwk_fault */
    uint32_t command;   /* place of the command in its program */
    uint32_t tile;      /* what the lowering tells the kernel of its tiles */
    uint32_t part;      /* the same, a second number */
    uint32_t reserved;  /* 0 */
};
PWK_LAYOUT(pwk_launch, 32, reserved, 28);

/* ---- KV pages, shared by every kernel that reads or writes them --------------- */

/* What turns stored keys and values back into numbers. */
#define PWK_KV_SCALES_NONE 0u   /* nothing: f32, f16, bf16 */
#define PWK_KV_SCALES_STATIC 1u /* k_scale and v_scale of the layout: e4m3, i8, i4 */
#define PWK_KV_SCALES_TOKEN 2u  /* one f32 for each token, head and K or V, in a slab of their
                                   own: [pages][kv_heads][2][page_len], K before V */

/* Where key (page, head, token, dim) and its value lie in a slab of pages. Strides are in
 * elements. The native layout is [page][head][K: head_dim x page_len | V: page_len x
 * head_dim]: K with k_dim_stride page_len and k_token_stride 1. Embedders bring K as rows:
 * k_dim_stride 1. The axes nest: each stride spans all that the smaller ones reach. In
 * i4, dims 2i and 2i + 1 share a byte: all strides but k_dim_stride are even, dim d of K
 * lies at (d - d % 2) * k_dim_stride + d % 2, and a transposed K has k_token_stride 2. */
struct pwk_kv_layout {
    uint64_t page_stride;    /* between pages */
    uint64_t k_head_stride;  /* between heads of K */
    uint64_t k_token_stride; /* between tokens of K: 1 where K is transposed (i4: 2) */
    uint64_t k_dim_stride;   /* between dims of K: 1 where K is rows */
    uint64_t v_head_stride;  /* between heads of V */
    uint64_t v_token_stride; /* between tokens of V; its dims are consecutive */
    uint64_t v_offset;       /* from a page's K to its V in one slab; 0 if V has its own */
    uint32_t pages;          /* pages of the slab; 1 to 2^32 - 1 */
    uint32_t page_len;       /* tokens a page; 1 to 65536 */
    uint32_t kv_heads;       /* 1 to 1024 */
    uint32_t head_dim;       /* multiple of 8, at most 256 */
    uint32_t dtype;          /* any PWK_DTYPE */
    uint32_t scales;         /* PWK_KV_SCALES_*; as the dtype asks */
    float k_scale;           /* static: a key is its stored number times this; else 0 */
    float v_scale;           /* static: a value is its stored number times this; else 0 */
};
PWK_LAYOUT(pwk_kv_layout, 88, v_scale, 84);

/* ---- norm ------------------------------------------------------------------ */

/* Root mean square norm of rows, or of each head of a row. */
struct pwk_norm {
    uint64_t x_row_stride;        /* elements between rows of x; at least heads * columns */
    uint64_t residual_row_stride; /* elements between rows of the residual; 0 without one */
    uint64_t out_row_stride;      /* elements between rows of out; at least heads * columns */
    uint32_t rows_max;            /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t heads;               /* vectors normed apart in a row; 1 to 65536 */
    uint32_t columns;             /* elements of one vector; 1 to 2^24 */
    uint32_t x_dtype;             /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t weight_dtype;        /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t out_dtype;           /* PWK_DTYPE_F32, F16 or BF16 */
    float epsilon;                /* added to the mean of squares; at least 0, finite */
    float weight_offset;          /* added to each weight: 0, or 1 where models store weight - 1 */
};
PWK_LAYOUT(pwk_norm, 56, weight_offset, 52);

/* ---- vocabulary: logit_mask, sample, token_logprob --------------------------- */

#define PWK_NONE 0xffffffffu /* in a step buffer of indices: no mask, no slot, no token */

/* ---- logit_mask ------------------------------------------------------------ */

/* A count of a token: how often it was generated, up to 32767, and whether the prompt has it. */
#define PWK_COUNT_GENERATED 0x7fffu
#define PWK_COUNT_PROMPT 0x8000u

/* What an entry of the counted list does with its token, which the other bits hold. */
#define PWK_COUNTED_PROMPT 0x80000000u /* marks it as one of the prompt */
#define PWK_COUNTED_BACK 0x40000000u   /* takes one generated token back */
#define PWK_COUNTED_TOKEN 0x3fffffffu

/* Masks, lists, penalties and temperature on rows of logits, in place. */
struct pwk_logit_mask {
    uint64_t row_stride;    /* elements between rows of logits; at least vocab */
    uint64_t counts_stride; /* elements between slots of counts; at least vocab, 0 without counts */
    uint32_t rows_max;      /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t vocab;         /* logits of a row; 1 to 2^24 */
    uint32_t masks;         /* masks in the slab; 0 without one */
    uint32_t mask_words;    /* words from one mask to the next; at least vocab / 32, rounded up */
    uint32_t banned_max;    /* entries at most of the list of banned tokens; 0 without one */
    uint32_t bias_max;      /* entries at most of the list of biases; 0 without one */
    uint32_t slots;         /* slots of counts; 0 without counts */
    uint32_t counted_max;   /* entries at most of the list of tokens to count; 0 without counts */
};
PWK_LAYOUT(pwk_logit_mask, 48, counted_max, 44);

/* What one row of logit_mask asks for: one element of a step buffer. */
struct pwk_logit_mask_row {
    uint32_t mask;     /* which mask allows its tokens, or PWK_NONE */
    uint32_t action;   /* a second mask that must allow them too, or PWK_NONE */
    uint32_t slot;     /* whose counts its penalties read, or PWK_NONE */
    float temperature; /* logits are divided by it; 0 leaves them; finite, at least 0 */
    float repetition;  /* 1 is none; finite, above 0; without a slot 1 */
    float presence;    /* 0 is none; finite; without a slot 0 */
    float frequency;   /* 0 is none; finite; without a slot 0 */
};
PWK_LAYOUT(pwk_logit_mask_row, 28, frequency, 24);

/* ---- sample ---------------------------------------------------------------- */

/* What happened to a row of sample or token_logprob. */
#define PWK_STATUS_OK 0u
#define PWK_STATUS_MASKED 1u     /* every logit is -inf: no token */
#define PWK_STATUS_NOT_FINITE 2u /* a logit is NaN or +inf: no token */

/* What a draw of noise is for: the last word of its counter. */
#define PWK_NOISE_SAMPLE 1u
#define PWK_NOISE_ACCEPT 2u   /* whether a draft token is accepted */
#define PWK_NOISE_RESIDUAL 3u /* the token after the last accepted one */

/* One token for each row of logits. */
struct pwk_sample {
    uint64_t row_stride;     /* elements between rows of logits; at least vocab */
    uint64_t raw_row_stride; /* elements between rows of raw_logits; 0 without them */
    uint32_t rows_max;       /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t vocab;          /* logits of a row; 1 to 2^24 */
    uint32_t top_n;          /* most likely tokens to list; 0 to 128 */
    uint32_t kept_words;     /* words between rows of kept; at least vocab / 32, rounded up; else 0 */
    uint32_t masks;          /* masks in the slab; 0 without one */
    uint32_t mask_words;     /* words from one mask to the next; at least vocab / 32, rounded up */
};
PWK_LAYOUT(pwk_sample, 40, mask_words, 36);

/* How one row is sampled: one element of a step buffer. */
struct pwk_sample_row {
    uint64_t seed;     /* of the request: the key of its noise */
    uint32_t position; /* of the token that is sampled */
    uint32_t fork;     /* which choice or fork of the request */
    float temperature; /* 0 takes the most likely token; finite, at least 0 */
    uint32_t top_k;    /* tokens kept at most; 0 keeps all */
    float top_p;       /* mass kept at least, in [0, 1]; 1 keeps all, 0 one token */
    float min_p;       /* least probability over that of the most likely, in [0, 1] */
};
PWK_LAYOUT(pwk_sample_row, 32, min_p, 28);
/* ---- packed weights, shared by every kernel that multiplies by them or looks them up ---- */

/* What turns the whole numbers of a grouped weight into its values. */
#define PWK_SCHEME_NONE 0u      /* nothing: f32, f16, bf16 */
#define PWK_SCHEME_AFFINE 1u    /* 0 to 255, or 0 to 15, times scale plus bias of the group */
#define PWK_SCHEME_SYMMETRIC 2u /* -128 to 127, or -8 to 7, times scale of the group */

/* A matrix [outputs][inputs], packed in tiles of 32 outputs as packing/mod.rs draws them. */
struct pwk_weight {
    uint32_t outputs;     /* 1 to 2^24 */
    uint32_t inputs;      /* 1 to 2^20; a multiple of the group */
    uint32_t dtype;       /* PWK_DTYPE_F32, F16, BF16; I8, I4: groups of whole numbers */
    uint32_t scheme;      /* PWK_SCHEME_*; as the dtype asks */
    uint32_t group;       /* inputs that share a scale: 32, 64 or 128; 0 without groups */
    uint32_t scale_dtype; /* of scale and bias of a group: PWK_DTYPE_F32, F16, BF16; else 0 */
};
PWK_LAYOUT(pwk_weight, 24, scale_dtype, 20);

/* ---- matmul ---------------------------------------------------------------- */

/* Rows times the transpose of a packed weight, plus a bias. */
struct pwk_matmul {
    uint64_t x_row_stride;    /* elements between rows of x; at least inputs */
    uint64_t out_row_stride;  /* elements between rows of out; at least outputs */
    uint32_t rows_max;        /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t x_dtype;         /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t bias_dtype;      /* PWK_DTYPE_F32, F16 or BF16; 0 without a bias */
    uint32_t out_dtype;       /* PWK_DTYPE_F32, F16 or BF16 */
    struct pwk_weight weight; /* the packed matrix */
};
PWK_LAYOUT(pwk_matmul, 56, weight, 32);

/* ---- attention ------------------------------------------------------------- */

/* Rows of queries over pages of keys and values. The rows of a sequence are its last
 * positions: row i of n lies at position kv_len - n + i. */
struct pwk_attention {
    struct pwk_kv_layout kv; /* where keys and values lie */
    uint64_t q_row_stride;   /* elements between rows of q; at least q_heads * head_dim */
    uint64_t out_row_stride; /* elements between rows of out; at least q_heads * head_dim */
    uint32_t rows_max;       /* rows at most in one call; 1 to 2^20 */
    uint32_t seqs_max;       /* sequences at most in one call; 1 to 2^20 */
    uint32_t q_heads;        /* multiple of kv_heads, at most 256 * kv_heads */
    uint32_t kv_len_max;     /* positions of a sequence at most; 1 to 2^30 */
    uint32_t table_width;    /* page ids a sequence in a padded table, at most 2^30; 0: lists */
    uint32_t page_ids_max;   /* page ids of all lists together, at most 2^30; 0 with a table */
    uint32_t q_dtype;        /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t out_dtype;      /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t causal;         /* 1: a row sees no position after its own; else 0 */
    uint32_t window;         /* positions a row sees up to and with its own; 0: all */
    float scale;             /* a score is a dot product times this; finite */
    float softcap;           /* c: scores become c * tanh(score / c); at least 0; 0: no cap */
};
PWK_LAYOUT(pwk_attention, 152, softcap, 148);

/* ---- attention_fold -------------------------------------------------------- */

/* States of attention that were computed apart, folded into one. */
struct pwk_attention_fold {
    uint64_t part_row_stride; /* elements between rows of parts; at least heads * head_dim */
    uint64_t out_row_stride;  /* elements between rows of out; at least heads * head_dim */
    uint32_t rows_max;        /* rows at most in one call; 1 to 2^20 */
    uint32_t parts;           /* states of each row; 1 to 1024 */
    uint32_t heads;           /* heads of a row; 1 to 65536 */
    uint32_t head_dim;        /* multiple of 8, at most 256 */
    uint32_t part_dtype;      /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t out_dtype;       /* PWK_DTYPE_F32, F16 or BF16 */
};
PWK_LAYOUT(pwk_attention_fold, 40, out_dtype, 36);

/* ---- draft trees ------------------------------------------------------------ */

#define PWK_TREE_NODES_MAX 64u    /* nodes of one draft tree: one bit each */
#define PWK_NO_PARENT 0xffffffffu /* the parent of a root */

/* ---- varlen_mask ----------------------------------------------------------- */

/* What each row of a step sees: an interval of positions, and the bits of a draft tree. */
struct pwk_varlen_mask {
    uint32_t rows_max;      /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t sequences_max; /* sequences at most in one call; 1 to 2^24 */
    uint32_t documents_max; /* document boundaries at most in one call; 0 without documents */
    uint32_t window;        /* latest positions a row sees, its own included; 0 for all of them */
};
PWK_LAYOUT(pwk_varlen_mask, 16, window, 12);
/* ---- rope ------------------------------------------------------------------ */

/* Which dims of a head turn together. */
#define PWK_ROPE_NONE 0u        /* none: only where a kernel may leave keys as they are */
#define PWK_ROPE_NEOX 1u        /* dim i with dim i + rotary_dims / 2 */
#define PWK_ROPE_INTERLEAVED 2u /* dim 2i with dim 2i + 1 */

/* Rotary positions of the heads of rows. */
struct pwk_rope {
    uint64_t x_row_stride;   /* elements between rows of x; 0 in place */
    uint64_t out_row_stride; /* elements between rows of out; at least heads * head_dim */
    uint32_t rows_max;       /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t heads;          /* heads of a row; 1 to 65536 */
    uint32_t head_dim;       /* 2 to 256 */
    uint32_t rotary_dims;    /* first dims of a head that turn; even, 2 to head_dim */
    uint32_t table_len;      /* positions of the table; 1 to 2^32 - 1 */
    uint32_t pairing;        /* PWK_ROPE_NEOX or INTERLEAVED */
    uint32_t x_dtype;        /* PWK_DTYPE_F32, F16 or BF16; in place the same as out_dtype */
    uint32_t out_dtype;      /* PWK_DTYPE_F32, F16 or BF16 */
};
PWK_LAYOUT(pwk_rope, 48, out_dtype, 44);

/* ---- append_kv ------------------------------------------------------------- */

/* New keys and values into pages. */
struct pwk_append_kv {
    struct pwk_kv_layout kv; /* where keys and values lie */
    uint64_t k_row_stride; /* elements between rows of k; at least kv_heads * head_dim */
    uint64_t v_row_stride; /* elements between rows of v; at least kv_heads * head_dim */
    uint32_t rows_max;     /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t slots_max;    /* slots of all rows together; without starts, rows_max */
    uint32_t x_dtype;      /* of k and v: PWK_DTYPE_F32, F16 or BF16 */
    uint32_t rope;         /* PWK_ROPE_*: how keys turn first */
    uint32_t rotary_dims;  /* first dims that turn; even, 2 to head_dim; 0 without rope */
    uint32_t table_len;    /* positions of the table; 1 to 2^32 - 1; 0 without rope */
};
PWK_LAYOUT(pwk_append_kv, 128, table_len, 124);

/* ---- kv_copy --------------------------------------------------------------- */

/* Tokens copied between pages of a slab. */
struct pwk_kv_copy {
    struct pwk_kv_layout kv; /* where keys and values lie */
    uint32_t entries_max; /* entries at most in one call; 1 to 2^31 - 1 */
    uint32_t tokens_max;  /* tokens of one entry at most; 1 to page_len */
};
PWK_LAYOUT(pwk_kv_copy, 96, tokens_max, 92);

/* ---- gather ---------------------------------------------------------------- */

/* Rows of a matrix by their numbers. */
struct pwk_gather {
    uint64_t x_row_stride;   /* elements between rows of x; at least columns */
    uint64_t out_row_stride; /* elements between rows of out; at least columns */
    uint32_t x_rows;         /* rows of x; 1 to 2^32 - 1 */
    uint32_t rows_max;       /* rows of out at most in one call; 1 to 2^31 - 1 */
    uint32_t columns;        /* elements of a row; 1 to 2^24 */
    uint32_t dtype;          /* any PWK_DTYPE but I4 */
};
PWK_LAYOUT(pwk_gather, 32, dtype, 28);

/* ---- activation ------------------------------------------------------------ */

#define PWK_ACTIVATION_SILU 1u
#define PWK_ACTIVATION_GELU_TANH 2u

/* A function of the gate, times up: SwiGLU and its kin. */
struct pwk_activation {
    uint64_t x_row_stride;   /* elements between rows of x; at least up_offset + columns */
    uint64_t out_row_stride; /* elements between rows of out; at least columns */
    uint32_t rows_max;       /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t columns;        /* elements of a gate; 1 to 2^24 */
    uint32_t up_offset;      /* elements from gate to up in a row; columns to 2^25; 0 without up */
    uint32_t kind;           /* PWK_ACTIVATION_* */
    uint32_t x_dtype;        /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t out_dtype;      /* PWK_DTYPE_F32, F16 or BF16 */
};
PWK_LAYOUT(pwk_activation, 40, out_dtype, 36);

/* ---- embed ----------------------------------------------------------------- */

/* Rows of an embedding table by token ids: of plain rows, or of the very weight that
 * matmul multiplies by. The table's outputs are the vocabulary, its inputs the columns. */
struct pwk_embed {
    uint64_t table_row_stride; /* elements between plain rows; at least inputs; 0 if packed */
    uint64_t out_row_stride;   /* elements between rows of out; at least inputs */
    uint32_t rows_max;         /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t packed;           /* 1: the table is packed as for matmul; 0: plain rows of floats */
    uint32_t out_dtype;        /* PWK_DTYPE_F32, F16 or BF16 */
    float scale;               /* what each element is multiplied by; finite, 1 for none */
    struct pwk_weight weight;  /* the table; plain rows have no scheme, group or scale_dtype */
};
PWK_LAYOUT(pwk_embed, 56, weight, 32);

/* ---- pool ------------------------------------------------------------------ */

#define PWK_POOL_FIRST 1u /* the first row of a sequence: that of a class token */
#define PWK_POOL_LAST 2u  /* the last row */
#define PWK_POOL_MEAN 3u  /* the mean of all rows */

/* One vector for each sequence from its rows. */
struct pwk_pool {
    uint64_t x_row_stride;   /* elements between rows of x; at least columns */
    uint64_t out_row_stride; /* elements between rows of out; at least columns */
    uint32_t rows_max;       /* rows of x at most in one call; 1 to 2^31 - 1 */
    uint32_t seqs_max;       /* sequences at most in one call; 1 to 2^24 */
    uint32_t columns;        /* elements of a row; 1 to 2^24 */
    uint32_t kind;           /* PWK_POOL_* */
    uint32_t x_dtype;        /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t normalise;      /* 1: a vector is divided by its length; else 0 */
};
PWK_LAYOUT(pwk_pool, 40, normalise, 36);
/* ---- lora ------------------------------------------------------------------ */

#define PWK_LORA_NONE 0xffffffffu /* the slot of a row without an adapter */
#define PWK_LORA_SEGMENT 512u     /* inputs summed from zero before they join the total */
#define PWK_LORA_RANKS 16u        /* ranks of a panel of packed A */
#define PWK_LORA_OUTPUTS 32u      /* outputs of a panel of packed B */

/* Low-rank terms of many adapters, added to rows by the adapter of each. */
struct pwk_lora {
    uint64_t x_row_stride;   /* elements between rows of x; at least inputs */
    uint64_t out_row_stride; /* elements between rows of out; at least outputs */
    uint32_t rows_max;       /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t inputs;         /* elements of a row of x; 1 to 2^24 */
    uint32_t outputs;        /* elements of a row of out; 1 to 2^24 */
    uint32_t slots;          /* adapters of the slabs; 1 to 65536 */
    uint32_t rank_max;       /* ranks a slot has room for; multiple of 16, at most 256 */
    uint32_t x_dtype;        /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t weight_dtype;   /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t reserved;       /* 0 */
};
PWK_LAYOUT(pwk_lora, 48, reserved, 44);

/* ---- spec_verify ----------------------------------------------------------- */

#define PWK_VERIFY_GREEDY 1u    /* a draft stands while it is the target's most likely token */
#define PWK_VERIFY_REJECTION 2u /* rejection sampling between the draft's and the target's */
#define PWK_VERIFY_TOKENS 3u    /* a draft stands while it is the token sampled at each node */

/* Draft tokens of chains and trees, verified. */
struct pwk_spec_verify {
    uint64_t target_row_stride; /* elements between rows of target; 0 with TOKENS */
    uint64_t draft_row_stride;  /* elements between rows of draft; 0 without them */
    uint32_t sequences_max;     /* sequences at most in one call; 1 to 2^24 */
    uint32_t nodes_max;         /* nodes of all trees at most in one call; 1 to 2^24 */
    uint32_t vocab;             /* tokens; 1 to 2^24 */
    uint32_t mode;              /* PWK_VERIFY_* */
};
PWK_LAYOUT(pwk_spec_verify, 32, mode, 28);

/* Whose noise a sequence is verified with: one element of a step buffer. */
struct pwk_verify_request {
    uint64_t seed;     /* of the request: the key of its noise */
    uint32_t position; /* of the root's token in its sequence; at most 2^31 - 1 */
    uint32_t fork;     /* which choice or fork of the request */
};
PWK_LAYOUT(pwk_verify_request, 16, fork, 12);
/* ---- token_logprob --------------------------------------------------------- */

/* The log-probability of one token for each row of hidden states. */
struct pwk_token_logprob {
    uint64_t x_row_stride;    /* elements between rows of x; at least inputs */
    uint32_t rows_max;        /* rows at most in one call; 1 to 2^31 - 1 */
    uint32_t x_dtype;         /* PWK_DTYPE_F32, F16 or BF16 */
    uint32_t bias_dtype;      /* PWK_DTYPE_F32, F16 or BF16; 0 without a bias */
    uint32_t reserved;        /* 0 */
    struct pwk_weight weight; /* the packed output weights */
};
PWK_LAYOUT(pwk_token_logprob, 48, weight, 24);

#endif /* PAGEWISE_KERNEL_PARAMS_H */
