/* States of softmax that are not finished, as `attention` and `attention_fold` share them:
 * how they fold, and how they end. By the steps of kernels-core/src/attention/fold.rs. */
#ifndef PAGEWISE_METAL_ATTENTION_H
#define PAGEWISE_METAL_ATTENTION_H

#include "kernel.h"

/* The largest score, and the sum of weights: 0 where nothing was seen. */
struct softmax_state {
    float most;
    float sum;
};

/* What a fold does to weighted values. */
struct softmax_fold {
    bool nothing; /* the later state is empty */
    bool first;   /* the earlier one was */
    float kept;
    float added;
};

PWK_FN softmax_state softmax_empty() { return {-PWK_INFINITY, 0.0f}; }

/* Folds a later state into one; what comes back folds their values. */
PWK_FN softmax_fold fold_later(thread softmax_state &into, softmax_state later) {
    if (later.sum == 0.0f) {
        return {true, false, 1.0f, 0.0f};
    }
    if (into.sum == 0.0f) {
        into = later;
        return {false, true, 0.0f, 1.0f};
    }
    const float top = pwk_max(into.most, later.most);
    const float kept = pwk_exp(into.most - top);
    const float added = pwk_exp(later.most - top);
    into = {top, PWK_FMA(added, later.sum, kept * into.sum)};
    return {false, false, kept, added};
}

/* A weighted value of both. */
PWK_FN float folded(softmax_fold fold, float before, float later) {
    const float both = PWK_FMA(fold.added, later, fold.kept * before);
    return fold.nothing ? before : (fold.first ? later : both);
}

/* How a state ends. */
struct softmax_end {
    bool empty; /* nothing was seen: zeros */
    float kept;
    float divisor;
    float lse;
};

/* A sink joins, and the logarithm of the denominator comes out. */
PWK_FN softmax_end softmax_ends(softmax_state state, float sink) {
    if (state.sum == 0.0f) {
        return {true, 0.0f, 1.0f, sink};
    }
    if (sink == -PWK_INFINITY) {
        return {false, 1.0f, state.sum, state.most + pwk_log(state.sum)};
    }
    const float top = pwk_max(state.most, sink);
    const float kept = pwk_exp(state.most - top);
    const float sum = PWK_FMA(kept, state.sum, pwk_exp(sink - top));
    return {false, kept, sum, top + pwk_log(sum)};
}

/* An element of the output. */
PWK_FN float ended(softmax_end end, float value) {
    return end.empty ? 0.0f : (end.kept * value) / end.divisor;
}

#endif /* PAGEWISE_METAL_ATTENTION_H */
