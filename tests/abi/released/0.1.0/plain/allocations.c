/* `run` allocates nothing, of any kernel: the library finds these in place of its own, and they
 * count. */
#include "../cases.h"
#include <stdatomic.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *at, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

static atomic_ulong count;

void *malloc(size_t bytes) {
    count++;
    return __libc_malloc(bytes);
}

void *calloc(size_t of, size_t bytes) {
    count++;
    return __libc_calloc(of, bytes);
}

void *realloc(void *at, size_t bytes) {
    count++;
    return __libc_realloc(at, bytes);
}

void *aligned_alloc(size_t align, size_t bytes) {
    count++;
    return __libc_memalign(align, bytes);
}

int posix_memalign(void **at, size_t align, size_t bytes) {
    count++;
    *at = __libc_memalign(align, bytes);
    return *at == NULL;
}

/* How many were made since. */
static unsigned long since(unsigned long before) { return count - before; }

static void none(const pw_device *device, const struct kernel *kernel, int times) {
    struct made *call = make(device, kernel);
    const unsigned long before = count;
    for (int i = 0; i < times; i++) {
        fill(call);
        CLAIM(plan(device, call, &kernel->whole) == PW_OK && run(device, call) == PW_OK);
    }
    if (since(before)) printf("%s: %lu in %d calls\n", kernel->name, since(before), times);
    CLAIM(count == before);
    kernel->answer(call);
    /* Nor do a query, and calls that are refused. */
    CLAIM(query(device, call) == PW_OK);
    run_of(call)->plan = NULL;
    CLAIM(run(device, call) == PW_E_NULL);
    run_of(call)->plan = call->plan;
    *pointer(call, &kernel->buffers[0]) = (char *)call->buffers[0] + 1;
    CLAIM(run(device, call) < 0);
    CLAIM(plan(device, call, &kernel->beyond) == PW_E_ARGUMENT && count == before);
    unmake(call);
}

int main(void) {
    const unsigned long before = count;
    prepare();
    for (uint32_t threads = 1; threads <= 3; threads++) {
        pw_device_options options = {.struct_size = sizeof options, .threads = threads};
        pw_device *device = NULL;
        CLAIM(pw_device_open("cpu", 3, &options, &device, &error) == PW_OK && count > before);
        /* The device's threads have begun once one call was shared by them: two sequences are. */
        for (int i = 0; i < KERNELS; i++) {
            struct made *call = make(device, &kernels[i]);
            CLAIM(run(device, call) == PW_OK);
            unmake(call);
        }
        for (int i = 0; i < KERNELS; i++) {
            none(device, &kernels[i], 300);
            if (!kernels[i].rowwise) continue;
            struct kernel *tall = taller(&kernels[i], 200);
            none(device, tall, 10);
            untaller(tall);
        }
        pw_device_destroy(device);
    }
    puts("allocations: ok");
    return 0;
}
