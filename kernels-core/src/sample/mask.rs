//! A row as its masks leave it.

use crate::simd::Lanes;
use crate::vocabulary::BLOCK;
use crate::vocabulary::masks::hide;

/// Some logits, the words of their masks, and where they go.
pub(super) struct Masked<'a> {
    pub(super) row: &'a [f32],
    pub(super) masks: [&'a [u32]; 2],
    pub(super) to: &'a mut [f32],
}

crate::levels! {
    pub(super) fn copy(masked: Masked<'_>) = copy_body;
}

#[inline(always)]
fn copy_body<L: Lanes>(l: L, masked: Masked<'_>) {
    // A block stays in the cache between both.
    let blocks = masked.row.chunks(BLOCK).zip(masked.to.chunks_mut(BLOCK));
    for (i, (x, to)) in blocks.enumerate() {
        to.copy_from_slice(x);
        hide(l, to, masked.masks.map(|mask| &mask[i * BLOCK / 32..]));
    }
}
