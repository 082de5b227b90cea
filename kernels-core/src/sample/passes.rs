//! The three passes over a row, each over some of its blocks: what its groups hold,
//! which tokens a filter may keep, and which token has the largest score.

use super::bins;
use super::select::{Candidate, Cut};
use crate::math::{exp, exp_one};
use crate::simd::{LANES, Lanes, load_at};
use crate::vocabulary::noise::{GUMBEL_MOST, Source, UNIT, gumbel, uniform};
use crate::vocabulary::{BLOCK, Exponentials, SUMS, block, folded, largest};

/// Logits that are passed over together where their largest cannot matter.
pub(super) const GROUP: usize = 128;
/// The mass of the most likely token, a power of two.
pub(super) const MASS_ONE: f32 = 536_870_912.0;
/// Below this z, a mass rounds to zero: exp(−21) · 2²⁹ is 0.41.
pub(super) const MASS_LEAST: f32 = -21.0;

/// What the passes find in one block.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Tally {
    /// Of the logits as they are.
    pub(super) exponentials: Exponentials,
    /// Candidates gathered; then tokens kept.
    pub(super) count: u32,
    /// The sum of exp(z) over the tokens kept.
    pub(super) processed: f32,
    /// The largest score so far in this part of the row.
    pub(super) score: f32,
    /// Which token has it.
    pub(super) token: u32,
}

/// Logits as the filters see them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tempered {
    pub(super) most: f32,
    pub(super) factor: f32,
}

impl Tempered {
    pub(super) fn of(self, x: f32) -> f32 {
        (x - self.most) * self.factor
    }

    #[inline(always)]
    pub(super) fn lanes<L: Lanes>(self, l: L, x: L::F) -> L::F {
        l.mul(l.sub(x, l.splat(self.most)), l.splat(self.factor))
    }
}

/// The first pass: the largest of each group, the exponentials of each block.
pub(super) struct Survey<'a> {
    pub(super) row: &'a [f32],
    pub(super) groups: &'a mut [f32],
    pub(super) tallies: &'a mut [Tally],
}

crate::levels! {
    pub(super) fn survey(survey: Survey<'_>) = survey_body;
}

#[inline(always)]
fn survey_body<L: Lanes>(l: L, survey: Survey<'_>) {
    let groups = survey.groups.chunks_mut(BLOCK / GROUP);
    for ((x, groups), tally) in survey.row.chunks(BLOCK).zip(groups).zip(survey.tallies) {
        let mut most = f32::NEG_INFINITY;
        for (x, group) in x.chunks(GROUP).zip(groups) {
            *group = largest(l, x);
            most = if *group > most { *group } else { most };
        }
        *tally = bytemuck::Zeroable::zeroed();
        tally.exponentials = block(l, x, most);
    }
}

/// Which tokens are candidates.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    /// Those with a z of at least so much.
    Least(f32),
    /// Those of one [bin](super::bins).
    Bin(i32),
}

/// The second pass: the tokens that a filter may keep, and their masses.
pub(super) struct Gather<'a> {
    pub(super) row: &'a [f32],
    pub(super) groups: &'a [f32],
    /// The token of the row's first logit.
    pub(super) first: usize,
    pub(super) tempered: Tempered,
    pub(super) wanted: Wanted,
    /// Groups whose largest z is below are passed over.
    pub(super) visit: f32,
    /// A block's candidates start where its logits do.
    pub(super) candidates: &'a mut [Candidate],
    pub(super) tallies: &'a mut [Tally],
}

crate::levels! {
    pub(super) fn gather(gather: Gather<'_>) = gather_body;
}

#[inline(always)]
fn gather_body<L: Lanes>(l: L, gather: Gather<'_>) {
    for (i, tally) in gather.tallies.iter_mut().enumerate() {
        let end = (i * BLOCK + BLOCK).min(gather.row.len());
        let candidates = &mut gather.candidates[i * BLOCK..end];
        let mut count = 0;
        for group in (i * BLOCK..end).step_by(GROUP) {
            let most = gather.groups[group / GROUP];
            let visited = most > f32::NEG_INFINITY && gather.tempered.of(most) >= gather.visit;
            if !visited {
                continue;
            }
            let x = &gather.row[group..(group + GROUP).min(end)];
            let mut at = 0;
            while at < x.len() {
                let v = load_at(l, x, at, f32::NEG_INFINITY);
                let z = gather.tempered.lanes(l, v);
                let wanted = match gather.wanted {
                    Wanted::Least(least) => l.ge(z, l.splat(least)),
                    Wanted::Bin(bin) => l.ieq(bins::of(l, z), l.isplat(bin)),
                };
                let finite = l.mask_bits(l.gt(v, l.splat(f32::NEG_INFINITY)));
                let bits = l.mask_bits(wanted) & finite;
                if bits != 0 {
                    let masses = mass(l, z);
                    let token = gather.first + group + at;
                    count += take(l, bits, v, masses, token as u32, &mut candidates[count..]);
                }
                at += LANES;
            }
        }
        tally.count = count as u32;
    }
}

/// The mass of each z.
#[inline(always)]
pub(super) fn mass<L: Lanes>(l: L, z: L::F) -> L::I {
    l.to_int(l.mul(exp(l, z), l.splat(MASS_ONE)))
}

/// Appends the lanes whose bits are set.
#[inline(always)]
fn take<L: Lanes>(
    l: L,
    mut bits: u16,
    logits: L::F,
    masses: L::I,
    token: u32,
    to: &mut [Candidate],
) -> usize {
    let (mut logit, mut mass) = ([0.0; LANES], [0; LANES]);
    l.store(logits, &mut logit);
    l.istore(masses, &mut mass);
    let mut count = 0;
    while bits != 0 {
        let i = bits.trailing_zeros() as usize;
        to[count] = Candidate { logit: logit[i], token: token + i as u32, mass: mass[i] as u32 };
        bits &= bits - 1;
        count += 1;
    }
    count
}

/// The third pass: the score of every token kept, and the sum of exp(z).
pub(super) struct Draw<'a> {
    pub(super) row: &'a [f32],
    pub(super) groups: &'a [f32],
    /// The token of the row's first logit.
    pub(super) first: usize,
    pub(super) tempered: Tempered,
    pub(super) cut: Cut,
    pub(super) source: Source,
    /// Whether the sum of exp(z) is asked for.
    pub(super) processed: bool,
    pub(super) tallies: &'a mut [Tally],
    /// Where the bits of the tokens kept go.
    pub(super) kept: Option<&'a mut [u32]>,
}

/// The largest score so far.
#[derive(Clone, Copy)]
struct Best {
    score: f32,
    token: u32,
}

crate::levels! {
    pub(super) fn draw(draw: Draw<'_>) = draw_body;
}

#[inline(always)]
fn draw_body<L: Lanes>(l: L, mut draw: Draw<'_>) {
    if let Some(kept) = &mut draw.kept {
        kept.fill(0);
    }
    let mut best = Best { score: f32::NEG_INFINITY, token: crate::params::NONE };
    for i in 0..draw.tallies.len() {
        let end = (i * BLOCK + BLOCK).min(draw.row.len());
        let mut sums = [l.splat(0.0); SUMS];
        let mut count = 0;
        for group in (i * BLOCK..end).step_by(GROUP) {
            let most = draw.groups[group / GROUP];
            // None of them is kept: no noise, and exactly nothing in the sums.
            if most < draw.cut.logit {
                continue;
            }
            let limit = reach(l, draw.tempered.of(most), best.score);
            for unit in (group..(group + GROUP).min(end)).step_by(UNIT) {
                let x = &draw.row[unit..(unit + UNIT).min(end)];
                let bits = score(l, &draw, unit, x, limit, &mut sums, &mut best);
                count += bits.count_ones();
                let words = [bits as u32, (bits >> 32) as u32];
                if let Some(kept) = &mut draw.kept {
                    for (to, word) in kept[unit / 32..].iter_mut().zip(words) {
                        *to = word;
                    }
                }
            }
        }
        let tally = &mut draw.tallies[i];
        tally.count = count;
        tally.processed = folded(l, sums);
        (tally.score, tally.token) = (best.score, best.token);
    }
}

/// The largest v with which a token of that z, or a smaller one, can come above `best`;
/// negative if none can. A Gumbel number is −ln e with e ≥ v, so z + g > best takes
/// v < exp(z − best); the margin is far above the errors of exp and log.
#[inline(always)]
fn reach<L: Lanes>(l: L, z: f32, best: f32) -> f32 {
    if z + GUMBEL_MOST < best { -1.0 } else { exp_one(l, z - best) * 1.001 }
}

/// The scores of up to 64 tokens; the bits of those kept.
#[inline(always)]
fn score<L: Lanes>(
    l: L,
    draw: &Draw<'_>,
    unit: usize,
    x: &[f32],
    limit: f32,
    sums: &mut [L::F; SUMS],
    best: &mut Best,
) -> u64 {
    let mut all = 0u64;
    let mut bits = [0u16; SUMS];
    let mut z = [l.splat(0.0); SUMS];
    let mut j = 0;
    while j < SUMS && j * LANES < x.len() {
        let v = load_at(l, x, j * LANES, f32::NEG_INFINITY);
        bits[j] = kept_bits(l, v, draw.cut, draw.first + unit + j * LANES);
        all |= u64::from(bits[j]) << (j * LANES);
        z[j] = draw.tempered.lanes(l, v);
        if draw.processed {
            let kept = l.select(l.mask(bits[j]), exp(l, z[j]), l.splat(0.0));
            sums[j] = l.add(sums[j], kept);
        }
        j += 1;
    }
    if all == 0 || limit < 0.0 {
        return all;
    }
    let token = draw.first + unit;
    let words = draw.source.words(l, token as u32);
    let mut j = 0;
    while j < SUMS {
        let v = uniform(l, words[j]);
        let within = l.mask_bits(l.ge(l.splat(limit), v)) & bits[j];
        if within != 0 {
            let scores = l.add(z[j], gumbel(l, v));
            improve(l, scores, within, (token + j * LANES) as u32, best);
        }
        j += 1;
    }
    all
}

/// Takes the lanes that come above the best, in the order of tokens.
#[inline(always)]
fn improve<L: Lanes>(l: L, scores: L::F, within: u16, token: u32, best: &mut Best) {
    let mut bits = l.mask_bits(l.gt(scores, l.splat(best.score))) & within;
    if bits == 0 {
        return;
    }
    let mut lanes = [0.0; LANES];
    l.store(scores, &mut lanes);
    while bits != 0 {
        let i = bits.trailing_zeros();
        if lanes[i as usize] > best.score {
            *best = Best { score: lanes[i as usize], token: token + i };
        }
        bits &= bits - 1;
    }
}

/// The bits of the lanes that lie before the cut.
#[inline(always)]
fn kept_bits<L: Lanes>(l: L, v: L::F, cut: Cut, token: usize) -> u16 {
    let edge = l.splat(cut.logit);
    let above = l.mask_bits(l.gt(v, edge));
    let equal = l.mask_bits(l.eq(v, edge));
    if equal == 0 {
        return above;
    }
    let ties = (cut.token as usize + 1).saturating_sub(token);
    let first = if ties >= LANES { u16::MAX } else { (1 << ties) - 1 };
    above | equal & first
}

crate::levels! {
    /// The exponentials of a whole row.
    pub(super) fn total(tallies: &[Tally]) -> Exponentials = total_body;
}

#[inline(always)]
fn total_body<L: Lanes>(l: L, tallies: &[Tally]) -> Exponentials {
    let mut total = Exponentials::NONE;
    for tally in tallies {
        total = total.fold(l, tally.exponentials);
    }
    total
}

crate::levels! {
    /// The log-probability of a logit.
    pub(super) fn logprob(total: Exponentials, x: f32) -> f32 = logprob_body;
}

#[inline(always)]
fn logprob_body<L: Lanes>(l: L, total: Exponentials, x: f32) -> f32 {
    total.logprob(l, x)
}
