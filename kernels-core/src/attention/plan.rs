//! How a call is cut: rows into blocks, and blocks of few rows over long
//! sequences into spans of splits. No cut changes a bit.

use crate::params;
use crate::simd::LANES;
use crate::simd::attend::{DIMS_MAX, SPLIT};
use core::ops::Range;

/// Queries (a row and a head) that a block aims at: enough that pages widened once
/// serve many, few enough that they stay in the cache beside a split.
pub const BLOCK_QUERIES: u32 = 128;
/// Queries of a block that is cut into spans, at most.
const SPAN_QUERIES: u32 = 64;
/// Splits of a span.
pub const SPAN: u32 = 4;
/// Blocks for each worker from which on none is cut: they keep all workers busy.
const BLOCKS_EACH: u64 = 8;
/// Bytes of states for each worker, at most.
const STATE_BYTES: u64 = 8 << 20;

/// Rows of one sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Block {
    /// The first row of the call.
    pub row: u32,
    /// How many.
    pub rows: u32,
    /// Their sequence.
    pub seq: u32,
    /// The first split that any of them sees.
    pub split_begin: u32,
    /// After the last one.
    pub split_end: u32,
    /// The first span of the call that is this block's; the next block's, if it has none.
    pub span: u32,
}

impl Block {
    /// Its splits.
    pub fn splits(&self) -> Range<u32> {
        self.split_begin..self.split_end
    }
}

/// Rows of a block: as many as make up [`BLOCK_QUERIES`].
pub fn block_rows(p: &params::Attention) -> u32 {
    (BLOCK_QUERIES / (p.q_heads / p.kv.kv_heads)).max(1)
}

/// What a call makes room for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Blocks at most.
    pub blocks: usize,
    /// Queries of a block at most.
    pub queries: usize,
    /// Floats of one worker's scratch.
    pub scratch: usize,
    /// Floats of all states.
    pub states: usize,
    /// Workers.
    pub workers: u32,
}

impl Room {
    /// The room of a checked call.
    pub fn new(p: &params::Attention, workers: u32) -> Self {
        let (group, rows) = (p.q_heads / p.kv.kv_heads, block_rows(p));
        let blocks = p.rows_max.min(p.rows_max / rows + p.seqs_max) as usize;
        let queries = (group * rows.min(p.rows_max)) as usize;
        let width = state_width(p);
        let scratch = queries * (2 * DIMS_MAX + LANES)
            + 2 * super::split::QUERIES * DIMS_MAX
            + 2 * SPLIT
            + 2 * SPLIT * width;
        let splits = u64::from(p.kv_len_max).div_ceil(SPLIT as u64);
        let spans = splits.div_ceil(SPAN.into()) * u64::from(SPAN);
        let most = u64::from(p.rows_max) * u64::from(p.q_heads) * spans * (width as u64 + 2);
        let states = if workers > 1 { most.min(STATE_BYTES / 4 * u64::from(workers)) } else { 0 };
        Self {
            blocks,
            queries,
            scratch: scratch.next_multiple_of(LANES),
            states: states as usize,
            workers,
        }
    }

    /// Bytes of the starts of blocks, each part rounded up to a cache line.
    pub const fn start_bytes(&self) -> usize {
        ((self.blocks + 1) * 4).next_multiple_of(64)
    }

    /// Bytes of the blocks.
    pub const fn block_bytes(&self) -> usize {
        (self.blocks * size_of::<Block>()).next_multiple_of(64)
    }

    /// Bytes in all.
    pub fn bytes(&self) -> u64 {
        let floats = self.scratch as u64 * u64::from(self.workers) + self.states as u64;
        (self.start_bytes() + self.block_bytes()) as u64 + 4 * floats
    }
}

/// Floats of a query's accumulator: its dims in whole vectors.
pub fn state_width(p: &params::Attention) -> usize {
    (p.kv.head_dim as usize).next_multiple_of(LANES)
}

/// A call that was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Blocks.
    pub blocks: usize,
    /// Spans of all blocks.
    pub spans: u32,
    /// Floats of a span's states of one head: those of the widest block.
    pub span_floats: usize,
    /// Queries of the widest block that was cut.
    pub span_queries: usize,
}

/// Cuts the rows of each sequence into blocks. `sees(seq, rows)` is the range of
/// positions that the rows of a sequence see together; `starts` gets the first row of
/// each block and then the end of the last.
pub fn plan(
    p: &params::Attention,
    room: &Room,
    q_start: &[u32],
    sees: impl Fn(u32, Range<u32>) -> Range<u32>,
    starts: &mut [u32],
    blocks: &mut [Block],
) -> Plan {
    let rows_most = block_rows(p);
    let mut count = 0;
    for (seq, ends) in q_start.windows(2).enumerate() {
        let mut row = ends[0];
        while row < ends[1] {
            let rows = rows_most.min(ends[1] - row);
            let seen = sees(seq as u32, row..row + rows);
            let (split_begin, split_end) = if seen.is_empty() {
                (0, 0)
            } else {
                (seen.start / SPLIT as u32, seen.end.div_ceil(SPLIT as u32))
            };
            starts[count] = row;
            blocks[count] = Block { row, rows, seq: seq as u32, split_begin, split_end, span: 0 };
            row += rows;
            count += 1;
        }
    }
    starts[count] = q_start.last().copied().unwrap_or(0);
    let mut plan = Plan { blocks: count, ..Plan::default() };
    cut(p, room, &mut blocks[..count], &mut plan);
    plan
}

/// Whether a block is worth cutting.
fn long(group: u32, block: &Block) -> bool {
    block.rows * group <= SPAN_QUERIES.max(group) && block.splits().len() as u32 > SPAN
}

/// Cuts blocks into spans where there are too few of them for the workers.
fn cut(p: &params::Attention, room: &Room, blocks: &mut [Block], plan: &mut Plan) {
    let (group, heads) = (p.q_heads / p.kv.kv_heads, u64::from(p.kv.kv_heads));
    if room.workers == 1 || blocks.len() as u64 * heads >= BLOCKS_EACH * u64::from(room.workers) {
        return;
    }
    let spans = |block: &Block| (block.splits().len() as u32).div_ceil(SPAN);
    let cut = blocks.iter().filter(|block| long(group, block));
    let total: u64 = cut.clone().map(|block| u64::from(spans(block))).sum();
    let queries = cut.map(|block| block.rows * group).max().unwrap_or(0) as usize;
    let floats = SPAN as usize * queries * (state_width(p) + 2);
    if total == 0 || total * heads * floats as u64 > room.states as u64 {
        return;
    }
    let mut next = 0;
    for block in blocks {
        block.span = next;
        if long(group, block) {
            next += spans(block);
        }
    }
    (plan.spans, plan.span_floats, plan.span_queries) = (next, floats, queries);
}

/// The spans of a block.
pub fn spans_of(plan: &Plan, blocks: &[Block], index: usize) -> Range<u32> {
    let end = blocks.get(index + 1).map_or(plan.spans, |next| next.span);
    blocks[index].span..end
}

/// The block of a span, and the splits that are the span's.
pub fn span(blocks: &[Block], span: u32) -> (usize, Range<u32>) {
    // Blocks without spans share their number with the next: the last of those has it.
    let index = blocks.partition_point(|block| block.span <= span) - 1;
    let block = &blocks[index];
    let begin = block.split_begin + (span - block.span) * SPAN;
    (index, begin..(begin + SPAN).min(block.split_end))
}
