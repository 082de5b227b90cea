//! The truth of `embed`, one row at a time.

use crate::math::Real;
use alloc::vec::Vec;

/// `row · scale`.
pub fn spec<R: Real>(row: &[R], scale: f64) -> Vec<R> {
    row.iter().map(|&x| x * R::of(scale)).collect()
}

#[cfg(test)]
mod tests {
    use super::spec;

    #[test]
    fn a_row_is_scaled() {
        assert_eq!(spec::<f64>(&[1.0, -2.5], 4.0), [4.0, -10.0]);
    }
}
