//! A small checkpoint with random weights and a tokenizer of bytes, as files.

use safetensors::{Dtype, View};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Tokens that the logits score: a few more than the tokenizer has.
pub const VOCABULARY: u32 = 264;
/// Positions of the model.
pub const CONTEXT: u32 = 512;
/// The first special token; before it come the bytes.
pub const SPECIAL: [(&str, u32); 3] =
    [("<|endoftext|>", 256), ("<|im_start|>", 257), ("<|im_end|>", 258)];

const HIDDEN: usize = 64;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 16;
const FEED_FORWARD: usize = 96;

/// The checkpoint in a folder.
pub fn open(folder: &std::path::Path) -> ::checkpoint::Checkpoint {
    ::checkpoint::Checkpoint::open(folder).expect("it was written whole")
}

/// Writes it into a folder of its own.
pub fn write() -> PathBuf {
    static FOLDERS: AtomicU32 = AtomicU32::new(0);
    let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
    let name = format!("pagewise-checkpoint-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name).join("tiny");
    std::fs::create_dir_all(&folder).expect("a folder");
    let text = |name: &str, value: &Value| {
        std::fs::write(folder.join(name), value.to_string()).expect("a file");
    };
    text("config.json", &config());
    text("tokenizer.json", &tokenizer());
    text("tokenizer_config.json", &json!({ "eos_token": "<|im_end|>", "chat_template": TEMPLATE }));
    safetensors::serialize_to_file(tensors(), None, &folder.join("model.safetensors"))
        .expect("a file");
    folder
}

const TEMPLATE: &str = "{%- for message in messages %}\
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}\
    {%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}";

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float32",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
        "attention_bias": false,
        "mlp_bias": false,
        "bos_token_id": null,
        "eos_token_id": 258,
    })
}

/// One token for each byte, by GPT-2's letters.
fn tokenizer() -> Value {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let (mut vocabulary, mut moved) = (Map::new(), 0x100..);
    for byte in 0..256 {
        let letter = if printable(&byte) { byte } else { moved.next().expect("endless") };
        vocabulary.insert(char::from_u32(letter).expect("a letter").to_string(), byte.into());
    }
    let added = SPECIAL.map(|(content, id)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true,
        })
    });
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": level,
        "post_processor": null,
        "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocabulary, "merges": [],
        },
    })
}

/// A tensor of f32.
struct Tensor {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Tensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn tensors() -> Vec<(String, Tensor)> {
    let (rows, kv) = (HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM);
    let vocabulary = VOCABULARY as usize;
    let mut shapes = vec![
        ("model.embed_tokens".to_owned(), vec![vocabulary, HIDDEN]),
        ("lm_head".to_owned(), vec![vocabulary, HIDDEN]),
        ("model.norm".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let parts = [
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
            ("self_attn.q_proj", vec![rows, HIDDEN]),
            ("self_attn.k_proj", vec![kv, HIDDEN]),
            ("self_attn.v_proj", vec![kv, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, rows]),
            ("mlp.gate_proj", vec![FEED_FORWARD, HIDDEN]),
            ("mlp.up_proj", vec![FEED_FORWARD, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, FEED_FORWARD]),
        ];
        let named = |(part, shape)| (format!("model.layers.{layer}.{part}"), shape);
        shapes.extend(parts.map(named));
    }
    let mut state = 2026;
    let named = |(name, shape): (String, Vec<usize>)| {
        let tensor = random(shape, &mut state);
        (format!("{name}.weight"), tensor)
    };
    shapes.into_iter().map(named).collect()
}

/// Norms near one; weights so that what comes out is about as large as what goes in.
fn random(shape: Vec<usize>, state: &mut u64) -> Tensor {
    let count: usize = shape.iter().product();
    let norm = shape.len() == 1;
    let scale = if norm { 0.1 } else { 3.0 / (shape[1] as f32).sqrt() };
    let value = |_| {
        // SplitMix64, its upper bits.
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let unit = (mixed >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0;
        unit * scale + if norm { 1.0 } else { 0.0 }
    };
    let bytes = (0..count).map(value).flat_map(f32::to_le_bytes).collect();
    Tensor { shape, bytes }
}
