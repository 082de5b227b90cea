//! `logit_mask` on the CPU: the vocabulary is split between workers, so that each
//! keeps the counts of its own tokens; a row that only has masks is read and
//! written where they say no, and a row that asks for nothing is not touched.

use super::LogitMask;
use super::step::Step;
use crate::command::{Host, cast_mut};
use crate::error::Error;
use crate::params::{self, LogitMaskRow};
use crate::simd::{LANES, Lanes, Level, load_at, store_at};
use crate::vocabulary::masks::{Masks, hide};
use crate::workers::{Columns, Strip, Workers, split};

/// Logits a worker's part is a multiple of: whole words of masks and cache lines.
const UNIT: usize = 64;
/// Logits worth a thread of their own: below this a second one costs more than it brings.
const TILE_ELEMENTS: usize = 16_384;

/// Runs the command. It takes no workspace.
pub fn run(level: Level, workers: &dyn Workers, command: LogitMask<Host<'_>>) -> Result<(), Error> {
    command.check()?;
    let step = Step::read(&command)?;
    let p = command.params;
    let (rows, vocab) = (step.settings.len(), p.vocab as usize);
    let work = (rows as u64 * vocab as u64 / TILE_ELEMENTS as u64).max(1);
    let tiles = work.min(u64::from(workers.count().max(1))) as u32;
    let masks = Masks::new(command.masks, p.mask_words);
    let stride = p.row_stride as usize;
    let logits = Columns::new(cast_mut(command.logits), rows, stride, vocab, UNIT, tiles);
    let counts = command.counts.map(|counts| {
        let stride = p.counts_stride as usize;
        Columns::new(cast_mut(counts), p.slots as usize, stride, vocab, UNIT, tiles)
    });
    split(workers, tiles, (logits, counts), |_, (logits, counts)| {
        tile_at(level, Tile { step: &step, masks, logits, counts });
    });
    Ok(())
}

/// Some columns of every row, and the same columns of every slot of counts.
struct Tile<'a> {
    step: &'a Step<'a>,
    masks: Masks<'a>,
    logits: Strip<'a, f32>,
    counts: Option<Strip<'a, u16>>,
}

crate::levels! {
    fn tile_at(tile: Tile<'_>) = tile_body;
}

#[inline(always)]
fn tile_body<L: Lanes>(l: L, mut tile: Tile<'_>) {
    let columns = tile.logits.columns();
    for (row, asked) in tile.step.settings.iter().enumerate() {
        let mut counts = None;
        if let (Some(all), true) = (&mut tile.counts, asked.slot != params::NONE) {
            let slot = all.row(asked.slot as usize);
            count(slot, columns.start, tile.step.counted.of(row));
            counts = Some(&*slot);
        }
        let x = tile.logits.row(row);
        let biases = tile.step.bias_tokens.of(row).iter().zip(tile.step.bias_values.of(row));
        for (&token, &bias) in biases {
            if let Some(x) = x.get_mut((token as usize).wrapping_sub(columns.start)) {
                *x += bias;
            }
        }
        for &token in tile.step.banned.of(row) {
            if let Some(x) = x.get_mut((token as usize).wrapping_sub(columns.start)) {
                *x = f32::NEG_INFINITY;
            }
        }
        penalise(l, x, asked, counts);
        if let Some(both) = tile.masks.both([asked.mask, asked.action], &columns) {
            hide(l, x, both);
        }
    }
}

/// Counts the tokens of a list that lie in these columns.
fn count(slot: &mut [u16], first: usize, counted: &[u32]) {
    for &entry in counted {
        let token = (entry & params::COUNTED_TOKEN) as usize;
        let Some(count) = slot.get_mut(token.wrapping_sub(first)) else { continue };
        let generated = *count & params::COUNT_GENERATED as u16;
        let prompt = *count & params::COUNT_PROMPT as u16;
        *count = if entry & params::COUNTED_PROMPT != 0 {
            *count | params::COUNT_PROMPT as u16
        } else if entry & params::COUNTED_BACK != 0 {
            prompt | generated.saturating_sub(1)
        } else {
            prompt | (generated + 1).min(params::COUNT_GENERATED as u16)
        };
    }
}

/// Steps 4 and 5; nothing where they change nothing.
#[inline(always)]
fn penalise<L: Lanes>(l: L, x: &mut [f32], asked: &LogitMaskRow, counts: Option<&[u16]>) {
    let factor = if asked.temperature == 0.0 { 1.0 } else { 1.0 / asked.temperature };
    let factor = l.splat(if factor > f32::MAX { f32::MAX } else { factor });
    let penalised = (asked.repetition, asked.presence, asked.frequency) != (1.0, 0.0, 0.0);
    let mut at = 0;
    if let (Some(counts), true) = (counts, penalised) {
        while at < x.len() {
            let v = penalised_lanes(l, load_at(l, x, at, 0.0), words_at(l, counts, at), asked);
            store_at(l, l.mul(v, factor), x, at);
            at += LANES;
        }
    } else if asked.temperature != 0.0 && asked.temperature != 1.0 {
        while at < x.len() {
            let v = load_at(l, x, at, 0.0);
            store_at(l, l.mul(v, factor), x, at);
            at += LANES;
        }
    }
}

/// Step 4 for sixteen logits.
#[inline(always)]
fn penalised_lanes<L: Lanes>(l: L, x: L::F, counts: L::I, asked: &LogitMaskRow) -> L::F {
    let (zero, repetition) = (l.splat(0.0), l.splat(asked.repetition));
    let generated = l.iand(counts, l.isplat(params::COUNT_GENERATED as i32));
    let repeated = l.select(l.gt(x, zero), l.div(x, repetition), l.mul(x, repetition));
    let x = l.select(l.igt(counts, l.isplat(0)), repeated, x);
    let x = l.fma(l.splat(-asked.frequency), l.to_float(generated), x);
    let lower = l.sub(x, l.splat(asked.presence));
    l.select(l.igt(generated, l.isplat(0)), lower, x)
}

/// Sixteen counts from `at`; past the end, zeros.
#[inline(always)]
fn words_at<L: Lanes>(l: L, counts: &[u16], at: usize) -> L::I {
    let rest = &counts[at..];
    match rest.first_chunk::<LANES>() {
        Some(whole) => l.load_u16(whole),
        None => {
            let mut whole = [0; LANES];
            whole[..rest.len()].copy_from_slice(rest);
            l.load_u16(&whole)
        }
    }
}
