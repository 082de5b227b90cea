/* A pair of dims turned by its angle, as the contract of rope says. */
#ifndef PAGEWISE_TURN_H
#define PAGEWISE_TURN_H

#include "kernel.h"

PWK_FN float turned_first(float a, float b, float cosine, float sine) {
    return __fmaf_rn(a, cosine, -(b * sine));
}

PWK_FN float turned_second(float a, float b, float cosine, float sine) {
    return __fmaf_rn(b, cosine, a * sine);
}

#endif /* PAGEWISE_TURN_H */
