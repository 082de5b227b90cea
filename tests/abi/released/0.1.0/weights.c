/* What is made once on the host: packed weights, adapters and tables of turns, each against
 * plain loops over what they were made of. */
#include "kernel.h"
#include <math.h>

static const pw_device *device;

static uint32_t dice(uint32_t sides) {
    static uint64_t seed = 0x9e3779b97f4a7c15;
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed >> 33) % sides;
}

/* A number that f16 and bf16 have too, so that only sums round. */
static float small(void) { return ((float)dice(255) - 127) / 64; }

static uint16_t half_of(float value, pw_dtype dtype) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (dtype == PW_BF16) return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    /* Of the small numbers above, and of 0: nothing is lost. */
    return value == 0 ? 0 : (uint16_t)((bits >> 16 & 0x8000) | (((bits >> 23 & 0xff) - 112) << 10) | (bits >> 13 & 0x3ff));
}

/* Floats as their type has them. */
static void *stored(const float *values, size_t count, pw_dtype dtype) {
    if (dtype == PW_F32) return copy(values, 4 * count);
    uint16_t *to = room(2 * count);
    for (size_t i = 0; i < count; i++) to[i] = half_of(values[i], dtype);
    return to;
}

/* ---- matmul ---------------------------------------------------------------------------- */

enum { OUTPUTS = 70, INPUTS = 256, ROWS = 5 };

/* A weight as a checkpoint has it, and the numbers that it means. */
struct checkpoint {
    pw_weight weight;
    pw_rows rows;
    float (*means)[INPUTS];
};

static struct checkpoint checkpoint_of(pw_weight weight, pw_dtype from) {
    struct checkpoint made = {.weight = weight, .means = malloc(OUTPUTS * sizeof *made.means)};
    const size_t all = OUTPUTS * INPUTS, groups = weight.group ? all / weight.group : 0;
    made.rows = (pw_rows){.struct_size = sizeof(pw_rows), .count = OUTPUTS};
    float *means = &made.means[0][0];
    if (!groups) {
        for (size_t i = 0; i < all; i++) means[i] = small();
        made.rows.dtype = from;
        made.rows.values = stored(means, all, from);
        return made;
    }
    const int affine = weight.scheme == PW_SCHEME_AFFINE, nibbles = weight.dtype == PW_I4, sides = nibbles ? 16 : 256;
    uint8_t *numbers = calloc(1, all);
    float *scales = malloc(4 * groups), *biases = malloc(4 * groups);
    for (size_t i = 0; i < groups; i++) scales[i] = small() / 16, biases[i] = affine ? small() : 0;
    for (size_t i = 0; i < all; i++) {
        const int bits = (int)dice((uint32_t)sides), number = affine || bits < sides / 2 ? bits : bits - sides;
        if (nibbles) numbers[i / 2] |= (uint8_t)(bits << 4 * (i % 2));
        else numbers[i] = (uint8_t)bits;
        means[i] = (float)number * scales[i / weight.group] + biases[i / weight.group];
    }
    made.rows.values = numbers;
    made.rows.scales = stored(scales, groups, weight.scale_dtype);
    if (affine) made.rows.biases = stored(biases, groups, weight.scale_dtype);
    free(scales);
    free(biases);
    return made;
}

static void drop(struct checkpoint *of) {
    free((void *)of->rows.values);
    free((void *)of->rows.scales);
    free((void *)of->rows.biases);
    free(of->means);
}

static uint64_t bits_of(pw_dtype dtype) { return dtype == PW_F32 ? 32 : dtype == PW_I8 ? 8 : dtype == PW_I4 ? 4 : 16; }

static const void *past(const void *from, uint64_t numbers, uint64_t bits) {
    return from ? (const char *)from + numbers * bits / 8 : NULL;
}

/* Outputs from first on. */
static pw_rows part(const struct checkpoint *of, uint32_t first, uint32_t count) {
    pw_rows rows = of->rows;
    const uint64_t before = (uint64_t)first * INPUTS, groups = of->weight.group ? before / of->weight.group : 0;
    rows.first = first;
    rows.count = count;
    rows.values = past(rows.values, before, bits_of(of->weight.group ? of->weight.dtype : rows.dtype));
    rows.scales = past(rows.scales, groups, bits_of(of->weight.scale_dtype));
    rows.biases = past(rows.biases, groups, bits_of(of->weight.scale_dtype));
    return rows;
}

/* How far the library may be off: sums of f32 in any order lose a bit an addition at most; with
 * whole numbers x is rounded to a 127th of the largest of its group, up to a half either way. */
static double tolerance(const struct checkpoint *of, const float *x, int output) {
    double sum = 0, rounded = 0;
    const uint32_t len = of->weight.group ? of->weight.group : INPUTS;
    for (uint32_t first = 0; first < INPUTS; first += len) {
        double most = 0, weights = 0;
        for (uint32_t i = first; i < first + len; i++) {
            sum += fabs(x[i] * of->means[output][i]);
            most = fmax(most, fabs(x[i]));
            weights += fabs(of->means[output][i]);
        }
        rounded += most / 127 / 2 * weights;
    }
    /* Numbers and biases are summed apart, and may all but cancel: hence four times. */
    return 4 * INPUTS * 6e-8 * (sum + 1) + (of->weight.group ? 1.01 * rounded + 4 * 1e-5 * sum : 0);
}

static void product(const struct checkpoint *of, const void *packed) {
    static float x[ROWS][INPUTS], out[ROWS][OUTPUTS];
    pw_matmul_desc desc = {.struct_size = sizeof desc, .rows_max = ROWS, .x_row_stride = sizeof x[0], .out_row_stride = sizeof out[0],
                           .weight = of->weight, .x_dtype = PW_F32, .out_dtype = PW_F32};
    pw_needs needs = {.struct_size = sizeof needs};
    for (int i = 0; i < ROWS * INPUTS; i++) x[i / INPUTS][i % INPUTS] = small();
    CLAIM(pw_matmul_query(device, &desc, &needs, &error) == PW_OK);
    void *plan = aligned_alloc(LINE, (needs.plan_bytes + LINE - 1) / LINE * LINE);
    void *workspace = aligned_alloc(LINE, (needs.workspace_bytes + LINE) / LINE * LINE);
    pw_matmul_args args = {.struct_size = sizeof args, .x = x, .weight = packed, .out = out,
                           .run = {plan, needs.plan_bytes, workspace, needs.workspace_bytes}};
    CLAIM(pw_matmul_plan(device, &desc, ROWS, plan, needs.plan_bytes, &error) == PW_OK);
    CLAIM(pw_matmul_run(device, &desc, &args, NULL, &error) == PW_OK);
    for (int row = 0; row < ROWS; row++) {
        for (int output = 0; output < OUTPUTS; output++) {
            double right = 0;
            for (int i = 0; i < INPUTS; i++) right += (double)x[row][i] * of->means[output][i];
            CLAIM(fabs(out[row][output] - right) <= tolerance(of, x[row], output));
        }
    }
    free(plan);
    free(workspace);
}

static void packed_and_multiplied(void) {
    const struct { pw_dtype from; pw_weight weight; } all[] = {
        {PW_F32, {OUTPUTS, INPUTS, PW_F32, PW_SCHEME_NONE, 0, 0}},
        {PW_F32, {OUTPUTS, INPUTS, PW_F16, PW_SCHEME_NONE, 0, 0}},
        {PW_F32, {OUTPUTS, INPUTS, PW_BF16, PW_SCHEME_NONE, 0, 0}},
        {PW_F16, {OUTPUTS, INPUTS, PW_BF16, PW_SCHEME_NONE, 0, 0}},
        {PW_BF16, {OUTPUTS, INPUTS, PW_F32, PW_SCHEME_NONE, 0, 0}},
        {PW_BF16, {OUTPUTS, INPUTS, PW_BF16, PW_SCHEME_NONE, 0, 0}},
        {0, {OUTPUTS, INPUTS, PW_I8, PW_SCHEME_AFFINE, 32, PW_F32}},
        {0, {OUTPUTS, INPUTS, PW_I8, PW_SCHEME_SYMMETRIC, 128, PW_F16}},
        {0, {OUTPUTS, INPUTS, PW_I4, PW_SCHEME_AFFINE, 64, PW_BF16}},
        {0, {OUTPUTS, INPUTS, PW_I4, PW_SCHEME_SYMMETRIC, 32, PW_F32}}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct checkpoint of = checkpoint_of(all[i].weight, all[i].from);
        uint64_t bytes = 0;
        CLAIM(pw_weight_bytes(&of.weight, &bytes, &error) == PW_OK && bytes % LINE == 0);
        /* 70 outputs take three tiles of 32. */
        CLAIM(bytes >= 96 * INPUTS * bits_of(of.weight.dtype) / 8);
        unsigned char *whole = aligned_alloc(LINE, bytes), *parts = aligned_alloc(LINE, bytes);
        memset(whole, 0, bytes);
        memset(parts, 0, bytes);
        CLAIM(pw_weight_pack(&of.weight, &of.rows, whole, bytes, &error) == PW_OK);
        const uint32_t cuts[][2] = {{33, 7}, {0, 1}, {40, 30}, {1, 32}, {70, 0}};
        for (int cut = 0; cut < 5; cut++) {
            const pw_rows rows = part(&of, cuts[cut][0], cuts[cut][1]);
            CLAIM(pw_weight_pack(&of.weight, &rows, parts, bytes, &error) == PW_OK);
        }
        CLAIM(memcmp(whole, parts, bytes) == 0);
        product(&of, whole);
        /* Rows may lie at any address, and none but theirs is written. */
        char *odd = malloc(OUTPUTS * INPUTS * 4 + 1);
        memcpy(odd + 1, of.rows.values, OUTPUTS * INPUTS * bits_of(all[i].from ? all[i].from : of.weight.dtype) / 8);
        pw_rows rows = of.rows;
        rows.values = odd + 1;
        memset(parts, 0, bytes);
        CLAIM(pw_weight_pack(&of.weight, &rows, parts, bytes, &error) == PW_OK && memcmp(whole, parts, bytes) == 0);
        memset(parts, 0xa5, bytes);
        rows = part(&of, 32, 0);
        CLAIM(pw_weight_pack(&of.weight, &rows, parts, bytes, &error) == PW_OK);
        rows = part(&of, 0, 32);
        CLAIM(pw_weight_pack(&of.weight, &rows, parts, bytes, &error) == PW_OK);
        for (uint64_t at = bytes / 3; at < bytes; at++) CLAIM(parts[at] == 0xa5);
        CLAIM(memcmp(whole, parts, bytes / 3) == 0);
        free(odd);
        free(whole);
        free(parts);
        drop(&of);
    }
}

/* Floats are rounded to the nearest, a tie to the even one. */
static void rounded(void) {
    static const float from[] = {1.00390625f, 1.01171875f, -1.0f / 3, 3e38f, 1e-40f, 0};
    uint16_t nearest[6];
    for (int i = 0; i < 6; i++) nearest[i] = half_of(from[i], PW_BF16);
    CLAIM(nearest[0] == 0x3f80 && nearest[1] == 0x3f82);
    const float halves[] = {1.0f / 3, 65504, 1e-9f, 1.00048828125f, 1.00146484375f, -2};
    const uint16_t f16[] = {0x3555, 0x7bff, 0, 0x3c00, 0x3c02, 0xc000};
    const struct { pw_dtype to; const float *floats; const uint16_t *right; } rows[] = {{PW_BF16, from, nearest}, {PW_F16, halves, f16}};
    for (int i = 0; i < 2; i++) {
        const pw_weight weight = {1, 6, rows[i].to, PW_SCHEME_NONE, 0, 0};
        pw_rows given = {.struct_size = sizeof given, .dtype = PW_F32, .count = 1, .values = rows[i].floats};
        unsigned char *one = aligned_alloc(LINE, 384), *two = aligned_alloc(LINE, 384);
        memset(one, 0, 384);
        memset(two, 0, 384);
        CLAIM(pw_weight_pack(&weight, &given, one, 384, &error) == PW_OK);
        given.dtype = rows[i].to;
        given.values = rows[i].right;
        CLAIM(pw_weight_pack(&weight, &given, two, 384, &error) == PW_OK && memcmp(one, two, 384) == 0);
        free(one);
        free(two);
    }
}

static void weights_refused(void) {
    struct checkpoint floats = checkpoint_of((pw_weight){OUTPUTS, INPUTS, PW_F32, PW_SCHEME_NONE, 0, 0}, PW_F32),
                      groups = checkpoint_of((pw_weight){OUTPUTS, INPUTS, PW_I8, PW_SCHEME_AFFINE, 64, PW_F32}, 0),
                      signs = checkpoint_of((pw_weight){OUTPUTS, INPUTS, PW_I4, PW_SCHEME_SYMMETRIC, 64, PW_F32}, 0);
    uint64_t bytes = 0;
    CLAIM(pw_weight_bytes(NULL, &bytes, &error) == PW_E_NULL && names("weight"));
    CLAIM(pw_weight_bytes(&floats.weight, NULL, &error) == PW_E_NULL && names("bytes"));
    CLAIM(pw_weight_bytes(&floats.weight, &bytes, &error) == PW_OK);
    char *packed = aligned_alloc(LINE, bytes);
    memset(packed, 0xa5, bytes);
    CLAIM(pw_weight_pack(NULL, &floats.rows, packed, bytes, &error) == PW_E_NULL && names("weight"));
    CLAIM(pw_weight_pack(&floats.weight, NULL, packed, bytes, &error) == PW_E_NULL && names("rows"));
    CLAIM(pw_weight_pack(&floats.weight, &floats.rows, NULL, bytes, &error) == PW_E_NULL && names("packed"));
    CLAIM(pw_weight_pack(&floats.weight, &floats.rows, packed, bytes - 1, &error) == PW_E_SPACE && names("packed"));
    CLAIM(error.expected == (int64_t)bytes && error.got == (int64_t)bytes - 1);
    CLAIM(pw_weight_pack(&floats.weight, &floats.rows, packed + 4, bytes, &error) == PW_E_ALIGN && names("packed"));

    const float nan[OUTPUTS * INPUTS / 64] = {[3] = NAN};
    const struct { const char *field; const struct checkpoint *of; pw_status as; pw_rows rows; } wrong[] = {
        {"rows", &floats, PW_E_SIZE, {.struct_size = 4}},
        {"first", &floats, PW_E_ARGUMENT, {.dtype = PW_F32, .first = OUTPUTS + 1, .count = 1, .values = packed}},
        {"count", &floats, PW_E_ARGUMENT, {.dtype = PW_F32, .first = OUTPUTS, .count = 1, .values = packed}},
        {"count", &floats, PW_E_ARGUMENT, {.dtype = PW_F32, .first = 1, .count = PW_NONE, .values = packed}},
        {"dtype", &floats, PW_E_UNSUPPORTED, {.dtype = PW_I8, .count = 1, .values = floats.rows.values}},
        {"dtype", &floats, PW_E_ARGUMENT, {.dtype = 99, .count = 1, .values = floats.rows.values}},
        {"values", &floats, PW_E_NULL, {.dtype = PW_F32, .count = 1}},
        {"scales", &floats, PW_E_ARGUMENT, {.dtype = PW_F32, .count = 1, .values = floats.rows.values, .scales = nan}},
        {"biases", &floats, PW_E_ARGUMENT, {.dtype = PW_F32, .count = 1, .values = floats.rows.values, .biases = nan}},
        {"packed", &floats, PW_E_ARGUMENT, {.dtype = PW_F32, .count = 1, .values = packed + 16}},
        {"dtype", &groups, PW_E_ARGUMENT, {.dtype = PW_F32, .count = 1, .values = groups.rows.values}},
        {"scales", &groups, PW_E_NULL, {.count = 1, .values = groups.rows.values, .biases = groups.rows.biases}},
        {"biases", &groups, PW_E_NULL, {.count = 1, .values = groups.rows.values, .scales = groups.rows.scales}},
        {"scales", &groups, PW_E_ARGUMENT, {.count = 1, .values = groups.rows.values, .scales = nan, .biases = groups.rows.biases}},
        {"biases", &groups, PW_E_ARGUMENT, {.count = 1, .values = groups.rows.values, .scales = groups.rows.scales, .biases = nan}},
        {"biases", &signs, PW_E_ARGUMENT, {.count = 1, .values = signs.rows.values, .scales = signs.rows.scales, .biases = nan}}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        pw_rows rows = wrong[i].rows;
        if (!rows.struct_size) rows.struct_size = sizeof rows;
        CLAIM(pw_weight_pack(&wrong[i].of->weight, &rows, packed, bytes, &error) == wrong[i].as && names(wrong[i].field));
    }
    for (uint64_t at = 0; at < bytes; at++) CLAIM((unsigned char)packed[at] == 0xa5);

    const struct { const char *field; pw_weight weight; } bad[] = {
        {"weight.outputs", {0, 64, PW_F32, 0, 0, 0}}, {"weight.outputs", {(1 << 24) + 1, 64, PW_F32, 0, 0, 0}},
        {"weight.inputs", {1, 0, PW_F32, 0, 0, 0}}, {"weight.inputs", {1, (1 << 20) + 1, PW_F32, 0, 0, 0}},
        {"weight.inputs", {1, 96, PW_I8, 1, 64, PW_F32}}, {"weight.dtype", {1, 64, PW_E4M3, 0, 0, 0}},
        {"weight.dtype", {1, 64, 0, 0, 0, 0}}, {"weight.scheme", {1, 64, PW_F16, 1, 0, 0}},
        {"weight.scheme", {1, 64, PW_I8, 0, 64, PW_F32}}, {"weight.scheme", {1, 64, PW_I4, 3, 64, PW_F32}},
        {"weight.group", {1, 64, PW_BF16, 0, 64, 0}}, {"weight.group", {1, 64, PW_I8, 1, 16, PW_F32}},
        {"weight.scale_dtype", {1, 64, PW_F32, 0, 0, PW_F32}}, {"weight.scale_dtype", {1, 64, PW_I8, 1, 64, PW_I8}}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CLAIM(pw_weight_bytes(&bad[i].weight, &bytes, &error) < 0 && names(bad[i].field));
        CLAIM(pw_weight_pack(&bad[i].weight, &floats.rows, packed, bytes, &error) < 0 && names(bad[i].field));
    }
    free(packed);
    drop(&floats);
    drop(&groups);
    drop(&signs);
}

/* ---- lora ------------------------------------------------------------------------------ */

enum { SLOTS = 3, RANK_MAX = 32, WIDE = 45, HIGH = 70, TALL = 7 };

static void adapted(pw_dtype dtype, int magnified) {
    static float a[SLOTS][RANK_MAX][WIDE], b[SLOTS][HIGH][RANK_MAX], x[TALL][WIDE], out[TALL][HIGH], before[TALL][HIGH], magnitudes[SLOTS][HIGH];
    static const uint32_t ranks[SLOTS] = {5, 32, 16}, adapters[TALL] = {0, PW_NONE, 1, 1, 2, 0, PW_NONE};
    static const float scales[SLOTS] = {0.5f, 2, -1};
    pw_lora_desc desc = {.struct_size = sizeof desc, .rows_max = TALL, .x_row_stride = sizeof x[0], .out_row_stride = sizeof out[0],
                         .inputs = WIDE, .outputs = HIGH, .slots = SLOTS, .rank_max = RANK_MAX, .x_dtype = PW_F32, .weight_dtype = dtype};
    uint64_t a_bytes = 0, b_bytes = 0;
    CLAIM(pw_lora_bytes(&desc, &a_bytes, &b_bytes, &error) == PW_OK);
    char *a_slots = malloc(SLOTS * a_bytes), *b_slots = malloc(SLOTS * b_bytes);
    for (int slot = 0; slot < SLOTS; slot++) {
        const uint32_t rank = ranks[slot];
        float *down = malloc(4 * rank * WIDE), *up = malloc(4 * rank * HIGH);
        for (uint32_t i = 0; i < rank * WIDE; i++) down[i] = a[slot][i / WIDE][i % WIDE] = small();
        for (uint32_t i = 0; i < rank * HIGH; i++) up[i] = b[slot][i / rank][i % rank] = small();
        void *as_a = stored(down, rank * WIDE, dtype), *as_b = stored(up, rank * HIGH, dtype);
        CLAIM(pw_lora_pack(&desc, rank, as_a, as_b, a_slots + (uint64_t)slot * a_bytes, b_slots + (uint64_t)slot * b_bytes, &error) == PW_OK);
        free(as_a);
        free(as_b);
        free(down);
        free(up);
    }
    for (int i = 0; i < TALL * WIDE; i++) x[i / WIDE][i % WIDE] = small();
    for (int i = 0; i < TALL * HIGH; i++) before[i / HIGH][i % HIGH] = small();
    for (int i = 0; i < SLOTS * HIGH; i++) magnitudes[i / HIGH][i % HIGH] = small();
    memcpy(out, before, sizeof out);
    pw_needs needs = {.struct_size = sizeof needs};
    CLAIM(pw_lora_query(device, &desc, &needs, &error) == PW_OK);
    void *plan = aligned_alloc(LINE, (needs.plan_bytes + LINE) / LINE * LINE);
    void *workspace = aligned_alloc(LINE, (needs.workspace_bytes + LINE) / LINE * LINE);
    pw_lora_args args = {.struct_size = sizeof args, .run = {plan, needs.plan_bytes, workspace, needs.workspace_bytes}, .x = x,
                         .a = a_slots, .b = b_slots, .ranks = ranks, .scales = scales, .magnitudes = magnified ? magnitudes[0] : NULL,
                         .adapters = adapters, .out = out[0]};
    CLAIM(pw_lora_plan(device, &desc, TALL, plan, needs.plan_bytes, &error) == PW_OK);
    CLAIM(pw_lora_run(device, &desc, &args, NULL, &error) == PW_OK);
    for (int row = 0; row < TALL; row++) {
        for (int output = 0; output < HIGH; output++) {
            const uint32_t slot = adapters[row];
            double right = before[row][output], most = fabs(right);
            for (uint32_t rank = 0; slot != PW_NONE && rank < ranks[slot]; rank++) {
                double h = 0, h_most = 0;
                for (int i = 0; i < WIDE; i++) {
                    h += (double)x[row][i] * a[slot][rank][i];
                    h_most += fabs(x[row][i] * a[slot][rank][i]);
                }
                right += scales[slot] * h * b[slot][output][rank];
                most += fabs(scales[slot] * h_most * b[slot][output][rank]);
            }
            const double times = slot != PW_NONE && magnified ? magnitudes[slot][output] : 1;
            /* A bit of f32 an addition, of which there are so many in either product. */
            CLAIM(fabs(out[row][output] - right * times) <= (WIDE + RANK_MAX) * 6e-8 * most * fabs(times));
        }
    }

    /* What a step says of slots is looked at before anything is written. */
    const uint32_t beyond[TALL] = {0, SLOTS}, no_rank[SLOTS] = {5, 0, 16};
    const float no_scale[SLOTS] = {1, INFINITY, 1};
    memcpy(before, out, sizeof out);
    pw_lora_args wrong = args;
    wrong.adapters = beyond;
    CLAIM(pw_lora_run(device, &desc, &wrong, NULL, &error) == PW_E_ARGUMENT && names("adapters") && error.got == SLOTS);
    wrong = args, wrong.ranks = no_rank;
    CLAIM(pw_lora_run(device, &desc, &wrong, NULL, &error) == PW_E_ARGUMENT && names("ranks"));
    wrong = args, wrong.scales = no_scale;
    CLAIM(pw_lora_run(device, &desc, &wrong, NULL, &error) == PW_E_ARGUMENT && names("scales"));
    CLAIM(memcmp(before, out, sizeof out) == 0);

    CLAIM(pw_lora_bytes(NULL, &a_bytes, &b_bytes, &error) == PW_E_NULL && names("desc"));
    CLAIM(pw_lora_bytes(&desc, NULL, &b_bytes, &error) == PW_E_NULL && names("a_bytes"));
    CLAIM(pw_lora_bytes(&desc, &a_bytes, NULL, &error) == PW_E_NULL && names("b_bytes"));
    CLAIM(pw_lora_pack(NULL, 1, a, b, a_slots, b_slots, &error) == PW_E_NULL && names("desc"));
    CLAIM(pw_lora_pack(&desc, 0, a, b, a_slots, b_slots, &error) == PW_E_ARGUMENT && names("rank"));
    CLAIM(pw_lora_pack(&desc, RANK_MAX + 1, a, b, a_slots, b_slots, &error) == PW_E_ARGUMENT && names("rank") && error.expected == RANK_MAX);
    CLAIM(pw_lora_pack(&desc, 1, NULL, b, a_slots, b_slots, &error) == PW_E_NULL && names("a"));
    CLAIM(pw_lora_pack(&desc, 1, a, NULL, a_slots, b_slots, &error) == PW_E_NULL && names("b"));
    CLAIM(pw_lora_pack(&desc, 1, a, b, NULL, b_slots, &error) == PW_E_NULL && names("a_slot"));
    CLAIM(pw_lora_pack(&desc, 1, a, b, a_slots, NULL, &error) == PW_E_NULL && names("b_slot"));
    CLAIM(pw_lora_pack(&desc, 1, a, b, a_slots + 1, b_slots, &error) == PW_E_ALIGN && names("a_slot"));
    CLAIM(pw_lora_pack(&desc, 1, a, b, a_slots, a_slots, &error) == PW_E_ARGUMENT && names("b_slot"));
    desc.weight_dtype = PW_I8;
    CLAIM(pw_lora_bytes(&desc, &a_bytes, &b_bytes, &error) == PW_E_UNSUPPORTED && names("weight_dtype"));
    free(plan);
    free(workspace);
    free(a_slots);
    free(b_slots);
}

/* ---- rope tables ------------------------------------------------------------------------ */

enum { DIMS = 8, POSITIONS = 50 };
typedef float turns[POSITIONS][DIMS];

static pw_rope_table plain_table(void) {
    return (pw_rope_table){.struct_size = sizeof(pw_rope_table), .rotary_dims = DIMS, .base = 10000};
}

static void filled(const pw_rope_table *table, uint32_t first, turns rows) {
    CLAIM(pw_rope_table_fill(table, first, POSITIONS, rows[0], &error) == PW_OK);
}

/* One number that a scaling may have, with the value that it takes. */
struct given {
    const char *field;
    size_t at;
    uint32_t whole;
    double value;
};
#define WHOLE(field, value) {#field, offsetof(pw_rope_table, field), value, 0}
#define REAL(field, value) {#field, offsetof(pw_rope_table, field), 0, value}

static void set(pw_rope_table *table, const struct given *given) {
    if (given->whole) memcpy((char *)table + given->at, &given->whole, 4);
    else memcpy((char *)table + given->at, &given->value, 8);
}

static void every_scaling(void) {
    static const struct given fields[] = {WHOLE(original_positions, 16), WHOLE(positions, 32), WHOLE(truncate, 1), REAL(factor, 4),
                                          REAL(fast, 32), REAL(slow, 1), REAL(attention_factor, 1.5)};
    enum { FIELDS = sizeof fields / sizeof *fields };
    /* A letter for each field in order: - unused, + used, * has to be there. */
    static const char *const uses[] = {"-------", "---*---", "*+-*---", "*-+***+", "*--***-"};
    for (uint32_t scaling = 0; scaling < 5; scaling++) {
        pw_rope_table table = plain_table();
        turns rows;
        table.scaling = scaling;
        for (int i = 0; i < FIELDS; i++)
            if (uses[scaling][i] != '-') set(&table, &fields[i]);
        filled(&table, 0, rows);
        for (int i = 0; i < FIELDS; i++) {
            pw_rope_table other = table;
            if (uses[scaling][i] == '-') set(&other, &fields[i]);
            else memset((char *)&other + fields[i].at, 0, fields[i].whole ? 4 : 8);
            const pw_status status = pw_rope_table_fill(&other, 0, POSITIONS, rows[0], &error);
            if (uses[scaling][i] == '+') CLAIM(status == PW_OK);
            else CLAIM(status == PW_E_ARGUMENT && names(fields[i].field));
        }
    }
}

static void turned(void) {
    pw_rope_table table = plain_table();
    turns plain, other;
    filled(&table, 5, plain);
    for (int row = 0; row < POSITIONS; row++) {
        for (int pair = 0; pair < DIMS / 2; pair++) {
            const double angle = (row + 5) * pow(10000, -2.0 * pair / DIMS);
            /* Half a bit of f32 below 1, and what two libraries of f64 differ by. */
            CLAIM(fabs(plain[row][pair] - cos(angle)) < 6.1e-8 && fabs(plain[row][DIMS / 2 + pair] - sin(angle)) < 6.1e-8);
        }
    }
    /* Any part of a table is that part of it. */
    filled(&table, 6, other);
    CLAIM(memcmp(other, plain[1], sizeof other - sizeof *other) == 0);

    /* Slowed four times, position 4 n is where n was. */
    filled(&table, 0, plain);
    table.scaling = PW_ROPE_LINEAR, table.factor = 4;
    filled(&table, 0, other);
    for (int row = 0; 4 * row < POSITIONS; row++)
        for (int i = 0; i < DIMS; i++) CLAIM(fabs(other[4 * row][i] - plain[row][i]) < 1e-7);
    /* No further than it was trained, nothing changes; further, the base grows and pair 0 stays. */
    table.scaling = PW_ROPE_DYNAMIC, table.original_positions = 16, table.positions = 16;
    filled(&table, 0, other);
    CLAIM(memcmp(other, plain, sizeof other) == 0);
    table.positions = 64;
    filled(&table, 0, other);
    for (int row = 1; row < POSITIONS; row++) CLAIM(other[row][0] == plain[row][0] && other[row][4] == plain[row][4]);
    CLAIM(other[POSITIONS - 1][3] > plain[POSITIONS - 1][3]);
    /* The slowest pair takes all of the factor; cosines and sines take the other one. */
    table.positions = 0, table.scaling = PW_ROPE_LLAMA3, table.slow = 1, table.fast = 4;
    filled(&table, 0, other);
    for (int row = 0; row < POSITIONS; row++) CLAIM(fabs(other[row][7] - sin(row * pow(10000, -0.75) / 4)) < 6.1e-8);
    table.scaling = PW_ROPE_YARN, table.fast = 32, table.slow = 1, table.truncate = 1;
    for (int i = 0; i < 2; i++) {
        table.attention_factor = i ? 1.5 : 0;
        const double length = i ? 1.5 : 0.1 * log(4) + 1;
        filled(&table, 0, other);
        for (int row = 0; row < POSITIONS; row++)
            for (int pair = 0; pair < 4; pair++) CLAIM(fabs(hypot(other[row][pair], other[row][4 + pair]) - length) < 3e-7);
    }
}

static void tables_refused(void) {
    pw_rope_table table = plain_table();
    turns rows;
    CLAIM(pw_rope_table_fill(NULL, 0, 1, rows[0], &error) == PW_E_NULL && names("table"));
    CLAIM(pw_rope_table_fill(&table, 0, 1, NULL, &error) == PW_E_NULL && names("rows"));
    CLAIM(pw_rope_table_fill(&table, PW_NONE, 2, rows[0], &error) == PW_E_ARGUMENT && names("first"));
    CLAIM(pw_rope_table_fill(&table, PW_NONE, 1, rows[0], &error) == PW_OK);
    CLAIM(pw_rope_table_fill(&table, 0, 0, rows[0], &error) == PW_OK);
    const pw_rope_table yarn = {.struct_size = sizeof yarn, .rotary_dims = DIMS, .base = 10000, .scaling = PW_ROPE_YARN,
                                .original_positions = 16, .truncate = 1, .factor = 4, .fast = 32, .slow = 1};
    static const struct { uint32_t scaling; struct given given; } bad[] = {
        {0, WHOLE(struct_size, 63)}, {0, WHOLE(rotary_dims, 1)}, {0, WHOLE(rotary_dims, 7)}, {0, WHOLE(rotary_dims, 258)}, {0, REAL(base, 1)},
        {0, REAL(base, NAN)}, {0, REAL(base, INFINITY)}, {0, WHOLE(scaling, 5)}, {3, REAL(factor, 0.5)}, {3, REAL(factor, NAN)},
        {3, REAL(fast, -1)}, {3, REAL(slow, -1)}, {3, REAL(attention_factor, -1)}, {3, WHOLE(truncate, 2)}, {4, REAL(fast, 1)}, {4, REAL(slow, -1)}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        pw_rope_table wrong = bad[i].scaling ? yarn : table;
        if (bad[i].scaling == 4) wrong.scaling = 4, wrong.truncate = 0;
        set(&wrong, &bad[i].given);
        const pw_status status = pw_rope_table_fill(&wrong, 0, 1, rows[0], &error);
        if (i == 0) CLAIM(status == PW_E_SIZE && names("table"));
        else CLAIM(status == PW_E_ARGUMENT && names(bad[i].given.field));
    }
}

int main(void) {
    pw_device *opened = NULL;
    CLAIM(pw_device_open("cpu", 3, &(pw_device_options){.struct_size = sizeof(pw_device_options), .threads = 2}, &opened, &error) == PW_OK);
    device = opened;
    packed_and_multiplied();
    rounded();
    weights_refused();
    adapted(PW_F32, 0);
    adapted(PW_F32, 1);
    adapted(PW_BF16, 1);
    adapted(PW_F16, 0);
    every_scaling();
    turned();
    tables_refused();
    pw_device_destroy(opened);
    puts("weights: ok");
    return 0;
}
