/* A call of attention on the CPU, with all that it takes. */
#ifndef PAGEWISE_TESTS_CALL_H
#define PAGEWISE_TESTS_CALL_H

#include "claim.h"

#define LINE 64

/* One sequence of one row, and a second of three, over pages of four tokens, in f32. */
struct call {
    float keys[6][2][4][8], values[6][2][4][8], q[4][4][8], out[4][4][8], lse[4][4];
    uint32_t q_start[3], kv_len[2], page_start[3], page_ids[4];
    pw_attention_desc desc;
    pw_attention_lens lens;
    pw_attention_args args;
    _Alignas(LINE) unsigned char plan[512];
};

static void *room(uint64_t bytes) {
    void *at = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
    memset(at, 0xff, bytes);
    return at;
}

static pw_needs needs_of(const pw_device *device, const struct call *call) {
    pw_needs needs = {.struct_size = sizeof needs};
    CLAIM(pw_attention_query(device, &call->desc, &needs, &error) == PW_OK);
    CLAIM(needs.alignment == LINE && needs.plan_bytes <= sizeof call->plan && needs.struct_size == sizeof needs);
    return needs;
}

static struct call *make(const pw_device *device) {
    struct call *call = room(sizeof *call);
    memset(call, 0, sizeof *call);
    float *numbers = &call->keys[0][0][0][0];
    for (size_t i = 0; i < (sizeof call->keys + sizeof call->values + sizeof call->q) / sizeof(float); i++)
        numbers[i] = (float)(i * 7919 % 1013) / 1013.0f - 0.5f;
    memcpy(call->q_start, (uint32_t[]){0, 1, 4}, sizeof call->q_start);
    memcpy(call->kv_len, (uint32_t[]){3, 9}, sizeof call->kv_len);
    memcpy(call->page_start, (uint32_t[]){0, 1, 4}, sizeof call->page_start);
    memcpy(call->page_ids, (uint32_t[]){5, 0, 3, 2}, sizeof call->page_ids);
    call->desc = (pw_attention_desc){
        .struct_size = sizeof call->desc, .mask = PW_MASK_CAUSAL,
        .kv = {.page_stride = sizeof call->keys[0], .k_head_stride = sizeof call->keys[0][0],
               .k_token_stride = sizeof call->keys[0][0][0], .k_dim_stride = sizeof(float),
               .v_head_stride = sizeof call->keys[0][0], .v_token_stride = sizeof call->keys[0][0][0],
               .pages = 6, .page_len = 4, .kv_heads = 2, .head_dim = 8, .dtype = PW_F32},
        .q_row_stride = sizeof call->q[0], .out_row_stride = sizeof call->out[0], .q_dtype = PW_F32,
        .out_dtype = PW_F32, .q_heads = 4, .scale = 0.35f, .page_table = PW_PAGES_LISTED,
        .rows_max = 8, .seqs_max = 4, .kv_len_max = 64, .page_ids_max = 16};
    call->lens = (pw_attention_lens){.struct_size = sizeof call->lens, .seqs = 2, .q_start = call->q_start,
                                     .kv_len = call->kv_len, .page_start = call->page_start};
    const pw_needs needs = needs_of(device, call);
    call->args = (pw_attention_args){
        .struct_size = sizeof call->args, .q = call->q, .keys = call->keys, .values = call->values,
        .page_ids = call->page_ids, .out = call->out, .lse = &call->lse[0][0], 
        .run = {.plan = call->plan, .plan_bytes = sizeof call->plan,
                .workspace = room(needs.workspace_bytes), .workspace_bytes = needs.workspace_bytes}};
    return call;
}

static void unmake(struct call *call) {
    free(call->args.run.workspace);
    free(call);
}

static pw_status plan(const pw_device *device, struct call *call) {
    return pw_attention_plan(device, &call->desc, &call->lens, call->plan, sizeof call->plan, &error);
}

static pw_status run(const pw_device *device, const struct call *call) {
    return pw_attention_run(device, &call->desc, &call->args, NULL, &error);
}

#endif
