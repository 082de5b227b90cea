//! The truth of a row's log-probabilities.

use crate::math::Real;

/// ln Σ exp(x): what turns logits into log-probabilities, as the largest logit and
/// the logarithm of the sum beside it, to be subtracted one after the other.
pub fn spec<R: Real>(logits: &[f32]) -> (R, R) {
    let most = logits.iter().fold(f32::NEG_INFINITY, |most, &x| most.larger(x));
    let most = R::of(f64::from(most));
    let mut sum = R::of(0.0);
    for &x in logits {
        if x > f32::NEG_INFINITY {
            sum += (R::of(f64::from(x)) - most).exp();
        }
    }
    (most, sum.ln())
}

#[cfg(test)]
mod tests {
    use super::spec;

    #[test]
    fn three_to_one_is_a_quarter() {
        let logits = [3f32.ln(), 0.0, f32::NEG_INFINITY];
        let (most, log_sum) = spec::<f64>(&logits);
        // ln 4 = 1.386 294.
        assert!((most + log_sum - 1.386_294_4).abs() < 1e-6);
    }
}
