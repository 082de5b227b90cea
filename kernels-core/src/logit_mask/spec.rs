//! The truth of `logit_mask`, one row at a time.

use crate::math::Real;
use crate::params;
use alloc::vec::Vec;

/// What a row asks for.
#[derive(Clone, Debug, Default)]
pub struct Asked<'a> {
    /// Masks that must all allow a token.
    pub masks: Vec<&'a [u32]>,
    /// Tokens and what is added to their logits.
    pub bias: Vec<(u32, f32)>,
    /// Tokens that are never taken.
    pub banned: Vec<u32>,
    /// Tokens to count first.
    pub counted: Vec<u32>,
    /// 1 is none.
    pub repetition: f32,
    /// 0 is none.
    pub presence: f32,
    /// 0 is none.
    pub frequency: f32,
    /// 0 is none.
    pub temperature: f32,
}

/// The row's logits; `counts` is its slot, which is kept up to date.
pub fn spec<R: Real>(logits: &[f32], asked: &Asked<'_>, counts: Option<&mut [u16]>) -> Vec<R> {
    let counts = counts.map(|counts| {
        count(counts, &asked.counted);
        &*counts
    });
    let real = |x: f32| R::of(f64::from(x));
    let mut out = Vec::new();
    for (token, &logit) in logits.iter().enumerate() {
        let mut x = real(logit);
        for (_, bias) in asked.bias.iter().filter(|(of, _)| *of as usize == token) {
            x += real(*bias);
        }
        let count = counts.map_or(0, |counts| counts[token]);
        let generated = f64::from(u32::from(count) & params::COUNT_GENERATED);
        if count > 0 {
            let repetition = real(asked.repetition);
            x = if x > R::of(0.0) { x / repetition } else { x * repetition };
        }
        x = x - real(asked.frequency) * R::of(generated);
        if generated > 0.0 {
            x = x - real(asked.presence);
        }
        if asked.temperature != 0.0 {
            let factor = (1.0 / f64::from(asked.temperature)).min(f64::from(f32::MAX));
            x = x * R::of(factor);
        }
        let allowed = asked.masks.iter().all(|mask| mask[token / 32] >> (token % 32) & 1 != 0);
        if !allowed || asked.banned.contains(&(token as u32)) {
            x = R::of(f64::NEG_INFINITY);
        }
        out.push(x);
    }
    out
}

fn count(counts: &mut [u16], counted: &[u32]) {
    for &entry in counted {
        let count = &mut counts[(entry & params::COUNTED_TOKEN) as usize];
        let generated = u32::from(*count) & params::COUNT_GENERATED;
        if entry & params::COUNTED_PROMPT != 0 {
            *count |= params::COUNT_PROMPT as u16;
        } else if entry & params::COUNTED_BACK != 0 {
            *count -= u16::from(generated > 0);
        } else {
            *count += u16::from(generated < params::COUNT_GENERATED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, spec};
    use crate::params;
    use alloc::vec;

    #[test]
    fn a_repeated_token_is_divided_lowered_and_cooled() {
        let mut counts = [0, 2, 0, 0];
        let asked = Asked {
            masks: vec![&[0b0111]],
            bias: vec![(0, 0.5)],
            banned: vec![2],
            counted: vec![1, params::COUNTED_PROMPT],
            repetition: 2.0,
            presence: 0.25,
            frequency: 0.5,
            temperature: 0.5,
        };
        let out = spec::<f64>(&[-1.5, 6.0, 1.0, 9.0], &asked, Some(&mut counts));
        assert_eq!(counts, [params::COUNT_PROMPT as u16, 3, 0, 0]);
        // (−1.5 + 0.5)·2 / 0.5, and (6/2 − 3·0.5 − 0.25) / 0.5.
        assert_eq!(out, [-4.0, 2.5, f64::NEG_INFINITY, f64::NEG_INFINITY]);
    }
}
