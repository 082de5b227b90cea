//! What a checkpoint says of its model, typed and checked.

use crate::request::Refused;
use kernels_core::rope::table::{Scaling, Table};
use std::ops::RangeInclusive;

/// A family of models: which tensors a layer has, and what happens between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Llama, and all that has its shape.
    Llama,
    /// Mistral: Llama with windows.
    Mistral,
    /// Qwen 2 and 2.5: biases of queries, keys and values.
    Qwen2,
    /// Qwen 3: norms of queries and keys.
    Qwen3,
}

/// The shape of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Its family.
    pub family: Family,
    /// Tokens it knows.
    pub vocab: u32,
    /// Elements of a hidden state.
    pub hidden: u32,
    /// Elements between the halves of a feed-forward layer.
    pub intermediate: u32,
    /// Layers, each of attention and feed-forward.
    pub layers: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys and values; divides `heads`.
    pub kv_heads: u32,
    /// Elements of a head: a multiple of 8, at most 256.
    pub head_dim: u32,
    /// Added to the mean of squares in every norm.
    pub norm_epsilon: f32,
    /// How heads turn with their position.
    pub rope: Rope,
    /// Positions that the model was made for.
    pub max_len: u32,
    /// Whether the embedding is the output weights too.
    pub tied: bool,
    /// Of each layer, the latest positions a token sees, its own included; `None`: all.
    pub windows: Vec<Option<u32>>,
    /// Whether all four products of attention add a bias; those of Qwen 2 do not ask.
    pub attention_bias: bool,
    /// Whether the products of feed-forward layers add a bias.
    pub mlp_bias: bool,
    /// Whether zeros of GPTQ are stored less one, as its first format has them.
    pub zeros_less_one: bool,
    /// Tokens with which an answer ends.
    pub eos: Vec<u32>,
}

/// Rotary positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Above 1.
    pub base: f64,
    /// How positions past the trained ones are reached. The positions of `Dynamic` are
    /// those of the capacity that serves, whatever stands here.
    pub scaling: Scaling,
}

impl Config {
    /// Refuses what no kernel could run, by the name of the field.
    pub fn check(&self) -> Result<(), Refused> {
        range("vocab", self.vocab, 1..=1 << 24)?;
        range("hidden", self.hidden, 1..=1 << 20)?;
        range("intermediate", self.intermediate, 1..=1 << 20)?;
        range("layers", self.layers, 1..=1 << 12)?;
        range("kv_heads", self.kv_heads, 1..=1024)?;
        range("heads", self.heads, 1..=256 * self.kv_heads)?;
        multiple("heads", self.heads, self.kv_heads)?;
        range("head_dim", self.head_dim, 8..=256)?;
        multiple("head_dim", self.head_dim, 8)?;
        range("max_len", self.max_len, 1..=1 << 30)?;
        // Inputs and outputs of the product with queries, keys and values together.
        let width = u64::from(self.heads + 2 * self.kv_heads) * u64::from(self.head_dim);
        if width > 1 << 20 {
            return Err(refuse("head_dim", "heads of at most 2^20 elements together", width));
        }
        if !(self.norm_epsilon.is_finite() && self.norm_epsilon >= 0.0) {
            return Err(refuse("norm_epsilon", "a number of at least 0", self.norm_epsilon));
        }
        if self.windows.len() != self.layers as usize {
            return Err(refuse("windows", "one for each layer", self.windows.len()));
        }
        for window in self.windows.iter().flatten() {
            if self.family == Family::Llama {
                return Err(refuse("windows", "none in a Llama", window));
            }
            range("windows", *window, 1..=1 << 30)?;
        }
        for token in &self.eos {
            range("eos", *token, 0..=self.vocab - 1)?;
        }
        self.table(self.max_len).check().map_err(|error| refuse("rope", "a table of turns", error))
    }

    /// The turns of positions below `max_len`.
    pub fn table(&self, max_len: u32) -> Table {
        let scaling = match self.rope.scaling {
            Scaling::Dynamic { factor, original_positions, .. } => {
                Scaling::Dynamic { factor, original_positions, positions: max_len }
            }
            scaling => scaling,
        };
        Table { base: self.rope.base, rotary_dims: self.head_dim, scaling }
    }

    /// Positions that it can be told to serve: those that its turns were stretched to, where
    /// its file counts the ones before.
    pub fn reach(&self) -> u32 {
        let stretched = |positions: u32, factor: f64| (f64::from(positions) * factor) as u32;
        self.max_len.max(match self.rope.scaling {
            Scaling::Linear { factor } => stretched(self.max_len, factor),
            Scaling::Dynamic { factor, original_positions, .. } => {
                stretched(original_positions, factor)
            }
            Scaling::Yarn(yarn) => stretched(yarn.original_positions, yarn.factor),
            Scaling::None | Scaling::Llama3 { .. } => self.max_len,
        })
    }

    /// Elements of all queries of a token.
    pub const fn q_width(&self) -> u32 {
        self.heads * self.head_dim
    }

    /// Elements of all keys of a token, and as many of its values.
    pub const fn kv_width(&self) -> u32 {
        self.kv_heads * self.head_dim
    }
}

fn range(field: &'static str, got: u32, allowed: RangeInclusive<u32>) -> Result<(), Refused> {
    if allowed.contains(&got) {
        return Ok(());
    }
    Err(refuse(field, format!("{} to {}", allowed.start(), allowed.end()), got))
}

fn multiple(field: &'static str, got: u32, of: u32) -> Result<(), Refused> {
    if got.is_multiple_of(of) {
        return Ok(());
    }
    Err(refuse(field, format!("a multiple of {of}"), got))
}

fn refuse(field: &'static str, expected: impl ToString, got: impl ToString) -> Refused {
    Refused { field, expected: expected.to_string(), got: got.to_string() }
}
