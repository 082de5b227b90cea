//! The truth of `lora`, one row at a time.

use crate::math::Real;
use alloc::vec::Vec;

/// One adapter, its matrices as rows.
#[derive(Clone, Copy, Debug)]
pub struct Adapter<'a, R> {
    /// `[rank, inputs]`.
    pub a: &'a [R],
    /// `[outputs, rank]`.
    pub b: &'a [R],
    /// What the term is scaled by.
    pub scale: R,
    /// `[outputs]`: what each output is multiplied by at the end.
    pub magnitude: Option<&'a [R]>,
}

/// `(base + scale · (x Aᵀ) Bᵀ) · magnitude`.
pub fn spec<R: Real>(x: &[R], base: &[R], adapter: Adapter<'_, R>) -> Vec<R> {
    let dot = |row: &[R], v: &[R]| {
        let mut sum = R::of(0.0);
        for (&a, &b) in row.iter().zip(v) {
            sum += a * b;
        }
        sum
    };
    let h: Vec<R> = adapter.a.chunks_exact(x.len()).map(|row| dot(row, x)).collect();
    let terms = adapter.b.chunks_exact(h.len()).map(|row| dot(row, &h));
    let sums = base.iter().zip(terms).map(|(&base, term)| base + adapter.scale * term);
    match adapter.magnitude {
        None => sums.collect(),
        Some(magnitude) => sums.zip(magnitude).map(|(sum, &magnitude)| sum * magnitude).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Adapter, spec};

    #[test]
    fn two_inputs_through_rank_one_reach_two_outputs() {
        // h = 1·3 + 2·4 = 11; the terms are 5·11 and −1·11, halved.
        let mut adapter = Adapter { a: &[1.0, 2.0], b: &[5.0, -1.0], scale: 0.5, magnitude: None };
        assert_eq!(spec::<f64>(&[3.0, 4.0], &[100.0, 0.0], adapter), [127.5, -5.5]);
        adapter.magnitude = Some(&[2.0, 4.0]);
        assert_eq!(spec::<f64>(&[3.0, 4.0], &[100.0, 0.0], adapter), [255.0, -22.0]);
    }
}
