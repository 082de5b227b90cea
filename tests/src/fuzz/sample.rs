//! `logit_mask` and then `sample` on any bytes: each call is refused, or gives the
//! specification's answer.

use crate::cases::logit_mask;
use crate::cases::sample::{self, PLAIN, Spread};
use crate::harness::{Bytes, Case, assert_case};
use kernels_core::params::SampleRow;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;

/// Logits that matter: both zeros, ties, what is masked, what is no number.
const LOGITS: [f32; 8] =
    [0.0, -0.0, 1.0, f32::NEG_INFINITY, 1e30, -1e30, f32::NAN, f32::MIN_POSITIVE];

/// The calls that the bytes spell: shapes and settings first, then changes.
pub fn run(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let mut below = |bound: u32| u32::from(bytes.next().unwrap_or(0)) % bound;
    let (rows, vocab) = (1 + below(3), 1 + below(255) * (1 + below(3)));
    let shape = logit_mask::Shape {
        rows,
        vocab,
        gap: below(5),
        masks: below(3),
        sparsity: 1 + below(9),
        lists: below(2) == 1,
        penalties: below(2) == 1,
        temperature: below(5) as f32 * 0.5,
        scale: 4.0,
        seed: u64::from(below(256)),
    };
    let asked = SampleRow {
        temperature: below(9) as f32 * 0.25,
        top_k: below(256),
        top_p: below(65) as f32 / 64.0,
        min_p: below(65) as f32 / 256.0,
        ..PLAIN
    };
    let spread = Spread::Normal(1.0);
    let (raw, top_n, seed) = (below(2) == 1, below(30), shape.seed);
    let gap = shape.gap;
    let masks = shape.masks;
    let drawn = sample::Shape { rows, vocab, gap, spread, raw, masks, top_n, asked, seed };
    let (mut mask, mut drawn) = (shape.case(), drawn.case());
    let rest: Vec<u8> = bytes.collect();
    for change in rest.as_chunks::<3>().0 {
        let (what, at) = (change[0], usize::from(change[1]) | usize::from(change[2] & 3) << 8);
        // Small, or with its top bits set.
        let value = u32::from(change[1]) | u32::from(change[2]) << 24;
        let logit = LOGITS[usize::from(change[2] >> 5)].to_le_bytes();
        match what % 8 {
            0 => change_word(bytemuck::bytes_of_mut(&mut mask.params), change[2], value),
            1 => change_word(bytemuck::cast_slice_mut(&mut mask.settings), change[2], value),
            2 => change_word(bytemuck::bytes_of_mut(&mut drawn.params), change[2], value),
            3 => change_word(bytemuck::cast_slice_mut(&mut drawn.settings), change[2], value),
            4 | 5 => change_logit(&mut mask.logits, at, logit),
            _ => change_logit(&mut drawn.logits, at, logit),
        }
    }
    if mask.run(Level::best(), &Inline).is_ok() && !has_nan(&mask.logits) {
        assert_case(&mask);
    }
    if drawn.run(Level::best(), &Inline).is_ok() {
        assert_case(&drawn);
    }
    // What the mask leaves is what is sampled.
    if let Ok(outputs) = mask.run(Level::best(), &Inline)
        && outputs[0].bytes.len() == drawn.logits.len()
    {
        drawn.logits = outputs[0].bytes.clone();
        if drawn.run(Level::best(), &Inline).is_ok() {
            assert_case(&drawn);
        }
    }
}

fn change_word(bytes: &mut [u8], at: u8, value: u32) {
    let words: &mut [u32] = bytemuck::cast_slice_mut(bytes);
    let count = words.len();
    words[usize::from(at) % count] = value;
}

fn change_logit(logits: &mut Bytes, at: usize, logit: [u8; 4]) {
    let count = logits.len() / 4;
    let at = at % count * 4;
    logits.as_mut_slice()[at..at + 4].copy_from_slice(&logit);
}

/// A NaN's neighbours in a row have no largest value for the error rule to go by.
fn has_nan(logits: &Bytes) -> bool {
    logits.cast::<f32>().iter().any(|x| x.is_nan())
}
