//! One segment of one tile of a float weight, times one panel.

use super::tile::{Ahead, Totals};
use crate::packing::TILE;
use crate::simd::{Element, LANES, Lanes, Level};
use bytemuck::{Pod, Zeroable};
use half::f16;

/// Inputs between two looks ahead.
pub(super) const STEP: usize = 16;

/// How two inputs of a tile are stored and widened.
pub(super) trait Pair: Copy {
    /// Two inputs of 32 outputs.
    type Words: Pod;
    /// As f32: two vectors for each input.
    fn widen<L: Lanes>(l: L, words: &Self::Words) -> [[L::F; 2]; 2];
}

/// `[2][32]` f32.
#[derive(Clone, Copy)]
pub(super) struct F32;
/// `[2][32]` f16.
#[derive(Clone, Copy)]
pub(super) struct F16;
/// `[32][2]` bf16.
#[derive(Clone, Copy)]
pub(super) struct Bf16;

impl Pair for F32 {
    type Words = [[[f32; LANES]; 2]; 2];
    #[inline(always)]
    fn widen<L: Lanes>(l: L, words: &Self::Words) -> [[L::F; 2]; 2] {
        let [[a, b], [c, d]] = words;
        [[l.load(a), l.load(b)], [l.load(c), l.load(d)]]
    }
}

impl Pair for F16 {
    type Words = [[[f16; LANES]; 2]; 2];
    #[inline(always)]
    fn widen<L: Lanes>(l: L, words: &Self::Words) -> [[L::F; 2]; 2] {
        let [[a, b], [c, d]] = words;
        [[f16::load(l, a), f16::load(l, b)], [f16::load(l, c), f16::load(l, d)]]
    }
}

impl Pair for Bf16 {
    type Words = [[i32; LANES]; 2];
    #[inline(always)]
    fn widen<L: Lanes>(l: L, words: &Self::Words) -> [[L::F; 2]; 2] {
        let high = l.isplat(0xffff_0000u32 as i32);
        let (a, b) = (l.iload(&words[0]), l.iload(&words[1]));
        [
            [l.float_of_bits(l.shl::<16>(a)), l.float_of_bits(l.shl::<16>(b))],
            [l.float_of_bits(l.iand(a, high)), l.float_of_bits(l.iand(b, high))],
        ]
    }
}

/// What a panel is multiplied by: the same segment of one tile, or of two neighbours.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// The segment's words of the first tile, and all that follows.
    pub words: &'a [i32],
    /// Words from a tile to its neighbour.
    pub tile_words: usize,
    /// Inputs of the segment.
    pub inputs: usize,
    /// What to ask memory for meanwhile.
    pub ahead: Ahead<'a>,
}

/// The totals of a panel's rows, plus this segment.
pub(super) fn panel<P: Pair>(
    level: Level,
    pair: P,
    part: &Part<'_>,
    unit: &[i32],
    totals: &mut Totals<'_>,
) {
    let rows = totals.rows();
    if !level.many_registers() {
        for first in 0..rows {
            segment(level, Form::<1, 1, P>(pair), part, Panel { unit, rows, first }, totals);
        }
        return;
    }
    let panel = Panel { unit, rows, first: 0 };
    match (totals.tiles(), rows) {
        (1, 1) => segment(level, Form::<1, 1, P>(pair), part, panel, totals),
        (1, 2) => segment(level, Form::<1, 2, P>(pair), part, panel, totals),
        (1, 3) => segment(level, Form::<1, 3, P>(pair), part, panel, totals),
        (1, 4) => segment(level, Form::<1, 4, P>(pair), part, panel, totals),
        (1, 5) => segment(level, Form::<1, 5, P>(pair), part, panel, totals),
        (1, 6) => segment(level, Form::<1, 6, P>(pair), part, panel, totals),
        (1, 7) => segment(level, Form::<1, 7, P>(pair), part, panel, totals),
        (1, 8) => segment(level, Form::<1, 8, P>(pair), part, panel, totals),
        (1, 9) => segment(level, Form::<1, 9, P>(pair), part, panel, totals),
        (1, 10) => segment(level, Form::<1, 10, P>(pair), part, panel, totals),
        (1, 11) => segment(level, Form::<1, 11, P>(pair), part, panel, totals),
        (2, 1) => segment(level, Form::<2, 1, P>(pair), part, panel, totals),
        (2, 2) => segment(level, Form::<2, 2, P>(pair), part, panel, totals),
        (2, 3) => segment(level, Form::<2, 3, P>(pair), part, panel, totals),
        (2, 4) => segment(level, Form::<2, 4, P>(pair), part, panel, totals),
        (tiles, rows) => unreachable!("a plan has no {rows} float rows of {tiles} tiles"),
    }
}

/// Some rows of a unit.
#[derive(Clone, Copy)]
struct Panel<'a> {
    unit: &'a [i32],
    /// Rows of the unit.
    rows: usize,
    /// The first of them that is multiplied.
    first: usize,
}

impl<'a> Panel<'a> {
    /// One input of each row that is multiplied.
    #[inline(always)]
    fn input<const ROWS: usize>(self, x: &'a [f32]) -> &'a [f32; ROWS] {
        x[self.first..].first_chunk().expect("a unit holds its rows")
    }
}

/// What a loop is compiled for.
struct Form<const TILES: usize, const ROWS: usize, P>(P);

crate::levels! {
    fn segment<const TILES: usize, const ROWS: usize; P: Pair>(
        form: Form<TILES, ROWS, P>,
        part: &Part<'_>,
        panel: Panel<'_>,
        totals: &mut Totals<'_>,
    ) = segment_body;
}

#[inline(always)]
fn segment_body<L: Lanes, const TILES: usize, const ROWS: usize, P: Pair>(
    l: L,
    _: Form<TILES, ROWS, P>,
    part: &Part<'_>,
    panel: Panel<'_>,
    totals: &mut Totals<'_>,
) {
    let rows = if L::MANY_REGISTERS { ROWS } else { panel.rows };
    let x: &[f32] = bytemuck::cast_slice(panel.unit);
    let pair_words = size_of::<P::Words>() / 4;
    let mut sums = [[[l.splat(0.0); 2]; ROWS]; TILES];
    let whole = part.inputs / 2 * 2;
    let (mut at, mut step) = (0, 0);
    while at < whole {
        let count = STEP.min(whole - at);
        let x = &x[at * rows..(at + count) * rows];
        let mut t = 0;
        while t < TILES {
            let tile = t * part.tile_words;
            part.ahead.ask(tile, step);
            let words = &part.words[tile + at / 2 * pair_words..][..count / 2 * pair_words];
            let words: &[P::Words] = bytemuck::cast_slice(words);
            for (x, w) in x.chunks_exact(2 * rows).zip(words) {
                let w = P::widen(l, w);
                let (x, y) = x.split_at(rows);
                row_products(l, &mut sums[t], w[0], panel.input(x));
                row_products(l, &mut sums[t], w[1], panel.input(y));
            }
            t += 1;
        }
        at += count;
        step += 1;
    }
    let mut t = 0;
    while t < TILES {
        if whole < part.inputs {
            let words = last_pair::<P>(part, t * part.tile_words);
            let x = panel.input(&x[whole * rows..][..rows]);
            row_products(l, &mut sums[t], P::widen(l, &words)[0], x);
        }
        totals.add(l, t, panel.first, &sums[t]);
        t += 1;
    }
}

/// The pair that an odd input begins; some formats store no other half.
fn last_pair<P: Pair>(part: &Part<'_>, tile: usize) -> P::Words {
    let mut words = P::Words::zeroed();
    let to: &mut [i32] = bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(&mut words));
    let from = &part.words[tile + part.inputs / 2 * to.len()..];
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    words
}

#[inline(always)]
fn row_products<L: Lanes, const ROWS: usize>(
    l: L,
    sums: &mut [[L::F; 2]; ROWS],
    w: [L::F; 2],
    x: &[f32; ROWS],
) {
    let mut r = 0;
    while r < ROWS {
        let x = l.splat(x[r]);
        sums[r][0] = l.fma(w[0], x, sums[r][0]);
        sums[r][1] = l.fma(w[1], x, sums[r][1]);
        r += 1;
    }
}

const _: () = assert!(size_of::<<Bf16 as Pair>::Words>() == 2 * TILE * 2);
