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
use crate::simd::{Floats, LANES, Lanes};
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
    let count = part.rows.len();
    let quads = groups.len / 4;
    let group_words = (quads + 2) * count;
    let mut numbers = [[[0; LANES]; SEGMENT / FULL]; GROUPED_ROWS];
    let mut scales = [[0.0; LANES]; GROUPED_ROWS];
    let mut sums = [[0; LANES]; GROUPED_ROWS];
    for (r, row) in part.rows.clone().enumerate() {
        let bytes: &mut [[u8; LANES]] = bytemuck::must_cast_slice_mut(&mut numbers[r]);
        quantise_row(
            l,
            groups,
            part.row(row),
            part.inputs,
            Quantised { bytes, scales: &mut scales[r], sums: &mut sums[r] },
        );
    }
    let mut quad = 0;
    while quad < part.inputs / 4 {
        let mut v = [l.isplat(0); LANES];
        for (v, numbers) in v.iter_mut().zip(&numbers[..count]) {
            *v = l.iload(&numbers[quad / LANES]);
        }
        let columns = l.transpose(v);
        let mut i = 0;
        while i < LANES && quad + i < part.inputs / 4 {
            let (group, within) = ((quad + i) / quads, (quad + i) % quads);
            store_rows(l, columns[i], count, group * group_words + within * count, words);
            i += 1;
        }
        quad += LANES;
    }
    for group in 0..part.inputs / groups.len {
        let tail = &mut words[group * group_words + quads * count..][..2 * count];
        for r in 0..count {
            let (scale, sum) = (scales[r][group], sums[r][group]);
            tail[r] = scale.to_bits() as i32;
            tail[count + r] = if groups.affine {
                (scale * sum as f32).to_bits() as i32
            } else {
                -groups.offset() * sum
            };
        }
    }
}

/// What becomes of one row of one segment.
struct Quantised<'a> {
    /// Its numbers, sixteen at a time.
    bytes: &'a mut [[u8; LANES]],
    /// The scale of each of its groups.
    scales: &'a mut [f32; LANES],
    /// The sum of the numbers of each of its groups.
    sums: &'a mut [i32; LANES],
}

#[inline(always)]
fn quantise_row<L: Lanes>(l: L, groups: Groups, x: Floats<'_>, inputs: usize, out: Quantised<'_>) {
    let vectors = groups.len / LANES;
    let count = inputs / groups.len;
    // One slot for each of the sixteen groups a segment has at most.
    let mut most = [0; LANES];
    for (group, most) in most[..count].iter_mut().enumerate() {
        *most = largest_bits(l, x, group * groups.len, vectors);
    }
    let most_bits = l.iload(&most);
    let most = l.float_of_bits(most_bits);
    let small = l.gt(l.splat(LEAST), most);
    let endless = l.igt(most_bits, l.isplat(0x7f7f_ffff));
    let scale = l.div(most, l.splat(127.0));
    let scale = l.select(small, l.splat(0.0), scale);
    let scale = l.select(endless, l.splat(f32::NAN), scale);
    let mut inverses = [0.0; LANES];
    l.store(scale, out.scales);
    l.store(l.div(l.splat(127.0), most), &mut inverses);
    let zeros = l.mask_bits(small) | l.mask_bits(endless);
    for (group, &inverse) in inverses[..count].iter().enumerate() {
        let inverse = l.splat(inverse);
        let keep = l.isplat(if zeros >> group & 1 != 0 { 0 } else { -1 });
        let mut sums = l.isplat(0);
        let mut i = 0;
        while i < vectors {
            let at = group * vectors + i;
            let q = l.iand(l.to_int(l.mul(x.load(l, at * LANES, 0.0), inverse)), keep);
            sums = l.iadd(sums, q);
            l.store_u8(q, &mut out.bytes[at]);
            i += 1;
        }
        // Exact: below 2²⁴.
        out.sums[group] = l.sum(l.to_float(sums)) as i32;
    }
}

/// The bits of the largest magnitude: as integers they order like magnitudes, with
/// NaN above infinity.
#[inline(always)]
fn largest_bits<L: Lanes>(l: L, x: Floats<'_>, at: usize, vectors: usize) -> i32 {
    let mut most = l.isplat(0);
    let mut i = 0;
    while i < vectors {
        let v = x.load(l, at + i * LANES, 0.0);
        let bits = l.iand(l.bits_of(v), l.isplat(0x7fff_ffff));
        most = l.iselect(l.igt(bits, most), bits, most);
        i += 1;
    }
    let mut lanes = [0; LANES];
    l.istore(most, &mut lanes);
    let mut most = 0;
    for lane in lanes {
        most = if lane > most { lane } else { most };
    }
    most
}
