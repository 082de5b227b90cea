//! The truth of packed weights: what each row of a matrix stands for.

use super::{TILE, Values, Weight};
use crate::dtype::Dtype;
use crate::math::Real;
use alloc::vec::Vec;
use half::{bf16, f16};

/// The values of one output, without a rounding of their own: numbers in groups are
/// number · scale + bias in `R`.
pub fn dequantise<R: Real>(weight: &Weight, packed: &[u8], output: usize) -> Vec<R> {
    let (tile, lane) = (weight.tile(packed, output / TILE), output % TILE);
    let groups = match weight.values {
        Values::Groups(groups) => groups,
        Values::Floats(dtype) => {
            let place = |k: usize| match dtype {
                Dtype::Bf16 => (k / 2 * TILE + lane) * 2 + k % 2,
                _ => k * TILE + lane,
            };
            return (0..weight.inputs).map(|k| float(dtype, tile, place(k))).collect();
        }
    };
    let mut values = Vec::new();
    for k in 0..weight.inputs {
        let group = &tile[k / groups.len * groups.bytes()..][..groups.bytes()];
        let (head, body) = group.split_at(groups.head_bytes());
        let k = k % groups.len;
        let stored = match groups.nibbles {
            true if k % 8 < 4 => body[k / 8 * 128 + lane * 4 + k % 4] % 16,
            true => body[k / 8 * 128 + lane * 4 + k % 4] / 16,
            false => body[k / 4 * 128 + lane * 4 + k % 4],
        };
        let number = R::of(f64::from(i32::from(stored) - groups.offset()));
        let value = number * float::<R>(groups.scale, head, lane);
        values.push(match groups.affine {
            true => value + float::<R>(groups.scale, head, TILE + lane),
            false => value,
        });
    }
    values
}

fn float<R: Real>(dtype: Dtype, bytes: &[u8], at: usize) -> R {
    let each = dtype.align() as usize;
    let bytes = &bytes[at * each..(at + 1) * each];
    R::of(match dtype {
        Dtype::F32 => f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        Dtype::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
        _ => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f64(),
    })
}

#[cfg(test)]
mod tests {
    use crate::error::Checks;
    use crate::packing::{Source, Weight, dequantise, pack};
    use crate::params;

    /// One output of 32 numbers, 0 to 15 and again: scale 2, bias 100.
    #[test]
    fn a_nibble_of_three_with_scale_two_and_bias_a_hundred_is_106() {
        let params = params::Weight {
            outputs: 1,
            inputs: 32,
            dtype: params::DTYPE_I4,
            scheme: params::SCHEME_AFFINE,
            group: 32,
            scale_dtype: params::DTYPE_F32,
        };
        let numbers: [u8; 16] =
            core::array::from_fn(|i| (2 * i as u8 % 16) | ((2 * i as u8 + 1) % 16) << 4);
        let source = Source::Groups {
            numbers: &numbers,
            scales: &2f32.to_le_bytes(),
            biases: &100f32.to_le_bytes(),
        };
        let bytes = 32 * 8 + 32 * 16;
        let mut room = alloc::vec![0; bytes + 64];
        let start = room.as_ptr().align_offset(64);
        let packed = &mut room[start..start + bytes];
        pack(&params, 0..1, source, packed).expect("a good source is packed");
        let weight = Weight::parse(Checks("test"), &params).expect("good parameters");
        let values = dequantise::<f64>(&weight, packed, 0);
        assert_eq!((values[0], values[3], values[15], values[19]), (100.0, 106.0, 130.0, 106.0));
    }
}
