//! `token_logprob` on the CPU: a worker makes the logits of one block for all rows of
//! a chunk, sums their exponentials while they are in its cache, and forgets them.

use super::TokenLogprob;
use crate::command::{Host, cast, cast_mut, live};
use crate::error::Error;
use crate::matmul::{Converted, Input, Matrix, Plan, tiles};
use crate::packing::{TILE, Weight};
use crate::params;
use crate::simd::{Floats, Lanes, Level};
use crate::vocabulary::{BLOCK, Exponentials, block, largest};
use crate::workers::{Pieces, Workers, even, split};

/// Rows of a chunk at most: their logits of one block lie in a core's second cache.
const CHUNK_ROWS_MAX: u32 = 84;

/// How a call lies in its workspace: the partial results, the converted rows of a
/// chunk, then each worker's scratch and logits.
pub(super) struct Layout {
    plan: Plan,
    blocks: usize,
}

/// What one block says of one row.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Partial {
    exponentials: Exponentials,
    /// The logit of the row's token, if it lies in the block.
    logit: f32,
}

impl Layout {
    pub(super) fn new(weight: Weight, rows_max: u32) -> Self {
        let plan = Plan::new(weight, rows_max.min(CHUNK_ROWS_MAX) as usize);
        Self { plan, blocks: weight.outputs.div_ceil(BLOCK) }
    }

    fn partial_words(&self) -> usize {
        self.blocks * self.plan.chunk_rows() * size_of::<Partial>() / 4
    }

    fn worker_words(&self) -> usize {
        self.plan.scratch_words() + self.plan.chunk_rows() * BLOCK
    }

    pub(super) fn words(&self, workers: u32) -> usize {
        let workers = (workers.max(1) as usize).min(self.blocks);
        self.partial_words() + self.plan.rows_words() + workers * self.worker_words()
    }
}

/// Runs the command; `workspace` is what [`needs`](TokenLogprob::needs) asked for these workers.
pub fn run(
    level: Level,
    workers: &dyn Workers,
    command: TokenLogprob<Host<'_>>,
    workspace: &mut [u8],
) -> Result<(), Error> {
    let checks = TokenLogprob::<Host>::CHECKS;
    let types = command.types()?;
    let p = command.params;
    let layout = Layout::new(types.weight, p.rows_max);
    checks.words("workspace", Some(layout.words(workers.count()) as u64), &&*workspace)?;
    let rows = live(checks, "rows", command.rows, p.rows_max)?;
    let token: &[u32] = &cast(command.token)[..rows];
    checks.elements("token", token, 0..=types.weight.outputs as u32 - 1)?;
    let (logprob, status) = (cast_mut::<f32>(command.logprob), cast_mut::<u32>(command.status));
    let bias = types.bias.zip(command.bias).map(|(dtype, bytes)| Floats::new(dtype, bytes));
    let matrix = Matrix { packed: command.weight, bias };
    let x = Floats::new(types.x, command.x);
    let words: &mut [i32] = cast_mut(workspace);
    let (partials, words) = words.split_at_mut(layout.partial_words());
    let (converted, scratch) = words.split_at_mut(layout.plan.rows_words());
    let shares = workers.count().max(1).min(layout.blocks as u32);
    for chunk in layout.plan.chunks(rows) {
        let (first, count) = (chunk.start, chunk.len());
        let input = Input { x, row_stride: p.x_row_stride as usize, first, rows: count };
        let converted = Converted::convert(level, workers, &layout.plan, input, converted);
        let partials: &mut [Partial] = bytemuck::cast_slice_mut(&mut *partials);
        let partials = &mut partials[..layout.blocks * count];
        let parts = Pieces::new(&mut *partials, layout.blocks, count, shares);
        let scratch = Pieces::new(&mut *scratch, shares as usize, layout.worker_words(), shares);
        let token = &token[chunk.clone()];
        let at_once = layout.plan.tiles_at_once(level, count);
        split(workers, shares, (parts, scratch), |part, (partials, scratch)| {
            let (scratch, logits) = scratch.split_at_mut(layout.plan.scratch_words());
            let logits: &mut [f32] = bytemuck::cast_slice_mut(logits);
            let blocks = even(layout.blocks, shares, part);
            for (block, partials) in blocks.zip(partials.chunks_exact_mut(count)) {
                let first = block * BLOCK;
                let width = (types.weight.outputs - first).min(BLOCK);
                let end = (first + width).div_ceil(TILE);
                for tile in (first / TILE..end).step_by(at_once) {
                    let some = tile..end.min(tile + at_once);
                    tiles(level, converted, matrix, some.clone(), scratch);
                    let totals: &[f32] = bytemuck::cast_slice(scratch);
                    for (tile, totals) in some.zip(totals.chunks_exact(count * TILE)) {
                        for (row, totals) in totals.chunks_exact(TILE).enumerate() {
                            let at = row * BLOCK + tile * TILE - first;
                            logits[at..at + TILE].copy_from_slice(totals);
                        }
                    }
                }
                sum(level, Block { first, width, logits, token, partials });
            }
        });
        let (logprob, status) = (&mut logprob[chunk.clone()], &mut status[chunk]);
        fold(level, Folded { partials, token, logprob, status });
    }
    Ok(())
}

/// The logits of one block, `[rows][4096]`.
struct Block<'a> {
    /// Its first token.
    first: usize,
    /// Its tokens.
    width: usize,
    logits: &'a [f32],
    token: &'a [u32],
    /// One for each row.
    partials: &'a mut [Partial],
}

crate::levels! {
    fn sum(block: Block<'_>) = sum_body;
}

#[inline(always)]
fn sum_body<L: Lanes>(l: L, all: Block<'_>) {
    for ((x, token), partial) in all.logits.chunks(BLOCK).zip(all.token).zip(all.partials) {
        let x = &x[..all.width];
        let within = (*token as usize).wrapping_sub(all.first);
        partial.exponentials = block(l, x, largest(l, x));
        partial.logit = x.get(within).copied().unwrap_or(f32::NAN);
    }
}

/// The partial results of a chunk, `[blocks][rows]`, and where its rows' results go.
struct Folded<'a> {
    partials: &'a [Partial],
    token: &'a [u32],
    logprob: &'a mut [f32],
    status: &'a mut [u32],
}

crate::levels! {
    fn fold(all: Folded<'_>) = fold_body;
}

#[inline(always)]
fn fold_body<L: Lanes>(l: L, all: Folded<'_>) {
    let count = all.token.len();
    for (row, token) in all.token.iter().enumerate() {
        let mut total = Exponentials::NONE;
        for partial in all.partials.iter().skip(row).step_by(count) {
            total = total.fold(l, partial.exponentials);
        }
        let logit = all.partials[*token as usize / BLOCK * count + row].logit;
        all.status[row] = total.status();
        all.logprob[row] = match total.status() {
            params::STATUS_OK => total.logprob(l, logit),
            _ => f32::NAN,
        };
    }
}
