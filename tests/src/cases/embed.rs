//! Cases of `embed`: tables of plain rows, and every packed weight.

use super::matmul::{Format, format_name, formats};
use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::embed::{self, Embed};
use kernels_core::error::Checks;
use kernels_core::math::Real;
use kernels_core::packing::{self, Values, Weight};
use kernels_core::params;
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

/// How a table lies.
#[derive(Clone, Copy, Debug)]
pub enum Table {
    /// Plain rows of f32, f16 or bf16.
    Plain(Dtype),
    /// Packed as for `matmul`.
    Packed(Format),
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
    /// The table.
    pub table: Table,
    /// The type of out.
    pub out: Dtype,
    /// What rows are multiplied by.
    pub scale: f32,
    /// Seed of the values.
    pub seed: u64,
}

impl Shape {
    /// Plain rows of a table of 37 in f32.
    pub const fn plain(rows: u32, columns: u32) -> Self {
        Self {
            rows: (rows, None),
            vocabulary: 37,
            columns,
            gap: 0,
            table: Table::Plain(Dtype::F32),
            out: Dtype::F32,
            scale: 1.0,
            seed: 1,
        }
    }

    /// Rows of a packed table of 37: a whole tile, and five outputs of the next.
    pub const fn packed(rows: u32, columns: u32, format: Format) -> Self {
        Self { table: Table::Packed(format), ..Self::plain(rows, columns) }
    }

    /// The call with its values.
    pub fn case(self) -> EmbedCase {
        let stride = u64::from(self.columns + self.gap);
        let elements = |rows: u32| rows as usize * stride as usize;
        let mut noise = Noise::new(self.seed);
        let mut tokens: Vec<u32> = (0..self.rows.0).map(|_| noise.below(self.vocabulary)).collect();
        tokens[0] = self.vocabulary - 1;
        let (format, packed) = match self.table {
            Table::Plain(dtype) => (Format::Floats(dtype), false),
            Table::Packed(format) => (format, true),
        };
        let weight = format.weight(self.vocabulary, self.columns);
        let table = match self.table {
            Table::Plain(dtype) => {
                Bytes::rounded(dtype, &noise.normals(elements(self.vocabulary), 2.0))
            }
            Table::Packed(format) => format.packed(&weight, &mut noise),
        };
        let params = params::Embed {
            table_row_stride: if packed { 0 } else { stride },
            out_row_stride: stride,
            rows_max: self.rows.0,
            packed: packed.into(),
            out_dtype: self.out as u32,
            scale: self.scale,
            weight,
        };
        let out_bytes = elements(self.rows.0) * self.out.align() as usize;
        EmbedCase { params, rows: self.rows.1, table, tokens, out_bytes }
    }
}

/// The list.
pub fn cases() -> Vec<EmbedCase> {
    use Dtype::{Bf16, F16, F32};
    let mut shapes = Vec::new();
    for columns in [1, 15, 16, 17, 72, 200] {
        shapes.push(Shape::plain(3, columns));
    }
    for table in [F32, F16, Bf16].map(Table::Plain) {
        for out in [F32, F16, Bf16] {
            shapes.push(Shape { table, out, gap: 3, ..Shape::plain(3, 72) });
            shapes.push(Shape { table, out, scale: 45.25, ..Shape::plain(2, 40) });
        }
    }
    shapes.push(Shape { rows: (4, Some(0)), ..Shape::plain(4, 24) });
    shapes.push(Shape { rows: (4, Some(3)), vocabulary: 1, ..Shape::plain(4, 24) });
    shapes.push(Shape { table: Table::Plain(Bf16), ..Shape::plain(20, 2048) });
    let mut cases: Vec<EmbedCase> = shapes.into_iter().map(Shape::case).collect();
    // NaN and infinity in rows that were asked for and in one that was not.
    let mut ugly = Shape::plain(2, 4).case();
    ugly.tokens = vec![0, 2];
    for (at, x) in [(0, f32::NAN), (1, f32::INFINITY), (5, f32::NAN), (9, -0.0)] {
        ugly.table.as_mut_slice()[at * 4..at * 4 + 4].copy_from_slice(&x.to_le_bytes());
    }
    cases.push(ugly);
    cases.extend(packed_shapes().into_iter().map(Shape::case));
    // More rows than each block of a device checks itself.
    cases.push(Shape::plain(520, 8).case());
    cases
}

/// Packed tables: every format, then tiles, vectors and pairs, one more and one less.
fn packed_shapes() -> Vec<Shape> {
    use Dtype::{Bf16, F16, F32, I4, I8};
    let mut shapes = Vec::new();
    for format in formats() {
        match format {
            Format::Floats(_) => {
                for columns in [1, 2, 3, 15, 16, 17, 31, 32, 33, 200] {
                    shapes.push(Shape { gap: 1, ..Shape::packed(3, columns, format) });
                }
            }
            // One group, and several.
            Format::Groups(_, group, ..) => {
                shapes.push(Shape::packed(3, group, format));
                shapes.push(Shape { gap: 3, ..Shape::packed(3, 3 * group, format) });
            }
        }
    }
    for format in [
        Format::Floats(Bf16),
        Format::Groups(I4, 32, true, F16),
        Format::Groups(I8, 64, false, F32),
    ] {
        for vocabulary in [1, 2, 31, 32, 33, 63, 64, 65] {
            shapes.push(Shape { vocabulary, ..Shape::packed(4, 64, format) });
        }
        for out in [F16, Bf16] {
            shapes.push(Shape { out, scale: 45.25, ..Shape::packed(2, 192, format) });
        }
        shapes.push(Shape { rows: (4, Some(2)), ..Shape::packed(4, 128, format) });
        shapes.push(Shape::packed(20, 2048, format));
    }
    shapes
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtype = prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]);
    let table = prop_oneof![
        dtype.clone().prop_map(Table::Plain),
        prop::sample::select(formats()).prop_map(Table::Packed),
    ];
    let scale = prop_oneof![Just(1.0f32), 0.1f32..50.0];
    let sizes = (1u32..6, 1u32..70, 1u32..100, 0u32..9);
    (sizes, (table, dtype), scale, any::<u64>()).prop_map(
        |((rows, vocabulary, columns, gap), (table, out), scale, seed)| {
            let columns = match table {
                Table::Packed(Format::Groups(_, group, ..)) => columns.div_ceil(32) * group,
                _ => columns,
            };
            Shape { rows: (rows, None), vocabulary, columns, gap, table, out, scale, seed }
        },
    )
}

impl EmbedCase {
    fn out_dtype(&self) -> Dtype {
        let find = |number| Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == number);
        // A malformed call may name none: it is refused before that matters.
        find(self.params.out_dtype).unwrap_or(Dtype::F32)
    }

    /// The values of a row of the table.
    fn row<R: Real>(&self, token: usize) -> Vec<R> {
        let p = &self.params;
        let weight = Weight::parse(Checks("embed"), &p.weight).expect("cases have good weights");
        match weight.values {
            Values::Floats(dtype) if p.packed == 0 => {
                let table = self.table.floats(dtype);
                let values = &table[token * p.table_row_stride as usize..][..weight.inputs];
                values.iter().map(|&x| R::of(f64::from(x))).collect()
            }
            _ => packing::dequantise(&weight, self.table.as_slice(), token),
        }
    }
}

impl Case for EmbedCase {
    const KERNEL: &'static str = "embed";

    fn name(&self) -> String {
        let (p, out) = (&self.params, self.out_dtype().name());
        let table = format_name(&p.weight);
        let packed = if p.packed == 1 { "packed " } else { "" };
        let live = self.rows.map_or(String::new(), |rows| format!(" live {rows}"));
        let sizes = format!("{}x{} of {}", p.rows_max, p.weight.inputs, p.weight.outputs);
        let gap = p.out_row_stride.saturating_sub(u64::from(p.weight.inputs));
        format!("{sizes} {packed}{table}-{out} gap {gap} scale {}{live}", p.scale)
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
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
        machine.run(command)?;
        Ok(vec![Output { name: "out", dtype: self.out_dtype(), bytes: out }])
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let p = &self.params;
        let rows = (0..self.rows.unwrap_or(p.rows_max) as usize).map(|row| {
            let values = self.row::<R>(self.tokens[row] as usize);
            let values = embed::spec(&values, f64::from(p.scale));
            Row { at: row * p.out_row_stride as usize, values }
        });
        vec![rows.collect()]
    }
}
