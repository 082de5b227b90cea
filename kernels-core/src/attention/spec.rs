//! The truth of `attention`, for one row and query head at a time.

use crate::math::Real;
use alloc::vec::Vec;

/// A key that the row sees, with its value.
#[derive(Clone, Debug)]
pub struct Key<R> {
    /// Its position less the row's.
    pub distance: f64,
    /// The key.
    pub k: Vec<R>,
    /// The value.
    pub v: Vec<R>,
}

/// What turns a dot product into a score.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scores {
    /// Times this.
    pub scale: f64,
    /// Then capped by this, if it is not 0.
    pub softcap: f64,
    /// Then plus this times the distance.
    pub slope: f64,
    /// A logit of the denominator alone.
    pub sink: Option<f64>,
}

/// The row's output of `dims` and the logarithm of its denominator.
pub fn spec<R: Real>(q: &[R], keys: &[Key<R>], by: Scores, dims: usize) -> (Vec<R>, R) {
    let score = |key: &Key<R>| {
        let mut dot = R::of(0.0);
        for (&q, &k) in q.iter().zip(&key.k) {
            dot += q * k;
        }
        let score = dot * R::of(by.scale);
        let cap = R::of(by.softcap);
        let capped = if by.softcap == 0.0 { score } else { cap * (score / cap).tanh() };
        capped + R::of(by.slope) * R::of(key.distance)
    };
    let scores: Vec<R> = keys.iter().map(score).collect();
    let none = R::of(f64::NEG_INFINITY);
    let sink = by.sink.map_or(none, R::of);
    let most = scores.iter().fold(sink, |most, &score| score.larger(most));
    let mut out = alloc::vec![R::of(0.0); dims];
    if most == none {
        return (out, none);
    }
    let mut sum = (sink - most).exp();
    for (key, &score) in keys.iter().zip(&scores) {
        let weight = (score - most).exp();
        sum += weight;
        for (out, &v) in out.iter_mut().zip(&key.v) {
            *out += weight * v;
        }
    }
    out.iter_mut().for_each(|out| *out = *out / sum);
    (out, most + sum.ln())
}

#[cfg(test)]
mod tests {
    use super::{Key, Scores, spec};
    use alloc::vec;

    /// Scores of ln 1 and ln 3: weights of a quarter and three quarters.
    fn keys() -> [Key<f64>; 2] {
        let three = 3f64.ln();
        [
            Key { distance: -1.0, k: vec![0.0, 1.0], v: vec![4.0, 0.0] },
            Key { distance: 0.0, k: vec![three / 2.0, 5.0], v: vec![0.0, 8.0] },
        ]
    }

    #[test]
    fn a_quarter_and_three_quarters() {
        let by = Scores { scale: 2.0, ..Scores::default() };
        let (out, lse) = spec(&[1.0, 0.0], &keys(), by, 2);
        assert!((out[0] - 1.0).abs() < 1e-12 && (out[1] - 6.0).abs() < 1e-12);
        assert!((lse - 4f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn a_sink_takes_its_share_and_gives_nothing() {
        let by = Scores { scale: 2.0, sink: Some(4f64.ln()), ..Scores::default() };
        let (out, lse) = spec(&[1.0, 0.0], &keys(), by, 2);
        assert!((out[0] - 0.5).abs() < 1e-12 && (out[1] - 3.0).abs() < 1e-12);
        assert!((lse - 8f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn nothing_seen_is_zeros_and_minus_infinity() {
        let (out, lse) = spec::<f64>(&[1.0], &[], Scores::default(), 3);
        assert_eq!(out, [0.0; 3]);
        assert_eq!(lse, f64::NEG_INFINITY);
    }
}
