/* Grammars and matchers: what they allow, what they refuse, and that nothing brings the
 * process down. The vocabulary is the 256 bytes, a name and an end. */
#include "claim.h"
#include <pthread.h>

enum { NAME = 256, END = 257, TOKENS = 258, WORDS = (TOKENS + 31) / 32 };

static const char *const NAMES = "<|tool|><|end|>";
static uint8_t bytes[256 + 15];
static uint64_t starts[TOKENS + 1];
static const uint32_t special[] = {NAME, END}, ends[] = {END};

static pw_vocabulary vocabulary(void) {
    for (int i = 0; i < 256; i++) bytes[i] = (uint8_t)i;
    memcpy(bytes + 256, NAMES, 15);
    for (uint64_t i = 0; i <= 256; i++) starts[i] = i;
    starts[257] = 256 + 8;
    starts[258] = 256 + 15;
    return (pw_vocabulary){.struct_size = sizeof(pw_vocabulary), .tokens = TOKENS, .bytes = bytes, .starts = starts,
                           .special = special, .ends = ends, .special_count = 2, .end_count = 1};
}

static pw_matcher *begin(pw_grammars *grammars, uint32_t kind, const char *source) {
    pw_matcher *matcher = NULL;
    CLAIM(pw_matcher_create(grammars, kind, source, strlen(source), &matcher, &error) == PW_OK && matcher);
    return matcher;
}

static pw_status refused(pw_grammars *grammars, uint32_t kind, const char *source) {
    pw_matcher *matcher = NULL;
    pw_status status = pw_matcher_create(grammars, kind, source, strlen(source), &matcher, &error);
    CLAIM(status == error.status && matcher == NULL && error.message[0] != 0);
    return status;
}

static int has(const uint32_t *words, uint32_t token) { return words[token / 32] >> token % 32 & 1; }

static int count(const uint32_t *words) {
    int all = 0;
    for (uint32_t token = 0; token < TOKENS; token++) all += has(words, token);
    return all;
}

static pw_status accept(pw_matcher *matcher, const char *text) {
    uint32_t tokens[64];
    for (size_t i = 0; i < strlen(text); i++) tokens[i] = (uint8_t)text[i];
    return pw_matcher_accept(matcher, tokens, (uint32_t)strlen(text), &error);
}

static void a_text(pw_grammars *grammars) {
    pw_matcher *text = begin(grammars, PW_SOURCE_COMPACT,
                             "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":10,"
                             "\"maximum\":99}},\"required\":[\"a\"],\"additionalProperties\":false}");
    uint32_t words[WORDS + 1], forced[16], many = 0, may = 7;
    CLAIM(pw_matcher_forced(text, forced, 16, &many, &error) == PW_OK && many == 5);
    for (int i = 0; i < 5; i++) CLAIM(forced[i] == (uint8_t)"{\"a\":"[i]);
    CLAIM(pw_matcher_forced(text, forced, 2, &many, &error) == PW_OK && many == 2);
    CLAIM(accept(text, "{\"a\":") == PW_OK);
    words[WORDS] = 77;
    CLAIM(pw_matcher_mask(text, words, WORDS, &error) == PW_OK && words[WORDS] == 77);
    CLAIM(count(words) == 9 && has(words, '1') && has(words, '9') && !has(words, '0') && !has(words, '-'));
    CLAIM(pw_matcher_mask(text, words, WORDS - 1, &error) == PW_E_SPACE && names("words"));
    const uint32_t path[] = {'4', '2', '}', END, 'x'};
    CLAIM(pw_matcher_allowed(text, path, 5, &many, &error) == PW_OK && many == 4);
    /* All, or none. */
    CLAIM(accept(text, "4x") == PW_E_NOT_ALLOWED && error.got == 'x' && names("tokens"));
    CLAIM(pw_matcher_may_end(text, &may, &error) == PW_OK && may == 0);
    pw_matcher *other = NULL;
    CLAIM(pw_matcher_fork(text, &other, &error) == PW_OK);
    CLAIM(accept(text, "42}") == PW_OK && pw_matcher_may_end(text, &may, &error) == PW_OK && may == 1);
    CLAIM(pw_matcher_mask(text, words, WORDS, &error) == PW_OK && count(words) == 1 && has(words, END));
    /* The end is forced once, though it could come again. */
    CLAIM(pw_matcher_forced(text, forced, 16, &many, &error) == PW_OK && many == 1 && forced[0] == END);
    CLAIM(pw_matcher_take_back(text, 2, &error) == PW_OK);
    CLAIM(pw_matcher_mask(text, words, WORDS, &error) == PW_OK && count(words) == 10 && has(words, '0'));
    CLAIM(pw_matcher_take_back(text, 7, &error) == PW_E_ARGUMENT && error.expected == 6);
    CLAIM(accept(other, "17}") == PW_OK);
    pw_matcher_destroy(other);
    pw_matcher_destroy(text);
}

/* A tree's masks are those of its paths. */
static void a_tree(pw_grammars *grammars) {
    pw_matcher *text = begin(grammars, PW_SOURCE_REGEX, "(ab|ac|b+)d?");
    const uint32_t tokens[] = {'a', 'b', 'c', 'z', 'b', 'd'};
    const uint32_t parents[] = {PW_NONE, 0, 0, 0, PW_NONE, 4};
    const char *paths[] = {"", "a", "ab", "ac", NULL, "b", "bd"};
    uint32_t rows[7][WORDS], row[WORDS];
    CLAIM(pw_matcher_tree_masks(text, tokens, parents, 6, &rows[0][0], WORDS, &error) == PW_OK);
    for (int i = 0; i < 7; i++) {
        memset(row, 0, sizeof row);
        if (paths[i]) {
            CLAIM(accept(text, paths[i]) == PW_OK && pw_matcher_mask(text, row, WORDS, &error) == PW_OK);
            CLAIM(pw_matcher_take_back(text, (uint32_t)strlen(paths[i]), &error) == PW_OK);
        }
        CLAIM(memcmp(row, rows[i], sizeof row) == 0 && (count(row) > 0) == (paths[i] != NULL));
    }
    const uint32_t wrong[] = {PW_NONE, 1};
    CLAIM(pw_matcher_tree_masks(text, tokens, wrong, 2, &rows[0][0], WORDS, &error) == PW_E_ARGUMENT && names("parents"));
    pw_matcher_destroy(text);
}

static void refusals(pw_grammars *grammars) {
    CLAIM(refused(grammars, PW_SOURCE_SCHEMA, "{\"items\":{\"uniqueItems\":true}}") == PW_E_GRAMMAR);
    CLAIM(strcmp(error.field, "/items/uniqueItems") == 0 || strcmp(error.field, "/items") == 0);
    CLAIM(refused(grammars, PW_SOURCE_SCHEMA, "{") == PW_E_GRAMMAR && names("source"));
    /* A place that does not fit is not taken for another. */
    CLAIM(refused(grammars, PW_SOURCE_SCHEMA, "{\"properties\":{\"a_longer_name_than_that\":{\"items\":{\"uniqueItems\":true}}}}") == PW_E_GRAMMAR);
    CLAIM(strncmp(error.field, "/properties/a_longer_name_th", 28) == 0 && strcmp(error.field + 28, "...") == 0);
    CLAIM(strstr(error.message, "/properties/a_longer_name_than_that/items") != NULL);
    CLAIM(refused(grammars, PW_SOURCE_OBJECT, "{}") == PW_E_ARGUMENT && names("source_bytes"));
    CLAIM(refused(grammars, PW_SOURCE_REGEX, "(a") == PW_E_GRAMMAR);
    CLAIM(refused(grammars, PW_SOURCE_REGEX, "\xff") == PW_E_GRAMMAR);
    CLAIM(refused(grammars, 9, "a") == PW_E_ARGUMENT && names("kind"));
    CLAIM(refused(NULL, PW_SOURCE_REGEX, "a") == PW_E_NULL && names("grammars"));
    CLAIM(refused(grammars, PW_SOURCE_REGEX, "((a{1,900}){1,900}){1,900}") == PW_E_TOO_MUCH);
    static char deep[60001];
    memset(deep, '(', 60000);
    CLAIM(refused(grammars, PW_SOURCE_REGEX, deep) < 0);
    memset(deep, '[', 60000);
    CLAIM(refused(grammars, PW_SOURCE_SCHEMA, deep) < 0);
    CLAIM(pw_matcher_mask(NULL, NULL, 0, &error) == PW_E_NULL && names("matcher"));
    CLAIM(pw_matcher_create(grammars, PW_SOURCE_REGEX, NULL, 3, &(pw_matcher *){NULL}, &error) == PW_E_NULL && names("source"));
    CLAIM(pw_matcher_create(grammars, PW_SOURCE_REGEX, "a", 1, NULL, &error) == PW_E_NULL && names("matcher"));
    pw_matcher_destroy(NULL);
    pw_grammars_destroy(NULL);

    pw_grammars *none = NULL;
    pw_vocabulary bad = vocabulary();
    const uint32_t beyond[] = {TOKENS};
    bad.ends = beyond;
    CLAIM(pw_grammars_create(&bad, NULL, &none, &error) == PW_E_ARGUMENT && names("ends") && none == NULL);
    bad = vocabulary();
    bad.starts = NULL;
    CLAIM(pw_grammars_create(&bad, NULL, &none, &error) == PW_E_NULL && names("starts"));
    starts[7] = 99;
    bad.starts = starts;
    CLAIM(pw_grammars_create(&bad, NULL, &none, &error) == PW_E_ARGUMENT && names("starts"));
    bad.tokens = 0;
    CLAIM(pw_grammars_create(&bad, NULL, &none, &error) == PW_E_ARGUMENT && names("tokens"));
}

/* A handle of nothing, of another kind, and one that was destroyed: each before any other fault. */
static void stale(pw_grammars *grammars) {
    pw_vocabulary of = vocabulary();
    pw_grammars *ended = NULL;
    pw_matcher *text = begin(grammars, PW_SOURCE_REGEX, "a"), *gone = begin(grammars, PW_SOURCE_REGEX, "a");
    CLAIM(pw_grammars_create(&of, NULL, &ended, &error) == PW_OK);
    pw_grammars_destroy(ended);
    pw_grammars_destroy(ended);
    pw_matcher_destroy(gone);
    pw_matcher_destroy(gone);
    void *wrong[] = {NULL, ended, gone, (void *)(uintptr_t)64, (void *)UINTPTR_MAX, bytes, grammars, text};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const pw_status as = wrong[i] ? PW_E_STALE : PW_E_NULL;
        if (wrong[i] != grammars) {
            CLAIM(pw_matcher_create(wrong[i], 9, NULL, 1, NULL, &error) == as && names("grammars"));
            pw_grammars_destroy(wrong[i]);
        }
        if (wrong[i] == text) continue;
        pw_matcher *it = wrong[i];
        CLAIM(pw_matcher_fork(it, NULL, &error) == as && names("matcher"));
        CLAIM(pw_matcher_mask(it, NULL, 0, &error) == as && names("matcher"));
        CLAIM(pw_matcher_accept(it, NULL, 1, &error) == as && names("matcher"));
        CLAIM(pw_matcher_allowed(it, NULL, 1, NULL, &error) == as && names("matcher"));
        CLAIM(pw_matcher_forced(it, NULL, 1, NULL, &error) == as && names("matcher"));
        CLAIM(pw_matcher_take_back(it, 1, &error) == as && names("matcher"));
        CLAIM(pw_matcher_may_end(it, NULL, &error) == as && names("matcher"));
        CLAIM(pw_matcher_tree_masks(it, NULL, NULL, 1, NULL, 0, &error) == as && names("matcher"));
        pw_matcher_destroy(it);
    }
    uint32_t number = 0, words[3 * WORDS];
    const uint32_t token[] = {'a'}, parent[] = {PW_NONE};
    CLAIM(pw_matcher_fork(text, NULL, &error) == PW_E_NULL && names("fork"));
    CLAIM(pw_matcher_mask(text, NULL, WORDS, &error) == PW_E_NULL && names("words"));
    CLAIM(pw_matcher_accept(text, NULL, 1, &error) == PW_E_NULL && names("tokens") && pw_matcher_accept(text, NULL, 0, &error) == PW_OK);
    CLAIM(pw_matcher_allowed(text, NULL, 1, &number, &error) == PW_E_NULL && names("tokens"));
    CLAIM(pw_matcher_allowed(text, token, 1, NULL, &error) == PW_E_NULL && names("allowed"));
    CLAIM(pw_matcher_forced(text, NULL, 1, &number, &error) == PW_E_NULL && names("tokens"));
    CLAIM(pw_matcher_forced(text, words, 1, NULL, &error) == PW_E_NULL && names("count"));
    CLAIM(pw_matcher_forced(text, NULL, 0, &number, &error) == PW_OK && number == 0);
    CLAIM(pw_matcher_may_end(text, NULL, &error) == PW_E_NULL && names("may_end"));
    CLAIM(pw_matcher_tree_masks(text, NULL, parent, 1, words, WORDS, &error) == PW_E_NULL && names("tokens"));
    CLAIM(pw_matcher_tree_masks(text, token, NULL, 1, words, WORDS, &error) == PW_E_NULL && names("parents"));
    CLAIM(pw_matcher_tree_masks(text, token, parent, 1, NULL, WORDS, &error) == PW_E_NULL && names("words"));
    CLAIM(pw_matcher_tree_masks(text, token, parent, 1, words, WORDS - 1, &error) == PW_E_SPACE && names("words"));
    CLAIM(pw_matcher_tree_masks(text, NULL, NULL, 0, words, WORDS, &error) == PW_OK && count(words) == 1 && has(words, 'a'));
    /* Tokens of no vocabulary may not come; they are not read as others. */
    const uint32_t beyond[] = {TOKENS, PW_NONE};
    for (int i = 0; i < 2; i++) {
        CLAIM(pw_matcher_accept(text, beyond + i, 1, &error) == PW_E_NOT_ALLOWED && names("tokens"));
        CLAIM(pw_matcher_allowed(text, beyond + i, 1, &number, &error) == PW_OK && number == 0);
        CLAIM(pw_matcher_tree_masks(text, beyond + i, parent, 1, words, WORDS, &error) == PW_OK && count(words + WORDS) == 0);
    }
    pw_matcher_destroy(text);

    of.struct_size = 8;
    CLAIM(pw_grammars_create(&of, NULL, &ended, &error) == PW_E_SIZE && names("vocabulary"));
    CLAIM(pw_grammars_create(NULL, NULL, &ended, &error) == PW_E_NULL && names("vocabulary"));
    of = vocabulary();
    CLAIM(pw_grammars_create(&of, NULL, NULL, &error) == PW_E_NULL && names("grammars"));
    of.bytes = NULL;
    CLAIM(pw_grammars_create(&of, NULL, &ended, &error) == PW_E_NULL && names("bytes"));
    of = vocabulary(), of.special = NULL;
    CLAIM(pw_grammars_create(&of, NULL, &ended, &error) == PW_E_NULL && names("special"));
    of = vocabulary(), of.ends = NULL;
    CLAIM(pw_grammars_create(&of, NULL, &ended, &error) == PW_E_NULL && names("ends"));
    pw_grammars_options options = {.struct_size = 4};
    of = vocabulary();
    CLAIM(pw_grammars_create(&of, &options, &ended, &error) == PW_E_SIZE && names("options"));
}

static void *many(void *grammars) {
    for (int i = 0; i < 50; i++) {
        pw_matcher *text = begin(grammars, PW_SOURCE_REGEX, i % 2 ? "[0-9]{3}" : "x[a-f]+");
        uint32_t words[WORDS];
        CLAIM(pw_matcher_mask(text, words, WORDS, &error) == PW_OK && count(words) == (i % 2 ? 10 : 1));
        pw_matcher_destroy(text);
    }
    return NULL;
}

int main(void) {
    pw_vocabulary of = vocabulary();
    pw_grammars_options options = {.struct_size = sizeof options, .threads = 1};
    pw_grammars *grammars = NULL;
    CLAIM(pw_grammars_create(&of, &options, &grammars, &error) == PW_OK && grammars);
    /* It has read all of it. */
    memset(bytes, 0, sizeof bytes);
    a_text(grammars);
    a_tree(grammars);
    stale(grammars);
    refusals(grammars);
    pthread_t two[2];
    for (int i = 0; i < 2; i++) pthread_create(&two[i], NULL, many, grammars);
    for (int i = 0; i < 2; i++) pthread_join(two[i], NULL);
    /* A text goes on without what compiled it. */
    pw_matcher *text = begin(grammars, PW_SOURCE_OBJECT, "");
    pw_grammars_destroy(grammars);
    CLAIM(accept(text, "{\"b\":1}") == PW_OK);
    pw_matcher_destroy(text);
    puts("grammars: ok");
    return 0;
}
