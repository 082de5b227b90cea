//! `norm` on the CPU: rows are split between workers, each vector is read twice.

use super::Norm;
use crate::command::{Host, live};
use crate::error::Error;
use crate::params;
use crate::simd::{Floats, FloatsMut, LANES, Lanes, Level};
use crate::workers::{Pieces, Workers, even, split};

/// Partial sums of squares: four vectors, so that four chains of fma run at once.
const SUMS: usize = 4;
/// Elements worth a thread of their own: below this a second one costs more than it brings.
const TILE_ELEMENTS: usize = 16_384;

/// Runs the command. It takes no workspace.
pub fn run(level: Level, workers: &dyn Workers, norm: Norm<Host<'_>>) -> Result<(), Error> {
    let types = norm.types()?;
    let p = norm.params;
    let rows = live(Norm::<Host>::CHECKS, "rows", norm.rows, p.rows_max)?;
    let width = p.heads as usize * p.columns as usize;
    let tiles = (rows * width / TILE_ELEMENTS).clamp(1, workers.count() as usize) as u32;
    let out_unit = p.out_row_stride as usize * types.out.align() as usize;
    let residual_unit = p.residual_row_stride as usize * types.x.align() as usize;
    let out = Pieces::new(norm.out, rows, out_unit, tiles);
    let residual = norm.residual.map(|bytes| Pieces::new(bytes, rows, residual_unit, tiles));
    let x = Floats::new(types.x, norm.x);
    let weight = Floats::new(types.weight, norm.weight);
    split(workers, tiles, (out, residual), |tile, (out, residual)| {
        let tile = Tile {
            p: &p,
            rows: even(rows, tiles, tile),
            x,
            weight,
            residual: residual.map(|bytes| FloatsMut::new(types.x, bytes)),
            out: FloatsMut::new(types.out, out),
        };
        rows_at(level, tile);
    });
    Ok(())
}

/// Some rows of a call.
struct Tile<'a> {
    p: &'a params::Norm,
    rows: core::ops::Range<usize>,
    x: Floats<'a>,
    weight: Floats<'a>,
    /// The tile's rows alone.
    residual: Option<FloatsMut<'a>>,
    /// The tile's rows alone.
    out: FloatsMut<'a>,
}

crate::levels! {
    fn rows_at(tile: Tile<'_>) = rows_body;
}

#[inline(always)]
fn rows_body<L: Lanes>(l: L, mut tile: Tile<'_>) {
    let p = tile.p;
    let (heads, columns) = (p.heads as usize, p.columns as usize);
    let first = tile.rows.start;
    for row in tile.rows.clone() {
        for head in 0..heads {
            let at = |row: usize, stride: u64| {
                let start = row * stride as usize + head * columns;
                start..start + columns
            };
            let x = tile.x.part(at(row, p.x_row_stride));
            let mut out = tile.out.part(at(row - first, p.out_row_stride));
            match &mut tile.residual {
                None => vector(l, p, x, tile.weight, &mut out),
                Some(residual) => {
                    let mut sum = residual.part(at(row - first, p.residual_row_stride));
                    add(l, columns, x, &mut sum);
                    vector(l, p, sum.read(), tile.weight, &mut out);
                }
            }
        }
    }
}

/// `sum += x`, rounded to its type.
#[inline(always)]
fn add<L: Lanes>(l: L, columns: usize, x: Floats<'_>, sum: &mut FloatsMut<'_>) {
    let mut at = 0;
    while at < columns {
        let v = l.add(sum.read().load(l, at, 0.0), x.load(l, at, 0.0));
        sum.store(l, v, at);
        at += LANES;
    }
}

/// The norm of one vector.
#[inline(always)]
fn vector<L: Lanes>(
    l: L,
    p: &params::Norm,
    x: Floats<'_>,
    weight: Floats<'_>,
    out: &mut FloatsMut<'_>,
) {
    let columns = p.columns as usize;
    let mut sums = [l.splat(0.0); SUMS];
    let mut at = 0;
    while at < columns {
        let mut j = 0;
        while j < SUMS && at < columns {
            let v = x.load(l, at, 0.0);
            sums[j] = l.fma(v, v, sums[j]);
            at += LANES;
            j += 1;
        }
    }
    let squares = l.sum(l.add(l.add(sums[0], sums[1]), l.add(sums[2], sums[3])));
    let scale =
        l.div(l.splat(1.0), l.sqrt(l.add(l.splat(squares / columns as f32), l.splat(p.epsilon))));
    let offset = l.splat(p.weight_offset);
    let mut at = 0;
    while at < columns {
        let weight = l.add(weight.load(l, at, 0.0), offset);
        let v = l.mul(l.mul(x.load(l, at, 0.0), scale), weight);
        out.store(l, v, at);
        at += LANES;
    }
}
