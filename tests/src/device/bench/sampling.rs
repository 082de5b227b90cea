//! A step of sampling: grammar masks on rows of logits, then a token of each.

use super::{Device, Timed, Work};
use crate::cases::sample::PLAIN;
use crate::harness::{Bytes, Direct, Machine, Noise};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::device::Read;
use kernels_core::logit_mask::LogitMask;
use kernels_core::params::{self, LogitMaskRow, NONE, SampleRow};
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
    mask_rows: Bytes,
    masks: Bytes,
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
        let mask = |row: u32| LogitMaskRow {
            mask: row,
            action: NONE,
            slot: NONE,
            temperature: 0.0,
            repetition: 1.0,
            presence: 0.0,
            frequency: 0.0,
        };
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
            mask_rows: Bytes::of(&(0..shape.rows).map(mask).collect::<Vec<_>>()),
            masks: Bytes::of(&masks),
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
            mask_rows: head(&self.mask_rows),
            masks: head(&self.masks),
            settings: head(&self.settings),
            token: head(&self.token),
            status: head(&self.status),
            logprob: head(&self.logprob),
        }
    }

    fn mask(&mut self) -> LogitMask<Host<'_>> {
        let Sampling { rows, vocab, .. } = self.shape;
        let params = params::LogitMask {
            row_stride: vocab.into(),
            rows_max: rows,
            vocab,
            masks: rows,
            mask_words: vocab.div_ceil(32),
            ..Default::default()
        };
        LogitMask {
            params,
            logits: self.logits.as_mut_slice(),
            settings: self.mask_rows.as_slice(),
            masks: Some(self.masks.as_slice()),
            banned_starts: None,
            banned: None,
            bias_starts: None,
            bias_tokens: None,
            bias_values: None,
            counts: None,
            counted_starts: None,
            counted: None,
            rows: None,
        }
    }

    fn sample(&mut self) -> Sample<Host<'_>> {
        let Sampling { rows, vocab, .. } = self.shape;
        let params = params::Sample {
            row_stride: vocab.into(),
            rows_max: rows,
            vocab,
            ..Default::default()
        };
        Sample {
            params,
            logits: self.logits.as_slice(),
            raw_logits: None,
            settings: self.settings.as_slice(),
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
    cpu.run(few.mask())?;
    cpu.run(few.sample())?;
    let timed = Timed::on(device, |laid| {
        let mask = call.mask().lay(laid);
        // Logits are those that were masked, not the host's.
        let mut sample = Sample { logits: &[][..], ..call.sample() }.lay(laid);
        sample.logits = Read(mask.logits.0);
        vec![mask.into(), sample.into()]
    });
    // Masked logits, tokens, statuses, log-probabilities.
    let answer = timed.answer(device)?;
    let expected = few.token.as_slice();
    assert!(answer[1].starts_with(expected), "{}: the CPU draws other tokens", shape.name());
    assert!(answer[3].starts_with(few.logprob.as_slice()), "{}: log-probabilities", shape.name());
    let seconds = timed.seconds(device, quick)?;
    timed.release(device)?;
    Ok(seconds)
}
