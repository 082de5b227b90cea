//! Models: a configuration, the list of layers that its family makes of it, their weights
//! on a backend, and the commands of a forward pass.
//!
//! A forward pass is recorded once for the rows that its [`Capacity`] allows and serves
//! any number below. Hidden states are f32, whatever the weights are.

pub mod config;
pub mod layers;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod record;
mod scratch;
pub mod slabs;
pub mod step;

use crate::weights::{LoadError, Loader, Matrix, Quantize, Table, Tensors};
use kernels_core::Error;
use kernels_core::device::{Backend, Buffer, Slice};
use kernels_core::dtype::Dtype;
use kernels_core::params;
use kernels_core::workers::Workers;
use layers::{Layer, Layers, Product};

pub use config::{Config, Family, Rope};
pub use record::{LogitRows, Place};
pub use scratch::Scratch;
pub use slabs::{Slab, Slabs};
pub use step::{Batch, StepSlices};

/// How much one program serves at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Tokens of a step.
    pub rows_max: u32,
    /// Sequences of a step.
    pub seqs_max: u32,
    /// Rows of a step whose logits are asked for.
    pub logit_rows_max: u32,
    /// Positions of a sequence.
    pub max_len: u32,
    /// Pages of keys and values.
    pub pages: u32,
    /// Tokens a page.
    pub page_len: u32,
    /// The type of keys and values.
    pub kv: Dtype,
}

impl Capacity {
    /// Page ids of all sequences of a step together. Sequences share pages, so these may
    /// be more than there are pages.
    pub fn page_ids_max(&self) -> u32 {
        let each = self.max_len.div_ceil(self.page_len.max(1));
        self.seqs_max.saturating_mul(each).clamp(1, 1 << 30)
    }
}

/// What a model is loaded from.
pub struct Source<'a> {
    /// Its shape.
    pub config: &'a Config,
    /// Its tensors.
    pub tensors: &'a Tensors,
    /// What to make of dense weights; `None` leaves them.
    pub quantize: Option<Quantize>,
    /// Who packs them.
    pub workers: &'a dyn Workers,
}

/// A model whose weights are on a backend.
#[derive(Debug)]
pub struct Model {
    config: Config,
    embedding: Table,
    layers: Vec<Loaded>,
    norm: Slice,
    output: Matrix,
    buffers: Vec<Buffer>,
}

/// A layer whose weights are on a backend.
#[derive(Clone, Copy, Debug)]
enum Loaded {
    Attention {
        norm: Slice,
        qkv: Matrix,
        head_norms: Option<[Slice; 2]>,
        out: Matrix,
        window: Option<u32>,
    },
    FeedForward {
        norm: Slice,
        gate_up: Matrix,
        down: Matrix,
    },
}

impl Model {
    /// Brings the weights to a backend. `progress` hears bytes done and bytes in all.
    pub fn load(
        backend: &mut dyn Backend,
        source: &Source<'_>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, LoadError> {
        source.config.check().map_err(LoadError::Config)?;
        let mut loader = Loader::new(Some(backend), source, progress);
        let outcome = load(&mut loader, source.config).and_then(|model| {
            loader.complete()?;
            Ok(model)
        });
        match outcome {
            Ok(model) => Ok(Self { buffers: loader.into_buffers(), ..model }),
            Err(error) => {
                loader.release();
                Err(error)
            }
        }
    }

    /// Bytes that its weights would take on a backend, packed as they would be, those
    /// counted that a backend may borrow from their files.
    pub fn bytes(source: &Source<'_>) -> Result<u64, LoadError> {
        source.config.check().map_err(LoadError::Config)?;
        let mut progress = |_, _| {};
        let mut loader = Loader::new(None, source, &mut progress);
        load(&mut loader, source.config)?;
        loader.complete()?;
        Ok(loader.bytes())
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The output weights, for log-probabilities without a matrix of logits.
    pub fn output_weight(&self) -> (params::Weight, Slice) {
        (self.output.weight, self.output.packed)
    }

    /// With each buffer as another one.
    pub(crate) fn moved(self, to: &dyn Fn(Buffer) -> Buffer) -> Self {
        let slice = |slice: Slice| Slice { buffer: to(slice.buffer), ..slice };
        let matrix = |matrix: Matrix| Matrix {
            packed: slice(matrix.packed),
            bias: matrix.bias.map(slice),
            ..matrix
        };
        let layer = |layer: Loaded| match layer {
            Loaded::Attention { norm, qkv, head_norms, out, window } => Loaded::Attention {
                norm: slice(norm),
                qkv: matrix(qkv),
                head_norms: head_norms.map(|norms| norms.map(slice)),
                out: matrix(out),
                window,
            },
            Loaded::FeedForward { norm, gate_up, down } => Loaded::FeedForward {
                norm: slice(norm),
                gate_up: matrix(gate_up),
                down: matrix(down),
            },
        };
        Self {
            config: self.config,
            embedding: match self.embedding {
                Table::Plain(weight, table) => Table::Plain(weight, slice(table)),
                Table::Packed(weight, table) => Table::Packed(weight, slice(table)),
            },
            layers: self.layers.into_iter().map(layer).collect(),
            norm: slice(self.norm),
            output: matrix(self.output),
            buffers: self.buffers.into_iter().map(to).collect(),
        }
    }

    /// Gives the memory back.
    pub fn release(self, backend: &mut dyn Backend) -> Result<(), Error> {
        self.buffers.into_iter().try_for_each(|buffer| backend.release(buffer))
    }
}

/// Takes the tensors of all layers.
fn load(loader: &mut Loader<'_>, config: &Config) -> Result<Model, LoadError> {
    let layers = Layers::of(config);
    let (vocab, hidden) = (config.vocab, config.hidden);
    let (embedding, output) = match &layers.output {
        Some(name) => (
            loader.table(&layers.embedding, vocab, hidden)?,
            loader.matrix(&[(name.clone(), vocab)], hidden, false)?,
        ),
        None => {
            let output = loader.matrix(&[(layers.embedding.clone(), vocab)], hidden, false)?;
            // Some checkpoints hold the same matrix under both names.
            loader.leave("lm_head");
            (Table::Packed(output.weight, output.packed), output)
        }
    };
    let mut loaded = Vec::new();
    for layer in &layers.list {
        loaded.push(load_layer(loader, config, layer)?);
    }
    let norm = load_norm(loader, &layers.norm, hidden)?;
    let config = config.clone();
    Ok(Model { config, embedding, layers: loaded, norm, output, buffers: Vec::new() })
}

fn load_layer(
    loader: &mut Loader<'_>,
    config: &Config,
    layer: &Layer,
) -> Result<Loaded, LoadError> {
    let product = |loader: &mut Loader<'_>, product: &Product| {
        loader.matrix(&product.parts, product.inputs, product.bias)
    };
    Ok(match layer {
        Layer::Attention(attention) => Loaded::Attention {
            norm: load_norm(loader, &attention.norm, config.hidden)?,
            qkv: product(loader, &attention.qkv)?,
            head_norms: match &attention.head_norms {
                Some([q, k]) => Some([
                    load_norm(loader, q, config.head_dim)?,
                    load_norm(loader, k, config.head_dim)?,
                ]),
                None => None,
            },
            out: product(loader, &attention.out)?,
            window: attention.window,
        },
        Layer::FeedForward(feed_forward) => Loaded::FeedForward {
            norm: load_norm(loader, &feed_forward.norm, config.hidden)?,
            gate_up: product(loader, &feed_forward.gate_up)?,
            down: product(loader, &feed_forward.down)?,
        },
    })
}

fn load_norm(loader: &mut Loader<'_>, name: &str, len: u32) -> Result<Slice, LoadError> {
    loader.vectors(&[(format!("{name}.weight"), len)])
}
