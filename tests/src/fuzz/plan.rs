//! The plans of `attention` and `matmul` for any lengths: every row, every split, every
//! input is in one piece and in no other, and each piece has the room it was given.

use super::Input;
use kernels_core::attention::SPLIT;
use kernels_core::attention::plan::{
    Block, Plan, Room, block_rows, plan, span, spans_of, state_width,
};
use kernels_core::dtype::Dtype;
use kernels_core::matmul;
use kernels_core::packing::{Groups, TILE, Values, Weight};
use kernels_core::params;
use kernels_core::simd::Level;
use std::ops::Range;

/// One input: a call of each kernel.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    matmul(&mut input);
    attention(&mut input);
}

/// Chunks have all rows, panels all rows of a chunk, segments all inputs.
fn matmul(input: &mut Input<'_>) {
    let nibbles = input.below(2) == 1;
    let len = input.one_of(&[32, 64, 128]);
    let groups = Groups { nibbles, affine: input.below(2) == 1, len, scale: Dtype::F32 };
    let values = match input.below(3) {
        0 => Values::Floats(Dtype::Bf16),
        _ => Values::Groups(groups),
    };
    let inputs = match values {
        Values::Floats(_) => 1 + input.below(1 << 14) as usize,
        Values::Groups(_) => len * (1 + input.below(1 << 7) as usize),
    };
    let weight = Weight { outputs: 1 + input.below(1000) as usize, inputs, values };
    let rows_max = 1 + input.below(3000) as usize;
    let plan = matmul::Plan::new(weight, rows_max);
    let rows = input.below(rows_max as u32 + 1) as usize;
    let segments = (0..plan.segments()).map(|segment| plan.segment_inputs(segment));
    assert!(segments.clone().all(|inputs| (1..=matmul::SEGMENT).contains(&inputs)));
    assert_eq!(segments.sum::<usize>(), inputs, "segments have all inputs");
    // Words of one row of a segment, and so rows that a unit has room for.
    let row_words = match values {
        Values::Floats(_) => matmul::SEGMENT,
        Values::Groups(_) => matmul::SEGMENT / len * (len / 4 + 2),
    };
    let room = plan.unit_words() / row_words;
    let mut next = 0;
    for chunk in plan.chunks(rows) {
        assert_eq!(chunk.start, next, "chunks follow each other");
        assert!((1..=plan.chunk_rows()).contains(&chunk.len()), "{chunk:?} of {plan:?}");
        next = chunk.end;
        let panels = plan.panels(chunk.len());
        let units = panels * plan.segments();
        assert!(units * plan.unit_words() <= plan.rows_words(), "a chunk has room: {plan:?}");
        let mut row = 0;
        for panel in 0..panels {
            let panel = plan.panel(chunk.len(), panel);
            assert_eq!(panel.start, row, "panels follow each other");
            assert!((1..=room).contains(&panel.len()), "{panel:?} of {plan:?}");
            row = panel.end;
        }
        assert_eq!(row, chunk.len(), "panels have all rows");
        for level in Level::all() {
            let totals = plan.tiles_at_once(level, chunk.len()) * chunk.len() * TILE;
            assert!(totals <= plan.totals_words(), "totals have room: {plan:?}");
        }
    }
    assert_eq!(next, rows, "chunks have all rows");
}

/// Sequences of a call, each with rows that see keys up to their own position.
struct Call {
    params: params::Attention,
    q_start: Vec<u32>,
    kv_len: Vec<u32>,
    first: Vec<u32>,
}

impl Call {
    fn drawn(input: &mut Input<'_>) -> Self {
        let mut params = params::Attention::default();
        params.kv.kv_heads = 1 + input.below(8);
        params.q_heads = params.kv.kv_heads * (1 + input.below(256));
        params.kv.head_dim = 8 * (1 + input.below(32));
        params.seqs_max = 1 + input.below(20);
        let (mut q_start, mut kv_len, mut first) = (vec![input.below(3)], Vec::new(), Vec::new());
        for _ in 0..input.below(params.seqs_max + 1) {
            let rows = input.below(4) * input.below(3) / 2 * input.below(100) + input.below(3);
            q_start.push(q_start.last().expect("it begins with one") + rows);
            let len = match input.below(4) {
                0 => input.below(1 << 30),
                1 => input.below(256),
                _ => input.below(1 << 15),
            };
            kv_len.push(len);
            first.push(if input.below(2) == 1 { input.below(len + 1) } else { 0 });
        }
        let most = q_start.last().copied().unwrap_or(0);
        params.rows_max = most.max(1) + input.below(5);
        params.kv_len_max = kv_len.iter().copied().max().unwrap_or(1).max(1);
        Self { params, q_start, kv_len, first }
    }

    /// The positions that some rows of a sequence see together: the last sees most.
    fn sees(&self, seq: u32, rows: Range<u32>) -> Range<u32> {
        let seq = seq as usize;
        let after = self.q_start[seq + 1] - rows.end;
        let end = self.kv_len[seq].saturating_sub(after);
        self.first[seq].min(end)..end
    }
}

/// Blocks have all rows of their sequences, and spans all splits of their blocks.
fn attention(input: &mut Input<'_>) {
    let call = Call::drawn(input);
    let p = &call.params;
    let alone = assert_cut(&call, 1);
    for workers in [2, 1 + input.below(64)] {
        let cut = assert_cut(&call, workers);
        let places = |blocks: &[Block]| -> Vec<(u32, u32, Range<u32>)> {
            blocks.iter().map(|block| (block.row, block.seq, block.splits())).collect()
        };
        assert_eq!(places(&cut), places(&alone), "workers move no block: {p:?}");
    }
}

/// The blocks of a call, after a look at all of them.
fn assert_cut(call: &Call, workers: u32) -> Vec<Block> {
    let p = &call.params;
    let room = Room::new(p, workers);
    let mut blocks = vec![Block::default(); room.blocks];
    let mut starts = vec![0; room.blocks + 1];
    let sees = |seq, rows| call.sees(seq, rows);
    let plan = plan(p, &room, &call.q_start, sees, &mut starts, &mut blocks);
    blocks.truncate(plan.blocks);
    let mut next = call.q_start[0];
    for (at, block) in blocks.iter().enumerate() {
        assert_eq!((block.row, starts[at]), (next, next), "blocks follow each other");
        next += block.rows;
        let seq = block.seq as usize;
        let own = call.q_start[seq]..=call.q_start[seq + 1];
        assert!(own.contains(&block.row) && own.contains(&next), "one sequence: {block:?}");
        assert!((1..=block_rows(p)).contains(&block.rows), "{block:?}");
        assert!((block.rows * (p.q_heads / p.kv.kv_heads)) as usize <= room.queries, "{block:?}");
        let seen = call.sees(block.seq, block.row..next);
        let split = |position: u32| position / SPLIT as u32;
        match seen.is_empty() {
            true => assert!(block.splits().is_empty(), "nothing is seen: {block:?}"),
            false => assert_eq!(block.splits(), split(seen.start)..split(seen.end - 1) + 1),
        }
    }
    assert_eq!(next, *call.q_start.last().expect("it begins with one"), "blocks have all rows");
    assert_eq!(starts[plan.blocks], next, "the last start is the end");
    assert_spans(p, &room, &plan, &blocks);
    blocks
}

fn assert_spans(p: &params::Attention, room: &Room, plan: &Plan, blocks: &[Block]) {
    let floats = u64::from(plan.spans) * u64::from(p.kv.kv_heads) * plan.span_floats as u64;
    assert!(floats <= room.states as u64, "states have room: {plan:?}");
    let mut next = 0;
    for (at, block) in blocks.iter().enumerate() {
        let spans = spans_of(plan, blocks, at);
        if spans.is_empty() {
            continue;
        }
        assert_eq!(spans.start, next, "spans follow each other");
        next = spans.end;
        let queries = (block.rows * (p.q_heads / p.kv.kv_heads)) as usize;
        let state = queries * (state_width(p) + 2);
        let mut split = block.split_begin;
        for number in spans {
            let (index, splits) = span(blocks, number);
            assert_eq!((index, splits.start), (at, split), "a span is its block's");
            assert!(!splits.is_empty() && splits.len() * state <= plan.span_floats, "{plan:?}");
            split = splits.end;
        }
        assert_eq!(split, block.split_end, "spans have all splits");
    }
    assert_eq!(next, plan.spans, "blocks have all spans");
}
