/* Every function of attention with what no caller should send, and with what some do. Each
 * CLAIM is one. */
#include "call.h"
#include <pthread.h>

static void devices(void) {
    pw_device *device = NULL;
    CLAIM(pw_version() >= PW_VERSION);
    CLAIM(pw_device_open(NULL, 0, NULL, &device, &error) == PW_E_NULL && names("name"));
    CLAIM(pw_device_open("cpu", 3, NULL, NULL, &error) == PW_E_NULL && names("device"));
    CLAIM(pw_device_open("tpu", 3, NULL, &device, &error) == PW_E_DEVICE && names("name"));
    CLAIM(pw_device_open("cuda:0", 6, NULL, &device, &error) == PW_E_DEVICE && device == NULL);
    CLAIM(pw_device_open("cpu", 2, NULL, &device, NULL) == PW_E_DEVICE);
    pw_device_options options = {.struct_size = 0, .threads = 1};
    CLAIM(pw_device_open("cpu", 3, &options, &device, &error) == PW_E_SIZE && names("options"));
    CLAIM(error.expected == sizeof options && error.got == 0);
    pw_device_destroy(NULL);
    CLAIM(pw_device_numerics(NULL) == NULL);
}

static void nulls(const pw_device *device, struct call *call) {
    pw_needs needs = {.struct_size = sizeof needs};
    CLAIM(pw_attention_query(NULL, &call->desc, &needs, &error) == PW_E_NULL && names("device"));
    CLAIM(pw_attention_query(device, NULL, &needs, &error) == PW_E_NULL && names("desc"));
    CLAIM(pw_attention_query(device, &call->desc, NULL, NULL) == PW_OK);
    CLAIM(pw_attention_plan(device, &call->desc, NULL, call->plan, sizeof call->plan, &error) == PW_E_NULL && names("lens"));
    CLAIM(pw_attention_plan(device, &call->desc, &call->lens, NULL, 512, &error) == PW_E_NULL && names("plan"));
    CLAIM(pw_attention_run(device, &call->desc, NULL, NULL, &error) == PW_E_NULL && names("args"));
    CLAIM(pw_attention_run(device, &call->desc, &call->args, call, &error) == PW_E_ARGUMENT && names("stream"));
    const void **pointers[] = {&call->args.q, &call->args.keys, &call->args.values, (const void **)&call->args.page_ids,
                               (const void **)&call->args.out, &call->args.run.plan, (const void **)&call->args.run.workspace};
    const char *fields[] = {"q", "keys", "values", "page_ids", "out", "plan", "workspace"};
    for (int i = 0; i < 7; i++) {
        const void *kept = *pointers[i];
        *pointers[i] = NULL;
        CLAIM(run(device, call) == PW_E_NULL && names(fields[i]));
        *pointers[i] = kept;
    }
    const uint32_t **lists[] = {&call->lens.q_start, &call->lens.kv_len, &call->lens.page_start};
    const char *called[] = {"q_start", "kv_len", "page_start"};
    for (int i = 0; i < 3; i++) {
        const uint32_t *kept = *lists[i];
        *lists[i] = NULL;
        CLAIM(plan(device, call) == PW_E_NULL && names(called[i]));
        *lists[i] = kept;
    }
}

static void sizes(const pw_device *device, struct call *call) {
    struct { pw_attention_desc desc; uint64_t more; } longer = {call->desc, 0};
    longer.desc.struct_size = sizeof longer;
    CLAIM(pw_attention_query(device, &longer.desc, NULL, &error) == PW_OK);
    longer.more = 1;
    CLAIM(pw_attention_query(device, &longer.desc, NULL, &error) == PW_E_SIZE && names("desc"));
    call->desc.struct_size = 4;
    CLAIM(pw_attention_query(device, &call->desc, NULL, &error) == PW_E_SIZE && error.got == 4);
    call->desc.struct_size = sizeof call->desc;
    /* An error with room for its status alone gets no more than that. */
    pw_error small = {.struct_size = 8, .expected = 77};
    CLAIM(pw_attention_query(device, NULL, NULL, &small) == PW_E_NULL);
    CLAIM(small.status == PW_E_NULL && small.expected == 77 && small.field[0] == 0);
    CLAIM(pw_attention_plan(device, &call->desc, &call->lens, call->plan, 63, &error) == PW_E_SPACE && names("plan"));
    CLAIM(error.got == 63 && error.expected > 63);
    const uint64_t all = call->args.run.workspace_bytes;
    call->args.run.workspace_bytes = 64;
    CLAIM(run(device, call) == PW_E_SPACE && names("workspace") && error.got == 64);
    call->args.run.workspace_bytes = all;
    call->args.run.workspace = (char *)call->args.run.workspace + 4;
    CLAIM(run(device, call) == PW_E_ALIGN && names("workspace"));
    call->args.run.workspace = (char *)call->args.run.workspace - 4;
    call->args.q = (const char *)call->args.q - 2;
    CLAIM(run(device, call) == PW_E_ALIGN && names("q"));
    call->args.q = (const char *)call->args.q + 2;
    call->args.out = (void *)call->q[1];
    CLAIM(run(device, call) == PW_E_ARGUMENT && names("out") && strstr(error.message, "overlaps q"));
    call->args.out = call->out;
}

static void plans(const pw_device *device, struct call *call) {
    call->plan[0] ^= 1;
    CLAIM(run(device, call) == PW_E_PLAN && names("plan"));
    call->plan[0] ^= 1;
    call->args.run.plan_bytes = 40;
    CLAIM(run(device, call) == PW_E_PLAN && names("plan"));
    call->args.run.plan_bytes = sizeof call->plan;
    call->desc.scale = 0.5f;
    CLAIM(run(device, call) == PW_E_PLAN);
    call->desc.scale = 0.35f;
    /* A plan over its own lengths would read what it has written. */
    call->lens.kv_len = (const uint32_t *)(call->plan + 64);
    memcpy(call->plan + 64, call->kv_len, sizeof call->kv_len);
    CLAIM(plan(device, call) == PW_E_ARGUMENT && names("plan"));
    call->lens.kv_len = call->kv_len;
    call->kv_len[1] = 65;
    CLAIM(plan(device, call) == PW_E_ARGUMENT && names("kv_len") && error.expected == 64 && error.got == 65);
    /* More positions than its pages hold: only with the page ids can that be told. */
    call->kv_len[1] = 13;
    CLAIM(plan(device, call) == PW_OK && run(device, call) == PW_E_ARGUMENT && names("kv_len"));
    call->kv_len[1] = 9;
    CLAIM(plan(device, call) == PW_OK && run(device, call) == PW_OK);
}

/* A plan's room serves other lengths below its capacity, and a row's bits know nothing of
 * its company. */
static void again(const pw_device *device, struct call *call) {
    float out[4][8], lse[4];
    memcpy(out, call->out[0], sizeof out);
    memcpy(lse, call->lse[0], sizeof lse);
    call->lens.seqs = 1;
    memset(call->out, 0, sizeof call->out);
    CLAIM(plan(device, call) == PW_OK && run(device, call) == PW_OK);
    CLAIM(memcmp(out, call->out[0], sizeof out) == 0 && memcmp(lse, call->lse[0], sizeof lse) == 0);
    CLAIM(call->out[1][0][0] == 0);
    call->lens.seqs = 0;
    CLAIM(plan(device, call) == PW_OK && run(device, call) == PW_OK);
    call->lens.seqs = 2;
    CLAIM(plan(device, call) == PW_OK && run(device, call) == PW_OK);
}

static void *many(void *device) {
    struct call *call = make(device);
    CLAIM(plan(device, call) == PW_OK && run(device, call) == PW_OK);
    struct call *first = room(sizeof *first);
    memcpy(first, call, sizeof *first);
    for (int i = 0; i < 200; i++) {
        memset(call->out, i, sizeof call->out);
        CLAIM(run(device, call) == PW_OK);
        CLAIM(memcmp(first->out, call->out, sizeof call->out) == 0);
    }
    free(first);
    unmake(call);
    return NULL;
}

int main(void) {
    devices();
    pw_device_options options = {.struct_size = sizeof options, .threads = 2};
    pw_device *device = NULL;
    CLAIM(pw_device_open("cpu", 3, &options, &device, &error) == PW_OK && device);
    struct call *call = make(device);
    CLAIM(plan(device, call) == PW_OK && run(device, call) == PW_OK);
    nulls(device, call);
    CLAIM(plan(device, call) == PW_OK);
    sizes(device, call);
    CLAIM(plan(device, call) == PW_OK);
    plans(device, call);
    again(device, call);
    unmake(call);
    pthread_t two[2];
    for (int i = 0; i < 2; i++) pthread_create(&two[i], NULL, many, device);
    for (int i = 0; i < 2; i++) pthread_join(two[i], NULL);
    pw_device_destroy(device);
    puts("attention: ok");
    return 0;
}
