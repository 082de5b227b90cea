//! Threads, as the caller's: a kernel hands out tiles, and each tile writes its
//! own part of an output.

use core::marker::PhantomData;
use core::ops::Range;

/// Whoever runs tiles, on as many threads as it likes.
///
/// # Safety
/// [`run`](Workers::run) calls `f` exactly once for every number below `tiles`,
/// and returns after the last call has.
pub unsafe trait Workers: Sync {
    /// How many tiles run at once, at least 1: what a static split aims at.
    fn count(&self) -> u32;
    /// Runs `f(0)` to `f(tiles - 1)`, in any order, at once or not.
    fn run(&self, tiles: u32, f: &(dyn Fn(u32) + Sync));
}

/// The calling thread alone.
#[derive(Clone, Copy, Debug)]
pub struct Inline;

// SAFETY: a plain loop over the tiles.
unsafe impl Workers for Inline {
    fn count(&self) -> u32 {
        1
    }
    fn run(&self, tiles: u32, f: &(dyn Fn(u32) + Sync)) {
        for tile in 0..tiles {
            f(tile);
        }
    }
}

/// An output cut into parts, one per tile.
///
/// # Safety
/// The parts of two tiles are disjoint.
pub unsafe trait Parts: Sync {
    /// What one tile may write.
    type Part;
    /// The part of `tile`.
    ///
    /// # Safety
    /// Each tile's part is taken once while `self` lives.
    unsafe fn take(&self, tile: u32) -> Self::Part;
}

/// Runs `f(tile, part)` for every tile, each with its own part of `parts`.
pub fn split<P: Parts>(
    workers: &dyn Workers,
    tiles: u32,
    parts: P,
    f: impl Fn(u32, P::Part) + Sync,
) {
    // SAFETY: `Workers` calls once per tile, so each part is taken once.
    workers.run(tiles, &|tile| f(tile, unsafe { parts.take(tile) }));
}

/// The items of one tile when `items` are split evenly, in order.
pub const fn even(items: usize, tiles: u32, tile: u32) -> Range<usize> {
    let (tiles, tile) = (tiles as u128, tile as u128);
    let start = items as u128 * tile / tiles;
    let end = items as u128 * (tile + 1) / tiles;
    start as usize..end as usize
}

/// Items `unit` elements apart, split evenly and in order: tile `t` has the items
/// [`even`]`(items, tiles, t)`. The last item may be shorter than `unit`.
#[derive(Debug)]
pub struct Pieces<'a, T> {
    base: *mut T,
    len: usize,
    items: usize,
    unit: usize,
    tiles: u32,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a part goes to one tile, so elements only move between threads.
unsafe impl<T: Send> Sync for Pieces<'_, T> {}

impl<'a, T> Pieces<'a, T> {
    /// Parts of `out`, each cut off at its end.
    pub fn new(out: &'a mut [T], items: usize, unit: usize, tiles: u32) -> Self {
        assert!(tiles > 0, "a split needs tiles");
        let len = out.len();
        Self { base: out.as_mut_ptr(), len, items, unit, tiles, owner: PhantomData }
    }
}

// SAFETY: `even` gives ascending, disjoint ranges of items.
unsafe impl<'a, T: Send> Parts for Pieces<'a, T> {
    type Part = &'a mut [T];
    unsafe fn take(&self, tile: u32) -> &'a mut [T] {
        assert!(tile < self.tiles, "a tile beyond the split");
        let items = even(self.items, self.tiles, tile);
        let start = items.start.saturating_mul(self.unit).min(self.len);
        let end = items.end.saturating_mul(self.unit).min(self.len);
        // SAFETY: within the output by `min`; disjoint from other tiles' by `even`.
        unsafe { core::slice::from_raw_parts_mut(self.base.add(start), end - start) }
    }
}

/// The rows of a row-major matrix, split by columns in units: tile `t` has the
/// columns of the units [`even`]`(units, tiles, t)` of every row.
#[derive(Debug)]
pub struct Columns<'a, T> {
    base: *mut T,
    rows: usize,
    row_stride: usize,
    columns: usize,
    unit: usize,
    tiles: u32,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a part goes to one tile, so elements only move between threads.
unsafe impl<T: Send> Sync for Columns<'_, T> {}

impl<'a, T> Columns<'a, T> {
    /// `out` holds `rows` rows of `columns` elements, `row_stride` apart; strips
    /// begin at multiples of `unit`.
    pub fn new(
        out: &'a mut [T],
        rows: usize,
        row_stride: usize,
        columns: usize,
        unit: usize,
        tiles: u32,
    ) -> Self {
        let reach = |rows: usize| (rows - 1).checked_mul(row_stride)?.checked_add(columns);
        let fits = rows == 0 || reach(rows).is_some_and(|reach| reach <= out.len());
        assert!(fits && columns <= row_stride, "the rows must lie within the output");
        assert!(unit > 0 && tiles > 0, "a split needs units and tiles");
        let base = out.as_mut_ptr();
        Self { base, rows, row_stride, columns, unit, tiles, owner: PhantomData }
    }
}

// SAFETY: `even` gives disjoint ranges of units, hence of columns; rows are at
// least `columns` apart, so strips of different tiles never meet.
unsafe impl<'a, T: Send> Parts for Columns<'a, T> {
    type Part = Strip<'a, T>;
    unsafe fn take(&self, tile: u32) -> Strip<'a, T> {
        assert!(tile < self.tiles, "a tile beyond the split");
        let units = even(self.columns.div_ceil(self.unit), self.tiles, tile);
        let end = (units.end * self.unit).min(self.columns);
        let start = (units.start * self.unit).min(end);
        Strip {
            base: self.base,
            rows: self.rows,
            row_stride: self.row_stride,
            columns: start..end,
            owner: PhantomData,
        }
    }
}

/// Some columns of every row of a matrix.
#[derive(Debug)]
pub struct Strip<'a, T> {
    base: *mut T,
    rows: usize,
    row_stride: usize,
    columns: Range<usize>,
    owner: PhantomData<&'a mut [T]>,
}

impl<T> Strip<'_, T> {
    /// The columns, as numbers within the whole matrix.
    pub fn columns(&self) -> Range<usize> {
        self.columns.clone()
    }

    /// The strip's part of one row.
    #[inline(always)]
    pub fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "a row beyond the matrix");
        // SAFETY: within the output by `Columns::new`; the columns are this tile's.
        unsafe {
            let base = self.base.add(row * self.row_stride + self.columns.start);
            core::slice::from_raw_parts_mut(base, self.columns.len())
        }
    }
}

// SAFETY: as each of the two, taken for the same tile.
unsafe impl<A: Parts, B: Parts> Parts for (A, B) {
    type Part = (A::Part, B::Part);
    unsafe fn take(&self, tile: u32) -> Self::Part {
        // SAFETY: the caller's.
        unsafe { (self.0.take(tile), self.1.take(tile)) }
    }
}

// SAFETY: as each of the three, taken for the same tile.
unsafe impl<A: Parts, B: Parts, C: Parts> Parts for (A, B, C) {
    type Part = (A::Part, B::Part, C::Part);
    unsafe fn take(&self, tile: u32) -> Self::Part {
        // SAFETY: the caller's.
        unsafe { (self.0.take(tile), self.1.take(tile), self.2.take(tile)) }
    }
}

// SAFETY: there is a part or there is none.
unsafe impl<A: Parts> Parts for Option<A> {
    type Part = Option<A::Part>;
    unsafe fn take(&self, tile: u32) -> Self::Part {
        // SAFETY: the caller's.
        self.as_ref().map(|parts| unsafe { parts.take(tile) })
    }
}
