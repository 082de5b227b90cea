//! What devices do where numbers are not the CPU's alone: weights that are infinite, and sums
//! of tensor cores that cut off where the emulator rounds.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::{Adds, tensor_cores};
use kernels_core::dtype::Dtype;
use kernels_core::packing::{self, Source};
use pagewise_tests::cases::attention;
use pagewise_tests::cases::matmul::{Format, MatmulCase, Shape};
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

#[test]
fn attention_on_tensor_cores_that_cut_off_keeps_to_the_rule() {
    let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    let mut changed = 0;
    for case in attention::cases().iter().filter(|case| case.has_truth()) {
        let mut answer = |adds| {
            tensor_cores(adds);
            let outputs = case.call(&mut Recorded(&mut device)).expect("a good call runs");
            tensor_cores(Adds::Rounding);
            outputs
        };
        let cut_off = answer(Adds::Truncating);
        assert_keeps_to_spec(case, &cut_off);
        let rounding = answer(Adds::Rounding);
        changed += u32::from(cut_off[0].bytes.as_slice() != rounding[0].bytes.as_slice());
    }
    assert!(changed > 0, "some sum is another");
}

/// The largest error of a product whose terms are all positive, so that all that is cut off has
/// one sign: in units of 2^-23 of the sum.
fn error_of_positive_sums(adds: Adds, x: Dtype, weight: Dtype, rows: u32) -> f64 {
    const INPUTS: u32 = 4096;
    let mut noise = Noise::new(11);
    let shape = Shape::plain(rows, INPUTS, OUTPUTS, Format::Floats(weight));
    let mut case = Shape { dtypes: (x, Dtype::F32), ..shape }.case();
    let mut positive =
        |count: u32| -> Vec<f32> { (0..count).map(|_| 0.5 + noise.uniform()).collect() };
    case.x = Bytes::rounded(x, &positive(rows * INPUTS));
    let values = Bytes::of(&positive(OUTPUTS * INPUTS));
    let source = Source::Floats { dtype: Dtype::F32, values: values.as_slice() };
    packing::pack(&case.params.weight, 0..OUTPUTS, source, case.weight.as_mut_slice())
        .expect("the weight is a good one");
    tensor_cores(adds);
    let got = floats(emulator::cuda, &case);
    tensor_cores(Adds::Rounding);
    let truth = case.spec::<f64>().swap_remove(0);
    let truth = truth.iter().flat_map(|row| &row.values);
    let errors = got.iter().zip(truth).map(|(got, truth)| (f64::from(*got) / truth - 1.0).abs());
    errors.fold(0.0, f64::max) / f64::from(f32::EPSILON)
}

#[test]
fn sums_on_tensor_cores_that_cut_off_err_as_much_as_is_written_down() {
    use Dtype::{Bf16, F16, F32};
    // What is cut off grows with the instructions of a segment, and so with pieces of x. The
    // rule of errors allows some 30 here: docs/devices.md says so.
    let mut wrong = Vec::new();
    for (x, weight, most) in [
        (F32, Bf16, 112.0),
        (F16, Bf16, 80.0),
        (Bf16, Bf16, 56.0),
        (F32, F16, 80.0),
        (F16, F16, 56.0),
    ] {
        for rows in [3, 40] {
            let rounding = error_of_positive_sums(Adds::Rounding, x, weight, rows);
            let cut_off = error_of_positive_sums(Adds::Truncating, x, weight, rows);
            if !(rounding < 28.0 && rounding < cut_off && cut_off < most) {
                wrong.push((x, weight, rows, rounding, cut_off));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}
