//! How large the terms of a sum are: a specification over [`Magnitude`] gives, for each
//! of its sums, the sum of its terms' magnitudes.

use super::Row;
use kernels_core::math::Real;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// A number without its sign, for specifications that add and multiply alone.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Magnitude(f64);

/// What a chain of roundings leaves in the sums of each row: each rounding is half an eps
/// of a partial sum, and chance adds them up to about a third of `eps × Σ|terms|`. Short
/// rows of such sums are spared it by luck when plain arithmetic makes them.
pub fn rounded_sums(rows: &[Row<Magnitude>]) -> Vec<f64> {
    let most = |row: &Row<Magnitude>| {
        row.values.iter().map(|v| v.0).filter(|v| v.is_finite()).fold(0.0, f64::max)
    };
    rows.iter().map(|row| f64::from(f32::EPSILON) * most(row)).collect()
}

impl Add for Magnitude {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Magnitude {
    type Output = Self;
    #[expect(clippy::suspicious_arithmetic_impl, reason = "without signs a difference is a sum")]
    fn sub(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Mul for Magnitude {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }
}

impl Div for Magnitude {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        Self(self.0 / other.0)
    }
}

impl Neg for Magnitude {
    type Output = Self;
    fn neg(self) -> Self {
        self
    }
}

impl AddAssign for Magnitude {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Real for Magnitude {
    fn of(x: f64) -> Self {
        Self(x.abs())
    }
    fn wide(self) -> f64 {
        self.0
    }
    fn exp(self) -> Self {
        unreachable!("sums of products take no exp")
    }
    fn ln(self) -> Self {
        unreachable!("sums of products take no logarithm")
    }
    fn sqrt(self) -> Self {
        unreachable!("sums of products take no root")
    }
    fn tanh(self) -> Self {
        unreachable!("sums of products take no tanh")
    }
}
