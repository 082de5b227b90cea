//! Rows of x into units: as f32 for floats, quantised for groups.
//!
//! A unit holds one segment of the rows of one panel, `[segment][rows]` f32 for
//! floats. For groups it is, group after group, `[len / 4][rows]` words of four signed
//! bytes, `[rows]` f32 scales, and `[rows]` words that turn the sum of products into
//! what the order asks for: with an affine scheme the f32 mass, with a symmetric one
//! −offset·Σq, where the integer sum starts.

use super::plan::Plan;
use super::{LEAST, SEGMENT};
use crate::packing::{Groups, Values};
use crate::simd::{Floats, LANES, Lanes};

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
        let rows = plan.panel(input.rows, panel);
        let inputs = plan.segment_inputs(segment);
        for (r, row) in rows.clone().enumerate() {
            let start = (input.first + row) * input.row_stride + segment * SEGMENT;
            let x = input.x.part(start..start + inputs);
            let mut values = [0.0; SEGMENT];
            let mut at = 0;
            while at < inputs {
                let v = x.load(l, at, 0.0);
                l.store(v, chunk_mut(&mut values, at));
                at += LANES;
            }
            let place = Place { rows: rows.len(), row: r };
            match plan.weight.values {
                Values::Floats(_) => {
                    for (k, value) in values[..inputs].iter().enumerate() {
                        words[k * place.rows + r] = value.to_bits() as i32;
                    }
                }
                Values::Groups(groups) => {
                    quantise(l, groups, &values[..inputs], place, words);
                }
            }
        }
    }
}

/// A row within its panel.
#[derive(Clone, Copy)]
struct Place {
    rows: usize,
    row: usize,
}

/// One row of one segment.
#[inline(always)]
fn quantise<L: Lanes>(l: L, groups: Groups, values: &[f32], place: Place, words: &mut [i32]) {
    // One slot for each of the sixteen groups a segment has at most.
    let mut most = [0; LANES];
    for (group, values) in values.chunks_exact(groups.len).enumerate() {
        most[group] = largest_bits(l, values);
    }
    let most_bits = l.iload(&most);
    let most = l.float_of_bits(most_bits);
    let small = l.gt(l.splat(LEAST), most);
    let endless = l.igt(most_bits, l.isplat(0x7f7f_ffff));
    let scale = l.div(most, l.splat(127.0));
    let scale = l.select(small, l.splat(0.0), scale);
    let scale = l.select(endless, l.splat(f32::NAN), scale);
    let inverse = l.div(l.splat(127.0), most);
    let (mut scales, mut inverses) = ([0.0; LANES], [0.0; LANES]);
    l.store(scale, &mut scales);
    l.store(inverse, &mut inverses);
    let zeros = l.mask_bits(small) | l.mask_bits(endless);
    let group_words = (groups.len / 4 + 2) * place.rows;
    let parts = values.chunks_exact(groups.len).zip(words.chunks_exact_mut(group_words));
    for (group, (values, words)) in parts.enumerate() {
        let zero = zeros >> group & 1 != 0;
        let sum = numbers(l, values, inverses[group], zero, place, words);
        let tail = groups.len / 4 * place.rows + place.row;
        words[tail] = scales[group].to_bits() as i32;
        words[tail + place.rows] = if groups.affine {
            (scales[group] * sum as f32).to_bits() as i32
        } else {
            -groups.offset() * sum
        };
    }
}

/// The bits of the largest magnitude: as integers they order like magnitudes, with
/// NaN above infinity.
#[inline(always)]
fn largest_bits<L: Lanes>(l: L, values: &[f32]) -> i32 {
    let mut most = l.isplat(0);
    for values in values.as_chunks::<LANES>().0 {
        let bits = l.iand(l.bits_of(l.load(values)), l.isplat(0x7fff_ffff));
        most = l.iselect(l.igt(bits, most), bits, most);
    }
    let mut lanes = [0; LANES];
    l.istore(most, &mut lanes);
    let mut most = 0;
    for lane in lanes {
        most = if lane > most { lane } else { most };
    }
    most
}

/// Writes the numbers of one group and returns their sum.
#[inline(always)]
fn numbers<L: Lanes>(
    l: L,
    values: &[f32],
    inverse: f32,
    zero: bool,
    place: Place,
    words: &mut [i32],
) -> i32 {
    let inverse = l.splat(inverse);
    let keep = l.isplat(if zero { 0 } else { -1 });
    let mut sums = l.isplat(0);
    for (at, values) in values.as_chunks::<LANES>().0.iter().enumerate() {
        let q = l.iand(l.to_int(l.mul(l.load(values), inverse)), keep);
        sums = l.iadd(sums, q);
        let mut bytes = [0; LANES];
        l.store_u8(q, &mut bytes);
        for (i, four) in bytes.as_chunks::<4>().0.iter().enumerate() {
            words[(at * LANES / 4 + i) * place.rows + place.row] = i32::from_le_bytes(*four);
        }
    }
    // Exact: below 2²⁴.
    l.sum(l.to_float(sums)) as i32
}

#[inline(always)]
fn chunk_mut(values: &mut [f32; SEGMENT], at: usize) -> &mut [f32; LANES] {
    values[at..].first_chunk_mut().expect("a segment is whole vectors")
}
