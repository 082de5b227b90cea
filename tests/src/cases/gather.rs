//! Cases of `gather`.

use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::gather::{self, Gather};
use kernels_core::math::Real;
use kernels_core::params;
use proptest::prelude::*;

/// A call of `gather` with its buffers.
#[derive(Clone, Debug)]
pub struct GatherCase {
    /// Its scalars.
    pub params: params::Gather,
    /// Rows in use, where they are given.
    pub rows: Option<u32>,
    /// The matrix.
    pub x: Bytes,
    /// Which rows of it.
    pub indices: Vec<u32>,
    /// The length of the output.
    pub out_bytes: usize,
}

/// What a case is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Capacity and rows in use.
    pub rows: (u32, Option<u32>),
    /// Rows of x.
    pub x_rows: u32,
    /// Elements of a row.
    pub columns: u32,
    /// Elements between rows beyond their width.
    pub gap: u32,
    /// The type of all elements.
    pub dtype: Dtype,
    /// Seed of the values.
    pub seed: u64,
}

impl Shape {
    /// Rows of a matrix of 11 in f32.
    pub const fn plain(rows: u32, columns: u32) -> Self {
        Self { rows: (rows, None), x_rows: 11, columns, gap: 0, dtype: Dtype::F32, seed: 1 }
    }

    /// The call with its values.
    pub fn case(self) -> GatherCase {
        let stride = u64::from(self.columns + self.gap);
        let bytes = |rows: u32| rows as usize * stride as usize * self.dtype.align() as usize;
        let mut noise = Noise::new(self.seed);
        let params = params::Gather {
            x_row_stride: stride,
            out_row_stride: stride,
            x_rows: self.x_rows,
            rows_max: self.rows.0,
            columns: self.columns,
            dtype: self.dtype as u32,
        };
        let mut indices: Vec<u32> = (0..self.rows.0).map(|_| noise.below(self.x_rows)).collect();
        indices[0] = self.x_rows - 1;
        // Any bits are elements to a copy, NaNs too.
        let words: Vec<u32> = (0..bytes(self.x_rows).div_ceil(4)).map(|_| noise.word()).collect();
        GatherCase {
            params,
            rows: self.rows.1,
            x: Bytes::of(&bytemuck::cast_slice::<u32, u8>(&words)[..bytes(self.x_rows)]),
            indices,
            out_bytes: bytes(self.rows.0),
        }
    }
}

/// The list.
pub fn cases() -> Vec<GatherCase> {
    let mut shapes = Vec::new();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::E4m3, Dtype::I8] {
        for columns in [1, 17, 72] {
            shapes.push(Shape { dtype, gap: 3, ..Shape::plain(5, columns) });
        }
    }
    shapes.push(Shape { x_rows: 1, ..Shape::plain(3, 16) });
    shapes.push(Shape { rows: (4, Some(0)), ..Shape::plain(4, 16) });
    shapes.push(Shape { rows: (4, Some(3)), gap: 1, ..Shape::plain(4, 16) });
    // More rows than each block of a device checks itself.
    shapes.push(Shape::plain(520, 8));
    shapes.into_iter().map(Shape::case).collect()
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtypes = vec![Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::E4m3, Dtype::I8];
    let dtype = prop::sample::select(dtypes);
    (1u32..6, 1u32..20, 1u32..100, 0u32..9, dtype, any::<u64>()).prop_map(
        |(rows, x_rows, columns, gap, dtype, seed)| Shape {
            rows: (rows, None),
            x_rows,
            columns,
            gap,
            dtype,
            seed,
        },
    )
}

impl Case for GatherCase {
    const KERNEL: &'static str = "gather";

    fn name(&self) -> String {
        let p = &self.params;
        let dtype = Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == p.dtype);
        let dtype = dtype.map_or("none", Dtype::name);
        let live = self.rows.map_or(String::new(), |rows| format!(" live {rows}"));
        format!("{}x{} of {} {dtype}{live}", p.rows_max, p.columns, p.x_rows)
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let mut out = Bytes::poisoned(self.out_bytes);
        let indices = Bytes::of(&self.indices);
        let rows = self.rows.map(|rows| Bytes::of(&[rows]));
        let command = Gather::<Host<'_>> {
            params: self.params,
            x: self.x.as_slice(),
            indices: indices.as_slice(),
            out: out.as_mut_slice(),
            rows: rows.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        // Bytes are compared as such: a copied NaN keeps its bits.
        Ok(vec![Output { name: "out", dtype: Dtype::I8, bytes: out }])
    }

    /// The output holds the rows of the specification, and between them what it held.
    fn assert_answer(&self, outputs: &[Output]) {
        let p = &self.params;
        let element = (Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == p.dtype))
            .expect("the call ran")
            .align() as usize;
        let bytes = p.columns as usize * element;
        let row = |row: u32| {
            self.x.as_slice()[row as usize * p.x_row_stride as usize * element..][..bytes].to_vec()
        };
        let rows: Vec<Vec<u8>> = (0..p.x_rows).map(row).collect();
        let used = self.rows.unwrap_or(p.rows_max) as usize;
        let mut expected = Bytes::poisoned(self.out_bytes);
        for (at, row) in gather::spec(&rows, &self.indices[..used]).into_iter().enumerate() {
            let start = at * p.out_row_stride as usize * element;
            expected.as_mut_slice()[start..start + bytes].copy_from_slice(&row);
        }
        assert!(outputs[0].bytes.as_slice() == expected.as_slice(), "{}", self.name());
    }

    /// Copies have no arithmetic: see `assert_answer`.
    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        vec![Vec::new()]
    }
}
