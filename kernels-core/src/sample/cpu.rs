//! `sample` on the CPU: as many rows as workers and each has rows of its own; with
//! fewer, the blocks of a row are split between them.

use super::bins::{self, BINS, Weigh};
use super::filters::Filters;
use super::mask::{self, Masked};
use super::passes::{self, Draw, GROUP, Gather, Survey, Tally, Tempered, Wanted};
use super::select::{self, Candidate, Cut};
use super::top::Top;
use super::{Sample, step};
use crate::command::{Host, cast, cast_mut};
use crate::error::Error;
use crate::math::log_slice;
use crate::params::{self, SampleRow};
use crate::simd::Level;
use crate::vocabulary::masks::Masks;
use crate::vocabulary::noise::Source;
use crate::vocabulary::{BLOCK, Exponentials};
use crate::workers::{Inline, Pieces, Workers, even, split};

/// Logits worth a thread of their own: below this a second one costs more than it brings.
const TILE_ELEMENTS: usize = 16_384;

/// Words of workspace for a row in hand, a whole number of cache lines.
pub(super) fn desk_words(p: &params::Sample) -> usize {
    let vocab = p.vocab as usize;
    let tallies = vocab.div_ceil(BLOCK) * size_of::<Tally>() / 4;
    let candidates = vocab * size_of::<Candidate>() / 4;
    let bins = parts_most(vocab) * 2 * BINS;
    let allowed = if p.masks > 0 { vocab } else { 0 };
    (vocab.div_ceil(GROUP) + tallies + candidates + bins + allowed).next_multiple_of(16)
}

/// How many workers have part in a row at most.
fn parts_most(vocab: usize) -> usize {
    (vocab / TILE_ELEMENTS).max(1)
}

/// Runs the command.
pub fn run(
    level: Level,
    workers: &dyn Workers,
    command: Sample<Host<'_>>,
    workspace: &mut [u8],
) -> Result<(), Error> {
    let checks = Sample::<Host>::CHECKS;
    let needs = command.needs(workers.count())?;
    checks.words("workspace", Some(needs.workspace_bytes / 4), &workspace)?;
    let settings = step::settings(&command)?;
    let masks = Masks::new(command.masks, command.params.mask_words);
    let chosen: &[[u32; 2]] = command.row_masks.map_or(&[], cast);
    let p = command.params;
    let (rows, vocab, top_n) = (settings.len(), p.vocab as usize, p.top_n as usize);
    let count = workers.count().max(1);
    let tiles = if rows >= count as usize { count } else { 1 };
    let (outer, inner): (&dyn Workers, &dyn Workers) =
        if tiles > 1 { (workers, &Inline) } else { (&Inline, workers) };
    let words = desk_words(&p);
    let desks: &mut [u32] = &mut cast_mut(workspace)[..tiles as usize * words];
    let each = |bytes, unit| Pieces::new(cast_mut::<u32>(bytes), rows, unit, tiles);
    let float = |bytes, unit| Pieces::new(cast_mut::<f32>(bytes), rows, unit, tiles);
    let tokens = (
        each(command.token, 1),
        each(command.status, 1),
        Pieces::new(desks, tiles as usize, words, tiles),
    );
    let logprobs = (
        command.raw_logprob.map(|bytes| float(bytes, 1)),
        command.processed_logprob.map(|bytes| float(bytes, 1)),
        command.kept_count.map(|bytes| each(bytes, 1)),
    );
    let lists = (
        command.top_token.map(|bytes| each(bytes, top_n)),
        command.top_logprob.map(|bytes| float(bytes, top_n)),
        command.kept.map(|bytes| each(bytes, p.kept_words as usize)),
    );
    let logits = Matrix { all: cast(command.logits), stride: p.row_stride as usize, vocab };
    let raw_stride = p.raw_row_stride as usize;
    let raw = command.raw_logits.map(|raw| Matrix { all: cast(raw), stride: raw_stride, vocab });
    split(
        outer,
        tiles,
        (tokens, logprobs, lists),
        |tile, ((token, status, desk), logprobs, lists)| {
            let (mut raw_logprob, mut processed, mut kept_count) = logprobs;
            let (mut top_token, mut top_logprob, mut kept) = lists;
            for (i, row) in even(rows, tiles, tile).enumerate() {
                let mut one = Row {
                    level,
                    workers: inner,
                    asked: &settings[row],
                    logits: logits.row(row),
                    raw: raw.map(|raw| raw.row(row)),
                    processed: processed.is_some(),
                };
                let (desk, room) = Desk::new(desk, vocab);
                let masks = chosen.get(row).and_then(|&both| masks.both(both, &(0..vocab)));
                if let Some(masks) = masks {
                    one.logits = one.masked(masks, &mut room[..vocab]);
                }
                let top = part(&mut top_token, i, top_n, top_n);
                let top = Top { token: top, logprob: part(&mut top_logprob, i, top_n, top_n) };
                let bits = part(&mut kept, i, p.kept_words as usize, vocab.div_ceil(32));
                let bits = (!bits.is_empty()).then_some(bits);
                let drawn = one.sample(desk, top, bits);
                (token[i], status[i]) = (drawn.token, drawn.status);
                raw_logprob.iter_mut().for_each(|to| to[i] = drawn.raw);
                processed.iter_mut().for_each(|to| to[i] = drawn.processed);
                kept_count.iter_mut().for_each(|to| to[i] = drawn.kept);
            }
        },
    );
    Ok(())
}

/// Rows of logits.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    all: &'a [f32],
    stride: usize,
    vocab: usize,
}

impl<'a> Matrix<'a> {
    fn row(self, row: usize) -> &'a [f32] {
        &self.all[row * self.stride..][..self.vocab]
    }
}

/// A row's `len` elements of an output; none without the output.
fn part<'a, T>(
    out: &'a mut Option<&mut [T]>,
    row: usize,
    stride: usize,
    len: usize,
) -> &'a mut [T] {
    out.as_mut().map_or(&mut [], |out| &mut out[row * stride..][..len])
}

/// The workspace of a row in hand.
struct Desk<'a> {
    /// The largest logit of each group.
    groups: &'a mut [f32],
    tallies: &'a mut [Tally],
    candidates: &'a mut [Candidate],
    /// `[parts][BINS]`: the words of masses.
    bins: &'a mut [[u32; 2]],
}

impl<'a> Desk<'a> {
    /// The workspace, and what is left for logits that masks hide.
    fn new(words: &'a mut [u32], vocab: usize) -> (Self, &'a mut [f32]) {
        let (groups, rest) = words.split_at_mut(vocab.div_ceil(GROUP));
        let tallies = vocab.div_ceil(BLOCK) * size_of::<Tally>() / 4;
        let (tallies, rest) = rest.split_at_mut(tallies);
        let (candidates, rest) = rest.split_at_mut(vocab * size_of::<Candidate>() / 4);
        let (bins, rest) = rest.split_at_mut(parts_most(vocab) * 2 * BINS);
        let desk = Self {
            groups: bytemuck::cast_slice_mut(groups),
            tallies: bytemuck::cast_slice_mut(tallies),
            candidates: bytemuck::cast_slice_mut(candidates),
            bins: bytemuck::cast_slice_mut(bins),
        };
        (desk, bytemuck::cast_slice_mut(rest))
    }
}

/// What a row came to.
struct Drawn {
    status: u32,
    token: u32,
    raw: f32,
    processed: f32,
    kept: u32,
}

/// One row of a call.
struct Row<'a> {
    level: Level,
    workers: &'a dyn Workers,
    asked: &'a SampleRow,
    logits: &'a [f32],
    raw: Option<&'a [f32]>,
    /// Whether the processed log-probability is asked for.
    processed: bool,
}

impl Row<'_> {
    fn sample(&self, mut desk: Desk<'_>, mut top: Top<'_>, mut kept: Option<&mut [u32]>) -> Drawn {
        let raw_logits = self.raw.unwrap_or(self.logits);
        let raw = self.survey(raw_logits, &mut desk);
        top.clear();
        if raw.status() == params::STATUS_OK {
            top.fill(self.level, raw_logits, desk.groups, raw);
        }
        let own = if self.raw.is_some() { self.survey(self.logits, &mut desk) } else { raw };
        let status = raw.status().max(own.status());
        if status != params::STATUS_OK {
            top.clear();
            kept.iter_mut().for_each(|kept| kept.fill(0));
            let (token, none) = (params::NONE, f32::NAN);
            return Drawn { status, token, raw: none, processed: none, kept: 0 };
        }
        let (token, processed, kept) = if self.asked.temperature == 0.0 {
            let token = first_of(self.logits, desk.groups, own.most);
            if let Some(kept) = kept {
                kept.fill(0);
                kept[token as usize / 32] = 1 << (token % 32);
            }
            (token, 0.0, 1)
        } else {
            self.draw(own, &mut desk, kept)
        };
        let raw = passes::logprob(self.level, raw, raw_logits[token as usize]);
        Drawn { status, token, raw, processed, kept }
    }

    /// The row with −∞ where its masks allow no token.
    fn masked<'b>(&self, masks: [&[u32]; 2], to: &'b mut [f32]) -> &'b [f32] {
        let (blocks, parts) = (to.len().div_ceil(BLOCK), self.parts());
        split(self.workers, parts, Pieces::new(&mut *to, blocks, BLOCK, parts), |part, to| {
            let (row, first) = self.part(self.logits, part);
            let masks = masks.map(|mask| &mask[first / 32..]);
            mask::copy(self.level, Masked { row, masks, to });
        });
        to
    }

    /// How many workers have part in a row.
    fn parts(&self) -> u32 {
        let most = parts_most(self.logits.len());
        most.min(self.workers.count().max(1) as usize) as u32
    }

    /// The logits of one part, and the token of the first.
    fn part<'b>(&self, row: &'b [f32], part: u32) -> (&'b [f32], usize) {
        let blocks = even(row.len().div_ceil(BLOCK), self.parts(), part);
        let first = blocks.start * BLOCK;
        (&row[first..(blocks.end * BLOCK).min(row.len())], first)
    }

    /// The first pass.
    fn survey(&self, row: &[f32], desk: &mut Desk<'_>) -> Exponentials {
        let (blocks, parts) = (desk.tallies.len(), self.parts());
        let groups = Pieces::new(&mut *desk.groups, blocks, BLOCK / GROUP, parts);
        let tallies = Pieces::new(&mut *desk.tallies, blocks, 1, parts);
        split(self.workers, parts, (groups, tallies), |part, (groups, tallies)| {
            let row = self.part(row, part).0;
            passes::survey(self.level, Survey { row, groups, tallies });
        });
        passes::total(self.level, desk.tallies)
    }

    /// The token, its processed log-probability, and how many were kept.
    fn draw(
        &self,
        own: Exponentials,
        desk: &mut Desk<'_>,
        kept: Option<&mut [u32]>,
    ) -> (u32, f32, u32) {
        let factor = (1.0 / self.asked.temperature).min(f32::MAX);
        let tempered = Tempered { most: own.most, factor };
        let filters = Filters::new(self.level, self.asked, self.logits.len());
        let cut = match &filters {
            None => Cut::NONE,
            Some(filters) => self.cut(filters, tempered, desk),
        };
        let plain = filters.is_none() && factor == 1.0;
        let (blocks, parts) = (desk.tallies.len(), self.parts());
        let groups = &*desk.groups;
        let tallies = Pieces::new(&mut *desk.tallies, blocks, 1, parts);
        let kept = kept.map(|kept| Pieces::new(kept, blocks, BLOCK / 32, parts));
        let SampleRow { seed, position, fork, .. } = *self.asked;
        let source = Source { seed, position, fork, purpose: params::NOISE_SAMPLE };
        let processed = self.processed && !plain;
        split(self.workers, parts, (tallies, kept), |part, (tallies, kept)| {
            let (row, first) = self.part(self.logits, part);
            let groups = &groups[first / GROUP..];
            let draw = Draw { row, groups, first, tempered, cut, source, processed, tallies, kept };
            passes::draw(self.level, draw);
        });
        let (mut best, mut token, mut sum, mut count) = (f32::NEG_INFINITY, params::NONE, 0.0, 0);
        for tally in &*desk.tallies {
            // Of equals the first stays: blocks ascend.
            if tally.score > best {
                (best, token) = (tally.score, tally.token);
            }
            sum += tally.processed;
            count += tally.count;
        }
        let x = self.logits[token as usize];
        let mut log_sum = [sum];
        log_slice(self.level, &mut log_sum);
        let logprob = match plain {
            true => passes::logprob(self.level, own, x),
            // A zero is +0: of which sign the largest is, forms find in their own ways.
            false => tempered.of(x) - log_sum[0] + 0.0,
        };
        (token, logprob, count)
    }

    /// Where the filters end the ranking.
    fn cut(&self, filters: &Filters, tempered: Tempered, desk: &mut Desk<'_>) -> Cut {
        if let (None, Some(share)) = (filters.top_k, filters.share) {
            let least = filters.min_z.unwrap_or(f32::NEG_INFINITY);
            match self.head(share, least, tempered, desk) {
                Some(cut) if tempered.of(cut.logit) >= least => return cut,
                // All that min-p keeps is within that head.
                _ => {}
            }
        }
        let share = filters.share.filter(|_| filters.top_k.is_some());
        let least = filters.least(tempered, desk.groups);
        let mut kept = self.gather(Wanted::Least(least), least, tempered, desk);
        if let Some(top_k) = filters.top_k {
            kept = select::keep_count(kept, top_k);
        }
        if let Some(share) = share {
            let total: u64 = kept.iter().map(|one| u64::from(one.mass)).sum();
            let target = (u128::from(total) * u128::from(share)).div_ceil(1 << 32);
            kept = select::keep_mass(kept, target as u64);
        }
        // Where min-p keeps less, it keeps all above its own bound.
        let kept = match filters.min_z {
            None => kept,
            Some(least) => select::keep_if(kept, |logit| tempered.of(logit) >= least),
        };
        select::cut(kept)
    }

    /// Where the shortest head with a share of all mass ends, if not below `least`.
    fn head(&self, share: u64, least: f32, tempered: Tempered, desk: &mut Desk<'_>) -> Option<Cut> {
        let (parts, groups) = (self.parts(), &*desk.groups);
        let used = &mut desk.bins[..parts as usize * BINS];
        let bins = Pieces::new(&mut *used, parts as usize, BINS, parts);
        split(self.workers, parts, bins, |part, bins| {
            let (row, first) = self.part(self.logits, part);
            let groups = &groups[first / GROUP..];
            bins::weigh(self.level, Weigh { row, groups, tempered, least, bins });
        });
        let end = bins::end(used, share);
        if end.bin == bins::LAST {
            return None;
        }
        let visit = bins::below(end.bin);
        let candidates = self.gather(Wanted::Bin(end.bin as i32), visit, tempered, desk);
        Some(select::cut(select::keep_mass(candidates, end.target)))
    }

    /// The candidates of a row, in the order of tokens.
    fn gather<'b>(
        &self,
        wanted: Wanted,
        visit: f32,
        tempered: Tempered,
        desk: &'b mut Desk<'_>,
    ) -> &'b mut [Candidate] {
        let (blocks, parts) = (desk.tallies.len(), self.parts());
        let groups = &*desk.groups;
        let tallies = Pieces::new(&mut *desk.tallies, blocks, 1, parts);
        let candidates = Pieces::new(&mut *desk.candidates, blocks, BLOCK, parts);
        split(self.workers, parts, (tallies, candidates), |part, (tallies, candidates)| {
            let (row, first) = self.part(self.logits, part);
            let groups = &groups[first / GROUP..];
            let gather =
                Gather { row, groups, first, tempered, wanted, visit, candidates, tallies };
            passes::gather(self.level, gather);
        });
        let mut count = 0;
        for (i, tally) in desk.tallies.iter().enumerate() {
            let own = i * BLOCK..i * BLOCK + tally.count as usize;
            desk.candidates.copy_within(own, count);
            count += tally.count as usize;
        }
        &mut desk.candidates[..count]
    }
}

/// The first token that has the largest logit.
fn first_of(row: &[f32], groups: &[f32], most: f32) -> u32 {
    let group = groups.iter().position(|group| *group == most).expect("a group has the largest");
    let start = group * GROUP;
    let within = row[start..].iter().position(|x| *x == most).expect("the group has it");
    (start + within) as u32
}
