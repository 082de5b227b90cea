//! `embed` on the CPU: rows are split between workers.

use super::{Embed, Layout};
use crate::command::{Host, cast, live};
use crate::error::Error;
use crate::packing::{Output, Weight};
use crate::params;
use crate::simd::{Floats, FloatsMut, LANES, Lanes, Level};
use crate::workers::{Pieces, Workers, even, split};

/// Elements worth a thread of their own: below this a second one costs more than it brings.
const TILE_ELEMENTS: usize = 16_384;

/// Runs the command. It takes no workspace.
pub fn run(level: Level, workers: &dyn Workers, embed: Embed<Host<'_>>) -> Result<(), Error> {
    let types = embed.types()?;
    let (checks, p) = (Embed::<Host>::CHECKS, embed.params);
    let rows = live(checks, "rows", embed.rows, p.rows_max)?;
    let tokens = &cast::<u32>(embed.tokens)[..rows];
    checks.elements("tokens", tokens, 0..=p.weight.outputs - 1)?;
    let elements = rows * types.weight.inputs;
    let tiles = (elements / TILE_ELEMENTS).clamp(1, workers.count() as usize) as u32;
    let unit = p.out_row_stride as usize * types.out.align() as usize;
    let out = Pieces::new(embed.out, rows, unit, tiles);
    let table = match types.layout {
        Layout::Plain(dtype) => {
            Table::Plain(Floats::new(dtype, embed.table), p.table_row_stride as usize)
        }
        Layout::Packed => Table::Packed(&types.weight, embed.table),
    };
    split(workers, tiles, out, |tile, out| {
        let tokens = &tokens[even(rows, tiles, tile)];
        let (columns, out) = (types.weight.inputs, FloatsMut::new(types.out, out));
        rows_at(level, Tile { p: &p, table, columns, tokens, out });
    });
    Ok(())
}

/// Where rows come from.
#[derive(Clone, Copy)]
enum Table<'a> {
    /// Rows, so many elements apart.
    Plain(Floats<'a>, usize),
    /// Tiles.
    Packed(&'a Weight, &'a [u8]),
}

/// Some rows of a call.
struct Tile<'a> {
    p: &'a params::Embed,
    table: Table<'a>,
    columns: usize,
    /// The tile's rows alone.
    tokens: &'a [u32],
    /// The tile's rows alone.
    out: FloatsMut<'a>,
}

crate::levels! {
    fn rows_at(tile: Tile<'_>) = rows_body;
}

#[inline(always)]
fn rows_body<L: Lanes>(l: L, mut tile: Tile<'_>) {
    let columns = tile.columns;
    let scale = l.splat(tile.p.scale);
    for (row, &token) in tile.tokens.iter().enumerate() {
        let start = row * tile.p.out_row_stride as usize;
        let mut out = tile.out.part(start..start + columns);
        let mut at = 0;
        match tile.table {
            Table::Plain(table, stride) => {
                let from = table.part(token as usize * stride..token as usize * stride + columns);
                while at < columns {
                    out.store(l, l.mul(from.load(l, at, 0.0), scale), at);
                    at += LANES;
                }
            }
            Table::Packed(weight, packed) => {
                let from = Output::of(weight, packed, token as usize);
                while at < columns {
                    out.store(l, l.mul(from.load(l, at), scale), at);
                    at += LANES;
                }
            }
        }
    }
}
