//! The walk down one tree, and its passes over the vocabulary.

use super::cpu::Step;
use crate::params::{
    NOISE_ACCEPT, NOISE_RESIDUAL, NONE, STATUS_MASKED, STATUS_NOT_FINITE, STATUS_OK, VERIFY_GREEDY,
    VERIFY_REJECTION,
};
use crate::simd::{LANES, Lanes, load_at, store_at};
use crate::vocabulary::noise::{Source, UNIT, gumbel, uniform};
use crate::vocabulary::{BLOCK, SUMS, folded, lane};
use core::ops::Range;

/// Some sequences of a call.
pub(super) struct Tile<'a> {
    pub step: Step<'a>,
    pub sequences: Range<usize>,
    /// The last accepted node of each, as a number in its tree.
    pub last: &'a mut [u32],
    /// The token after it.
    pub next: &'a mut [u32],
    /// Why there is none.
    pub status: &'a mut [u32],
    /// `[vocab]` with `REJECTION`: what a node's children leave of its row.
    pub weights: &'a mut [f32],
}

crate::levels! {
    pub(super) fn sequences_at(tile: Tile<'_>) = sequences_body;
}

/// Where a node leads.
enum Way {
    /// To a child.
    Accept(usize),
    /// To a token that is no child's.
    Next(u32),
    /// To none: the status.
    Nowhere(u32),
}

#[inline(always)]
fn sequences_body<L: Lanes>(l: L, tile: Tile<'_>) {
    for (at, sequence) in tile.sequences.clone().enumerate() {
        let (mut node, mut depth) = (0, 0);
        let (next, status) = loop {
            let way = match tile.step.p.mode {
                VERIFY_REJECTION => rejection(l, &tile.step, sequence, (node, depth), tile.weights),
                _ => certain(l, &tile.step, sequence, node),
            };
            match way {
                Way::Accept(child) => (node, depth) = (child, depth + 1),
                Way::Next(token) => break (token, STATUS_OK),
                Way::Nowhere(status) => break (NONE, status),
            }
        };
        tile.last[at] = node as u32;
        tile.next[at] = next;
        tile.status[at] = status;
    }
}

/// A node's row of a matrix.
#[inline(always)]
fn row(all: &[f32], stride: u64, node: usize, vocab: u32) -> &[f32] {
    let start = node * stride as usize;
    &all[start..start + vocab as usize]
}

/// The way with one certain token at each node: the most likely, or the one sampled.
#[inline(always)]
fn certain<L: Lanes>(l: L, step: &Step<'_>, sequence: usize, node: usize) -> Way {
    let nodes = step.nodes(sequence);
    let at = nodes.start + node;
    let token = if step.p.mode == VERIFY_GREEDY {
        match most_likely(l, row(step.target, step.p.target_row_stride, at, step.p.vocab)) {
            Ok(token) => token,
            Err(status) => return Way::Nowhere(status),
        }
    } else if step.sampled[at] == NONE {
        return Way::Nowhere(STATUS_MASKED);
    } else {
        step.sampled[at]
    };
    let mut child = node + 1;
    while child < nodes.len() {
        if step.parent(nodes.start, child) == node && step.tokens[nodes.start + child] == token {
            return Way::Accept(child);
        }
        child += 1;
    }
    Way::Next(token)
}

/// The way by rejection sampling, from a node at a depth.
#[inline(always)]
fn rejection<L: Lanes>(
    l: L,
    step: &Step<'_>,
    sequence: usize,
    (node, depth): (usize, u32),
    weights: &mut [f32],
) -> Way {
    let (p, nodes) = (step.p, step.nodes(sequence));
    let at = nodes.start + node;
    let request = step.requests[sequence];
    let source = |purpose| Source {
        seed: request.seed,
        position: request.position + depth + 1,
        fork: request.fork,
        purpose,
    };
    let target = row(step.target, p.target_row_stride, at, p.vocab);
    let draft = step.draft.map(|draft| row(draft, p.draft_row_stride, at, p.vocab));
    let mut mass = match sum(l, target) {
        Ok(mass) => mass,
        Err(status) => return Way::Nowhere(status),
    };
    let mut draft_mass = None;
    let mut left = false;
    let mut child = node + 1;
    while child < nodes.len() {
        if step.parent(nodes.start, child) != node {
            child += 1;
            continue;
        }
        let token = step.tokens[nodes.start + child];
        let weight = if left { weights[token as usize] } else { target[token as usize] };
        let drafted = match (draft, draft_mass) {
            (None, _) => 1.0,
            (Some(draft), Some(mass)) => draft[token as usize] / mass,
            (Some(draft), None) => match sum(l, draft) {
                Ok(mass) => {
                    draft_mass = Some(mass);
                    draft[token as usize] / mass
                }
                Err(status) => return Way::Nowhere(status),
            },
        };
        let word = source(NOISE_ACCEPT).word(token);
        if lane(l, uniform(l, l.isplat(word as i32))) * drafted < weight / mass {
            return Way::Accept(child);
        }
        if !left {
            weights.copy_from_slice(target);
        }
        mass = match (draft, draft_mass) {
            (Some(draft), Some(draft_mass)) => residual(l, weights, mass, draft, draft_mass),
            _ => {
                weights[token as usize] = 0.0;
                sum(l, weights).unwrap_or(0.0)
            }
        };
        left = mass > 0.0;
        if !left {
            break;
        }
        child += 1;
    }
    draw(l, if left { weights } else { target }, source(NOISE_RESIDUAL))
}

/// The token with the largest logit, or why there is none.
#[inline(always)]
fn most_likely<L: Lanes>(l: L, logits: &[f32]) -> Result<u32, u32> {
    let mut best = Best::new(l);
    let mut fine = u16::MAX;
    let mut at = 0;
    while at < logits.len() {
        let v = load_at(l, logits, at, f32::NEG_INFINITY);
        fine &= l.mask_bits(l.gt(l.splat(f32::INFINITY), v));
        best.take(l, v, at);
        at += LANES;
    }
    if fine != u16::MAX {
        return Err(STATUS_NOT_FINITE);
    }
    best.token(l).ok_or(STATUS_MASKED)
}

/// The largest score so far in each lane, and where it was.
struct Best<L: Lanes> {
    score: L::F,
    token: L::I,
}

impl<L: Lanes> Best<L> {
    #[inline(always)]
    fn new(l: L) -> Self {
        Self { score: l.splat(f32::NEG_INFINITY), token: l.isplat(NONE as i32) }
    }

    /// Sixteen scores, of the tokens from `at`.
    #[inline(always)]
    fn take(&mut self, l: L, score: L::F, at: usize) {
        const STEPS: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let larger = l.gt(score, self.score);
        self.score = l.select(larger, score, self.score);
        let tokens = l.iadd(l.isplat(at as i32), l.iload(&STEPS));
        self.token = l.iselect(larger, tokens, self.token);
    }

    /// The token of the largest score, the lowest of equals; none above −∞.
    #[inline(always)]
    fn token(self, l: L) -> Option<u32> {
        let (mut scores, mut tokens) = ([0.0; LANES], [0; LANES]);
        l.store(self.score, &mut scores);
        l.istore(self.token, &mut tokens);
        let (mut score, mut token) = (f32::NEG_INFINITY, NONE);
        for (&other, other_token) in scores.iter().zip(tokens.map(|token| token as u32)) {
            if other > score || (other == score && other_token < token) {
                (score, token) = (other, other_token);
            }
        }
        (token != NONE).then_some(token)
    }
}

/// The sum of a row of weights, or why it is no distribution.
#[inline(always)]
fn sum<L: Lanes>(l: L, weights: &[f32]) -> Result<f32, u32> {
    let mut total = 0.0;
    let mut fine = u16::MAX;
    for block in weights.chunks(BLOCK) {
        let mut sums = [l.splat(0.0); SUMS];
        let mut at = 0;
        while at < block.len() {
            let mut j = 0;
            while j < SUMS && at < block.len() {
                let v = load_at(l, block, at, 0.0);
                fine &= l.mask_bits(l.ge(v, l.splat(0.0)));
                sums[j] = l.add(sums[j], v);
                at += LANES;
                j += 1;
            }
        }
        total += folded(l, sums);
    }
    if fine != u16::MAX || total == f32::INFINITY {
        return Err(STATUS_NOT_FINITE);
    }
    if total > 0.0 { Ok(total) } else { Err(STATUS_MASKED) }
}

/// `weights = max(weights / mass − draft / draft_mass, 0)`; their sum.
#[inline(always)]
fn residual<L: Lanes>(l: L, weights: &mut [f32], mass: f32, draft: &[f32], draft_mass: f32) -> f32 {
    let mut total = 0.0;
    for (weights, draft) in weights.chunks_mut(BLOCK).zip(draft.chunks(BLOCK)) {
        let mut sums = [l.splat(0.0); SUMS];
        let mut at = 0;
        while at < weights.len() {
            let mut j = 0;
            while j < SUMS && at < weights.len() {
                let a = l.div(load_at(l, weights, at, 0.0), l.splat(mass));
                let b = l.div(load_at(l, draft, at, 0.0), l.splat(draft_mass));
                let v = l.max(l.sub(a, b), l.splat(0.0));
                store_at(l, v, weights, at);
                sums[j] = l.add(sums[j], v);
                at += LANES;
                j += 1;
            }
        }
        total += folded(l, sums);
    }
    total
}

/// A token in proportion to its weight.
#[inline(always)]
fn draw<L: Lanes>(l: L, weights: &[f32], source: Source) -> Way {
    let zero = l.splat(0.0);
    let mut best = Best::new(l);
    let mut at = 0;
    while at < weights.len() {
        let unit = &weights[at..weights.len().min(at + UNIT)];
        let mut some = 0;
        let mut j = 0;
        while j * LANES < unit.len() {
            some |= l.mask_bits(l.gt(load_at(l, unit, j * LANES, 0.0), zero));
            j += 1;
        }
        if some != 0 {
            let words = source.words(l, at as u32);
            let mut j = 0;
            while j * LANES < unit.len() {
                let w = load_at(l, unit, j * LANES, 0.0);
                let score = l.add(crate::math::log(l, w), gumbel(l, uniform(l, words[j])));
                let score = l.select(l.gt(w, zero), score, l.splat(f32::NEG_INFINITY));
                best.take(l, score, at + j * LANES);
                j += 1;
            }
        }
        at += UNIT;
    }
    best.token(l).map_or(Way::Nowhere(STATUS_MASKED), Way::Next)
}
