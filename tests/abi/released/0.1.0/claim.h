/* Claims of a test program, and what the library last said. */
#ifndef PAGEWISE_TESTS_CLAIM_H
#define PAGEWISE_TESTS_CLAIM_H

#include <pagewise.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first claim that does not hold is told, and ends the program. */
#define CLAIM(condition)                                            \
    do {                                                            \
        if (!(condition)) {                                         \
            fprintf(stderr, "%s:%d: %s (%s: %s)\n", __FILE__, __LINE__, #condition, error.field, error.message); \
            exit(1);                                                \
        }                                                           \
    } while (0)

static _Thread_local pw_error error = {.struct_size = sizeof error};

/* Whether it named this field, and said why. */
static inline int names(const char *field) {
    return strcmp(error.field, field) == 0 && error.message[0] != 0;
}

#endif
