//! A tile of outputs for the rows of a chunk: the part of a product that other
//! kernels use too.
//!
//! Rows are converted once ([`Rows::convert`]); then [`tiles`] gives the finished f32
//! outputs of any 32 columns, bit for bit what [`matmul`](super) rounds to its type.

use super::plan::Plan;
use super::quantise::{Input, units};
use super::{SEGMENT, floats, grouped};
use crate::dtype::Dtype;
use crate::packing::{Groups, TILE, Values};
use crate::simd::{Floats, LANES, Lanes, Level, prefetch};
use crate::workers::{Pieces, Workers, even, split};
use core::ops::Range;

/// Words from what is read to what memory is asked for: 6 KiB, for the hardware looks
/// ahead no further than a page of 4 KiB.
const AHEAD: usize = 1536;
/// Words of a cache line.
const LINE: usize = 16;
/// Values worth a thread of their own when rows are converted.
const TILE_VALUES: usize = 16_384;

/// What to ask memory for while a segment is multiplied.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    /// The packed matrix from this tile on.
    pub words: &'a [i32],
    /// The first word to ask for.
    pub first: usize,
    /// Lines to ask for at each step.
    pub lines: usize,
}

impl Ahead<'_> {
    /// Asks for the lines that are due in step `at` of the tile so many words on.
    #[inline(always)]
    pub(super) fn ask(&self, tile: usize, at: usize) {
        let first = self.first + tile + at * self.lines * LINE;
        let mut line = 0;
        while line < self.lines {
            prefetch(self.words, first + line * LINE);
            line += 1;
        }
    }
}

/// The totals of one panel's rows, in each tile.
pub(super) struct Totals<'a> {
    /// `[tiles][all]` rows of 32.
    all: &'a mut [Total],
    /// Rows from one tile to the next.
    tile_rows: usize,
    /// The panel's rows among them.
    rows: Range<usize>,
    /// Whether nothing was added yet: what is there counts as zeros.
    fresh: bool,
}

/// What one row has for a tile: 32 outputs.
type Total = [[f32; LANES]; 2];

impl Totals<'_> {
    /// Rows of the panel.
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Tiles side by side.
    pub(super) fn tiles(&self) -> usize {
        self.all.len() / self.tile_rows
    }

    /// Folds one segment of some rows of a tile in.
    #[inline(always)]
    pub(super) fn add<L: Lanes, const ROWS: usize>(
        &mut self,
        l: L,
        tile: usize,
        first: usize,
        sums: &[[L::F; 2]; ROWS],
    ) {
        let rows = &mut self.all[tile * self.tile_rows + self.rows.start + first..][..ROWS];
        if self.fresh {
            rows.fill([[0.0; LANES]; 2]);
        }
        let mut r = 0;
        while r < ROWS {
            let row = &mut rows[r];
            l.store(l.add(l.load(&row[0]), sums[r][0]), &mut row[0]);
            l.store(l.add(l.load(&row[1]), sums[r][1]), &mut row[1]);
            r += 1;
        }
    }
}

/// The rows of a chunk, converted.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    plan: &'a Plan,
    rows: usize,
    words: &'a [i32],
}

impl<'a> Rows<'a> {
    /// Converts or quantises the rows of a chunk into `words`, which holds
    /// [`Plan::rows_words`].
    pub fn convert(
        level: Level,
        workers: &dyn Workers,
        plan: &'a Plan,
        input: Input<'_>,
        words: &'a mut [i32],
    ) -> Self {
        let count = plan.panels(input.rows) * plan.segments();
        let values = input.rows * plan.weight.inputs;
        let most = (workers.count() as usize).min(count).max(1);
        let tiles = (values / TILE_VALUES).clamp(1, most) as u32;
        let words = &mut words[..count * plan.unit_words()];
        let pieces = Pieces::new(&mut *words, count, plan.unit_words(), tiles);
        split(workers, tiles, pieces, |tile, words| {
            units(level, plan, input, even(count, tiles, tile).start, words);
        });
        Self { plan, rows: input.rows, words }
    }

    fn unit(&self, panel: usize, segment: usize) -> &'a [i32] {
        let words = self.plan.unit_words();
        &self.words[(panel * self.plan.segments() + segment) * words..][..words]
    }
}

/// A matrix with its bias.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// The packed matrix.
    pub packed: &'a [u8],
    /// Added to each output.
    pub bias: Option<Floats<'a>>,
}

/// The outputs of some tiles for every row of the chunk: the first `[tiles][rows][32]`
/// f32 of `scratch`, which holds [`Plan::scratch_words`]. There are at most
/// [`Plan::tiles_at_once`].
pub(crate) fn tiles(
    level: Level,
    rows: Rows<'_>,
    matrix: Matrix<'_>,
    tiles: Range<usize>,
    scratch: &mut [i32],
) {
    let weight = &rows.plan.weight;
    let (totals, unpacked) = scratch.split_at_mut(rows.plan.totals_words());
    let totals: &mut [Total] = bytemuck::cast_slice_mut(totals);
    let totals = &mut totals[..rows.rows * tiles.len()];
    let words: &[i32] = bytemuck::cast_slice(&matrix.packed[tiles.start * weight.tile_bytes()..]);
    let mut walk = Walk { level, rows, words, totals };
    match weight.values {
        Values::Floats(Dtype::F32) => walk.floats(floats::F32),
        Values::Floats(Dtype::F16) => walk.floats(floats::F16),
        Values::Floats(_) => walk.floats(floats::Bf16),
        Values::Groups(groups) => walk.groups(groups, unpacked),
    }
    if let Some(bias) = matrix.bias {
        for (tile, totals) in tiles.zip(totals.chunks_exact_mut(rows.rows)) {
            let first = tile * TILE;
            let count = TILE.min(weight.outputs - first);
            add_bias(level, bias.part(first..first + count), count, totals);
        }
    }
}

crate::levels! {
    fn add_bias(bias: Floats<'_>, count: usize, totals: &mut [Total]) = add_bias_body;
}

#[inline(always)]
fn add_bias_body<L: Lanes>(l: L, bias: Floats<'_>, count: usize, totals: &mut [Total]) {
    let bias = [bias.load(l, 0, 0.0), bias.load(l, LANES.min(count), 0.0)];
    for row in totals {
        l.store(l.add(l.load(&row[0]), bias[0]), &mut row[0]);
        l.store(l.add(l.load(&row[1]), bias[1]), &mut row[1]);
    }
}

/// A walk over the segments of a tile, or of two side by side.
struct Walk<'a> {
    level: Level,
    rows: Rows<'a>,
    /// The packed matrix from the first tile on.
    words: &'a [i32],
    totals: &'a mut [Total],
}

impl Walk<'_> {
    fn panels(&self) -> usize {
        self.rows.plan.panels(self.rows.rows)
    }

    fn totals(&mut self, panel: usize, segment: usize) -> Totals<'_> {
        let count = self.rows.rows;
        let rows = self.rows.plan.panel(count, panel);
        Totals { all: self.totals, tile_rows: count, rows, fresh: segment == 0 }
    }

    /// Of a float weight.
    fn floats<P: floats::Pair>(&mut self, pair: P) {
        let (plan, panels, words) = (self.rows.plan, self.panels(), self.words);
        let pair_words = size_of::<P::Words>() / 4;
        let tile_words = plan.weight.tile_bytes() / 4;
        for segment in 0..plan.segments() {
            let inputs = plan.segment_inputs(segment);
            let first = segment * SEGMENT / 2 * pair_words;
            let end = (first + SEGMENT / 2 * pair_words).min(tile_words);
            let steps = inputs.div_ceil(floats::STEP);
            let lines = floats::STEP / 2 * pair_words / LINE;
            let mut ahead = Ahead { words, first: first + AHEAD, lines };
            if panels > 1 {
                // The next segment, spread over this one's panels.
                ahead.first = end;
                ahead.lines = (end - first).div_ceil(LINE).div_ceil(panels * steps);
            }
            for panel in 0..panels {
                let (level, unit) = (self.level, self.rows.unit(panel, segment));
                let part = floats::Part { words: &words[first..], tile_words, inputs, ahead };
                floats::panel(level, pair, &part, unit, &mut self.totals(panel, segment));
                ahead.first += ahead.lines * steps * LINE;
            }
        }
    }

    /// Of a grouped weight; there is room for a segment unpacked.
    fn groups(&mut self, groups: Groups, unpacked: &mut [i32]) {
        let (plan, panels, words) = (self.rows.plan, self.panels(), self.words);
        let stride = groups.bytes() / 4;
        let tile_words = plan.weight.tile_bytes() / 4;
        for segment in 0..plan.segments() {
            let count = plan.segment_inputs(segment) / groups.len;
            let first = segment * (SEGMENT / groups.len) * stride;
            let ahead = Ahead { words, first: first + AHEAD, lines: stride.div_ceil(LINE) };
            let mut part =
                grouped::Part { groups, count, words: &words[first..], tile_words, ahead };
            if panels > 1 {
                // The next segment, spread over this one's panels.
                part.ahead.first = first + count * stride;
                part.ahead.lines = stride.div_ceil(LINE * panels);
                if groups.nibbles {
                    let packed = &words[first..part.ahead.first];
                    grouped::unpack(self.level, groups, packed, unpacked);
                    part.groups = grouped::unpacked(groups);
                    part.words = &*unpacked;
                }
            }
            for panel in 0..panels {
                let (level, unit) = (self.level, self.rows.unit(panel, segment));
                grouped::panel(level, &part, unit, &mut self.totals(panel, segment));
                part.ahead.first += part.ahead.lines * count * LINE;
            }
        }
    }
}
