/* `run` allocates nothing: the library finds these in place of its own, and they count. */
#include "../call.h"
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

int main(void) {
    const unsigned long before = count;
    pw_device_options options = {.struct_size = sizeof options, .threads = 2};
    pw_device *device = NULL;
    CLAIM(pw_device_open("cpu", 3, &options, &device, &error) == PW_OK);
    CLAIM(count > before);
    struct call *call = make(device);
    CLAIM(plan(device, call) == PW_OK && run(device, call) == PW_OK);
    const unsigned long made = count;
    for (int i = 0; i < 1000; i++) CLAIM(plan(device, call) == PW_OK && run(device, call) == PW_OK);
    CLAIM(count == made);
    /* Nor does a call that is refused. */
    call->args.q = NULL;
    CLAIM(run(device, call) == PW_E_NULL && count == made);
    unmake(call);
    pw_device_destroy(device);
    puts("allocations: ok");
    return 0;
}
