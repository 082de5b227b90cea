/* Masks of many texts at once: the same as those of each text for itself, and whatever is late
 * is lost to nobody. */
#include "claim.h"
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <unistd.h>

#define CAST(type, from) ((type *)(void *)(from))

/* Bytes, all words of three small letters, and an end: enough for a mask to take its time. */
enum { LETTERS = 26, WORDS_OF_3 = LETTERS * LETTERS * LETTERS, TOKENS = 256 + WORDS_OF_3 + 1, END = TOKENS - 1,
       WORDS = (TOKENS + 31) / 32, SMALL = 257, SMALL_WORDS = (SMALL + 31) / 32 };

static pw_grammars *grammars_of(uint32_t tokens) {
    static uint8_t bytes[256 + 3 * WORDS_OF_3 + 3];
    static uint64_t starts[TOKENS + 1];
    uint8_t *to = bytes;
    uint32_t token = 0;
    for (; token < 256; token++) starts[token] = token, *to++ = (uint8_t)token;
    for (uint32_t word = 0; token + 1 < tokens; token++, word++) {
        starts[token] = (uint64_t)(to - bytes);
        for (uint32_t of = LETTERS * LETTERS; of; of /= LETTERS) *to++ = (uint8_t)('a' + word / of % LETTERS);
    }
    starts[token] = (uint64_t)(to - bytes);
    memcpy(to, "<e>", 3);
    starts[token + 1] = starts[token] + 3;
    const uint32_t end[] = {token};
    const pw_vocabulary of = {.struct_size = sizeof of, .tokens = tokens, .bytes = bytes, .starts = starts, .special = end,
                              .ends = end, .special_count = 1, .end_count = 1};
    pw_grammars *grammars = NULL;
    CLAIM(pw_grammars_create(&of, NULL, &grammars, &error) == PW_OK);
    return grammars;
}

static pw_matcher *text(pw_grammars *grammars, const char *source) {
    pw_matcher *matcher = NULL;
    CLAIM(pw_matcher_create(grammars, PW_SOURCE_REGEX, source, strlen(source), &matcher, &error) == PW_OK && matcher);
    return matcher;
}

/* A text that is no other: it begins with a number of its own. */
static pw_matcher *numbered(pw_grammars *grammars, int number) {
    char source[64];
    snprintf(source, sizeof source, "(%d|[a-%c]{2,7}x)[^q-%c]*(end)?", number, 'c' + number % 20, 'r' + number % 5);
    return text(grammars, source);
}

static pw_masker *masker_of(uint32_t threads) {
    pw_masker *masker = NULL;
    CLAIM(pw_masker_create(threads, &masker, &error) == PW_OK && masker);
    return masker;
}

enum { TEXTS = 96 };
static pw_matcher *texts[TEXTS];
static uint32_t right[TEXTS][WORDS], rows[TEXTS][WORDS + 2];
static pw_status statuses[TEXTS];

static pw_status masks(pw_masker *masker, uint32_t count, uint32_t deadline_us, uint32_t *late) {
    memset(rows, 0xff, sizeof rows);
    memset(statuses, 0x55, sizeof statuses);
    return pw_masker_masks(masker, texts, count, deadline_us, rows[0], WORDS + 2, statuses, late, &error);
}

/* All rows are those of their texts, and what lies past the vocabulary is 0. */
static void all_right(pw_masker *masker) {
    uint32_t late = 77;
    CLAIM(masks(masker, TEXTS, 0, &late) == PW_OK && late == 0);
    for (int i = 0; i < TEXTS; i++) {
        CLAIM(statuses[i] == PW_OK && memcmp(rows[i], right[i], sizeof right[i]) == 0);
        CLAIM(rows[i][WORDS] == 0 && rows[i][WORDS + 1] == 0);
    }
}

static void as_one_by_one(pw_grammars *grammars, pw_masker *masker) {
    for (int i = 0; i < TEXTS; i++) {
        texts[i] = numbered(grammars, i);
        CLAIM(pw_matcher_mask(texts[i], right[i], WORDS, &error) == PW_OK);
        CLAIM(i == 0 || memcmp(right[i], right[0], sizeof right[i]) || i % 10 == 0);
    }
    all_right(masker);
    all_right(NULL);
    all_right(masker);
}

/* Texts of two vocabularies: rows have room for the larger, and zeros past the smaller. */
static void of_two_sizes(pw_masker *masker) {
    pw_grammars *small = grammars_of(SMALL);
    pw_matcher *both[] = {texts[0], text(small, "[a-f]+"), texts[1]};
    uint32_t got[3][WORDS], alone[SMALL_WORDS];
    pw_status status[3];
    CLAIM(pw_matcher_mask(both[1], alone, SMALL_WORDS, &error) == PW_OK);
    for (int i = 0; i < 2; i++) {
        memset(got, 0xff, sizeof got);
        CLAIM(pw_masker_masks(i ? masker : NULL, both, 3, 0, got[0], WORDS, status, NULL, &error) == PW_OK);
        CLAIM(memcmp(got[0], right[0], sizeof got[0]) == 0 && memcmp(got[2], right[1], sizeof got[2]) == 0);
        CLAIM(memcmp(got[1], alone, sizeof alone) == 0);
        for (int word = SMALL_WORDS; word < WORDS; word++) CLAIM(got[1][word] == 0);
    }
    CLAIM(pw_masker_masks(masker, both, 3, 0, got[0], WORDS - 1, status, NULL, &error) == PW_E_SPACE && names("words"));
    CLAIM(error.expected == 4 * WORDS && error.got == 4 * (WORDS - 1));
    CLAIM(pw_masker_masks(masker, both + 1, 1, 0, got[0], SMALL_WORDS, status, NULL, &error) == PW_OK);
    pw_matcher_destroy(both[1]);
    pw_grammars_destroy(small);
}

static void refusals(pw_masker *masker) {
    pw_matcher *two[] = {texts[0], texts[1], texts[0]}, *gone = NULL;
    uint32_t late = 77;
    CLAIM(pw_matcher_fork(texts[0], &gone, &error) == PW_OK);
    pw_matcher_destroy(gone);
    pw_masker *ended = masker_of(1);
    pw_masker_destroy(ended);
    for (int i = 0; i < 2; i++) {
        pw_masker *with = i ? masker : NULL;
        CLAIM(pw_masker_masks(with, two, 3, 0, rows[0], WORDS, statuses, &late, &error) == PW_E_ARGUMENT && names("matchers"));
        CLAIM(pw_masker_masks(with, NULL, 2, 0, rows[0], WORDS, statuses, &late, &error) == PW_E_NULL && names("matchers"));
        CLAIM(pw_masker_masks(with, two, 2, 0, NULL, WORDS, statuses, &late, &error) == PW_E_NULL && names("words"));
        CLAIM(pw_masker_masks(with, two, 2, 0, rows[0], WORDS, NULL, &late, &error) == PW_E_NULL && names("statuses"));
        CLAIM(pw_masker_masks(with, two, 2, 0, rows[0], UINT64_MAX, statuses, &late, &error) == PW_E_ARGUMENT && names("words"));
        CLAIM(pw_masker_masks(with, two, (1 << 20) + 1, 0, rows[0], WORDS, statuses, &late, &error) == PW_E_ARGUMENT && names("count"));
        pw_matcher *wrong[] = {NULL, gone, CAST(pw_matcher, masker), CAST(pw_matcher, UINTPTR_MAX)};
        for (int j = 0; j < 4; j++) {
            pw_matcher *list[] = {texts[0], wrong[j], wrong[j]};
            CLAIM(pw_masker_masks(with, list, 3, 0, rows[0], WORDS, statuses, &late, &error) == (j ? PW_E_STALE : PW_E_NULL));
            CLAIM(names("matchers"));
        }
        CLAIM(late == 77);
        CLAIM(pw_masker_masks(with, NULL, 0, 0, NULL, 0, NULL, NULL, &error) == PW_OK);
        CLAIM(pw_masker_masks(with, NULL, 0, 1, NULL, 0, NULL, &late, &error) == PW_OK && late == 0);
        late = 77;
    }
    CLAIM(pw_masker_masks(ended, two, 2, 0, rows[0], WORDS, statuses, NULL, &error) == PW_E_STALE && names("masker"));
    CLAIM(pw_masker_masks(CAST(pw_masker, texts[0]), two, 2, 0, rows[0], WORDS, statuses, NULL, &error) == PW_E_STALE);
    CLAIM(pw_masker_create(1, NULL, &error) == PW_E_NULL && names("masker"));
    CLAIM(pw_masker_create(1025, &ended, &error) == PW_E_ARGUMENT && names("threads"));
    pw_masker_destroy(NULL);
    all_right(masker);
}

/* So many texts for one thread that some are late; how many. */
static uint32_t hurried(pw_masker *masker) {
    for (int attempt = 0; attempt < 100; attempt++) {
        uint32_t late = 77, zeros = 0;
        CLAIM(masks(masker, TEXTS, 1, &late) == PW_OK && late <= TEXTS);
        for (int i = 0; i < TEXTS; i++) {
            static const uint32_t nothing[WORDS];
            CLAIM(statuses[i] == PW_OK || statuses[i] == PW_E_BUSY);
            CLAIM(memcmp(rows[i], statuses[i] ? nothing : right[i], sizeof right[i]) == 0);
            zeros += statuses[i] != PW_OK;
        }
        CLAIM(zeros == late);
        if (late) return late;
        all_right(masker);
    }
    CLAIM(!"some text is late");
    return 0;
}

/* What one call on a late text comes to: it is busy, or done meanwhile. */
static pw_status on(pw_matcher *late, int what) {
    uint32_t number = 0, words[WORDS];
    const uint32_t token[] = {'a'}, parent[] = {PW_NONE};
    static uint32_t tree[2][WORDS];
    pw_matcher *fork = NULL;
    switch (what) {
    case 0: return pw_matcher_mask(late, words, WORDS, &error);
    case 1: return pw_matcher_accept(late, token, 0, &error);
    case 2: return pw_matcher_allowed(late, token, 1, &number, &error);
    case 3: return pw_matcher_forced(late, &number, 1, &number, &error);
    case 4: return pw_matcher_take_back(late, 0, &error);
    case 5: return pw_matcher_may_end(late, &number, &error);
    case 6: return pw_matcher_tree_masks(late, token, parent, 1, tree[0], WORDS, &error);
    }
    const pw_status status = pw_matcher_fork(late, &fork, &error);
    pw_matcher_destroy(fork);
    return status;
}

/* Late rows are of zeros and their texts busy; asked for again, each has its mask. */
static void late_and_not_lost(void) {
    pw_masker *masker = masker_of(1), *other = masker_of(1);
    int busy[8] = {0}, all = 0;
    for (int round = 0; round < 200 && all < 8; round++) {
        hurried(masker);
        for (int what = 0; what < 8; what++) {
            const pw_status status = on(texts[TEXTS - 1 - what], what);
            CLAIM(status == PW_OK || (status == PW_E_BUSY && names("matcher")));
            all += status == PW_E_BUSY && !busy[what]++;
        }
        /* Here, by another masker, or by the caller: what is late there is waited for by none. */
        if (round % 4 == 1) all_right(other);
        if (round % 4 == 2) CLAIM(masks(NULL, TEXTS, 0, NULL) == PW_OK);
        all_right(masker);
    }
    CLAIM(all == 8);
    pw_masker_destroy(masker);
    pw_masker_destroy(other);
}

/* A mask that came late is of the text as it was: once that has gone on, it is dropped. */
static void late_and_gone_on(void) {
    pw_masker *masker = masker_of(1);
    hurried(masker);
    uint32_t now[WORDS], may = 0;
    const uint32_t token[] = {'a'};
    for (int i = 0; i < TEXTS; i++) {
        while (pw_matcher_may_end(texts[i], &may, &error) == PW_E_BUSY) sched_yield();
        CLAIM(pw_matcher_accept(texts[i], token, 1, &error) == PW_OK);
    }
    CLAIM(masks(masker, TEXTS, 0, NULL) == PW_OK);
    for (int i = 0; i < TEXTS; i++) {
        CLAIM(pw_matcher_mask(texts[i], now, WORDS, &error) == PW_OK && memcmp(now, rows[i], sizeof now) == 0);
        CLAIM(memcmp(now, right[i], sizeof now) && pw_matcher_take_back(texts[i], 1, &error) == PW_OK);
    }
    all_right(masker);
    pw_masker_destroy(masker);
}

/* Without a masker, late is what was not begun; nobody is at it, so nothing is busy. */
static void late_by_the_caller(void) {
    CLAIM(hurried(NULL) >= 1);
    for (int what = 0; what < 8; what++) CLAIM(on(texts[TEXTS - 1 - what], what) == PW_OK);
    all_right(NULL);
}

/* Texts and maskers may go while masks are on their way; who stays goes on. */
static void destroyed_meanwhile(pw_grammars *grammars) {
    for (int round = 0; round < 8; round++) {
        pw_masker *masker = masker_of(1 + round % 2);
        hurried(masker);
        for (int i = 0; i < TEXTS; i += 3) {
            pw_matcher_destroy(texts[i]);
            CLAIM(on(texts[i], 0) == PW_E_STALE);
        }
        if (round % 2) {
            pw_masker_destroy(masker);
            /* Its threads have ended: none is at a text. */
            for (int i = 1; i < TEXTS; i += 3) CLAIM(on(texts[i], round % 8) == PW_OK);
        }
        for (int i = 0; i < TEXTS; i += 3) texts[i] = numbered(grammars, i);
        all_right(round % 2 ? NULL : masker);
        if (round % 2 == 0) pw_masker_destroy(masker);
    }
}

struct crowd {
    pw_grammars *grammars;
    pw_masker *masker;
    int number;
};

/* One of many that ask one masker, each for texts of its own, now and then in a hurry. */
static void *asks(void *of) {
    const struct crowd *in = of;
    enum { OWN = 6 };
    pw_matcher *own[OWN];
    uint32_t (*alone)[WORDS] = malloc(OWN * sizeof *alone), (*got)[WORDS] = malloc(OWN * sizeof *got);
    pw_status status[OWN];
    for (int i = 0; i < OWN; i++) {
        own[i] = numbered(in->grammars, 10 * in->number + i);
        CLAIM(pw_matcher_mask(own[i], alone[i], WORDS, &error) == PW_OK);
    }
    for (int round = 0; round < 40; round++) {
        uint32_t late = 0;
        const uint32_t deadline = round % 4 == 3 ? 1 : 0;
        CLAIM(pw_masker_masks(in->masker, own, OWN, deadline, got[0], WORDS, status, &late, &error) == PW_OK);
        CLAIM(deadline || late == 0);
        for (int i = 0; i < OWN; i++) CLAIM(status[i] == PW_E_BUSY || memcmp(got[i], alone[i], sizeof *got) == 0);
    }
    for (int i = 0; i < OWN; i++) pw_matcher_destroy(own[i]);
    free(alone);
    free(got);
    return NULL;
}

/* Two who ask for the same text, as they should not: each gets an answer. */
static void *asks_the_same(void *of) {
    const struct crowd *in = of;
    uint32_t *got = malloc(WORDS * sizeof *got);
    pw_status status = 0;
    for (int round = 0; round < 300; round++) {
        CLAIM(pw_masker_masks(in->masker, texts, 1, round % 3, got, WORDS, &status, NULL, &error) == PW_OK);
        CLAIM(status == PW_E_BUSY || (status == PW_OK && memcmp(got, right[0], sizeof right[0]) == 0));
    }
    free(got);
    return NULL;
}

static void crowds(pw_grammars *grammars) {
    pw_masker *masker = masker_of(2);
    pthread_t threads[6];
    struct crowd each[6];
    for (int i = 0; i < 6; i++) {
        each[i] = (struct crowd){grammars, masker, i};
        pthread_create(&threads[i], NULL, i < 4 ? asks : asks_the_same, &each[i]);
    }
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    all_right(masker);
    pw_masker_destroy(masker);
}

int main(void) {
    /* Whoever waits for good is told from whoever is slow. */
    alarm(300);
    pw_grammars *grammars = grammars_of(TOKENS);
    pw_masker *masker = masker_of(2);
    as_one_by_one(grammars, masker);
    of_two_sizes(masker);
    refusals(masker);
    late_and_not_lost();
    late_and_gone_on();
    late_by_the_caller();
    destroyed_meanwhile(grammars);
    crowds(grammars);
    /* Masks need no longer what compiled their grammars. */
    pw_grammars_destroy(grammars);
    all_right(masker);
    pw_masker_destroy(masker);
    for (int i = 0; i < TEXTS; i++) pw_matcher_destroy(texts[i]);
    puts("masks: ok");
    return 0;
}
