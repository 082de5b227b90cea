//! Whole models: the engine's own on a backend, one sequence at a time, and the same over
//! the kernels' specifications in f64.

pub mod golden;
mod spec;
pub mod thin;

use crate::harness::Bytes;
use backends::cpu::Threads;
use checkpoint::Checkpoint;
use engine::model::{Batch, Capacity, LogitRows, Model, Place, Scratch, Slabs, Source, StepSlices};
use engine::weights::{LoadError, Quantize};
use kernels_core::device::{Backend, Launch, Program, Slice};

pub use spec::{Evaluation, truth};

/// A model on a backend with one sequence.
pub struct Runner {
    backend: Box<dyn Backend>,
    program: Program,
    step: StepSlices,
    rows: LogitRows,
    logits: Slice,
    vocab: u32,
    page_len: u32,
    /// Pages of the sequence, in the order of its positions.
    pages: Vec<u32>,
    filled: u32,
}

impl Runner {
    /// The model with that capacity, and the pages of its sequence in that order.
    pub fn new(
        mut backend: impl Backend + 'static,
        checkpoint: &Checkpoint,
        quantize: Option<Quantize>,
        capacity: &Capacity,
        pages: &[u32],
    ) -> Self {
        let model = load(&mut backend, checkpoint, quantize).expect("a good checkpoint loads");
        let config = &checkpoint.config;
        let enough = "a test's model is small";
        let step = StepSlices::alloc(&mut backend, capacity).expect(enough);
        let slabs = Slabs::alloc(&mut backend, config, capacity).expect(enough);
        let scratch = Scratch::alloc(&mut backend, config, capacity).expect(enough);
        let mut words = |count: u32| {
            let bytes = 4 * u64::from(count);
            Slice { buffer: backend.alloc(bytes).expect(enough), offset: 0, bytes }
        };
        let rows = LogitRows { indices: words(capacity.logit_rows_max), count: words(1) };
        let place =
            Place { capacity, step: &step, slabs: &slabs, scratch: &scratch, adapters: None };
        let mut commands = Vec::new();
        let hidden = model.forward(&place, &mut commands);
        let logits = model.logits(&place, hidden, rows, &mut commands);
        let program = backend.record(&commands).expect("every command keeps its contract");
        let (vocab, page_len, pages) = (config.vocab, capacity.page_len, pages.to_vec());
        Self {
            backend: Box::new(backend),
            program,
            step,
            rows,
            logits,
            vocab,
            page_len,
            pages,
            filled: 0,
        }
    }

    /// Begins another sequence in the same pages.
    pub fn restart(&mut self) {
        self.filled = 0;
    }

    /// The logits of some more tokens of the sequence, all in one step.
    pub fn forward(&mut self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let mut batch = Batch::new(self.page_len);
        let rows = batch.push(self.filled, tokens, &self.pages);
        self.filled += tokens.len() as u32;
        let (indices, count): (Vec<u32>, _) = (rows.collect(), [batch.rows()]);
        let mut writes = batch.writes(&self.step).to_vec();
        writes.push(engine::model::step::part(self.rows.indices, &indices));
        writes.push(engine::model::step::part(self.rows.count, &count));
        let read = Slice { bytes: u64::from(count[0] * self.vocab) * 4, ..self.logits };
        let launch = Launch { writes: &writes, program: self.program, reads: &[read] };
        let ticket = self.backend.submit(launch).expect("a good step runs");
        let mut out = Bytes::filled(read.bytes as usize, 0);
        self.backend.collect(ticket, out.as_mut_slice()).expect("the ticket is new");
        out.cast::<f32>().chunks(self.vocab as usize).map(<[f32]>::to_vec).collect()
    }
}

/// The checkpoint's model on a backend.
pub fn load(
    backend: &mut dyn Backend,
    checkpoint: &Checkpoint,
    quantize: Option<Quantize>,
) -> Result<Model, LoadError> {
    let threads = Threads::new(2);
    let (config, tensors) = (&checkpoint.config, &checkpoint.tensors);
    let source = Source { config, tensors, quantize, workers: &threads };
    Model::load(backend, &source, &mut |_, _| {})
}

/// The logarithms of the probabilities that a row of logits stands for.
pub fn logprobs(row: &[f32]) -> Vec<f64> {
    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&v| f64::from(v - most).exp()).sum();
    row.iter().map(|&v| f64::from(v - most) - sum.ln()).collect()
}

/// The largest distance of log-probabilities.
pub fn distance(got: &[Vec<f64>], truth: &[Vec<f64>]) -> f64 {
    assert_eq!(got.len(), truth.len(), "a row for each row");
    let pairs = got.iter().flatten().zip(truth.iter().flatten());
    // A NaN is no distance that any bound allows.
    pairs
        .map(|(got, truth)| (got - truth).abs())
        .fold(0.0, |most, d| if d <= most { most } else { d })
}

/// The most likely token.
pub fn greedy(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}
