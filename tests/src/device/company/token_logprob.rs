//! `token_logprob`: a row's bits are its own, whichever launch takes it.

use super::Device;
use crate::cases::matmul::{Format, Shape};
use crate::cases::token_logprob::{TokenLogprobCase, case};
use crate::harness::{Bytes, Case, Output, Recorded, assert_keeps_to_spec, assert_same_bits};
use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;

/// Rows of the company: two blocks of many, the second one partly full.
const ALL: u32 = 70;
/// Two vocabulary blocks, the second one short.
const OUTPUTS: u32 = 4130;

fn run(case: &TokenLogprobCase, device: &mut Device) -> Vec<Output> {
    case.call(&mut Recorded(&mut device.plugin)).expect("a good call runs")
}

/// The last rows of a case, as a call of their own.
fn last_rows(all: &TokenLogprobCase, count: u32) -> TokenLogprobCase {
    let row_bytes = all.product.x.len() / ALL as usize;
    let mut case = all.clone();
    case.params.rows_max = count;
    case.product.params.rows_max = count;
    case.product.x = Bytes::of(&all.product.x.as_slice()[(ALL - count) as usize * row_bytes..]);
    case.token = all.token[(ALL - count) as usize..].to_vec();
    case
}

fn assert_a_row_is_its_own(device: &mut Device, x: Dtype, format: Format) {
    let shape = Shape::plain(ALL, 64, OUTPUTS, format);
    let all = case(Shape { dtypes: (x, Dtype::F32), bias: Some(Dtype::F32), ..shape });
    (device.schedule)(0);
    let expected = run(&all, device);
    if matches!(format, Format::Floats(Dtype::F16 | Dtype::Bf16)) {
        assert_keeps_to_spec(&all, &expected);
    } else {
        let of_the_cpu = all.run(Level::best(), &Inline).expect("a good call runs");
        assert_same_bits(&format!("{format:?} beside the CPU"), &of_the_cpu, &expected);
    }
    for count in [1, 17] {
        (device.schedule)(u64::from(count));
        let got = run(&last_rows(&all, count), device);
        for (got, all) in got.iter().zip(&expected) {
            let own = &all.bytes.as_slice()[(ALL - count) as usize * 4..];
            assert!(got.bytes.as_slice() == own, "{format:?} of {x:?}: the last {count} rows");
        }
    }
}

/// So of this format.
pub fn a_row_of_f32_weights_is_its_own(device: &mut Device) {
    assert_a_row_is_its_own(device, Dtype::Bf16, Format::Floats(Dtype::F32));
}

/// So of this format.
pub fn a_row_of_bf16_weights_is_its_own(device: &mut Device) {
    assert_a_row_is_its_own(device, Dtype::F32, Format::Floats(Dtype::Bf16));
}

/// So of this format.
pub fn a_row_of_f16_weights_is_its_own(device: &mut Device) {
    assert_a_row_is_its_own(device, Dtype::F32, Format::Floats(Dtype::F16));
}

/// So of this format.
pub fn a_row_of_bytes_is_its_own(device: &mut Device) {
    assert_a_row_is_its_own(device, Dtype::F32, Format::Groups(Dtype::I8, 64, false, Dtype::F16));
}

/// So of this format.
pub fn a_row_of_nibbles_is_its_own(device: &mut Device) {
    assert_a_row_is_its_own(device, Dtype::F32, Format::Groups(Dtype::I4, 32, true, Dtype::Bf16));
}
