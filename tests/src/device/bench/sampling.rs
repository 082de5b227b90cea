//! A step of sampling: a token of each row of logits, under a grammar's mask of its own.

use super::{Device, Timed, Work};
use crate::cases::sample::PLAIN;
use crate::harness::{Bytes, Direct, Machine, Noise};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::params::{self, NONE, SampleRow};
use kernels_core::sample::Sample;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;

/// Rows whose tokens are held against the CPU's.
const CHECKED: usize = 4;

/// Rows of logits, each with a mask of its own.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Rows.
    pub rows: u32,
    /// Logits of a row.
    pub vocab: u32,
    /// Tokens kept at most.
    pub top_k: u32,
    /// Mass kept.
    pub top_p: f32,
}

/// The shapes.
pub fn shapes(quick: bool) -> Vec<Sampling> {
    let (rows, vocab) = if quick { (6, 5000) } else { (128, 128 << 10) };
    vec![Sampling { rows, vocab, top_k: 50, top_p: 0.95 }]
}

impl Sampling {
    /// Its name.
    pub fn name(&self) -> String {
        format!("mask top-k top-p {}x{}", self.rows, self.vocab)
    }

    /// Logits are read once, and so are masks.
    pub fn work(&self) -> Work {
        let words = u64::from(self.vocab) + u64::from(self.vocab.div_ceil(32));
        Work::Read(u64::from(self.rows) * words * 4)
    }
}

/// The commands and their buffers.
struct Call {
    shape: Sampling,
    logits: Bytes,
    masks: Bytes,
    row_masks: Bytes,
    settings: Bytes,
    token: Bytes,
    status: Bytes,
    logprob: Bytes,
}

impl Call {
    fn new(shape: Sampling) -> Self {
        let mut noise = Noise::new(1);
        let (rows, vocab) = (shape.rows as usize, shape.vocab as usize);
        // As a model's: most tokens far below the best, with a heavier upper tail. Rows are
        // one row turned, and so differ.
        let one = noise.normals(vocab, 1.0).into_iter().map(|x| 2.0 * x + 0.4 * x * x.abs());
        let mut one: Vec<f32> = one.collect();
        let mut logits: Vec<f32> = Vec::with_capacity(rows * vocab);
        for _ in 0..rows {
            one.rotate_right(vocab / 7);
            logits.extend(&one);
        }
        let ask = |position: u32| SampleRow {
            position,
            temperature: 0.8,
            top_k: shape.top_k,
            top_p: shape.top_p,
            ..PLAIN
        };
        let masks: Vec<u32> = (0..rows * vocab.div_ceil(32)).map(|_| noise.word()).collect();
        Self {
            shape,
            logits: Bytes::of(&logits),
            masks: Bytes::of(&masks),
            row_masks: Bytes::of(&(0..shape.rows).flat_map(|row| [row, NONE]).collect::<Vec<_>>()),
            settings: Bytes::of(&(0..shape.rows).map(ask).collect::<Vec<_>>()),
            token: Bytes::poisoned(rows * 4),
            status: Bytes::poisoned(rows * 4),
            logprob: Bytes::poisoned(rows * 4),
        }
    }

    /// The first rows alone.
    fn first(&self, rows: usize) -> Self {
        let shape = Sampling { rows: rows as u32, ..self.shape };
        let all = self.shape.rows as usize;
        let head = |bytes: &Bytes| Bytes::of(&bytes.as_slice()[..bytes.len() / all * rows]);
        Self {
            shape,
            logits: head(&self.logits),
            masks: head(&self.masks),
            row_masks: head(&self.row_masks),
            settings: head(&self.settings),
            token: head(&self.token),
            status: head(&self.status),
            logprob: head(&self.logprob),
        }
    }

    fn sample(&mut self) -> Sample<Host<'_>> {
        let Sampling { rows, vocab, .. } = self.shape;
        let params = params::Sample {
            row_stride: vocab.into(),
            rows_max: rows,
            vocab,
            masks: rows,
            mask_words: vocab.div_ceil(32),
            ..Default::default()
        };
        Sample {
            params,
            logits: self.logits.as_slice(),
            raw_logits: None,
            settings: self.settings.as_slice(),
            masks: Some(self.masks.as_slice()),
            row_masks: Some(self.row_masks.as_slice()),
            token: self.token.as_mut_slice(),
            status: self.status.as_mut_slice(),
            raw_logprob: None,
            processed_logprob: Some(self.logprob.as_mut_slice()),
            top_token: None,
            top_logprob: None,
            kept: None,
            kept_count: None,
            rows: None,
        }
    }
}

/// The seconds of a run, after its first tokens were found to be the CPU's.
pub fn time(device: &mut Device, shape: &Sampling, quick: bool) -> Result<f64, Error> {
    let mut call = Call::new(*shape);
    let mut few = call.first(CHECKED.min(shape.rows as usize));
    let mut cpu = Direct { level: Level::best(), workers: &Inline, withheld: 0 };
    cpu.run(few.sample())?;
    let timed = Timed::on(device, |laid| vec![call.sample().lay(laid).into()]);
    // Tokens, statuses, log-probabilities.
    let answer = timed.answer(device)?;
    let expected = few.token.as_slice();
    assert!(answer[0].starts_with(expected), "{}: the CPU draws other tokens", shape.name());
    assert!(answer[2].starts_with(few.logprob.as_slice()), "{}: log-probabilities", shape.name());
    let seconds = timed.seconds(device, quick)?;
    timed.release(device)?;
    Ok(seconds)
}
