//! `rope` on the CPU: rows are split between workers; a head is widened to f32,
//! turned in registers and rounded back.

use super::{HEAD_DIM_MAX, Pairing, Rope};
use crate::command::{Host, cast, live};
use crate::error::Error;
use crate::params;
use crate::simd::{Floats, FloatsMut, LANES, Lanes, Level, load_at, store_at};
use crate::workers::{Pieces, Workers, even, split};

/// Elements worth a thread of their own: below this a second one costs more than it brings.
const TILE_ELEMENTS: usize = 16_384;

/// Runs the command. It takes no workspace.
pub fn run(level: Level, workers: &dyn Workers, rope: Rope<Host<'_>>) -> Result<(), Error> {
    let call = rope.call()?;
    let (checks, p) = (Rope::<Host>::CHECKS, rope.params);
    let rows = live(checks, "rows", rope.rows, p.rows_max)?;
    let positions = &cast::<u32>(rope.positions)[..rows];
    checks.elements("positions", positions, 0..=p.table_len - 1)?;
    let width = p.heads as usize * p.head_dim as usize;
    let tiles = (rows * width / TILE_ELEMENTS).clamp(1, workers.count() as usize) as u32;
    let unit = p.out_row_stride as usize * call.out.align() as usize;
    let out = Pieces::new(rope.out, rows, unit, tiles);
    let x = rope.x.map(|bytes| Floats::new(call.x, bytes));
    let table = cast(rope.table);
    split(workers, tiles, out, |tile, out| {
        let tile = Tile {
            p: &p,
            pairing: call.pairing,
            rows: even(rows, tiles, tile),
            x,
            table,
            positions,
            out: FloatsMut::new(call.out, out),
        };
        rows_at(level, tile);
    });
    Ok(())
}

/// Some rows of a call.
struct Tile<'a> {
    p: &'a params::Rope,
    pairing: Pairing,
    rows: core::ops::Range<usize>,
    x: Option<Floats<'a>>,
    table: &'a [f32],
    positions: &'a [u32],
    /// The tile's rows alone.
    out: FloatsMut<'a>,
}

crate::levels! {
    fn rows_at(tile: Tile<'_>) = rows_body;
}

#[inline(always)]
fn rows_body<L: Lanes>(l: L, mut tile: Tile<'_>) {
    let p = tile.p;
    let (head_dim, rotary_dims) = (p.head_dim as usize, p.rotary_dims as usize);
    let first = tile.rows.start;
    let mut wide = [0.0; HEAD_DIM_MAX];
    for row in tile.rows.clone() {
        let turns = tile.positions[row] as usize * rotary_dims;
        let turns = &tile.table[turns..turns + rotary_dims];
        for head in 0..p.heads as usize {
            let start = (row - first) * p.out_row_stride as usize + head * head_dim;
            let mut out = tile.out.part(start..start + head_dim);
            match tile.x {
                Some(x) => {
                    let start = row * p.x_row_stride as usize + head * head_dim;
                    widen(l, x.part(start..start + head_dim), &mut wide[..head_dim]);
                }
                None => widen(l, out.read(), &mut wide[..head_dim]),
            }
            rotate(l, tile.pairing, &mut wide[..rotary_dims], turns);
            let mut at = 0;
            while at < head_dim {
                out.store(l, load_at(l, &wide[..head_dim], at, 0.0), at);
                at += LANES;
            }
        }
    }
}

#[inline(always)]
fn widen<L: Lanes>(l: L, from: Floats<'_>, to: &mut [f32]) {
    let mut at = 0;
    while at < to.len() {
        store_at(l, from.load(l, at, 0.0), to, at);
        at += LANES;
    }
}

/// Turns the pairs of one head's first dims, in place. `turns` holds the cosines of
/// all pairs, then their sines.
#[inline(always)]
pub(crate) fn rotate<L: Lanes>(l: L, pairing: Pairing, dims: &mut [f32], turns: &[f32]) {
    let pairs = turns.len() / 2;
    let (cosines, sines) = turns.split_at(pairs);
    match pairing {
        Pairing::Neox => {
            let (first, second) = dims.split_at_mut(pairs);
            let mut at = 0;
            while at < pairs {
                let (a, b) = (load_at(l, first, at, 0.0), load_at(l, second, at, 0.0));
                let (a, b) = turn(l, a, b, cosines, sines, at);
                store_at(l, a, first, at);
                store_at(l, b, second, at);
                at += LANES;
            }
        }
        Pairing::Interleaved => {
            let mut at = 0;
            while at < pairs {
                let both = &mut dims[2 * at..2 * pairs.min(at + LANES)];
                let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
                for ((a, b), pair) in a.iter_mut().zip(&mut b).zip(both.chunks_exact(2)) {
                    (*a, *b) = (pair[0], pair[1]);
                }
                let (va, vb) = turn(l, l.load(&a), l.load(&b), cosines, sines, at);
                l.store(va, &mut a);
                l.store(vb, &mut b);
                for ((a, b), pair) in a.iter().zip(&b).zip(both.chunks_exact_mut(2)) {
                    (pair[0], pair[1]) = (*a, *b);
                }
                at += LANES;
            }
        }
    }
}

#[inline(always)]
fn turn<L: Lanes>(
    l: L,
    a: L::F,
    b: L::F,
    cosines: &[f32],
    sines: &[f32],
    at: usize,
) -> (L::F, L::F) {
    let (cos, sin) = (load_at(l, cosines, at, 0.0), load_at(l, sines, at, 0.0));
    let back = l.sub(l.splat(-0.0), l.mul(b, sin));
    (l.fma(a, cos, back), l.fma(b, cos, l.mul(a, sin)))
}
