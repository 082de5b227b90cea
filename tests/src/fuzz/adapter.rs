//! Files of an adapter: bytes as its configuration or as its tensors, PEFT's or MLX's, each
//! beside a good other file. They are refused by name of what is at fault, or fit the model.

use crate::adapters::Files;
use checkpoint::{Error, Fault};
use engine::model::layers::{Layer, Layers};
use engine::model::{Config, Family, Rope};
use kernels_core::rope::table::Scaling;
use std::collections::BTreeMap;
use std::path::Path;

/// The first byte says which file the others are.
pub fn run(data: &[u8]) {
    let Some((which, data)) = data.split_first() else {
        return;
    };
    let (good, tensors) = match which & 2 {
        0 => (peft(), "adapter_model.safetensors"),
        _ => (mlx(), "adapters.safetensors"),
    };
    let (text, bytes) = (good.text().into_bytes(), good.bytes());
    let (config, is_config) = (config(), which & 1 == 0);
    let (text, bytes) = if is_config { (data, &bytes[..]) } else { (&text[..], data) };
    match checkpoint::adapter_of_bytes(text, bytes, &config) {
        Ok(adapter) => {
            assert!(!adapter.terms.is_empty());
            let shapes = shapes(&config);
            for (name, term) in &adapter.terms {
                assert_eq!(shapes[name], (term.inputs, term.outputs), "{name}");
                assert!((1..=256).contains(&term.rank), "{name}");
                let (a, b) = (term.rank * term.inputs, term.outputs * term.rank);
                assert_eq!((term.a.len(), term.b.len()), (a as usize, b as usize), "{name}");
                let magnitude = term.magnitude.iter().flatten();
                let mut floats = term.a.iter().chain(&term.b).chain(magnitude);
                assert!(floats.all(|float| float.is_finite()) && term.scale.is_finite(), "{name}");
            }
        }
        Err(error) => named(&error, is_config, tensors),
    }
}

/// A file that is good is at fault only where the other asks for what it has not.
fn named(error: &Error, is_config: bool, tensors: &str) {
    let of_config = error.path == Path::new("adapter_config.json");
    let of_tensors = [tensors, "adapters.npz"].iter().any(|name| error.path == Path::new(name));
    assert!(of_config || of_tensors, "{error}");
    match &error.fault {
        Fault::Field { .. } => assert!(of_config, "{error}"),
        Fault::Malformed(_) => assert_eq!(of_config, is_config, "{error}"),
        Fault::Tensor { .. } => assert!(!of_config, "{error}"),
        Fault::Unreadable(_) | Fault::Unwritable(_) => panic!("{tensors}: {error}"),
    }
}

/// A model whose terms fit in a few bytes.
fn config() -> Config {
    Config {
        family: Family::Llama,
        vocab: 3,
        hidden: 2,
        intermediate: 2,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        head_dim: 8,
        norm_epsilon: 1e-6,
        rope: Rope { base: 10_000.0, scaling: Scaling::None },
        max_len: 16,
        tied: true,
        windows: vec![None],
        attention_bias: false,
        mlp_bias: false,
        zeros_less_one: false,
        eos: Vec::new(),
    }
}

const UP: &str = "model.layers.0.mlp.up_proj";

fn peft() -> Files {
    let mut files = Files::peft(1);
    files.term(UP, 1, [2, 2]);
    files
}

fn mlx() -> Files {
    let mut files = Files::mlx(1, 1.0);
    files.mlx_term(UP, 1, [2, 2]);
    files
}

/// Inputs and outputs of each matrix.
fn shapes(config: &Config) -> BTreeMap<String, (u32, u32)> {
    let (vocab, hidden) = (config.vocab, config.hidden);
    let layers = Layers::of(config);
    let mut shapes = BTreeMap::from([
        (layers.embedding, (vocab, hidden)),
        ("lm_head".to_owned(), (hidden, vocab)),
    ]);
    for layer in layers.list {
        let products = match layer {
            Layer::Attention(attention) => [attention.qkv, attention.out],
            Layer::FeedForward(feed_forward) => [feed_forward.gate_up, feed_forward.down],
        };
        for product in products {
            let inputs = product.inputs;
            shapes
                .extend(product.parts.into_iter().map(|(name, outputs)| (name, (inputs, outputs))));
        }
    }
    shapes
}
