//! The truth of `activation`, one element at a time.

use super::Kind;
use crate::math::Real;

/// `f(gate) · up`.
pub fn spec<R: Real>(kind: Kind, gate: R, up: R) -> R {
    let one = R::of(1.0);
    let value = match kind {
        Kind::Silu => gate / (one + (-gate).exp()),
        Kind::GeluTanh => {
            let cubic = gate + R::of(0.044_715) * gate * gate * gate;
            let inner = R::of(Real::sqrt(core::f64::consts::FRAC_2_PI)) * cubic;
            // (1 + tanh(t)) / 2, without the loss where tanh is near −1.
            gate / (one + (-(inner + inner)).exp())
        }
    };
    value * up
}

#[cfg(test)]
mod tests {
    use super::{Kind, spec};

    #[test]
    fn functions_have_their_published_values() {
        assert_eq!(spec::<f64>(Kind::Silu, 0.0, 3.0), 0.0);
        assert!((spec::<f64>(Kind::Silu, 1.0, 2.0) - 2.0 * 0.731_058_578_630_004_9).abs() < 1e-12);
        assert!((spec::<f64>(Kind::GeluTanh, 1.0, 1.0) - 0.841_191_990_608_276_7).abs() < 1e-12);
        assert!((spec::<f64>(Kind::GeluTanh, -2.0, 1.0) + 0.045_402_305_912_224_94).abs() < 1e-12);
    }
}
