//! Rows of x into units: as f32 for floats, quantised for groups.
//!
//! A unit holds one segment of the rows of one panel, `[segment][rows]` f32 for
//! floats. For groups it is, group after group, `[len / 4][rows]` words of four signed
//! bytes, `[rows]` f32 scales, and `[rows]` words that turn the sum of products into
//! what the order asks for: with an affine scheme the f32 mass, with a symmetric one
//! −offset·Σq, where the integer sum starts.

use super::plan::{GROUPED_ROWS, Plan};
use super::{LEAST, SEGMENT};
use crate::packing::{Groups, Values};
use crate::simd::{Element, Floats, LANES, Lanes, near};
use core::ops::Range;

/// Rows to convert.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    /// The rows, `row_stride` elements apart.
    pub x: Floats<'a>,
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// The first row of the chunk.
    pub first: usize,
    /// Rows of the chunk.
    pub rows: usize,
}

crate::levels! {
    /// Fills some consecutive units of a chunk, the first of them number `unit`.
    pub(super) fn units(plan: &Plan, input: Input<'_>, unit: usize, words: &mut [i32]) = units_body;
}

#[inline(always)]
fn units_body<L: Lanes>(l: L, plan: &Plan, input: Input<'_>, unit: usize, words: &mut [i32]) {
    for (i, words) in words.chunks_exact_mut(plan.unit_words()).enumerate() {
        let (panel, segment) = ((unit + i) / plan.segments(), (unit + i) % plan.segments());
        let part = Part {
            input,
            rows: plan.panel(input.rows, panel),
            from: segment * SEGMENT,
            inputs: plan.segment_inputs(segment),
        };
        match plan.weight.values {
            Values::Floats(_) => widen(l, &part, words),
            Values::Groups(groups) => quantise(l, groups, &part, words),
        }
    }
}

/// One segment of the rows of one panel.
struct Part<'a> {
    input: Input<'a>,
    rows: Range<usize>,
    from: usize,
    inputs: usize,
}

impl<'a> Part<'a> {
    #[inline(always)]
    fn row(&self, row: usize) -> Floats<'a> {
        let start = (self.input.first + row) * self.input.row_stride + self.from;
        self.input.x.part(start..start + self.inputs)
    }
}

/// Rows as f32, `[inputs][rows]`.
#[inline(always)]
fn widen<L: Lanes>(l: L, part: &Part<'_>, words: &mut [i32]) {
    let count = part.rows.len();
    let mut at = 0;
    while at < part.inputs {
        let mut v = [l.isplat(0); LANES];
        for (v, row) in v.iter_mut().zip(part.rows.clone()) {
            *v = l.bits_of(part.row(row).load(l, at, 0.0));
        }
        let columns = l.transpose(v);
        let mut k = 0;
        while k < LANES && at + k < part.inputs {
            store_rows(l, columns[k], count, (at + k) * count, words);
            k += 1;
        }
        at += LANES;
    }
}

/// The first `count` lanes to `words[at]`; what lies behind them is written later.
#[inline(always)]
fn store_rows<L: Lanes>(l: L, v: L::I, count: usize, at: usize, words: &mut [i32]) {
    if let Some(to) = words[at..].first_chunk_mut() {
        l.istore(v, to);
    } else {
        let mut lanes = [0; LANES];
        l.istore(v, &mut lanes);
        words[at..at + count].copy_from_slice(&lanes[..count]);
    }
}

/// Inputs whose numbers fill a vector.
const FULL: usize = 4 * LANES;

/// Rows in groups.
#[inline(always)]
fn quantise<L: Lanes>(l: L, groups: Groups, part: &Part<'_>, words: &mut [i32]) {
    let mut numbers = [[[0; LANES]; SEGMENT / FULL]; GROUPED_ROWS];
    // Lane g of both belongs to group g: a segment has at most sixteen.
    let mut tails = [[l.isplat(0); LANES]; 2];
    for (r, row) in part.rows.clone().enumerate() {
        if row + 1 < part.rows.end {
            // Rows lie far apart, so the hardware does not see the next one coming.
            ask(part.row(row + 1));
        }
        let bytes = bytemuck::must_cast_slice_mut(&mut numbers[r]);
        let (scale, sum) = match part.row(row) {
            Floats::F32(x) => quantise_row(l, groups, x, bytes),
            Floats::F16(x) => quantise_row(l, groups, x, bytes),
            Floats::Bf16(x) => quantise_row(l, groups, x, bytes),
        };
        tails[0][r] = l.bits_of(scale);
        tails[1][r] = if groups.affine {
            l.bits_of(l.mul(scale, l.to_float(sum)))
        } else {
            l.imul(l.isplat(-groups.offset()), sum)
        };
    }
    let quads = groups.len / 4;
    let numbers = &numbers[..part.rows.len()];
    let words = &mut words[..part.inputs / groups.len * (quads + 2) * numbers.len()];
    match numbers {
        [one] => {
            follow(l, quads, bytemuck::must_cast_slice(one), [tails[0][0], tails[1][0]], words)
        }
        _ => interleave(l, quads, numbers, tails, words),
    }
}

/// Asks for the lines of some elements.
#[inline(always)]
fn ask(x: Floats<'_>) {
    let bytes: &[u8] = match x {
        Floats::F32(x) => bytemuck::cast_slice(x),
        Floats::F16(x) => bytemuck::cast_slice(x),
        Floats::Bf16(x) => bytemuck::cast_slice(x),
    };
    for line in bytes.chunks(64) {
        near(line.as_ptr());
    }
}

/// The numbers of one row, each group's tail behind them.
#[inline(always)]
fn follow<L: Lanes>(l: L, quads: usize, numbers: &[i32], tails: [L::I; 2], words: &mut [i32]) {
    let mut lanes = [[0; LANES]; 2];
    l.istore(tails[0], &mut lanes[0]);
    l.istore(tails[1], &mut lanes[1]);
    let groups = words.chunks_exact_mut(quads + 2).zip(numbers.chunks_exact(quads));
    for (group, (words, numbers)) in groups.enumerate() {
        words[..quads].copy_from_slice(numbers);
        words[quads] = lanes[0][group];
        words[quads + 1] = lanes[1][group];
    }
}

/// Four numbers of each row side by side, quad after quad, each group's tail behind them.
#[inline(always)]
fn interleave<L: Lanes>(
    l: L,
    quads: usize,
    numbers: &[[[i32; LANES]; SEGMENT / FULL]],
    tails: [[L::I; LANES]; 2],
    words: &mut [i32],
) {
    let count = numbers.len();
    let tails = [l.transpose(tails[0]), l.transpose(tails[1])];
    let (mut group, mut within, mut at, mut quad) = (0, 0, 0, 0);
    while at < words.len() {
        let mut v = [l.isplat(0); LANES];
        for (v, numbers) in v.iter_mut().zip(numbers) {
            *v = l.iload(&numbers[quad / LANES]);
        }
        let columns = l.transpose(v);
        let mut i = 0;
        while i < LANES && at < words.len() {
            store_rows(l, columns[i], count, at, words);
            at += count;
            within += 1;
            if within == quads {
                store_rows(l, tails[0][group], count, at, words);
                store_rows(l, tails[1][group], count, at + count, words);
                (group, within, at) = (group + 1, 0, at + 2 * count);
            }
            i += 1;
        }
        quad += LANES;
    }
}

/// One row of one segment: its numbers, and the scale and the sum of each group.
#[inline(always)]
fn quantise_row<L: Lanes, T: Element>(
    l: L,
    groups: Groups,
    x: &[T],
    numbers: &mut [[u8; LANES]],
) -> (L::F, L::I) {
    match groups.len / LANES {
        2 => quantise_groups::<L, T, 2>(l, x, numbers),
        4 => quantise_groups::<L, T, 4>(l, x, numbers),
        8 => quantise_groups::<L, T, 8>(l, x, numbers),
        vectors => unreachable!("a weight has no groups of {vectors} vectors"),
    }
}

/// Groups of so many vectors.
#[inline(always)]
fn quantise_groups<L: Lanes, T: Element, const VECTORS: usize>(
    l: L,
    x: &[T],
    numbers: &mut [[u8; LANES]],
) -> (L::F, L::I) {
    let (x, _) = x.as_chunks::<LANES>();
    let (x, _) = x.as_chunks::<VECTORS>();
    let mut most = [l.isplat(0); LANES];
    for (most, x) in most.iter_mut().zip(x) {
        *most = largest_bits(l, x);
    }
    let most_bits = largest_of_each(l, most);
    let most = l.float_of_bits(most_bits);
    let small = l.gt(l.splat(LEAST), most);
    let endless = l.igt(most_bits, l.isplat(0x7f7f_ffff));
    let scale = l.div(most, l.splat(127.0));
    let scale = l.select(small, l.splat(0.0), scale);
    let scale = l.select(endless, l.splat(f32::NAN), scale);
    let mut inverses = [0.0; LANES];
    l.store(l.div(l.splat(127.0), most), &mut inverses);
    let zeros = l.mask_bits(small) | l.mask_bits(endless);
    let mut sums = [l.isplat(0); LANES];
    let (numbers, _) = numbers.as_chunks_mut::<VECTORS>();
    let groups = x.iter().zip(numbers).zip(inverses.iter().zip(&mut sums));
    for (group, ((x, numbers), (&inverse, sum))) in groups.enumerate() {
        let inverse = l.splat(inverse);
        let keep = l.isplat(if zeros >> group & 1 != 0 { 0 } else { -1 });
        let mut all = l.isplat(0);
        let mut i = 0;
        while i < VECTORS {
            let q = l.iand(l.to_int(l.mul(T::load(l, &x[i]), inverse)), keep);
            all = l.iadd(all, q);
            l.store_u8(q, &mut numbers[i]);
            i += 1;
        }
        *sum = all;
    }
    // Exact, and below 2²⁴ as f32.
    (scale, sum_of_each(l, sums))
}

/// Lane `i` is the largest lane of vector `i`: sixteen folds at once, of integers, whose
/// order is of no account.
#[inline(always)]
fn largest_of_each<L: Lanes>(l: L, v: [L::I; LANES]) -> L::I {
    let columns = l.transpose(v);
    let mut most = columns[0];
    let mut i = 1;
    while i < LANES {
        most = larger(l, columns[i], most);
        i += 1;
    }
    most
}

/// Lane `i` is the sum of the lanes of vector `i`.
#[inline(always)]
fn sum_of_each<L: Lanes>(l: L, v: [L::I; LANES]) -> L::I {
    let columns = l.transpose(v);
    let mut sum = columns[0];
    let mut i = 1;
    while i < LANES {
        sum = l.iadd(sum, columns[i]);
        i += 1;
    }
    sum
}

#[inline(always)]
fn larger<L: Lanes>(l: L, a: L::I, b: L::I) -> L::I {
    l.iselect(l.igt(a, b), a, b)
}

/// The bits of the largest magnitude in each lane: as integers they order like
/// magnitudes, with NaN above infinity.
#[inline(always)]
fn largest_bits<L: Lanes, T: Element, const VECTORS: usize>(
    l: L,
    x: &[[T; LANES]; VECTORS],
) -> L::I {
    let mut most = l.isplat(0);
    let mut i = 0;
    while i < VECTORS {
        let bits = l.iand(l.bits_of(T::load(l, &x[i])), l.isplat(0x7fff_ffff));
        most = larger(l, bits, most);
        i += 1;
    }
    most
}
