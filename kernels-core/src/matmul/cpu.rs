//! `matmul` on the CPU: the rows of a chunk are converted once, then workers take
//! tiles of outputs, each a part of the columns that lie together.

use super::plan::Plan;
use super::quantise::Input;
use super::tile::{Matrix, Rows, tiles};
use super::{Matmul, Types};
use crate::command::{Host, cast_mut, live};
use crate::dtype::Dtype;
use crate::error::Error;
use crate::packing::{TILE, Weight};
use crate::params;
use crate::simd::{Element, Floats, LANES, Lanes, Level, far, store_at};
use crate::workers::{Columns, Pieces, Strip, Workers, share};
use core::ops::Range;
use half::{bf16, f16};

/// Bytes of weights worth a thread of their own.
const STRIP_BYTES: u64 = 1 << 16;
/// Strips of columns for each worker: whoever is held up leaves the rest to the others.
const STRIPS_EACH: usize = 16;
/// Tiles of a strip at least, where there are strips enough: two tiles go side by side.
const STRIP_TILES: usize = 8;

/// Runs the command; `workspace` is what [`needs`](Matmul::needs) asked for these workers.
pub fn run(
    level: Level,
    workers: &dyn Workers,
    matmul: Matmul<Host<'_>>,
    workspace: &mut [u8],
) -> Result<(), Error> {
    let (types, rows, plan) = prepare(workers, &matmul, workspace)?;
    let p = matmul.params;
    let (converted, scratch) = cast_mut::<i32>(workspace).split_at_mut(plan.rows_words());
    let x = Floats::new(types.x, matmul.x);
    let bias = types.bias.zip(matmul.bias).map(|(dtype, bytes)| Floats::new(dtype, bytes));
    let matrix = Matrix { packed: matmul.weight, bias };
    let weight = &types.weight;
    let slots = workers.count();
    let strips = strips(weight, slots);
    let each = types.out.align() as usize;
    let stride = p.out_row_stride as usize * each;
    for chunk in plan.chunks(rows) {
        let input = input(&p, x, &chunk);
        let converted = Rows::convert(level, workers, &plan, input, converted);
        let out = &mut matmul.out[chunk.start * stride..];
        let width = weight.outputs * each;
        let columns = Columns::new(out, chunk.len(), stride, width, TILE * each, strips);
        let scratch = Pieces::new(&mut *scratch, slots as usize, plan.scratch_words(), slots);
        let at_once = plan.tiles_at_once(level, chunk.len());
        share(workers, slots, scratch, strips, columns, |scratch, _, mut strip| {
            let first = strip.columns().start / each / TILE;
            let count = strip.columns().len().div_ceil(TILE * each);
            for at in (0..count).step_by(at_once) {
                let some = at..count.min(at + at_once);
                let from = first + some.start..first + some.end;
                tiles(level, converted, matrix, from, scratch);
                let totals: &[f32] = bytemuck::cast_slice(scratch);
                for (at, totals) in some.zip(totals.chunks_exact(chunk.len() * TILE)) {
                    store(level, types.out, totals, at * TILE, &mut strip);
                }
            }
        });
    }
    Ok(())
}

/// Into how many strips of columns a product is cut, for so many workers.
fn strips(weight: &Weight, workers: u32) -> u32 {
    let tiles = weight.tiles();
    let workers = workers as usize;
    let most = (tiles / STRIP_TILES).clamp(workers.min(tiles), STRIPS_EACH * workers);
    (weight.bytes() / STRIP_BYTES).clamp(1, most as u64) as u32
}

/// What [`run`] does before its products, alone: rows are converted or quantised. For
/// benches, which hold its time against a whole call's.
pub fn convert(
    level: Level,
    workers: &dyn Workers,
    matmul: Matmul<Host<'_>>,
    workspace: &mut [u8],
) -> Result<(), Error> {
    let (types, rows, plan) = prepare(workers, &matmul, workspace)?;
    let converted = &mut cast_mut::<i32>(workspace)[..plan.rows_words()];
    let x = Floats::new(types.x, matmul.x);
    for chunk in plan.chunks(rows) {
        Rows::convert(level, workers, &plan, input(&matmul.params, x, &chunk), converted);
    }
    Ok(())
}

/// The types of a checked call, its rows in use and the layout of its workspace.
fn prepare(
    workers: &dyn Workers,
    matmul: &Matmul<Host<'_>>,
    workspace: &[u8],
) -> Result<(Types, usize, Plan), Error> {
    let (types, checks) = (matmul.types()?, Matmul::<Host>::CHECKS);
    let rows = live(checks, "rows", matmul.rows, matmul.params.rows_max)?;
    let plan = Plan::new(types.weight, matmul.params.rows_max as usize);
    let needed = plan.workspace_bytes(workers.count());
    checks.holds("workspace", Some(needed as u64), workspace.len() as u64)?;
    checks.aligned("workspace", 4, &workspace)?;
    Ok((types, rows, plan))
}

/// The rows of a chunk.
fn input<'a>(p: &params::Matmul, x: Floats<'a>, chunk: &Range<usize>) -> Input<'a> {
    Input { x, row_stride: p.x_row_stride as usize, first: chunk.start, rows: chunk.len() }
}

crate::levels! {
    /// Rounds a tile's totals into the strip, from element `at` of its rows.
    fn store(out: Dtype, totals: &[f32], at: usize, strip: &mut Strip<'_, u8>) = store_body;
}

#[inline(always)]
fn store_body<L: Lanes>(l: L, dtype: Dtype, totals: &[f32], at: usize, strip: &mut Strip<'_, u8>) {
    match dtype {
        Dtype::F32 => store_as::<L, f32>(l, totals, at, strip),
        Dtype::F16 => store_as::<L, f16>(l, totals, at, strip),
        _ => store_as::<L, bf16>(l, totals, at, strip),
    }
}

#[inline(always)]
fn store_as<L: Lanes, E: Element>(l: L, totals: &[f32], at: usize, strip: &mut Strip<'_, u8>) {
    let width = (strip.columns().len() / size_of::<E>() - at).min(TILE);
    for (row, totals) in totals.as_chunks::<TILE>().0.iter().enumerate() {
        let out = &mut cast_mut::<E>(strip.row(row))[at..at + width];
        let [a, b] = bytemuck::must_cast_ref::<_, [[f32; LANES]; 2]>(totals);
        store_at(l, l.load(a), out, 0);
        if width > LANES {
            store_at(l, l.load(b), out, LANES);
        }
        // Where the next tile's outputs go, which takes longer to come than to write.
        let next = out.as_ptr().wrapping_add(TILE).cast::<u8>();
        far(next);
        far(next.wrapping_add(64));
    }
}

#[cfg(test)]
mod tests {
    use super::strips;
    use crate::dtype::Dtype;
    use crate::packing::{Values, Weight};

    #[test]
    fn a_large_matrix_has_more_strips_than_workers_and_a_small_one_is_whole() {
        let cut = |outputs, inputs, workers| {
            let values = Values::Floats(Dtype::Bf16);
            strips(&Weight { outputs, inputs, values }, workers)
        };
        assert_eq!(cut(5632, 2048, 2), 22);
        assert_eq!(cut(32_000, 2048, 2), 32);
        // As many as there are workers, where tiles are few.
        assert_eq!(cut(256, 2048, 4), 4);
        assert_eq!(cut(32, 64, 2), 1);
    }
}
