//! Threads, as the caller's: a kernel hands out tiles, and each tile writes its
//! own part of an output.

use crate::kv_layout::{KvLayout, Part, Place, Scales};
use core::marker::PhantomData;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};

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

/// The calling thread alone, tiles from the last to the first, with a split for so many
/// workers: what shows that a result does not hang on the order of tiles.
#[derive(Clone, Copy, Debug)]
pub struct Reversed(pub u32);

// SAFETY: a plain loop over the tiles.
unsafe impl Workers for Reversed {
    fn count(&self) -> u32 {
        self.0.max(1)
    }
    fn run(&self, tiles: u32, f: &(dyn Fn(u32) + Sync)) {
        for tile in (0..tiles).rev() {
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

/// Runs `f(scratch, tile, part)` for every tile, in any order, on `slots` parts of
/// scratch that tiles use one after the other.
pub fn share<S: Parts, P: Parts>(
    workers: &dyn Workers,
    slots: u32,
    scratch: S,
    tiles: u32,
    parts: P,
    f: impl Fn(&mut S::Part, u32, P::Part) + Sync,
) {
    let next = AtomicU32::new(0);
    let slots = slots.min(tiles);
    assert!(tiles <= u32::MAX - slots, "the count of tiles taken would wrap");
    split(workers, slots, scratch, |_, mut scratch| {
        loop {
            let tile = next.fetch_add(1, Ordering::Relaxed);
            if tile >= tiles {
                return;
            }
            // SAFETY: the count gives each tile once.
            f(&mut scratch, tile, unsafe { parts.take(tile) });
        }
    });
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

/// The slabs of a layout's pages, to write.
#[derive(Debug)]
pub struct Slabs<'a> {
    /// K, and V where it lies in the same slab.
    pub keys: &'a mut [u8],
    /// V where it lies apart.
    pub values: Option<&'a mut [u8]>,
    /// The scales of tokens, where the layout has them.
    pub scales: Option<&'a mut [u8]>,
}

/// Pages split by their columns, each the K or the V of one head in every page:
/// column `2 · head` holds keys, `2 · head + 1` values, and tile `t` has the columns
/// [`even`]`(2 · kv_heads, tiles, t)`.
#[derive(Debug)]
pub struct PageColumns<'a> {
    kv: &'a KvLayout,
    keys: *mut u8,
    values: *mut u8,
    scales: *mut u8,
    tiles: u32,
    owner: PhantomData<&'a mut [u8]>,
}

// SAFETY: a part goes to one tile, so bytes only move between threads.
unsafe impl Sync for PageColumns<'_> {}

impl<'a> PageColumns<'a> {
    /// Parts of slabs that hold the layout.
    pub fn new(kv: &'a KvLayout, slabs: Slabs<'a>, tiles: u32) -> Self {
        let Slabs { keys, values, scales } = slabs;
        assert!(tiles > 0, "a split needs tiles");
        assert!(keys.len() as u64 >= kv.keys_bytes(), "the slab of K holds its layout");
        assert!(values.is_some() != kv.shares_slab(), "V has one place");
        let values_bytes = values.as_ref().map_or(0, |values| values.len() as u64);
        assert!(values_bytes >= kv.values_bytes(), "the slab of V holds its layout");
        let takes = if kv.scales() == Scales::Token { kv.scale_count() } else { Some(0) };
        let scale_count = scales.as_ref().map_or(0, |scales| scales.len() as u64 / 4);
        assert!(takes.is_some_and(|takes| scale_count >= takes), "every token has a scale");
        let keys = keys.as_mut_ptr();
        let values = values.map_or(keys, <[u8]>::as_mut_ptr);
        let scales = scales.map_or(core::ptr::null_mut(), <[u8]>::as_mut_ptr);
        Self { kv, keys, values, scales, tiles, owner: PhantomData }
    }
}

// SAFETY: a checked layout gives every page, head, token, dim, and K or V, a cell of
// its own, so columns never meet; `even` gives each column to one tile.
unsafe impl<'a> Parts for PageColumns<'a> {
    type Part = PagePart<'a>;
    unsafe fn take(&self, tile: u32) -> PagePart<'a> {
        assert!(tile < self.tiles, "a tile beyond the split");
        let columns = even(2 * self.kv.params().kv_heads as usize, self.tiles, tile);
        PagePart {
            kv: self.kv,
            keys: self.keys,
            values: self.values,
            scales: self.scales,
            columns: columns.start as u32..columns.end as u32,
            owner: PhantomData,
        }
    }
}

/// Some columns of every page.
#[derive(Debug)]
pub struct PagePart<'a> {
    kv: &'a KvLayout,
    keys: *mut u8,
    values: *mut u8,
    scales: *mut u8,
    columns: Range<u32>,
    owner: PhantomData<&'a mut [u8]>,
}

impl PagePart<'_> {
    /// The head and the part of each column.
    pub fn columns(&self) -> impl Iterator<Item = (u32, Part)> + use<> {
        let part = |column| if column % 2 == 0 { Part::Keys } else { Part::Values };
        self.columns.clone().map(move |column| (column / 2, part(column)))
    }

    /// Writes a token's cells, each `T` as large as a cell.
    #[inline(always)]
    pub fn write<T: bytemuck::Pod>(&mut self, part: Part, place: Place, cells: &[T]) {
        let kv = self.kv;
        assert!(cells.len() as u64 == kv.dim_cells(), "a token has so many cells");
        assert!(size_of::<T>() as u64 == kv.cell_bytes(), "a cell has so many bytes");
        let to = self.cell(part, place).cast::<T>();
        let stride = kv.dim_stride(part) as usize;
        // SAFETY: the place is this tile's by `cell`, and the layout's cells lie
        // within the slab; its address need not be aligned to `T`.
        unsafe {
            if stride == 1 {
                core::ptr::copy_nonoverlapping(
                    cells.as_ptr().cast::<u8>(),
                    to.cast(),
                    size_of_val(cells),
                );
                return;
            }
            for (dim, &cell) in cells.iter().enumerate() {
                to.add(dim * stride).write_unaligned(cell);
            }
        }
    }

    /// Writes a token's scale, of a layout with scales for tokens.
    #[inline(always)]
    pub fn write_scale(&mut self, part: Part, place: Place, scale: f32) {
        let to = self.scale(part, place).cast::<f32>();
        // SAFETY: the place is this tile's by `scale`; no alignment is needed.
        unsafe { to.write_unaligned(scale) };
    }

    /// Copies the cells and scales of `tokens` tokens from one place on to those from
    /// another on, as if by way of a third.
    pub fn copy(&mut self, part: Part, from: Place, to: Place, tokens: u32) {
        let kv = self.kv;
        assert!(tokens > 0 && from.head == to.head, "tokens stay in their column");
        let last = |place: Place| {
            let token = place.token.checked_add(tokens - 1).expect("the tokens lie in a page");
            assert!(kv.holds(Place { token, ..place }), "the tokens lie in a page");
        };
        last(from);
        last(to);
        let cell_bytes = kv.cell_bytes() as usize;
        let (source, target) = (self.cell(part, from), self.cell(part, to));
        let stride = |axis: u64| axis as usize * cell_bytes;
        let token = Axis { count: tokens as usize, stride: stride(kv.token_stride(part)) };
        let dim = Axis { count: kv.dim_cells() as usize, stride: stride(kv.dim_stride(part)) };
        // SAFETY: all cells of both places are this tile's, within the slab.
        unsafe { move_block(source, target, [token, dim], cell_bytes) };
        if kv.scales() == Scales::Token {
            let (source, target) = (self.scale(part, from), self.scale(part, to));
            // SAFETY: the scales of a column's tokens are consecutive.
            unsafe { core::ptr::copy(source, target, tokens as usize * 4) };
        }
    }

    fn own(&self, part: Part, place: Place) {
        let column = 2 * place.head + part as u32;
        assert!(self.kv.holds(place) && self.columns.contains(&column), "a place of this tile");
    }

    /// The first cell of a place of this tile.
    #[inline(always)]
    fn cell(&mut self, part: Part, place: Place) -> *mut u8 {
        self.own(part, place);
        let base = if part == Part::Keys { self.keys } else { self.values };
        // SAFETY: the layout's cells lie within the slab.
        unsafe { base.add((self.kv.cell(part, place) * self.kv.cell_bytes()) as usize) }
    }

    /// The scale of a place of this tile.
    #[inline(always)]
    fn scale(&mut self, part: Part, place: Place) -> *mut u8 {
        self.own(part, place);
        assert!(!self.scales.is_null(), "the layout has scales for tokens");
        // SAFETY: the layout's scales lie within their slab.
        unsafe { self.scales.add(self.kv.scale(part, place) as usize * 4) }
    }
}

/// So many cells, or runs of them, so many bytes apart.
#[derive(Clone, Copy)]
struct Axis {
    count: usize,
    stride: usize,
}

/// Moves a block of cells between two places of one layout, as if by way of a third.
///
/// # Safety
/// The cells of both places can be read and written; two cells of the layout share
/// no byte, so a source cell is a target cell as a whole or not at all.
unsafe fn move_block(from: *const u8, to: *mut u8, axes: [Axis; 2], cell_bytes: usize) {
    // Runs along the denser axis; where the other steps by whole runs, one run is all.
    let [outer, inner] = if axes[0].stride < axes[1].stride { [axes[1], axes[0]] } else { axes };
    let (run_bytes, runs) = if inner.stride == cell_bytes || inner.count == 1 {
        (inner.count * cell_bytes, Axis { count: 1, stride: 0 })
    } else {
        (cell_bytes, inner)
    };
    if runs.count == 1 && (outer.stride == run_bytes || outer.count == 1) {
        // SAFETY: the caller's.
        unsafe { core::ptr::copy(from, to, run_bytes * outer.count) };
        return;
    }
    // Away from the target, so that no source is overwritten before it is read.
    let backward = from.addr() < to.addr();
    for step in 0..outer.count {
        let step = if backward { outer.count - 1 - step } else { step };
        for run in 0..runs.count {
            let run = if backward { runs.count - 1 - run } else { run };
            let at = step * outer.stride + run * runs.stride;
            // SAFETY: the caller's.
            unsafe { core::ptr::copy(from.add(at), to.add(at), run_bytes) };
        }
    }
}

/// Blocks of the rows of a matrix, each split by columns into strips: tile `t` has
/// strip `t mod strips` of the rows of block `t / strips`.
#[derive(Debug)]
pub struct Blocks<'a, T> {
    base: *mut T,
    starts: &'a [u32],
    row_stride: usize,
    unit: usize,
    strips: u32,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: a part goes to one tile, so elements only move between threads.
unsafe impl<T: Send> Sync for Blocks<'_, T> {}

impl<'a, T> Blocks<'a, T> {
    /// Block `b` has the rows from `starts[b]` up to `starts[b + 1]`, `row_stride` apart,
    /// each of `strips` strips of `unit` columns.
    pub fn new(
        out: &'a mut [T],
        starts: &'a [u32],
        row_stride: usize,
        unit: usize,
        strips: u32,
    ) -> Self {
        let columns = unit.checked_mul(strips as usize).expect("columns of a matrix in memory");
        assert!(columns <= row_stride && starts.is_sorted(), "blocks of rows lie side by side");
        let rows = starts.last().map_or(0, |rows| *rows as usize);
        let reach = |rows: usize| (rows - 1).checked_mul(row_stride)?.checked_add(columns);
        let fits = rows == 0 || reach(rows).is_some_and(|reach| reach <= out.len());
        assert!(fits && strips > 0, "the rows must lie within the output");
        Self { base: out.as_mut_ptr(), starts, row_stride, unit, strips, owner: PhantomData }
    }
}

// SAFETY: starts ascend, so blocks have rows of their own; strips have columns of
// their own; rows are at least as far apart as they are wide.
unsafe impl<'a, T: Send> Parts for Blocks<'a, T> {
    type Part = Strip<'a, T>;
    unsafe fn take(&self, tile: u32) -> Strip<'a, T> {
        let (block, strip) = ((tile / self.strips) as usize, (tile % self.strips) as usize);
        let (start, end) = (self.starts[block] as usize, self.starts[block + 1] as usize);
        // SAFETY: within the output, or at its end where the block is empty.
        let base = unsafe { self.base.add(if start == end { 0 } else { start * self.row_stride }) };
        let columns = strip * self.unit..(strip + 1) * self.unit;
        let (rows, row_stride) = (end - start, self.row_stride);
        Strip { base, rows, row_stride, columns, owner: PhantomData }
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

#[cfg(test)]
mod tests {
    use super::{Columns, Inline, Pieces, even, split};

    #[test]
    fn an_even_split_covers_every_item_once() {
        for (items, tiles) in [(0, 1), (1, 3), (7, 3), (64, 5), (usize::MAX, 2)] {
            let mut next = 0;
            for tile in 0..tiles {
                let part = even(items, tiles, tile);
                assert_eq!(part.start, next);
                next = part.end;
            }
            assert_eq!(next, items);
        }
    }

    #[test]
    fn pieces_are_written_by_their_tile_alone() {
        // Five items of four, the last cut off after two.
        let mut out = [0u8; 18];
        split(&Inline, 3, Pieces::new(&mut out, 5, 4, 3), |tile, part| part.fill(tile as u8 + 1));
        assert_eq!(out, [1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3]);
    }

    #[test]
    fn strips_are_written_by_their_tile_alone_and_gaps_by_none() {
        // Three rows of five columns, six apart, in units of two columns.
        let mut out = [0u8; 17];
        let parts = (Columns::new(&mut out, 3, 6, 5, 2, 2), None::<Pieces<'_, u8>>);
        split(&Inline, 2, parts, |tile, (mut strip, none)| {
            assert!(none.is_none());
            for row in 0..3 {
                strip.row(row).fill(tile as u8 + 1);
            }
        });
        assert_eq!(out, [1, 1, 2, 2, 2, 0, 1, 1, 2, 2, 2, 0, 1, 1, 2, 2, 2]);
    }
}
