//! Cases of `activation`.

use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::activation::{self, Activation, GELU_CUBIC, GELU_LINEAR, Kind};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::math::Real;
use kernels_core::params;
use proptest::prelude::*;

/// A call of `activation` with its buffers.
#[derive(Clone, Debug)]
pub struct ActivationCase {
    /// Its scalars.
    pub params: params::Activation,
    /// Rows in use, where they are given.
    pub rows: Option<u32>,
    /// Gate and up.
    pub x: Bytes,
    /// The length of the output.
    pub out_bytes: usize,
}

/// What a case is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Capacity and rows in use.
    pub rows: (u32, Option<u32>),
    /// Elements of a gate.
    pub columns: u32,
    /// Elements between gate and up beyond the gate's; absent without up.
    pub up: Option<u32>,
    /// Elements between rows beyond their width.
    pub gap: u32,
    /// The function.
    pub kind: Kind,
    /// Types of x and out.
    pub dtypes: (Dtype, Dtype),
    /// Seed of the values.
    pub seed: u64,
}

impl Shape {
    /// SwiGLU in f32.
    pub const fn plain(rows: u32, columns: u32) -> Self {
        Self {
            rows: (rows, None),
            columns,
            up: Some(0),
            gap: 0,
            kind: Kind::Silu,
            dtypes: (Dtype::F32, Dtype::F32),
            seed: 1,
        }
    }

    /// The call with its values.
    pub fn case(self) -> ActivationCase {
        let (x_dtype, out_dtype) = self.dtypes;
        let up_offset = self.up.map_or(0, |between| self.columns + between);
        let x_row_stride = u64::from(up_offset + self.columns + self.gap);
        let out_row_stride = u64::from(self.columns + self.gap);
        let elements = |stride: u64| self.rows.0 as usize * stride as usize;
        let mut noise = Noise::new(self.seed);
        let params = params::Activation {
            x_row_stride,
            out_row_stride,
            rows_max: self.rows.0,
            columns: self.columns,
            up_offset,
            kind: match self.kind {
                Kind::Silu => params::ACTIVATION_SILU,
                Kind::GeluTanh => params::ACTIVATION_GELU_TANH,
            },
            x_dtype: x_dtype as u32,
            out_dtype: out_dtype as u32,
        };
        ActivationCase {
            params,
            rows: self.rows.1,
            x: Bytes::rounded(x_dtype, &noise.normals(elements(x_row_stride), 3.0)),
            out_bytes: elements(out_row_stride) * out_dtype.align() as usize,
        }
    }
}

/// The list.
pub fn cases() -> Vec<ActivationCase> {
    use Dtype::{Bf16, F16, F32};
    let mut shapes = Vec::new();
    for kind in [Kind::Silu, Kind::GeluTanh] {
        // Around the 16 lanes.
        for columns in [1, 15, 16, 17, 32, 33, 200] {
            shapes.push(Shape { kind, ..Shape::plain(2, columns) });
            shapes.push(Shape { kind, up: None, gap: 3, ..Shape::plain(2, columns) });
        }
        for x in [F32, F16, Bf16] {
            for out in [F32, F16, Bf16] {
                let dtypes = (x, out);
                shapes.push(Shape { kind, dtypes, up: Some(5), gap: 1, ..Shape::plain(3, 72) });
            }
        }
        shapes.push(Shape { kind, rows: (4, Some(0)), ..Shape::plain(4, 24) });
        shapes.push(Shape { kind, rows: (4, Some(3)), ..Shape::plain(4, 24) });
    }
    shapes.push(Shape { dtypes: (F32, Bf16), ..Shape::plain(4, 5632) });
    let mut cases: Vec<ActivationCase> = shapes.into_iter().map(Shape::case).collect();
    // Zeros, the ends of exp, overflow of the cube, infinity and NaN, each its own row:
    // the rule measures errors against the row's largest.
    for kind in [Kind::Silu, Kind::GeluTanh] {
        let ugly = [0.0, -0.0, 1e-30, -86.9, -87.1, -88.3, -1e3, 90.0, -1e20, 1e30];
        let ugly = [&ugly[..], &[f32::INFINITY, f32::NEG_INFINITY, f32::NAN]].concat();
        let mut case = Shape { kind, up: None, ..Shape::plain(ugly.len() as u32, 1) }.case();
        case.x = Bytes::of(&ugly);
        cases.push(case);
        // Beyond exp's end the last 4e-37 are zero, which only a neighbour forgives.
        let mut case = Shape { kind, up: None, ..Shape::plain(1, 3) }.case();
        case.x = Bytes::of(&[-88.5f32, 1.0, -100.0]);
        cases.push(case);
    }
    cases
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtype = prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]);
    let kind = prop_oneof![Just(Kind::Silu), Just(Kind::GeluTanh)];
    let up = prop::option::of(0u32..9);
    (1u32..6, 1u32..100, up, 0u32..9, kind, (dtype.clone(), dtype), any::<u64>()).prop_map(
        |(rows, columns, up, gap, kind, dtypes, seed)| Shape {
            rows: (rows, None),
            columns,
            up,
            gap,
            kind,
            dtypes,
            seed,
        },
    )
}

impl ActivationCase {
    fn dtypes(&self) -> (Dtype, Dtype) {
        let find = |number| Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == number);
        // A malformed call may name none: it is refused before that matters.
        let find = |number| find(number).unwrap_or(Dtype::F32);
        (find(self.params.x_dtype), find(self.params.out_dtype))
    }
}

impl Case for ActivationCase {
    const KERNEL: &'static str = "activation";

    fn name(&self) -> String {
        let (p, (x, out)) = (&self.params, self.dtypes());
        let (x, out) = (x.name(), out.name());
        let live = self.rows.map_or(String::new(), |rows| format!(" live {rows}"));
        format!("{}x{} up {} kind {} {x}-{out}{live}", p.rows_max, p.columns, p.up_offset, p.kind)
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let mut out = Bytes::poisoned(self.out_bytes);
        let rows = self.rows.map(|rows| Bytes::of(&[rows]));
        let command = Activation::<Host<'_>> {
            params: self.params,
            x: self.x.as_slice(),
            out: out.as_mut_slice(),
            rows: rows.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        Ok(vec![Output { name: "out", dtype: self.dtypes().1, bytes: out }])
    }

    /// Far below zero both functions are g·eᶻ: four roundings of z are an error of 4 eps |z|.
    fn within(&self, _output: usize, truth: &[Vec<Row<f64>>]) -> Vec<f64> {
        let p = &self.params;
        let x = self.x.floats(self.dtypes().0);
        let exponent = |g: f64| match p.kind {
            params::ACTIVATION_SILU => g,
            _ => g * (f64::from(GELU_CUBIC) * g * g + f64::from(GELU_LINEAR)),
        };
        let rows = truth[0].iter().enumerate().map(|(number, row)| {
            let gates = &x[number * p.x_row_stride as usize..];
            let terms = row.values.iter().zip(gates).map(|(value, &gate)| {
                4.0 * f64::from(f32::EPSILON) * (-exponent(gate.into())).max(0.0) * value.abs()
            });
            terms.filter(|term| term.is_finite()).fold(0.0, f64::max)
        });
        rows.collect()
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let p = &self.params;
        let x = self.x.floats(self.dtypes().0);
        let kind = match p.kind {
            params::ACTIVATION_SILU => Kind::Silu,
            _ => Kind::GeluTanh,
        };
        let real = |x: f32| R::of(f64::from(x));
        let rows = (0..self.rows.unwrap_or(p.rows_max) as usize).map(|row| {
            let start = row * p.x_row_stride as usize;
            let values = (start..start + p.columns as usize).map(|at| {
                let up = if p.up_offset == 0 { 1.0 } else { x[at + p.up_offset as usize] };
                activation::spec(kind, real(x[at]), real(up))
            });
            Row { at: row * p.out_row_stride as usize, values: values.collect() }
        });
        vec![rows.collect()]
    }
}
