/* Decode attention over a paged cache: one query row for each of three sequences, whose keys
 * and values lie in pages that belong to nobody in order.
 *
 *     cc -std=c11 examples/c/decode.c $(pkg-config --cflags --libs pagewise) -lm -o decode
 */
#include <math.h>
#include <pagewise.h>
#include <stdio.h>
#include <stdlib.h>

enum { SEQS = 3, HEADS = 8, KV_HEADS = 2, DIM = 64, PAGE = 16, PAGES = 16, IDS = 9 };

static float keys[PAGES][PAGE][KV_HEADS][DIM], values[PAGES][PAGE][KV_HEADS][DIM];
static float q[SEQS][HEADS][DIM], out[SEQS][HEADS][DIM];

static const uint32_t kv_len[SEQS] = {1, 37, 80};
static const uint32_t page_start[SEQS + 1] = {0, 1, 4, IDS};
static const uint32_t page_ids[IDS] = {7, 2, 11, 5, 0, 9, 3, 14, 8};

static void fill(float *numbers, size_t count) {
    static uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        numbers[i] = (float)(int32_t)state / 2147483648.0f;
    }
}

/* The same in the plainest way, for one row and one head. */
static float worst_error(int seq, int head) {
    const int kv = head / (HEADS / KV_HEADS);
    double sum = 0, acc[DIM] = {0}, worst = 0;
    for (uint32_t at = 0; at < kv_len[seq]; at++) {
        const uint32_t page = page_ids[page_start[seq] + at / PAGE];
        double score = 0;
        for (int d = 0; d < DIM; d++) score += q[seq][head][d] * keys[page][at % PAGE][kv][d];
        const double weight = exp(score / sqrt(DIM));
        sum += weight;
        for (int d = 0; d < DIM; d++) acc[d] += weight * values[page][at % PAGE][kv][d];
    }
    for (int d = 0; d < DIM; d++) worst = fmax(worst, fabs(acc[d] / sum - out[seq][head][d]));
    return (float)worst;
}

static void check(pw_status status, const pw_error *error) {
    if (status == PW_OK) return;
    fprintf(stderr, "%s: %s\n", error->field, error->message);
    exit(1);
}

int main(void) {
    fill(&keys[0][0][0][0], sizeof keys / sizeof(float));
    fill(&values[0][0][0][0], sizeof values / sizeof(float));
    fill(&q[0][0][0], sizeof q / sizeof(float));

    pw_error error = {.struct_size = sizeof error};
    pw_device *device = NULL;
    check(pw_device_open("cpu", 3, NULL, &device, &error), &error);

    const pw_attention_desc desc = {
        .struct_size = sizeof desc, .mask = PW_MASK_CAUSAL,
        .kv = {.page_stride = sizeof keys[0], .k_head_stride = sizeof keys[0][0][0],
               .k_token_stride = sizeof keys[0][0], .k_dim_stride = sizeof(float),
               .v_head_stride = sizeof values[0][0][0], .v_token_stride = sizeof values[0][0],
               .pages = PAGES, .page_len = PAGE, .kv_heads = KV_HEADS, .head_dim = DIM, .dtype = PW_F32},
        .q_row_stride = sizeof q[0], .out_row_stride = sizeof out[0],
        .q_dtype = PW_F32, .out_dtype = PW_F32, .q_heads = HEADS, .scale = 1 / sqrtf(DIM),
        .page_table = PW_PAGES_LISTED, .rows_max = SEQS, .seqs_max = SEQS, .kv_len_max = 4096, .page_ids_max = 256};
    pw_needs needs = {.struct_size = sizeof needs};
    check(pw_attention_query(device, &desc, &needs, &error), &error);

    const uint64_t line = needs.alignment;
    void *plan = aligned_alloc(line, (needs.plan_bytes + line - 1) / line * line);
    void *workspace = aligned_alloc(line, (needs.workspace_bytes + line - 1) / line * line);
    const uint32_t q_start[SEQS + 1] = {0, 1, 2, SEQS};
    const pw_attention_lens lens = {.struct_size = sizeof lens, .seqs = SEQS, .q_start = q_start,
                                    .kv_len = kv_len, .page_start = page_start};
    check(pw_attention_plan(device, &desc, &lens, plan, needs.plan_bytes, &error), &error);

    const pw_attention_args args = {
        .struct_size = sizeof args, .q = q, .keys = keys, .values = values, .page_ids = page_ids, .out = out,
        .run = {plan, needs.plan_bytes, workspace, needs.workspace_bytes}};
    check(pw_attention_run(device, &desc, &args, NULL, &error), &error);

    float worst = 0;
    for (int seq = 0; seq < SEQS; seq++)
        for (int head = 0; head < HEADS; head++) worst = fmaxf(worst, worst_error(seq, head));
    printf("%s: worst error %.1e\n", pw_device_numerics(device), worst);

    free(plan);
    free(workspace);
    pw_device_destroy(device);
    return worst < 1e-5f ? 0 : 1;
}
