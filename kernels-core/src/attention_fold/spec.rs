//! The truth of `attention_fold`, one row and head at a time.

use crate::math::Real;
use alloc::vec::Vec;

/// The output and the log-sum-exp of all parts, each an output and a log-sum-exp.
pub fn spec<R: Real>(parts: &[(Vec<R>, R)], dims: usize) -> (Vec<R>, R) {
    let none = R::of(f64::NEG_INFINITY);
    let most = parts.iter().fold(none, |most, part| part.1.larger(most));
    let mut out = alloc::vec![R::of(0.0); dims];
    if most == none {
        return (out, none);
    }
    let mut sum = R::of(0.0);
    for (part, lse) in parts {
        let weight = (*lse - most).exp();
        sum += weight;
        for (out, &part) in out.iter_mut().zip(part) {
            *out += weight * part;
        }
    }
    out.iter_mut().for_each(|out| *out = *out / sum);
    (out, most + sum.ln())
}

#[cfg(test)]
mod tests {
    use super::spec;
    use alloc::vec;

    #[test]
    fn denominators_of_one_and_three_weigh_a_quarter_and_three_quarters() {
        let none = (vec![7.0], f64::NEG_INFINITY);
        let parts = [(vec![4.0], 0.0), none.clone(), (vec![8.0], 3f64.ln())];
        let (out, lse) = spec(&parts, 1);
        assert!((out[0] - 7.0).abs() < 1e-12);
        assert!((lse - 4f64.ln()).abs() < 1e-12);
        assert_eq!(spec(&[none.clone(), none], 1), (vec![0.0], f64::NEG_INFINITY));
    }
}
