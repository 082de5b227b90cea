//! One segment of one tile of a grouped weight, times one panel.

use super::tile::{Ahead, Totals};
use crate::dtype::Dtype;
use crate::packing::{Groups, TILE};
use crate::simd::{LANES, Lanes, prefetch};
use half::{bf16, f16};

/// What a panel is multiplied by: heads and numbers of some groups, which lie
/// together in memory or, once numbers are unpacked to bytes, apart.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub groups: Groups,
    /// Groups of the segment.
    pub count: usize,
    /// From the first head on.
    pub heads: &'a [i32],
    /// Words from one head to the next.
    pub head_stride: usize,
    /// From the first group's numbers on.
    pub numbers: &'a [i32],
    /// Words from one group's numbers to the next.
    pub number_stride: usize,
    /// Whether the numbers are still nibbles.
    pub nibbles: bool,
    /// What to ask memory for meanwhile.
    pub ahead: Ahead<'a>,
}

/// The panel's totals, plus this segment.
#[inline(always)]
pub(super) fn panel<L: Lanes>(l: L, part: &Part<'_>, unit: &[i32], totals: &mut Totals<'_>) {
    let rows = totals.rows();
    if !L::MANY_REGISTERS {
        for row in 0..rows {
            scheme::<L, 1>(l, part, Panel { unit, rows, first: row }, totals);
        }
        return;
    }
    match rows {
        1 => scheme::<L, 1>(l, part, Panel { unit, rows: 1, first: 0 }, totals),
        2 => scheme::<L, 2>(l, part, Panel { unit, rows: 2, first: 0 }, totals),
        3 => scheme::<L, 3>(l, part, Panel { unit, rows: 3, first: 0 }, totals),
        4 => scheme::<L, 4>(l, part, Panel { unit, rows: 4, first: 0 }, totals),
        5 => scheme::<L, 5>(l, part, Panel { unit, rows: 5, first: 0 }, totals),
        6 => scheme::<L, 6>(l, part, Panel { unit, rows: 6, first: 0 }, totals),
        7 => scheme::<L, 7>(l, part, Panel { unit, rows: 7, first: 0 }, totals),
        8 => scheme::<L, 8>(l, part, Panel { unit, rows: 8, first: 0 }, totals),
        rows => unreachable!("a plan has no grouped panel of {rows} rows"),
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

#[inline(always)]
fn scheme<L: Lanes, const ROWS: usize>(
    l: L,
    part: &Part<'_>,
    panel: Panel<'_>,
    totals: &mut Totals<'_>,
) {
    match (part.groups.affine, part.nibbles) {
        (true, true) => segment::<L, ROWS, true, true>(l, part, panel, totals),
        (true, false) => segment::<L, ROWS, true, false>(l, part, panel, totals),
        (false, true) => segment::<L, ROWS, false, true>(l, part, panel, totals),
        (false, false) => segment::<L, ROWS, false, false>(l, part, panel, totals),
    }
}

#[inline(always)]
fn segment<L: Lanes, const ROWS: usize, const AFFINE: bool, const NIBBLES: bool>(
    l: L,
    part: &Part<'_>,
    panel: Panel<'_>,
    totals: &mut Totals<'_>,
) {
    let quads = part.groups.len / 4 * panel.rows;
    let words = part.groups.len * TILE / if NIBBLES { 8 } else { 4 };
    let mut sums = [[l.splat(0.0); 2]; ROWS];
    let mut group = 0;
    while group < part.count {
        let unit_words = quads + 2 * panel.rows;
        let (x, rest) = panel.unit[group * unit_words..][..unit_words].split_at(quads);
        let (scales, extras) = rest.split_at(panel.rows);
        let scales: &[i32; ROWS] = rows_of(scales, panel);
        let extras: &[i32; ROWS] = rows_of(extras, panel);
        let numbers = &part.numbers[group * part.number_stride..][..words];
        part.ahead.ask(group);
        let mut dots = [[l.isplat(0); 2]; ROWS];
        if !AFFINE {
            let mut r = 0;
            while r < ROWS {
                dots[r] = [l.isplat(extras[r]); 2];
                r += 1;
            }
        }
        if NIBBLES {
            nibbles(l, numbers, x, panel, &mut dots);
        } else {
            bytes(l, numbers, x, panel, &mut dots);
        }
        let head = &part.heads[group * part.head_stride..];
        let scale =
            [scale_at(l, part.groups.scale, head, 0), scale_at(l, part.groups.scale, head, 1)];
        let mut r = 0;
        while r < ROWS {
            let x_scale = l.splat(f32::from_bits(scales[r] as u32));
            sums[r][0] = l.fma(l.to_float(dots[r][0]), l.mul(scale[0], x_scale), sums[r][0]);
            sums[r][1] = l.fma(l.to_float(dots[r][1]), l.mul(scale[1], x_scale), sums[r][1]);
            r += 1;
        }
        if AFFINE {
            let bias =
                [scale_at(l, part.groups.scale, head, 2), scale_at(l, part.groups.scale, head, 3)];
            let mut r = 0;
            while r < ROWS {
                let mass = l.splat(f32::from_bits(extras[r] as u32));
                sums[r][0] = l.fma(bias[0], mass, sums[r][0]);
                sums[r][1] = l.fma(bias[1], mass, sums[r][1]);
                r += 1;
            }
        }
        group += 1;
    }
    totals.add(l, panel.first, &sums);
}

/// One number of each row that is multiplied.
#[inline(always)]
fn rows_of<'a, const ROWS: usize>(words: &'a [i32], panel: Panel<'_>) -> &'a [i32; ROWS] {
    words[panel.first..].first_chunk().expect("a unit holds its rows")
}

/// Products of bytes, four inputs at a time.
#[inline(always)]
fn bytes<L: Lanes, const ROWS: usize>(
    l: L,
    numbers: &[i32],
    x: &[i32],
    panel: Panel<'_>,
    dots: &mut [[L::I; 2]; ROWS],
) {
    let x = x.chunks_exact(panel.rows);
    for (w, x) in numbers.as_chunks::<TILE>().0.iter().zip(x) {
        let w = vectors(l, w);
        let x: &[i32; ROWS] = rows_of(x, panel);
        let mut r = 0;
        while r < ROWS {
            let x = l.isplat(x[r]);
            dots[r][0] = l.dot4(dots[r][0], w[0], x);
            dots[r][1] = l.dot4(dots[r][1], w[1], x);
            r += 1;
        }
    }
}

/// Products of nibbles, eight inputs at a time.
#[inline(always)]
fn nibbles<L: Lanes, const ROWS: usize>(
    l: L,
    numbers: &[i32],
    x: &[i32],
    panel: Panel<'_>,
    dots: &mut [[L::I; 2]; ROWS],
) {
    let x = x.chunks_exact(2 * panel.rows);
    let low = l.isplat(0x0f0f_0f0f);
    for (w, x) in numbers.as_chunks::<TILE>().0.iter().zip(x) {
        let w = vectors(l, w);
        let first = [l.iand(w[0], low), l.iand(w[1], low)];
        let second = [l.iand(l.shr::<4>(w[0]), low), l.iand(l.shr::<4>(w[1]), low)];
        let (x, y) = x.split_at(panel.rows);
        let (x, y): (&[i32; ROWS], &[i32; ROWS]) = (rows_of(x, panel), rows_of(y, panel));
        let mut r = 0;
        while r < ROWS {
            let (a, b) = (l.isplat(x[r]), l.isplat(y[r]));
            dots[r][0] = l.dot4(dots[r][0], first[0], a);
            dots[r][1] = l.dot4(dots[r][1], first[1], a);
            dots[r][0] = l.dot4(dots[r][0], second[0], b);
            dots[r][1] = l.dot4(dots[r][1], second[1], b);
            r += 1;
        }
    }
}

/// Nibbles as bytes: what a group looks like to [`bytes`].
#[inline(always)]
pub(super) fn unpack<L: Lanes>(l: L, numbers: &[i32], unpacked: &mut [i32]) {
    let low = l.isplat(0x0f0f_0f0f);
    let to = unpacked.as_chunks_mut::<TILE>().0.as_chunks_mut::<2>().0;
    for (w, to) in numbers.as_chunks::<TILE>().0.iter().zip(to) {
        let w = vectors(l, w);
        let mut v = 0;
        while v < 2 {
            let (a, b) = (l.iand(w[v], low), l.iand(l.shr::<4>(w[v]), low));
            l.istore(a, half_mut(&mut to[0], v));
            l.istore(b, half_mut(&mut to[1], v));
            v += 1;
        }
    }
}

#[inline(always)]
fn vectors<L: Lanes>(l: L, words: &[i32; TILE]) -> [L::I; 2] {
    let [a, b] = bytemuck::must_cast_ref::<_, [[i32; LANES]; 2]>(words);
    [l.iload(a), l.iload(b)]
}

#[inline(always)]
fn half_mut(words: &mut [i32; TILE], half: usize) -> &mut [i32; LANES] {
    &mut bytemuck::must_cast_mut::<_, [[i32; LANES]; 2]>(words)[half]
}

/// Vector `at` of a head: scales are the first two, biases the others.
#[inline(always)]
fn scale_at<L: Lanes>(l: L, dtype: Dtype, head: &[i32], at: usize) -> L::F {
    use crate::simd::Element;
    let words = |each: usize| &head[at * each..(at + 1) * each];
    match dtype {
        Dtype::F32 => <f32 as Element>::load(l, exactly(bytemuck::cast_slice(words(16)))),
        Dtype::F16 => <f16 as Element>::load(l, exactly(bytemuck::cast_slice(words(8)))),
        _ => <bf16 as Element>::load(l, exactly(bytemuck::cast_slice(words(8)))),
    }
}

#[inline(always)]
fn exactly<T>(values: &[T]) -> &[T; LANES] {
    values.first_chunk().expect("a vector was cut out")
}

impl Ahead<'_> {
    /// Asks for the lines that are due while step `at` runs.
    #[inline(always)]
    pub(super) fn ask(&self, at: usize) {
        let mut line = 0;
        while line < self.lines {
            prefetch(self.words, self.first + (at * self.lines + line) * 16);
            line += 1;
        }
    }
}
