//! `pool` on the CPU: workers take columns of every sequence, so that one long sequence
//! keeps them all busy; then, where vectors are normalised, sequences.

use super::{Kind, LENGTH_LEAST, Pool};
use crate::command::{Host, cast, cast_mut, live};
use crate::error::Error;
use crate::params;
use crate::simd::{Floats, LANES, Lanes, Level, load_at, store_at};
use crate::workers::{Columns, Pieces, Strip, Workers, split};

/// Elements worth a thread of their own: below this a second one costs more than it brings.
const TILE_ELEMENTS: usize = 16_384;
/// Rows that are added while a part of the sums is in registers.
const ROWS: usize = 4;

/// Runs the command. It takes no workspace.
pub fn run(level: Level, workers: &dyn Workers, pool: Pool<Host<'_>>) -> Result<(), Error> {
    let call = pool.call()?;
    let (checks, p) = (Pool::<Host>::CHECKS, pool.params);
    let seqs = live(checks, "seqs", pool.seqs, p.seqs_max)?;
    let starts = &cast::<u32>(pool.starts)[..=seqs];
    checks.ascending("starts", starts, p.rows_max)?;
    let rows = match call.kind {
        Kind::Mean => (starts[seqs] - starts[0]) as usize,
        Kind::First | Kind::Last => 0,
    };
    let (columns, stride) = (p.columns as usize, p.out_row_stride as usize);
    let tiles = |rows: usize| {
        let elements = rows.saturating_mul(columns);
        (elements / TILE_ELEMENTS).clamp(1, workers.count() as usize) as u32
    };
    let input = Input { p: &p, kind: call.kind, x: Floats::new(call.x, pool.x), starts };
    let out = cast_mut::<f32>(pool.out);
    let strips = tiles(rows + seqs);
    let strip = Columns::new(&mut *out, seqs, stride, columns, LANES, strips);
    split(workers, strips, strip, |_, strip| strip_at(level, &input, strip));
    if p.normalise == 1 {
        let pieces = Pieces::new(out, seqs, stride, tiles(seqs));
        split(workers, tiles(seqs), pieces, |_, vectors| {
            for vector in vectors.chunks_mut(stride) {
                normalise(level, &mut vector[..columns]);
            }
        });
    }
    Ok(())
}

/// What every tile reads.
struct Input<'a> {
    p: &'a params::Pool,
    kind: Kind,
    x: Floats<'a>,
    starts: &'a [u32],
}

crate::levels! {
    fn strip_at(input: &Input<'_>, strip: Strip<'_, f32>) = strip_body;
}

/// Some columns of every sequence.
#[inline(always)]
fn strip_body<L: Lanes>(l: L, input: &Input<'_>, mut strip: Strip<'_, f32>) {
    let columns = strip.columns();
    let stride = input.p.x_row_stride as usize;
    for (seq, ends) in input.starts.windows(2).enumerate() {
        let out = strip.row(seq);
        let (first, end) = (ends[0] as usize, ends[1] as usize);
        let (first, end) = match input.kind {
            _ if first == end => (first, end),
            Kind::First => (first, first + 1),
            Kind::Last => (end - 1, end),
            Kind::Mean => (first, end),
        };
        let row = |row: usize| {
            let start = row * stride;
            input.x.part(start + columns.start..start + columns.end)
        };
        out.fill(0.0);
        let mut at = first;
        if at < end {
            copy(l, row(at), out);
            at += 1;
        }
        while at + ROWS <= end {
            add(l, [row(at), row(at + 1), row(at + 2), row(at + 3)], out);
            at += ROWS;
        }
        while at < end {
            add(l, [row(at)], out);
            at += 1;
        }
        if input.kind == Kind::Mean && first < end {
            divide(l, (end - first) as f32, out);
        }
    }
}

#[inline(always)]
fn copy<L: Lanes>(l: L, row: Floats<'_>, out: &mut [f32]) {
    let mut at = 0;
    while at < out.len() {
        store_at(l, row.load(l, at, 0.0), out, at);
        at += LANES;
    }
}

/// Adds rows to the sums, one after the other.
#[inline(always)]
fn add<L: Lanes, const N: usize>(l: L, rows: [Floats<'_>; N], sums: &mut [f32]) {
    let mut at = 0;
    while at < sums.len() {
        let mut sum = load_at(l, sums, at, 0.0);
        let mut i = 0;
        while i < N {
            sum = l.add(sum, rows[i].load(l, at, 0.0));
            i += 1;
        }
        store_at(l, sum, sums, at);
        at += LANES;
    }
}

#[inline(always)]
fn divide<L: Lanes>(l: L, by: f32, vector: &mut [f32]) {
    let mut at = 0;
    while at < vector.len() {
        let v = l.div(load_at(l, vector, at, 0.0), l.splat(by));
        store_at(l, v, vector, at);
        at += LANES;
    }
}

crate::levels! {
    fn normalise(vector: &mut [f32]) = normalise_body;
}

#[inline(always)]
fn normalise_body<L: Lanes>(l: L, vector: &mut [f32]) {
    let mut squares = l.splat(0.0);
    let mut at = 0;
    while at < vector.len() {
        let v = load_at(l, vector, at, 0.0);
        squares = l.fma(v, v, squares);
        at += LANES;
    }
    let length = l.sqrt(l.splat(l.sum(squares)));
    let length = l.max(l.splat(LENGTH_LEAST), length);
    let mut lane = [0.0; LANES];
    l.store(length, &mut lane);
    divide(l, lane[0], vector);
}
