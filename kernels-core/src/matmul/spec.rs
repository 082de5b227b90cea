//! The truth of `matmul`, one row and one output at a time.

use crate::math::Real;
use alloc::vec::Vec;

/// `Σ x·w + bias`. Rows of a grouped weight are given as the values they stand for,
/// and x as [`quantised`] leaves it.
pub fn spec<R: Real>(x: &[R], weight: &[R], bias: R) -> R {
    let mut sum = R::of(0.0);
    for (&x, &w) in x.iter().zip(weight) {
        sum += x * w;
    }
    sum + bias
}

/// A row as the product with a weight in groups of `len` sees it: numbers in f32 as
/// the order says, for they are decided there, and their values in `R`.
pub fn quantised<R: Real>(x: &[f32], len: usize) -> Vec<R> {
    let mut values = Vec::new();
    for group in x.chunks(len) {
        let most = group.iter().fold(0f32, |most, x| if x.abs() > most { x.abs() } else { most });
        let finite = group.iter().all(|x| x.is_finite());
        let scale = most / 127.0;
        let inverse = 127.0 / most;
        for &x in group {
            values.push(if !finite {
                R::of(f64::NAN)
            } else if most < super::LEAST {
                R::of(0.0)
            } else {
                R::of(f64::from(libm::rintf(x * inverse))) * R::of(f64::from(scale))
            });
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::{quantised, spec};

    #[test]
    fn one_two_three_times_four_five_six_plus_seven_is_thirty_nine() {
        assert_eq!(spec::<f64>(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0], 7.0), 39.0);
    }

    #[test]
    fn a_group_is_rounded_to_127_steps_of_its_largest_magnitude() {
        let scale = f64::from(2f32 / 127.0);
        let got = quantised::<f64>(&[2.0, -2.0, 1.0, 0.001], 4);
        assert_eq!(got, [127.0 * scale, -127.0 * scale, 64.0 * scale, 0.0]);
    }
}
