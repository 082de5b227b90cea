//! Cases of `embed`.

use crate::harness::{Bytes, Case, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::embed::{self, Embed};
use kernels_core::math::Real;
use kernels_core::params;
use kernels_core::simd::Level;
use kernels_core::workers::Workers;
use proptest::prelude::*;

/// A call of `embed` with its buffers.
#[derive(Clone, Debug)]
pub struct EmbedCase {
    /// Its scalars.
    pub params: params::Embed,
    /// Rows in use, where they are given.
    pub rows: Option<u32>,
    /// The table.
    pub table: Bytes,
    /// Token ids.
    pub tokens: Vec<u32>,
    /// The length of the output.
    pub out_bytes: usize,
}

/// What a case is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Capacity and rows in use.
    pub rows: (u32, Option<u32>),
    /// Rows of the table.
    pub vocabulary: u32,
    /// Elements of a row.
    pub columns: u32,
    /// Elements between rows beyond their width.
    pub gap: u32,
    /// Types of the table and out.
    pub dtypes: (Dtype, Dtype),
    /// What rows are multiplied by.
    pub scale: f32,
    /// Seed of the values.
    pub seed: u64,
}

impl Shape {
    /// Rows of a table of 37 in f32.
    pub const fn plain(rows: u32, columns: u32) -> Self {
        Self {
            rows: (rows, None),
            vocabulary: 37,
            columns,
            gap: 0,
            dtypes: (Dtype::F32, Dtype::F32),
            scale: 1.0,
            seed: 1,
        }
    }

    /// The call with its values.
    pub fn case(self) -> EmbedCase {
        let (table_dtype, out_dtype) = self.dtypes;
        let stride = u64::from(self.columns + self.gap);
        let elements = |rows: u32| rows as usize * stride as usize;
        let mut noise = Noise::new(self.seed);
        let params = params::Embed {
            table_row_stride: stride,
            out_row_stride: stride,
            vocabulary: self.vocabulary,
            rows_max: self.rows.0,
            columns: self.columns,
            table_dtype: table_dtype as u32,
            out_dtype: out_dtype as u32,
            scale: self.scale,
        };
        let mut tokens: Vec<u32> = (0..self.rows.0).map(|_| noise.below(self.vocabulary)).collect();
        tokens[0] = self.vocabulary - 1;
        EmbedCase {
            params,
            rows: self.rows.1,
            table: Bytes::rounded(table_dtype, &noise.normals(elements(self.vocabulary), 2.0)),
            tokens,
            out_bytes: elements(self.rows.0) * out_dtype.align() as usize,
        }
    }
}

/// The list.
pub fn cases() -> Vec<EmbedCase> {
    use Dtype::{Bf16, F16, F32};
    let mut shapes = Vec::new();
    for columns in [1, 15, 16, 17, 72, 200] {
        shapes.push(Shape::plain(3, columns));
    }
    for table in [F32, F16, Bf16] {
        for out in [F32, F16, Bf16] {
            shapes.push(Shape { dtypes: (table, out), gap: 3, ..Shape::plain(3, 72) });
            shapes.push(Shape { dtypes: (table, out), scale: 45.25, ..Shape::plain(2, 40) });
        }
    }
    shapes.push(Shape { rows: (4, Some(0)), ..Shape::plain(4, 24) });
    shapes.push(Shape { rows: (4, Some(3)), vocabulary: 1, ..Shape::plain(4, 24) });
    shapes.push(Shape { dtypes: (Bf16, F32), ..Shape::plain(20, 2048) });
    let mut cases: Vec<EmbedCase> = shapes.into_iter().map(Shape::case).collect();
    // NaN and infinity in rows that were asked for and in one that was not.
    let mut ugly = Shape::plain(2, 4).case();
    ugly.tokens = vec![0, 2];
    for (at, x) in [(0, f32::NAN), (1, f32::INFINITY), (5, f32::NAN), (9, -0.0)] {
        ugly.table.as_mut_slice()[at * 4..at * 4 + 4].copy_from_slice(&x.to_le_bytes());
    }
    cases.push(ugly);
    cases
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtype = prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]);
    let scale = prop_oneof![Just(1.0f32), 0.1f32..50.0];
    let sizes = (1u32..6, 1u32..40, 1u32..100, 0u32..9);
    (sizes, (dtype.clone(), dtype), scale, any::<u64>()).prop_map(
        |((rows, vocabulary, columns, gap), dtypes, scale, seed)| Shape {
            rows: (rows, None),
            vocabulary,
            columns,
            gap,
            dtypes,
            scale,
            seed,
        },
    )
}

impl EmbedCase {
    fn dtypes(&self) -> (Dtype, Dtype) {
        let find = |number| Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == number);
        // A malformed call may name none: it is refused before that matters.
        let find = |number| find(number).unwrap_or(Dtype::F32);
        (find(self.params.table_dtype), find(self.params.out_dtype))
    }
}

impl Case for EmbedCase {
    const KERNEL: &'static str = "embed";

    fn name(&self) -> String {
        let (p, (table, out)) = (&self.params, self.dtypes());
        let (table, out) = (table.name(), out.name());
        let live = self.rows.map_or(String::new(), |rows| format!(" live {rows}"));
        let (sizes, scale) = (format!("{}x{} of {}", p.rows_max, p.columns, p.vocabulary), p.scale);
        format!("{sizes} {table}-{out} scale {scale}{live}")
    }

    fn run(&self, level: Level, workers: &dyn Workers) -> Result<Vec<Output>, Error> {
        let mut out = Bytes::poisoned(self.out_bytes);
        let tokens = Bytes::of(&self.tokens);
        let rows = self.rows.map(|rows| Bytes::of(&[rows]));
        let command = Embed::<Host<'_>> {
            params: self.params,
            table: self.table.as_slice(),
            tokens: tokens.as_slice(),
            out: out.as_mut_slice(),
            rows: rows.as_ref().map(Bytes::as_slice),
        };
        embed::run(level, workers, command)?;
        Ok(vec![Output { name: "out", dtype: self.dtypes().1, bytes: out }])
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let p = &self.params;
        let table = self.table.floats(self.dtypes().0);
        let rows = (0..self.rows.unwrap_or(p.rows_max) as usize).map(|row| {
            let start = self.tokens[row] as usize * p.table_row_stride as usize;
            let values = &table[start..start + p.columns as usize];
            let values: Vec<R> = values.iter().map(|&x| R::of(f64::from(x))).collect();
            let values = embed::spec(&values, f64::from(p.scale));
            Row { at: row * p.out_row_stride as usize, values }
        });
        vec![rows.collect()]
    }
}
