//! Packed masks over a vocabulary: bit t mod 32 of word t / 32 of a mask allows token t; masks
//! lie in a slab, so many words apart.

use crate::command::{MaybeSpan, cast};
use crate::error::{Checks, Error};
use crate::params;
use crate::simd::{LANES, Lanes, load_at, store_at};
use core::ops::Range;

/// Tokens of a word.
const WORD: usize = 32;

/// Refuses what a slab of masks may not be; absent, its numbers are 0.
pub(crate) fn check(
    checks: Checks,
    slab: &dyn MaybeSpan,
    vocab: u32,
    [masks, mask_words]: [u32; 2],
) -> Result<(), Error> {
    let Some(slab) = slab.span() else {
        checks.equal("masks", 0, u64::from(masks))?;
        return checks.equal("mask_words", 0, u64::from(mask_words));
    };
    let least = vocab.div_ceil(WORD as u32);
    checks.range("masks", masks, 1..=i64::from(u32::MAX - 1))?;
    checks.range("mask_words", mask_words, i64::from(least)..=1 << 30)?;
    let before = u64::from(masks - 1) * u64::from(mask_words);
    checks.words("masks", Some(before + u64::from(least)), slab)
}

/// Whether a number is that of a mask, or of none.
pub(crate) fn is_there(mask: u32, masks: u32) -> bool {
    mask == params::NONE || mask < masks
}

/// The slab.
#[derive(Clone, Copy)]
pub(crate) struct Masks<'a> {
    words: &'a [u32],
    stride: usize,
}

impl<'a> Masks<'a> {
    pub(crate) fn new(slab: Option<&'a [u8]>, mask_words: u32) -> Self {
        Self { words: slab.map_or(&[], cast), stride: mask_words as usize }
    }

    /// The words of two masks that must both allow a token, for tokens from a multiple of 32
    /// on; one twice where the other is none, and none where both are.
    #[inline(always)]
    pub(crate) fn both(self, masks: [u32; 2], tokens: &Range<usize>) -> Option<[&'a [u32]; 2]> {
        let of = |mask: u32| {
            let first = mask as usize * self.stride;
            let words = first + tokens.start / WORD..first + tokens.end.div_ceil(WORD);
            (mask != params::NONE).then(|| &self.words[words])
        };
        let [one, other] = masks.map(of);
        Some([one.or(other)?, other.or(one)?])
    }
}

/// Makes −∞, selected, of the logits that one of two masks does not allow.
#[inline(always)]
pub(crate) fn hide<L: Lanes>(l: L, x: &mut [f32], [one, other]: [&[u32]; 2]) {
    let never = l.splat(f32::NEG_INFINITY);
    for (x, (one, other)) in x.chunks_mut(WORD).zip(one.iter().zip(other)) {
        let word = one & other;
        if word == u32::MAX {
            continue;
        }
        for (half, bits) in x.chunks_mut(LANES).zip([word, word >> 16]) {
            let v = load_at(l, half, 0, 0.0);
            store_at(l, l.select(l.mask(bits as u16), v, never), half, 0);
        }
    }
}
