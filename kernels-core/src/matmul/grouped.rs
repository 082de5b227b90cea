//! One segment of one tile of a grouped weight, times one panel.

use super::tile::{Ahead, Totals};
use crate::dtype::Dtype;
use crate::packing::{Groups, TILE};
use crate::simd::{LANES, Lanes, prefetch};
use half::{bf16, f16};

/// What a panel is multiplied by.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub groups: Groups,
    /// Where the groups of the segment are.
    pub from: From<'a>,
    /// What to ask memory for meanwhile.
    pub ahead: Ahead<'a>,
}

/// Where the groups of a segment are.
#[derive(Clone, Copy)]
pub(super) enum From<'a> {
    /// In memory, as they are packed.
    Packed(&'a [i32]),
    /// With every head widened, and no nibbles: worth it for many panels.
    Unpacked(Unpacked<'a>),
}

/// Groups for many panels.
#[derive(Clone, Copy)]
pub(super) struct Unpacked<'a> {
    /// Numbers as bytes, from the first group's on.
    pub bytes: &'a [i32],
    /// Words from one group's to the next.
    pub stride: usize,
    /// Scales and biases.
    pub heads: &'a [Head],
}

/// The f32 scales of a group, then its biases.
pub(super) type Head = [[f32; LANES]; 4];

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
    match part.groups.affine {
        true => numbers::<L, ROWS, true>(l, part, panel, totals),
        false => numbers::<L, ROWS, false>(l, part, panel, totals),
    }
}

#[inline(always)]
fn numbers<L: Lanes, const ROWS: usize, const AFFINE: bool>(
    l: L,
    part: &Part<'_>,
    panel: Panel<'_>,
    totals: &mut Totals<'_>,
) {
    match part.from {
        From::Packed(words) => {
            let (stride, head) = (part.groups.bytes() / 4, part.groups.head_bytes() / 4);
            let scale = part.groups.scale;
            let groups = words.chunks_exact(stride).map(
                #[inline(always)]
                |group| {
                    let (head, numbers) = group.split_at(head);
                    (PackedHead { words: head, scale }, numbers)
                },
            );
            if part.groups.nibbles {
                segment::<L, _, _, ROWS, AFFINE, true>(l, part, groups, panel, totals);
            } else {
                segment::<L, _, _, ROWS, AFFINE, false>(l, part, groups, panel, totals);
            }
        }
        From::Unpacked(store) => {
            let words = part.groups.len * TILE / 4;
            let groups = store.heads.iter().zip(store.bytes.chunks(store.stride)).map(
                #[inline(always)]
                |(head, numbers)| (head, &numbers[..words]),
            );
            segment::<L, _, _, ROWS, AFFINE, false>(l, part, groups, panel, totals);
        }
    }
}

/// Scales and biases of a group.
trait Scales: Copy {
    /// As f32, in `room` unless they are elsewhere.
    fn widened<'a, L: Lanes>(self, l: L, affine: bool, room: &'a mut Head) -> &'a Head
    where
        Self: 'a;
}

impl Scales for &Head {
    #[inline(always)]
    fn widened<'a, L: Lanes>(self, _: L, _: bool, _: &'a mut Head) -> &'a Head
    where
        Self: 'a,
    {
        self
    }
}

/// Scales and biases as they are packed.
#[derive(Clone, Copy)]
struct PackedHead<'a> {
    words: &'a [i32],
    scale: Dtype,
}

impl Scales for PackedHead<'_> {
    #[inline(always)]
    fn widened<'a, L: Lanes>(self, l: L, affine: bool, room: &'a mut Head) -> &'a Head
    where
        Self: 'a,
    {
        let vectors = if affine { 4 } else { 2 };
        let mut at = 0;
        while at < vectors {
            l.store(scale_at(l, self.scale, self.words, at), &mut room[at]);
            at += 1;
        }
        room
    }
}

#[inline(always)]
fn segment<'a, L, S, I, const ROWS: usize, const AFFINE: bool, const NIBBLES: bool>(
    l: L,
    part: &Part<'_>,
    groups: I,
    panel: Panel<'_>,
    totals: &mut Totals<'_>,
) where
    L: Lanes,
    S: Scales,
    I: Iterator<Item = (S, &'a [i32])>,
{
    let quads = part.groups.len / 4 * panel.rows;
    let units = panel.unit.chunks_exact(quads + 2 * panel.rows);
    let mut sums = [[l.splat(0.0); 2]; ROWS];
    for (group, ((scales, numbers), unit)) in groups.zip(units).enumerate() {
        let (x, rest) = unit.split_at(quads);
        let (x_scales, extras) = rest.split_at(panel.rows);
        let x_scales: &[i32; ROWS] = rows_of(x_scales, panel);
        let extras: &[i32; ROWS] = rows_of(extras, panel);
        part.ahead.ask(group);
        let mut room = [[0.0; LANES]; 4];
        let head = scales.widened(l, AFFINE, &mut room);
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
        let mut v = 0;
        while v < 2 {
            let scale = l.load(&head[v]);
            let mut r = 0;
            while r < ROWS {
                let x_scale = l.splat(f32::from_bits(x_scales[r] as u32));
                sums[r][v] = l.fma(l.to_float(dots[r][v]), l.mul(scale, x_scale), sums[r][v]);
                r += 1;
            }
            v += 1;
        }
        v = 0;
        while AFFINE && v < 2 {
            let bias = l.load(&head[2 + v]);
            let mut r = 0;
            while r < ROWS {
                let mass = l.splat(f32::from_bits(extras[r] as u32));
                sums[r][v] = l.fma(bias, mass, sums[r][v]);
                r += 1;
            }
            v += 1;
        }
    }
    totals.add(l, panel.first, &sums);
}

/// Scales and biases of a packed group as f32.
#[inline(always)]
pub(super) fn widen<L: Lanes>(l: L, groups: Groups, packed: &[i32], head: &mut Head) {
    PackedHead { words: packed, scale: groups.scale }.widened(l, groups.affine, head);
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
