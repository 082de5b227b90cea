//! The two products of attention on tiles of sixteen positions: queries with
//! keys, where lanes are positions, and weights with values, where lanes are dims.
//! How many queries and vectors go together is the caller's choice and changes no
//! bit: every sum is one chain of fma.

#![expect(clippy::needless_range_loop, reason = "arrays of registers are walked by number")]

use super::{LANES, Lanes, Stored, far, near};
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

/// Bytes that one request brings.
const LINE: usize = 64;
/// Stretches that are asked for side by side: the memory serves several at once
/// faster than one after the other.
const STREAMS: usize = 4;

/// Rows of keys after which a line is asked for once more: what was asked for far
/// ahead may have been dropped, and waits in the second cache at best.
const NEAR_ROWS: usize = 16;

/// Lines to ask for while others are at work: stretches of one length, four at a time.
#[derive(Debug)]
pub struct Ahead {
    /// The first byte of each.
    from: [[*const u8; STREAMS]; 2 * TILES / STREAMS],
    count: usize,
    /// Lines of a stretch.
    lines: usize,
    /// The four at work, and their line that is next.
    four: usize,
    line: usize,
}

impl Ahead {
    /// Stretches of so many bytes, none yet.
    pub fn new(bytes: usize) -> Self {
        let from = [[core::ptr::null(); STREAMS]; 2 * TILES / STREAMS];
        Self { from, count: 0, lines: bytes.div_ceil(LINE), four: 0, line: 0 }
    }

    /// One more, by its first cell.
    #[inline(always)]
    pub fn push<T>(&mut self, cells: &[T], start: usize) {
        let first = cells.as_ptr().wrapping_add(start).cast();
        let (four, place) = (self.count / STREAMS, self.count % STREAMS);
        // A last four that is not full asks for some lines twice, which costs nothing.
        self.from[four][place..].fill(first);
        self.count += 1;
    }

    /// Asks for the next line of four stretches, if there are any left.
    #[inline(always)]
    pub fn ask(&mut self) {
        if self.line == self.lines {
            (self.four, self.line) = (self.four + 1, 0);
        }
        if self.four * STREAMS < self.count {
            for first in self.from[self.four] {
                far(first.wrapping_add(self.line * LINE));
            }
            self.line += 1;
        }
    }
}

/// Steps after which a loop that reads so many vectors in each asks for lines, so that
/// it asks for as many bytes as it reads.
const fn period<T>(vectors: usize) -> usize {
    let bytes = vectors * LANES * size_of::<T>();
    let steps = STREAMS * LINE / bytes;
    if steps > 0 { steps } else { 1 }
}

/// `scores[h][16 t + lane] = Σ q[h][d] · keys[t][d][lane]` for `C` tiles from
/// `tile`, d ascending by fma from zero. `ahead` is asked for meanwhile.
#[inline(always)]
pub fn dots<L: Lanes, T: Stored, const H: usize, const C: usize>(
    l: L,
    q: &[[f32; DIMS_MAX]],
    dims: usize,
    keys: &Tiles<'_, T>,
    tile: usize,
    ahead: &mut Ahead,
    scores: &mut [[f32; SPLIT]],
) {
    assert!(q.len() >= H && scores.len() >= H);
    assert!(dims <= DIMS_MAX && dims > 0);
    // Cells from the first tile to each.
    let mut apart = [0; C];
    for c in 0..C {
        keys.assert_holds(tile + c, dims, LANES);
        apart[c] = keys.start[tile + c].wrapping_sub(keys.start[tile]);
    }
    let mut row = keys.cells.as_ptr().wrapping_add(keys.start[tile]);
    let mut sums = [[l.splat(0.0); C]; H];
    for d in 0..dims {
        if d.is_multiple_of(const { period::<T>(C) }) {
            ahead.ask();
        }
        let mut k = [l.splat(0.0); C];
        for c in 0..C {
            let cells = row.wrapping_add(apart[c]);
            // SAFETY: the tile holds `dims` rows of sixteen cells.
            k[c] = T::load(l, unsafe { &*cells.cast() });
            // Two tiles or two rows share a line, if their numbers are narrow.
            if T::WIDE || c % 2 == d % 2 {
                near(cells.wrapping_add(NEAR_ROWS * keys.stride).cast());
            }
        }
        for h in 0..H {
            // SAFETY: `q` has H rows, and `d` is below `dims`.
            let x = l.splat(unsafe { *q.get_unchecked(h).get_unchecked(d) });
            for c in 0..C {
                sums[h][c] = l.fma(x, k[c], sums[h][c]);
            }
        }
        row = row.wrapping_add(keys.stride);
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
    ahead: &mut Ahead,
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
        let end = keys.end.min((tile + 1) * LANES);
        let later = values.start[if end < keys.end { tile + 1 } else { tile }];
        let later = later.wrapping_sub(values.start[tile]);
        while key < end {
            if key.is_multiple_of(const { period::<T>(W) }) {
                ahead.ask();
            }
            for line in 0..(W * LANES * size_of::<T>()).div_ceil(LINE) {
                near(row.wrapping_add(later + line * (LINE / size_of::<T>())).cast());
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
