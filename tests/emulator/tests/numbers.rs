//! What devices do where numbers are not the CPU's alone: weights that are infinite, and sums
//! of tensor cores that cut off where the emulator rounds.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::{Adds, tensor_cores};
use kernels_core::dtype::Dtype;
use kernels_core::packing::{self, Source};
use pagewise_tests::cases::matmul::{Format, MatmulCase, Shape};
use pagewise_tests::cases::{attention, matmul, token_logprob};
use pagewise_tests::harness::{Bytes, Case, Noise, Recorded, assert_keeps_to_spec};

/// The C table of an emulated device.
type Table = fn() -> &'static plugin::pwp_table;

fn floats(table: Table, case: &MatmulCase) -> Vec<f32> {
    let mut device = Plugin::of_table(table(), 0).expect("the emulator is there");
    let outputs = case.call(&mut Recorded(&mut device)).expect("a good call runs");
    outputs[0].bytes.floats(Dtype::F32)
}

/// A product whose weight of one output and input is what is given.
fn with_weight(x: Dtype, weight: Dtype, rows: u32, value: f32) -> MatmulCase {
    let shape = Shape::plain(rows, INPUTS, OUTPUTS, Format::Floats(weight));
    let mut case = Shape { dtypes: (x, Dtype::F32), ..shape }.case();
    let mut values = Noise::new(7).normals((INPUTS * OUTPUTS) as usize, 0.5);
    values[(BAD * INPUTS + 71) as usize] = value;
    let values = Bytes::of(&values);
    let source = Source::Floats { dtype: Dtype::F32, values: values.as_slice() };
    packing::pack(&case.params.weight, 0..OUTPUTS, source, case.weight.as_mut_slice())
        .expect("the weight is a good one");
    case
}

const INPUTS: u32 = 544;
const OUTPUTS: u32 = 40;
/// The output whose weight is infinite.
const BAD: u32 = 33;

#[test]
fn an_infinite_weight_leaves_no_number_in_its_own_outputs_and_changes_no_other() {
    use Dtype::{Bf16, F16, F32};
    for table in [emulator::cuda as Table, emulator::metal] {
        for (x, weight) in [(F32, Bf16), (F16, Bf16), (Bf16, Bf16), (F32, F16), (F32, F32)] {
            for rows in [3, 40] {
                let good = floats(table, &with_weight(x, weight, rows, 1.0));
                let bad = floats(table, &with_weight(x, weight, rows, f32::INFINITY));
                for (at, (good, bad)) in good.iter().zip(&bad).enumerate() {
                    let own = at as u32 % OUTPUTS == BAD;
                    let right =
                        if own { !bad.is_finite() } else { good.to_bits() == bad.to_bits() };
                    assert!(right, "{x:?} by {weight:?}, {rows} rows: output {at} is {bad}");
                }
            }
        }
    }
}

/// Every listed case keeps to the rule of errors while tensor cores cut off.
fn assert_keeps_to_the_rule<C: Case>(cases: &[C]) {
    let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    tensor_cores(Adds::Truncating);
    let mut changed = 0;
    for case in cases.iter().filter(|case| case.has_truth()) {
        let got = case.call(&mut Recorded(&mut device)).expect("a good call runs");
        assert_keeps_to_spec(case, &got);
        tensor_cores(Adds::Rounding);
        let rounding = case.call(&mut Recorded(&mut device)).expect("a good call runs");
        changed += u32::from(got[0].bytes.as_slice() != rounding[0].bytes.as_slice());
        tensor_cores(Adds::Truncating);
    }
    tensor_cores(Adds::Rounding);
    assert!(changed > 0, "some sum of {} is another", C::KERNEL);
}

#[test]
fn products_on_tensor_cores_that_cut_off_keep_to_the_rule() {
    assert_keeps_to_the_rule(&matmul::cases());
}

#[test]
fn attention_on_tensor_cores_that_cut_off_keeps_to_the_rule() {
    assert_keeps_to_the_rule(&attention::cases());
}

#[test]
fn log_probabilities_on_tensor_cores_that_cut_off_keep_to_the_rule() {
    assert_keeps_to_the_rule(&token_logprob::cases());
}

#[test]
fn sums_of_positive_numbers_on_tensor_cores_that_cut_off_keep_to_the_rule() {
    use Dtype::{Bf16, F16, F32};
    let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    tensor_cores(Adds::Truncating);
    // All errors are of one sign there.
    for (x, weight) in [(F32, Bf16), (F16, Bf16), (Bf16, Bf16), (F32, F16), (F16, F16)] {
        for rows in [3, 40] {
            let mut noise = Noise::new(11);
            let shape = Shape::plain(rows, 4096, 36, Format::Floats(weight));
            let mut case = Shape { dtypes: (x, F32), ..shape }.case();
            let positive = |noise: &mut Noise, count: u32| -> Vec<f32> {
                (0..count).map(|_| 0.5 + noise.uniform()).collect()
            };
            case.x = Bytes::rounded(x, &positive(&mut noise, rows * 4096));
            let values = Bytes::of(&positive(&mut noise, 36 * 4096));
            let source = Source::Floats { dtype: F32, values: values.as_slice() };
            packing::pack(&case.params.weight, 0..36, source, case.weight.as_mut_slice())
                .expect("the weight is a good one");
            let got = case.call(&mut Recorded(&mut device)).expect("a good call runs");
            assert_keeps_to_spec(&case, &got);
        }
    }
    tensor_cores(Adds::Rounding);
}
