//! The truth of `sample`, one row at a time, by sorting.

use crate::math::{Real, exp_one};
use crate::params::{self, SampleRow};
use crate::simd::Scalar;
use crate::vocabulary::{self, noise::Source};
use alloc::vec::Vec;

/// What a row comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<R> {
    /// `PWK_STATUS_*`; with any but OK, nothing below counts.
    pub status: u32,
    /// The token.
    pub token: u32,
    /// How far the token's score is above the next.
    pub margin: R,
    /// The tokens kept, the most likely first.
    pub kept: Vec<u32>,
    /// The token's log-probability before temperature and filters.
    pub raw: R,
    /// The token's log-probability among those kept, tempered.
    pub processed: R,
    /// The most likely tokens and their raw log-probabilities.
    pub top: Vec<(u32, R)>,
}

/// A row with −∞ where one of its masks has a 0.
pub fn masked(logits: &[f32], masks: &[&[u32]]) -> Vec<f32> {
    let allowed = |token: usize| masks.iter().all(|mask| mask[token / 32] >> (token % 32) & 1 == 1);
    let of = |(token, &x)| if allowed(token) { x } else { f32::NEG_INFINITY };
    logits.iter().enumerate().map(of).collect()
}

/// The answer for one row, [masked]; `raw` are the logits that raw log-probabilities are of.
pub fn spec<R: Real>(logits: &[f32], raw: &[f32], asked: &SampleRow, top_n: usize) -> Answer<R> {
    let none = R::of(f64::NAN);
    let (token, kept, top) = (params::NONE, Vec::new(), Vec::new());
    let status = status(logits).max(status(raw));
    let mut answer = Answer { status, token, margin: none, kept, raw: none, processed: none, top };
    if status != params::STATUS_OK {
        return answer;
    }
    let most = logits.iter().fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most });
    let factor = (1.0 / asked.temperature).min(f32::MAX);
    answer.kept = kept_of(logits, most, factor, asked);
    let real = |x: f32| R::of(f64::from(x));
    let tempered = |token: u32| match asked.temperature {
        0.0 => R::of(0.0),
        _ => (real(logits[token as usize]) - real(most)) * real(factor),
    };
    let mut best = R::of(f64::NEG_INFINITY);
    answer.margin = R::of(f64::INFINITY);
    let mut ascending = answer.kept.clone();
    ascending.sort_unstable();
    let mut sum = R::of(0.0);
    for token in ascending {
        let score = tempered(token) + gumbel::<R>(asked, token);
        sum += tempered(token).exp();
        if score > best || answer.token == params::NONE {
            (answer.margin, best, answer.token) = (score - best, score, token);
        } else if best - score < answer.margin {
            answer.margin = best - score;
        }
    }
    let (raw_most, raw_log_sum) = vocabulary::spec::<R>(raw);
    let raw_of = |token: u32| real(raw[token as usize]) - raw_most - raw_log_sum;
    answer.raw = raw_of(answer.token);
    answer.processed = tempered(answer.token) - sum.ln();
    answer.top = ranked(raw).into_iter().take(top_n).map(|token| (token, raw_of(token))).collect();
    answer
}

fn status(logits: &[f32]) -> u32 {
    if logits.iter().any(|x| x.is_nan() || *x == f32::INFINITY) {
        params::STATUS_NOT_FINITE
    } else if logits.iter().all(|x| *x == f32::NEG_INFINITY) {
        params::STATUS_MASKED
    } else {
        params::STATUS_OK
    }
}

/// Tokens that are not −∞, the larger logit first, then the lower token.
fn ranked(logits: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.retain(|&token| logits[token as usize] > f32::NEG_INFINITY);
    // The sort is stable, and −0 equals 0.
    order.sort_by(|&a, &b| {
        let (a, b) = (logits[a as usize], logits[b as usize]);
        b.partial_cmp(&a).expect("a NaN was reported before")
    });
    order
}

/// Masses and comparisons are f32 by definition, whatever the rest is computed in.
fn kept_of(logits: &[f32], most: f32, factor: f32, asked: &SampleRow) -> Vec<u32> {
    let mut kept = ranked(logits);
    if asked.temperature == 0.0 {
        kept.truncate(1);
        return kept;
    }
    let z = |token: u32| (logits[token as usize] - most) * factor;
    if asked.top_k > 0 {
        kept.truncate(asked.top_k as usize);
    }
    if asked.top_p < 1.0 {
        let mass = |token: u32| {
            libm::rint(f64::from(exp_one(Scalar, z(token))) * f64::from(1 << 29)) as u128
        };
        let total: u128 = kept.iter().map(|&token| mass(token)).sum();
        let share = libm::rint(f64::from(asked.top_p) * 4_294_967_296.0) as u128;
        let target = (total * share).div_ceil(1 << 32);
        let mut sum = 0;
        let reached = kept.iter().position(|&token| {
            sum += mass(token);
            sum >= target
        });
        kept.truncate(reached.map_or(kept.len(), |last| last + 1));
    }
    if asked.min_p > 0.0 {
        let mut least = [asked.min_p];
        crate::math::log_slice(crate::simd::Level::Scalar(Scalar), &mut least);
        kept.retain(|&token| z(token) >= least[0]);
    }
    kept
}

fn gumbel<R: Real>(asked: &SampleRow, token: u32) -> R {
    let SampleRow { seed, position, fork, .. } = *asked;
    let source = Source { seed, position, fork, purpose: params::NOISE_SAMPLE };
    let v = (f64::from(source.word(token) >> 1) + 0.5) / 2_147_483_648.0;
    // In f64 whatever the rest is computed in: near 0, f32 has no 1 − v.
    R::of(-libm::log(-libm::log1p(-v)))
}

#[cfg(test)]
mod tests {
    use super::spec;
    use crate::params::SampleRow;

    #[test]
    fn filters_keep_heads_of_one_ranking() {
        // Probabilities 0.1, 0.4, 0.4, 0.1.
        let logits = [0.1f32, 0.4, 0.4, 0.1].map(libm::logf);
        let all = SampleRow { temperature: 1.0, top_p: 1.0, ..Default::default() };
        let kept = |asked: SampleRow| spec::<f64>(&logits, &logits, &asked, 0).kept;
        assert_eq!(kept(all), [1, 2, 0, 3]);
        assert_eq!(kept(SampleRow { top_k: 3, ..all }), [1, 2, 0]);
        assert_eq!(kept(SampleRow { top_p: 0.39, ..all }), [1]);
        assert_eq!(kept(SampleRow { top_p: 0.79, ..all }), [1, 2]);
        assert_eq!(kept(SampleRow { top_p: 0.81, ..all }), [1, 2, 0]);
        // Of three tokens' mass 0.9, two have 0.8: more than 0.88 of it.
        assert_eq!(kept(SampleRow { top_p: 0.88, top_k: 3, ..all }), [1, 2]);
        assert_eq!(kept(SampleRow { min_p: 0.26, ..all }), [1, 2]);
        assert_eq!(kept(SampleRow { min_p: 0.24, ..all }), [1, 2, 0, 3]);
        assert_eq!(kept(SampleRow { temperature: 0.0, ..all }), [1]);
    }

    #[test]
    fn log_probabilities_are_of_all_tokens_and_of_those_kept() {
        let logits = [0.1f32, 0.4, 0.4, 0.1].map(|p| libm::logf(p) + 3.0);
        let asked = SampleRow { temperature: 1.0, top_p: 0.79, ..Default::default() };
        let answer = spec::<f64>(&logits, &logits, &asked, 1);
        assert!((answer.raw - 0.4f64.ln()).abs() < 1e-6);
        assert!((answer.processed - 0.5f64.ln()).abs() < 1e-6);
        assert_eq!(answer.top[0].0, 1);
    }
}
