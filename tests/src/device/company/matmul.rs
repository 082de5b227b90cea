//! `matmul`: a row's bits are its own, whoever it goes with and whichever tile takes it.

use super::Device;
use crate::cases::matmul::{Format, MatmulCase, Shape};
use crate::harness::{Bytes, Case, Recorded};
use kernels_core::dtype::Dtype;

/// Rows of the company: two blocks of many, the second one partly full.
const ALL: u32 = 130;
/// Two segments and a part of a third, which is no whole chunk either way.
const INPUTS: u32 = 1056;
/// Three tiles: of two side by side, one is none.
const OUTPUTS: u32 = 72;

fn words(case: &MatmulCase, device: &mut Device) -> Vec<u32> {
    let outputs = case.call(&mut Recorded(&mut device.plugin)).expect("a good call runs");
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

fn assert_a_row_is_its_own(device: &mut Device, x: Dtype, format: Format) {
    let shape = Shape::plain(ALL, INPUTS, OUTPUTS, format);
    let all = Shape { dtypes: (x, Dtype::F32), ..shape }.case();
    (device.schedule)(0);
    let expected = words(&all, device);
    let width = OUTPUTS as usize;
    for count in [1, 2, 15, 16, 17, 64] {
        (device.schedule)(u64::from(count));
        let got = words(&last_rows(&all, count), device);
        let own = &expected[(ALL - count) as usize * width..];
        assert!(got == own, "{format:?} of {x:?}: the last {count} rows on their own");
        // Recorded for many, used by few.
        let some = MatmulCase { rows: Some(count), ..all.clone() };
        let got = words(&some, device);
        let own = count as usize * width;
        assert!(got[..own] == expected[..own], "{format:?} of {x:?}: {count} rows of {ALL}");
    }
}

macro_rules! formats {
    ($($name:ident: $x:ident, $format:expr;)*) => {$(
        /// So of this format.
        pub fn $name(device: &mut Device) {
            assert_a_row_is_its_own(device, Dtype::$x, $format);
        }
    )*};
}

formats! {
    a_row_of_f32_weights_is_its_own: F32, Format::Floats(Dtype::F32);
    a_row_of_bf16_weights_is_its_own: F32, Format::Floats(Dtype::Bf16);
    a_row_of_bf16_weights_and_bf16_is_its_own: Bf16, Format::Floats(Dtype::Bf16);
    a_row_of_bf16_weights_and_f16_is_its_own: F16, Format::Floats(Dtype::Bf16);
    a_row_of_f16_weights_is_its_own: F32, Format::Floats(Dtype::F16);
    a_row_of_f16_weights_and_f16_is_its_own: F16, Format::Floats(Dtype::F16);
    a_row_of_bytes_is_its_own: F32, Format::Groups(Dtype::I8, 32, false, Dtype::F16);
    a_row_of_affine_bytes_is_its_own: Bf16, Format::Groups(Dtype::I8, 32, true, Dtype::F32);
    a_row_of_nibbles_is_its_own: F32, Format::Groups(Dtype::I4, 32, true, Dtype::Bf16);
    a_row_of_symmetric_nibbles_is_its_own: F32, Format::Groups(Dtype::I4, 32, false, Dtype::F32);
}
