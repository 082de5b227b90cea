//! One split of one block of queries: dot products, weights, weighted values,
//! folded into what was before.

use super::fold::States;
use super::scores::{Row, Scoring, Seen, Slope};
use crate::simd::attend::{Ahead, DIMS_MAX, SPLIT, Tiles, dots, weigh};
use crate::simd::{LANES, Lanes, Stored};
use core::ops::Range;

/// Queries that go together.
pub const QUERIES: usize = 8;

/// One split, with what is done to it.
#[derive(Debug)]
pub struct Split<'a, T> {
    /// Its first position.
    pub base: u32,
    /// `[rows × group][dims]`: the queries.
    pub q: &'a [[f32; DIMS_MAX]],
    /// What each row sees.
    pub rows: &'a [Row],
    /// Queries of a row.
    pub group: usize,
    /// ALiBi slopes of the group.
    pub slopes: Option<&'a [f32]>,
    /// Elements of a query.
    pub dims: usize,
    /// Keys by tiles of sixteen positions.
    pub keys: Tiles<'a, T>,
    /// Values by tiles of sixteen positions.
    pub values: Tiles<'a, T>,
    /// What turns dot products into weights.
    pub scoring: Scoring<'a>,
}

/// Memory of a split at work.
#[derive(Debug)]
pub struct Desk<'a> {
    /// Scores, then weights.
    pub scores: &'a mut [[f32; SPLIT]],
    /// Weighted values.
    pub sums: &'a mut [[f32; DIMS_MAX]],
}

crate::levels! {
    /// Folds the split into the states of its queries, and asks for what lies ahead.
    pub fn attend<T: Stored>(split: &Split<'_, T>, ahead: &mut Ahead, desk: &mut Desk<'_>, states: &mut States<'_>) = attend_body;
}

#[inline(always)]
fn attend_body<L: Lanes, T: Stored>(
    l: L,
    split: &Split<'_, T>,
    ahead: &mut Ahead,
    desk: &mut Desk<'_>,
    states: &mut States<'_>,
) {
    let mut first = 0;
    while first < split.q.len() {
        let count = QUERIES.min(split.q.len() - first);
        queries(l, split, first..first + count, ahead, desk, states);
        first += count;
    }
}

/// The split for some queries.
#[inline(always)]
fn queries<L: Lanes, T: Stored>(
    l: L,
    split: &Split<'_, T>,
    range: Range<usize>,
    ahead: &mut Ahead,
    desk: &mut Desk<'_>,
    states: &mut States<'_>,
) {
    let (first, count) = (range.start, range.len());
    let mut seen = [Seen::default(); QUERIES];
    let (mut begin, mut end) = (SPLIT, 0);
    for (h, seen) in seen.iter_mut().enumerate().take(count) {
        *seen = split.rows[(first + h) / split.group].seen(split.base);
        if !seen.is_empty() {
            begin = begin.min(seen.begin);
            end = end.max(seen.end);
        }
    }
    if begin >= end {
        return;
    }
    let tiles = begin / LANES..end.div_ceil(LANES);
    all_dots(l, split, &split.q[range], tiles.clone(), ahead, desk.scores);
    let mut most = [0.0; QUERIES];
    let mut sum = [0.0; QUERIES];
    for h in 0..count {
        let query = first + h;
        let slope = split.slopes.map(|slopes| Slope {
            slope: slopes[query % split.group],
            distance: (i64::from(split.base) - split.rows[query / split.group].position) as i32,
        });
        let scores = &mut desk.scores[h];
        (most[h], sum[h]) = split.scoring.weights(l, &seen[h], slope, tiles.clone(), ahead, scores);
        desk.sums[h][..states.width].fill(0.0);
    }
    all_weigh(l, split, &seen[..count], ahead, states.width, desk);
    for h in 0..count {
        states.fold(l, first + h, most[h], sum[h], &desk.sums[h]);
    }
}

/// Dot products of some queries with some tiles.
#[inline(always)]
fn all_dots<L: Lanes, T: Stored>(
    l: L,
    split: &Split<'_, T>,
    q: &[[f32; DIMS_MAX]],
    tiles: Range<usize>,
    ahead: &mut Ahead,
    scores: &mut [[f32; SPLIT]],
) {
    let mut h = 0;
    while h < q.len() {
        let (q, scores) = (&q[h..], &mut scores[h..]);
        h += match q.len() {
            8.. => strip::<L, T, 8, 2>(l, split, q, tiles.clone(), ahead, scores),
            4..=7 => strip::<L, T, 4, 4>(l, split, q, tiles.clone(), ahead, scores),
            2..=3 => strip::<L, T, 2, 4>(l, split, q, tiles.clone(), ahead, scores),
            _ => strip::<L, T, 1, 8>(l, split, q, tiles.clone(), ahead, scores),
        };
    }
}

/// Dot products of `H` queries with some tiles, `C` at a time. Gives `H`.
#[inline(always)]
fn strip<L: Lanes, T: Stored, const H: usize, const C: usize>(
    l: L,
    split: &Split<'_, T>,
    q: &[[f32; DIMS_MAX]],
    tiles: Range<usize>,
    ahead: &mut Ahead,
    scores: &mut [[f32; SPLIT]],
) -> usize {
    let mut tile = tiles.start;
    while tile + C <= tiles.end {
        dots::<L, T, H, C>(l, q, split.dims, &split.keys, tile, ahead, scores);
        tile += C;
    }
    while tile < tiles.end {
        dots::<L, T, H, 1>(l, q, split.dims, &split.keys, tile, ahead, scores);
        tile += 1;
    }
    H
}

/// Weighted values of some queries: each one's keys before those that all see, these
/// for all at once, and each one's keys after them.
#[inline(always)]
fn all_weigh<L: Lanes, T: Stored>(
    l: L,
    split: &Split<'_, T>,
    seen: &[Seen],
    ahead: &mut Ahead,
    width: usize,
    desk: &mut Desk<'_>,
) {
    let count = seen.len();
    let (mut begin, mut end) = (0, SPLIT);
    for seen in seen {
        begin = begin.max(seen.begin);
        end = end.min(seen.end.min(seen.plain_end()));
    }
    let end = end.max(begin);
    let mut step = 0;
    while step < 2 * count + 1 {
        let all = step == count;
        let h = if step < count { step } else { (step - count).saturating_sub(1) };
        let own = &seen[h];
        let mut left = if all {
            begin..end
        } else if step < count {
            own.begin..own.end.min(begin)
        } else {
            own.begin.max(end)..own.end
        };
        while left.start < left.end {
            let run = if all { left.clone() } else { own.run(left.clone()) };
            let heads = if all { 0..count } else { h..h + 1 };
            some_weigh(l, split, heads, run.clone(), ahead, width, desk);
            left.start = run.end.max(left.start + 1);
        }
        step += 1;
    }
}

/// Weighted values of some queries over a run of keys that all of them see.
#[inline(always)]
fn some_weigh<L: Lanes, T: Stored>(
    l: L,
    split: &Split<'_, T>,
    heads: Range<usize>,
    keys: Range<usize>,
    ahead: &mut Ahead,
    width: usize,
    desk: &mut Desk<'_>,
) {
    let mut h = heads.start;
    while h < heads.end {
        let (p, sums) = (&desk.scores[h..], &mut desk.sums[h..]);
        let mut dim = 0;
        let left = heads.end - h;
        while dim < width {
            let vectors = (width - dim) / LANES;
            let (keys, values) = (keys.clone(), &split.values);
            dim += LANES
                * match (left, vectors) {
                    (8.., 2..) => weigh::<L, T, 8, 2>(l, p, keys, values, dim, ahead, sums),
                    (8.., _) => weigh::<L, T, 8, 1>(l, p, keys, values, dim, ahead, sums),
                    (4..=7, 4..) => weigh::<L, T, 4, 4>(l, p, keys, values, dim, ahead, sums),
                    (4..=7, _) => weigh::<L, T, 4, 1>(l, p, keys, values, dim, ahead, sums),
                    (2..=3, 4..) => weigh::<L, T, 2, 4>(l, p, keys, values, dim, ahead, sums),
                    (2..=3, _) => weigh::<L, T, 2, 1>(l, p, keys, values, dim, ahead, sums),
                    (_, 8..) => weigh::<L, T, 1, 8>(l, p, keys, values, dim, ahead, sums),
                    (_, 4..) => weigh::<L, T, 1, 4>(l, p, keys, values, dim, ahead, sums),
                    (_, _) => weigh::<L, T, 1, 1>(l, p, keys, values, dim, ahead, sums),
                };
        }
        h += match left {
            8.. => 8,
            4..=7 => 4,
            2..=3 => 2,
            _ => 1,
        };
    }
}
