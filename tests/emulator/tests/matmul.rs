//! `matmul` on CUDA, emulated: a row's bits are its own, whoever it goes with and whichever
//! tile takes it.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::seed;
use kernels_core::dtype::Dtype;
use pagewise_tests::cases::matmul::{Format, MatmulCase, Shape};
use pagewise_tests::harness::{Bytes, Case, Recorded};

/// Rows of the company: two blocks of many, the second one partly full.
const ALL: u32 = 130;
/// Two segments and a part of a third, which is no whole chunk either way.
const INPUTS: u32 = 1056;
/// Three tiles: of two side by side, one is none.
const OUTPUTS: u32 = 72;

fn words(case: &MatmulCase, device: &mut Plugin) -> Vec<u32> {
    let outputs = case.call(&mut Recorded(device)).expect("a good call runs");
    bytemuck::cast_slice(outputs[0].bytes.as_slice()).to_vec()
}

/// The last rows of a case, as a call of their own.
fn last_rows(all: &MatmulCase, count: u32) -> MatmulCase {
    let row_bytes = all.x.len() / ALL as usize;
    let x = &all.x.as_slice()[(ALL - count) as usize * row_bytes..];
    let mut case = all.clone();
    case.params.rows_max = count;
    case.x = Bytes::of(x);
    case.out_bytes = (count * OUTPUTS) as usize * 4;
    case
}

fn assert_a_row_is_its_own(x: Dtype, format: Format) {
    let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    let shape = Shape::plain(ALL, INPUTS, OUTPUTS, format);
    let all = Shape { dtypes: (x, Dtype::F32), ..shape }.case();
    seed(0);
    let expected = words(&all, &mut device);
    let width = OUTPUTS as usize;
    for count in [1, 2, 15, 16, 17, 64] {
        seed(u64::from(count));
        let got = words(&last_rows(&all, count), &mut device);
        let own = &expected[(ALL - count) as usize * width..];
        assert!(got == own, "{format:?} of {x:?}: the last {count} rows on their own");
        // Recorded for many, used by few.
        let some = MatmulCase { rows: Some(count), ..all.clone() };
        let got = words(&some, &mut device);
        let own = count as usize * width;
        assert!(got[..own] == expected[..own], "{format:?} of {x:?}: {count} rows of {ALL}");
    }
}

macro_rules! formats {
    ($($name:ident: $x:ident, $format:expr;)*) => {$(
        #[test]
        fn $name() {
            use Dtype::{Bf16, F16, F32, I4, I8};
            let _ = (Bf16, F16, F32, I4, I8);
            assert_a_row_is_its_own($x, $format);
        }
    )*};
}

formats! {
    a_row_of_f32_weights_is_its_own: F32, Format::Floats(F32);
    a_row_of_bf16_weights_is_its_own: F32, Format::Floats(Bf16);
    a_row_of_bf16_weights_and_bf16_is_its_own: Bf16, Format::Floats(Bf16);
    a_row_of_bf16_weights_and_f16_is_its_own: F16, Format::Floats(Bf16);
    a_row_of_f16_weights_is_its_own: F32, Format::Floats(F16);
    a_row_of_f16_weights_and_f16_is_its_own: F16, Format::Floats(F16);
    a_row_of_bytes_is_its_own: F32, Format::Groups(I8, 32, false, F16);
    a_row_of_affine_bytes_is_its_own: Bf16, Format::Groups(I8, 32, true, F32);
    a_row_of_nibbles_is_its_own: F32, Format::Groups(I4, 32, true, Bf16);
    a_row_of_symmetric_nibbles_is_its_own: F32, Format::Groups(I4, 32, false, F32);
}
