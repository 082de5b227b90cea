//! The truth of `append_kv`: what a key or value should be, and the nearest number
//! that a format with a scale can say.

use crate::dtype::Dtype;
use crate::math::Real;
use crate::rope::{self, Pairing};
use alloc::vec::Vec;

/// A key as its pages should have it, before any rounding.
pub fn turned<R: Real>(key: &[R], turn: Option<(Pairing, &[R], &[R])>) -> Vec<R> {
    match turn {
        Some((pairing, cosines, sines)) => rope::spec(key, pairing, cosines, sines),
        None => key.to_vec(),
    }
}

/// The numbers that read back: whole multiples of most / 127 (i8) or most / 7 (i4).
pub fn nearest<R: Real>(row: &[R], dtype: Dtype) -> Vec<R> {
    let steps = if dtype == Dtype::I4 { 7.0 } else { 127.0 };
    let mut most = R::of(0.0);
    for &x in row {
        most = most.larger(if x < R::of(0.0) { -x } else { x });
    }
    let scale = most / R::of(steps);
    let near = |x: R| {
        if scale > R::of(0.0) { R::of(libm::rint((x / scale).wide())) * scale } else { R::of(0.0) }
    };
    row.iter().map(|&x| near(x)).collect()
}

#[cfg(test)]
mod tests {
    use super::{nearest, turned};
    use crate::dtype::Dtype;
    use crate::rope::Pairing;

    #[test]
    fn nibbles_say_sevenths_of_the_largest() {
        // The scale is 2: 3 is a step and a half, which ties to the even 2 steps.
        let got = nearest::<f64>(&[14.0, 3.0, -4.9, 0.9], Dtype::I4);
        assert_eq!(got, [14.0, 4.0, -4.0, 0.0]);
        assert_eq!(nearest::<f64>(&[0.0, 0.0], Dtype::I4), [0.0, 0.0]);
        assert_eq!(nearest::<f32>(&[-254.0, 3.0], Dtype::I8), [-254.0, 4.0]);
    }

    #[test]
    fn a_key_turns_by_its_angle() {
        let turn = Some((Pairing::Neox, &[0.0][..], &[1.0][..]));
        assert_eq!(turned::<f64>(&[1.0, 2.0], turn), [-2.0, 1.0]);
        assert_eq!(turned::<f64>(&[1.0, 2.0], None), [1.0, 2.0]);
    }
}
