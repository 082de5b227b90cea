//! The masks of a row: its logits with −∞ where they allow no token.

use super::Sample;
use crate::command::{Host, cast};
use crate::params;
use crate::simd::{LANES, Lanes, load_at, store_at};

/// Tokens of a word of a mask.
const WORD: usize = 32;

/// The masks of a call, and which of them each row has.
pub(super) struct Masks<'a> {
    words: &'a [u32],
    stride: usize,
    /// Words of a mask that count.
    used: usize,
    /// Two for each row.
    chosen: &'a [u32],
}

impl<'a> Masks<'a> {
    pub(super) fn of(command: &Sample<Host<'a>>) -> Self {
        Self {
            words: command.masks.map_or(&[], cast),
            stride: command.params.mask_words as usize,
            used: (command.params.vocab as usize).div_ceil(WORD),
            chosen: command.row_masks.map_or(&[], cast),
        }
    }

    /// The masks that must both allow a row's tokens; none where none has to.
    pub(super) fn row(&self, row: usize) -> Option<[&'a [u32]; 2]> {
        let of = |mask: u32| {
            (mask != params::NONE).then(|| &self.words[mask as usize * self.stride..][..self.used])
        };
        let chosen = self.chosen.get(2 * row..2 * row + 2)?;
        let (one, other) = (of(chosen[0]), of(chosen[1]));
        Some([one.or(other)?, other.or(one)?])
    }
}

/// Some logits, from a word of the masks on, and where they go.
pub(super) struct Hide<'a> {
    pub(super) row: &'a [f32],
    pub(super) masks: [&'a [u32]; 2],
    pub(super) to: &'a mut [f32],
}

crate::levels! {
    pub(super) fn hide(hide: Hide<'_>) = hide_body;
}

#[inline(always)]
fn hide_body<L: Lanes>(l: L, hide: Hide<'_>) {
    let never = l.splat(f32::NEG_INFINITY);
    let [one, other] = hide.masks;
    let rows = hide.row.chunks(WORD).zip(hide.to.chunks_mut(WORD));
    for ((x, to), (one, other)) in rows.zip(one.iter().zip(other)) {
        let word = one & other;
        let mut at = 0;
        while at < x.len() {
            let allowed = l.mask((word >> at) as u16);
            store_at(l, l.select(allowed, load_at(l, x, at, 0.0), never), to, at);
            at += LANES;
        }
    }
}
