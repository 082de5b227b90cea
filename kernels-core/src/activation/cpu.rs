//! `activation` on the CPU: rows are split between workers.

use super::{Activation, Call, GELU_CUBIC, GELU_LINEAR, Kind};
use crate::command::{Host, live};
use crate::error::Error;
use crate::math::exp;
use crate::params;
use crate::simd::{Floats, FloatsMut, LANES, Lanes, Level};
use crate::workers::{Pieces, Workers, even, split};

/// Elements worth a thread of their own: below this a second one costs more than it brings.
const TILE_ELEMENTS: usize = 16_384;

/// Runs the command. It takes no workspace.
pub fn run(
    level: Level,
    workers: &dyn Workers,
    activation: Activation<Host<'_>>,
) -> Result<(), Error> {
    let call = activation.call()?;
    let p = activation.params;
    let rows = live(Activation::<Host>::CHECKS, "rows", activation.rows, p.rows_max)?;
    let elements = rows * p.columns as usize;
    let tiles = (elements / TILE_ELEMENTS).clamp(1, workers.count() as usize) as u32;
    let unit = p.out_row_stride as usize * call.out.align() as usize;
    let out = Pieces::new(activation.out, rows, unit, tiles);
    let x = Floats::new(call.x, activation.x);
    split(workers, tiles, out, |tile, out| {
        let rows = even(rows, tiles, tile);
        rows_at(level, Tile { p: &p, call, rows, x, out: FloatsMut::new(call.out, out) });
    });
    Ok(())
}

/// Some rows of a call.
struct Tile<'a> {
    p: &'a params::Activation,
    call: Call,
    rows: core::ops::Range<usize>,
    x: Floats<'a>,
    /// The tile's rows alone.
    out: FloatsMut<'a>,
}

crate::levels! {
    fn rows_at(tile: Tile<'_>) = rows_body;
}

#[inline(always)]
fn rows_body<L: Lanes>(l: L, mut tile: Tile<'_>) {
    let p = tile.p;
    let (columns, up_offset) = (p.columns as usize, p.up_offset as usize);
    let first = tile.rows.start;
    for row in tile.rows.clone() {
        let start = row * p.x_row_stride as usize;
        let gate = tile.x.part(start..start + columns);
        let up = tile.x.part(start + up_offset..start + up_offset + columns);
        let start = (row - first) * p.out_row_stride as usize;
        let mut out = tile.out.part(start..start + columns);
        let mut at = 0;
        while at < columns {
            let y = function(l, tile.call.kind, gate.load(l, at, 0.0));
            let y = if up_offset == 0 { y } else { l.mul(y, up.load(l, at, 0.0)) };
            out.store(l, y, at);
            at += LANES;
        }
    }
}

#[inline(always)]
fn function<L: Lanes>(l: L, kind: Kind, g: L::F) -> L::F {
    let z = match kind {
        Kind::Silu => g,
        Kind::GeluTanh => l.mul(g, l.fma(l.mul(g, g), l.splat(GELU_CUBIC), l.splat(GELU_LINEAR))),
    };
    let e = exp(l, l.sub(l.splat(-0.0), z));
    l.div(g, l.add(l.splat(1.0), e))
}
