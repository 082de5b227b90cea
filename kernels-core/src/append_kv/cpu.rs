//! `append_kv` on the CPU: workers take the K or the V of some heads, so that a tile
//! writes pages no other touches, and each row of them once for all its slots.

use super::encode::Encoded;
use super::{AppendKv, Call, slots};
use crate::command::{Host, cast, cast_mut, live};
use crate::error::Error;
use crate::kv_layout::{Part, Place};
use crate::params;
use crate::rope::{HEAD_DIM_MAX, rotate};
use crate::simd::{Floats, FloatsMut, LANES, Lanes, Level, load_at, store_at};
use crate::workers::{PageColumns, PagePart, Slabs, Workers, split};
use half::{bf16, f16};

/// Elements worth a thread of their own: below this a second one costs more than it brings.
const TILE_ELEMENTS: usize = 16_384;

/// Runs the command; `workspace` is what [`needs`](AppendKv::needs) asked for.
pub fn run(
    level: Level,
    workers: &dyn Workers,
    append: AppendKv<Host<'_>>,
    workspace: &mut [u8],
) -> Result<(), Error> {
    let call = append.call()?;
    let (checks, p) = (AppendKv::<Host>::CHECKS, append.params);
    let rows = live(checks, "rows", append.rows, p.rows_max)?;
    checks.words("workspace", Some(slots::workspace_words(p.slots_max)), &&*workspace)?;
    let starts = append.slot_starts.map(|starts| &cast::<u32>(starts)[..=rows]);
    let slots = &cast::<[u32; 2]>(append.slots)[..p.slots_max as usize];
    slots::check(&p, rows, starts, slots, cast_mut(workspace))?;
    let positions = append.positions.map(|positions| &cast::<u32>(positions)[..rows]);
    if let Some(positions) = positions {
        checks.elements("positions", positions, 0..=p.table_len - 1)?;
    }
    let columns = 2 * p.kv.kv_heads as usize;
    let elements = rows * columns * p.kv.head_dim as usize;
    let tiles = (elements / TILE_ELEMENTS).clamp(1, columns.min(workers.count() as usize)) as u32;
    let slabs = Slabs { keys: append.keys, values: append.values, scales: append.scales };
    let pages = PageColumns::new(&call.kv, slabs, tiles);
    let input = Input {
        p: &p,
        call: &call,
        rows,
        k: Floats::new(call.x, append.k),
        v: Floats::new(call.x, append.v),
        table: append.table.map(cast).unwrap_or(&[]),
        positions: positions.unwrap_or(&[]),
        starts,
        slots,
    };
    split(workers, tiles, pages, |_, pages| columns_at(level, &input, pages));
    Ok(())
}

/// What every tile reads.
struct Input<'a> {
    p: &'a params::AppendKv,
    call: &'a Call,
    rows: usize,
    k: Floats<'a>,
    v: Floats<'a>,
    table: &'a [f32],
    positions: &'a [u32],
    starts: Option<&'a [u32]>,
    slots: &'a [[u32; 2]],
}

impl<'a> Input<'a> {
    /// The slots of a row.
    #[inline(always)]
    fn slots(&self, row: usize) -> &'a [[u32; 2]] {
        match self.starts {
            Some(starts) => &self.slots[starts[row] as usize..starts[row + 1] as usize],
            None => &self.slots[row..row + 1],
        }
    }
}

crate::levels! {
    fn columns_at(input: &Input<'_>, pages: PagePart<'_>) = columns_body;
}

#[inline(always)]
fn columns_body<L: Lanes>(l: L, input: &Input<'_>, mut pages: PagePart<'_>) {
    let (p, kv) = (input.p, &input.call.kv);
    let head_dim = p.kv.head_dim as usize;
    let (mut wide, mut encoded) = ([0.0; HEAD_DIM_MAX], Encoded::new());
    for row in 0..input.rows {
        let slots = input.slots(row);
        if slots.is_empty() {
            continue;
        }
        for (head, part) in pages.columns() {
            let (x, row_stride) = match part {
                Part::Keys => (input.k, p.k_row_stride),
                Part::Values => (input.v, p.v_row_stride),
            };
            let start = row * row_stride as usize + head as usize * head_dim;
            let x = x.part(start..start + head_dim);
            let mut at = 0;
            while at < head_dim {
                store_at(l, x.load(l, at, 0.0), &mut wide, at);
                at += LANES;
            }
            if part == Part::Keys {
                turn(l, input, row, &mut wide);
            }
            encoded.take(l, kv, part, &wide);
            for &[page, token] in slots {
                encoded.put(kv, part, Place { page, head, token }, &mut pages);
            }
        }
    }
}

/// Turns a key, if keys turn, and rounds it as `rope` would store it.
#[inline(always)]
fn turn<L: Lanes>(l: L, input: &Input<'_>, row: usize, wide: &mut [f32; HEAD_DIM_MAX]) {
    let Some(pairing) = input.call.pairing else {
        return;
    };
    let rotary_dims = input.p.rotary_dims as usize;
    let turns = input.positions[row] as usize * rotary_dims;
    let turns = &input.table[turns..turns + rotary_dims];
    rotate(l, pairing, &mut wide[..rotary_dims], turns);
    let mut at = 0;
    while at < rotary_dims {
        let mut rounded = [0u32; LANES];
        let mut narrow = match input.k {
            Floats::F32(_) => return,
            Floats::F16(_) => {
                FloatsMut::F16(&mut bytemuck::cast_slice_mut::<u32, f16>(&mut rounded)[..LANES])
            }
            Floats::Bf16(_) => {
                FloatsMut::Bf16(&mut bytemuck::cast_slice_mut::<u32, bf16>(&mut rounded)[..LANES])
            }
        };
        narrow.store(l, load_at(l, &wide[..], at, 0.0), 0);
        store_at(l, narrow.read().load(l, 0, 0.0), &mut wide[..], at);
        at += LANES;
    }
}
