/* A call of `spec_verify` as its launches share it: the argument, and places among the buffers.
 */
#ifndef PAGEWISE_METAL_SPEC_VERIFY_CALL_H
#define PAGEWISE_METAL_SPEC_VERIFY_CALL_H

#include "checks.h"

struct spec_verify_arguments {
    pwk_spec_verify p;
    device const uint32_t *node_start;
    device const uint32_t *tokens;
    device const uint32_t *parents;
    device const float *target;
    device const float *draft;
    device const uint32_t *sampled;
    device const pwk_verify_request *requests;
    device const uint32_t *places;
    device const uint32_t *sequences;
    device uint32_t *path;
    device uint32_t *accepted;
    device uint32_t *next;
    device uint32_t *status;
    device uint32_t *entries;
    device uint32_t *count;
    launch_of_call launch;
};

/* Places among the buffers. */
constant constexpr uint32_t VERIFY_NODE_START = 0;
constant constexpr uint32_t VERIFY_TOKENS_FIELD = 1;
constant constexpr uint32_t VERIFY_PARENTS = 2;
constant constexpr uint32_t VERIFY_SAMPLED = 5;
constant constexpr uint32_t VERIFY_REQUESTS = 6;
constant constexpr uint32_t VERIFY_SEQUENCES = 8;

#endif /* PAGEWISE_METAL_SPEC_VERIFY_CALL_H */
