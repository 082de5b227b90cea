//! Where a ranking ends, without sorting it: the cut is found by bins that narrow
//! down on it.

use core::ops::RangeInclusive;

/// A token that a filter may keep.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Candidate {
    /// Its logit.
    pub(super) logit: f32,
    /// Which token.
    pub(super) token: u32,
    /// Its mass, where a filter asks for it.
    pub(super) mass: u32,
}

/// The end of a ranking: tokens above `logit` are kept, and of its equals those up to
/// `token`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) logit: f32,
    pub(super) token: u32,
}

impl Cut {
    /// Keeps every token that is not −∞.
    pub(super) const NONE: Self = Self { logit: f32::MIN, token: u32::MAX };
}

/// A number that is larger where the logit is; the zeros are equal.
fn key(logit: f32) -> u32 {
    let bits = (logit + 0.0).to_bits();
    if bits >> 31 != 0 { !bits } else { bits | 1 << 31 }
}

/// Bins of a scan over the keys that are still in question.
const BINS: usize = 1024;
/// So few keys in question are set aside, so that later scans are short.
const ASIDE: usize = 512;

/// The key at which weights, summed over the largest keys first, come to `limit`, and
/// their sum above it; `None` if all of them do not.
///
/// Each scan spreads the keys from `least` to `most` over the bins and goes on with the
/// one in which the sum crosses: fixed digits would put nearly all into few bins.
fn crossing(weights: impl Iterator<Item = (u32, u64)> + Clone, limit: u64) -> Option<(u32, u64)> {
    let (mut least, mut most, mut total) = (u32::MAX, 0, 0);
    for (key, weight) in weights.clone() {
        (least, most) = (least.min(key), most.max(key));
        total += weight;
    }
    if total < limit {
        return None;
    }
    let mut above = 0u64;
    while least < most {
        let shift = (u32::BITS - (most - least).leading_zeros()).saturating_sub(BINS.ilog2());
        let mut bins = [0u64; BINS];
        for (key, weight) in weights.clone() {
            // One comparison, rarely true or rarely false, is guessed well.
            let within = key.wrapping_sub(least);
            if within <= most - least {
                bins[(within >> shift) as usize] += weight;
            }
        }
        let bin = (0..BINS).rev().find(|&bin| {
            above += bins[bin];
            above >= limit
        });
        let bin = bin.expect("all of them come to the limit");
        above -= bins[bin];
        let start = least + ((bin as u32) << shift);
        (least, most) = (start, most.min(start + ((1u32 << shift) - 1)));
        let mut aside = [(0, 0); ASIDE];
        if least < most
            && let Some(aside) = set_aside(weights.clone(), least..=most, &mut aside)
        {
            let (key, more) = crossing(aside.iter().copied(), limit - above)?;
            return Some((key, above + more));
        }
    }
    Some((least, above))
}

/// The weights whose keys lie in a range, if there is room for them.
fn set_aside(
    weights: impl Iterator<Item = (u32, u64)>,
    range: RangeInclusive<u32>,
    aside: &mut [(u32, u64)],
) -> Option<&[(u32, u64)]> {
    let mut count = 0;
    for weight in weights {
        if weight.0.wrapping_sub(*range.start()) <= range.end() - range.start() {
            *aside.get_mut(count)? = weight;
            count += 1;
        }
    }
    Some(&aside[..count])
}

/// The `n`th largest of some logits; `None` if there are fewer.
pub(super) fn nth_largest(logits: &[f32], n: u64) -> Option<f32> {
    let (found, _) = crossing(logits.iter().map(|&logit| (key(logit), 1)), n)?;
    Some(logit_of(found))
}

/// Keeps the `count` first of the ranking; candidates stay in the order of tokens.
pub(super) fn keep_count(all: &mut [Candidate], count: u64) -> &mut [Candidate] {
    match crossing(all.iter().map(|one| (key(one.logit), 1)), count) {
        None => all,
        Some((found, above)) => retain(all, logit_of(found), count - above),
    }
}

/// Keeps the shortest head of the ranking whose masses sum to `target` or more.
pub(super) fn keep_mass(all: &mut [Candidate], target: u64) -> &mut [Candidate] {
    let target = target.max(1);
    let crossed = crossing(all.iter().map(|one| (key(one.logit), u64::from(one.mass))), target);
    let Some((found, above)) = crossed else { return all };
    let logit = logit_of(found);
    // Equal logits have equal masses, and some: the sum crosses the target among them.
    let mass = all.iter().find(|one| one.logit == logit).map_or(1, |one| u64::from(one.mass));
    retain(all, logit, (target - above).div_ceil(mass.max(1)))
}

/// Keeps the candidates whose logit a filter takes.
pub(super) fn keep_if(
    all: &mut [Candidate],
    mut takes: impl FnMut(f32) -> bool,
) -> &mut [Candidate] {
    let mut kept = 0;
    for i in 0..all.len() {
        // Written before it is known to stay: what a branch would guess is not to be guessed.
        let one = all[i];
        all[kept] = one;
        kept += usize::from(takes(one.logit));
    }
    &mut all[..kept]
}

fn logit_of(key: u32) -> f32 {
    f32::from_bits(if key >> 31 != 0 { key & (u32::MAX >> 1) } else { !key })
}

/// Keeps the candidates above a logit and the first `ties` of its equals.
fn retain(all: &mut [Candidate], logit: f32, mut ties: u64) -> &mut [Candidate] {
    keep_if(all, |own| {
        let equal = own == logit;
        let keep = own > logit || equal && ties > 0;
        ties -= u64::from(equal && keep);
        keep
    })
}

/// The end of what was kept: its least logit, and the last token that has it.
pub(super) fn cut(kept: &[Candidate]) -> Cut {
    let mut cut = Cut { logit: f32::INFINITY, token: 0 };
    for one in kept {
        if one.logit <= cut.logit {
            cut = Cut { logit: one.logit, token: one.token };
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::{Candidate, cut, keep_count, keep_mass, nth_largest};

    fn candidates() -> [Candidate; 6] {
        let logits = [0.5, -1.0, 2.0, -0.0, 0.0, 2.0];
        core::array::from_fn(|i| Candidate { logit: logits[i], token: i as u32, mass: 10 })
    }

    #[test]
    fn counts_end_at_the_lowest_of_equals() {
        let mut all = candidates();
        let kept = keep_count(&mut all, 4);
        let tokens: [u32; 4] = core::array::from_fn(|i| kept[i].token);
        assert_eq!(tokens, [0, 2, 3, 5]);
        assert_eq!((cut(kept).logit, cut(kept).token), (0.0, 3));
        assert_eq!(keep_count(&mut candidates(), 7).len(), 6);
    }

    #[test]
    fn masses_end_where_they_reach_the_target() {
        for (target, expected) in [(1, 1), (10, 1), (11, 2), (41, 5), (60, 6), (61, 6)] {
            assert_eq!(keep_mass(&mut candidates(), target).len(), expected, "{target}");
        }
    }

    #[test]
    fn the_nth_largest_counts_equals() {
        let logits = candidates().map(|one| one.logit);
        assert_eq!(nth_largest(&logits, 2), Some(2.0));
        assert_eq!(nth_largest(&logits, 6), Some(-1.0));
        assert_eq!(nth_largest(&logits, 7), None);
    }
}
