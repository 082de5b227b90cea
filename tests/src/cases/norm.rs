//! Cases of `norm`.

use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::math::Real;
use kernels_core::norm::{self, Norm};
use kernels_core::params;
use proptest::prelude::*;

/// A call of `norm` with its buffers.
#[derive(Clone, Debug)]
pub struct NormCase {
    /// Its scalars.
    pub params: params::Norm,
    /// Rows in use, where they are given.
    pub rows: Option<u32>,
    /// The input.
    pub x: Bytes,
    /// The weights.
    pub weight: Bytes,
    /// What x is added to.
    pub residual: Option<Bytes>,
    /// The length of the output.
    pub out_bytes: usize,
}

/// What a case is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Capacity and rows in use.
    pub rows: (u32, Option<u32>),
    /// Vectors of a row.
    pub heads: u32,
    /// Elements of a vector.
    pub columns: u32,
    /// Elements between rows beyond their width.
    pub gap: u32,
    /// Types of x, weight and out.
    pub dtypes: (Dtype, Dtype, Dtype),
    /// Whether x is added to a residual.
    pub residual: bool,
    /// Added to each weight.
    pub weight_offset: f32,
    /// Seed of the values.
    pub seed: u64,
}

impl Shape {
    /// A plain call in f32.
    pub const fn plain(rows: u32, heads: u32, columns: u32) -> Self {
        Self {
            rows: (rows, None),
            heads,
            columns,
            gap: 0,
            dtypes: (Dtype::F32, Dtype::F32, Dtype::F32),
            residual: false,
            weight_offset: 0.0,
            seed: 1,
        }
    }

    /// The call with its values.
    pub fn case(self) -> NormCase {
        let (x_dtype, weight_dtype, out_dtype) = self.dtypes;
        let width = self.heads * self.columns;
        let stride = u64::from(width + self.gap);
        let elements = self.rows.0 as usize * stride as usize;
        let mut noise = Noise::new(self.seed);
        let params = params::Norm {
            x_row_stride: stride,
            residual_row_stride: if self.residual { stride } else { 0 },
            out_row_stride: stride,
            rows_max: self.rows.0,
            heads: self.heads,
            columns: self.columns,
            x_dtype: x_dtype as u32,
            weight_dtype: weight_dtype as u32,
            out_dtype: out_dtype as u32,
            epsilon: 1e-5,
            weight_offset: self.weight_offset,
        };
        NormCase {
            params,
            rows: self.rows.1,
            x: Bytes::rounded(x_dtype, &noise.normals(elements, 2.0)),
            weight: Bytes::rounded(weight_dtype, &noise.normals(self.columns as usize, 1.0)),
            residual: self.residual.then(|| Bytes::rounded(x_dtype, &noise.normals(elements, 3.0))),
            out_bytes: elements * out_dtype.align() as usize,
        }
    }
}

/// The list.
pub fn cases() -> Vec<NormCase> {
    use Dtype::{Bf16, F16, F32};
    let mut shapes = Vec::new();
    // Around every constant of the order: 16 lanes, 64 partial sums.
    for columns in [1, 2, 15, 16, 17, 63, 64, 65, 72, 80, 127, 128, 129, 1000] {
        shapes.push(Shape::plain(2, 1, columns));
    }
    for x in [F32, F16, Bf16] {
        for weight in [F32, F16, Bf16] {
            for out in [F32, F16, Bf16] {
                let dtypes = (x, weight, out);
                shapes.push(Shape { dtypes, gap: 3, ..Shape::plain(3, 1, 96) });
                shapes.push(Shape { dtypes, residual: true, ..Shape::plain(2, 1, 65) });
            }
        }
    }
    shapes.push(Shape { weight_offset: 1.0, ..Shape::plain(2, 1, 64) });
    shapes.push(Shape { rows: (4, Some(0)), ..Shape::plain(4, 1, 32) });
    shapes.push(Shape { rows: (4, Some(3)), residual: true, gap: 5, ..Shape::plain(4, 1, 33) });
    // Norms of queries and keys, head by head.
    for (heads, columns) in [(3, 72), (5, 80), (32, 128)] {
        shapes.push(Shape { dtypes: (F32, Bf16, F32), ..Shape::plain(2, heads, columns) });
    }
    shapes.push(Shape { dtypes: (F32, Bf16, F32), residual: true, ..Shape::plain(20, 1, 2048) });
    let mut cases: Vec<NormCase> = shapes.into_iter().map(Shape::case).collect();
    // All zeros: epsilon alone keeps the scale finite.
    let mut zeros = Shape::plain(1, 1, 40).case();
    zeros.x = Bytes::filled(zeros.x.len(), 0);
    cases.push(zeros);
    // NaN and infinity stay in their own row.
    let mut ugly = Shape::plain(3, 1, 40).case();
    ugly.x.as_mut_slice()[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    ugly.x.as_mut_slice()[160..164].copy_from_slice(&f32::INFINITY.to_le_bytes());
    cases.push(ugly);
    cases
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtype = prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::Bf16)];
    let dtypes = (dtype.clone(), dtype.clone(), dtype);
    (1u32..6, 1u32..4, 1u32..200, 0u32..9, dtypes, any::<bool>(), any::<u64>()).prop_map(
        |(rows, heads, columns, gap, dtypes, residual, seed)| Shape {
            rows: (rows, None),
            heads,
            columns,
            gap,
            dtypes,
            residual,
            weight_offset: 0.0,
            seed,
        },
    )
}

impl NormCase {
    fn dtypes(&self) -> (Dtype, Dtype, Dtype) {
        let find = |number| Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == number);
        // A malformed call may name none: it is refused before that matters.
        let find = |number| find(number).unwrap_or(Dtype::F32);
        (find(self.params.x_dtype), find(self.params.weight_dtype), find(self.params.out_dtype))
    }
}

impl Case for NormCase {
    const KERNEL: &'static str = "norm";

    fn name(&self) -> String {
        let (p, (x, weight, out)) = (&self.params, self.dtypes());
        let (rows, x, weight, out) = (p.rows_max, x.name(), weight.name(), out.name());
        let live = self.rows.map_or(String::new(), |rows| format!(" live {rows}"));
        let residual = if self.residual.is_some() { " residual" } else { "" };
        let offset = match p.weight_offset {
            0.0 => String::new(),
            offset => format!(" offset {offset}"),
        };
        let width = u64::from(p.heads) * u64::from(p.columns);
        let gap = p.x_row_stride.saturating_sub(width);
        let sizes = format!("{rows}x{}x{} gap {gap}", p.heads, p.columns);
        format!("{sizes} {x}-{weight}-{out}{offset}{residual}{live}")
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let (x_dtype, _, out_dtype) = self.dtypes();
        let mut out = Bytes::poisoned(self.out_bytes);
        let mut residual = self.residual.clone();
        let rows = self.rows.map(|rows| Bytes::of(&[rows]));
        let command = Norm::<Host<'_>> {
            params: self.params,
            x: self.x.as_slice(),
            weight: self.weight.as_slice(),
            residual: residual.as_mut().map(Bytes::as_mut_slice),
            out: out.as_mut_slice(),
            rows: rows.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        let mut outputs = vec![Output { name: "out", dtype: out_dtype, bytes: out }];
        outputs.extend(residual.map(|bytes| Output { name: "residual", dtype: x_dtype, bytes }));
        Ok(outputs)
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let (p, (x_dtype, weight_dtype, _)) = (&self.params, self.dtypes());
        let real =
            |values: &[f32]| -> Vec<R> { values.iter().map(|&v| R::of(f64::from(v))).collect() };
        let (x, weight) = (self.x.floats(x_dtype), real(&self.weight.floats(weight_dtype)));
        let residual = self.residual.as_ref().map(|bytes| bytes.floats(x_dtype));
        let columns = p.columns as usize;
        let (mut outs, mut residuals) = (Vec::new(), Vec::new());
        for row in 0..self.rows.unwrap_or(p.rows_max) as usize {
            for head in 0..p.heads as usize {
                let at = |stride: u64| row * stride as usize + head * columns;
                let start = at(p.x_row_stride);
                let mut input = x[start..start + columns].to_vec();
                if let Some(residual) = &residual {
                    let start = at(p.residual_row_stride);
                    let sums = input.iter().zip(&residual[start..]).map(|(a, b)| a + b);
                    // The sum is normed as it is stored.
                    input = Bytes::rounded(x_dtype, &sums.collect::<Vec<_>>()).floats(x_dtype);
                    residuals.push(Row { at: start, values: real(&input) });
                }
                let (epsilon, offset) = (f64::from(p.epsilon), f64::from(p.weight_offset));
                let values = norm::spec(&real(&input), &weight, epsilon, offset);
                outs.push(Row { at: at(p.out_row_stride), values });
            }
        }
        if residual.is_some() { vec![outs, residuals] } else { vec![outs] }
    }
}
