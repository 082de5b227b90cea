//! Cases of `matmul`.

use crate::harness::{Bytes, Case, Machine, Magnitude, Noise, Output, Row, rounded_sums};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::math::Real;
use kernels_core::matmul::{self, Matmul};
use kernels_core::packing::{self, Source, Values, Weight};
use kernels_core::params;
use proptest::prelude::*;

/// A call of `matmul` with its buffers.
#[derive(Clone, Debug)]
pub struct MatmulCase {
    /// What its input is, where that is the point of it.
    pub input: &'static str,
    /// Its scalars.
    pub params: params::Matmul,
    /// Rows in use, where they are given.
    pub rows: Option<u32>,
    /// The input.
    pub x: Bytes,
    /// The packed matrix.
    pub weight: Bytes,
    /// Added to each output.
    pub bias: Option<Bytes>,
    /// The length of the output.
    pub out_bytes: usize,
}

/// How the elements of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// f32, f16 or bf16.
    Floats(Dtype),
    /// I8 or I4 in groups of a length, affine or symmetric, with scales of a type.
    Groups(Dtype, u32, bool, Dtype),
}

/// What a case is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Capacity and rows in use.
    pub rows: (u32, Option<u32>),
    /// Columns of the matrix.
    pub inputs: u32,
    /// Rows of the matrix.
    pub outputs: u32,
    /// Its elements.
    pub format: Format,
    /// Types of x and out.
    pub dtypes: (Dtype, Dtype),
    /// The type of the bias, if there is one.
    pub bias: Option<Dtype>,
    /// Elements between rows beyond their width.
    pub gap: u32,
    /// Seed of the values.
    pub seed: u64,
}

impl Format {
    /// The parameters of a matrix.
    pub fn weight(self, outputs: u32, inputs: u32) -> params::Weight {
        match self {
            Format::Floats(dtype) => {
                params::Weight { outputs, inputs, dtype: dtype as u32, ..Default::default() }
            }
            Format::Groups(dtype, group, affine, scale) => params::Weight {
                outputs,
                inputs,
                dtype: dtype as u32,
                scheme: if affine { params::SCHEME_AFFINE } else { params::SCHEME_SYMMETRIC },
                group,
                scale_dtype: scale as u32,
            },
        }
    }

    /// A matrix of noise, packed.
    pub fn packed(self, weight: &params::Weight, noise: &mut Noise) -> Bytes {
        let bytes = packing::packed_bytes(weight).expect("cases have good weights");
        let mut packed = Bytes::poisoned(bytes as usize);
        let count = weight.outputs as usize * weight.inputs as usize;
        let outputs = 0..weight.outputs;
        match self {
            Format::Floats(_) => {
                let values = Bytes::of(&noise.normals(count, 0.5));
                let source = Source::Floats { dtype: Dtype::F32, values: values.as_slice() };
                packing::pack(weight, outputs, source, packed.as_mut_slice())
            }
            Format::Groups(dtype, group, affine, scale) => {
                let per_byte = if dtype == Dtype::I4 { 2 } else { 1 };
                let numbers: Vec<u8> =
                    (0..count / per_byte).map(|_| (noise.word() >> 24) as u8).collect();
                let each = count / group as usize;
                let scales: Vec<f32> = (0..each).map(|_| 0.01 + 0.01 * noise.uniform()).collect();
                let scales = Bytes::rounded(scale, &scales);
                let biases = noise.normals(if affine { each } else { 0 }, 0.1);
                let biases = Bytes::rounded(scale, &biases);
                let source = Source::Groups {
                    numbers: &numbers,
                    scales: scales.as_slice(),
                    biases: biases.as_slice(),
                };
                packing::pack(weight, outputs, source, packed.as_mut_slice())
            }
        }
        .expect("cases have good weights");
        packed
    }
}

impl Shape {
    /// A plain call in f32.
    pub const fn plain(rows: u32, inputs: u32, outputs: u32, format: Format) -> Self {
        Self {
            rows: (rows, None),
            inputs,
            outputs,
            format,
            dtypes: (Dtype::F32, Dtype::F32),
            bias: None,
            gap: 0,
            seed: 1,
        }
    }

    /// The call with its values.
    pub fn case(self) -> MatmulCase {
        let (x_dtype, out_dtype) = self.dtypes;
        let mut noise = Noise::new(self.seed);
        let (x_stride, out_stride) = (self.inputs + self.gap, self.outputs + self.gap);
        let weight = self.format.weight(self.outputs, self.inputs);
        let params = params::Matmul {
            x_row_stride: u64::from(x_stride),
            out_row_stride: u64::from(out_stride),
            rows_max: self.rows.0,
            x_dtype: x_dtype as u32,
            bias_dtype: self.bias.map_or(0, |dtype| dtype as u32),
            out_dtype: out_dtype as u32,
            weight,
        };
        let elements = (self.rows.0 * x_stride) as usize;
        let mut values = noise.normals(elements, 1.0);
        // What lies between rows is no number.
        for (i, value) in values.iter_mut().enumerate() {
            if i as u32 % x_stride >= self.inputs {
                *value = f32::NAN;
            }
        }
        let outputs = self.outputs as usize;
        MatmulCase {
            input: "",
            params,
            rows: self.rows.1,
            x: Bytes::rounded(x_dtype, &values),
            weight: self.format.packed(&weight, &mut noise),
            bias: self.bias.map(|dtype| Bytes::rounded(dtype, &noise.normals(outputs, 2.0))),
            out_bytes: (self.rows.0 * out_stride) as usize * out_dtype.align() as usize,
        }
    }
}

/// Every format: one of each kind, groups of every length, scales of every type.
pub fn formats() -> Vec<Format> {
    use Dtype::{Bf16, F16, F32, I4, I8};
    let mut formats: Vec<Format> = [F32, F16, Bf16].map(Format::Floats).into();
    for dtype in [I4, I8] {
        for group in [32, 64, 128] {
            for affine in [true, false] {
                for scale in [F32, F16, Bf16] {
                    formats.push(Format::Groups(dtype, group, affine, scale));
                }
            }
        }
    }
    formats
}

/// The list.
pub fn cases() -> Vec<MatmulCase> {
    use Dtype::{Bf16, F16, F32, I4, I8};
    let mut shapes = Vec::new();
    // Around the segment of 512 and the look at pairs and sixteens.
    for dtype in [F32, F16, Bf16] {
        for inputs in [1, 2, 3, 15, 16, 17, 511, 512, 513, 1023, 1025] {
            shapes.push(Shape::plain(2, inputs, 33, Format::Floats(dtype)));
        }
    }
    for format in formats() {
        if let Format::Groups(_, group, ..) = format {
            for inputs in [group, 512 - group, 512, 512 + group, 1024 + group] {
                shapes.push(Shape::plain(2, inputs, 31, format));
            }
        }
    }
    let some = [
        Format::Floats(F32),
        Format::Floats(Bf16),
        Format::Groups(I4, 32, true, F16),
        Format::Groups(I8, 64, false, F16),
    ];
    for format in some {
        // Around tiles of 32 outputs and vectors of 16.
        for outputs in [1, 15, 16, 17, 31, 32, 33, 63, 64, 65] {
            shapes.push(Shape::plain(3, 128, outputs, format));
        }
        // Around panels of 7, 8 and 12 rows, and many of them.
        for rows in (1..=17).chain([24, 25, 31, 32, 33, 48, 49, 85, 90]) {
            shapes.push(Shape::plain(rows, 576, 33, format));
        }
    }
    // Odd inputs, widened for many panels.
    shapes.push(Shape::plain(61, 515, 40, Format::Floats(Bf16)));
    shapes.push(Shape::plain(61, 515, 40, Format::Floats(F16)));
    for x in [F32, F16, Bf16] {
        for out in [F32, F16, Bf16] {
            for format in [Format::Floats(F16), Format::Groups(I4, 64, true, Bf16)] {
                let shape = Shape::plain(3, 192, 40, format);
                shapes.push(Shape { dtypes: (x, out), bias: Some(x), gap: 3, ..shape });
            }
        }
    }
    let live = Shape::plain(9, 64, 40, Format::Groups(I8, 32, true, F32));
    shapes.push(Shape { rows: (9, Some(0)), ..live });
    shapes.push(Shape { rows: (9, Some(5)), gap: 5, ..live });
    let mut cases: Vec<MatmulCase> = shapes.into_iter().map(Shape::case).collect();
    cases.extend(ugly());
    cases.extend(of_either_type());
    cases
}

/// Few rows and many of each float type with weights of each: a device multiplies them in one to
/// three pieces.
fn of_either_type() -> Vec<MatmulCase> {
    use Dtype::{Bf16, F16, F32};
    let mut cases = Vec::new();
    for rows in [3, 40] {
        for (x, weight) in [(Bf16, Bf16), (F16, Bf16), (F16, F16), (Bf16, F16)] {
            let shape = Shape::plain(rows, 576, 36, Format::Floats(weight));
            cases.push(Shape { dtypes: (x, F32), ..shape }.case());
        }
    }
    cases
}

/// Zeros, extremes, numbers that are none.
fn ugly() -> Vec<MatmulCase> {
    let mut cases = Vec::new();
    for affine in [true, false] {
        let format = Format::Groups(Dtype::I4, 32, affine, Dtype::F16);
        let mut zeros = Shape::plain(2, 96, 20, format).case();
        zeros.x = Bytes::filled(zeros.x.len(), 0);
        zeros.input = " zeros";
        cases.push(zeros);
        // One element of each group is everything; the others round to nothing.
        let mut extreme = Shape::plain(2, 96, 20, format).case();
        let x: Vec<f32> = (0..192).map(|i| if i % 32 == 7 { 3e38 } else { 1e-3 }).collect();
        extreme.x = Bytes::of(&x);
        extreme.input = " extremes";
        cases.push(extreme);
        let mut small = Shape::plain(2, 96, 20, format).case();
        let x: Vec<f32> = (0..192).map(|i| [1e-30, 7.8e-31, 1e-40][i / 7 % 3]).collect();
        small.x = Bytes::of(&x);
        small.input = " small";
        cases.push(small);
        // NaN and infinity stay in their own row.
        let mut none = Shape::plain(4, 96, 20, format).case();
        none.x.as_mut_slice()[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        none.x.as_mut_slice()[800..804].copy_from_slice(&f32::INFINITY.to_le_bytes());
        cases.push(none);
    }
    let mut none = Shape::plain(14, 96, 20, Format::Floats(Dtype::Bf16)).case();
    none.x.as_mut_slice()[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    none.x.as_mut_slice()[800..804].copy_from_slice(&f32::INFINITY.to_le_bytes());
    cases.push(none);
    cases
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtype = || prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::Bf16)];
    let bias = proptest::option::of(dtype());
    let format = proptest::sample::select(formats());
    (1u32..20, 1u32..700, 1u32..70, 0u32..5, (dtype(), dtype(), bias), format, any::<u64>())
        .prop_map(|(rows, inputs, outputs, gap, (x, out, bias), format, seed)| {
            let inputs = match format {
                Format::Floats(_) => inputs,
                Format::Groups(_, group, ..) => inputs.div_ceil(group) * group,
            };
            let shape = Shape::plain(rows, inputs, outputs, format);
            Shape { gap, bias, dtypes: (x, out), seed, ..shape }
        })
}

/// How a weight's elements are stored, in a case's name.
pub fn format_name(weight: &params::Weight) -> String {
    let dtype = Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == weight.dtype);
    let dtype = dtype.map_or("?", Dtype::name);
    match weight.scheme {
        0 => dtype.to_owned(),
        1 => format!("{dtype} affine {} s{}", weight.group, weight.scale_dtype),
        _ => format!("{dtype} symmetric {} s{}", weight.group, weight.scale_dtype),
    }
}

impl MatmulCase {
    fn dtypes(&self) -> (Dtype, Dtype) {
        let find = |number| Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == number);
        // A malformed call may name none: it is refused before that matters.
        let find = |number| find(number).unwrap_or(Dtype::F32);
        (find(self.params.x_dtype), find(self.params.out_dtype))
    }

    fn packed(&self) -> Option<Weight> {
        Weight::parse(Checks("matmul"), &self.params.weight).ok()
    }
}

impl Case for MatmulCase {
    const KERNEL: &'static str = "matmul";

    fn name(&self) -> String {
        let (p, (x, out)) = (&self.params, self.dtypes());
        let (w, format) = (&p.weight, format_name(&p.weight));
        let live = self.rows.map_or(String::new(), |rows| format!(" live {rows}"));
        let bias = if self.bias.is_some() { " bias" } else { "" };
        let gap = p.x_row_stride.saturating_sub(u64::from(w.inputs));
        let (x, out) = (x.name(), out.name());
        format!(
            "{}x{}x{} {format} gap {gap} {x}-{out}{bias}{live}{}",
            p.rows_max, w.inputs, w.outputs, self.input
        )
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let (_, out_dtype) = self.dtypes();
        let mut out = Bytes::poisoned(self.out_bytes);
        let rows = self.rows.map(|rows| Bytes::of(&[rows]));
        let command = Matmul::<Host<'_>> {
            params: self.params,
            x: self.x.as_slice(),
            weight: self.weight.as_slice(),
            bias: self.bias.as_ref().map(Bytes::as_slice),
            out: out.as_mut_slice(),
            rows: rows.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        Ok(vec![Output { name: "out", dtype: out_dtype, bytes: out }])
    }

    fn within(&self, output: usize, _truth: &[Vec<Row<f64>>]) -> Vec<f64> {
        rounded_sums(&self.spec::<Magnitude>()[output])
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let (p, (x_dtype, _)) = (&self.params, self.dtypes());
        let real =
            |values: &[f32]| -> Vec<R> { values.iter().map(|&v| R::of(f64::from(v))).collect() };
        let weight = self.packed().expect("cases have good weights");
        let weights: Vec<Vec<R>> = (0..weight.outputs)
            .map(|output| packing::dequantise(&weight, self.weight.as_slice(), output))
            .collect();
        let bias_dtype = Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == p.bias_dtype);
        let bias = self.bias.as_ref().zip(bias_dtype).map(|(bytes, dtype)| bytes.floats(dtype));
        let x = self.x.floats(x_dtype);
        let mut outs = Vec::new();
        for row in 0..self.rows.unwrap_or(p.rows_max) as usize {
            let start = row * p.x_row_stride as usize;
            let x = &x[start..start + weight.inputs];
            let x = match weight.values {
                Values::Floats(_) => real(x),
                Values::Groups(groups) => matmul::quantised(x, groups.len),
            };
            let bias = |output| R::of(bias.as_ref().map_or(0.0, |bias| f64::from(bias[output])));
            let values = weights.iter().enumerate();
            let values = values.map(|(output, w)| matmul::spec(&x, w, bias(output))).collect();
            outs.push(Row { at: row * p.out_row_stride as usize, values });
        }
        vec![outs]
    }
}
