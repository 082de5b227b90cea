//! The two products of `lora`, for rows of one adapter at a time.
//!
//! Eight chains of fma run at once whatever the number of rows: with fewer rows the
//! down product sums several segments of inputs side by side, and the up product
//! several panels of outputs. Neither changes a sum.

use super::cpu::Slots;
use super::{OUTPUTS, RANKS, SEGMENT, a_elements, b_elements};
use crate::params;
use crate::simd::{Element, Floats, LANES, Lanes, load_at, store_at};
use crate::workers::Strip;

/// Rows that share a load at most.
const ROWS: usize = 8;

/// A tile of the down product: some rows, all of their ranks.
pub(super) struct Down<'a, T> {
    pub p: &'a params::Lora,
    pub slots: Slots<'a>,
    pub adapters: &'a [u32],
    /// The tile's rows, those of an adapter together.
    pub order: &'a [u32],
    pub x: Floats<'a>,
    pub a: &'a [T],
    /// `[order, rank_max]`: the result.
    pub h: &'a mut [f32],
}

crate::levels! {
    pub(super) fn down_at<T: Element>(tile: Down<'_, T>) = down_body;
}

#[inline(always)]
fn down_body<T: Element, L: Lanes>(l: L, mut tile: Down<'_, T>) {
    let mut at = 0;
    while at < tile.order.len() {
        let rows = same(tile.adapters, &tile.order[at..]);
        match rows {
            ROWS.. => down_rows::<8, 1, T, L>(l, &mut tile, at),
            4.. => down_rows::<4, 2, T, L>(l, &mut tile, at),
            _ => down_rows::<1, 4, T, L>(l, &mut tile, at),
        }
        at += match rows {
            ROWS.. => 8,
            4.. => 4,
            _ => 1,
        };
    }
}

/// How many of the first rows have the first one's adapter.
#[inline(always)]
fn same(adapters: &[u32], order: &[u32]) -> usize {
    let slot = adapters[order[0] as usize];
    let rest = order.iter().take(ROWS);
    rest.take_while(|row| adapters[**row as usize] == slot).count()
}

/// `R` rows of one adapter: whole segments `S` at a time, then one by one.
#[inline(always)]
fn down_rows<const R: usize, const S: usize, T: Element, L: Lanes>(
    l: L,
    tile: &mut Down<'_, T>,
    at: usize,
) {
    let p = tile.p;
    let (inputs, rank_max) = (p.inputs as usize, p.rank_max as usize);
    let slot = tile.adapters[tile.order[at] as usize] as usize;
    let start = slot * a_elements(p) as usize;
    let panels = (tile.slots.ranks[slot] as usize).div_ceil(RANKS);
    let h = &mut tile.h[at * rank_max..(at + R) * rank_max];
    h.fill(0.0);
    let mut x = [[[0.0; SEGMENT]; S]; R];
    let mut first = 0;
    while first < inputs {
        let whole = inputs - first >= S * SEGMENT;
        let segments = if whole { S } else { 1 };
        let len = SEGMENT.min(inputs - first);
        for (r, x) in x.iter_mut().enumerate() {
            let row = tile.order[at + r] as usize * p.x_row_stride as usize;
            for (s, x) in x.iter_mut().take(segments).enumerate() {
                let from = row + first + s * SEGMENT;
                widen(l, tile.x.part(from..from + len), &mut x[..len]);
            }
        }
        for panel in 0..panels {
            let a = &tile.a[start + (panel * inputs + first) * RANKS..];
            let mut sums = [[l.splat(0.0); R]; S];
            if whole {
                down_segments::<R, S, S, T, L>(l, a, &x, SEGMENT, &mut sums);
            } else {
                down_segments::<R, S, 1, T, L>(l, a, &x, len, &mut sums);
            }
            for sums in sums.iter().take(segments) {
                for (r, &sum) in sums.iter().enumerate() {
                    let to = &mut h[r * rank_max..];
                    let total = l.add(load_at(l, to, panel * RANKS, 0.0), sum);
                    store_at(l, total, to, panel * RANKS);
                }
            }
        }
        first += segments * len;
    }
}

/// `to` = `from` as f32.
#[inline(always)]
fn widen<L: Lanes>(l: L, from: Floats<'_>, to: &mut [f32]) {
    let mut at = 0;
    while at < to.len() {
        let v = from.load(l, at, 0.0);
        store_at(l, v, to, at);
        at += LANES;
    }
}

/// One panel of ranks, `N` of `S` segments, of `len` inputs each, side by side.
#[inline(always)]
fn down_segments<const R: usize, const S: usize, const N: usize, T: Element, L: Lanes>(
    l: L,
    a: &[T],
    x: &[[[f32; SEGMENT]; S]; R],
    len: usize,
    sums: &mut [[L::F; R]; S],
) {
    let len = len.min(SEGMENT);
    let mut part: [&[[T; RANKS]]; N] = [&[]; N];
    let mut s = 0;
    while s < N {
        part[s] = &a[s * SEGMENT * RANKS..].as_chunks().0[..len];
        s += 1;
    }
    let mut k = 0;
    while k < len {
        let mut s = 0;
        while s < N {
            let v = T::load(l, &part[s][k]);
            let mut r = 0;
            while r < R {
                sums[s][r] = l.fma(v, l.splat(x[r][s][k]), sums[s][r]);
                r += 1;
            }
            s += 1;
        }
        k += 1;
    }
}

/// A tile of the up product: all rows, some of their columns.
pub(super) struct Up<'a, T> {
    pub p: &'a params::Lora,
    pub slots: Slots<'a>,
    pub adapters: &'a [u32],
    /// The rows with an adapter, those of an adapter together.
    pub order: &'a [u32],
    /// `[order, rank_max]`: what the down product made.
    pub h: &'a [f32],
    pub b: &'a [T],
    pub magnitudes: Option<&'a [f32]>,
    pub out: Strip<'a, f32>,
}

crate::levels! {
    pub(super) fn up_at<T: Element>(tile: Up<'_, T>) = up_body;
}

#[inline(always)]
fn up_body<T: Element, L: Lanes>(l: L, mut tile: Up<'_, T>) {
    let mut at = 0;
    while at < tile.order.len() {
        let rows = same(tile.adapters, &tile.order[at..]);
        match rows {
            ROWS.. => up_rows::<8, 1, T, L>(l, &mut tile, at),
            4.. => up_rows::<4, 1, T, L>(l, &mut tile, at),
            _ => up_rows::<1, 4, T, L>(l, &mut tile, at),
        }
        at += match rows {
            ROWS.. => 8,
            4.. => 4,
            _ => 1,
        };
    }
}

/// `R` rows of one adapter, `P` panels of outputs at a time, then one by one.
#[inline(always)]
fn up_rows<const R: usize, const P: usize, T: Element, L: Lanes>(
    l: L,
    tile: &mut Up<'_, T>,
    at: usize,
) {
    let columns = tile.out.columns();
    let mut column = columns.start;
    while column < columns.end {
        if columns.end - column >= P * OUTPUTS {
            up_panels::<R, P, T, L>(l, tile, at, column);
            column += P * OUTPUTS;
        } else {
            up_panels::<R, 1, T, L>(l, tile, at, column);
            column += OUTPUTS;
        }
    }
}

/// The term of `P` panels of outputs, and its way into the output.
#[inline(always)]
fn up_panels<const R: usize, const P: usize, T: Element, L: Lanes>(
    l: L,
    tile: &mut Up<'_, T>,
    at: usize,
    column: usize,
) {
    const VECTORS: usize = OUTPUTS / LANES;
    let (p, rank_max) = (tile.p, tile.p.rank_max as usize);
    let slot = tile.adapters[tile.order[at] as usize] as usize;
    let rank = tile.slots.ranks[slot] as usize;
    let start = slot * b_elements(p) as usize + column * rank;
    let b: &[[T; LANES]] = tile.b[start..start + P * rank * OUTPUTS].as_chunks().0;
    let h: [&[f32]; R] =
        core::array::from_fn(|r| &tile.h[(at + r) * rank_max..(at + r) * rank_max + rank]);
    let mut terms = [[[l.splat(0.0); R]; VECTORS]; P];
    let mut j = 0;
    while j < rank {
        let mut panel = 0;
        while panel < P {
            let mut i = 0;
            while i < VECTORS {
                let v = T::load(l, &b[(panel * rank + j) * VECTORS + i]);
                let mut r = 0;
                while r < R {
                    terms[panel][i][r] = l.fma(v, l.splat(h[r][j]), terms[panel][i][r]);
                    r += 1;
                }
                i += 1;
            }
            panel += 1;
        }
        j += 1;
    }
    let scale = l.splat(tile.slots.scales[slot]);
    let outputs = p.outputs as usize;
    let magnitude = tile.magnitudes.map(|all| &all[slot * outputs..(slot + 1) * outputs]);
    let first = tile.out.columns().start;
    let end = tile.out.columns().end;
    let mut r = 0;
    while r < R {
        let out = tile.out.row(tile.order[at + r] as usize);
        let mut i = 0;
        while i < P * VECTORS {
            let place = column + i * LANES;
            // Lanes past the last output hold whatever pads the panel: dropped here.
            if place < end {
                let base = load_at(l, out, place - first, 0.0);
                let mut v = l.fma(scale, terms[i / VECTORS][i % VECTORS][r], base);
                if let Some(magnitude) = magnitude {
                    v = l.mul(v, load_at(l, magnitude, place, 0.0));
                }
                store_at(l, v, out, place - first);
            }
            i += 1;
        }
        r += 1;
    }
}
