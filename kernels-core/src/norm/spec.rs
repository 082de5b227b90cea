//! The truth of `norm`, one vector at a time.

use crate::math::Real;
use alloc::vec::Vec;

/// `x / sqrt(mean(x²) + epsilon) · (weight + weight_offset)`.
pub fn spec<R: Real>(x: &[R], weight: &[R], epsilon: f64, weight_offset: f64) -> Vec<R> {
    let mut squares = R::of(0.0);
    for &x in x {
        squares += x * x;
    }
    let mean = squares / R::of(x.len() as f64);
    let scale = R::of(1.0) / (mean + R::of(epsilon)).sqrt();
    let offset = R::of(weight_offset);
    x.iter().zip(weight).map(|(&x, &weight)| x * scale * (weight + offset)).collect()
}

#[cfg(test)]
mod tests {
    use super::spec;

    #[test]
    fn three_and_four_have_a_root_mean_square_of_five_over_root_two() {
        let out = spec::<f64>(&[3.0, 4.0], &[1.0, 2.0], 0.0, 0.0);
        let scale = 2f64.sqrt() / 5.0;
        assert!((out[0] - 3.0 * scale).abs() < 1e-12);
        assert!((out[1] - 8.0 * scale).abs() < 1e-12);
    }
}
