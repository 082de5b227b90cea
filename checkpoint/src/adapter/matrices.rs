//! The matrices of a model that a term can be added to, by their names.

use engine::model::Config;
use engine::model::layers::{Layer, Layers, Product};
use std::collections::BTreeMap;

/// What a term of a matrix must fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Where in the model it is.
    pub kind: Kind,
    /// Elements of a row; of an embedding, tokens.
    pub inputs: u32,
    /// Rows; of an embedding, elements of a hidden state.
    pub outputs: u32,
    /// Whether what it gives is added to a bias.
    pub bias: bool,
}

/// Where in a model a matrix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The table of token embeddings.
    Embedding,
    /// A product of that layer.
    Layer(u32),
    /// The output weights.
    Output,
}

/// The name of output weights where the embedding is tied, so that no tensor has it.
pub const OUTPUT: &str = "lm_head";

/// All of them, of a checked configuration.
pub fn of(config: &Config) -> BTreeMap<String, Matrix> {
    let layers = Layers::of(config);
    let (vocab, hidden) = (config.vocab, config.hidden);
    let embedding = Matrix { kind: Kind::Embedding, inputs: vocab, outputs: hidden, bias: false };
    // A tied embedding still is a matrix of its own as output: a term there leaves what
    // tokens begin as alone.
    let output = Matrix { kind: Kind::Output, inputs: hidden, outputs: vocab, bias: false };
    let name = layers.output.unwrap_or_else(|| OUTPUT.into());
    let mut all = BTreeMap::from([(layers.embedding, embedding), (name, output)]);
    let mut number = 0;
    for layer in &layers.list {
        let (products, layer) = match layer {
            Layer::Attention(attention) => ([&attention.qkv, &attention.out], number),
            Layer::FeedForward(feed_forward) => {
                // A layer, as files count them, ends with its feed-forward.
                number += 1;
                ([&feed_forward.gate_up, &feed_forward.down], number - 1)
            }
        };
        let kind = Kind::Layer(layer);
        for Product { parts, inputs, bias } in products {
            let (inputs, bias) = (*inputs, *bias);
            all.extend(parts.iter().map(|(name, outputs)| {
                (name.clone(), Matrix { kind, inputs, outputs: *outputs, bias })
            }));
        }
    }
    all
}
