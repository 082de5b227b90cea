//! The truth of `rope`, one head at a time.

use super::Pairing;
use crate::math::Real;
use alloc::vec::Vec;

/// The head with its pairs turned by the angles whose cosines and sines are given.
pub fn spec<R: Real>(head: &[R], pairing: Pairing, cosines: &[R], sines: &[R]) -> Vec<R> {
    let mut out = head.to_vec();
    let pairs = cosines.len();
    for i in 0..pairs {
        let (a, b) = match pairing {
            Pairing::Neox => (i, i + pairs),
            Pairing::Interleaved => (2 * i, 2 * i + 1),
        };
        out[a] = head[a] * cosines[i] - head[b] * sines[i];
        out[b] = head[b] * cosines[i] + head[a] * sines[i];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Pairing, spec};

    #[test]
    fn a_quarter_turn_swaps_a_pair_and_leaves_the_rest() {
        let head = [1.0, 2.0, 3.0, 4.0, 9.0];
        // The first pair turns by a quarter, the second by 3-4-5's angle.
        let (cosines, sines) = ([0.0, 0.6], [1.0, 0.8]);
        let out = spec::<f64>(&head, Pairing::Neox, &cosines, &sines);
        let expected = [-3.0, 2.0 * 0.6 - 4.0 * 0.8, 1.0, 4.0 * 0.6 + 2.0 * 0.8, 9.0];
        assert_eq!(out, expected);
        let out = spec::<f64>(&head, Pairing::Interleaved, &cosines, &sines);
        assert_eq!(out, [-2.0, 1.0, 3.0 * 0.6 - 4.0 * 0.8, 4.0 * 0.6 + 3.0 * 0.8, 9.0]);
    }
}
