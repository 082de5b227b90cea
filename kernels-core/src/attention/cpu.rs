//! `attention` on the CPU: blocks of rows, and spans of long sequences, go to
//! workers that keep their scratch.

use super::Attention;
use super::call::Call;
use super::fold::States;
use super::plan::{Block, Plan, Room, plan, span, spans_of, state_width};
use super::scores::{Row, Scoring};
use super::split::{Desk, QUERIES, Split, attend};
use super::stage::{
    Pages, Widen, copy_scales, lies_in_tiles, staged_keys, staged_values, widen_keys, widen_values,
};
use crate::command::{Host, cast, cast_mut};
use crate::error::Error;
use crate::kv_layout::{Part, Place, Scales};
use crate::simd::attend::{Ahead, DIMS_MAX, SPLIT, TILES, Tiles};
use crate::simd::{Floats, FloatsMut, LANES, Lanes, Level, Stored, prefetch};
use crate::with_stored;
use crate::workers::{Blocks, Pieces, Strip, Workers, share};
use core::ops::Range;

/// Queries of a block from which on widening a split once costs less than widening
/// it in registers for every eight.
const STAGED_QUERIES: usize = 48;
/// Rows of a block at most: those of one query head.
const ROWS: usize = super::plan::BLOCK_QUERIES as usize;

/// Runs the command, with the workspace that [`Attention::needs`] states.
pub fn run(
    level: Level,
    workers: &dyn Workers,
    attention: Attention<Host<'_>>,
    workspace: &mut [u8],
) -> Result<(), Error> {
    let bytes = attention.needs(workers.count())?.workspace_bytes;
    Attention::<Host>::CHECKS.words("workspace", Some(bytes.div_ceil(4)), &&*workspace)?;
    let call = Call::new(&attention)?;
    let p = &call.p;
    let room = Room::new(p, workers.count());
    let (starts, rest) = workspace.split_at_mut(room.start_bytes());
    let (blocks, floats) = rest.split_at_mut(room.block_bytes());
    let (starts, blocks) = (cast_mut::<u32>(starts), cast_mut::<Block>(blocks));
    let plan = plan(p, &room, call.q_start, |seq, rows| call.union(seq, rows), starts, blocks);
    let (starts, blocks) = (&starts[..=plan.blocks], &blocks[..plan.blocks]);
    let (scratch, states) =
        cast_mut::<f32>(floats).split_at_mut(room.scratch * room.workers as usize);
    let work = Work { level, call: &call, plan: &plan, blocks, room: &room };
    if plan.spans > 0 {
        work.spans(workers, scratch, &mut states[..room.states]);
    }
    let heads = p.kv.kv_heads;
    let tiles = (plan.blocks as u64 * u64::from(heads)) as u32;
    let out_bytes = call.types.out.align() as usize;
    let head_bytes = call.group * p.kv.head_dim as usize * out_bytes;
    let stride = p.out_row_stride as usize * out_bytes;
    let out = Blocks::new(attention.out, starts, stride, head_bytes, heads);
    let lse = attention
        .lse
        .map(|lse| Blocks::new(lse, starts, p.q_heads as usize * 4, call.group * 4, heads));
    let scratch = Pieces::new(scratch, room.workers as usize, room.scratch, room.workers);
    let states = &*states;
    share(workers, room.workers, scratch, tiles, (out, lse), |scratch, tile, (out, lse)| {
        work.block(tile, scratch, states, out, lse);
    });
    Ok(())
}

/// A planned call.
struct Work<'a> {
    level: Level,
    call: &'a Call<'a>,
    plan: &'a Plan,
    blocks: &'a [Block],
    room: &'a Room,
}

/// One worker's scratch.
struct Scratch<'a> {
    q: &'a mut [[f32; DIMS_MAX]],
    states: &'a mut [f32],
    desk: Desk<'a>,
    k_scales: &'a mut [f32; SPLIT],
    v_scales: &'a mut [f32; SPLIT],
    keys: &'a mut [f32],
    values: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    fn new(floats: &'a mut [f32], queries: usize, width: usize) -> Self {
        let (q, rest) = floats.split_at_mut(queries * DIMS_MAX);
        let (states, rest) = rest.split_at_mut(queries * (DIMS_MAX + LANES));
        let (scores, rest) = rest.split_at_mut(QUERIES * SPLIT);
        let (sums, rest) = rest.split_at_mut(QUERIES * DIMS_MAX);
        let (k_scales, rest) = rest.split_first_chunk_mut().expect("room for scales");
        let (v_scales, rest) = rest.split_first_chunk_mut().expect("room for scales");
        let (keys, rest) = rest.split_at_mut(SPLIT * width);
        let desk =
            Desk { scores: bytemuck::cast_slice_mut(scores), sums: bytemuck::cast_slice_mut(sums) };
        let q = bytemuck::cast_slice_mut(q);
        Self { q, states, desk, k_scales, v_scales, keys, values: &mut rest[..SPLIT * width] }
    }
}

impl Work<'_> {
    /// The states of all spans, each split's apart.
    fn spans(&self, workers: &dyn Workers, scratch: &mut [f32], states: &mut [f32]) {
        let (heads, room) = (self.call.p.kv.kv_heads, self.room);
        let tiles = self.plan.spans * heads;
        let unit = self.plan.span_floats;
        let states = &mut states[..unit * tiles as usize];
        let scratch = Pieces::new(scratch, room.workers as usize, room.scratch, room.workers);
        let states = Pieces::new(states, tiles as usize, unit, tiles);
        share(workers, room.workers, scratch, tiles, states, |scratch, tile, states| {
            let (index, splits) = span(self.blocks, tile / heads);
            let block = &self.blocks[index];
            let each = unit / super::plan::SPAN as usize;
            let (queries, width) = (self.queries(block), state_width(&self.call.p));
            let scratch = &mut Scratch::new(scratch, room.queries, width);
            self.load(block, tile % heads, scratch);
            for (split, states) in splits.clone().zip(states.chunks_mut(each)) {
                let states = &mut States::new(states, queries, width);
                states.clear();
                let at = (split + 1 < splits.end).then_some(split + 1);
                let next = at.map(|split| Next { seq: block.seq, head: tile % heads, split });
                self.split(block, tile % heads, split, next, scratch, states);
            }
        });
    }

    /// One block of one head: from its spans' states, or whole.
    fn block(
        &self,
        tile: u32,
        scratch: &mut [f32],
        states: &[f32],
        mut out: Strip<'_, u8>,
        mut lse: Option<Strip<'_, u8>>,
    ) {
        let heads = self.call.p.kv.kv_heads;
        let (index, head) = ((tile / heads) as usize, tile % heads);
        let block = &self.blocks[index];
        let (queries, width) = (self.queries(block), state_width(&self.call.p));
        let mut scratch = Scratch::new(scratch, self.room.queries, width);
        let memory = core::mem::take(&mut scratch.states);
        let mut all = States::new(&mut memory[..queries * (width + 2)], queries, width);
        all.clear();
        let spans = spans_of(self.plan, self.blocks, index);
        if spans.is_empty() {
            self.load(block, head, &mut scratch);
            for split in block.splits() {
                let more = split + 1 < block.split_end;
                let here = Next { seq: block.seq, head, split: split + 1 };
                let next = if more { Some(here) } else { self.after(tile) };
                self.split(block, head, split, next, &mut scratch, &mut all);
            }
        }
        let each = self.plan.span_floats / super::plan::SPAN as usize;
        for span in spans.clone() {
            let at = (span * heads + head) as usize * self.plan.span_floats;
            let first = block.split_begin + (span - spans.start) * super::plan::SPAN;
            let count = super::plan::SPAN.min(block.split_end - first) as usize;
            for state in states[at..].chunks(each).take(count) {
                fold_all(self.level, &mut all, state);
            }
        }
        let first_head = head as usize * self.call.group;
        let part = HeadRows { call: self.call, rows: block.rows as usize, first_head };
        finish_all(self.level, &all, &part, &mut out, &mut lse);
    }

    /// Where a worker goes most likely after a tile, if all take turns: a wrong guess
    /// costs some requests for memory.
    fn after(&self, tile: u32) -> Option<Next> {
        let heads = self.call.p.kv.kv_heads;
        let tile = tile + self.room.workers;
        let block = self.blocks.get((tile / heads) as usize)?;
        Some(Next { seq: block.seq, head: tile % heads, split: block.split_begin })
    }

    fn queries(&self, block: &Block) -> usize {
        block.rows as usize * self.call.group
    }

    /// Widens the queries of a block.
    fn load(&self, block: &Block, head: u32, scratch: &mut Scratch<'_>) {
        let call = self.call;
        let dims = call.p.kv.head_dim as usize;
        for row in 0..block.rows as usize {
            let start = (block.row as usize + row) * call.p.q_row_stride as usize
                + head as usize * call.group * dims;
            let q = call.q.part(start..start + call.group * dims);
            let to = &mut scratch.q[row * call.group..(row + 1) * call.group];
            load_row(self.level, q, dims, to);
        }
    }

    /// Folds one split into the states of a block's queries.
    fn split(
        &self,
        block: &Block,
        head: u32,
        split: u32,
        next: Option<Next>,
        scratch: &mut Scratch<'_>,
        states: &mut States<'_>,
    ) {
        let call = self.call;
        let seq = block.seq as usize;
        let mut rows = [Row::default(); ROWS];
        let rows = &mut rows[..block.rows as usize];
        let (mut begin, mut end) = (u32::MAX, 0);
        for (row, to) in (block.row..).zip(rows.iter_mut()) {
            *to = call.row(seq, row);
            if to.begin < to.end {
                (begin, end) = (begin.min(to.begin), end.max(to.end));
            }
        }
        let base = split * SPLIT as u32;
        let positions = base.max(begin)..(base + SPLIT as u32).min(end);
        let pages = self.pages(seq, head);
        let at = At { base, positions, next };
        with_stored!(call.types.kv.dtype(), T => self.stored::<T>(&pages, at, rows, head, scratch, states));
    }

    fn pages(&self, seq: usize, head: u32) -> Pages<'_> {
        let call = self.call;
        let ids = &call.page_ids[call.listed(seq)];
        Pages { kv: &call.types.kv, head, ids, first: call.first(seq) }
    }

    /// Puts the keys of a split among those to ask for, and asks for its scales.
    fn ask_next<T>(&self, next: Next, keys: &[T], ahead: &mut Ahead) {
        let pages = self.pages(next.seq as usize, next.head);
        let base = next.split * SPLIT as u32;
        let positions = base.max(pages.first)..self.call.kv_len[next.seq as usize];
        let positions = positions.start..positions.end.min(base + SPLIT as u32);
        let dims = pages.kv.params().head_dim as usize;
        let scales = bytemuck::cast_slice(self.call.scales);
        for (_, place) in pages.tiles(base, positions) {
            // A head's keys in a page lie together: each tile has an equal share of them.
            let first = pages.kv.cell(Part::Keys, Place { token: 0, ..place }) as usize;
            ahead.push(keys, first + place.token as usize * dims);
            if pages.kv.scales() == Scales::Token {
                prefetch(scales, pages.kv.scale(Part::Keys, place) as usize);
                prefetch(scales, pages.kv.scale(Part::Values, place) as usize);
            }
        }
    }

    /// [`Self::split`] with the type of cells known.
    fn stored<T: Stored>(
        &self,
        pages: &Pages<'_>,
        at: At,
        rows: &[Row],
        head: u32,
        scratch: &mut Scratch<'_>,
        states: &mut States<'_>,
    ) {
        let call = self.call;
        let (keys, values) = (cast::<T>(call.keys), cast::<T>(call.values));
        let (base, positions) = (at.base, at.positions.clone());
        let (dims, queries) = (call.p.kv.head_dim as usize, rows.len() * call.group);
        self.scales(pages, base, positions.clone(), scratch);
        let first_head = head as usize * call.group;
        let about = Split {
            base,
            q: &scratch.q[..queries],
            rows,
            group: call.group,
            slopes: call.slopes.map(|slopes| &slopes[first_head..first_head + call.group]),
            dims,
            keys: Tiles { cells: keys, start: [0; _], stride: 0 },
            values: Tiles { cells: values, start: [0; _], stride: 0 },
            scoring: self.scoring(scratch.k_scales, scratch.v_scales),
        };
        let kv = pages.kv;
        let mut ahead = Ahead::new(dims * LANES * size_of::<T>());
        if lies_in_tiles(kv) && (queries < STAGED_QUERIES || T::WIDE) {
            let k_stride = kv.dim_stride(Part::Keys) as usize;
            let v_stride = kv.token_stride(Part::Values) as usize;
            let (mut k_start, mut v_start) = ([0; TILES], [0; TILES]);
            for (tile, place) in pages.tiles(base, positions) {
                k_start[tile] = kv.cell(Part::Keys, place) as usize;
                v_start[tile] = kv.cell(Part::Values, place) as usize;
                if v_stride == dims {
                    ahead.push(values, v_start[tile]);
                }
            }
            if let Some(next) = at.next.filter(|_| k_stride == kv.params().page_len as usize) {
                self.ask_next(next, keys, &mut ahead);
            }
            let split = Split {
                keys: Tiles { cells: keys, start: k_start, stride: k_stride },
                values: Tiles { cells: values, start: v_start, stride: v_stride },
                ..about
            };
            return attend::<T>(self.level, &split, &mut ahead, &mut scratch.desk, states);
        }
        let width = states.width;
        let widen = |cells| Widen { pages: *pages, cells, base, positions: positions.clone() };
        widen_keys::<T>(self.level, &widen(keys), scratch.keys);
        widen_values::<T>(self.level, &widen(values), width, scratch.values);
        let split = Split {
            base,
            q: about.q,
            rows,
            group: about.group,
            slopes: about.slopes,
            dims,
            keys: staged_keys(scratch.keys, dims),
            values: staged_values(scratch.values, width),
            scoring: about.scoring,
        };
        attend::<f32>(self.level, &split, &mut ahead, &mut scratch.desk, states);
    }

    /// The split's scales, by position.
    fn scales(
        &self,
        pages: &Pages<'_>,
        base: u32,
        positions: Range<u32>,
        scratch: &mut Scratch<'_>,
    ) {
        match pages.kv.scales() {
            Scales::None => {}
            Scales::Static { k, v } => {
                scratch.k_scales.fill(k);
                scratch.v_scales.fill(v);
            }
            Scales::Token => {
                let slab = self.call.scales;
                copy_scales(pages, Part::Keys, slab, base, positions.clone(), scratch.k_scales);
                copy_scales(pages, Part::Values, slab, base, positions, scratch.v_scales);
            }
        }
    }

    fn scoring<'a>(&self, k: &'a [f32; SPLIT], v: &'a [f32; SPLIT]) -> Scoring<'a> {
        let p = &self.call.p;
        let scaled = self.call.types.kv.scales() != Scales::None;
        Scoring {
            k_scales: scaled.then_some(k),
            v_scales: scaled.then_some(v),
            scale: p.scale,
            softcap: p.softcap,
        }
    }
}

/// One split of a block, and what comes after it.
#[derive(Clone, Debug)]
struct At {
    /// Its first position.
    base: u32,
    /// Positions that any row sees.
    positions: Range<u32>,
    next: Option<Next>,
}

/// A split of a head that is likely to be next.
#[derive(Clone, Copy, Debug)]
struct Next {
    seq: u32,
    head: u32,
    split: u32,
}

crate::levels! {
    /// The queries of one row and one head of K, widened.
    fn load_row(q: Floats<'_>, dims: usize, to: &mut [[f32; DIMS_MAX]]) = load_body;
}

#[inline(always)]
fn load_body<L: Lanes>(l: L, q: Floats<'_>, dims: usize, to: &mut [[f32; DIMS_MAX]]) {
    for (h, to) in to.iter_mut().enumerate() {
        let q = q.part(h * dims..(h + 1) * dims);
        let mut at = 0;
        while at < dims {
            crate::simd::store_at(l, q.load(l, at, 0.0), to, at);
            at += LANES;
        }
    }
}

crate::levels! {
    /// Folds the states of a later split into all queries'.
    fn fold_all(into: &mut States<'_>, later: &[f32]) = fold_body;
}

#[inline(always)]
fn fold_body<L: Lanes>(l: L, into: &mut States<'_>, later: &[f32]) {
    let (queries, width) = (into.most.len(), into.width);
    let (most, rest) = later.split_at(queries);
    let (sum, acc) = rest.split_at(queries);
    for query in 0..queries {
        into.fold(l, query, most[query], sum[query], &acc[query * width..][..width]);
    }
}

/// The rows and heads of a block.
struct HeadRows<'a> {
    call: &'a Call<'a>,
    rows: usize,
    first_head: usize,
}

crate::levels! {
    /// Writes the outputs of a block.
    fn finish_all(
        states: &States<'_>,
        part: &HeadRows<'_>,
        out: &mut Strip<'_, u8>,
        lse: &mut Option<Strip<'_, u8>>,
    ) = finish_body;
}

#[inline(always)]
fn finish_body<L: Lanes>(
    l: L,
    states: &States<'_>,
    part: &HeadRows<'_>,
    out: &mut Strip<'_, u8>,
    lse: &mut Option<Strip<'_, u8>>,
) {
    let call = part.call;
    let (group, dims) = (call.group, call.p.kv.head_dim as usize);
    for row in 0..part.rows {
        let mut to = FloatsMut::new(call.types.out, out.row(row));
        for h in 0..group {
            let sink = call.sinks.map_or(f32::NEG_INFINITY, |sinks| sinks[part.first_head + h]);
            let mut to = to.part(h * dims..(h + 1) * dims);
            let logarithm = states.finish(l, row * group + h, sink, &mut to, dims);
            if let Some(lse) = lse {
                cast_mut::<f32>(lse.row(row))[h] = logarithm;
            }
        }
    }
}
