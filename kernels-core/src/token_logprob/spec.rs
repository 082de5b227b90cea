//! The truth of `token_logprob`, one row at a time.

use crate::math::Real;
use alloc::vec::Vec;

/// The log-probability of a token; `weight` has a row for each token, `bias` a number.
pub fn spec<R: Real>(x: &[R], weight: &[Vec<R>], bias: &[R], token: usize) -> R {
    let logits: Vec<R> = weight
        .iter()
        .zip(bias)
        .map(|(weight, &bias)| crate::matmul::spec(x, weight, bias))
        .collect();
    let most = logits.iter().fold(R::of(f64::NEG_INFINITY), |most, &x| x.larger(most));
    let mut sum = R::of(0.0);
    for &logit in &logits {
        sum += (logit - most).exp();
    }
    (logits[token] - most) - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::spec;
    use alloc::vec;

    #[test]
    fn three_to_one_is_a_quarter() {
        // Logits ln 3 and 0, by a weight of 1 and by a bias.
        let weight = [vec![1.0, 0.0], vec![0.0, 1.0]];
        let logprob = spec::<f64>(&[3f64.ln() - 1.0, 0.0], &weight, &[1.0, 0.0], 1);
        assert!((logprob - 0.25f64.ln()).abs() < 1e-12);
    }
}
