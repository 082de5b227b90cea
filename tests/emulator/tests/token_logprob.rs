//! `token_logprob` on CUDA, emulated: a row's bits are its own, whichever launch takes it.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::seed;
use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::matmul::{Format, Shape};
use pagewise_tests::cases::token_logprob::{TokenLogprobCase, case};
use pagewise_tests::harness::{
    Bytes, Case, Output, Recorded, assert_keeps_to_spec, assert_same_bits,
};

/// Rows of the company: two blocks of many, the second one partly full.
const ALL: u32 = 70;
/// Two vocabulary blocks, the second one short.
const OUTPUTS: u32 = 4130;

fn run(case: &TokenLogprobCase, device: &mut Plugin) -> Vec<Output> {
    case.call(&mut Recorded(device)).expect("a good call runs")
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

fn assert_a_row_is_its_own(x: Dtype, format: Format) {
    let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    let shape = Shape::plain(ALL, 64, OUTPUTS, format);
    let all = case(Shape { dtypes: (x, Dtype::F32), bias: Some(Dtype::F32), ..shape });
    seed(0);
    let expected = run(&all, &mut device);
    if matches!(format, Format::Floats(Dtype::F16 | Dtype::Bf16)) {
        assert_keeps_to_spec(&all, &expected);
    } else {
        let of_the_cpu = all.run(Level::best(), &Inline).expect("a good call runs");
        assert_same_bits(&format!("{format:?} beside the CPU"), &of_the_cpu, &expected);
    }
    for count in [1, 17] {
        seed(u64::from(count));
        let got = run(&last_rows(&all, count), &mut device);
        for (got, all) in got.iter().zip(&expected) {
            let own = &all.bytes.as_slice()[(ALL - count) as usize * 4..];
            assert!(got.bytes.as_slice() == own, "{format:?} of {x:?}: the last {count} rows");
        }
    }
}

#[test]
fn a_row_of_f32_weights_is_its_own() {
    assert_a_row_is_its_own(Dtype::Bf16, Format::Floats(Dtype::F32));
}

#[test]
fn a_row_of_bf16_weights_is_its_own() {
    assert_a_row_is_its_own(Dtype::F32, Format::Floats(Dtype::Bf16));
}

#[test]
fn a_row_of_f16_weights_is_its_own() {
    assert_a_row_is_its_own(Dtype::F32, Format::Floats(Dtype::F16));
}

#[test]
fn a_row_of_bytes_is_its_own() {
    assert_a_row_is_its_own(Dtype::F32, Format::Groups(Dtype::I8, 64, false, Dtype::F16));
}

#[test]
fn a_row_of_nibbles_is_its_own() {
    assert_a_row_is_its_own(Dtype::F32, Format::Groups(Dtype::I4, 32, true, Dtype::Bf16));
}
