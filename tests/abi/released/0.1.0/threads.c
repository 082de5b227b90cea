/* Handles from many threads at once: what the header lets any thread use, what is destroyed
 * while another is at it, and what is stale to whoever comes late. */
#include "cases.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

enum { THREADS = 3 };

static void at_once(int count, void *(*work)(void *), void *with) {
    pthread_t threads[2 * THREADS];
    for (int i = 0; i < count; i++) pthread_create(&threads[i], NULL, work, with);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

static pw_device *opened(uint32_t threads) {
    pw_device *device = NULL;
    const pw_device_options options = {.struct_size = sizeof options, .threads = threads};
    CLAIM(pw_device_open("cpu", 3, &options, &device, &error) == PW_OK);
    return device;
}

/* ---- one device, many calls -------------------------------------------------------------- */

/* Every kernel, with a plan and a workspace of this thread's own. */
static void *all_kernels(void *device) {
    for (int i = 0; i < KERNELS; i++) {
        struct made *call = make(device, &kernels[i]);
        for (int round = 0; round < 5; round++) {
            fill(call);
            CLAIM(plan(device, call, &kernels[i].whole) == PW_OK && run(device, call) == PW_OK);
            kernels[i].answer(call);
        }
        unmake(call);
    }
    return NULL;
}

/* A plan may be read by many; buffers, workspace and all else are each one's own. */
static void *of_one_plan(void *of) {
    const struct made *theirs = ((void **)of)[0];
    const pw_device *device = ((void **)of)[1];
    struct made *call = make(device, theirs->kernel);
    run_of(call)->plan = theirs->plan;
    for (int round = 0; round < 10; round++) {
        fill(call);
        CLAIM(run(device, call) == PW_OK);
        call->kernel->answer(call);
    }
    unmake(call);
    return NULL;
}

static void one_device(void) {
    pw_device *device = opened(2);
    at_once(2, all_kernels, device);
    for (int i = 0; i < KERNELS; i++) {
        struct made *call = make(device, &kernels[i]);
        void *both[] = {call, device};
        at_once(2, of_one_plan, both);
        unmake(call);
    }
    pw_device_destroy(device);
}

/* ---- destroyed meanwhile ----------------------------------------------------------------- */

/* What others destroy now and then, under a number of its own. */
struct shared {
    _Atomic(void *) handle;
    atomic_int left, served, stale;
};

/* Whether it was there: a call is served whole, or refused for it alone. */
static int there(struct shared *of, pw_status status) {
    CLAIM(status == PW_OK || status == PW_E_STALE || status == PW_E_PAGES || status == PW_E_BUSY || status == PW_E_ARGUMENT);
    atomic_fetch_add(status == PW_E_STALE ? &of->stale : &of->served, 1);
    return status != PW_E_STALE;
}

static void *uses_devices(void *with) {
    struct shared *of = with;
    /* Its needs are those of any device with as many threads. */
    pw_device *own = opened(2);
    struct made *calls[KERNELS];
    for (int i = 0; i < KERNELS; i++) calls[i] = make(own, &kernels[i]);
    for (int i = 0; atomic_load(&of->left) > 0; i = (i + 1) % KERNELS) {
        fill(calls[i]);
        if (there(of, run(atomic_load(&of->handle), calls[i]))) kernels[i].answer(calls[i]);
        const char *numerics = pw_device_numerics(atomic_load(&of->handle));
        CLAIM(!numerics || strlen(numerics) > 0);
    }
    for (int i = 0; i < KERNELS; i++) unmake(calls[i]);
    pw_device_destroy(own);
    return NULL;
}

static void *uses_pages(void *with) {
    struct shared *of = with;
    while (atomic_load(&of->left) > 0) {
        pw_pages *pages = atomic_load(&of->handle);
        pw_pages_state state = {.struct_size = sizeof state};
        uint32_t ids[3], entry[5], copied, number;
        pw_table *table = NULL, *fork = NULL;
        pw_prefixes *prefixes = NULL;
        const pw_scope scope = {.struct_size = sizeof scope};
        if (there(of, pw_pages_count(pages, &state, &error))) CLAIM(state.free + state.idle <= state.total && state.total == 64);
        const pw_status taken = pw_pages_take(pages, 3, ids, &error);
        there(of, taken);
        /* What a table has of pages that others destroyed stays. */
        if (there(of, pw_table_create(pages, &table, &error)) && pw_table_grow(table, 9, entry, &copied, &error) == PW_OK) {
            CLAIM(pw_table_fork(table, &fork, &error) == PW_OK && pw_table_ids(fork, 0, 3, ids, &error) == PW_OK);
            if (there(of, pw_prefixes_create(pages, &prefixes, &error)))
                /* The same tokens may be there of other threads' pages, but not in this index. */
                CLAIM(pw_prefixes_publish(prefixes, &scope, lora_ranks, 1, table, &number, &error) == PW_OK && number == 0);
        }
        if (taken == PW_OK) there(of, pw_pages_release(pages, ids, 0, &error));
        pw_table_destroy(table);
        pw_prefixes_destroy(prefixes);
        pw_table_destroy(fork);
    }
    return NULL;
}

static void *uses_prefixes(void *with) {
    struct shared *of = with;
    const uint32_t tokens[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const pw_scope scope = {.struct_size = sizeof scope};
    uint32_t number = 0, idle = 0;
    while (atomic_load(&of->left) > 0) {
        pw_prefixes *prefixes = atomic_load(&of->handle);
        pw_table *table = NULL;
        pw_table_state state = {.struct_size = sizeof state};
        if (!there(of, pw_prefixes_find(prefixes, &scope, tokens, 8, &table, NULL, &error))) continue;
        uint32_t entry[5], copied = 0;
        CLAIM(pw_table_count(table, &state, &error) == PW_OK && state.tokens % 4 == 0 && state.tokens <= 8);
        if (pw_table_grow(table, 8 - state.tokens, entry, &copied, &error) == PW_OK)
            there(of, pw_prefixes_publish(prefixes, &scope, tokens, 8, table, &number, &error));
        pw_table_destroy(table);
        there(of, pw_prefixes_probe(prefixes, &scope, tokens, 8, &number, &idle, &error));
        there(of, pw_prefixes_evict(prefixes, 1, &number, &error));
        there(of, pw_prefixes_forget(prefixes, &scope, PW_SAME_WEIGHTS, &error));
    }
    return NULL;
}

/* A table is for one thread at a time; where two mistake, each call is whole all the same. */
static void *uses_tables(void *with) {
    struct shared *of = with;
    while (atomic_load(&of->left) > 0) {
        pw_table *table = atomic_load(&of->handle), *fork = NULL;
        uint32_t entry[5], copied;
        pw_table_state state = {.struct_size = sizeof state};
        there(of, pw_table_grow(table, 3, entry, &copied, &error));
        there(of, pw_table_count(table, &state, &error));
        there(of, pw_table_fork(table, &fork, &error));
        there(of, pw_table_shorten(table, 2, &error));
        pw_table_destroy(fork);
    }
    return NULL;
}

static pw_pages *slab;

static void *a_device(void) { return opened(2); }
static void *some_pages(void) {
    pw_pages *pages = NULL;
    CLAIM(pw_pages_create(64, 4, &pages, &error) == PW_OK);
    return pages;
}
static void *an_index(void) {
    pw_prefixes *prefixes = NULL;
    CLAIM(pw_prefixes_create(slab, &prefixes, &error) == PW_OK);
    return prefixes;
}
static void *a_table(void) {
    pw_table *table = NULL;
    CLAIM(pw_table_create(slab, &table, &error) == PW_OK);
    return table;
}
static void end_device(void *it) { pw_device_destroy(it); }
static void end_pages(void *it) { pw_pages_destroy(it); }
static void end_index(void *it) { pw_prefixes_destroy(it); }
static void end_table(void *it) { pw_table_destroy(it); }

/* The object stays until those who are at it have done; then whoever comes is told. */
static void meanwhile(void *(*work)(void *), void *(*begin)(void), void (*end)(void *), int times) {
    struct shared of = {.left = times};
    atomic_store(&of.handle, begin());
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, work, &of);
    int served = -1;
    while (atomic_load(&of.left) > 0) {
        /* Each has its time: who is destroyed was used. */
        if (atomic_load(&of.served) <= served + 3) {
            sched_yield();
            continue;
        }
        void *old = atomic_load(&of.handle);
        end(old);
        end(old);
        const int stale = atomic_load(&of.stale);
        while ((times - atomic_load(&of.left)) % 3 == 0 && atomic_load(&of.stale) == stale) sched_yield();
        atomic_store(&of.handle, begin());
        served = atomic_load(&of.served);
        atomic_fetch_sub(&of.left, 1);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    CLAIM(atomic_load(&of.served) > 0 && atomic_load(&of.stale) > 0);
    end(atomic_load(&of.handle));
}

/* ---- conserved --------------------------------------------------------------------------- */

/* Many take and let go of one slab; in the end all of it is free. */
static void *takes(void *pages) {
    for (int round = 0; round < 200; round++) {
        uint32_t ids[5], entry[5], copied;
        pw_table *table = NULL, *fork = NULL;
        if (pw_pages_take(pages, 5, ids, &error) == PW_OK) CLAIM(pw_pages_release(pages, ids, 5, &error) == PW_OK);
        CLAIM(pw_table_create(pages, &table, &error) == PW_OK);
        if (pw_table_grow(table, 10, entry, &copied, &error) == PW_OK) {
            CLAIM(pw_table_fork(table, &fork, &error) == PW_OK);
            const pw_status status = pw_table_grow(fork, 1, entry, &copied, &error);
            CLAIM(status == PW_E_PAGES || (status == PW_OK && copied == 1));
        }
        pw_table_destroy(table);
        pw_table_destroy(fork);
    }
    return NULL;
}

/* ---- grammars ---------------------------------------------------------------------------- */

static uint8_t letters[256];

static void *a_vocabulary(void) {
    static uint64_t starts[257];
    for (uint64_t i = 0; i < 256; i++) letters[i] = (uint8_t)i, starts[i + 1] = i + 1;
    const pw_vocabulary of = {.struct_size = sizeof of, .tokens = 256, .bytes = letters, .starts = starts};
    pw_grammars *grammars = NULL;
    CLAIM(pw_grammars_create(&of, NULL, &grammars, &error) == PW_OK);
    return grammars;
}
static void end_grammars(void *it) { pw_grammars_destroy(it); }

static void *uses_grammars(void *with) {
    struct shared *of = with;
    while (atomic_load(&of->left) > 0) {
        pw_matcher *text = NULL, *fork = NULL;
        uint32_t words[8], late = 0;
        pw_status status;
        if (!there(of, pw_matcher_create(atomic_load(&of->handle), PW_SOURCE_REGEX, "[b-d]+", 6, &text, &error))) continue;
        if (!text) continue;
        CLAIM(pw_matcher_fork(text, &fork, &error) == PW_OK);
        CLAIM(pw_masker_masks(NULL, (pw_matcher *[]){text, fork}, 1, 0, words, 8, &status, &late, &error) == PW_OK && status == PW_OK);
        CLAIM(words[3] == (7u << ('b' - 96)));
        pw_matcher_destroy(text);
        pw_matcher_destroy(fork);
    }
    return NULL;
}

static void *a_masker(void) {
    pw_masker *masker = NULL;
    CLAIM(pw_masker_create(1, &masker, &error) == PW_OK);
    return masker;
}
static void end_masker(void *it) { pw_masker_destroy(it); }
static pw_grammars *vocabulary;

static void *uses_maskers(void *with) {
    struct shared *of = with;
    pw_matcher *texts[4];
    uint32_t words[4][8];
    pw_status statuses[4];
    for (int i = 0; i < 4; i++) CLAIM(pw_matcher_create(vocabulary, PW_SOURCE_REGEX, "[b-d]+", 6, &texts[i], &error) == PW_OK);
    for (uint32_t round = 0; atomic_load(&of->left) > 0; round++) {
        if (!there(of, pw_masker_masks(atomic_load(&of->handle), texts, 4, round % 3, words[0], 8, statuses, NULL, &error))) continue;
        for (int i = 0; i < 4; i++) CLAIM(statuses[i] == PW_E_BUSY || (statuses[i] == PW_OK && words[i][3] == (7u << ('b' - 96))));
    }
    for (int i = 0; i < 4; i++) pw_matcher_destroy(texts[i]);
    return NULL;
}

static void *a_text(void) {
    pw_matcher *text = NULL;
    CLAIM(pw_matcher_create(vocabulary, PW_SOURCE_REGEX, "[b-d]+", 6, &text, &error) == PW_OK);
    return text;
}
static void end_text(void *it) { pw_matcher_destroy(it); }

/* A text is for one thread at a time, too. */
static void *uses_texts(void *with) {
    struct shared *of = with;
    const uint32_t tokens[] = {'b', 'c'};
    while (atomic_load(&of->left) > 0) {
        pw_matcher *text = atomic_load(&of->handle);
        uint32_t words[8];
        if (there(of, pw_matcher_mask(text, words, 8, &error))) CLAIM(words[3] == (7u << ('b' - 96)));
        there(of, pw_matcher_accept(text, tokens, 2, &error));
        there(of, pw_matcher_take_back(text, 2, &error));
    }
    return NULL;
}

int main(void) {
    /* Whoever waits for good is told from whoever is slow. */
    alarm(300);
    prepare();
    slab = some_pages();
    vocabulary = a_vocabulary();
    one_device();
    meanwhile(uses_devices, a_device, end_device, 9);
    meanwhile(uses_pages, some_pages, end_pages, 9);
    meanwhile(uses_prefixes, an_index, end_index, 9);
    meanwhile(uses_tables, a_table, end_table, 9);
    /* A vocabulary takes its time to be read: once will do. */
    meanwhile(uses_grammars, a_vocabulary, end_grammars, 1);
    meanwhile(uses_maskers, a_masker, end_masker, 9);
    meanwhile(uses_texts, a_text, end_text, 9);
    at_once(THREADS, takes, slab);
    pw_pages_state state = {.struct_size = sizeof state};
    CLAIM(pw_pages_count(slab, &state, &error) == PW_OK && state.free == state.total && state.idle == 0);
    pw_pages_destroy(slab);
    pw_grammars_destroy(vocabulary);
    puts("threads: ok");
    return 0;
}
