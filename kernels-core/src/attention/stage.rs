//! The keys and values of a split as tiles: where they lie, if sixteen positions
//! lie side by side there, or widened into scratch, which changes no bit.

use crate::kv_layout::{KvLayout, Part, Place};
use crate::simd::attend::{SPLIT, Tiles};
use crate::simd::{LANES, Lanes, Stored, store_at};
use core::ops::Range;

/// One head of one sequence in its pages.
#[derive(Clone, Copy, Debug)]
pub struct Pages<'a> {
    /// Where numbers lie in a page.
    pub kv: &'a KvLayout,
    /// The head.
    pub head: u32,
    /// Pages by number, from the one that holds `first`.
    pub ids: &'a [u32],
    /// The first position kept.
    pub first: u32,
}

impl Pages<'_> {
    /// Where a position lies; it is kept and below the sequence's length.
    #[inline(always)]
    pub fn place(&self, position: u32) -> Place {
        let page_len = self.kv.params().page_len;
        let index = position / page_len - self.first / page_len;
        Place { page: self.ids[index as usize], head: self.head, token: position % page_len }
    }

    /// The tiles that hold any of the positions of the split at `base`, by number and
    /// place of their first position, where tiles do not cross pages.
    pub fn tiles(&self, base: u32, positions: Range<u32>) -> impl Iterator<Item = (usize, Place)> {
        let (lanes, page_len) = (LANES as u32, self.kv.params().page_len);
        let mut tiles = if positions.is_empty() {
            0..0
        } else {
            (positions.start - base) / lanes..(positions.end - base).div_ceil(lanes)
        };
        // The first position wanted is kept, its tile's first may not be: same page.
        let mut token = positions.start % page_len / lanes * lanes;
        let mut index = (positions.start / page_len - self.first / page_len) as usize;
        core::iter::from_fn(move || {
            let tile = tiles.next()?;
            if token == page_len {
                (token, index) = (0, index + 1);
            }
            let place = Place { page: self.ids[index], head: self.head, token };
            token += lanes;
            Some((tile as usize, place))
        })
    }
}

/// Whether tiles can be read where they lie: sixteen positions of a dim side by side
/// in one page, and sixteen dims of a value within its row.
pub fn lies_in_tiles(kv: &KvLayout) -> bool {
    let p = kv.params();
    kv.dim_cells() == u64::from(p.head_dim)
        && p.head_dim.is_multiple_of(LANES as u32)
        && p.page_len.is_multiple_of(LANES as u32)
        && kv.token_stride(Part::Keys) == 1
}

/// Tiles of widened keys: `[tile][dim][16]`.
pub fn staged_keys(cells: &[f32], dims: usize) -> Tiles<'_, f32> {
    Tiles { cells, start: core::array::from_fn(|tile| tile * dims * LANES), stride: LANES }
}

/// Tiles of widened values: `[position][width]`.
pub fn staged_values(cells: &[f32], width: usize) -> Tiles<'_, f32> {
    Tiles { cells, start: core::array::from_fn(|tile| tile * LANES * width), stride: width }
}

/// Some positions of a split, to be widened.
#[derive(Debug)]
pub struct Widen<'a, T> {
    /// Where they lie.
    pub pages: Pages<'a>,
    /// The slab.
    pub cells: &'a [T],
    /// The split's first position.
    pub base: u32,
    /// Those wanted.
    pub positions: Range<u32>,
}

crate::levels! {
    /// Keys as [`staged_keys`] has them.
    pub fn widen_keys<T: Stored>(from: &Widen<'_, T>, to: &mut [f32]) = keys_body;
}

crate::levels! {
    /// Values as [`staged_values`] has them.
    pub fn widen_values<T: Stored>(from: &Widen<'_, T>, width: usize, to: &mut [f32]) = values_body;
}

#[inline(always)]
fn keys_body<L: Lanes, T: Stored>(l: L, from: &Widen<'_, T>, to: &mut [f32]) {
    let kv = from.pages.kv;
    let (dims, dim_cells) = (kv.params().head_dim as usize, kv.dim_cells() as usize);
    let stride = kv.dim_stride(Part::Keys) as usize;
    let lanes = LANES as u32;
    let mut position = from.positions.start / lanes * lanes;
    while position < from.positions.end {
        let tile = ((position - from.base) / lanes) as usize;
        let tile = &mut to[tile * dims * LANES..][..dims * LANES];
        let mut start = [None; LANES];
        let mut beside = kv.token_stride(Part::Keys) == 1;
        for (i, start) in start.iter_mut().enumerate() {
            let position = position + i as u32;
            if from.positions.contains(&position) {
                let place = from.pages.place(position);
                *start = Some(kv.cell(Part::Keys, place) as usize);
                beside &= place.token >= i as u32;
            } else {
                beside = false;
            }
        }
        match (beside, start[0]) {
            (true, Some(start)) => {
                for cell in 0..dim_cells {
                    let cells = whole(&from.cells[start + cell * stride..]);
                    store_dims(l, &cells, cell, tile);
                }
            }
            _ if stride == 1 => turn(l, from.cells, &start, dim_cells, tile),
            _ => {
                for cell in 0..dim_cells {
                    let mut cells = [T::zeroed(); LANES];
                    for (lane, start) in cells.iter_mut().zip(start) {
                        if let Some(start) = start {
                            *lane = from.cells[start + cell * stride];
                        }
                    }
                    store_dims(l, &cells, cell, tile);
                }
            }
        }
        position += lanes;
    }
}

/// The first sixteen cells; past the last, zeros.
#[inline(always)]
fn whole<T: Stored>(cells: &[T]) -> [T; LANES] {
    let mut whole = [T::zeroed(); LANES];
    match cells.first_chunk() {
        Some(chunk) => whole = *chunk,
        None => whole[..cells.len()].copy_from_slice(cells),
    }
    whole
}

/// One cell of sixteen keys: a dim or two of a tile.
#[inline(always)]
fn store_dims<L: Lanes, T: Stored>(l: L, cells: &[T; LANES], cell: usize, tile: &mut [f32]) {
    store_at(l, T::load(l, cells), tile, cell * T::PER_CELL * LANES);
    if T::PER_CELL == 2 {
        store_at(l, T::load_second(l, cells), tile, (cell * 2 + 1) * LANES);
    }
}

/// A tile of keys whose dims lie side by side: sixteen cells of each are turned at once.
#[inline(always)]
fn turn<L: Lanes, T: Stored>(
    l: L,
    cells: &[T],
    start: &[Option<usize>; LANES],
    dim_cells: usize,
    tile: &mut [f32],
) {
    for first in (0..dim_cells).step_by(LANES) {
        let (mut even, mut odd) = ([l.isplat(0); LANES], [l.isplat(0); LANES]);
        for (i, start) in start.iter().enumerate() {
            if let Some(start) = start {
                let key = whole(&cells[start + first..start + dim_cells]);
                even[i] = l.bits_of(T::load(l, &key));
                odd[i] = l.bits_of(T::load_second(l, &key));
            }
        }
        even = l.transpose(even);
        if T::PER_CELL == 2 {
            odd = l.transpose(odd);
        }
        for i in 0..LANES.min(dim_cells - first) {
            let at = (first + i) * T::PER_CELL * LANES;
            store_at(l, l.float_of_bits(even[i]), tile, at);
            if T::PER_CELL == 2 {
                store_at(l, l.float_of_bits(odd[i]), tile, at + LANES);
            }
        }
    }
}

#[inline(always)]
fn values_body<L: Lanes, T: Stored>(l: L, from: &Widen<'_, T>, width: usize, to: &mut [f32]) {
    let kv = from.pages.kv;
    let dim_cells = kv.dim_cells() as usize;
    for position in from.positions.clone() {
        let start = kv.cell(Part::Values, from.pages.place(position)) as usize;
        let row = &from.cells[start..start + dim_cells];
        let to = &mut to[(position - from.base) as usize * width..][..width];
        for at in (0..dim_cells).step_by(LANES) {
            let cells = whole(&row[at..]);
            let first = T::load(l, &cells);
            if T::PER_CELL == 1 {
                store_at(l, first, to, at);
            } else {
                pair(l, first, T::load_second(l, &cells), &mut to[2 * at..]);
            }
        }
    }
}

/// Stores lanes of two vectors in turn, as many as there is room for.
#[inline(always)]
fn pair<L: Lanes>(l: L, first: L::F, second: L::F, to: &mut [f32]) {
    let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
    l.store(first, &mut a);
    l.store(second, &mut b);
    for (i, to) in to.iter_mut().take(2 * LANES).enumerate() {
        *to = if i % 2 == 0 { a[i / 2] } else { b[i / 2] };
    }
}

/// The scales of some positions of a split; 1 for the others.
pub fn copy_scales(
    pages: &Pages<'_>,
    part: Part,
    slab: &[f32],
    base: u32,
    positions: Range<u32>,
    to: &mut [f32; SPLIT],
) {
    to.fill(1.0);
    let page_len = pages.kv.params().page_len;
    let mut position = positions.start;
    while position < positions.end {
        // The scales of a page lie side by side.
        let place = pages.place(position);
        let count = (page_len - place.token).min(positions.end - position) as usize;
        let at = pages.kv.scale(part, place) as usize;
        let to = &mut to[(position - base) as usize..][..count];
        to.copy_from_slice(&slab[at..at + count]);
        position += count as u32;
    }
}
