/* Pages, the sequences that have them and the prefixes that keep them: who holds what is
 * counted, and nothing that is refused changes it. */
#include "claim.h"
#include <stdint.h>

#define CAST(type, from) ((type *)(void *)(from))

enum { LEN = 4 };

static pw_pages *all(uint32_t count) {
    pw_pages *pages = NULL;
    CLAIM(pw_pages_create(count, LEN, &pages, &error) == PW_OK && pages);
    return pages;
}

static pw_pages_state state(const pw_pages *pages) {
    pw_pages_state state = {.struct_size = sizeof state};
    CLAIM(pw_pages_count(pages, &state, &error) == PW_OK && state.struct_size == sizeof state);
    return state;
}

static int are(const pw_pages *pages, uint32_t total, uint32_t free, uint32_t idle) {
    const pw_pages_state now = state(pages);
    return now.total == total && now.free == free && now.idle == idle;
}

static pw_table *table_of(pw_pages *pages, uint64_t tokens) {
    pw_table *table = NULL;
    uint32_t entry[5], copied = 7;
    CLAIM(pw_table_create(pages, &table, &error) == PW_OK && table);
    CLAIM(pw_table_grow(table, tokens, entry, &copied, &error) == PW_OK && copied == 0);
    return table;
}

static int has(const pw_table *table, uint32_t pages, uint64_t tokens) {
    pw_table_state state = {.struct_size = sizeof state};
    CLAIM(pw_table_count(table, &state, &error) == PW_OK);
    return state.pages == pages && state.tokens == tokens;
}

/* ---- pages ---------------------------------------------------------------------------- */

static void take_hold_release(void) {
    pw_pages *pages = all(4);
    uint32_t ids[5] = {77, 77, 77, 77, 77};
    CLAIM(are(pages, 4, 4, 0));
    CLAIM(pw_pages_take(pages, 5, ids, &error) == PW_E_PAGES && error.expected == 5 && error.got == 4 && names("pages"));
    CLAIM(ids[0] == 77 && are(pages, 4, 4, 0));
    CLAIM(pw_pages_take(pages, 3, ids, &error) == PW_OK && are(pages, 4, 1, 0) && ids[3] == 77);
    CLAIM(ids[0] < 4 && ids[1] < 4 && ids[2] < 4 && ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    const uint32_t free = 6 - ids[0] - ids[1] - ids[2];
    /* All or none: of what nobody holds, of what is no page, and of what is held too seldom. */
    const uint32_t wrong[][2] = {{ids[0], free}, {ids[0], 4}, {ids[0], PW_NONE}};
    for (int i = 0; i < 3; i++) {
        CLAIM(pw_pages_hold(pages, wrong[i], 2, &error) == PW_E_ARGUMENT && names("ids") && error.got == wrong[i][1]);
        CLAIM(pw_pages_release(pages, wrong[i], 2, &error) == PW_E_ARGUMENT && names("ids") && error.got == wrong[i][1]);
    }
    const uint32_t twice[] = {ids[1], ids[1], ids[1]};
    CLAIM(pw_pages_release(pages, twice, 2, &error) == PW_E_ARGUMENT && names("ids") && are(pages, 4, 1, 0));
    CLAIM(pw_pages_hold(pages, twice, 2, &error) == PW_OK && are(pages, 4, 1, 0));
    CLAIM(pw_pages_release(pages, twice, 2, &error) == PW_OK && are(pages, 4, 1, 0));
    CLAIM(pw_pages_release(pages, ids, 3, &error) == PW_OK && are(pages, 4, 4, 0));
    CLAIM(pw_pages_release(pages, ids, 1, &error) == PW_E_ARGUMENT && are(pages, 4, 4, 0));
    CLAIM(pw_pages_take(pages, 0, NULL, &error) == PW_OK && pw_pages_hold(pages, NULL, 0, &error) == PW_OK);
    CLAIM(pw_pages_release(pages, NULL, 0, &error) == PW_OK);

    /* What a sequence holds is not the caller's to let go of; what the caller holds beside it is. */
    pw_table *table = table_of(pages, 4);
    CLAIM(pw_table_ids(table, 0, 1, ids, &error) == PW_OK);
    CLAIM(pw_pages_release(pages, ids, 1, &error) == PW_E_ARGUMENT && names("ids") && are(pages, 4, 3, 0));
    CLAIM(pw_pages_hold(pages, ids, 1, &error) == PW_OK);
    pw_table_destroy(table);
    CLAIM(are(pages, 4, 3, 0) && pw_pages_release(pages, ids, 1, &error) == PW_OK && are(pages, 4, 4, 0));
    pw_pages_destroy(pages);
}

/* ---- tables --------------------------------------------------------------------------- */

static void grow_fork_shorten(void) {
    pw_pages *pages = all(4);
    pw_table *one = table_of(pages, 6), *two = NULL;
    uint32_t entry[5] = {9, 9, 9, 9, 9}, copied = 7, ids[4], other[4], slots[6][2];
    CLAIM(has(one, 2, 6) && are(pages, 4, 2, 0));
    /* All or none. */
    CLAIM(pw_table_grow(one, 11, entry, &copied, &error) == PW_E_PAGES && names("pages"));
    CLAIM(error.expected == 3 && error.got == 2 && copied == 7 && has(one, 2, 6) && are(pages, 4, 2, 0));
    CLAIM(pw_table_grow(one, 0, entry, &copied, &error) == PW_OK && copied == 0 && has(one, 2, 6));
    CLAIM(pw_table_fork(one, &two, &error) == PW_OK && has(two, 2, 6) && are(pages, 4, 2, 0));
    CLAIM(pw_table_ids(one, 0, 2, ids, &error) == PW_OK);

    /* The first to write copies the two tokens of the page that both have; the second need not. */
    CLAIM(pw_table_grow(two, 1, entry, &copied, &error) == PW_OK && copied == 1 && has(two, 2, 7));
    CLAIM(pw_table_ids(two, 0, 2, other, &error) == PW_OK && other[0] == ids[0] && other[1] != ids[1]);
    CLAIM(entry[0] == ids[1] && entry[1] == 0 && entry[2] == other[1] && entry[3] == 0 && entry[4] == 2);
    CLAIM(pw_table_grow(one, 1, entry, &copied, &error) == PW_OK && copied == 0 && are(pages, 4, 1, 0));

    CLAIM(pw_table_slots(two, 1, 6, &slots[0][0], &error) == PW_OK);
    for (uint32_t i = 0; i < 6; i++) CLAIM(slots[i][0] == other[(i + 1) / LEN] && slots[i][1] == (i + 1) % LEN);
    CLAIM(pw_table_slots(two, 2, 6, &slots[0][0], &error) == PW_E_ARGUMENT && names("count"));
    CLAIM(pw_table_slots(two, 8, 0, NULL, &error) == PW_E_ARGUMENT && names("first"));
    CLAIM(pw_table_slots(two, UINT64_MAX, 1, &slots[0][0], &error) == PW_E_ARGUMENT && names("first"));
    CLAIM(pw_table_ids(two, 1, 2, ids, &error) == PW_E_ARGUMENT && names("count"));
    CLAIM(pw_table_ids(two, 3, 0, NULL, &error) == PW_E_ARGUMENT && names("first"));
    CLAIM(pw_table_ids(two, 2, 0, NULL, &error) == PW_OK && pw_table_slots(two, 7, 0, NULL, &error) == PW_OK);
    CLAIM(pw_table_grow(one, UINT64_MAX, entry, &copied, &error) == PW_E_ARGUMENT && names("tokens"));
    CLAIM(pw_table_grow(one, 1ull << 40, entry, &copied, &error) == PW_E_PAGES && has(one, 2, 7));

    CLAIM(pw_table_shorten(two, 9, &error) == PW_OK && has(two, 2, 7));
    CLAIM(pw_table_shorten(two, 4, &error) == PW_OK && has(two, 1, 4) && are(pages, 4, 2, 0));
    CLAIM(pw_table_shorten(one, 0, &error) == PW_OK && has(one, 0, 0) && are(pages, 4, 3, 0));
    /* A page that is full is read by both and copied by none. */
    pw_table_destroy(one);
    CLAIM(pw_table_fork(two, &one, &error) == PW_OK);
    CLAIM(pw_table_grow(one, 1, entry, &copied, &error) == PW_OK && copied == 0);
    /* Shortened into it, it is copied before it is written again. */
    CLAIM(pw_table_shorten(one, 3, &error) == PW_OK);
    CLAIM(pw_table_grow(one, 1, entry, &copied, &error) == PW_OK && copied == 1 && entry[4] == 3);

    /* Pages may go before those who have some. */
    pw_pages_destroy(pages);
    CLAIM(pw_table_grow(one, 1, entry, &copied, &error) == PW_OK && has(one, 2, 5));
    pw_table_destroy(two);
    CLAIM(pw_table_grow(one, 8, entry, &copied, &error) == PW_OK && has(one, 4, 13));
    pw_table_destroy(one);
}

/* ---- prefixes ------------------------------------------------------------------------- */

static const uint32_t words[16] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20};

static pw_scope scope(void) { return (pw_scope){.struct_size = sizeof(pw_scope), .weights = 1}; }

/* How many pages are found of these tokens, and why there are no more. */
static uint32_t found(pw_prefixes *prefixes, const pw_scope *scope, uint32_t count, uint32_t why) {
    uint32_t pages = 0, idle = 0, miss = 0;
    pw_table *table = NULL;
    pw_table_state state = {.struct_size = sizeof state};
    CLAIM(pw_prefixes_probe(prefixes, scope, words, count, &pages, &idle, &error) == PW_OK);
    CLAIM(pw_prefixes_find(prefixes, scope, words, count, &table, &miss, &error) == PW_OK);
    CLAIM(pw_table_count(table, &state, &error) == PW_OK && state.pages == pages && state.tokens == pages * LEN);
    CLAIM(miss == why);
    pw_table_destroy(table);
    return pages;
}

static uint32_t publish(pw_prefixes *prefixes, const pw_scope *scope, uint32_t count, const pw_table *table) {
    uint32_t published = 77;
    CLAIM(pw_prefixes_publish(prefixes, scope, words, count, table, &published, &error) == PW_OK);
    return published;
}

static void find_and_publish(void) {
    pw_pages *pages = all(8);
    pw_prefixes *prefixes = NULL;
    CLAIM(pw_prefixes_create(pages, &prefixes, &error) == PW_OK);
    pw_scope ours = scope();
    pw_table *table = table_of(pages, 11), *second = NULL;
    uint32_t ids[3], same[3], miss = 0, count = 0, idle = 7, entry[5], copied = 7;
    CLAIM(found(prefixes, &ours, 16, PW_MISS_COLD) == 0 && found(prefixes, &ours, 3, PW_MISS_SHORT) == 0);
    /* Of eleven tokens two pages are full. */
    CLAIM(publish(prefixes, &ours, 11, table) == 2 && publish(prefixes, &ours, 11, table) == 0);
    CLAIM(are(pages, 8, 5, 0));
    CLAIM(pw_prefixes_find(prefixes, &ours, words, 11, &second, &miss, &error) == PW_OK && miss == PW_MISS_SHORT);
    CLAIM(pw_table_ids(table, 0, 3, ids, &error) == PW_OK && pw_table_ids(second, 0, 2, same, &error) == PW_OK);
    CLAIM(ids[0] == same[0] && ids[1] == same[1] && has(second, 2, 8));
    CLAIM(found(prefixes, &ours, 16, PW_MISS_COLD) == 2);

    /* Of what is there already, the first stays. */
    pw_table *again = table_of(pages, 12);
    CLAIM(publish(prefixes, &ours, 12, again) == 1 && are(pages, 8, 2, 0));
    pw_table_destroy(again);
    CLAIM(are(pages, 8, 4, 1));
    CLAIM(pw_prefixes_probe(prefixes, &ours, words, 12, &count, &idle, &error) == PW_OK && count == 3 && idle == 1);
    CLAIM(pw_prefixes_find(prefixes, &ours, words, 12, &again, NULL, &error) == PW_OK && has(again, 3, 12) && are(pages, 8, 4, 0));
    pw_table_destroy(again);

    /* Only as many tokens as the sequence has, and only of the same pages. */
    CLAIM(pw_prefixes_publish(prefixes, &ours, words, 16, table, &count, &error) == PW_E_ARGUMENT && names("count"));
    pw_pages *others = all(2);
    pw_table *theirs = table_of(others, 4);
    CLAIM(pw_prefixes_publish(prefixes, &ours, words, 4, theirs, &count, &error) == PW_E_ARGUMENT && names("table"));
    pw_table_destroy(theirs);
    pw_pages_destroy(others);

    /* Only idle pages go, the longest unused first, and the last of a prefix before those above it. */
    CLAIM(pw_prefixes_evict(prefixes, 8, &count, &error) == PW_OK && count == 1 && are(pages, 8, 5, 0));
    CLAIM(found(prefixes, &ours, 16, PW_MISS_EVICTED) == 2);
    pw_table_destroy(table);
    CLAIM(are(pages, 8, 6, 0));
    /* A page that others read is copied before it is written. */
    CLAIM(pw_table_shorten(second, 7, &error) == PW_OK);
    CLAIM(pw_table_grow(second, 1, entry, &copied, &error) == PW_OK && copied == 1 && entry[0] == ids[1] && entry[4] == 3);
    pw_table_destroy(second);
    CLAIM(are(pages, 8, 6, 2) && pw_prefixes_evict(prefixes, 1, &count, &error) == PW_OK && count == 1 && are(pages, 8, 7, 1));
    CLAIM(found(prefixes, &ours, 16, PW_MISS_EVICTED) == 1);
    CLAIM(pw_prefixes_evict(prefixes, 0, &count, &error) == PW_OK && count == 0);
    pw_prefixes_destroy(prefixes);
    CLAIM(are(pages, 8, 8, 0));
    pw_pages_destroy(pages);
}

static void scopes(void) {
    pw_pages *pages = all(64);
    pw_prefixes *prefixes = NULL;
    CLAIM(pw_prefixes_create(pages, &prefixes, &error) == PW_OK);
    static const uint8_t salts[] = "onetwo";
    const struct { pw_scope scope; uint32_t why; } rows[] = {
        {{.struct_size = sizeof(pw_scope), .weights = 1}, PW_MISS_COLD},
        {{.struct_size = sizeof(pw_scope), .weights = 1, .salt = salts, .salt_bytes = 3}, PW_MISS_SALT},
        {{.struct_size = sizeof(pw_scope), .weights = 1, .salt = salts + 3, .salt_bytes = 3}, PW_MISS_SALT},
        {{.struct_size = sizeof(pw_scope), .weights = 2}, PW_MISS_VERSION},
        {{.struct_size = sizeof(pw_scope), .weights = 1, .adapter = 1}, PW_MISS_VERSION},
        {{.struct_size = sizeof(pw_scope), .weights = 1, .adapter = 1, .adapter_version = 2}, PW_MISS_VERSION}};
    enum { SCOPES = sizeof rows / sizeof *rows };
    /* What is in one scope is not found under another, and is told why. */
    for (int i = 0; i < SCOPES; i++) {
        CLAIM(found(prefixes, &rows[i].scope, 8, rows[i].why) == 0);
        pw_table *table = table_of(pages, 8);
        CLAIM(publish(prefixes, &rows[i].scope, 8, table) == 2);
        pw_table_destroy(table);
        for (int j = 0; j <= i; j++) CLAIM(found(prefixes, &rows[j].scope, 8, PW_MISS_SHORT) == 2);
    }
    CLAIM(are(pages, 64, 64 - 2 * SCOPES, 2 * SCOPES));
    /* The salt's bytes are what counts, not where they are. */
    uint8_t moved[3] = {'o', 'n', 'e'};
    pw_scope elsewhere = rows[1].scope;
    elsewhere.salt = moved;
    CLAIM(found(prefixes, &elsewhere, 8, PW_MISS_SHORT) == 2);

    const struct { int like; uint32_t same; uint32_t left; } forgotten[] = {
        {1, PW_SAME_SALT | PW_SAME_WEIGHTS, SCOPES - 1}, {1, PW_SAME_SALT, SCOPES - 1}, {4, PW_SAME_ADAPTER | PW_SAME_ADAPTER_VERSION, SCOPES - 2},
        {4, PW_SAME_ADAPTER, SCOPES - 3}, {3, PW_SAME_WEIGHTS, SCOPES - 4}, {3, 0, 0}};
    for (size_t i = 0; i < sizeof forgotten / sizeof *forgotten; i++) {
        CLAIM(pw_prefixes_forget(prefixes, &rows[forgotten[i].like].scope, forgotten[i].same, &error) == PW_OK);
        CLAIM(are(pages, 64, 64 - 2 * forgotten[i].left, 2 * forgotten[i].left));
    }
    CLAIM(found(prefixes, &rows[0].scope, 8, PW_MISS_COLD) == 0);
    CLAIM(pw_prefixes_forget(prefixes, &rows[0].scope, 16, &error) == PW_E_ARGUMENT && names("same"));

    /* What was published before a sequence goes stays its own, and any order of ends will do. */
    pw_table *table = table_of(pages, 8);
    CLAIM(publish(prefixes, &rows[0].scope, 8, table) == 2);
    pw_pages_destroy(pages);
    CLAIM(found(prefixes, &rows[0].scope, 8, PW_MISS_SHORT) == 2);
    pw_prefixes_destroy(prefixes);
    CLAIM(has(table, 2, 8));
    pw_table_destroy(table);
}

/* ---- what no caller should send -------------------------------------------------------- */

static void nulls(void) {
    pw_pages *pages = all(8), *none = NULL;
    pw_table *table = table_of(pages, 4), *nothing = NULL;
    pw_prefixes *prefixes = NULL;
    pw_scope ours = scope();
    uint32_t ids[8], number = 7, entry[5];
    pw_pages_state state = {.struct_size = sizeof state};
    pw_table_state size = {.struct_size = sizeof size};
    CLAIM(pw_prefixes_create(pages, &prefixes, &error) == PW_OK);
    CLAIM(pw_pages_create(1, 1, NULL, &error) == PW_E_NULL && names("created"));
    CLAIM(pw_pages_create(0, 1, &none, &error) == PW_E_ARGUMENT && names("pages") && none == NULL);
    CLAIM(pw_pages_create(0x80000001, 1, &none, &error) == PW_E_ARGUMENT && names("pages"));
    CLAIM(pw_pages_create(1, 0, &none, &error) == PW_E_ARGUMENT && names("page_len"));
    CLAIM(pw_pages_create(1, 65537, &none, &error) == PW_E_ARGUMENT && names("page_len") && error.expected == 65536);
    CLAIM(pw_pages_count(pages, NULL, &error) == PW_E_NULL && names("state"));
    state.struct_size = 8;
    CLAIM(pw_pages_count(pages, &state, &error) == PW_E_SIZE && names("state"));
    CLAIM(pw_pages_take(pages, 1, NULL, &error) == PW_E_NULL && names("ids"));
    CLAIM(pw_pages_hold(pages, NULL, 1, &error) == PW_E_NULL && names("ids"));
    CLAIM(pw_pages_release(pages, NULL, 1, &error) == PW_E_NULL && names("ids"));
    CLAIM(pw_table_create(pages, NULL, &error) == PW_E_NULL && names("table"));
    CLAIM(pw_table_grow(table, 1, NULL, &number, &error) == PW_E_NULL && names("entry"));
    CLAIM(pw_table_grow(table, 1, entry, NULL, &error) == PW_E_NULL && names("copied") && has(table, 1, 4));
    CLAIM(pw_table_fork(table, NULL, &error) == PW_E_NULL && names("fork"));
    CLAIM(pw_table_count(table, NULL, &error) == PW_E_NULL && names("state"));
    size.struct_size = 0;
    CLAIM(pw_table_count(table, &size, &error) == PW_E_SIZE && names("state"));
    CLAIM(pw_table_ids(table, 0, 1, NULL, &error) == PW_E_NULL && names("ids"));
    CLAIM(pw_table_slots(table, 0, 1, NULL, &error) == PW_E_NULL && names("slots"));
    CLAIM(pw_prefixes_create(pages, NULL, &error) == PW_E_NULL && names("prefixes"));
    CLAIM(pw_prefixes_find(prefixes, NULL, words, 4, &nothing, &number, &error) == PW_E_NULL && names("scope"));
    CLAIM(pw_prefixes_find(prefixes, &ours, NULL, 4, &nothing, &number, &error) == PW_E_NULL && names("tokens"));
    CLAIM(pw_prefixes_find(prefixes, &ours, words, 4, NULL, &number, &error) == PW_E_NULL && names("table"));
    CLAIM(pw_prefixes_probe(prefixes, &ours, words, 4, NULL, &number, &error) == PW_E_NULL && names("pages"));
    CLAIM(pw_prefixes_probe(prefixes, &ours, words, 4, &number, NULL, &error) == PW_E_NULL && names("idle") && number == 7);
    CLAIM(pw_prefixes_publish(prefixes, &ours, NULL, 4, table, &number, &error) == PW_E_NULL && names("tokens"));
    CLAIM(pw_prefixes_publish(prefixes, &ours, words, 4, NULL, &number, &error) == PW_E_NULL && names("table"));
    CLAIM(pw_prefixes_publish(prefixes, &ours, words, 4, table, NULL, &error) == PW_E_NULL && names("published"));
    CLAIM(pw_prefixes_evict(prefixes, 1, NULL, &error) == PW_E_NULL && names("freed"));
    CLAIM(pw_prefixes_forget(prefixes, NULL, 0, &error) == PW_E_NULL && names("scope"));
    CLAIM(nothing == NULL && are(pages, 8, 7, 0));
    ours.struct_size = 4;
    CLAIM(pw_prefixes_find(prefixes, &ours, words, 4, &nothing, NULL, &error) == PW_E_SIZE && names("scope"));
    ours = scope();
    ours.salt_bytes = 3;
    CLAIM(pw_prefixes_find(prefixes, &ours, words, 4, &nothing, NULL, &error) == PW_E_NULL && names("salt"));
    ours.salt_bytes = 65537;
    CLAIM(pw_prefixes_find(prefixes, &ours, words, 4, &nothing, NULL, &error) == PW_E_ARGUMENT && names("salt_bytes"));
    CLAIM(pw_pages_take(pages, 1, CAST(uint32_t, (char *)ids + 2), &error) == PW_E_ALIGN && names("ids"));

    /* A handle of nothing, of another kind, and one that was destroyed; each before any other fault. */
    pw_pages *gone = all(1);
    pw_table *ended = table_of(pages, 4);
    pw_prefixes *forgotten = NULL;
    CLAIM(pw_prefixes_create(pages, &forgotten, &error) == PW_OK);
    pw_pages_destroy(gone);
    pw_table_destroy(ended);
    pw_prefixes_destroy(forgotten);
    /* Others come where they were, and are not they. */
    pw_pages *next = all(1);
    pw_table *follows = table_of(next, 4);
    CLAIM(next != gone && follows != ended);
    void *wrong[] = {NULL, gone, ended, forgotten, (void *)(uintptr_t)64, (void *)UINTPTR_MAX, &ours, pages, table, prefixes};
    enum { WRONG = sizeof wrong / sizeof *wrong };
    for (int i = 0; i < WRONG; i++) {
        const pw_status as = wrong[i] ? PW_E_STALE : PW_E_NULL;
        if (wrong[i] != pages) {
            pw_pages *it = wrong[i];
            CLAIM(pw_pages_count(it, NULL, &error) == as && names("pages"));
            CLAIM(pw_pages_take(it, 1, NULL, &error) == as && names("pages"));
            CLAIM(pw_pages_hold(it, NULL, 1, &error) == as && names("pages"));
            CLAIM(pw_pages_release(it, NULL, 1, &error) == as && names("pages"));
            CLAIM(pw_table_create(it, NULL, &error) == as && names("pages"));
            CLAIM(pw_prefixes_create(it, NULL, &error) == as && names("pages"));
            pw_pages_destroy(it);
        }
        if (wrong[i] != table) {
            pw_table *it = wrong[i];
            CLAIM(pw_table_grow(it, 1, NULL, NULL, &error) == as && names("table"));
            CLAIM(pw_table_fork(it, NULL, &error) == as && names("table"));
            CLAIM(pw_table_shorten(it, 1, &error) == as && names("table"));
            CLAIM(pw_table_count(it, NULL, &error) == as && names("table"));
            CLAIM(pw_table_ids(it, 0, 1, NULL, &error) == as && names("table"));
            CLAIM(pw_table_slots(it, 0, 1, NULL, &error) == as && names("table"));
            CLAIM(pw_prefixes_publish(prefixes, NULL, NULL, 1, it, NULL, &error) == as && names("table"));
            pw_table_destroy(it);
        }
        if (wrong[i] != prefixes) {
            pw_prefixes *it = wrong[i];
            CLAIM(pw_prefixes_find(it, NULL, NULL, 1, NULL, NULL, &error) == as && names("prefixes"));
            CLAIM(pw_prefixes_probe(it, NULL, NULL, 1, NULL, NULL, &error) == as && names("prefixes"));
            CLAIM(pw_prefixes_publish(it, NULL, NULL, 1, table, NULL, &error) == as && names("prefixes"));
            CLAIM(pw_prefixes_evict(it, 1, NULL, &error) == as && names("prefixes"));
            CLAIM(pw_prefixes_forget(it, NULL, 0, &error) == as && names("prefixes"));
            pw_prefixes_destroy(it);
        }
    }
    CLAIM(are(pages, 8, 7, 0) && has(table, 1, 4) && has(follows, 1, 4));
    pw_table_destroy(follows);
    pw_pages_destroy(next);
    pw_prefixes_destroy(prefixes);
    pw_table_destroy(table);
    CLAIM(are(pages, 8, 8, 0));
    pw_pages_destroy(pages);
}

/* ---- a walk ---------------------------------------------------------------------------- */

enum { SEQUENCES = 12, LONGEST = 40, HELD = 24, TOTAL = 48 };

static uint32_t dice(uint32_t sides) {
    static uint64_t seed = 0x9e3779b97f4a7c15;
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % sides;
}

/* Whatever is done in whatever order, nobody loses a page, and in the end all are free. */
static void a_walk(void) {
    pw_pages *pages = all(TOTAL);
    pw_prefixes *prefixes = NULL;
    CLAIM(pw_prefixes_create(pages, &prefixes, &error) == PW_OK);
    struct { pw_table *table; uint32_t count, tokens[LONGEST]; } all_of[SEQUENCES] = {0};
    uint32_t held[HELD], holds = 0, entry[5], copied, number;
    static uint32_t seen[TOTAL];
    for (int round = 0; round < 6000; round++) {
        const uint32_t at = dice(SEQUENCES), now = dice(10);
        pw_table **table = &all_of[at].table;
        pw_scope ours = scope();
        ours.weights = dice(2);
        if (now == 0 && *table) {
            pw_table_destroy(*table);
            *table = NULL;
        } else if (now <= 2 && !*table) {
            /* Few tokens, so that prefixes are alike. */
            const uint32_t count = dice(LONGEST / 2);
            for (uint32_t i = 0; i < count; i++) all_of[at].tokens[i] = dice(2) && i % LEN == 0;
            pw_table_state state = {.struct_size = sizeof state};
            CLAIM(pw_prefixes_find(prefixes, &ours, all_of[at].tokens, count, table, &number, &error) == PW_OK);
            CLAIM(pw_table_count(*table, &state, &error) == PW_OK && state.tokens <= count && state.tokens % LEN == 0);
            all_of[at].count = (uint32_t)state.tokens;
        } else if (now == 3 && *table) {
            const uint32_t more = dice(LONGEST - all_of[at].count + 1), before = state(pages).free;
            const pw_status status = pw_table_grow(*table, more, entry, &copied, &error);
            CLAIM(status == PW_OK || (status == PW_E_PAGES && state(pages).free == before && error.got == before));
            if (status == PW_OK)
                for (uint32_t i = 0; i < more; i++) all_of[at].tokens[all_of[at].count++] = dice(2);
        } else if (now == 4 && *table) {
            all_of[at].count = dice(all_of[at].count + 1);
            CLAIM(pw_table_shorten(*table, all_of[at].count, &error) == PW_OK);
        } else if (now == 5 && *table) {
            const uint32_t to = dice(SEQUENCES);
            if (all_of[to].table) continue;
            all_of[to] = all_of[at];
            CLAIM(pw_table_fork(*table, &all_of[to].table, &error) == PW_OK);
        } else if (now == 6 && *table) {
            CLAIM(pw_prefixes_publish(prefixes, &ours, all_of[at].tokens, all_of[at].count, *table, &number, &error) == PW_OK);
        } else if (now == 7) {
            const pw_pages_state before = state(pages);
            const uint32_t wanted = dice(4);
            CLAIM(pw_prefixes_evict(prefixes, wanted, &number, &error) == PW_OK && number <= wanted);
            CLAIM(are(pages, TOTAL, before.free + number, before.idle - number));
            /* An idle page that others stand on, which are in use, has to stay. */
            CLAIM(number == wanted || (pw_prefixes_evict(prefixes, 1, &number, &error) == PW_OK && number == 0));
        } else if (now == 8) {
            if (dice(2) && holds < HELD) {
                const pw_status status = pw_pages_take(pages, 1, &held[holds], &error);
                CLAIM(status == PW_OK || (status == PW_E_PAGES && state(pages).free == 0));
                holds += status == PW_OK;
            } else if (holds) {
                CLAIM(pw_pages_release(pages, &held[--holds], 1, &error) == PW_OK);
            }
        } else if (now == 9 && dice(20) == 0) {
            CLAIM(pw_prefixes_forget(prefixes, &ours, dice(2) ? PW_SAME_WEIGHTS : PW_SAME_WEIGHTS | PW_SAME_SALT, &error) == PW_OK);
        }
        /* Pages that somebody holds, prefixes apart, are as many as are neither free nor idle. */
        uint32_t used = 0, ids[LONGEST];
        memset(seen, 0, sizeof seen);
        for (uint32_t i = 0; i < holds; i++) used += !seen[held[i]]++;
        for (int i = 0; i < SEQUENCES; i++) {
            if (!all_of[i].table) continue;
            const uint32_t count = (all_of[i].count + LEN - 1) / LEN;
            CLAIM(has(all_of[i].table, count, all_of[i].count));
            CLAIM(pw_table_ids(all_of[i].table, 0, count, ids, &error) == PW_OK);
            for (uint32_t j = 0; j < count; j++) {
                CLAIM(ids[j] < TOTAL);
                used += !seen[ids[j]]++;
            }
        }
        const pw_pages_state now_are = state(pages);
        CLAIM(now_are.free + now_are.idle + used == TOTAL);
    }
    for (int i = 0; i < SEQUENCES; i++) pw_table_destroy(all_of[i].table);
    CLAIM(pw_pages_release(pages, held, holds, &error) == PW_OK);
    const pw_pages_state left = state(pages);
    CLAIM(left.free + left.idle == TOTAL);
    CLAIM(pw_prefixes_evict(prefixes, TOTAL, &number, &error) == PW_OK && number == left.idle && are(pages, TOTAL, TOTAL, 0));
    pw_prefixes_destroy(prefixes);
    pw_pages_destroy(pages);
}

int main(void) {
    take_hold_release();
    grow_fork_shorten();
    find_and_publish();
    scopes();
    nulls();
    a_walk();
    puts("pages: ok");
    return 0;
}
