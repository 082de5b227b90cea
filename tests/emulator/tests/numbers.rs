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

/// The outputs of a case on tensor cores that cut off keep to the rule; whether they are others
/// than those of tensor cores that round.
fn keeps_to_rule_where_cut_off<C: Case>(case: &C) -> bool {
    let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    let mut answer = |adds| {
        tensor_cores(adds);
        let outputs = case.call(&mut Recorded(&mut device)).expect("a good call runs");
        tensor_cores(Adds::Rounding);
        outputs
    };
    let cut_off = answer(Adds::Truncating);
    assert_keeps_to_spec(case, &cut_off);
    let rounding = answer(Adds::Rounding);
    cut_off.iter().zip(&rounding).any(|(a, b)| a.bytes.as_slice() != b.bytes.as_slice())
}

fn all_keep_to_rule_where_cut_off<C: Case>(cases: &[C]) {
    let cases = cases.iter().filter(|case| case.has_truth());
    let changed = cases.filter(|case| keeps_to_rule_where_cut_off(*case)).count();
    assert!(changed > 0, "some sum is another");
}

#[test]
fn attention_on_tensor_cores_that_cut_off_keeps_to_the_rule() {
    all_keep_to_rule_where_cut_off(&attention::cases());
}

#[test]
fn products_on_tensor_cores_that_cut_off_keep_to_the_rule() {
    all_keep_to_rule_where_cut_off(&matmul::cases());
}

#[test]
fn logprobs_on_tensor_cores_that_cut_off_keep_to_the_rule() {
    all_keep_to_rule_where_cut_off(&token_logprob::cases());
}

/// A product whose terms are all positive, so that all that is cut off has one sign.
fn positive(x: Dtype, weight: Dtype, rows: u32) -> MatmulCase {
    const INPUTS: u32 = 4096;
    let mut noise = Noise::new(11);
    let shape = Shape::plain(rows, INPUTS, OUTPUTS, Format::Floats(weight));
    let mut case = Shape { dtypes: (x, Dtype::F32), ..shape }.case();
    let mut numbers =
        |count: u32| -> Vec<f32> { (0..count).map(|_| 0.5 + noise.uniform()).collect() };
    case.x = Bytes::rounded(x, &numbers(rows * INPUTS));
    let values = Bytes::of(&numbers(OUTPUTS * INPUTS));
    let source = Source::Floats { dtype: Dtype::F32, values: values.as_slice() };
    packing::pack(&case.params.weight, 0..OUTPUTS, source, case.weight.as_mut_slice())
        .expect("the weight is a good one");
    case
}

#[test]
fn positive_sums_on_tensor_cores_that_cut_off_keep_to_the_rule() {
    use Dtype::{Bf16, F16, F32};
    // Of bf16 alone 32 products are summed exactly, whichever way.
    let types = [(F32, Bf16), (F16, Bf16), (Bf16, Bf16), (F32, F16), (F16, F16)];
    let cases = types.map(|(x, weight)| [3, 40].map(|rows| positive(x, weight, rows)));
    all_keep_to_rule_where_cut_off(cases.as_flattened());
}
