/* What a device plugin (libpagewise_cuda.so, libpagewise_metal.dylib) and its host know of
 * each other: one exported function gives a table of C functions. Only bytes, numbers and
 * addresses pass; nothing unwinds across. Private, like kernel_params.h: host and plugin are
 * of one build, which they check.
 *
 * Functions return 0, or another number and fill the error they were given. A device is used
 * by one thread at a time; streams run side by side, each in its own order.
 */
#ifndef PAGEWISE_PLUGIN_H
#define PAGEWISE_PLUGIN_H

#include <stdint.h>

/* What went wrong with the device. */
#define PWP_UNSUPPORTED 1u /* a combination that it lacks: `message` says what it has */
#define PWP_MEMORY 2u      /* no such memory is left: `got` bytes */
#define PWP_DEVICE 3u      /* it or its driver failed: `got` is the driver's own number */
/* What is wrong with a call. */
#define PWP_RANGE 4u       /* a number that is not `expected` to `most` */
#define PWP_EQUAL 5u       /* a number that is not `expected` */
#define PWP_MULTIPLE 6u    /* a number that is no multiple of `expected` */
#define PWP_BYTES 7u       /* a buffer of fewer than `expected` bytes */
#define PWP_ALIGN 8u       /* one that begins `got` bytes past a multiple of `expected` */
#define PWP_NOT_FINITE 9u  /* a number that is NaN or infinite */
#define PWP_NEGATIVE 10u   /* a number below zero */
#define PWP_MISSING 11u    /* an absent buffer: `message` calls for it */
#define PWP_UNUSED 12u     /* one without a meaning: `message` would give it one */

struct pwp_error {
    int64_t expected;
    int64_t got;
    int64_t most;
    uint32_t kind;     /* PWP_* */
    uint32_t reserved; /* 0 */
    char field[48];    /* the parameter or buffer at fault, ended by 0 */
    char message[208]; /* in words, ended by 0 */
};

/* What a device is. */
struct pwp_about {
    uint64_t memory_bytes; /* all of its memory */
    uint64_t free_bytes;   /* what is left of it */
    char name[96];         /* the card, ended by 0 */
    char numerics[32];     /* the id of its arithmetic, ended by 0 */
};

/* In `needs`: a buffer that is somewhere, which is not asked about. */
#define PWP_ANYWHERE 0x7fffffffffffff00ull
/* In `stream_open`: what the device does for hosts that name no stream. */
#define PWP_STREAM_DEFAULT 1u

/* A buffer of a call. */
struct pwp_buffer {
    uint64_t address; /* 0: absent */
    uint64_t bytes;
};

/* One call of a kernel. */
struct pwp_call {
    const char *kernel;               /* its name */
    const void *params;               /* its pwk_ block */
    const struct pwp_buffer *buffers; /* as its command declares them, absent ones too */
    uint64_t kernel_bytes;            /* of the name */
    uint64_t params_bytes;
    uint64_t buffer_count;
    uint64_t workspace;       /* address of scratch, aligned to 256 */
    uint64_t workspace_bytes; /* at least what `needs` said */
    uint64_t fault;           /* address of a pwk_fault */
    uint32_t command;         /* what the fault calls this call */
    uint32_t reserved;        /* 0 */
};

struct pwp_device;
struct pwp_stream;
struct pwp_graph;
struct pwp_event;

struct pwp_table {
    uint64_t struct_size;
    const char *build; /* host and plugin of one build say the same, ended by 0 */

    int32_t (*open)(uint32_t ordinal, struct pwp_device **device, struct pwp_error *error);
    void (*close)(struct pwp_device *device);
    int32_t (*about)(struct pwp_device *device, struct pwp_about *about, struct pwp_error *error);

    /* Memory of the device, zeroed; and memory of the host that it copies from and to. */
    int32_t (*alloc)(struct pwp_device *device, uint64_t bytes, uint64_t *address,
                     struct pwp_error *error);
    void (*free)(struct pwp_device *device, uint64_t address);
    int32_t (*host_alloc)(struct pwp_device *device, uint64_t bytes, void **host,
                          struct pwp_error *error);
    void (*host_free)(struct pwp_device *device, void *host);

    /* A stream of the host's, or PWP_STREAM_DEFAULT; one of its own where that is NULL. */
    int32_t (*stream_open)(struct pwp_device *device, void *native, struct pwp_stream **stream,
                           struct pwp_error *error);
    void (*stream_close)(struct pwp_device *device, struct pwp_stream *stream);

    /* Enqueued on a stream. `host` is of host_alloc, and stays as it is until done. */
    int32_t (*write)(struct pwp_device *device, struct pwp_stream *stream, uint64_t address,
                     const void *host, uint64_t bytes, struct pwp_error *error);
    int32_t (*read)(struct pwp_device *device, struct pwp_stream *stream, uint64_t address,
                    void *host, uint64_t bytes, struct pwp_error *error);
    int32_t (*zero)(struct pwp_device *device, struct pwp_stream *stream, uint64_t address,
                    uint64_t bytes, struct pwp_error *error);

    /* Whether the device has the kernel with these parameters and reaches all addresses,
     * which may be 0 but for the buffers; and the scratch it takes. */
    int32_t (*needs)(struct pwp_device *device, const struct pwp_call *call,
                     uint64_t *workspace_bytes, struct pwp_error *error);
    /* Enqueues a call: allocates nothing, waits for nothing. */
    int32_t (*launch)(struct pwp_device *device, struct pwp_stream *stream,
                      const struct pwp_call *call, struct pwp_error *error);

    /* What is launched on the stream between begin and end becomes a graph instead. */
    int32_t (*graph_begin)(struct pwp_device *device, struct pwp_stream *stream,
                           struct pwp_error *error);
    int32_t (*graph_end)(struct pwp_device *device, struct pwp_stream *stream,
                         struct pwp_graph **graph, struct pwp_error *error);
    int32_t (*graph_launch)(struct pwp_device *device, struct pwp_stream *stream,
                            struct pwp_graph *graph, struct pwp_error *error);
    void (*graph_close)(struct pwp_device *device, struct pwp_graph *graph);

    /* A point of a stream: done is 1 once all before it is; `wait` returns then. */
    int32_t (*event_open)(struct pwp_device *device, struct pwp_event **event,
                          struct pwp_error *error);
    int32_t (*event_record)(struct pwp_device *device, struct pwp_stream *stream,
                            struct pwp_event *event, struct pwp_error *error);
    int32_t (*event_done)(struct pwp_device *device, struct pwp_event *event, uint32_t *done,
                          struct pwp_error *error);
    int32_t (*event_wait)(struct pwp_device *device, struct pwp_event *event,
                          struct pwp_error *error);
    void (*event_close)(struct pwp_device *device, struct pwp_event *event);
};

/* The one exported function: `const struct pwp_table *pagewise_plugin(void)`. */
#define PWP_SYMBOL "pagewise_plugin"

#endif /* PAGEWISE_PLUGIN_H */
