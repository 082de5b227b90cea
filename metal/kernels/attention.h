/* States of softmax that are not finished: how they fold, and how they end. By the steps of
 * kernels-core/src/attention/fold.rs. */
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

PWK_FN softmax_state softmax_empty() {
    const softmax_state state = {-PWK_INFINITY, 0.0f};
    return state;
}

/* Folds a later state into one; what comes back folds their values. */
PWK_FN softmax_fold fold_later(thread softmax_state &into, softmax_state later) {
    softmax_fold fold = {later.sum == 0.0f, into.sum == 0.0f, 1.0f, 0.0f};
    if (fold.nothing) {
        return fold;
    }
    if (fold.first) {
        into = later;
        return fold;
    }
    const float top = pwk_max(into.most, later.most);
    fold.kept = pwk_exp(into.most - top);
    fold.added = pwk_exp(later.most - top);
    into.most = top;
    into.sum = PWK_FMA(fold.added, later.sum, fold.kept * into.sum);
    return fold;
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
    softmax_end end = {state.sum == 0.0f, 1.0f, state.sum, sink};
    if (end.empty) {
        return end;
    }
    float top = state.most;
    if (sink != -PWK_INFINITY) {
        top = pwk_max(state.most, sink);
        end.kept = pwk_exp(state.most - top);
        end.divisor = PWK_FMA(end.kept, state.sum, pwk_exp(sink - top));
    }
    end.lse = top + pwk_log(end.divisor);
    return end;
}

/* An element of the output. */
PWK_FN float ended(softmax_end end, float value) {
    return end.empty ? 0.0f : (end.kept * value) / end.divisor;
}

#endif /* PAGEWISE_METAL_ATTENTION_H */
