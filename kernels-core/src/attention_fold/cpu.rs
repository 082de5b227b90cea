//! `attention_fold` on the CPU: rows are split between workers.

use super::{AttentionFold, Types};
use crate::attention::States;
use crate::command::{Host, cast, cast_mut, live};
use crate::error::Error;
use crate::params;
use crate::simd::{Floats, FloatsMut, LANES, Lanes, Level, store_at};
use crate::workers::{Pieces, Workers, even, split};
use core::ops::Range;

/// Elements of an accumulator at most.
const DIMS_MAX: usize = 256;
/// Elements worth a thread of their own.
const TILE_ELEMENTS: usize = 16_384;

/// Runs the command. It takes no workspace.
pub fn run(
    level: Level,
    workers: &dyn Workers,
    fold: AttentionFold<Host<'_>>,
) -> Result<(), Error> {
    let types = fold.types()?;
    let p = fold.params;
    let rows = live(AttentionFold::<Host>::CHECKS, "rows", fold.rows, p.rows_max)?;
    let elements = rows * (p.parts * p.head_dim) as usize * p.heads as usize;
    let tiles = (elements / TILE_ELEMENTS).clamp(1, workers.count() as usize) as u32;
    let out_unit = p.out_row_stride as usize * types.out.align() as usize;
    let out = Pieces::new(fold.out, rows, out_unit, tiles);
    let lse = fold.lse.map(|lse| Pieces::new(lse, rows, p.heads as usize * 4, tiles));
    let (parts, part_lse) = (Floats::new(types.part, fold.parts), cast(fold.part_lse));
    split(workers, tiles, (out, lse), |tile, (out, lse)| {
        let rows = even(rows, tiles, tile);
        rows_at(level, Tile { p: &p, types, rows, parts, part_lse, out, lse });
    });
    Ok(())
}

/// Some rows of a call.
struct Tile<'a> {
    p: &'a params::AttentionFold,
    types: Types,
    rows: Range<usize>,
    parts: Floats<'a>,
    part_lse: &'a [f32],
    /// The tile's rows alone.
    out: &'a mut [u8],
    /// The tile's rows alone.
    lse: Option<&'a mut [u8]>,
}

crate::levels! {
    fn rows_at(tile: Tile<'_>) = rows_body;
}

#[inline(always)]
fn rows_body<L: Lanes>(l: L, tile: Tile<'_>) {
    let Tile { p, types, rows, parts, part_lse, out, lse } = tile;
    let (heads, dims) = (p.heads as usize, p.head_dim as usize);
    let mut out = FloatsMut::new(types.out, out);
    let mut lse = lse.map(cast_mut::<f32>);
    let first = rows.start;
    for row in rows {
        for head in 0..heads {
            let (mut acc, mut part) = ([0.0; DIMS_MAX], [0.0; DIMS_MAX]);
            let mut state = States {
                most: &mut [f32::NEG_INFINITY],
                sum: &mut [0.0],
                acc: &mut acc,
                width: DIMS_MAX,
            };
            for number in 0..p.parts as usize {
                let from = number * p.rows_max as usize + row;
                let logarithm = part_lse[from * heads + head];
                let start = from * p.part_row_stride as usize + head * dims;
                let from = parts.part(start..start + dims);
                let mut at = 0;
                while at < dims {
                    store_at(l, from.load(l, at, 0.0), &mut part, at);
                    at += LANES;
                }
                let seen = if logarithm == f32::NEG_INFINITY { 0.0 } else { 1.0 };
                state.fold(l, 0, logarithm, seen, &part);
            }
            let start = (row - first) * p.out_row_stride as usize + head * dims;
            let mut to = out.part(start..start + dims);
            let logarithm = state.finish(l, 0, f32::NEG_INFINITY, &mut to, dims);
            if let Some(lse) = &mut lse {
                lse[(row - first) * heads + head] = logarithm;
            }
        }
    }
}
