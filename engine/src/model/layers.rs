//! What a model is made of: a list of layers, by the names of their tensors.

use super::config::{Config, Family};
use super::{llama, mistral, qwen2, qwen3};

/// A model as a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layers {
    /// The table of token embeddings.
    pub embedding: String,
    /// The layers in their order.
    pub list: Vec<Layer>,
    /// The norm after them.
    pub norm: String,
    /// The output weights; `None`: the embedding.
    pub output: Option<String>,
}

/// One layer, which adds to the hidden states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// What tokens take from those before them.
    Attention(Attention),
    /// What each makes of it.
    FeedForward(FeedForward),
}

/// `x + out(attention(q, k, v))`, with q, k and v products of the norm of x.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// The norm of x.
    pub norm: String,
    /// The product that gives queries, keys and values.
    pub qkv: Product,
    /// Norms of each head of queries, and of keys, before they turn.
    pub head_norms: Option<[String; 2]>,
    /// The product that takes what the heads give.
    pub out: Product,
    /// The latest positions a token sees, its own included.
    pub window: Option<u32>,
}

/// `x + down(silu(gate) · up)`, with gate and up products of the norm of x.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedForward {
    /// The norm of x.
    pub norm: String,
    /// The product that gives gate and up.
    pub gate_up: Product,
    /// The product that takes what they give.
    pub down: Product,
}

/// Matrices that share their input, as one product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Their names, and outputs of each.
    pub parts: Vec<(String, u32)>,
    /// Elements of a row.
    pub inputs: u32,
    /// Whether each adds a bias.
    pub bias: bool,
}

impl Layers {
    /// The layers of a checked configuration.
    pub fn of(config: &Config) -> Self {
        match config.family {
            Family::Llama => llama::layers(config),
            Family::Mistral => mistral::layers(config),
            Family::Qwen2 => qwen2::layers(config),
            Family::Qwen3 => qwen3::layers(config),
        }
    }
}
