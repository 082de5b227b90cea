//! Floats to whole numbers in groups, while they are loaded.
//!
//! 8 bits: scale = max |x| / 127, rounded to f16; q = x / scale, rounded, within ±127.
//! 4 bits: bias = min x and scale = (max x − min x) / 15, each rounded to f16;
//! q = (x − bias) / scale, rounded, within 0 to 15. A scale of 0 has numbers of 0. A group
//! that holds no finite number has a scale that packing refuses.

use super::Quantize;
use half::f16;
use kernels_core::params;

/// Added to a small number and taken off again, it leaves the nearest whole number, ties
/// to even: beside it f32 has no fractions.
const WHOLE: f32 = 12_582_912.0;

/// Inputs that share a scale, where a row is whole groups of so many: 64 take fewer bytes
/// and fewer steps than 32, which is for rows that 64 does not divide.
const GROUPS: [usize; 2] = [64, 32];

/// Inputs that share a scale, in rows of so many; `None` if they are no whole groups.
pub fn group(inputs: usize) -> Option<usize> {
    GROUPS.into_iter().find(|&group| inputs.is_multiple_of(group))
}

impl Quantize {
    /// The weight that a matrix becomes; `None` if its rows are no whole groups.
    pub fn weight(self, outputs: u32, inputs: u32) -> Option<params::Weight> {
        let (dtype, scheme) = match self {
            Self::Q8 => (params::DTYPE_I8, params::SCHEME_SYMMETRIC),
            Self::Q4 => (params::DTYPE_I4, params::SCHEME_AFFINE),
        };
        let (group, scale_dtype) = (group(inputs as usize)? as u32, params::DTYPE_F16);
        Some(params::Weight { outputs, inputs, dtype, scheme, group, scale_dtype })
    }

    /// Appends one group.
    pub fn push(self, group: &[f32], to: &mut Numbers) {
        match self {
            Self::Q8 => push_q8(group, to),
            Self::Q4 => push_q4(group, to),
        }
    }
}

/// Groups of whole numbers, as packing takes them.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Bytes, or nibbles with the low one first.
    pub numbers: Vec<u8>,
    /// A scale for each group.
    pub scales: Vec<u8>,
    /// A bias for each group of an affine scheme.
    pub biases: Vec<u8>,
}

impl Numbers {
    /// Forgets them and keeps their room.
    pub fn clear(&mut self) {
        self.numbers.clear();
        self.scales.clear();
        self.biases.clear();
    }
}

fn push_q8(group: &[f32], to: &mut Numbers) {
    let finite = group.iter().all(|x| x.is_finite());
    let most = group.iter().fold(0f32, |most, x| most.max(x.abs()));
    let scale = f16::from_f32(if finite { most / 127.0 } else { f32::NAN });
    to.scales.extend(scale.to_le_bytes());
    let inverse = inverse(scale);
    let number = |x: &f32| whole(x * inverse).clamp(-127.0, 127.0) as i8 as u8;
    to.numbers.extend(group.iter().map(number));
}

fn push_q4(group: &[f32], to: &mut Numbers) {
    let finite = group.iter().all(|x| x.is_finite());
    let most = group.iter().fold(f32::NEG_INFINITY, |most, &x| most.max(x));
    let least = group.iter().fold(f32::INFINITY, |least, &x| least.min(x));
    let bias = f16::from_f32(least);
    let scale = f16::from_f32(if finite { (most - least) / 15.0 } else { f32::NAN });
    to.scales.extend(scale.to_le_bytes());
    to.biases.extend(bias.to_le_bytes());
    let (inverse, bias) = (inverse(scale), bias.to_f32());
    let number = |x: f32| whole((x - bias) * inverse).clamp(0.0, 15.0) as u8;
    let pairs = group.as_chunks::<2>().0.iter();
    to.numbers.extend(pairs.map(|&[low, high]| number(low) | number(high) << 4));
}

/// The nearest whole number of one that is far below 2²².
fn whole(x: f32) -> f32 {
    (x + WHOLE) - WHOLE
}

/// What a number is multiplied by; 0 for a scale of 0.
fn inverse(scale: f16) -> f32 {
    let scale = scale.to_f32();
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[cfg(test)]
mod tests {
    use super::{Numbers, group};
    use crate::weights::Quantize;
    use half::f16;

    /// Inputs of the groups here.
    const GROUP: usize = 64;

    fn quantised(quantize: Quantize, group: &[f32; GROUP]) -> (Numbers, f32) {
        let mut to = Numbers::default();
        quantize.push(group, &mut to);
        let scale = f16::from_le_bytes([to.scales[0], to.scales[1]]).to_f32();
        (to, scale)
    }

    #[test]
    fn rows_are_cut_into_the_longest_groups_that_divide_them() {
        assert_eq!([2048, 96, 48].map(group), [Some(64), Some(32), None]);
    }

    #[test]
    fn the_largest_of_eight_bits_is_127_and_half_of_it_64() {
        let mut group = [0.0; GROUP];
        (group[0], group[1], group[2]) = (-254.0, 254.0, 127.0);
        let (to, scale) = quantised(Quantize::Q8, &group);
        assert_eq!(
            (scale, to.numbers[0] as i8, to.numbers[1], to.numbers[2]),
            (2.0, -127, 127, 64)
        );
    }

    #[test]
    fn four_bits_reach_from_the_least_to_the_largest() {
        let mut group = [-1.0; GROUP];
        (group[1], group[2]) = (14.0, 2.0);
        let (to, scale) = quantised(Quantize::Q4, &group);
        let bias = f16::from_le_bytes([to.biases[0], to.biases[1]]).to_f32();
        assert_eq!((scale, bias, to.numbers[0], to.numbers[1]), (1.0, -1.0, 0xf0, 0x03));
    }

    #[test]
    fn zeros_are_zeros_and_a_nan_is_told_by_the_scale() {
        let (to, scale) = quantised(Quantize::Q8, &[0.0; GROUP]);
        assert_eq!((scale, to.numbers), (0.0, vec![0; GROUP]));
        let mut group = [1.0; GROUP];
        group[31] = f32::NAN;
        assert!(quantised(Quantize::Q8, &group).1.is_nan());
        assert!(quantised(Quantize::Q4, &group).1.is_nan());
    }
}
