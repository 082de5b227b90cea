/* Every kernel does what its line in the header says, and refuses by name what no caller
 * should send: the same abuse of each, over a table. */
#include "cases.h"

#define CAST(type, from) ((const type *)(const void *)(from))

static int faults;

/* A call came to this, and named that. All kernels are gone through before one that did not
 * ends the program. */
static void came_to(int line, const struct kernel *kernel, pw_status status, pw_status wanted, const char *by) {
    if (status != wanted || (by && !names(by))) {
        fprintf(stderr, "kernels.c:%d: %s: expected %d of %s, got %d of %s: %s\n", line, kernel->name, wanted, by ? by : "nothing",
                status, error.field, error.message);
        faults++;
    }
    error = (pw_error){.struct_size = sizeof error};
}

#define REFUSED(call, wanted, by) came_to(__LINE__, kernel, call, wanted, by)
#define FINE(call) came_to(__LINE__, kernel, call, PW_OK, NULL)

static void nulls(const pw_device *device, struct made *call) {
    const struct kernel *kernel = call->kernel;
    pw_run *given = run_of(call);
    REFUSED(kernel->query(NULL, call->desc, &call->needs, &error), PW_E_NULL, "device");
    REFUSED(kernel->query(device, NULL, &call->needs, &error), PW_E_NULL, "desc");
    FINE(kernel->query(device, call->desc, NULL, NULL));
    REFUSED(kernel->plan(NULL, call->desc, &kernel->whole, call->plan, call->plan_bytes, &error), PW_E_NULL, "device");
    REFUSED(kernel->plan(device, NULL, &kernel->whole, call->plan, call->plan_bytes, &error), PW_E_NULL, "desc");
    REFUSED(kernel->plan(device, call->desc, &kernel->whole, NULL, call->plan_bytes, &error), PW_E_NULL, "plan");
    REFUSED(kernel->run(NULL, call->desc, call->args, NULL, &error), PW_E_NULL, "device");
    REFUSED(kernel->run(device, NULL, call->args, NULL, &error), PW_E_NULL, "desc");
    REFUSED(kernel->run(device, call->desc, NULL, NULL, &error), PW_E_NULL, "args");
    REFUSED(kernel->run(device, call->desc, call->args, call, &error), PW_E_ARGUMENT, "stream");
    if (kernel->whole.lens) {
        const struct step nothing = {0, NULL, NULL};
        REFUSED(plan(device, call, &nothing), PW_E_NULL, "lens");
    }
    if (kernel->whole.starts) {
        const struct step nothing = {kernel->whole.count, NULL, NULL};
        CLAIM(plan(device, call, &nothing) == PW_E_NULL);
    }
    const pw_run kept = *given;
    given->plan = NULL;
    REFUSED(run(device, call), PW_E_NULL, "plan");
    *given = kept;
    if (given->workspace_bytes) {
        given->workspace = NULL;
        REFUSED(run(device, call), PW_E_NULL, "workspace");
        *given = kept;
    }
    for (const struct buffer *buffer = kernel->buffers; buffer->field; buffer++) {
        void **at = pointer(call, buffer), *was = *at;
        *at = buffer->kind == UNUSED ? call->buffers[buffer - kernel->buffers] : NULL;
        if (buffer->kind == MAY_READ || buffer->kind == MAY_WRITE) FINE(run(device, call));
        else REFUSED(run(device, call), buffer->kind == UNUSED ? PW_E_ARGUMENT : PW_E_NULL, buffer->field);
        *at = was;
    }
}

/* A struct of another version, at the same address for the library as ours. */
static void *longer(const void *ours, size_t bytes, unsigned char last) {
    unsigned char *more = calloc(1, bytes + 24);
    memcpy(more, ours, bytes);
    *(uint32_t *)(void *)more = (uint32_t)bytes + 24;
    more[bytes + 23] = last;
    return more;
}

static void sizes(const pw_device *device, struct made *call) {
    const struct kernel *kernel = call->kernel;
    const uint32_t desc_bytes = (uint32_t)kernel->desc_bytes, args_bytes = (uint32_t)kernel->args_bytes;
    for (int zero = 1; zero >= 0; zero--) {
        void *desc = longer(call->desc, desc_bytes, !zero), *args = longer(call->args, args_bytes, !zero);
        if (zero) {
            FINE(kernel->query(device, desc, NULL, &error));
            FINE(kernel->run(device, desc, args, NULL, &error));
        } else {
            REFUSED(kernel->query(device, desc, NULL, &error), PW_E_SIZE, "desc");
            REFUSED(kernel->plan(device, desc, &kernel->whole, call->plan, call->plan_bytes, &error), PW_E_SIZE, "desc");
            REFUSED(kernel->run(device, desc, call->args, NULL, &error), PW_E_SIZE, "desc");
            REFUSED(kernel->run(device, call->desc, args, NULL, &error), PW_E_SIZE, "args");
        }
        free(desc);
        free(args);
    }
    const uint32_t desc_first = kernel->desc_first ? kernel->desc_first : desc_bytes,
                   args_first = kernel->args_first ? kernel->args_first : args_bytes;
    const uint32_t wrong[] = {0, 4, desc_first - 1, PW_NONE};
    for (int i = 0; i < 4; i++) {
        *(uint32_t *)call->desc = wrong[i];
        REFUSED(query(device, call), PW_E_SIZE, "desc");
        REFUSED(plan(device, call, &kernel->whole), PW_E_SIZE, "desc");
        REFUSED(run(device, call), PW_E_SIZE, "desc");
        *(uint32_t *)call->desc = desc_bytes;
        *(uint32_t *)call->args = i == 2 ? args_first - 1 : wrong[i];
        CLAIM(run(device, call) == PW_E_SIZE && names("args") && error.expected == args_first);
        *(uint32_t *)call->args = args_bytes;
    }
    if (kernel->whole.lens) {
        const uint32_t nothing[32] = {0};
        const struct step step = {0, NULL, nothing};
        REFUSED(plan(device, call, &step), PW_E_SIZE, "lens");
    }
    call->needs.struct_size = 23;
    REFUSED(query(device, call), PW_E_SIZE, "needs");
    call->needs.struct_size = sizeof call->needs;
    /* The second word of all arguments is kept for later. */
    ((uint32_t *)call->args)[1] = 1;
    REFUSED(run(device, call), PW_E_ARGUMENT, "reserved");
    ((uint32_t *)call->args)[1] = 0;
}

static void addresses(const pw_device *device, struct made *call) {
    const struct kernel *kernel = call->kernel;
    pw_run *given = run_of(call);
    const pw_run kept = *given;
    REFUSED(kernel->query(device, (char *)call->desc + 1, NULL, &error), PW_E_ALIGN, "desc");
    REFUSED(kernel->run(device, call->desc, (char *)call->args + 4, NULL, &error), PW_E_ALIGN, "args");
    given->plan = (const char *)kept.plan + 8;
    REFUSED(run(device, call), PW_E_ALIGN, "plan");
    *given = kept;
    given->workspace = (char *)kept.plan + 32;
    REFUSED(run(device, call), PW_E_ALIGN, "workspace");
    /* Where the plan lies no scratch can be. */
    given->workspace = call->plan;
    given->workspace_bytes = call->plan_bytes;
    REFUSED(run(device, call), PW_E_ARGUMENT, "workspace");
    *given = kept;
    for (const struct buffer *buffer = kernel->buffers; buffer->field; buffer++) {
        if (buffer->kind == UNUSED) continue;
        void **at = pointer(call, buffer), *was = *at;
        *at = (char *)was + 1;
        REFUSED(run(device, call), PW_E_ALIGN, buffer->field);
        /* What is written lies over nothing else. */
        for (const struct buffer *other = kernel->buffers; other->field; other++) {
            if (other == buffer || other->kind == UNUSED || buffer->kind == READ || buffer->kind == MAY_READ) continue;
            *at = call->buffers[other - kernel->buffers];
            if ((uintptr_t)*at % LINE && other->bytes % LINE == 0) continue;
            const pw_status status = run(device, call);
            const char *by = names(other->field) ? other->field : buffer->field;
            came_to(__LINE__, kernel, strstr(error.message, "overlaps") ? status : PW_OK, PW_E_ARGUMENT, by);
        }
        *at = was;
    }
    const struct buffer *last = NULL;
    for (const struct buffer *buffer = kernel->buffers; buffer->field; buffer++)
        if (buffer->kind == WRITE) last = buffer;
    if (last) {
        void **at = pointer(call, last), *was = *at;
        *at = call->plan;
        REFUSED(run(device, call), PW_E_ARGUMENT, last->field);
        *at = was;
    }
}

static void plans(const pw_device *device, struct made *call, struct made *other) {
    const struct kernel *kernel = call->kernel;
    pw_run *given = run_of(call);
    const pw_run kept = *given;
    const uint64_t takes = plan_takes(device, call, &kernel->whole);
    CLAIM(takes <= call->needs.plan_bytes);
    REFUSED(kernel->plan(device, call->desc, &kernel->whole, call->plan, takes - 1, &error), PW_E_SPACE, "plan");
    /* No more than it says is written or read, and it may be moved. */
    void *moved = room((takes + LINE - 1) / LINE * LINE), *exact = aligned_alloc(LINE, (takes + LINE - 1) / LINE * LINE);
    memset(exact, 0x5a, (takes + LINE - 1) / LINE * LINE);
    FINE(kernel->plan(device, call->desc, &kernel->whole, exact, takes, &error));
    for (uint64_t i = takes; i % LINE; i++) CLAIM(((unsigned char *)exact)[i] == 0x5a);
    memcpy(moved, exact, takes);
    memset(exact, 0, takes);
    given->plan = moved;
    given->plan_bytes = takes;
    FINE(run(device, call));
    for (uint64_t bytes = 0; bytes < takes; bytes += 4) {
        given->plan_bytes = bytes;
        REFUSED(run(device, call), PW_E_PLAN, "plan");
    }
    given->plan_bytes = takes;
    given->plan = exact;
    REFUSED(run(device, call), PW_E_PLAN, "plan");
    given->plan = other->plan;
    given->plan_bytes = other->plan_bytes;
    REFUSED(run(device, call), PW_E_PLAN, "plan");
    *given = kept;
    free(moved);
    free(exact);
    uint32_t *capacity = (uint32_t *)((char *)call->desc + kernel->capacity.at);
    *capacity += 1;
    REFUSED(run(device, call), PW_E_PLAN, "plan");
    *capacity -= 1;
    REFUSED(plan(device, call, &kernel->beyond), PW_E_ARGUMENT, kernel->past);
    FINE(plan(device, call, &kernel->whole));
    if (kept.workspace_bytes) {
        given->workspace_bytes -= 1;
        REFUSED(run(device, call), PW_E_SPACE, "workspace");
        *given = kept;
    }
}

/* A number of the descriptor is refused by its name, before there is a plan of it. */
static void number(const pw_device *device, struct made *call, const struct number *of, size_t bytes, long long value, pw_status wanted) {
    const struct kernel *kernel = call->kernel;
    unsigned char *at = (unsigned char *)call->desc + of->at, was[8];
    memcpy(was, at, bytes);
    memcpy(at, &value, bytes);
    REFUSED(query(device, call), wanted, of->field);
    REFUSED(plan(device, call, &kernel->whole), wanted, of->field);
    CLAIM(run(device, call) != PW_OK);
    memcpy(at, was, bytes);
}

static void numbers(const pw_device *device, struct made *call) {
    const struct kernel *kernel = call->kernel;
    const long long past = (1ll << 62) + 4;
    number(device, call, &kernel->capacity, 4, 0, PW_E_ARGUMENT);
    for (const struct number *of = kernel->strides; of->field; of++) {
        const long long wrong[] = {of->value - 4, of->value - 1, -of->value, past, INT64_MAX, INT64_MIN};
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) number(device, call, of, 8, wrong[i], PW_E_ARGUMENT);
        /* Rows and pages so far apart are nowhere. */
        if (strncmp(of->field, "kv.", 3)) number(device, call, of, 8, 1ll << 50, PW_E_ARGUMENT);
        if (strcmp(of->field, "kv.page_stride") == 0) number(device, call, of, 8, 1ll << 62, PW_E_ARGUMENT);
    }
    for (const struct number *of = kernel->types; of->field; of++) number(device, call, of, 4, 99, PW_E_ARGUMENT);
    for (const struct number *of = kernel->bad; of->field; of++) number(device, call, of, 4, of->value, of->served ? PW_E_UNSUPPORTED : PW_E_ARGUMENT);
}

static void untouched(struct made *call) {
    for (const struct buffer *buffer = call->kernel->buffers; buffer->field; buffer++) {
        const unsigned char *now = call->buffers[buffer - call->kernel->buffers], *from = buffer->from;
        if (buffer->kind == READ || buffer->kind == MAY_READ) continue;
        for (size_t i = 0; i < buffer->bytes; i++) CLAIM(now[i] == (from ? from[i] : 0xff));
    }
}

/* Other lengths below the capacity, in the same room; those that are not there are left. */
static void lengths(const pw_device *device, struct made *call) {
    const struct kernel *kernel = call->kernel;
    fill(call);
    FINE(plan(device, call, &kernel->none));
    FINE(run(device, call));
    untouched(call);
    if (kernel->rowwise) {
        const struct step one = {.count = 1};
        FINE(plan(device, call, &one));
        FINE(run(device, call));
        struct made *whole = make(device, kernel);
        FINE(run(device, whole));
        for (const struct buffer *buffer = kernel->buffers; buffer->field; buffer++) {
            if (buffer->kind == READ || buffer->kind == MAY_READ || buffer->kind == UNUSED) continue;
            const size_t half = buffer->bytes / 2;
            const unsigned char *now = call->buffers[buffer - kernel->buffers];
            CLAIM(memcmp(now, whole->buffers[buffer - kernel->buffers], half) == 0);
            for (size_t i = half; i < buffer->bytes; i++)
                CLAIM(now[i] == (buffer->from ? ((const unsigned char *)buffer->from)[i] : 0xff));
        }
        unmake(whole);
    }
    fill(call);
    FINE(plan(device, call, &kernel->whole));
    FINE(run(device, call));
    kernel->answer(call);
}

/* Many rows for many threads: each as if it were alone. */
static void tall(const pw_device *device, const struct kernel *of) {
    enum { TIMES = 1000 };
    if (!of->rowwise) return;
    struct kernel *kernel = taller(of, TIMES);
    struct made *call = make(device, kernel);
    FINE(run(device, call));
    kernel->answer(call);
    for (const struct buffer *buffer = kernel->buffers; buffer->field; buffer++) {
        const char *rows = call->buffers[buffer - kernel->buffers];
        const size_t bytes = buffer->bytes / TIMES;
        if (buffer->kind == UNUSED) continue;
        for (size_t i = 1; i < TIMES; i++) CLAIM(memcmp(rows, rows + i * bytes, bytes) == 0);
    }
    unmake(call);
    untaller(kernel);
}

/* Numbers in the device's memory that the contract does not allow: word at of a buffer. */
static const struct {
    const char *kernel, *buffer, *field;
    uint32_t at, value;
} elements[] = {
    {"embed", "tokens", "tokens", 1, 3}, {"lora", "adapters", "adapters", 0, 1}, {"lora", "ranks", "ranks", 0, 0},
    {"lora", "ranks", "ranks", 0, 17}, {"lora", "scales", "scales", 0, NOT_A_NUMBER}, {"rope", "positions", "positions", 0, 2},
    {"append_kv", "slots", "slots", 0, 2}, {"append_kv", "slots", "slots", 3, 2}, {"kv_copy", "entries", "entries", 0, 2},
    {"kv_copy", "entries", "entries", 1, 2}, {"kv_copy", "entries", "entries", 9, 2}, {"kv_copy", "entries", "entries", 9, PW_NONE},
    {"attention", "page_ids", "page_ids", 1, 2}, {"attention", "page_ids", "page_ids", 0, PW_NONE}, {"gather", "indices", "indices", 0, 3},
    {"logit_mask", "settings", "settings.mask", 0, 1}, {"logit_mask", "settings", "settings.action", 1, 1},
    {"logit_mask", "settings", "settings.slot", 2, 0}, {"logit_mask", "settings", "settings.temperature", 3, 0xbf800000},
    {"logit_mask", "settings", "settings.repetition", 11, 0}, {"logit_mask", "settings", "settings.slot", 13, 0x3f800000},
    {"logit_mask", "settings", "settings.presence", 5, NOT_A_NUMBER}, {"sample", "settings", "settings.temperature", 4, NOT_A_NUMBER},
    {"sample", "settings", "settings.top_p", 6, 0x40000000}, {"sample", "settings", "settings.min_p", 7, 0xbf800000},
    {"sample", "row_masks", "row_masks", 3, 2},
    {"token_logprob", "token", "token", 0, 3}, {"spec_verify", "tokens", "tokens", 2, 3}};

static void wrong_elements(const pw_device *device, struct made *call) {
    const struct kernel *kernel = call->kernel;
    fill(call);
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++) {
        if (strcmp(elements[i].kernel, kernel->name)) continue;
        for (const struct buffer *buffer = kernel->buffers; buffer->field; buffer++) {
            if (strcmp(buffer->field, elements[i].buffer)) continue;
            uint32_t *word = (uint32_t *)call->buffers[buffer - kernel->buffers] + elements[i].at, was = *word;
            *word = elements[i].value;
            REFUSED(run(device, call), PW_E_ARGUMENT, elements[i].field);
            *word = was;
            untouched(call);
        }
    }
}

/* What was refused has written nothing, so the answer is there after all of it. */
static void each(const pw_device *device, const struct kernel *kernel, struct made *other) {
    struct made *call = make(device, kernel);
    FINE(run(device, call));
    kernel->answer(call);
    nulls(device, call);
    sizes(device, call);
    addresses(device, call);
    plans(device, call, other);
    numbers(device, call);
    wrong_elements(device, call);
    lengths(device, call);
    tall(device, kernel);
    unmake(call);
}

/* Bytes of a plan are of their kernel, even where descriptors of two are the same bytes. */
static void of_one_kernel(const pw_device *device) {
    const pw_activation_desc gated = {.struct_size = sizeof gated, .rows_max = 2, .x_row_stride = 16, .out_row_stride = 8, .columns = 2,
                                      .up_offset = 2, .kind = PW_ACTIVATION_SILU, .x_dtype = PW_F32, .out_dtype = PW_F32};
    const pw_pool_desc pooled = {.struct_size = sizeof pooled, .rows_max = 2, .x_row_stride = 16, .out_row_stride = 8, .seqs_max = 2,
                                 .columns = 2, .kind = PW_POOL_FIRST, .x_dtype = PW_F32, .normalise = 1};
    CLAIM(sizeof gated == sizeof pooled && memcmp(&gated, &pooled, sizeof gated) == 0);
    _Alignas(LINE) unsigned char plan[LINE * 2];
    float out[4];
    pw_pool_args args = {.struct_size = sizeof args, .run = {plan, sizeof plan, NULL, 0}, .x = activation_x, .out = out};
    CLAIM(pw_pool_plan(device, &pooled, 2, (uint32_t[]){0, 1, 2}, plan, sizeof plan, &error) == PW_OK);
    CLAIM(pw_pool_run(device, &pooled, &args, NULL, &error) == PW_OK);
    CLAIM(pw_activation_plan(device, &gated, 2, plan, sizeof plan, &error) == PW_OK);
    CLAIM(pw_pool_run(device, &pooled, &args, NULL, &error) == PW_E_PLAN && names("plan"));
}

/* A device that was destroyed is no device, nor is anything else. */
static void stale(void) {
    pw_device *device = NULL;
    pw_pages *others = NULL;
    CLAIM(pw_device_open("cpu", 3, NULL, &device, &error) == PW_OK && pw_pages_create(1, 1, &others, &error) == PW_OK);
    struct made *calls[KERNELS];
    for (int i = 0; i < KERNELS; i++) calls[i] = make(device, &kernels[i]);
    pw_device_destroy(device);
    pw_device_destroy(device);
    CLAIM(pw_device_numerics(device) == NULL);
    const pw_device *wrong[] = {device, CAST(pw_device, others), CAST(pw_device, calls), CAST(pw_device, UINTPTR_MAX)};
    for (int i = 0; i < KERNELS; i++) {
        const struct kernel *kernel = &kernels[i];
        for (int j = 0; j < 4; j++) {
            REFUSED(query(wrong[j], calls[i]), PW_E_STALE, "device");
            REFUSED(plan(wrong[j], calls[i], &kernel->whole), PW_E_STALE, "device");
            REFUSED(run(wrong[j], calls[i]), PW_E_STALE, "device");
        }
        unmake(calls[i]);
    }
    pw_pages_destroy(others);
}

int main(void) {
    prepare();
    pw_device_options options = {.struct_size = sizeof options, .threads = 2};
    pw_device *device = NULL;
    CLAIM(pw_device_open("cpu", 3, &options, &device, &error) == PW_OK && device);
    for (int i = 0; i < KERNELS; i++) {
        struct made *other = make(device, &kernels[(i + 1) % KERNELS]);
        each(device, &kernels[i], other);
        unmake(other);
    }
    of_one_kernel(device);
    pw_device_destroy(device);
    stale();
    CLAIM(faults == 0);
    puts("kernels: ok");
    return 0;
}
