/* A device with streams, as an engine uses one: memory of the device's own, a call that is made
 * once, and plans that are put where the last one was. Near the library lies a plugin whose
 * device is this machine; its memory comes from two functions of its own, as a driver's would. */
#define _GNU_SOURCE
#include "../call.h"
#include <dlfcn.h>
#include <math.h>

static void *(*device_alloc)(uint64_t);
static void (*device_free)(void *);

/* The folder of the plugin, lib/../plugins of the library, and the plugin. */
static char folder[4096], path[4200];

static void *plugin(void) {
    Dl_info info;
    CLAIM(dladdr(dlsym(RTLD_DEFAULT, "pw_version"), &info) != 0);
    const char *end = strrchr(info.dli_fname, '/');
    CLAIM(end && (size_t)(end - info.dli_fname) + sizeof "/../plugins" < sizeof folder);
    snprintf(folder, sizeof folder, "%.*s/../plugins", (int)(end - info.dli_fname), info.dli_fname);
    snprintf(path, sizeof path, "%s/libpagewise_cuda.so", folder);
    return dlopen(path, RTLD_NOW);
}

/* Room on the device, which begins with these bytes. */
static void *there(const void *from, size_t bytes, size_t capacity) {
    char *to = device_alloc(capacity);
    CLAIM(to != NULL);
    memset(to, 0x7f, capacity);
    if (from) memcpy(to, from, bytes);
    return to;
}

/* A step with these lengths: planned here, copied, run, and compared with the CPU's. */
static void step(const pw_device *device, const pw_device *cpu, struct call *call, pw_attention_args *args, uint32_t seqs,
                 const uint32_t *lens) {
    for (uint32_t i = 0; i < seqs; i++) call->kv_len[i] = lens[i];
    call->lens.seqs = seqs;
    call->q_start[seqs] = seqs == 1 ? 1 : 4;
    CLAIM(plan(cpu, call) == PW_OK && run(cpu, call) == PW_OK);
    unsigned char *made = room(args->run.plan_bytes);
    CLAIM(pw_attention_plan(device, &call->desc, &call->lens, made, args->run.plan_bytes, &error) == PW_OK);
    memcpy((void *)args->run.plan, made, args->run.plan_bytes);
    free(made);
    CLAIM(pw_attention_run(device, &call->desc, args, NULL, &error) == PW_OK);
    CLAIM(pw_plan_fault(device, args->run.plan, args->run.plan_bytes, &error) == PW_OK);
    const float *got = args->out, *right = &call->out[0][0][0];
    for (size_t i = 0; i < call->q_start[seqs] * sizeof call->out[0] / sizeof(float); i++)
        CLAIM(fabsf(got[i] - right[i]) < 1e-5f);
}

int main(void) {
    pw_device *cpu = NULL, *device = NULL;
    CLAIM(pw_device_open("cpu", 3, NULL, &cpu, &error) == PW_OK);
    void *library = plugin();
    CLAIM(library != NULL);
    *(void **)&device_alloc = dlsym(library, "emulator_alloc");
    *(void **)&device_free = dlsym(library, "emulator_free");
    CLAIM(device_alloc && device_free);
    const pw_device_options options = {.struct_size = sizeof options, .plugins = folder, .plugins_bytes = strlen(folder)};
    CLAIM(pw_device_open("cuda:0", 6, NULL, &device, &error) == PW_E_DEVICE && strstr(error.message, "libpagewise_cuda.so"));
    CLAIM(pw_device_open("cuda:7", 6, &options, &device, &error) == PW_E_DEVICE && names("name"));
    CLAIM(pw_device_open("cuda:0", 6, &options, &device, &error) == PW_OK);
    CLAIM(strcmp(pw_device_numerics(device), pw_device_numerics(cpu)) != 0);

    struct call *call = make(cpu);
    pw_needs needs = {.struct_size = sizeof needs};
    CLAIM(pw_attention_query(device, &call->desc, &needs, &error) == PW_OK);
    CLAIM(needs.alignment >= LINE && needs.plan_bytes > 0);
    /* Buffers hold what the capacity takes. */
    const size_t rows = call->desc.rows_max, q_bytes = rows * sizeof call->q[0];
    pw_attention_args args = {
        .struct_size = sizeof args, .q = there(call->q, sizeof call->q, q_bytes),
        .keys = there(call->keys, sizeof call->keys, sizeof call->keys),
        .values = there(call->values, sizeof call->values, sizeof call->values),
        .page_ids = there(call->page_ids, sizeof call->page_ids, call->desc.page_ids_max * sizeof(uint32_t)),
        .out = there(NULL, 0, rows * sizeof call->out[0]),
        .run = {.plan = there(NULL, 0, needs.plan_bytes), .plan_bytes = needs.plan_bytes,
                .workspace = there(NULL, 0, needs.workspace_bytes + 1), .workspace_bytes = needs.workspace_bytes}};

    /* One call, three plans. */
    step(device, cpu, call, &args, 2, (uint32_t[]){3, 9});
    step(device, cpu, call, &args, 1, (uint32_t[]){2});
    call->q_start[1] = 1;
    step(device, cpu, call, &args, 2, (uint32_t[]){4, 12});

    /* A page that is none is found on the device, and told with the plan. */
    uint32_t *ids = (uint32_t *)args.page_ids;
    ids[1] = 99;
    CLAIM(pw_attention_run(device, &call->desc, &args, NULL, &error) == PW_OK);
    CLAIM(pw_plan_fault(device, args.run.plan, args.run.plan_bytes, &error) == PW_E_ARGUMENT && names("page_ids"));
    CLAIM(error.got == 99 && error.expected == 5);
    ids[1] = call->page_ids[1];
    step(device, cpu, call, &args, 2, (uint32_t[]){3, 9});

    /* What can be told before is refused before. */
    pw_attention_args wrong = args;
    wrong.q = call->q;
    CLAIM(pw_attention_run(device, &call->desc, &wrong, NULL, &error) == PW_E_UNSUPPORTED && names("q"));
    wrong = args;
    wrong.run.plan = call->plan;
    wrong.run.plan_bytes = sizeof call->plan;
    CLAIM(pw_attention_run(device, &call->desc, &wrong, NULL, &error) == PW_E_UNSUPPORTED && names("plan"));
    if (needs.workspace_bytes) {
        wrong = args;
        wrong.run.workspace_bytes -= 1;
        CLAIM(pw_attention_run(device, &call->desc, &wrong, NULL, &error) == PW_E_SPACE && names("workspace"));
    }
    CLAIM(pw_plan_fault(device, call->out, sizeof call->out, &error) == PW_E_PLAN && names("plan"));
    CLAIM(pw_plan_fault(device, NULL, 0, &error) == PW_E_NULL && names("plan"));

    const void *pieces[] = {args.q, args.keys, args.values, args.page_ids, args.out, args.run.plan, args.run.workspace};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) device_free((void *)pieces[i]);
    unmake(call);
    pw_device_destroy(device);
    CLAIM(pw_attention_query(device, &(pw_attention_desc){0}, NULL, &error) == PW_E_STALE && names("device"));
    pw_device_destroy(cpu);
    puts("device: ok");
    return 0;
}
