/* A pair of dims turned by its angle, as the contract of rope says. */
#ifndef PAGEWISE_METAL_TURN_H
#define PAGEWISE_METAL_TURN_H

#include "kernel.h"

PWK_FN float turned_first(float a, float b, float cosine, float sine) {
    return PWK_FMA(a, cosine, -(b * sine));
}

PWK_FN float turned_second(float a, float b, float cosine, float sine) {
    return PWK_FMA(b, cosine, a * sine);
}

#endif /* PAGEWISE_METAL_TURN_H */
