/* A transformer decoder whose weights are drawn from a seed: 4 layers, bytes as tokens, whole
 * numbers of 8 bits as weights, keys and values in pages of bf16. */
#ifndef PAGEWISE_EXAMPLES_DECODER_HPP
#define PAGEWISE_EXAMPLES_DECODER_HPP

#include "library.hpp"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

constexpr uint32_t LAYERS = 4, HIDDEN = 256, HEADS = 8, KV_HEADS = 4, DIM = 32, FFN = 512;
constexpr uint32_t QKV = (HEADS + 2 * KV_HEADS) * DIM;
constexpr uint32_t END = 256, VOCAB = 257, WORDS = (VOCAB + 31) / 32; // bytes, and an end
constexpr uint32_t ROWS = 64, CONTEXT = 256, PAGE = 16, GROUP = 64;   // rows of a step at most
constexpr int64_t FLOAT = sizeof(float);

/* Whole numbers of 8 bits in groups, drawn from a seed, packed. */
struct Weight {
    pw_weight desc{};
    Room packed;

    Weight(uint32_t outputs, uint32_t inputs, float deviation, uint64_t &state) {
        desc.outputs = outputs;
        desc.inputs = inputs;
        desc.dtype = PW_I8;
        desc.scheme = PW_SCHEME_SYMMETRIC;
        desc.group = GROUP;
        desc.scale_dtype = PW_F32;
        uint64_t bytes = 0;
        call(pw_weight_bytes, &desc, &bytes);
        packed = room(bytes, 64);
        std::memset(packed.get(), 0, bytes); // outputs that fill no tile leave room, which is read
        std::vector<int8_t> values(uint64_t{outputs} * inputs);
        for (int8_t &value : values) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            value = static_cast<int8_t>(static_cast<int>(state >> 33) % 255 - 127);
        }
        // Numbers of -127 to 127, all alike, deviate by 73.6.
        const std::vector<float> scales(values.size() / GROUP, deviation / 73.6f);
        const pw_rows rows = make<pw_rows>([&](pw_rows &r) {
            r.count = outputs;
            r.values = values.data();
            r.scales = scales.data();
        });
        call(pw_weight_pack, &desc, &rows, packed.get(), bytes);
    }
};

struct Layer {
    Weight qkv, out, gate_up, down;
};

struct Model {
    uint64_t state = 2026;
    Weight embedding{VOCAB, HIDDEN, 1, state}, head{VOCAB, HIDDEN, 0.25f, state};
    std::vector<Layer> layers;
    std::vector<float> norm = std::vector<float>(HIDDEN, 1), turns = std::vector<float>(CONTEXT * DIM);

    Model() {
        const auto deviation = [](uint32_t inputs) { return 1 / std::sqrt(static_cast<float>(inputs)); };
        for (uint32_t layer = 0; layer < LAYERS; layer++)
            layers.push_back({{QKV, HIDDEN, deviation(HIDDEN), state},
                              {HIDDEN, HEADS * DIM, deviation(HIDDEN), state},
                              {2 * FFN, HIDDEN, deviation(HIDDEN), state},
                              {HIDDEN, FFN, deviation(FFN), state}});
        const auto table = make<pw_rope_table>([](pw_rope_table &t) { t.rotary_dims = DIM, t.base = 10000; });
        call(pw_rope_table_fill, &table, 0, CONTEXT, turns.data());
    }
};

/* The rows of a step: of each sequence its next tokens, and its drafts. */
struct Batch {
    std::vector<uint32_t> tokens, row_start{0}, lengths, page_start{0}, page_ids, slots;
    std::vector<uint32_t> wanted; // rows whose logits are
};

/* A product of rows with a weight. */
inline auto matmul(const Weight &weight) {
    return [&weight](pw_matmul_desc &d) {
        d.rows_max = ROWS, d.weight = weight.desc, d.x_dtype = d.out_dtype = PW_F32;
        d.x_row_stride = weight.desc.inputs * FLOAT, d.out_row_stride = weight.desc.outputs * FLOAT;
    };
}

/* The model's kernels, and its keys and values. */
class Decoder {
  public:
    Decoder(const Device &device, const Model &weights, uint32_t pages, uint32_t seqs)
        : model(weights), keys(LAYERS, std::vector<uint16_t>(uint64_t{pages} * PAGE * KV_HEADS * DIM)), values(keys),
          embed(device, [&](auto &d) {
              d.rows_max = ROWS, d.weight = model.embedding.desc, d.packed = 1, d.scale = 1;
              d.out_row_stride = HIDDEN * FLOAT, d.out_dtype = PW_F32;
          }),
          norm(device, [](auto &d) {
              d.rows_max = ROWS, d.heads = 1, d.columns = HIDDEN, d.epsilon = 1e-5f;
              d.x_row_stride = d.residual_row_stride = d.out_row_stride = HIDDEN * FLOAT;
              d.x_dtype = d.weight_dtype = d.out_dtype = PW_F32;
          }),
          to_qkv(device, matmul(model.layers[0].qkv)), to_out(device, matmul(model.layers[0].out)),
          to_gate_up(device, matmul(model.layers[0].gate_up)), to_down(device, matmul(model.layers[0].down)),
          to_logits(device, matmul(model.head)),
          rope(device, [](auto &d) {
              d.rows_max = ROWS, d.heads = HEADS, d.head_dim = d.rotary_dims = DIM, d.table_len = CONTEXT;
              d.pairing = PW_ROPE_NEOX, d.out_row_stride = QKV * FLOAT, d.x_dtype = d.out_dtype = PW_F32;
          }),
          append_kv(device, [&](auto &d) {
              d.rows_max = d.slots_max = ROWS, d.kv = layout(pages), d.x_dtype = PW_F32;
              d.k_row_stride = d.v_row_stride = QKV * FLOAT;
              d.rope = PW_ROPE_NEOX, d.rotary_dims = DIM, d.table_len = CONTEXT;
          }),
          varlen_mask(device, [&](auto &d) { d.rows_max = ROWS, d.seqs_max = seqs; }),
          attention(device, [&](auto &d) {
              d.rows_max = ROWS, d.seqs_max = seqs, d.kv_len_max = CONTEXT;
              d.page_ids_max = seqs * (CONTEXT / PAGE), d.page_table = PW_PAGES_LISTED;
              d.mask = PW_MASK_INTERVALS, d.kv = layout(pages), d.q_heads = HEADS;
              d.scale = 1 / std::sqrt(float{DIM});
              d.q_row_stride = QKV * FLOAT, d.out_row_stride = HIDDEN * FLOAT, d.q_dtype = d.out_dtype = PW_F32;
          }),
          activation(device, [](auto &d) {
              d.rows_max = ROWS, d.columns = d.up_offset = FFN, d.kind = PW_ACTIVATION_SILU;
              d.x_row_stride = 2 * FFN * FLOAT, d.out_row_stride = FFN * FLOAT, d.x_dtype = d.out_dtype = PW_F32;
          }),
          gather(device, [](auto &d) {
              d.rows_max = d.x_rows = ROWS, d.columns = HIDDEN, d.dtype = PW_F32;
              d.x_row_stride = d.out_row_stride = HIDDEN * FLOAT;
          }) {}

    /* Writes keys and values of all rows; [wanted][VOCAB] logits. */
    const std::vector<float> &run(const Batch &batch) {
        plan(batch);
        varlen_mask.run([&](auto &a) { a.intervals = intervals.data(), a.positions = positions.data(); });
        embed.run([&](auto &a) {
            a.table = model.embedding.packed.get(), a.tokens = batch.tokens.data(), a.out = x.data();
        });
        std::fill(residual.begin(), residual.end(), 0.0f);
        for (uint32_t layer = 0; layer < LAYERS; layer++) run_layer(layer, batch);
        normalise();
        if (batch.wanted.empty()) return logits;
        gather.run([&](auto &a) { a.x = normal.data(), a.indices = batch.wanted.data(), a.out = x.data(); });
        multiply(to_logits, x, model.head, logits);
        return logits;
    }

  private:
    using Buffer = std::vector<float>;

    /* Pages of [token][head][dim], in bf16. */
    static pw_kv_layout layout(uint32_t pages) {
        pw_kv_layout kv{};
        kv.k_dim_stride = sizeof(uint16_t);
        kv.k_head_stride = kv.v_head_stride = DIM * kv.k_dim_stride;
        kv.k_token_stride = kv.v_token_stride = KV_HEADS * kv.k_head_stride;
        kv.page_stride = PAGE * kv.k_token_stride;
        kv.pages = pages, kv.page_len = PAGE, kv.kv_heads = KV_HEADS, kv.head_dim = DIM, kv.dtype = PW_BF16;
        return kv;
    }

    void plan(const Batch &batch) {
        const uint32_t rows = static_cast<uint32_t>(batch.tokens.size());
        const uint32_t seqs = static_cast<uint32_t>(batch.lengths.size());
        const uint32_t wanted = static_cast<uint32_t>(batch.wanted.size());
        embed.plan(rows), norm.plan(rows), rope.plan(rows), activation.plan(rows);
        to_qkv.plan(rows), to_out.plan(rows), to_gate_up.plan(rows), to_down.plan(rows);
        if (wanted > 0) gather.plan(wanted), to_logits.plan(wanted);
        const auto slots = make<pw_append_kv_lens>([&](auto &l) { l.rows = rows; });
        append_kv.plan(&slots);
        const auto seen = make<pw_varlen_mask_lens>([&](auto &l) {
            l.seqs = seqs, l.row_start = batch.row_start.data(), l.lengths = batch.lengths.data();
        });
        varlen_mask.plan(&seen);
        const auto lens = make<pw_attention_lens>([&](auto &l) {
            l.seqs = seqs, l.q_start = batch.row_start.data(), l.kv_len = batch.lengths.data();
            l.page_start = batch.page_start.data();
        });
        attention.plan(&lens);
    }

    /* Adds x to the residual; normal is that sum, normalised. */
    void normalise() {
        norm.run([&](auto &a) {
            a.x = x.data(), a.residual = residual.data(), a.weight = model.norm.data(), a.out = normal.data();
        });
    }

    static void multiply(Matmul &kernel, const Buffer &from, const Weight &weight, Buffer &to) {
        kernel.run([&](auto &a) { a.x = from.data(), a.weight = weight.packed.get(), a.out = to.data(); });
    }

    void run_layer(uint32_t index, const Batch &batch) {
        const Layer &layer = model.layers[index];
        normalise();
        multiply(to_qkv, normal, layer.qkv, qkv);
        rope.run([&](auto &a) { a.table = model.turns.data(), a.positions = positions.data(), a.out = qkv.data(); });
        append_kv.run([&](auto &a) {
            a.k = &qkv[HEADS * DIM], a.v = &qkv[(HEADS + KV_HEADS) * DIM], a.slots = batch.slots.data();
            a.keys = keys[index].data(), a.values = values[index].data();
            a.table = model.turns.data(), a.positions = positions.data();
        });
        attention.run([&](auto &a) {
            a.q = qkv.data(), a.keys = keys[index].data(), a.values = values[index].data();
            a.page_ids = batch.page_ids.data(), a.intervals = intervals.data(), a.out = attended.data();
        });
        multiply(to_out, attended, layer.out, x);
        normalise();
        multiply(to_gate_up, normal, layer.gate_up, gate_up);
        activation.run([&](auto &a) { a.x = gate_up.data(), a.out = activated.data(); });
        multiply(to_down, activated, layer.down, x);
    }

    const Model &model;
    std::vector<std::vector<uint16_t>> keys, values; // [LAYERS][pages * PAGE * KV_HEADS * DIM]
    Embed embed;
    Norm norm;
    Matmul to_qkv, to_out, to_gate_up, to_down, to_logits;
    Rope rope;
    AppendKv append_kv;
    VarlenMask varlen_mask;
    Attention attention;
    Activation activation;
    Gather gather;
    Buffer x = Buffer(ROWS * HIDDEN), residual = x, normal = x, attended = x, qkv = Buffer(ROWS * QKV);
    Buffer gate_up = Buffer(ROWS * 2 * FFN), activated = Buffer(ROWS * FFN), logits = Buffer(ROWS * VOCAB);
    std::vector<uint32_t> intervals = std::vector<uint32_t>(2 * ROWS), positions = std::vector<uint32_t>(ROWS);
};

#endif
