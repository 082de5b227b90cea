#include "fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <new>

#include "sanitizers.h"

/* emulator_switch(void **save, void *load): the registers that a call must keep go to the
 * old stack, those of the new one come back. It ends in a jump: a `ret` would be predicted
 * to return to the old fiber's caller. */
asm(R"(
.text
.p2align 4
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch, @function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    popq %rcx
    jmpq *%rcx
.size emulator_switch, . - emulator_switch
)");

extern "C" void emulator_switch(void **save, void *load);

namespace emulator {

namespace {

constexpr size_t page_bytes = 4096;

/* Only touched pages cost memory. With the page below, one stack is an odd number of pages
 * from the next, so that their tops do not share sets of the second-level cache. */
constexpr size_t stack_bytes = 64 * page_bytes;

constexpr uint32_t saved_registers = 6;

} // namespace

Stacks::~Stacks() {
    for (Stack stack : stacks) {
        munmap(stack.bottom - page_bytes, stack.bytes + page_bytes);
    }
}

Stack Stacks::stack(uint32_t index) {
    while (stacks.size() <= index) {
        void *memory = mmap(nullptr, stack_bytes + page_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED || mprotect(memory, page_bytes, PROT_NONE) != 0) {
            throw std::bad_alloc();
        }
        stacks.push_back({static_cast<unsigned char *>(memory) + page_bytes, stack_bytes});
    }
    return stacks[index];
}

void Stacks::forget_frames() {
    for (Stack stack : stacks) {
        sanitizers::unmark(stack.bottom, stack.bytes);
    }
}

void prepare(Fiber &fiber, Stack stack, uint32_t index, void (*start)()) {
    size_t colour = index % 16 * 256;
    auto *top = reinterpret_cast<void **>(stack.bottom + stack.bytes - colour);
    *--top = nullptr; /* Where `start` would return to; it leaves the stack as a call does. */
    *--top = reinterpret_cast<void *>(start);
    for (uint32_t i = 0; i < saved_registers; i++) {
        *--top = nullptr;
    }
    fiber = {top, stack, nullptr};
}

Fiber calling_thread() {
    Fiber fiber;
    if constexpr (sanitizers::address) {
        pthread_attr_t attributes;
        void *bottom = nullptr;
        pthread_getattr_np(pthread_self(), &attributes);
        pthread_attr_getstack(&attributes, &bottom, &fiber.stack.bytes);
        pthread_attr_destroy(&attributes);
        fiber.stack.bottom = static_cast<unsigned char *>(bottom);
    }
    return fiber;
}

void switch_fiber(Fiber &from, Fiber &to) {
    sanitizers::switch_starts(&from.fake_stack, to.stack.bottom, to.stack.bytes);
    emulator_switch(&from.stack_pointer, to.stack_pointer);
    sanitizers::switch_ended(from.fake_stack);
}

void fiber_started() { sanitizers::switch_ended(nullptr); }

} // namespace emulator
