/* A driver that only pretends, for one test of the plugin where there is no card: memory is
 * the host's, launches do nothing, and it aborts where the real one would be misused. That
 * shows the order of calls, not one instruction of a kernel.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t address;

enum { DEPTH_MAX = 16, SHARED_BYTES = 232448, FIXED_BYTES = 1024 };

static void *stack[DEPTH_MAX]; /* contexts, the current one last */
static int depth;
static int recording; /* whether the stream is captured */
static int launches;  /* those that were recorded */
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
int cuDriverGetVersion(int *version) { return *version = 99000, 0; }
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

int cuDevicePrimaryCtxRetain(void **context, int device) { return make(context), device; }
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
    left++;
    void *memory = malloc(bytes);
    memset(memory, 0xaa, bytes);
    return *at = (address)(uintptr_t)memory, 0;
}
int cuMemFree_v2(address at) {
    NOT_RECORDED();
    return end((void *)(uintptr_t)at);
}
int cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
    NOT_RECORDED();
    left++;
    return *host = malloc(bytes), (int)flags;
}
int cuMemFreeHost(void *host) {
    NOT_RECORDED();
    return end(host);
}
int cuMemsetD8Async(address at, unsigned char byte, size_t bytes, void *stream) {
    IN_CONTEXT();
    return memset((void *)(uintptr_t)at, byte, bytes), stream == NULL;
}
int cuMemcpyHtoDAsync_v2(address to, const void *from, size_t bytes, void *stream) {
    IN_CONTEXT();
    return memcpy((void *)(uintptr_t)to, from, bytes), stream == NULL;
}
int cuMemcpyDtoHAsync_v2(void *to, address from, size_t bytes, void *stream) {
    IN_CONTEXT();
    return memcpy(to, (const void *)(uintptr_t)from, bytes), stream == NULL;
}
int cuPointerGetAttribute(void *value, int attribute, address at) {
    NOT_RECORDED();
    /* All memory is the device's, number 0. */
    const uint32_t answer = attribute == 2 ? 2 : 0;
    return memcpy(value, &answer, sizeof answer), at == 0;
}

int cuStreamCreate(void **stream, unsigned flags) {
    NOT_RECORDED();
    hold(flags == 1, __func__, "that waits for the default one");
    return make(stream);
}
int cuStreamDestroy_v2(void *stream) {
    NOT_RECORDED();
    return end(stream);
}
int cuStreamGetCtx(void *stream, void **context) {
    IN_CONTEXT();
    return *context = stack[depth - 1], stream == NULL;
}
int cuStreamSynchronize(void *stream) {
    NOT_RECORDED();
    return stream == NULL;
}
int cuStreamBeginCapture_v2(void *stream, int mode) {
    NOT_RECORDED();
    hold(mode == 1, __func__, "for more than its own thread");
    launches = 0;
    return recording = 1, stream == NULL;
}
int cuStreamEndCapture(void *stream, void **graph) {
    IN_CONTEXT();
    hold(recording, __func__, "without a beginning");
    recording = 0;
    return make(graph), stream == NULL;
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
    return graph == NULL || stream == NULL;
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
    return event == NULL || stream == NULL;
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
    IN_CONTEXT();
    hold(recording, __func__, "that is not recorded");
    const unsigned threads = x * y * z * block_x * block_y * block_z;
    hold(function && stream && threads > 0, __func__, "of nothing");
    hold(shared <= SHARED_BYTES && extra == NULL, __func__, "with too much");
    /* The first word of a norm's argument: elements between rows. */
    uint64_t stride;
    memcpy(&stride, parameters[0], sizeof stride);
    hold(stride == 64, __func__, "with another argument");
    launches++;
    return 0;
}
