/* Any kernel as a row of a table: its three functions by one type each, where its fields are,
 * and one small call of it with the answer. */
#ifndef PAGEWISE_TESTS_KERNEL_H
#define PAGEWISE_TESTS_KERNEL_H

#include "claim.h"
#include <stddef.h>
#include <stdint.h>

#define LINE 64

/* What a plan is made of: a count alone, a count and a list, or the kernel's own lengths. */
struct step {
    uint32_t count;
    const uint32_t *starts;
    const void *lens;
};

enum kind { READ, WRITE, UPDATE, MAY_READ, MAY_WRITE, UNUSED };

/* A buffer of the arguments: what it begins with, or bytes of 0xff where that is NULL. */
struct buffer {
    const char *field;
    size_t at;
    enum kind kind;
    const void *from;
    size_t bytes;
};

/* A number of the descriptor: the bytes that a stride takes, or what is refused; as what is
 * served nowhere, where it is allowed. */
struct number {
    const char *field;
    size_t at;
    long long value;
    int served;
};

enum { BUFFERS = 16, NUMBERS = 10 };

struct made;

struct kernel {
    const char *name;
    pw_status (*query)(const pw_device *, const void *, pw_needs *, pw_error *);
    pw_status (*plan)(const pw_device *, const void *, const struct step *, void *, uint64_t, pw_error *);
    pw_status (*run)(const pw_device *, const void *, const void *, void *, pw_error *);
    size_t desc_bytes, args_bytes, run_at;
    uint32_t desc_first, args_first; /* bytes in the first version; 0: as many as today */
    const void *desc;
    struct step whole, none, beyond;
    /* What names the beyond, and the capacity that it is beyond. */
    const char *past;
    struct number capacity;
    /* Whether each row is written for itself, by its number. */
    int rowwise;
    struct buffer buffers[BUFFERS];
    struct number strides[NUMBERS], types[NUMBERS], bad[NUMBERS];
    /* Whether all outputs are as a person would compute them. */
    void (*answer)(struct made *);
};

/* A call in memory of its own: each buffer has its bytes and none more. */
struct made {
    const struct kernel *kernel;
    void *desc, *args, *plan, *buffers[BUFFERS];
    uint64_t plan_bytes;
    pw_needs needs;
};

/* Memory that begins at a line; what is not whole lines ends where its bytes do. */
static inline void *room(uint64_t bytes) {
    if (bytes % LINE == 0) return aligned_alloc(LINE, bytes ? bytes : LINE);
    return malloc(bytes);
}

static inline void *copy(const void *from, size_t bytes) {
    void *to = room(bytes);
    if (from) memcpy(to, from, bytes);
    else memset(to, 0xff, bytes);
    return to;
}

static inline void **pointer(struct made *call, const struct buffer *buffer) {
    return (void **)((char *)call->args + buffer->at);
}

static inline pw_run *run_of(struct made *call) {
    return (pw_run *)((char *)call->args + call->kernel->run_at);
}

static inline pw_status query(const pw_device *device, struct made *call) {
    return call->kernel->query(device, call->desc, &call->needs, &error);
}

static inline pw_status plan(const pw_device *device, struct made *call, const struct step *step) {
    return call->kernel->plan(device, call->desc, step, call->plan, call->plan_bytes, &error);
}

static inline pw_status run(const pw_device *device, struct made *call) {
    return call->kernel->run(device, call->desc, call->args, NULL, &error);
}

/* The bytes of a plan of this step, by what is lacking when there are none. */
static inline uint64_t plan_takes(const pw_device *device, struct made *call, const struct step *step) {
    CLAIM(call->kernel->plan(device, call->desc, step, call->plan, 0, &error) == PW_E_SPACE && names("plan"));
    return (uint64_t)error.expected;
}

/* Buffers as they were before any run. */
static inline void fill(struct made *call) {
    for (int i = 0; i < BUFFERS && call->kernel->buffers[i].field; i++) {
        const struct buffer *buffer = &call->kernel->buffers[i];
        if (buffer->from) memcpy(call->buffers[i], buffer->from, buffer->bytes);
        else memset(call->buffers[i], 0xff, buffer->bytes);
    }
}

static inline struct made *make(const pw_device *device, const struct kernel *kernel) {
    struct made *call = calloc(1, sizeof *call);
    call->kernel = kernel;
    call->desc = copy(kernel->desc, kernel->desc_bytes);
    call->args = calloc(1, kernel->args_bytes);
    *(uint32_t *)call->args = (uint32_t)kernel->args_bytes;
    call->needs.struct_size = sizeof call->needs;
    CLAIM(query(device, call) == PW_OK);
    CLAIM(call->needs.struct_size == sizeof call->needs && call->needs.alignment == LINE);
    call->plan_bytes = call->needs.plan_bytes;
    call->plan = aligned_alloc(LINE, (call->plan_bytes + LINE - 1) / LINE * LINE);
    void *workspace = NULL;
    if (call->needs.workspace_bytes)
        workspace = aligned_alloc(LINE, (call->needs.workspace_bytes + LINE - 1) / LINE * LINE);
    *run_of(call) = (pw_run){.plan = call->plan, .plan_bytes = call->plan_bytes, .workspace = workspace,
                             .workspace_bytes = call->needs.workspace_bytes};
    for (int i = 0; i < BUFFERS && kernel->buffers[i].field; i++) {
        const struct buffer *buffer = &kernel->buffers[i];
        call->buffers[i] = room(buffer->bytes);
        if (buffer->kind != UNUSED) *pointer(call, buffer) = call->buffers[i];
    }
    fill(call);
    CLAIM(plan(device, call, &kernel->whole) == PW_OK);
    return call;
}

/* The same kernel with all its rows so many times over, if a row is written for itself: more
 * than one thread can do. */
static inline struct kernel *taller(const struct kernel *of, uint32_t times) {
    struct kernel *tall = copy(of, sizeof *of);
    void *desc = copy(of->desc, of->desc_bytes);
    *(uint32_t *)(void *)((char *)desc + of->capacity.at) *= times;
    tall->desc = desc;
    tall->whole.count *= times;
    tall->beyond.count = tall->whole.count + 1;
    for (struct buffer *buffer = tall->buffers; buffer->field; buffer++) {
        char *all = buffer->from ? room(buffer->bytes * times) : NULL;
        for (uint32_t i = 0; all && i < times; i++) memcpy(all + i * buffer->bytes, buffer->from, buffer->bytes);
        buffer->from = all;
        buffer->bytes *= times;
    }
    return tall;
}

static inline void untaller(struct kernel *tall) {
    for (struct buffer *buffer = tall->buffers; buffer->field; buffer++) free((void *)buffer->from);
    free((void *)tall->desc);
    free(tall);
}

static inline void unmake(struct made *call) {
    for (int i = 0; i < BUFFERS; i++) free(call->buffers[i]);
    free(run_of(call)->workspace);
    free(call->plan);
    free(call->args);
    free(call->desc);
    free(call);
}

/* What a buffer holds now. */
static inline const void *held(struct made *call, const char *field) {
    for (int i = 0; i < BUFFERS && call->kernel->buffers[i].field; i++)
        if (strcmp(call->kernel->buffers[i].field, field) == 0) return call->buffers[i];
    CLAIM(!"a buffer of this name");
    return NULL;
}

/* A number between two of f32, which differ by a few of its last bits. */
static inline int near(float got, double right) {
    const double apart = got - right, most = 4e-7 * (right < 0 ? 1 - right : 1 + right);
    return apart < most && -apart < most;
}

static inline int floats_are(struct made *call, const char *field, const float *right, size_t count) {
    const float *got = held(call, field);
    for (size_t i = 0; i < count; i++)
        if (got[i] != right[i] && !near(got[i], right[i])) return 0;
    return 1;
}

static inline int words_are(struct made *call, const char *field, const uint32_t *right, size_t count) {
    return memcmp(held(call, field), right, count * sizeof *right) == 0;
}

#endif
