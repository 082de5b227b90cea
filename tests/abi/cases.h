/* One small call of every kernel, with an answer that a person can redo. All is f32, so that
 * only what rounds needs a tolerance. */
#ifndef PAGEWISE_TESTS_CASES_H
#define PAGEWISE_TESTS_CASES_H

#include "kernel.h"
#include <math.h>

/* ---- the functions of each, by one type ------------------------------------------ */

#define FUNCTIONS(stem, ...)                                                                                             \
    static pw_status stem##_query(const pw_device *device, const void *desc, pw_needs *needs, pw_error *why) {           \
        return pw_##stem##_query(device, desc, needs, why);                                                              \
    }                                                                                                                    \
    static pw_status stem##_plan(const pw_device *device, const void *desc, const struct step *step, void *to,           \
                                 uint64_t bytes, pw_error *why) {                                                        \
        return pw_##stem##_plan(device, desc, __VA_ARGS__, to, bytes, why);                                              \
    }                                                                                                                    \
    static pw_status stem##_run(const pw_device *device, const void *desc, const void *args, void *stream, pw_error *why) { \
        return pw_##stem##_run(device, desc, args, stream, why);                                                         \
    }
FUNCTIONS(embed, step->count)
FUNCTIONS(norm, step->count)
FUNCTIONS(matmul, step->count)
FUNCTIONS(lora, step->count)
FUNCTIONS(rope, step->count)
FUNCTIONS(append_kv, step->lens)
FUNCTIONS(kv_copy, step->count)
FUNCTIONS(varlen_mask, step->lens)
FUNCTIONS(attention, step->lens)
FUNCTIONS(attention_fold, step->count)
FUNCTIONS(activation, step->count)
FUNCTIONS(gather, step->count)
FUNCTIONS(pool, step->count, step->starts)
FUNCTIONS(logit_mask, step->lens)
FUNCTIONS(sample, step->count)
FUNCTIONS(token_logprob, step->count)
FUNCTIONS(spec_verify, step->count, step->starts)

#define OF(stem)                                                                                       \
    .name = #stem, .query = stem##_query, .plan = stem##_plan, .run = stem##_run,                      \
    .desc_bytes = sizeof(pw_##stem##_desc), .args_bytes = sizeof(pw_##stem##_args),                    \
    .run_at = offsetof(pw_##stem##_args, run), .desc = &stem##_desc, .answer = stem##_answer
#define FROM(stem, field, kind, numbers) {#field, offsetof(pw_##stem##_args, field), kind, numbers, sizeof(numbers)}
#define TO(stem, field, kind, bytes) {#field, offsetof(pw_##stem##_args, field), kind, NULL, bytes}
#define NO(stem, field) {#field, offsetof(pw_##stem##_args, field), UNUSED, NULL, 8}
#define IN(stem, field, value) {#field, offsetof(pw_##stem##_desc, field), value, 0}
#define UNSERVED(stem, field, value) {#field, offsetof(pw_##stem##_desc, field), value, 1}
/* Rows are counted, and no more is said of them: two of them, and what is past that. */
#define ROWS .whole = {.count = 2}, .none = {.count = 0}, .beyond = {.count = 3}, .past = "rows", .rowwise = 1
#define ROWS_MAX(stem) .capacity = IN(stem, rows_max, 2)
#define NOT_A_NUMBER 0x7fc00000

/* Products read packed weights: a tile of 32 outputs, of which a few are in use. */
static _Alignas(LINE) unsigned char matmul_packed[32 * 3 * 4], logprob_packed[32 * 2 * 4];
static float lora_a[16 * 2], lora_b[32 * 16];

/* ---- embed ------------------------------------------------------------------------ */

static const pw_embed_desc embed_desc = {
    .struct_size = sizeof embed_desc, .rows_max = 2, .table_row_stride = 8, .out_row_stride = 8,
    .weight = {.outputs = 3, .inputs = 2, .dtype = PW_F32}, .out_dtype = PW_F32, .scale = 2};
static const float embed_table[] = {1, 2, 3, 4, 5, 6};
static const uint32_t embed_tokens[] = {2, 0};

static void embed_answer(struct made *call) {
    CLAIM(floats_are(call, "out", (float[]){10, 12, 2, 4}, 4));
}

/* ---- norm -------------------------------------------------------------------------- */

static const pw_norm_desc norm_desc = {
    .struct_size = sizeof norm_desc, .rows_max = 2, .x_row_stride = 16, .out_row_stride = 16, .heads = 1,
    .columns = 4, .x_dtype = PW_F32, .weight_dtype = PW_F32, .out_dtype = PW_F32, .weight_offset = 1};
static const float norm_x[] = {2, 2, 2, 2, 1, -1, 7, 7}, norm_weight[] = {0, 1, 2, 3};

static void norm_answer(struct made *call) {
    /* The mean of 1, 1, 49 and 49 is 25. */
    CLAIM(floats_are(call, "out", (float[]){1, 2, 3, 4, 0.2f, -0.4f, 4.2f, 5.6f}, 8));
}

/* ---- matmul ------------------------------------------------------------------------ */

static const pw_matmul_desc matmul_desc = {
    .struct_size = sizeof matmul_desc, .rows_max = 2, .x_row_stride = 12, .out_row_stride = 8,
    .weight = {.outputs = 2, .inputs = 3, .dtype = PW_F32}, .x_dtype = PW_F32, .bias_dtype = PW_F32,
    .out_dtype = PW_F32};
static const float matmul_x[] = {1, 2, 3, 0, -1, 2}, matmul_weight[] = {1, 0, 2, 3, 4, 5}, matmul_bias[] = {100, 200};

static void matmul_answer(struct made *call) {
    CLAIM(floats_are(call, "out", (float[]){107, 226, 104, 206}, 4));
}

/* ---- lora -------------------------------------------------------------------------- */

static const pw_lora_desc lora_desc = {
    .struct_size = sizeof lora_desc, .rows_max = 2, .x_row_stride = 8, .out_row_stride = 8, .inputs = 2,
    .outputs = 2, .slots = 1, .rank_max = 16, .x_dtype = PW_F32, .weight_dtype = PW_F32};
static const float lora_x[] = {5, 6, 7, 8}, lora_scales[] = {0.5f}, lora_out[] = {1, 1, 2, 2},
                   lora_magnitudes[] = {1, 1};
static const uint32_t lora_ranks[] = {1}, lora_adapters[] = {0, PW_NONE};

static void lora_answer(struct made *call) {
    /* 5 * 1 + 6 * 2 is 17; its half times 3 and 4. */
    CLAIM(floats_are(call, "out", (float[]){26.5f, 35, 2, 2}, 4));
}

/* ---- rope -------------------------------------------------------------------------- */

static const pw_rope_desc rope_desc = {
    .struct_size = sizeof rope_desc, .rows_max = 2, .x_row_stride = 12, .out_row_stride = 12, .heads = 1,
    .head_dim = 3, .rotary_dims = 2, .table_len = 2, .pairing = PW_ROPE_NEOX, .x_dtype = PW_F32, .out_dtype = PW_F32};
/* No turn, and a quarter of one. */
static const float rope_x[] = {1, 2, 9, 1, 2, 9}, rope_table[] = {1, 0, 0, 1};
static const uint32_t rope_positions[] = {1, 0};

static void rope_answer(struct made *call) {
    CLAIM(floats_are(call, "out", (float[]){-2, 1, 9, 1, 2, 9}, 6));
}

/* ---- pages: two of two tokens, of two heads of eight dims ----------------------------- */

#define PAGES                                                                                              \
    {.page_stride = 128, .k_head_stride = 32, .k_token_stride = 64, .k_dim_stride = 4, .v_head_stride = 32, \
     .v_token_stride = 64, .pages = 2, .page_len = 2, .kv_heads = 2, .head_dim = 8, .dtype = PW_F32}
#define PAGE_STRIDES(stem)                                                                                    \
    IN(stem, kv.page_stride, 128), IN(stem, kv.k_head_stride, 32), IN(stem, kv.k_token_stride, 64),           \
    IN(stem, kv.v_head_stride, 32), IN(stem, kv.v_token_stride, 64)
#define PAGE_NUMBERS(stem)                                                                                 \
    IN(stem, kv.pages, 0), IN(stem, kv.page_len, 65537), IN(stem, kv.kv_heads, 1025), IN(stem, kv.head_dim, 12), \
    IN(stem, kv.scales, PW_KV_SCALES_TOKEN), IN(stem, kv.k_scale, 0x3f800000)

typedef float pages[2][2][2][8]; /* page, token, head, dim */
static pages some_keys, some_values;
static float some_rows[2][2][8];

/* ---- append_kv --------------------------------------------------------------------- */

static const pw_append_kv_desc append_kv_desc = {
    .struct_size = sizeof append_kv_desc, .rows_max = 2, .kv = PAGES, .k_row_stride = 64, .v_row_stride = 64,
    .slots_max = 2, .x_dtype = PW_F32};
static const uint32_t append_kv_slots[] = {1, 1, 0, 0};
static const pw_append_kv_lens append_two = {.struct_size = sizeof append_two, .rows = 2},
                               append_none = {.struct_size = sizeof append_none},
                               append_three = {.struct_size = sizeof append_three, .rows = 3};

static void append_kv_answer(struct made *call) {
    pages keys, values;
    memcpy(keys, some_keys, sizeof keys);
    memcpy(values, some_values, sizeof values);
    memcpy(keys[1][1], some_rows[0], sizeof some_rows[0]);
    memcpy(keys[0][0], some_rows[1], sizeof some_rows[1]);
    memcpy(values[1][1], some_rows[0], sizeof some_rows[0]);
    memcpy(values[0][0], some_rows[1], sizeof some_rows[1]);
    CLAIM(memcmp(held(call, "keys"), keys, sizeof keys) == 0 && memcmp(held(call, "values"), values, sizeof values) == 0);
}

/* ---- kv_copy ----------------------------------------------------------------------- */

static const pw_kv_copy_desc kv_copy_desc = {
    .struct_size = sizeof kv_copy_desc, .entries_max = 2, .kv = PAGES, .tokens_max = 2};
/* The second reads what the first wrote. */
static const uint32_t kv_copy_entries[] = {0, 0, 1, 1, 1, 1, 1, 0, 1, 1};

static void kv_copy_answer(struct made *call) {
    pages keys, values;
    memcpy(keys, some_keys, sizeof keys);
    memcpy(values, some_values, sizeof values);
    memcpy(keys[1][1], some_keys[0][0], sizeof keys[0][0]);
    memcpy(keys[0][1], some_keys[0][0], sizeof keys[0][0]);
    memcpy(values[1][1], some_values[0][0], sizeof values[0][0]);
    memcpy(values[0][1], some_values[0][0], sizeof values[0][0]);
    CLAIM(memcmp(held(call, "keys"), keys, sizeof keys) == 0 && memcmp(held(call, "values"), values, sizeof values) == 0);
}

/* ---- varlen_mask ------------------------------------------------------------------- */

static const pw_varlen_mask_desc varlen_mask_desc = {.struct_size = sizeof varlen_mask_desc, .rows_max = 2, .seqs_max = 1};
static const uint32_t two_rows[] = {0, 2}, three_rows[] = {0, 3}, three_long[] = {3};
static const pw_varlen_mask_lens
    varlen_two = {.struct_size = sizeof varlen_two, .seqs = 1, .row_start = two_rows, .lengths = three_long},
    varlen_none = {.struct_size = sizeof varlen_none, .row_start = two_rows, .lengths = three_long},
    varlen_three = {.struct_size = sizeof varlen_three, .seqs = 1, .row_start = three_rows, .lengths = three_long};

static void varlen_mask_answer(struct made *call) {
    CLAIM(words_are(call, "intervals", (uint32_t[]){0, 2, 0, 3}, 4));
    CLAIM(words_are(call, "positions", (uint32_t[]){1, 2}, 2) && words_are(call, "tree_bits", (uint32_t[4]){0}, 4));
}

/* ---- attention --------------------------------------------------------------------- */

static const pw_attention_desc attention_desc = {
    .struct_size = sizeof attention_desc, .mask = PW_MASK_CAUSAL, .kv = PAGES, .q_row_stride = 64, .out_row_stride = 64,
    .q_dtype = PW_F32, .out_dtype = PW_F32, .q_heads = 2, .scale = 1, .page_table = PW_PAGES_LISTED, .rows_max = 2,
    .seqs_max = 1, .kv_len_max = 4, .page_ids_max = 2};
static const uint32_t both_pages[] = {1, 0};
static const float no_direction[2][2][8];
static const pw_attention_lens
    attention_two = {.struct_size = sizeof attention_two, .seqs = 1, .q_start = two_rows, .kv_len = three_long, .page_start = two_rows},
    attention_none = {.struct_size = sizeof attention_none, .q_start = two_rows, .kv_len = three_long, .page_start = two_rows},
    attention_three = {.struct_size = sizeof attention_three, .seqs = 1, .q_start = three_rows, .kv_len = three_long, .page_start = two_rows};

/* A query of zeros sees all keys alike: values are averaged over two tokens, then three. */
static void attention_answer(struct made *call) {
    const float *out = held(call, "out"), *lse = held(call, "lse");
    for (int head = 0; head < 2; head++) {
        for (int dim = 0; dim < 8; dim++) {
            const float one = some_values[1][0][head][dim], two = some_values[1][1][head][dim], three = some_values[0][0][head][dim];
            CLAIM(near(out[head * 8 + dim], (one + two) / 2));
            CLAIM(near(out[16 + head * 8 + dim], (one + two + three) / 3));
        }
        CLAIM(near(lse[head], log(2)) && near(lse[2 + head], log(3)));
    }
}

/* ---- attention_fold ---------------------------------------------------------------- */

static const pw_attention_fold_desc attention_fold_desc = {
    .struct_size = sizeof attention_fold_desc, .rows_max = 2, .part_row_stride = 32, .out_row_stride = 32, .parts = 2,
    .heads = 1, .head_dim = 8, .part_dtype = PW_F32, .out_dtype = PW_F32};
static const float fold_parts[2][2][8] = {{{1, 2, 3, 4}, {5, 6}}, {{3, 4, 5, 8}, {99, 99}}};
static const float fold_lse[] = {0, 3, 0, -INFINITY};

/* Two parts alike are averaged; one that saw nothing has no say. */
static void attention_fold_answer(struct made *call) {
    CLAIM(floats_are(call, "out", (float[16]){2, 3, 4, 6, [8] = 5, 6}, 16));
    CLAIM(floats_are(call, "lse", (float[]){(float)log(2), 3}, 2));
}

/* ---- activation -------------------------------------------------------------------- */

static const pw_activation_desc activation_desc = {
    .struct_size = sizeof activation_desc, .rows_max = 2, .x_row_stride = 16, .out_row_stride = 8, .columns = 2,
    .up_offset = 2, .kind = PW_ACTIVATION_SILU, .x_dtype = PW_F32, .out_dtype = PW_F32};
static const float activation_x[] = {0, 1, 5, 2, -1, 2, 1, 3};

static double silu(double x) { return x / (1 + exp(-x)); }

static void activation_answer(struct made *call) {
    const float right[] = {0, (float)(2 * silu(1)), (float)silu(-1), (float)(3 * silu(2))};
    CLAIM(floats_are(call, "out", right, 4));
}

/* ---- gather ------------------------------------------------------------------------ */

static const pw_gather_desc gather_desc = {
    .struct_size = sizeof gather_desc, .rows_max = 2, .x_row_stride = 8, .out_row_stride = 8, .x_rows = 3, .columns = 2,
    .dtype = PW_F32};
static const uint32_t gather_indices[] = {2, 0};

static void gather_answer(struct made *call) {
    CLAIM(floats_are(call, "out", (float[]){5, 6, 1, 2}, 4));
}

/* ---- pool -------------------------------------------------------------------------- */

static const pw_pool_desc pool_desc = {
    .struct_size = sizeof pool_desc, .rows_max = 2, .x_row_stride = 8, .out_row_stride = 8, .seqs_max = 2, .columns = 2,
    .kind = PW_POOL_MEAN, .x_dtype = PW_F32};
static const float pool_x[] = {1, 2, 3, 6};
static const uint32_t pool_starts[] = {0, 2, 2}, pool_beyond[] = {0, 2, 3};

static void pool_answer(struct made *call) {
    CLAIM(floats_are(call, "out", (float[]){2, 4, 0, 0}, 4));
}

/* ---- logit_mask -------------------------------------------------------------------- */

enum { WIDE = 33 };
static const pw_logit_mask_desc logit_mask_desc = {
    .struct_size = sizeof logit_mask_desc, .rows_max = 2, .row_stride = 4 * WIDE, .vocab = WIDE, .masks = 1, .mask_words = 2};
static const uint32_t first_and_last[] = {1, 1};
static const pw_logit_mask_row logit_mask_settings[] = {
    {.mask = 0, .action = PW_NONE, .slot = PW_NONE, .temperature = 2, .repetition = 1},
    {.mask = PW_NONE, .action = PW_NONE, .slot = PW_NONE, .repetition = 1}};
static float some_logits[2][WIDE];
static const pw_logit_mask_lens logit_mask_two = {.struct_size = sizeof logit_mask_two, .rows = 2},
                                logit_mask_none = {.struct_size = sizeof logit_mask_none},
                                logit_mask_three = {.struct_size = sizeof logit_mask_three, .rows = 3};

static void logit_mask_answer(struct made *call) {
    float right[2][WIDE];
    for (int token = 0; token < WIDE; token++) {
        right[0][token] = token % 32 == 0 ? some_logits[0][token] / 2 : -INFINITY;
        right[1][token] = some_logits[1][token];
    }
    CLAIM(floats_are(call, "logits", right[0], 2 * WIDE));
}

/* ---- sample ------------------------------------------------------------------------ */

static const pw_sample_desc sample_desc = {
    .struct_size = sizeof sample_desc, .rows_max = 2, .row_stride = 16, .vocab = 4, .top_n = 2, .masks = 2, .mask_words = 1};
static const float sample_logits[2][4] = {{1, 3, 2, 0}, {0, -1, -2, 4}}, sample_left[4] = {1, 3, -INFINITY, 0};
static const uint32_t all_but_two[] = {0xf, 0xb}, sample_row_masks[] = {0, 1, PW_NONE, 0};
static const pw_sample_row sample_settings[] = {{.top_p = 1}, {.top_p = 1, .seed = 7}};

static double log_of(const float *logits, int count, int token) {
    double all = 0;
    for (int i = 0; i < count; i++) all += exp(logits[i]);
    return logits[token] - log(all);
}

static void sample_answer(struct made *call) {
    const float *raw = held(call, "raw_logprob"), *top = held(call, "top_logprob");
    CLAIM(words_are(call, "token", (uint32_t[]){1, 3}, 2) && words_are(call, "status", (uint32_t[2]){PW_ROW_OK}, 2));
    CLAIM(near(raw[0], log_of(sample_left, 4, 1)) && near(raw[1], log_of(sample_logits[1], 4, 3)));
    CLAIM(words_are(call, "top_token", (uint32_t[]){1, 0, 3, 0}, 4));
    CLAIM(near(top[1], log_of(sample_left, 4, 0)) && near(top[3], log_of(sample_logits[1], 4, 0)));
}

/* ---- token_logprob ----------------------------------------------------------------- */

static const pw_token_logprob_desc token_logprob_desc = {
    .struct_size = sizeof token_logprob_desc, .rows_max = 2, .x_row_stride = 8,
    .weight = {.outputs = 3, .inputs = 2, .dtype = PW_F32}, .x_dtype = PW_F32};
static const float logprob_x[] = {1, 2, -1, 0}, logprob_weight[] = {1, 0, 0, 1, 1, 1};
static const uint32_t logprob_tokens[] = {2, 1};

static void token_logprob_answer(struct made *call) {
    const float *logprob = held(call, "logprob");
    CLAIM(near(logprob[0], log_of((float[]){1, 2, 3}, 3, 2)) && near(logprob[1], log_of((float[]){-1, 0, -1}, 3, 1)));
    CLAIM(words_are(call, "status", (uint32_t[2]){PW_ROW_OK}, 2));
}

/* ---- spec_verify ------------------------------------------------------------------- */

static const pw_spec_verify_desc spec_verify_desc = {
    .struct_size = sizeof spec_verify_desc, .seqs_max = 2, .target_row_stride = 12, .nodes_max = 5, .vocab = 3,
    .mode = PW_VERIFY_GREEDY};
static const uint32_t verify_tokens[] = {0, 2, 1, 0, 1}, verify_starts[] = {0, 3, 5}, verify_beyond[] = {0, 1, 2, 3};
static const float verify_target[5][3] = {{0, 0, 9}, {0, 9, 0}, {9, 0, 0}, {0, 0, 9}, {9, 0, 0}};

/* One draft is followed to its end, the other not at all. */
static void spec_verify_answer(struct made *call) {
    CLAIM(words_are(call, "accepted", (uint32_t[]){3, 1}, 2) && words_are(call, "next", (uint32_t[]){0, 2}, 2));
    CLAIM(words_are(call, "path", (uint32_t[]){0, 1, 2, 3}, 4) && words_are(call, "status", (uint32_t[2]){PW_ROW_OK}, 2));
}

/* ---- all of them ------------------------------------------------------------------- */

static const struct kernel kernels[] = {
    {OF(embed), ROWS, ROWS_MAX(embed),
     .buffers = {FROM(embed, table, READ, embed_table), FROM(embed, tokens, READ, embed_tokens), TO(embed, out, WRITE, 16)},
     .strides = {IN(embed, table_row_stride, 8), IN(embed, out_row_stride, 8)},
     .types = {IN(embed, weight.dtype, 0), IN(embed, out_dtype, 0)},
     .bad = {IN(embed, weight.outputs, 0), IN(embed, weight.inputs, 0), IN(embed, weight.scheme, 1), IN(embed, weight.group, 32),
             IN(embed, packed, 2), IN(embed, scale, NOT_A_NUMBER), IN(embed, reserved, 1)}},
    {OF(norm), ROWS, ROWS_MAX(norm),
     .buffers = {FROM(norm, x, READ, norm_x), FROM(norm, weight, READ, norm_weight), NO(norm, residual), TO(norm, out, WRITE, 32)},
     .strides = {IN(norm, x_row_stride, 16), IN(norm, residual_row_stride, 16), IN(norm, out_row_stride, 16)},
     .types = {IN(norm, x_dtype, 0), IN(norm, weight_dtype, 0), IN(norm, out_dtype, 0)},
     .bad = {IN(norm, heads, 0), IN(norm, columns, 0), IN(norm, epsilon, 0xbf800000), IN(norm, weight_offset, NOT_A_NUMBER),
             IN(norm, reserved, 1)}},
    {OF(matmul), ROWS, ROWS_MAX(matmul),
     .buffers = {FROM(matmul, x, READ, matmul_x), FROM(matmul, weight, READ, matmul_packed), FROM(matmul, bias, READ, matmul_bias),
                 TO(matmul, out, WRITE, 16)},
     .strides = {IN(matmul, x_row_stride, 12), IN(matmul, out_row_stride, 8)},
     .types = {IN(matmul, weight.dtype, 0), IN(matmul, x_dtype, 0), IN(matmul, bias_dtype, 0), IN(matmul, out_dtype, 0)},
     .bad = {IN(matmul, weight.outputs, 0), IN(matmul, weight.inputs, 0), IN(matmul, weight.scheme, 2), IN(matmul, weight.scale_dtype, PW_F16),
             IN(matmul, reserved, 1)}},
    {OF(lora), ROWS, ROWS_MAX(lora),
     .buffers = {FROM(lora, x, READ, lora_x), FROM(lora, a, READ, lora_a), FROM(lora, b, READ, lora_b), FROM(lora, ranks, READ, lora_ranks),
                 FROM(lora, scales, READ, lora_scales), FROM(lora, magnitudes, MAY_READ, lora_magnitudes), FROM(lora, adapters, READ, lora_adapters),
                 FROM(lora, out, UPDATE, lora_out)},
     .strides = {IN(lora, x_row_stride, 8), IN(lora, out_row_stride, 8)},
     .types = {IN(lora, x_dtype, 0), IN(lora, weight_dtype, 0)},
     .bad = {IN(lora, inputs, 0), IN(lora, outputs, 0), IN(lora, slots, 65537), IN(lora, rank_max, 24), IN(lora, rank_max, 272)}},
    {OF(rope), ROWS, ROWS_MAX(rope),
     .buffers = {FROM(rope, x, READ, rope_x), FROM(rope, table, READ, rope_table), FROM(rope, positions, READ, rope_positions),
                 TO(rope, out, WRITE, 24)},
     .strides = {IN(rope, x_row_stride, 12), IN(rope, out_row_stride, 12)},
     .types = {IN(rope, x_dtype, 0), IN(rope, out_dtype, 0)},
     .bad = {IN(rope, heads, 0), IN(rope, head_dim, 1), IN(rope, rotary_dims, 1), IN(rope, rotary_dims, 4), IN(rope, table_len, 0),
             IN(rope, pairing, 0), IN(rope, pairing, 3), IN(rope, reserved, 1)}},
    {OF(append_kv), .whole = {.lens = &append_two}, .none = {.lens = &append_none}, .beyond = {.lens = &append_three}, .past = "rows",
     ROWS_MAX(append_kv),
     .buffers = {FROM(append_kv, k, READ, some_rows), FROM(append_kv, v, READ, some_rows), FROM(append_kv, keys, UPDATE, some_keys),
                 FROM(append_kv, values, UPDATE, some_values), NO(append_kv, kv_scales), FROM(append_kv, slots, READ, append_kv_slots),
                 NO(append_kv, table), NO(append_kv, positions)},
     .strides = {IN(append_kv, k_row_stride, 64), IN(append_kv, v_row_stride, 64), PAGE_STRIDES(append_kv)},
     .types = {IN(append_kv, kv.dtype, 0), IN(append_kv, x_dtype, 0)},
     .bad = {PAGE_NUMBERS(append_kv), IN(append_kv, rope, 3), IN(append_kv, rotary_dims, 2)}},
    {OF(kv_copy), .whole = {.count = 2}, .none = {.count = 0}, .beyond = {.count = 3}, .past = "entries",
     .capacity = IN(kv_copy, entries_max, 2),
     .buffers = {FROM(kv_copy, keys, UPDATE, some_keys), FROM(kv_copy, values, UPDATE, some_values), NO(kv_copy, kv_scales),
                 FROM(kv_copy, entries, READ, kv_copy_entries)},
     .strides = {PAGE_STRIDES(kv_copy)},
     .types = {IN(kv_copy, kv.dtype, 0)},
     .bad = {PAGE_NUMBERS(kv_copy), IN(kv_copy, tokens_max, 3), IN(kv_copy, reserved, 1)}},
    {OF(varlen_mask), .whole = {.lens = &varlen_two}, .none = {.lens = &varlen_none}, .beyond = {.lens = &varlen_three},
     .past = "row_start", ROWS_MAX(varlen_mask),
     .buffers = {NO(varlen_mask, parents), TO(varlen_mask, intervals, WRITE, 16), TO(varlen_mask, tree_bits, MAY_WRITE, 16),
                 TO(varlen_mask, positions, MAY_WRITE, 8)},
     .bad = {IN(varlen_mask, seqs_max, 0), IN(varlen_mask, seqs_max, (1 << 24) + 1), IN(varlen_mask, documents_max, 0x80000000),
             IN(varlen_mask, window, PW_NONE), IN(varlen_mask, tree, 2)}},
    {OF(attention), .whole = {.lens = &attention_two}, .none = {.lens = &attention_none}, .beyond = {.lens = &attention_three},
     .past = "q_start", ROWS_MAX(attention),
     .buffers = {FROM(attention, q, READ, no_direction), FROM(attention, keys, READ, some_keys), FROM(attention, values, READ, some_values),
                 NO(attention, kv_scales), FROM(attention, page_ids, READ, both_pages), NO(attention, intervals), NO(attention, tree_bits),
                 TO(attention, out, WRITE, 128), TO(attention, lse, MAY_WRITE, 16)},
     .strides = {IN(attention, q_row_stride, 64), IN(attention, out_row_stride, 64), PAGE_STRIDES(attention)},
     .types = {IN(attention, kv.dtype, 0), IN(attention, q_dtype, 0), IN(attention, out_dtype, 0)},
     .bad = {IN(attention, mask, 8), IN(attention, mask, PW_MASK_TREE), IN(attention, q_heads, 1), IN(attention, scale, NOT_A_NUMBER),
             IN(attention, softcap, 0xbf800000), IN(attention, page_table, 3), IN(attention, table_width, 1), IN(attention, kv_len_max, 0)}},
    {OF(attention_fold), .whole = {.count = 2}, .none = {.count = 0}, .beyond = {.count = 3}, .past = "rows", ROWS_MAX(attention_fold),
     .buffers = {FROM(attention_fold, parts, READ, fold_parts), FROM(attention_fold, part_lse, READ, fold_lse),
                 TO(attention_fold, out, WRITE, 64), TO(attention_fold, lse, MAY_WRITE, 8)},
     .strides = {IN(attention_fold, part_row_stride, 32), IN(attention_fold, out_row_stride, 32)},
     .types = {IN(attention_fold, part_dtype, 0), IN(attention_fold, out_dtype, 0)},
     .bad = {IN(attention_fold, parts, 0), IN(attention_fold, parts, 1025), IN(attention_fold, heads, 0), IN(attention_fold, head_dim, 4),
             IN(attention_fold, reserved, 1)}},
    {OF(activation), ROWS, ROWS_MAX(activation),
     .buffers = {FROM(activation, x, READ, activation_x), TO(activation, out, WRITE, 16)},
     .strides = {IN(activation, x_row_stride, 16), IN(activation, out_row_stride, 8)},
     .types = {IN(activation, x_dtype, 0), IN(activation, out_dtype, 0), IN(activation, kind, 0)},
     .bad = {IN(activation, columns, 0), IN(activation, up_offset, 1), IN(activation, reserved, 1)}},
    {OF(gather), ROWS, ROWS_MAX(gather),
     .buffers = {FROM(gather, x, READ, embed_table), FROM(gather, indices, READ, gather_indices), TO(gather, out, WRITE, 16)},
     .strides = {IN(gather, x_row_stride, 8), IN(gather, out_row_stride, 8)},
     .types = {IN(gather, dtype, 0)},
     .bad = {IN(gather, x_rows, 0), IN(gather, columns, 0), UNSERVED(gather, dtype, PW_I4), IN(gather, reserved, 1)}},
    {OF(pool), .whole = {2, pool_starts, NULL}, .none = {0, pool_starts, NULL}, .beyond = {2, pool_beyond, NULL}, .past = "starts",
     ROWS_MAX(pool),
     .buffers = {FROM(pool, x, READ, pool_x), TO(pool, out, WRITE, 16)},
     .strides = {IN(pool, x_row_stride, 8), IN(pool, out_row_stride, 8)},
     .types = {IN(pool, x_dtype, 0), IN(pool, kind, 0)},
     .bad = {IN(pool, seqs_max, 0), IN(pool, columns, 0), IN(pool, normalise, 2), IN(pool, reserved, 1)}},
    {OF(logit_mask), .whole = {.lens = &logit_mask_two}, .none = {.lens = &logit_mask_none}, .beyond = {.lens = &logit_mask_three},
     .past = "rows", ROWS_MAX(logit_mask),
     .buffers = {FROM(logit_mask, logits, UPDATE, some_logits), FROM(logit_mask, settings, READ, logit_mask_settings),
                 FROM(logit_mask, masks, READ, first_and_last), NO(logit_mask, banned), NO(logit_mask, bias_tokens),
                 NO(logit_mask, bias_values), NO(logit_mask, counted), NO(logit_mask, counts)},
     .strides = {IN(logit_mask, row_stride, 4 * WIDE)},
     .bad = {IN(logit_mask, vocab, 0), IN(logit_mask, mask_words, 1), IN(logit_mask, counted_max, 1), IN(logit_mask, counts_stride, 2 * WIDE),
             IN(logit_mask, reserved, 1)}},
    {OF(sample), .desc_first = 40, .args_first = 128, ROWS, ROWS_MAX(sample),
     .buffers = {FROM(sample, logits, READ, sample_logits), NO(sample, raw_logits), FROM(sample, settings, READ, sample_settings),
                 TO(sample, token, WRITE, 8), TO(sample, status, WRITE, 8), TO(sample, raw_logprob, MAY_WRITE, 8),
                 TO(sample, processed_logprob, MAY_WRITE, 8), TO(sample, top_token, WRITE, 16), TO(sample, top_logprob, WRITE, 16),
                 NO(sample, kept), TO(sample, kept_count, MAY_WRITE, 8), FROM(sample, masks, READ, all_but_two),
                 FROM(sample, row_masks, READ, sample_row_masks)},
     .strides = {IN(sample, row_stride, 16), IN(sample, raw_row_stride, 16)},
     .bad = {IN(sample, vocab, 0), IN(sample, top_n, 129), IN(sample, kept_words, (1 << 30) + 1), IN(sample, mask_words, 0), IN(sample, reserved, 1)}},
    {OF(token_logprob), ROWS, ROWS_MAX(token_logprob),
     .buffers = {FROM(token_logprob, x, READ, logprob_x), FROM(token_logprob, weight, READ, logprob_packed), NO(token_logprob, bias),
                 FROM(token_logprob, token, READ, logprob_tokens), TO(token_logprob, logprob, WRITE, 8),
                 TO(token_logprob, status, WRITE, 8)},
     .strides = {IN(token_logprob, x_row_stride, 8)},
     .types = {IN(token_logprob, weight.dtype, 0), IN(token_logprob, x_dtype, 0), IN(token_logprob, bias_dtype, 0)},
     .bad = {IN(token_logprob, weight.outputs, 0), IN(token_logprob, weight.inputs, (1 << 20) + 1), IN(token_logprob, weight.group, 64)}},
    {OF(spec_verify), .whole = {2, verify_starts, NULL}, .none = {0, verify_starts, NULL}, .beyond = {3, verify_beyond, NULL}, .past = "seqs",
     .capacity = IN(spec_verify, seqs_max, 2),
     .buffers = {FROM(spec_verify, tokens, READ, verify_tokens), NO(spec_verify, parents), FROM(spec_verify, target, READ, verify_target),
                 NO(spec_verify, draft), NO(spec_verify, sampled), NO(spec_verify, requests), NO(spec_verify, places),
                 TO(spec_verify, path, WRITE, 20), TO(spec_verify, accepted, WRITE, 8), TO(spec_verify, next, WRITE, 8),
                 TO(spec_verify, status, WRITE, 8), NO(spec_verify, entries), NO(spec_verify, count)},
     .strides = {IN(spec_verify, target_row_stride, 12), IN(spec_verify, draft_row_stride, 12)},
     .bad = {IN(spec_verify, draft_row_stride, 12), IN(spec_verify, nodes_max, 0), IN(spec_verify, vocab, 0), IN(spec_verify, mode, 0), IN(spec_verify, mode, 4),
             IN(spec_verify, tree, 2), IN(spec_verify, places, 2), IN(spec_verify, reserved, 1)}},
};

enum { KERNELS = sizeof kernels / sizeof *kernels };

static void pack(const pw_weight *weight, const float *values, void *packed, uint64_t bytes) {
    uint64_t takes = 0;
    CLAIM(pw_weight_bytes(weight, &takes, &error) == PW_OK && takes == bytes);
    const pw_rows rows = {.struct_size = sizeof rows, .dtype = PW_F32, .count = weight->outputs, .values = values};
    CLAIM(pw_weight_pack(weight, &rows, packed, bytes, &error) == PW_OK);
}

/* What the cases are made of; before any of them. */
static void prepare(void) {
    pack(&matmul_desc.weight, matmul_weight, matmul_packed, sizeof matmul_packed);
    pack(&token_logprob_desc.weight, logprob_weight, logprob_packed, sizeof logprob_packed);
    uint64_t a_bytes = 0, b_bytes = 0;
    CLAIM(pw_lora_bytes(&lora_desc, &a_bytes, &b_bytes, &error) == PW_OK);
    CLAIM(a_bytes == sizeof lora_a && b_bytes == sizeof lora_b);
    CLAIM(pw_lora_pack(&lora_desc, 1, (float[]){1, 2}, (float[]){3, 4}, lora_a, lora_b, &error) == PW_OK);
    float *keys = &some_keys[0][0][0][0], *values = &some_values[0][0][0][0], *rows = &some_rows[0][0][0];
    for (int i = 0; i < 64; i++) keys[i] = (float)i, values[i] = (float)(i * i % 37);
    for (int i = 0; i < 32; i++) rows[i] = (float)-i;
    for (int i = 0; i < 2 * WIDE; i++) some_logits[i / WIDE][i % WIDE] = (float)(i % 7);
}

#endif
