//! One segment of one tile of a float weight, times one panel.

use super::tile::{Ahead, Totals};
use crate::packing::TILE;
use crate::simd::{Element, LANES, Lanes};
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

/// What a panel is multiplied by.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// The segment's words of the tile.
    pub words: &'a [i32],
    /// Inputs of the segment.
    pub inputs: usize,
    /// What to ask memory for meanwhile.
    pub ahead: Ahead<'a>,
}

/// The panel's totals, plus this segment.
#[inline(always)]
pub(super) fn panel<L: Lanes, P: Pair>(
    l: L,
    part: &Part<'_>,
    unit: &[i32],
    totals: &mut Totals<'_>,
) {
    let rows = totals.rows();
    if !L::MANY_REGISTERS {
        for row in 0..rows {
            segment::<L, P, 1>(l, part, Panel { unit, rows, first: row }, totals);
        }
        return;
    }
    match rows {
        1 => segment::<L, P, 1>(l, part, Panel { unit, rows: 1, first: 0 }, totals),
        2 => segment::<L, P, 2>(l, part, Panel { unit, rows: 2, first: 0 }, totals),
        3 => segment::<L, P, 3>(l, part, Panel { unit, rows: 3, first: 0 }, totals),
        4 => segment::<L, P, 4>(l, part, Panel { unit, rows: 4, first: 0 }, totals),
        5 => segment::<L, P, 5>(l, part, Panel { unit, rows: 5, first: 0 }, totals),
        6 => segment::<L, P, 6>(l, part, Panel { unit, rows: 6, first: 0 }, totals),
        7 => segment::<L, P, 7>(l, part, Panel { unit, rows: 7, first: 0 }, totals),
        8 => segment::<L, P, 8>(l, part, Panel { unit, rows: 8, first: 0 }, totals),
        9 => segment::<L, P, 9>(l, part, Panel { unit, rows: 9, first: 0 }, totals),
        10 => segment::<L, P, 10>(l, part, Panel { unit, rows: 10, first: 0 }, totals),
        11 => segment::<L, P, 11>(l, part, Panel { unit, rows: 11, first: 0 }, totals),
        12 => segment::<L, P, 12>(l, part, Panel { unit, rows: 12, first: 0 }, totals),
        rows => unreachable!("a plan has no float panel of {rows} rows"),
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

#[inline(always)]
fn segment<L: Lanes, P: Pair, const ROWS: usize>(
    l: L,
    part: &Part<'_>,
    panel: Panel<'_>,
    totals: &mut Totals<'_>,
) {
    let x = &bytemuck::cast_slice::<i32, f32>(panel.unit)[..part.inputs * panel.rows];
    let pairs = pairs::<P>(part.words);
    let mut sums = [[l.splat(0.0); 2]; ROWS];
    let (whole, last) = x.split_at(part.inputs / 2 * 2 * panel.rows);
    let steps = whole.chunks(STEP * panel.rows).zip(pairs.chunks(STEP / 2));
    for (step, (x, w)) in steps.enumerate() {
        part.ahead.ask(step);
        for (x, w) in x.chunks_exact(2 * panel.rows).zip(w) {
            let w = P::widen(l, w);
            let (x, y) = x.split_at(panel.rows);
            row_products(l, &mut sums, w[0], panel.input(x));
            row_products(l, &mut sums, w[1], panel.input(y));
        }
    }
    if !last.is_empty() {
        let mut words = P::Words::zeroed();
        let to: &mut [i32] = bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(&mut words));
        let from = &part.words[part.inputs / 2 * to.len()..];
        let count = from.len().min(to.len());
        to[..count].copy_from_slice(&from[..count]);
        row_products(l, &mut sums, P::widen(l, &words)[0], panel.input(last));
    }
    totals.add(l, panel.first, &sums);
}

/// The whole pairs of a segment.
#[inline(always)]
fn pairs<P: Pair>(words: &[i32]) -> &[P::Words] {
    let each = size_of::<P::Words>() / 4;
    bytemuck::cast_slice(&words[..words.len() / each * each])
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

/// A segment as f32, `[inputs][32]`, for [`F32`]. An input that only pads an odd
/// count is widened too, and not used.
#[inline(always)]
pub(super) fn widen<L: Lanes, P: Pair>(l: L, words: &[i32], widened: &mut [i32]) {
    let to: &mut [[[[f32; LANES]; 2]; 2]] = bytemuck::cast_slice_mut(widened);
    for (w, to) in pairs::<P>(words).iter().zip(to.iter_mut()) {
        store_pair(l, P::widen(l, w), to);
    }
    let each = size_of::<P::Words>() / 4;
    let rest = &words[words.len() / each * each..];
    if !rest.is_empty() {
        let mut last = P::Words::zeroed();
        let bytes: &mut [i32] = bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(&mut last));
        bytes[..rest.len()].copy_from_slice(rest);
        store_pair(l, P::widen(l, &last), &mut to[words.len() / each]);
    }
}

#[inline(always)]
fn store_pair<L: Lanes>(l: L, pair: [[L::F; 2]; 2], to: &mut [[[f32; LANES]; 2]; 2]) {
    let mut k = 0;
    while k < 2 {
        l.store(pair[k][0], &mut to[k][0]);
        l.store(pair[k][1], &mut to[k][1]);
        k += 1;
    }
}

const _: () = assert!(size_of::<<Bf16 as Pair>::Words>() == 2 * TILE * 2);
