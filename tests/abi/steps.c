/* Calls that follow each other as in an engine: what one writes is what the next reads. And
 * lengths of steps that no caller should send. */
#include "kernel.h"
#include <math.h>

static pw_device *device;

static float number(int at) { return (float)(at * 7919 % 1013) / 1013 - 0.5f; }

/* Plan and scratch of a call; the plan is made by whoever asks for it. */
static pw_run room_of(pw_needs needs) {
    const uint64_t plan = (needs.plan_bytes + LINE) / LINE * LINE, workspace = (needs.workspace_bytes + LINE) / LINE * LINE;
    return (pw_run){aligned_alloc(LINE, plan), needs.plan_bytes, aligned_alloc(LINE, workspace), needs.workspace_bytes};
}

static void drop(pw_run run) {
    free((void *)run.plan);
    free(run.workspace);
}

/* Queried, planned and run, with what the kernel says of a step. */
#define STEP(stem, desc, args, ...)                                                                              \
    do {                                                                                                         \
        pw_needs needs_ = {.struct_size = sizeof needs_};                                                        \
        CLAIM(pw_##stem##_query(device, &(desc), &needs_, &error) == PW_OK);                                     \
        (args).run = room_of(needs_);                                                                            \
        CLAIM(pw_##stem##_plan(device, &(desc), __VA_ARGS__, (void *)(args).run.plan, needs_.plan_bytes, &error) == PW_OK); \
        CLAIM(pw_##stem##_run(device, &(desc), &(args), NULL, &error) == PW_OK);                                 \
        drop((args).run);                                                                                        \
    } while (0)

/* ---- a cache of pages ------------------------------------------------------------------- */

enum { PAGES = 6, PAGE = 4, HEADS = 2, DIM = 8, ROW = HEADS * DIM, TOKENS_MAX = 16 };

struct cache {
    float keys[PAGES][PAGE][HEADS][DIM], values[PAGES][PAGE][HEADS][DIM];
    pw_pages *pages;
};

static pw_kv_layout layout(void) {
    return (pw_kv_layout){.page_stride = PAGE * ROW * 4, .k_head_stride = DIM * 4, .k_token_stride = ROW * 4, .k_dim_stride = 4,
                          .v_head_stride = DIM * 4, .v_token_stride = ROW * 4, .pages = PAGES, .page_len = PAGE, .kv_heads = HEADS,
                          .head_dim = DIM, .dtype = PW_F32};
}

/* The key and the value of a token, which say which sequence is at it. */
static void rows_of(int sequence, int first, int count, float (*k)[ROW], float (*v)[ROW]) {
    for (int token = 0; token < count; token++)
        for (int i = 0; i < ROW; i++) {
            k[token][i] = number(1000 * sequence + 31 * (first + token) + i);
            v[token][i] = number(5000 * sequence + 17 * (first + token) + 3 * i);
        }
}

static void copied(struct cache *cache, const uint32_t *entries, uint32_t count) {
    const pw_kv_copy_desc desc = {.struct_size = sizeof desc, .entries_max = 8, .kv = layout(), .tokens_max = PAGE};
    pw_kv_copy_args args = {.struct_size = sizeof args, .keys = cache->keys, .values = cache->values, .entries = entries};
    STEP(kv_copy, desc, args, count);
}

/* So many more tokens of a sequence, written where the table says. */
static void appended(struct cache *cache, pw_table *table, int sequence, uint32_t count) {
    pw_table_state state = {.struct_size = sizeof state};
    uint32_t entry[5], copy = 0, slots[TOKENS_MAX][2];
    float k[TOKENS_MAX][ROW], v[TOKENS_MAX][ROW];
    CLAIM(pw_table_count(table, &state, &error) == PW_OK);
    CLAIM(pw_table_grow(table, count, entry, &copy, &error) == PW_OK);
    if (copy) copied(cache, entry, 1);
    CLAIM(pw_table_slots(table, state.tokens, count, slots[0], &error) == PW_OK);
    rows_of(sequence, (int)state.tokens, (int)count, k, v);
    const pw_append_kv_desc desc = {.struct_size = sizeof desc, .rows_max = TOKENS_MAX, .kv = layout(), .k_row_stride = ROW * 4,
                                    .v_row_stride = ROW * 4, .slots_max = TOKENS_MAX, .x_dtype = PW_F32};
    const pw_append_kv_lens lens = {.struct_size = sizeof lens, .rows = count};
    pw_append_kv_args args = {.struct_size = sizeof args, .k = k, .v = v, .keys = cache->keys, .values = cache->values, .slots = slots[0]};
    STEP(append_kv, desc, args, &lens);
}

static pw_attention_desc attention(uint32_t mask) {
    return (pw_attention_desc){.struct_size = sizeof(pw_attention_desc), .mask = mask, .kv = layout(), .q_row_stride = ROW * 4,
                               .out_row_stride = ROW * 4, .q_dtype = PW_F32, .out_dtype = PW_F32, .q_heads = HEADS, .scale = 0.35f,
                               .page_table = PW_PAGES_LISTED, .rows_max = TOKENS_MAX, .seqs_max = 2, .kv_len_max = 24, .page_ids_max = 12};
}

/* The last rows of a sequence attend to all of it; as plain loops would have it. The first so
 * many tokens are of one sequence, the rest of another. */
static void attended(struct cache *cache, const pw_table *table, uint32_t rows, int sequence, int from, int other) {
    pw_table_state state = {.struct_size = sizeof state};
    uint32_t ids[PAGES];
    float q[TOKENS_MAX][ROW], out[TOKENS_MAX][ROW], k[TOKENS_MAX][ROW], v[TOKENS_MAX][ROW], lse[TOKENS_MAX][HEADS];
    CLAIM(pw_table_count(table, &state, &error) == PW_OK && pw_table_ids(table, 0, state.pages, ids, &error) == PW_OK);
    const int all = (int)state.tokens;
    rows_of(sequence, 0, from, k, v);
    rows_of(other, from, all - from, k + from, v + from);
    for (uint32_t i = 0; i < rows * ROW; i++) q[i / ROW][i % ROW] = number(77 + (int)i);
    const pw_attention_desc desc = attention(PW_MASK_CAUSAL);
    const uint32_t q_start[] = {0, rows}, kv_len[] = {(uint32_t)all}, page_start[] = {0, state.pages};
    const pw_attention_lens lens = {.struct_size = sizeof lens, .seqs = 1, .q_start = q_start, .kv_len = kv_len, .page_start = page_start};
    pw_attention_args args = {.struct_size = sizeof args, .q = q, .keys = cache->keys, .values = cache->values, .page_ids = ids, .out = out,
                              .lse = lse[0]};
    STEP(attention, desc, args, &lens);
    for (uint32_t row = 0; row < rows; row++) {
        for (int head = 0; head < HEADS; head++) {
            double scores[TOKENS_MAX], sum = 0;
            const int sees = all - (int)rows + (int)row + 1;
            for (int token = 0; token < sees; token++) {
                double dot = 0;
                for (int dim = 0; dim < DIM; dim++) dot += (double)q[row][head * DIM + dim] * k[token][head * DIM + dim];
                sum += scores[token] = exp(dot * 0.35f);
            }
            CLAIM(near(lse[row][head], log(sum)));
            for (int dim = 0; dim < DIM; dim++) {
                double right = 0;
                for (int token = 0; token < sees; token++) right += scores[token] / sum * v[token][head * DIM + dim];
                CLAIM(near(out[row][head * DIM + dim], right));
            }
        }
    }
}

/* Written where a table says, read where it says; a fork goes its own way, and neither sees
 * what the other wrote. */
static void written_and_read(void) {
    struct cache *cache = calloc(1, sizeof *cache);
    pw_table *one = NULL, *two = NULL;
    CLAIM(pw_pages_create(PAGES, PAGE, &cache->pages, &error) == PW_OK && pw_table_create(cache->pages, &one, &error) == PW_OK);
    appended(cache, one, 1, 5);
    attended(cache, one, 5, 1, 5, 1);
    appended(cache, one, 1, 1);
    attended(cache, one, 1, 1, 6, 1);
    CLAIM(pw_table_fork(one, &two, &error) == PW_OK);
    appended(cache, two, 2, 3);
    appended(cache, one, 1, 2);
    attended(cache, two, 3, 1, 6, 2);
    attended(cache, one, 8, 1, 8, 1);
    CLAIM(pw_table_shorten(two, 7, &error) == PW_OK);
    appended(cache, two, 2, 4);
    attended(cache, two, 4, 1, 6, 2);
    pw_table_destroy(one);
    pw_table_destroy(two);
    pw_pages_destroy(cache->pages);
    free(cache);
}

/* ---- masks of positions ----------------------------------------------------------------- */

/* What varlen_mask tells of a causal step is what attention does without it, bit for bit. */
static void intervals_are_causal(void) {
    struct cache *cache = calloc(1, sizeof *cache);
    float q[5][ROW], out[2][5][ROW], lse[2][5][HEADS];
    for (int i = 0; i < PAGES * PAGE * ROW; i++) {
        cache->keys[i / ROW / PAGE][i / ROW % PAGE][i / DIM % HEADS][i % DIM] = number(i);
        cache->values[i / ROW / PAGE][i / ROW % PAGE][i / DIM % HEADS][i % DIM] = number(i + 500);
    }
    for (int i = 0; i < 5 * ROW; i++) q[i / ROW][i % ROW] = number(i + 900);
    const uint32_t start[] = {0, 2, 5}, lengths[] = {6, 11}, page_start[] = {0, 2, 5}, ids[] = {3, 0, 5, 1, 2};
    uint32_t intervals[5][2], positions[5];
    const pw_varlen_mask_desc mask = {.struct_size = sizeof mask, .rows_max = 8, .seqs_max = 4, .window = 7};
    const pw_varlen_mask_lens of = {.struct_size = sizeof of, .seqs = 2, .row_start = start, .lengths = lengths};
    pw_varlen_mask_args told = {.struct_size = sizeof told, .intervals = intervals[0], .positions = positions};
    STEP(varlen_mask, mask, told, &of);
    const uint32_t right[] = {4, 5, 8, 9, 10};
    for (int row = 0; row < 5; row++) {
        CLAIM(positions[row] == right[row] && intervals[row][1] == right[row] + 1);
        CLAIM(intervals[row][0] == (right[row] < 7 ? 0 : right[row] - 6));
    }
    const pw_attention_lens lens = {.struct_size = sizeof lens, .seqs = 2, .q_start = start, .kv_len = lengths, .page_start = page_start};
    for (int i = 0; i < 2; i++) {
        pw_attention_desc desc = attention(i ? PW_MASK_INTERVALS : PW_MASK_CAUSAL);
        desc.window = i ? 0 : 7;
        pw_attention_args args = {.struct_size = sizeof args, .q = q, .keys = cache->keys, .values = cache->values, .page_ids = ids,
                                  .intervals = i ? intervals[0] : NULL, .out = out[i], .lse = lse[i][0]};
        STEP(attention, desc, args, &lens);
    }
    CLAIM(memcmp(out[0], out[1], sizeof out[0]) == 0 && memcmp(lse[0], lse[1], sizeof lse[0]) == 0);
    free(cache);
}

/* ---- drafts ------------------------------------------------------------------------------ */

/* A tree of drafts is followed down the branch that the target takes, and kv_copy brings its
 * nodes together. */
static void a_tree_of_drafts(void) {
    enum { VOCAB = 4, NODES = 5 };
    /* The root, two that follow it, and one after each of these. */
    const uint32_t start[] = {0, NODES}, tokens[NODES] = {0, 1, 2, 3, 3}, parents[NODES] = {PW_NONE, 0, 0, 1, 2};
    const uint32_t places[NODES][2] = {{1, 2}, {1, 3}, {4, 0}, {4, 1}, {4, 2}}, sampled[NODES] = {2, 0, 3, 0, 1};
    float target[NODES][VOCAB] = {{0}};
    for (int node = 0; node < NODES; node++) target[node][sampled[node]] = 1;
    for (uint32_t mode = PW_VERIFY_GREEDY; mode <= PW_VERIFY_TOKENS; mode++) {
        const int tokens_alone = mode == PW_VERIFY_TOKENS;
        uint32_t path[NODES], accepted = 7, next = 7, status = 7, entries[NODES][5], count = 7;
        const pw_verify_request request = {.seed = 1, .position = 9};
        const pw_spec_verify_desc desc = {.struct_size = sizeof desc, .seqs_max = 2, .target_row_stride = tokens_alone ? 0 : VOCAB * 4,
                                          .nodes_max = 8, .vocab = VOCAB, .mode = mode, .tree = 1, .places = 1};
        pw_spec_verify_args args = {.struct_size = sizeof args, .tokens = tokens, .parents = parents, .target = tokens_alone ? NULL : target[0],
                                    .sampled = tokens_alone ? sampled : NULL, .requests = mode == PW_VERIFY_REJECTION ? &request : NULL,
                                    .places = places[0], .path = path, .accepted = &accepted, .next = &next, .status = &status,
                                    .entries = entries[0], .count = &count};
        STEP(spec_verify, desc, args, 1, start);
        CLAIM(accepted == 3 && path[0] == 0 && path[1] == 2 && path[2] == 4 && next == 1 && status == PW_ROW_OK && count == 2);
        /* Node 2 goes where node 1 was, node 4 where node 2 was. */
        const uint32_t right[2][5] = {{4, 0, 1, 3, 1}, {4, 2, 4, 0, 1}};
        CLAIM(memcmp(entries, right, sizeof right) == 0);
        struct cache *cache = calloc(1, sizeof *cache);
        cache->keys[4][0][0][0] = 2, cache->keys[4][2][0][0] = 4, cache->values[4][2][1][7] = 5;
        copied(cache, entries[0], count);
        CLAIM(cache->keys[1][3][0][0] == 2 && cache->keys[4][0][0][0] == 4 && cache->values[4][0][1][7] == 5);
        free(cache);
        /* No sequence: nothing is moved. */
        pw_needs needs = {.struct_size = sizeof needs};
        CLAIM(pw_spec_verify_query(device, &desc, &needs, &error) == PW_OK);
        args.run = room_of(needs);
        CLAIM(pw_spec_verify_plan(device, &desc, 0, start, (void *)args.run.plan, needs.plan_bytes, &error) == PW_OK);
        CLAIM(pw_spec_verify_run(device, &desc, &args, NULL, &error) == PW_OK && count == 0 && accepted == 3);
        drop(args.run);
    }
}

/* ---- tokens ------------------------------------------------------------------------------- */

/* A grammar's mask decides what is sampled, with the penalties and biases of its row; kept
 * tokens are those that were left. */
static void masked_and_sampled(void) {
    enum { VOCAB = 70, MASK = 3 };
    static uint8_t bytes[VOCAB];
    static uint64_t starts[VOCAB + 1];
    for (uint64_t i = 0; i < VOCAB; i++) bytes[i] = (uint8_t)('0' + i), starts[i + 1] = i + 1;
    const pw_vocabulary of = {.struct_size = sizeof of, .tokens = VOCAB, .bytes = bytes, .starts = starts};
    pw_grammars *grammars = NULL;
    pw_matcher *text = NULL;
    uint32_t mask[MASK], kept[MASK], token = 7, status = 7, count = 7;
    CLAIM(pw_grammars_create(&of, NULL, &grammars, &error) == PW_OK);
    CLAIM(pw_matcher_create(grammars, PW_SOURCE_REGEX, "[2-5]x|q", 8, &text, &error) == PW_OK);
    CLAIM(pw_matcher_mask(text, mask, MASK, &error) == PW_OK);

    float logits[VOCAB], processed = 0, raw = 0;
    for (int i = 0; i < VOCAB; i++) logits[i] = (float)i / 8;
    /* 5 was said twice, and costs 1 each time; q is banned; 3 is liked the more. */
    uint16_t counts[VOCAB] = {[5] = 1};
    const uint32_t one[] = {0, 1}, banned[] = {'q' - '0'}, liked[] = {3}, counted[] = {5};
    const float by[] = {0.5f};
    const pw_logit_mask_desc desc = {.struct_size = sizeof desc, .rows_max = 2, .row_stride = VOCAB * 4, .counts_stride = VOCAB * 2, .vocab = VOCAB,
                                     .masks = 1, .mask_words = MASK, .banned_max = 4, .bias_max = 4, .counted_max = 4, .slots = 1};
    const pw_logit_mask_row asks = {.mask = 0, .action = PW_NONE, .slot = 0, .temperature = 0.5f, .repetition = 1, .frequency = 1};
    const pw_logit_mask_lens lens = {.struct_size = sizeof lens, .rows = 1, .banned_starts = one, .bias_starts = one, .counted_starts = one};
    pw_logit_mask_args args = {.struct_size = sizeof args, .logits = logits, .settings = &asks, .masks = mask, .banned = banned,
                               .bias_tokens = liked, .bias_values = by, .counted = counted, .counts = counts};
    STEP(logit_mask, desc, args, &lens);
    CLAIM(counts[5] == 2);
    for (int i = 0; i < VOCAB; i++) {
        const float right = i == 3 ? 2 * (3.0f / 8 + 0.5f) : i == 5 ? 2 * (5.0f / 8 - 2) : i == 2 || i == 4 ? (float)i / 4 : -INFINITY;
        CLAIM(logits[i] == right || near(logits[i], right));
    }
    const pw_sample_desc draw = {.struct_size = sizeof draw, .rows_max = 2, .row_stride = VOCAB * 4, .vocab = VOCAB, .kept_words = MASK};
    const pw_sample_row how = {.seed = 3, .position = 1, .temperature = 1, .top_k = 2, .top_p = 1};
    pw_sample_args drawn = {.struct_size = sizeof drawn, .logits = logits, .settings = &how, .token = &token, .status = &status,
                            .raw_logprob = &raw, .processed_logprob = &processed, .kept = kept, .kept_count = &count};
    STEP(sample, draw, drawn, 1);
    CLAIM(status == PW_ROW_OK && (token == 3 || token == 4) && count == 2);
    CLAIM(kept[0] == (1u << 3 | 1u << 4) && kept[1] == 0 && kept[2] == 0);
    const double both = log(exp(logits[3]) + exp(logits[4]));
    CLAIM(near(processed, logits[token] - both));
    /* The mask as sample reads the logits, of which it hides none from raw_logits. */
    const uint32_t row_masks[] = {PW_NONE, 0};
    const pw_sample_desc masked = {.struct_size = sizeof masked, .rows_max = 1, .row_stride = VOCAB * 4, .raw_row_stride = VOCAB * 4,
                                   .vocab = VOCAB, .kept_words = MASK, .masks = 1, .mask_words = MASK};
    const pw_sample_row any = {.seed = 3, .position = 1, .temperature = 1, .top_p = 1};
    double left = 0, all = 0;
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = (float)i / 8;
        all += exp(logits[i]);
        left += mask[i / 32] >> (i % 32) & 1 ? exp(logits[i]) : 0;
    }
    drawn.raw_logits = logits, drawn.settings = &any, drawn.masks = mask, drawn.row_masks = row_masks;
    STEP(sample, masked, drawn, 1);
    CLAIM(status == PW_ROW_OK && memcmp(kept, mask, sizeof mask) == 0 && mask[token / 32] >> (token % 32) & 1);
    CLAIM(near(raw, logits[token] - log(all)) && near(processed, logits[token] - log(left)));
    const uint32_t taken[] = {token};
    CLAIM(pw_matcher_accept(text, taken, 1, &error) == PW_OK);
    pw_matcher_destroy(text);
    pw_grammars_destroy(grammars);
}

/* token_logprob has the bits of matmul and sample. */
static void the_same_bits(void) {
    enum { VOCAB = 300, IN = 96, TALL = 5 };
    static float x[TALL][IN], weight[VOCAB][IN], logits[TALL][VOCAB];
    float raw[TALL], logprob[TALL];
    uint32_t token[TALL], status[TALL];
    pw_sample_row how[TALL];
    for (int i = 0; i < TALL * IN; i++) x[i / IN][i % IN] = number(i);
    for (int i = 0; i < VOCAB * IN; i++) weight[i / IN][i % IN] = number(3 * i + 1);
    const pw_weight of = {VOCAB, IN, PW_BF16, PW_SCHEME_NONE, 0, 0};
    const pw_rows rows = {.struct_size = sizeof rows, .dtype = PW_F32, .count = VOCAB, .values = weight};
    uint64_t bytes = 0;
    CLAIM(pw_weight_bytes(&of, &bytes, &error) == PW_OK);
    void *packed = aligned_alloc(LINE, bytes);
    CLAIM(pw_weight_pack(&of, &rows, packed, bytes, &error) == PW_OK);
    const pw_matmul_desc product = {.struct_size = sizeof product, .rows_max = TALL, .x_row_stride = sizeof x[0],
                                    .out_row_stride = sizeof logits[0], .weight = of, .x_dtype = PW_F32, .out_dtype = PW_F32};
    pw_matmul_args to_logits = {.struct_size = sizeof to_logits, .x = x, .weight = packed, .out = logits};
    STEP(matmul, product, to_logits, TALL);
    for (int i = 0; i < TALL; i++) how[i] = (pw_sample_row){.seed = 1, .position = (uint32_t)i, .temperature = 1, .top_p = 1};
    const pw_sample_desc draw = {.struct_size = sizeof draw, .rows_max = TALL, .row_stride = sizeof logits[0], .vocab = VOCAB};
    pw_sample_args drawn = {.struct_size = sizeof drawn, .logits = logits[0], .settings = how, .token = token, .status = status, .raw_logprob = raw};
    STEP(sample, draw, drawn, TALL);
    const pw_token_logprob_desc desc = {.struct_size = sizeof desc, .rows_max = TALL, .x_row_stride = sizeof x[0], .weight = of, .x_dtype = PW_F32};
    pw_token_logprob_args args = {.struct_size = sizeof args, .x = x, .weight = packed, .token = token, .logprob = logprob, .status = status};
    STEP(token_logprob, desc, args, TALL);
    CLAIM(memcmp(raw, logprob, sizeof raw) == 0);
    free(packed);
}

/* ---- lengths that no caller should send ----------------------------------------------------- */

static _Alignas(LINE) unsigned char plan_room[1024];

#define PLANNED(stem, desc, ...) pw_##stem##_plan(device, &(desc), __VA_ARGS__, plan_room, sizeof plan_room, &error)

static void lengths_refused(void) {
    const uint32_t down[] = {0, 2, 1}, up[] = {0, 1, 2}, far[] = {0, 1, 99}, two[] = {2, 2}, late[] = {1, 1, 2};
    pw_varlen_mask_desc varlen = {.struct_size = sizeof varlen, .rows_max = 4, .seqs_max = 2, .documents_max = 2, .tree = 1};
    const pw_varlen_mask_lens full = {.struct_size = sizeof full, .seqs = 2, .row_start = up, .lengths = two, .document_start = up,
                                      .documents = (uint32_t[]){0, 0}, .tree_nodes = (uint32_t[]){0, 1}};
    CLAIM(PLANNED(varlen_mask, varlen, &full) == PW_OK);
#define VARLEN(change, status, field)                                                   \
    do {                                                                                \
        pw_varlen_mask_lens lens = full;                                                \
        change;                                                                         \
        CLAIM(PLANNED(varlen_mask, varlen, &lens) == status && names(field));           \
    } while (0)
    VARLEN(lens.seqs = 3, PW_E_ARGUMENT, "seqs");
    VARLEN(lens.row_start = NULL, PW_E_NULL, "row_start");
    VARLEN(lens.row_start = down, PW_E_ARGUMENT, "row_start");
    VARLEN(lens.row_start = far, PW_E_ARGUMENT, "row_start");
    VARLEN(lens.lengths = NULL, PW_E_NULL, "lengths");
    VARLEN(lens.document_start = NULL, PW_E_NULL, "document_start");
    VARLEN(lens.document_start = far, PW_E_ARGUMENT, "document_start");
    VARLEN(lens.documents = NULL, PW_E_NULL, "documents");
    VARLEN(lens.tree_nodes = NULL, PW_E_NULL, "tree_nodes");
    varlen.documents_max = 0;
    VARLEN(lens.document_start = NULL, PW_E_ARGUMENT, "documents");
    VARLEN(lens.documents = NULL, PW_E_ARGUMENT, "document_start");
    varlen.tree = 0;
    VARLEN(lens.documents = lens.document_start = NULL, PW_E_ARGUMENT, "tree_nodes");

    pw_logit_mask_desc mask = {.struct_size = sizeof mask, .rows_max = 2, .row_stride = 40, .counts_stride = 20, .vocab = 10, .banned_max = 2,
                               .bias_max = 2, .counted_max = 2, .slots = 1};
    const pw_logit_mask_lens lists = {.struct_size = sizeof lists, .rows = 2, .banned_starts = up, .bias_starts = up, .counted_starts = up};
    CLAIM(PLANNED(logit_mask, mask, &lists) == PW_OK);
    const struct { const char *field; size_t starts, most; } list[] = {
        {"banned_starts", offsetof(pw_logit_mask_lens, banned_starts), offsetof(pw_logit_mask_desc, banned_max)},
        {"bias_starts", offsetof(pw_logit_mask_lens, bias_starts), offsetof(pw_logit_mask_desc, bias_max)},
        {"counted_starts", offsetof(pw_logit_mask_lens, counted_starts), offsetof(pw_logit_mask_desc, counted_max)}};
    for (int i = 0; i < 3; i++) {
        pw_logit_mask_desc without = mask;
        pw_logit_mask_lens lens = lists;
        const uint32_t **starts = (const uint32_t **)(void *)((char *)&lens + list[i].starts);
        *(uint32_t *)(void *)((char *)&without + list[i].most) = 0;
        CLAIM(PLANNED(logit_mask, without, &lens) == PW_E_ARGUMENT && names(list[i].field));
        *starts = NULL;
        CLAIM(PLANNED(logit_mask, mask, &lens) == PW_E_NULL && names(list[i].field) && PLANNED(logit_mask, without, &lens) == PW_OK);
        *starts = down;
        CLAIM(PLANNED(logit_mask, mask, &lens) == PW_E_ARGUMENT && names(list[i].field));
        *starts = far;
        CLAIM(PLANNED(logit_mask, mask, &lens) == PW_E_ARGUMENT && names(list[i].field) && error.expected == 2 && error.got == 99);
    }

    pw_append_kv_desc append = {.struct_size = sizeof append, .rows_max = 2, .kv = layout(), .k_row_stride = ROW * 4, .v_row_stride = ROW * 4,
                                .slots_max = 3, .x_dtype = PW_F32};
    const struct { const uint32_t *starts; pw_status status; } slots[] = {
        {up, PW_OK}, {NULL, PW_OK}, {down, PW_E_ARGUMENT}, {far, PW_E_ARGUMENT}, {(uint32_t[]){0, 0, 0}, PW_OK}};
    for (int i = 0; i < 5; i++) {
        const pw_append_kv_lens lens = {.struct_size = sizeof lens, .rows = 2, .slot_starts = slots[i].starts};
        CLAIM(PLANNED(append_kv, append, &lens) == slots[i].status && (slots[i].status == PW_OK || names("slot_starts")));
    }
    append.slots_max = 1;
    const pw_append_kv_lens each_one = {.struct_size = sizeof each_one, .rows = 2};
    CLAIM(PLANNED(append_kv, append, &each_one) == PW_E_ARGUMENT && names("rows"));

    const pw_pool_desc pool = {.struct_size = sizeof pool, .rows_max = 4, .x_row_stride = 8, .out_row_stride = 8, .seqs_max = 2, .columns = 2,
                               .kind = PW_POOL_FIRST, .x_dtype = PW_F32};
    CLAIM(PLANNED(pool, pool, 2, up) == PW_OK && PLANNED(pool, pool, 2, late) == PW_OK);
    CLAIM(PLANNED(pool, pool, 3, up) == PW_E_ARGUMENT && names("seqs"));
    CLAIM(PLANNED(pool, pool, 2, NULL) == PW_E_NULL && names("starts"));
    CLAIM(PLANNED(pool, pool, 2, down) == PW_E_ARGUMENT && names("starts"));
    CLAIM(PLANNED(pool, pool, 1, (uint32_t[]){0, 0}) == PW_E_ARGUMENT && names("starts"));

    pw_spec_verify_desc verify = {.struct_size = sizeof verify, .seqs_max = 2, .nodes_max = 4, .vocab = 4, .mode = PW_VERIFY_TOKENS};
    CLAIM(PLANNED(spec_verify, verify, 2, up) == PW_OK);
    CLAIM(PLANNED(spec_verify, verify, 2, NULL) == PW_E_NULL && names("node_start"));
    CLAIM(PLANNED(spec_verify, verify, 2, down) == PW_E_ARGUMENT && names("node_start"));
    CLAIM(PLANNED(spec_verify, verify, 2, far) == PW_E_ARGUMENT && names("node_start"));
    verify.target_row_stride = 16;
    CLAIM(pw_spec_verify_query(device, &verify, NULL, &error) == PW_E_ARGUMENT && names("target_row_stride"));
    verify.mode = PW_VERIFY_GREEDY, verify.target_row_stride = 0;
    CLAIM(pw_spec_verify_query(device, &verify, NULL, &error) == PW_E_ARGUMENT && names("target_row_stride"));

    pw_attention_desc padded = attention(0);
    padded.page_table = PW_PAGES_PADDED;
    CLAIM(pw_attention_query(device, &padded, NULL, &error) == PW_E_ARGUMENT && names("page_ids_max"));
    padded.page_ids_max = 0;
    CLAIM(pw_attention_query(device, &padded, NULL, &error) == PW_E_ARGUMENT && names("table_width"));
    padded.table_width = 3;
    pw_attention_lens lens = {.struct_size = sizeof lens, .seqs = 2, .q_start = up, .kv_len = two, .page_start = up};
    CLAIM(PLANNED(attention, padded, &lens) == PW_E_ARGUMENT && names("page_start"));
    lens.page_start = NULL;
    CLAIM(PLANNED(attention, padded, &lens) == PW_OK);
    const pw_attention_desc listed = attention(0);
    CLAIM(PLANNED(attention, listed, &lens) == PW_E_NULL && names("page_start"));
    lens.page_start = up, lens.seqs = 3;
    CLAIM(PLANNED(attention, listed, &lens) == PW_E_ARGUMENT && names("seqs"));
    lens.seqs = 2, lens.q_start = down;
    CLAIM(PLANNED(attention, listed, &lens) == PW_E_ARGUMENT && names("q_start"));
    lens.q_start = up, lens.page_start = far;
    CLAIM(PLANNED(attention, listed, &lens) == PW_E_ARGUMENT && names("page_start"));
}

int main(void) {
    CLAIM(pw_device_open("cpu", 3, &(pw_device_options){.struct_size = sizeof(pw_device_options), .threads = 2}, &device, &error) == PW_OK);
    written_and_read();
    intervals_are_causal();
    a_tree_of_drafts();
    masked_and_sampled();
    the_same_bits();
    lengths_refused();
    pw_device_destroy(device);
    puts("steps: ok");
    return 0;
}
