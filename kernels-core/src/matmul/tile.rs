//! A tile of outputs for the rows of a chunk: the part of a product that other
//! kernels use too.
//!
//! Rows are converted once ([`Rows::convert`]); then [`tile`] gives the finished f32
//! outputs of any 32 columns, bit for bit what [`matmul`](super) rounds to its type.

use super::plan::{FLOAT_ROWS, GROUPED_ROWS, Plan};
use super::quantise::{Input, units};
use super::{SEGMENT, floats, grouped};
use crate::dtype::Dtype;
use crate::packing::{Groups, TILE, Values};
use crate::simd::{Floats, LANES, Lanes, Level};
use crate::workers::{Pieces, Workers, even, split};

/// Words from what is read to what memory is asked for: 4 KiB, beyond which the
/// hardware looks ahead by itself no longer.
const AHEAD: usize = 1024;
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

/// The totals of one panel's rows: `[rows][32]`.
pub(super) struct Totals<'a>(&'a mut [[[f32; LANES]; 2]]);

impl Totals<'_> {
    /// Rows of the panel.
    #[inline(always)]
    pub(super) fn rows(&self) -> usize {
        self.0.len()
    }

    /// Folds one segment of some rows in.
    #[inline(always)]
    pub(super) fn add<L: Lanes, const ROWS: usize>(
        &mut self,
        l: L,
        first: usize,
        sums: &[[L::F; 2]; ROWS],
    ) {
        let mut r = 0;
        while r < ROWS {
            let row = &mut self.0[first + r];
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

crate::levels! {
    /// The outputs of tile `tile` for every row of the chunk: the first `[rows][32]` f32
    /// of `scratch`, which holds [`Plan::scratch_words`].
    pub(crate) fn tile(rows: Rows<'_>, matrix: Matrix<'_>, tile: usize, scratch: &mut [i32]) = tile_body;
}

#[inline(always)]
fn tile_body<L: Lanes>(l: L, rows: Rows<'_>, matrix: Matrix<'_>, tile: usize, scratch: &mut [i32]) {
    let weight = &rows.plan.weight;
    let (totals, unpacked) = scratch.split_at_mut(rows.plan.totals_words());
    let totals: &mut [[[f32; LANES]; 2]] = bytemuck::cast_slice_mut(totals);
    let totals = &mut totals[..rows.rows];
    totals.fill([[0.0; LANES]; 2]);
    let words: &[i32] = bytemuck::cast_slice(&matrix.packed[tile * weight.tile_bytes()..]);
    match weight.values {
        Values::Floats(Dtype::F32) => {
            float_tile::<L, floats::F32>(l, rows, words, totals, unpacked)
        }
        Values::Floats(Dtype::F16) => {
            float_tile::<L, floats::F16>(l, rows, words, totals, unpacked)
        }
        Values::Floats(_) => float_tile::<L, floats::Bf16>(l, rows, words, totals, unpacked),
        Values::Groups(groups) => grouped_tile(l, groups, rows, words, totals, unpacked),
    }
    if let Some(bias) = matrix.bias {
        let first = tile * TILE;
        let bias = bias.part(first..weight.outputs.min(first + TILE));
        let second = LANES.min(weight.outputs - first);
        let bias = [bias.load(l, 0, 0.0), bias.load(l, second, 0.0)];
        for row in totals {
            l.store(l.add(l.load(&row[0]), bias[0]), &mut row[0]);
            l.store(l.add(l.load(&row[1]), bias[1]), &mut row[1]);
        }
    }
}

/// Segments of a float tile; `words` begin with it.
#[inline(always)]
fn float_tile<L: Lanes, P: floats::Pair>(
    l: L,
    rows: Rows<'_>,
    words: &[i32],
    totals: &mut [[[f32; LANES]; 2]],
    unpacked: &mut [i32],
) {
    let plan = rows.plan;
    let panels = plan.panels(rows.rows);
    let pair_words = size_of::<P::Words>() / 4;
    let tile_words = plan.weight.tile_bytes() / 4;
    for segment in 0..plan.segments() {
        let inputs = plan.segment_inputs(segment);
        let first = segment * SEGMENT / 2 * pair_words;
        let end = (first + SEGMENT / 2 * pair_words).min(tile_words);
        let stored = &words[first..end];
        let steps = inputs.div_ceil(floats::STEP);
        let mut part = floats::Part {
            words: stored,
            inputs,
            ahead: Ahead { words, first: first + AHEAD, lines: floats::STEP / 2 * pair_words / 16 },
        };
        if panels > 1 {
            // The next segment, spread over this one's panels.
            part.ahead.first = end;
            part.ahead.lines = (end - first).div_ceil(16).div_ceil(panels * steps);
        }
        let widened = panels >= WIDEN_PANELS && pair_words != 2 * TILE;
        if widened {
            floats::widen::<L, P>(l, stored, unpacked);
            part.words = &*unpacked;
        }
        let lines = part.ahead.lines * steps;
        for panel in 0..panels {
            let range = plan.panel(rows.rows, panel);
            let mut totals = Totals(&mut totals[range]);
            let unit = rows.unit(panel, segment);
            if widened {
                floats::panel::<L, floats::F32>(l, &part, unit, &mut totals);
            } else {
                floats::panel::<L, P>(l, &part, unit, &mut totals);
            }
            part.ahead.first += lines * 16;
        }
    }
}

/// Panels from which on a widened copy of a segment pays.
const WIDEN_PANELS: usize = 4;

/// Segments of a grouped tile; `words` begin with it.
#[inline(always)]
fn grouped_tile<L: Lanes>(
    l: L,
    groups: Groups,
    rows: Rows<'_>,
    words: &[i32],
    totals: &mut [[[f32; LANES]; 2]],
    unpacked: &mut [i32],
) {
    let plan = rows.plan;
    let panels = plan.panels(rows.rows);
    let (stride, head) = (groups.bytes() / 4, groups.head_bytes() / 4);
    let heads_words = SEGMENT / groups.len * size_of::<grouped::Head>() / 4;
    let (heads, bytes) = unpacked.split_at_mut(heads_words);
    let heads: &mut [grouped::Head] = bytemuck::cast_slice_mut(heads);
    for segment in 0..plan.segments() {
        let count = plan.segment_inputs(segment) / groups.len;
        let first = segment * (SEGMENT / groups.len) * stride;
        let packed = &words[first..first + count * stride];
        let mut part = grouped::Part {
            groups,
            from: grouped::From::Packed(packed),
            ahead: Ahead { words, first: first + AHEAD, lines: stride.div_ceil(16) },
        };
        if panels > 1 {
            // The next segment, spread over this one's panels.
            part.ahead.first = first + count * stride;
            part.ahead.lines = stride.div_ceil(16 * panels);
            for (packed, head) in packed.chunks_exact(stride).zip(heads.iter_mut()) {
                grouped::widen(l, groups, packed, head);
            }
            let mut store =
                grouped::Unpacked { bytes: &packed[head..], stride, heads: &heads[..count] };
            if groups.nibbles {
                let to = groups.len * TILE / 4;
                let unpacked = packed.chunks_exact(stride).zip(bytes.chunks_exact_mut(to));
                for (packed, to) in unpacked {
                    grouped::unpack(l, &packed[head..], to);
                }
                store.bytes = bytes;
                store.stride = to;
            }
            part.from = grouped::From::Unpacked(store);
        }
        let lines = part.ahead.lines * count;
        for panel in 0..panels {
            let range = plan.panel(rows.rows, panel);
            grouped::panel(l, &part, rows.unit(panel, segment), &mut Totals(&mut totals[range]));
            part.ahead.first += lines * 16;
        }
    }
}

const _: () = assert!(FLOAT_ROWS == 12 && GROUPED_ROWS == 8, "one arm for each count of rows");
