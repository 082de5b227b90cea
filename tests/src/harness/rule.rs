//! The error rule: `error ≤ 2 × plain f32 error + 4 eps × max|row|`, and two terms where
//! the arithmetic itself gives no more: what a case says of its kernel
//! ([`Case::within`]), and the output type's least number, below which nothing can be
//! told apart.
//!
//! The plain evaluation is the specification in f32. Twice its error allows for
//! another order of the sums; four roundings of the output's type for the last
//! steps; both scale with the row, so that a small element beside a large one is
//! not asked for more than arithmetic gives. A row is what the specification gives as
//! one: a vector, or, of an output with one number for each row of the call, all of them.

use super::{Case, Output, Row};
use kernels_core::dtype::Dtype;

/// Every value of the outputs lies within the rule of the specification.
pub fn assert_keeps_to_spec<C: Case>(case: &C, outputs: &[Output]) {
    let name = case.name();
    let (truth, plain) = (case.spec::<f64>(), case.spec::<f32>());
    assert_eq!(truth.len(), outputs.len(), "{name}: one list of rows for each output");
    for (number, (output, plain)) in outputs.iter().zip(&plain).enumerate() {
        if plain.is_empty() {
            continue;
        }
        let got = output.bytes.floats(output.dtype);
        let within = case.within(number, &truth);
        for (row, (plain, own)) in plain.iter().zip(&truth[number]).enumerate() {
            let got = &got[own.at..own.at + own.values.len()];
            let most = own.values.iter().map(|v| v.abs()).filter(|v| v.is_finite());
            let most = most.fold(0.0, f64::max);
            let steps = 2.0 * plain_error(own, plain) + 4.0 * epsilon(output.dtype) * most;
            let bound = steps + within.get(row).unwrap_or(&0.0) + least(output.dtype);
            for (i, (&got, &truth_value)) in got.iter().zip(&own.values).enumerate() {
                let error = difference(truth_value, f64::from(got));
                let overflows = truth_value.abs() + bound >= largest(output.dtype);
                if overflows && f64::from(got) == f64::INFINITY.copysign(truth_value) {
                    continue;
                }
                let at = own.at + i;
                assert!(
                    error <= bound,
                    "{name}: {}[{at}] is {got}, expected {truth_value}: error {error:e}, allowed {bound:e}",
                    output.name
                );
            }
        }
    }
}

/// The largest error of the plain evaluation in a row.
fn plain_error(truth: &Row<f64>, plain: &Row<f32>) -> f64 {
    let pairs = truth.values.iter().zip(&plain.values);
    let errors = pairs.map(|(&truth, &plain)| difference(truth, f64::from(plain)));
    errors.filter(|error| error.is_finite()).fold(0.0, f64::max)
}

/// The distance of two values; zero for the same infinity or two NaNs.
fn difference(truth: f64, got: f64) -> f64 {
    if truth == got || (truth.is_nan() && got.is_nan()) {
        return 0.0;
    }
    let distance = (truth - got).abs();
    if distance.is_nan() { f64::INFINITY } else { distance }
}

/// The largest number of the type.
fn largest(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => f64::from(f32::MAX),
        Dtype::F16 => 65504.0,
        Dtype::Bf16 => f64::from(half::bf16::MAX.to_f32()),
        Dtype::E4m3 => 448.0,
        Dtype::I8 => 127.0,
        Dtype::I4 => 7.0,
    }
}

/// The smallest number of the type above zero; where that is near f32's, what the cut
/// of exp takes away: terms below it are zero.
fn least(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 | Dtype::Bf16 => 2f64.powi(-120),
        Dtype::F16 => 2f64.powi(-24),
        Dtype::E4m3 => 2f64.powi(-9),
        Dtype::I8 | Dtype::I4 => 0.0,
    }
}

/// The distance from 1 to the next number of the type.
fn epsilon(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 2f64.powi(-23),
        Dtype::F16 => 2f64.powi(-10),
        Dtype::Bf16 => 2f64.powi(-7),
        Dtype::E4m3 => 2f64.powi(-3),
        Dtype::I8 | Dtype::I4 => 0.0,
    }
}
