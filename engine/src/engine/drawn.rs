//! Tokens that are drawn after a step: what is asked, and what came.

use super::sampling::Masks;
use kernels_core::params::{self, SampleRow};

/// What stands between the logits of a step and the tokens drawn from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Changed {
    /// Nothing.
    No,
    /// Masks, which are read as tokens are drawn.
    Masked,
    /// Lists or penalties: a copy is changed, and masked.
    Copied,
}

/// Tokens to draw after a step.
pub(super) struct Draws<'a> {
    /// The row of the step that each is drawn after; at least one.
    pub rows: &'a [u32],
    pub settings: &'a [SampleRow],
    /// Where logits are not taken as they are.
    pub masks: Option<&'a Masks>,
    /// Most likely tokens to list.
    pub top: u32,
    /// Whether to tell which tokens were kept.
    pub kept: bool,
}

impl Draws<'_> {
    /// What becomes of the logits.
    pub fn changed(&self) -> Changed {
        match self.masks {
            None => Changed::No,
            Some(masks) if masks.are_alone() => Changed::Masked,
            Some(_) => Changed::Copied,
        }
    }
}

/// A token that was drawn, or not.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    pub token: u32,
    pub status: u32,
    pub raw: f32,
    pub processed: f32,
    pub top: Vec<(u32, f32)>,
    /// What the model says of tokens that were chosen, where some were.
    pub chosen: Vec<f32>,
    /// How many tokens were kept, and a bit for each; none where nobody asked.
    pub kept: (u32, Vec<u32>),
}

impl Drawn {
    /// From the words of [`Sampled::reads`](super::record::Sampled::reads).
    pub fn read(words: &[u32], rows: usize, top: usize, kept_words: usize) -> Vec<Self> {
        let (ones, tops) = words.split_at(4 * rows);
        let (tokens, tops) = tops.split_at(rows * top);
        let (logprobs, kept) = tops.split_at(rows * top);
        let (counts, kept) = kept.split_at(if kept_words > 0 { rows } else { 0 });
        let of = |row: usize| {
            let listed = tokens[row * top..][..top].iter().zip(&logprobs[row * top..][..top]);
            let listed = listed.filter(|(token, _)| **token != params::NONE);
            Self {
                token: ones[row],
                status: ones[rows + row],
                raw: f32::from_bits(ones[2 * rows + row]),
                processed: f32::from_bits(ones[3 * rows + row]),
                top: listed.map(|(&token, &logprob)| (token, f32::from_bits(logprob))).collect(),
                chosen: Vec::new(),
                kept: match counts.get(row) {
                    Some(&count) => (count, kept[row * kept_words..][..kept_words].to_vec()),
                    None => (0, Vec::new()),
                },
            }
        };
        (0..rows).map(of).collect()
    }
}
