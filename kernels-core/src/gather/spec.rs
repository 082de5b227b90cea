//! The truth of `gather`.

use alloc::vec::Vec;

/// The rows of those numbers.
pub fn spec<T: Clone>(rows: &[Vec<T>], indices: &[u32]) -> Vec<Vec<T>> {
    indices.iter().map(|&index| rows[index as usize].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::spec;
    use alloc::vec;

    #[test]
    fn rows_come_in_the_order_of_their_numbers() {
        let rows = [vec![1, 2], vec![3, 4], vec![5, 6]];
        assert_eq!(spec(&rows, &[2, 0, 2]), [[5, 6], [1, 2], [5, 6]]);
    }
}
