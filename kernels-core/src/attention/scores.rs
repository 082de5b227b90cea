//! What a row sees, and what turns dot products into weights.

use crate::math::{exp_below, tanh};
use crate::simd::attend::{Ahead, SPLIT};
use crate::simd::{LANES, Lanes, load_at, store_at};
use core::ops::Range;

/// Tiles of weights after which lines are asked for.
const ASK_TILES: usize = 4;

/// What one row sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// Its own position; negative before all keys.
    pub position: i64,
    /// The first position seen.
    pub begin: u32,
    /// After the last one; at most `begin` where none is.
    pub end: u32,
    /// The position of the tree's first bit; the keys before it are seen.
    pub tree_at: i64,
    /// Bits of the tree; all of them without one.
    pub tree: u64,
}

/// What one row sees of a split.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// The first key seen, from the split's first.
    pub begin: usize,
    /// After the last one; equal to `begin` where none is.
    pub end: usize,
    /// The key of the tree's first bit, which may lie outside of the split.
    tree_at: i64,
    tree: u64,
}

impl Row {
    /// Its part of the split that begins at `base`.
    #[inline(always)]
    pub fn seen(&self, base: u32) -> Seen {
        let begin = self.begin.saturating_sub(base).min(SPLIT as u32) as usize;
        let end = self.end.saturating_sub(base).min(SPLIT as u32) as usize;
        let tree_at = self.tree_at - i64::from(base);
        Seen { begin, end: end.max(begin), tree_at, tree: self.tree }
    }
}

impl Seen {
    /// Whether it has no key at all.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// The first key of which bits of the tree decide.
    #[inline(always)]
    pub fn plain_end(&self) -> usize {
        if self.tree == u64::MAX { self.end } else { self.tree_at.clamp(0, SPLIT as i64) as usize }
    }

    /// Tiles of which every key is seen, no bits of the tree asked.
    #[inline(always)]
    fn whole_tiles(&self) -> Range<usize> {
        self.begin.div_ceil(LANES)..self.end.min(self.plain_end()) / LANES
    }

    /// Bit `i`: key `16 tile + i` is seen.
    #[inline(always)]
    pub fn bits(&self, tile: usize) -> u16 {
        let first = tile * LANES;
        let below = |count: usize| {
            let count = count.saturating_sub(first).min(LANES);
            ((1u32 << count) - 1) as u16
        };
        let bits = below(self.end) & !below(self.begin);
        if self.tree == u64::MAX {
            return bits;
        }
        let from = first as i64 - self.tree_at;
        let tree = match from {
            ..=-16 => u16::MAX,
            -15..=-1 => (self.tree << -from) as u16 | ((1u16 << -from) - 1),
            0..=63 => (self.tree >> from) as u16,
            64.. => 0,
        };
        bits & tree
    }

    /// The next run of keys seen within a range, empty at its end if there is none.
    #[inline(always)]
    pub fn run(&self, within: Range<usize>) -> Range<usize> {
        if self.tree == u64::MAX {
            return within;
        }
        let seen = |key: usize| self.bits(key / LANES) >> (key % LANES) & 1 != 0;
        let mut begin = within.start;
        while begin < within.end && !seen(begin) {
            begin += 1;
        }
        let mut end = begin;
        while end < within.end && seen(end) {
            end += 1;
        }
        begin..end
    }
}

/// What turns dot products into scores, and weights into factors of values.
#[derive(Clone, Copy, Debug)]
pub struct Scoring<'a> {
    /// The scale of each key of the split, or none.
    pub k_scales: Option<&'a [f32; SPLIT]>,
    /// The scale of each value of the split, or none.
    pub v_scales: Option<&'a [f32; SPLIT]>,
    /// Times this.
    pub scale: f32,
    /// Then capped by this, if it is not 0.
    pub softcap: f32,
}

/// ALiBi of one query.
#[derive(Clone, Copy, Debug)]
pub struct Slope {
    /// What a score gains with each position.
    pub slope: f32,
    /// The position of the split's first key less the row's.
    pub distance: i32,
}

impl Scoring<'_> {
    /// Dot products of the tiles become factors of values. Gives the largest score and
    /// the sum of the weights. `ahead` is asked for meanwhile.
    #[inline(always)]
    pub fn weights<L: Lanes>(
        &self,
        l: L,
        seen: &Seen,
        slope: Option<Slope>,
        tiles: Range<usize>,
        ahead: &mut Ahead,
        scores: &mut [f32; SPLIT],
    ) -> (f32, f32) {
        let none = l.splat(f32::NEG_INFINITY);
        let mut most = none;
        let whole = seen.whole_tiles();
        for tile in tiles.clone() {
            let at = tile * LANES;
            let mut x = load_at(l, scores, at, 0.0);
            if let Some(scales) = self.k_scales {
                x = l.mul(x, load_at(l, scales, at, 0.0));
            }
            x = l.mul(x, l.splat(self.scale));
            if self.softcap > 0.0 {
                let cap = l.splat(self.softcap);
                x = l.mul(cap, tanh(l, l.div(x, cap)));
            }
            if let Some(Slope { slope, distance }) = slope {
                let lanes = l.iload(&core::array::from_fn(|i| i as i32));
                let distance = l.iadd(lanes, l.isplat(distance + at as i32));
                x = l.fma(l.splat(slope), l.to_float(distance), x);
            }
            if !whole.contains(&tile) {
                x = l.select(l.mask(seen.bits(tile)), x, none);
            }
            most = l.max(most, x);
            store_at(l, x, scores, at);
        }
        let most = l.largest(most);
        let from = l.splat(if most == f32::NEG_INFINITY { 0.0 } else { most });
        let mut sum = l.splat(0.0);
        for tile in tiles {
            let at = tile * LANES;
            if tile.is_multiple_of(ASK_TILES) {
                ahead.ask();
            }
            // At most 0, unless a score is NaN: then so is the sum, whatever the others are.
            let mut p = exp_below(l, l.sub(load_at(l, scores, at, 0.0), from));
            sum = l.add(sum, p);
            if let Some(scales) = self.v_scales {
                p = l.mul(p, load_at(l, scales, at, 0.0));
            }
            store_at(l, p, scores, at);
        }
        (most, l.sum(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::Row;

    #[test]
    fn bits_are_those_of_the_interval_and_the_tree() {
        let row = Row { position: 0, begin: 3, end: 40, tree_at: 24, tree: 0b1011 };
        let seen = row.seen(0);
        assert_eq!(seen.bits(0), 0xfff8);
        assert_eq!(seen.bits(1), 0x0bff);
        assert_eq!(seen.bits(2), 0);
        assert_eq!(seen.run(20..40), 20..26);
        assert_eq!(seen.run(26..40), 27..28);
        assert_eq!(seen.run(28..40), 40..40);
        // The same keys from a split that begins within the tree.
        assert_eq!(Row { end: 300, tree_at: 250, begin: 0, ..row }.seen(256).bits(0), 0);
        let tree = 1 << 6 | 1 << 8;
        assert_eq!(Row { end: 300, tree_at: 250, begin: 0, tree, ..row }.seen(256).bits(0), 0b101);
    }
}
