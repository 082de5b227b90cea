//! The matrices of a model to which an adapter may add.

use crate::model::Config;
use crate::model::layers::{Layer, Layers, Product};
use std::ops::Range;

/// The name of the output weights, also where they are the embedding's.
pub const OUTPUT: &str = "lm_head";
/// The name of the embedding.
const EMBEDDING: &str = "model.embed_tokens";

/// Where in a model a matrix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The table of token embeddings.
    Embedding,
    /// A product of that layer, as files count them.
    Layer(u32),
    /// The output weights. Where they are the embedding's, a term here leaves what tokens
    /// begin as alone.
    Output,
}

/// One matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// As the checkpoint names it, without `.weight`.
    pub name: String,
    /// Where it is.
    pub kind: Kind,
    /// Elements of a row; of the embedding, tokens.
    pub inputs: u32,
    /// Rows.
    pub outputs: u32,
    /// Outputs of matrices before it in one product.
    pub column: u32,
    /// Outputs of its product.
    pub width: u32,
    /// Whether its product adds a bias.
    pub bias: bool,
}

/// All matrices: the embedding, those of the layers in their order, the output weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrices {
    /// By number.
    pub all: Vec<Matrix>,
    /// Numbers of each layer's: of its first product, and of its second.
    layers: Vec<[Range<usize>; 2]>,
}

impl Matrices {
    /// The number of the embedding.
    pub const EMBEDDING: usize = 0;

    /// Those of a checked configuration.
    pub fn of(config: &Config) -> Self {
        let whole = |name: &str, kind, inputs, outputs| Matrix {
            name: name.to_owned(),
            kind,
            inputs,
            outputs,
            column: 0,
            width: outputs,
            bias: false,
        };
        let mut matrices = Self {
            all: vec![whole(EMBEDDING, Kind::Embedding, config.vocab, config.hidden)],
            layers: Vec::new(),
        };
        let mut number = 0;
        for layer in &Layers::of(config).list {
            let kind = Kind::Layer(number);
            let products = match layer {
                Layer::Attention(attention) => [&attention.qkv, &attention.out],
                Layer::FeedForward(feed_forward) => {
                    // A layer, as files count them, ends with its feed-forward.
                    number += 1;
                    [&feed_forward.gate_up, &feed_forward.down]
                }
            };
            let products = products.map(|product| matrices.product(product, kind));
            matrices.layers.push(products);
        }
        matrices.all.push(whole(OUTPUT, Kind::Output, config.hidden, config.vocab));
        matrices
    }

    /// The number of the output weights.
    pub fn output(&self) -> usize {
        self.all.len() - 1
    }

    /// Numbers of a layer's matrices: of its first product, or of its second.
    pub fn of_layer(&self, layer: usize, second: bool) -> Range<usize> {
        self.layers[layer][usize::from(second)].clone()
    }

    /// The number of the matrix of that name.
    pub fn named(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|matrix| matrix.name == name)
    }

    fn product(&mut self, product: &Product, kind: Kind) -> Range<usize> {
        let first = self.all.len();
        let width = product.parts.iter().map(|(_, outputs)| outputs).sum();
        let mut column = 0;
        for (name, outputs) in &product.parts {
            self.all.push(Matrix {
                name: name.clone(),
                kind,
                inputs: product.inputs,
                outputs: *outputs,
                column,
                width,
                bias: product.bias,
            });
            column += outputs;
        }
        first..self.all.len()
    }
}
