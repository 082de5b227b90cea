//! `pack` on any parameters and sources: refused with nothing written, for a reason that
//! the parameters or the source give; or every output says what its source said, to
//! `dequantise` and, at every level, to `unpack_row`.

use super::Input;
use super::shapes::Change;
use crate::harness::Bytes;
use half::{bf16, f16};
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::packing::{Source, Values, Weight, dequantise, pack, packed_bytes, unpack_row};
use kernels_core::params;
use kernels_core::simd::Level;
use std::ops::Range;

const FLOATS: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];
/// Larger matrices are given a buffer that is too short.
const BYTES_MAX: u64 = 1 << 20;

/// One input: parameters, the type of a source, what is wrong with it, its bytes.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut params = drawn(&mut input);
    let change = Change::from(&mut input);
    if input.below(4) == 0 {
        change.of(bytemuck::bytes_of_mut(&mut params));
    }
    let from = input.one_of(&FLOATS);
    let cut = input.below(params.outputs.clamp(1, 200) + 1);
    let faults = [input.below(16), input.below(16), input.below(16)];
    let weight = Weight::parse(Checks("fuzz"), &params);
    let bytes = packed_bytes(&params);
    assert_eq!(weight.is_ok(), bytes.is_ok(), "one check of parameters");
    assert_eq!(weight.is_ok(), is_good(&params), "the contract of parameters");
    let bytes = bytes.unwrap_or(64);
    let mut packed = Bytes::poisoned(bytes.min(BYTES_MAX) as usize);
    let mut written = Vec::new();
    for mut outputs in [cut..params.outputs, 0..cut] {
        if faults[0] == 0 {
            outputs.end = outputs.end.wrapping_add(faults[1]);
        }
        let count = u64::from(outputs.end.saturating_sub(outputs.start));
        let few = count * u64::from(params.inputs) <= BYTES_MAX;
        let rows = Rows::of(&params, from, if few { count as usize } else { 0 }, &faults, input);
        let before = packed.as_slice().to_vec();
        let outcome = pack(&params, outputs.clone(), rows.source(), packed.as_mut_slice());
        let fits = weight.is_ok_and(|weight| weight.bytes() <= packed.as_slice().len() as u64);
        let within = outputs.start <= outputs.end && outputs.end <= params.outputs;
        let good = fits && within && few && rows.is_good(&params);
        assert_eq!(outcome.is_ok(), good, "{params:?} {outputs:?}: {outcome:?}");
        if good {
            written.push((outputs, rows));
        } else {
            assert_eq!(before, packed.as_slice(), "a refused source leaves all as it was");
        }
    }
    let Ok(weight) = weight else { return };
    for (outputs, rows) in written {
        assert_said(&weight, packed.as_slice(), outputs, &rows);
    }
}

/// Parameters that are good, for the most part.
fn drawn(input: &mut Input<'_>) -> params::Weight {
    let outputs = 1 + input.below(100);
    match input.below(5) {
        float @ 0..3 => params::Weight {
            outputs,
            inputs: 1 + input.below(200),
            dtype: FLOATS[float as usize] as u32,
            ..params::Weight::default()
        },
        nibbles => {
            let group = input.one_of(&[32, 64, 128]);
            params::Weight {
                outputs,
                inputs: group * (1 + input.below(3)),
                dtype: if nibbles == 3 { params::DTYPE_I4 } else { params::DTYPE_I8 },
                scheme: 1 + input.below(2),
                group,
                scale_dtype: input.one_of(&FLOATS) as u32,
            }
        }
    }
}

/// What the header says of a matrix.
fn is_good(p: &params::Weight) -> bool {
    let floats = FLOATS.map(|dtype| dtype as u32);
    let sizes = (1..=1 << 24).contains(&p.outputs) && (1..=1 << 20).contains(&p.inputs);
    let scheme = match p.dtype {
        params::DTYPE_I8 | params::DTYPE_I4 => {
            (1..=2).contains(&p.scheme)
                && [32, 64, 128].contains(&p.group)
                && p.inputs.is_multiple_of(p.group)
                && floats.contains(&p.scale_dtype)
        }
        dtype => floats.contains(&dtype) && [p.scheme, p.group, p.scale_dtype] == [0; 3],
    };
    sizes && scheme
}

/// The rows of a checkpoint.
struct Rows {
    /// Their type, where they are floats.
    floats: Option<Dtype>,
    count: usize,
    numbers: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

impl Rows {
    /// So many rows of the shape that the parameters ask for, unless a fault is asked for.
    fn of(
        p: &params::Weight,
        from: Dtype,
        count: usize,
        faults: &[u32; 3],
        input: Input<'_>,
    ) -> Self {
        let grouped = [params::DTYPE_I8, params::DTYPE_I4].contains(&p.dtype) != (faults[1] == 1);
        let inputs = if count == 0 { 0 } else { p.inputs as usize };
        let (each, groups) = (count * inputs, count * inputs / p.group.max(1) as usize);
        let scale_bytes = if p.scale_dtype == params::DTYPE_F32 { 4 } else { 2 };
        let scales_len = if grouped { groups * scale_bytes } else { 0 };
        let biases_len = if p.scheme == params::SCHEME_AFFINE { scales_len } else { 0 };
        let numbers_len = match (grouped, p.dtype) {
            (true, params::DTYPE_I4) => each / 2,
            (true, _) => each,
            _ => each * from.align() as usize,
        };
        let wrong = |part: u32| usize::from(faults[2] == part);
        Self {
            floats: (!grouped).then_some(from),
            count,
            numbers: spread(input, 1, numbers_len + wrong(1)),
            scales: spread(input, 2, scales_len + wrong(2)),
            biases: spread(input, 3, biases_len + wrong(3)),
        }
    }

    fn source(&self) -> Source<'_> {
        match self.floats {
            Some(dtype) => Source::Floats { dtype, values: &self.numbers },
            None => Source::Groups {
                numbers: &self.numbers,
                scales: &self.scales,
                biases: &self.biases,
            },
        }
    }

    /// Whether good parameters take them.
    fn is_good(&self, p: &params::Weight) -> bool {
        let each = self.count * p.inputs as usize;
        let Some(dtype) = self.floats else {
            if p.group == 0 {
                return false;
            }
            let scale = if p.scale_dtype == params::DTYPE_F32 { 4 } else { 2 };
            let numbers = if p.dtype == params::DTYPE_I4 { each / 2 } else { each };
            let scales = each / p.group as usize * scale;
            let biases = if p.scheme == params::SCHEME_AFFINE { scales } else { 0 };
            let lens = [self.numbers.len(), self.scales.len(), self.biases.len()];
            let finite = |bytes: &Vec<u8>| {
                bytes.chunks_exact(scale).all(|bytes| float(p.scale_dtype, bytes).is_finite())
            };
            return lens == [numbers, scales, biases]
                && finite(&self.scales)
                && finite(&self.biases);
        };
        p.group == 0 && self.numbers.len() == each * dtype.align() as usize
    }

    /// Number, scale and bias of an element, or a float rounded to the packed type.
    fn element(&self, weight: &Weight, row: usize, k: usize) -> (f32, Option<(f32, Option<f32>)>) {
        let at = row * weight.inputs + k;
        let groups = match weight.values {
            Values::Floats(to) => {
                let from = self.floats.expect("floats are packed from floats");
                let each = from.align() as usize;
                let value = float(from as u32, &self.numbers[at * each..][..each]);
                return (rounded(to, value), None);
            }
            Values::Groups(groups) => groups,
        };
        let stored = match groups.nibbles {
            true => self.numbers[at / 2] >> (4 * (at % 2)) & 15,
            false => self.numbers[at],
        };
        let number = match (groups.affine, groups.nibbles) {
            (true, _) => f32::from(stored),
            (false, true) => f32::from((stored << 4) as i8 >> 4),
            (false, false) => f32::from(stored as i8),
        };
        let each = groups.scale.align() as usize;
        let of =
            |bytes: &[u8]| float(groups.scale as u32, &bytes[at / groups.len * each..][..each]);
        (number, Some((of(&self.scales), groups.affine.then(|| of(&self.biases)))))
    }
}

/// The packed outputs are those rows: in f64 exactly, and in f32 by the bits that one
/// product or one fma gives.
fn assert_said(weight: &Weight, packed: &[u8], outputs: Range<u32>, rows: &Rows) {
    let mut unpacked = vec![0.0; weight.inputs];
    for (row, output) in outputs.enumerate() {
        let truth = dequantise::<f64>(weight, packed, output as usize);
        for level in Level::all() {
            unpack_row(level, weight, packed, output as usize, &mut unpacked);
            for (k, (&truth, &unpacked)) in truth.iter().zip(&unpacked).enumerate() {
                let (number, scaled) = rows.element(weight, row, k);
                let wide = f64::from(number);
                let (exact, single) = match scaled {
                    None => (wide, number),
                    Some((scale, None)) => (wide * f64::from(scale), number * scale),
                    Some((scale, Some(bias))) => {
                        (wide * f64::from(scale) + f64::from(bias), number.mul_add(scale, bias))
                    }
                };
                let same = truth == exact || truth.is_nan() && exact.is_nan();
                assert!(same, "output {output}, input {k} of {weight:?}: {truth}");
                let same = unpacked.to_bits() == single.to_bits();
                let same = same || unpacked.is_nan() && single.is_nan();
                assert!(same, "output {output}, input {k} of {weight:?}, {level:?}: {unpacked}");
            }
        }
    }
}

/// Bytes that the rest of an input repeats, no repetition like another.
fn spread(input: Input<'_>, part: u8, len: usize) -> Vec<u8> {
    let rest = input.rest();
    let of = |at: usize| match rest.len() {
        0 => 0,
        len => rest[at % len].wrapping_mul(part).wrapping_add(29u8.wrapping_mul((at / len) as u8)),
    };
    (0..len).map(of).collect()
}

fn float(dtype: u32, bytes: &[u8]) -> f32 {
    match dtype {
        params::DTYPE_F32 => f32::from_le_bytes(bytes.try_into().expect("four bytes")),
        params::DTYPE_F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        _ => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
    }
}

fn rounded(to: Dtype, value: f32) -> f32 {
    match to {
        Dtype::F32 => value,
        Dtype::F16 => f16::from_f32(value).to_f32(),
        _ => bf16::from_f32(value).to_f32(),
    }
}
