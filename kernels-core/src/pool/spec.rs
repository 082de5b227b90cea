//! The truth of `pool`, one sequence at a time.

use super::{Kind, LENGTH_LEAST};
use crate::math::Real;
use alloc::vec;
use alloc::vec::Vec;

/// The vector of a sequence's rows.
pub fn spec<R: Real>(rows: &[Vec<R>], columns: usize, kind: Kind, normalise: bool) -> Vec<R> {
    let mut vector = vec![R::of(0.0); columns];
    match (kind, rows) {
        (_, []) => {}
        (Kind::First, [row, ..]) | (Kind::Last, [.., row]) => vector.copy_from_slice(row),
        (Kind::Mean, rows) => {
            for row in rows {
                vector.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x);
            }
            vector.iter_mut().for_each(|sum| *sum = *sum / R::of(rows.len() as f64));
        }
    }
    if normalise {
        let mut squares = R::of(0.0);
        vector.iter().for_each(|&x| squares += x * x);
        let length = R::of(LENGTH_LEAST.into()).larger(squares.sqrt());
        vector.iter_mut().for_each(|x| *x = *x / length);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::{Kind, spec};
    use alloc::vec;

    #[test]
    fn the_mean_of_two_rows_is_three_and_four_of_length_five() {
        let rows = [vec![1.0f64, 8.0], vec![5.0, 0.0]];
        assert_eq!(spec(&rows, 2, Kind::Mean, false), [3.0, 4.0]);
        assert_eq!(spec(&rows, 2, Kind::Mean, true), [0.6, 0.8]);
        assert_eq!(spec(&rows, 2, Kind::First, false), [1.0, 8.0]);
        assert_eq!(spec(&rows, 2, Kind::Last, true), [1.0, 0.0]);
        assert_eq!(spec::<f64>(&[], 2, Kind::Mean, true), [0.0, 0.0]);
    }
}
