//! Llama: attention over turned heads, a gated feed-forward, norms before both. The other
//! families say what they do differently.

use super::config::Config;
use super::layers::{Attention, FeedForward, Layer, Layers, Product};

/// The layers of a Llama.
pub fn layers(config: &Config) -> Layers {
    let list = (0..config.layers).flat_map(|layer| {
        [
            Layer::Attention(attention(config, layer)),
            Layer::FeedForward(feed_forward(config, layer)),
        ]
    });
    Layers {
        embedding: "model.embed_tokens".into(),
        list: list.collect(),
        norm: "model.norm".into(),
        output: (!config.tied).then(|| "lm_head".into()),
    }
}

/// The attention of a layer.
pub fn attention(config: &Config, layer: u32) -> Attention {
    let name = |rest: &str| format!("model.layers.{layer}.{rest}");
    let (q, kv) = (config.q_width(), config.kv_width());
    Attention {
        norm: name("input_layernorm"),
        qkv: Product {
            parts: vec![
                (name("self_attn.q_proj"), q),
                (name("self_attn.k_proj"), kv),
                (name("self_attn.v_proj"), kv),
            ],
            inputs: config.hidden,
            bias: config.attention_bias,
        },
        head_norms: None,
        out: Product {
            parts: vec![(name("self_attn.o_proj"), config.hidden)],
            inputs: q,
            bias: config.attention_bias,
        },
        window: None,
    }
}

/// The feed-forward of a layer.
pub fn feed_forward(config: &Config, layer: u32) -> FeedForward {
    let name = |rest: &str| format!("model.layers.{layer}.{rest}");
    let wide = config.intermediate;
    FeedForward {
        norm: name("post_attention_layernorm"),
        gate_up: Product {
            parts: vec![(name("mlp.gate_proj"), wide), (name("mlp.up_proj"), wide)],
            inputs: config.hidden,
            bias: config.mlp_bias,
        },
        down: Product {
            parts: vec![(name("mlp.down_proj"), config.hidden)],
            inputs: wide,
            bias: config.mlp_bias,
        },
    }
}
