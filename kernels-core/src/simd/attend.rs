//! The two products of attention on tiles of sixteen positions: queries with
//! keys, where lanes are positions, and weights with values, where lanes are dims.
//! How many queries and vectors go together is the caller's choice and changes no
//! bit: every sum is one chain of fma.

#![expect(clippy::needless_range_loop, reason = "arrays of registers are walked by number")]

use super::{LANES, Lanes, Stored};
use core::ops::Range;

/// Dims of a head at most, and floats from one query's vector to the next.
pub const DIMS_MAX: usize = 256;
/// Positions of a split.
pub const SPLIT: usize = 256;
/// Tiles of a split.
pub const TILES: usize = SPLIT / LANES;

/// Where the tiles of a split lie in a slab of cells.
#[derive(Clone, Copy, Debug)]
pub struct Tiles<'a, T> {
    /// The slab.
    pub cells: &'a [T],
    /// The first cell of each tile; of no meaning for tiles that are not asked for.
    pub start: [usize; TILES],
    /// Cells from one dim of keys, or from one position of values, to the next.
    pub stride: usize,
}

impl<T> Tiles<'_, T> {
    /// Panics unless `tile` has `rows` rows of `width` cells in the slab.
    #[inline(always)]
    fn assert_holds(&self, tile: usize, rows: usize, width: usize) {
        let reach = self.stride.checked_mul(rows - 1).and_then(|reach| reach.checked_add(width));
        let end = reach.and_then(|reach| reach.checked_add(self.start[tile]));
        assert!(end.is_some_and(|end| end <= self.cells.len()), "a tile lies within its slab");
    }
}

/// Cells to ask for while others are at work: for each tile as many as it has, side
/// by side.
#[derive(Clone, Copy, Debug)]
pub struct Ahead<'a, T> {
    /// The slab.
    pub cells: &'a [T],
    /// The first cell for each tile.
    pub start: [usize; TILES],
}

/// Bytes that one request brings.
const LINE: usize = 64;

impl<T> Ahead<'_, T> {
    /// Asks for the line of the cell `at` cells into a tile's.
    #[inline(always)]
    fn ask<L: Lanes>(&self, l: L, tile: usize, at: usize) {
        l.prefetch(self.cells.as_ptr().wrapping_add(self.start[tile].wrapping_add(at)).cast());
    }
}

/// `scores[h][16 t + lane] = Σ q[h][d] · keys[t][d][lane]` for `C` tiles from
/// `tile`, d ascending by fma from zero. `ahead` are tiles to ask for meanwhile.
#[inline(always)]
pub fn dots<L: Lanes, T: Stored, const H: usize, const C: usize>(
    l: L,
    q: &[[f32; DIMS_MAX]],
    dims: usize,
    keys: &Tiles<'_, T>,
    tile: usize,
    ahead: Option<&Ahead<'_, T>>,
    scores: &mut [[f32; SPLIT]],
) {
    assert!(q.len() >= H && scores.len() >= H && dims <= DIMS_MAX && dims > 0);
    let mut base = [keys.cells.as_ptr(); C];
    for c in 0..C {
        keys.assert_holds(tile + c, dims, LANES);
        base[c] = base[c].wrapping_add(keys.start[tile + c]);
    }
    let mut sums = [[l.splat(0.0); C]; H];
    let mut d = 0;
    while d < dims {
        let mut k = [l.splat(0.0); C];
        for c in 0..C {
            // SAFETY: the tile holds `dims` rows of sixteen cells.
            k[c] = T::load(l, unsafe { &*base[c].add(d * keys.stride).cast() });
            if let Some(ahead) = ahead
                && (d * LANES * size_of::<T>()).is_multiple_of(LINE)
            {
                ahead.ask(l, tile + c, d * LANES);
            }
        }
        for h in 0..H {
            // SAFETY: `q` has H rows, and `d` is below `dims`.
            let x = l.splat(unsafe { *q.get_unchecked(h).get_unchecked(d) });
            for c in 0..C {
                sums[h][c] = l.fma(x, k[c], sums[h][c]);
            }
        }
        d += 1;
    }
    for h in 0..H {
        for c in 0..C {
            let to = &mut scores[h][(tile + c) * LANES..];
            l.store(sums[h][c], to.first_chunk_mut().expect("a split holds its tiles"));
        }
    }
}

/// `sums[h][d] += p[h][key] · values[key][d]` for 16·W dims from `dim` by fma, keys
/// ascending. `ahead` is asked for meanwhile. Gives `W`.
#[inline(always)]
pub fn weigh<L: Lanes, T: Stored, const H: usize, const W: usize>(
    l: L,
    p: &[[f32; SPLIT]],
    keys: Range<usize>,
    values: &Tiles<'_, T>,
    dim: usize,
    ahead: Option<&Ahead<'_, T>>,
    sums: &mut [[f32; DIMS_MAX]],
) -> usize {
    assert!(p.len() >= H && sums.len() >= H && keys.end <= SPLIT);
    let mut acc = [[l.splat(0.0); W]; H];
    for h in 0..H {
        for w in 0..W {
            acc[h][w] = super::load_at(l, &sums[h], dim + w * LANES, 0.0);
        }
    }
    let mut key = keys.start;
    while key < keys.end {
        let tile = key / LANES;
        values.assert_holds(tile, LANES, dim + W * LANES);
        let mut row = values.cells.as_ptr().wrapping_add(values.start[tile] + dim);
        row = row.wrapping_add(key % LANES * values.stride);
        let mut asked = (dim + key % LANES * W) * LANES;
        let end = keys.end.min((tile + 1) * LANES);
        while key < end {
            if let Some(ahead) = ahead {
                for line in 0..(W * LANES * size_of::<T>()).div_ceil(LINE) {
                    ahead.ask(l, tile, asked + line * (LINE / size_of::<T>()));
                }
                asked += W * LANES;
            }
            let mut v = [l.splat(0.0); W];
            for w in 0..W {
                // SAFETY: the tile holds sixteen rows of `dim + 16 W` cells.
                v[w] = T::load(l, unsafe { &*row.add(w * LANES).cast() });
            }
            for h in 0..H {
                // SAFETY: `p` has H rows, and keys lie below the split's end.
                let x = l.splat(unsafe { *p.get_unchecked(h).get_unchecked(key) });
                for w in 0..W {
                    acc[h][w] = l.fma(x, v[w], acc[h][w]);
                }
            }
            row = row.wrapping_add(values.stride);
            key += 1;
        }
    }
    for h in 0..H {
        for w in 0..W {
            super::store_at(l, acc[h][w], &mut sums[h], dim + w * LANES);
        }
    }
    W
}
