/* A driver that only pretends, for tests of the plugin where there is no card: memory is
 * the host's, launches do nothing, and it aborts where the real one would be misused. That
 * shows the order of calls, not one instruction of a kernel. Any pointer is a context, as a
 * host would have one of its own; `PRETEND_VERSION` is the version that it says it has.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t address;

enum { DEPTH_MAX = 16, PIECES_MAX = 64, SHARED_BYTES = 232448, FIXED_BYTES = 1024 };
enum { OF_HOST = 1, OF_DEVICE = 2 }; /* kinds of memory, as the driver numbers them */

struct piece {
    address at; /* 0: none */
    size_t bytes;
    uint32_t kind;
};
struct stream {
    void *context;
};

static void *stack[DEPTH_MAX]; /* contexts, the current one last */
static int depth;
static char primary;             /* the device's own context */
static struct stream *recording; /* the stream that is captured */
static int launches;             /* those that were recorded */
static struct piece pieces[PIECES_MAX];
/* What was made and not given back: memory, modules, streams, graphs, events, contexts. */
static int left;

static void hold(int holds, const char *function, const char *what) {
    if (!holds) {
        fprintf(stderr, "pretend: %s %s\n", function, what);
        abort();
    }
}

#define IN_CONTEXT() hold(depth > 0, __func__, "without a context")
#define NOT_RECORDED()                                                                             \
    IN_CONTEXT();                                                                                  \
    hold(!recording, __func__, "while a graph is recorded")

/* A stream is used in its own context. */
static void in_its_context(const struct stream *stream, const char *function) {
    hold(depth > 0, function, "without a context");
    hold(stream && stream->context == stack[depth - 1], function, "in another context");
}

static struct piece *piece_at(address at) {
    for (struct piece *piece = pieces; piece < pieces + PIECES_MAX; piece++)
        if (piece->at <= at && at - piece->at < piece->bytes)
            return piece;
    return NULL;
}

static address make_piece(size_t bytes, uint32_t kind) {
    /* Pieces lie apart: what goes past the end of one is nobody's. */
    void *memory = malloc(bytes + 4096);
    struct piece *piece = pieces;
    while (piece < pieces + PIECES_MAX && piece->at)
        piece++;
    hold(memory && piece < pieces + PIECES_MAX, __func__, "of too many");
    memset(memory, 0xaa, bytes);
    left++;
    *piece = (struct piece){(address)(uintptr_t)memory, bytes, kind};
    return piece->at;
}

static int end_piece(address at, uint32_t kind, const char *function) {
    struct piece *piece = piece_at(at);
    hold(piece && piece->at == at && piece->kind == kind, function, "of what is none");
    *piece = (struct piece){0, 0, 0};
    left--;
    free((void *)(uintptr_t)at);
    return 0;
}

__attribute__((destructor)) static void at_end(void) {
    hold(left == 0, "the end", "with something left");
    hold(depth == 0, "the end", "with a context that the host did not have");
    fprintf(stderr, "pretend: nothing is left\n");
}

static int make(void **handle) {
    left++;
    *handle = calloc(1, 64);
    return 0;
}

static int end(void *handle) {
    left--;
    free(handle);
    return 0;
}

int cuInit(unsigned flags) { return (int)flags; }
int cuDriverGetVersion(int *version) {
    const char *says = getenv("PRETEND_VERSION");
    return *version = says ? atoi(says) : 99000, 0;
}
int cuGetErrorName(int code, const char **name) { return *name = "PRETENDED", code * 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetName(char *name, int room, int device) {
    return snprintf(name, (size_t)room, "pretended card %d", device), 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    /* Multiprocessors, compute capability 9.0, shared memory. */
    *value = attribute == 16 ? 4 : attribute == 75 ? 9 : attribute == 97 ? SHARED_BYTES : 0;
    return device;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    left++;
    return *context = &primary, device;
}
int cuDevicePrimaryCtxRelease_v2(int device) { return left--, device; }
int cuCtxGetCurrent(void **context) { return *context = depth ? stack[depth - 1] : NULL, 0; }
int cuCtxGetDevice(int *device) { return *device = 0, 0; }
int cuCtxPushCurrent_v2(void *context) {
    hold(depth < DEPTH_MAX, __func__, "without an end");
    return stack[depth++] = context, 0;
}
int cuCtxPopCurrent_v2(void **context) {
    IN_CONTEXT();
    return *context = stack[--depth], 0;
}

int cuModuleLoadData(void **module, const void *image) {
    NOT_RECORDED();
    uint32_t magic;
    memcpy(&magic, image, sizeof magic);
    hold(magic == 0xba55ed50u, __func__, "of what is no fatbin");
    return make(module);
}
int cuModuleUnload(void *module) {
    NOT_RECORDED();
    return end(module);
}
int cuModuleGetFunction(void **function, void *module, const char *name) {
    NOT_RECORDED();
    hold(strncmp(name, "pw_", 3) == 0, __func__, "of a stranger");
    return *function = module, 0;
}
int cuFuncGetAttribute(int *value, int attribute, void *function) {
    NOT_RECORDED();
    hold(attribute == 1 && function, __func__, "of something else");
    return *value = FIXED_BYTES, 0;
}
int cuFuncSetAttribute(void *function, int attribute, int value) {
    NOT_RECORDED();
    hold(function && attribute == 8 && value == SHARED_BYTES - FIXED_BYTES, __func__, "to too much");
    return 0;
}

int cuMemGetInfo_v2(size_t *unused, size_t *all) {
    IN_CONTEXT();
    return *unused = *all = 1 << 30, 0;
}
int cuMemAlloc_v2(address *at, size_t bytes) {
    NOT_RECORDED();
    return *at = make_piece(bytes, OF_DEVICE), 0;
}
int cuMemFree_v2(address at) {
    NOT_RECORDED();
    return end_piece(at, OF_DEVICE, __func__);
}
int cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
    NOT_RECORDED();
    return *host = (void *)(uintptr_t)make_piece(bytes, OF_HOST), (int)flags;
}
int cuMemFreeHost(void *host) {
    NOT_RECORDED();
    return end_piece((address)(uintptr_t)host, OF_HOST, __func__);
}
int cuMemsetD8Async(address at, unsigned char byte, size_t bytes, void *stream) {
    in_its_context(stream, __func__);
    return memset((void *)(uintptr_t)at, byte, bytes), 0;
}
int cuMemcpyHtoDAsync_v2(address to, const void *from, size_t bytes, void *stream) {
    in_its_context(stream, __func__);
    return memcpy((void *)(uintptr_t)to, from, bytes), 0;
}
int cuMemcpyDtoHAsync_v2(void *to, address from, size_t bytes, void *stream) {
    in_its_context(stream, __func__);
    return memcpy(to, (const void *)(uintptr_t)from, bytes), 0;
}
int cuPointerGetAttribute(void *value, int attribute, address at) {
    NOT_RECORDED();
    const struct piece *piece = piece_at(at);
    if (!piece)
        return 1; /* what it did not make, it does not know */
    /* The kind of memory; the number of the device. */
    const uint32_t answer = attribute == 2 ? piece->kind : 0;
    return memcpy(value, &answer, sizeof answer), 0;
}

int cuStreamCreate(void **stream, unsigned flags) {
    NOT_RECORDED();
    hold(flags == 1, __func__, "that waits for the default one");
    make(stream);
    return ((struct stream *)*stream)->context = stack[depth - 1], 0;
}
int cuStreamDestroy_v2(void *stream) {
    NOT_RECORDED();
    return end(stream);
}
int cuStreamGetCtx(void *stream, void **context) {
    IN_CONTEXT();
    return *context = ((struct stream *)stream)->context, 0;
}
int cuStreamSynchronize(void *stream) {
    NOT_RECORDED();
    return in_its_context(stream, __func__), 0;
}
int cuStreamBeginCapture_v2(void *stream, int mode) {
    NOT_RECORDED();
    hold(mode == 1, __func__, "for more than its own thread");
    in_its_context(stream, __func__);
    launches = 0;
    return recording = stream, 0;
}
int cuStreamEndCapture(void *stream, void **graph) {
    IN_CONTEXT();
    hold(recording && recording == stream, __func__, "without a beginning");
    recording = NULL;
    return make(graph);
}
int cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
    NOT_RECORDED();
    hold(graph && flags == 0, __func__, "of nothing");
    return make(made);
}
int cuGraphDestroy(void *graph) {
    NOT_RECORDED();
    return end(graph);
}
int cuGraphLaunch(void *graph, void *stream) {
    NOT_RECORDED();
    hold(launches == 1, __func__, "without what was recorded");
    return in_its_context(stream, __func__), graph == NULL;
}
int cuGraphExecDestroy(void *graph) {
    NOT_RECORDED();
    return end(graph);
}

int cuEventCreate(void **event, unsigned flags) {
    NOT_RECORDED();
    hold(flags == 2, __func__, "with a clock");
    return make(event);
}
int cuEventRecord(void *event, void *stream) {
    NOT_RECORDED();
    return in_its_context(stream, __func__), event == NULL;
}
int cuEventQuery(void *event) {
    NOT_RECORDED();
    return event == NULL ? 1 : 600; /* not ready */
}
int cuEventSynchronize(void *event) {
    NOT_RECORDED();
    return event == NULL;
}
int cuEventDestroy_v2(void *event) {
    NOT_RECORDED();
    return end(event);
}

int cuLaunchKernel(void *function, unsigned x, unsigned y, unsigned z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, void *stream,
                   void **parameters, void **extra) {
    in_its_context(stream, __func__);
    const unsigned threads = x * y * z * block_x * block_y * block_z;
    hold(function && stream && threads > 0, __func__, "of nothing");
    hold(shared <= SHARED_BYTES && extra == NULL, __func__, "with too much");
    /* The first word of a norm's argument: elements between rows. */
    uint64_t stride;
    memcpy(&stride, parameters[0], sizeof stride);
    hold(stride == 64, __func__, "with another argument");
    launches += recording == stream;
    return 0;
}
