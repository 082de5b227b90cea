//! Cases of `rope`.

use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::math::Real;
use kernels_core::params;
use kernels_core::rope::table::{Scaling, Table};
use kernels_core::rope::{self, Pairing, Rope};
use proptest::prelude::*;

/// A call of `rope` with its buffers.
#[derive(Clone, Debug)]
pub struct RopeCase {
    /// Its scalars.
    pub params: params::Rope,
    /// Rows in use, where they are given.
    pub rows: Option<u32>,
    /// The input, where it is not the output.
    pub x: Option<Bytes>,
    /// Cosines and sines.
    pub table: Bytes,
    /// A position for each row.
    pub positions: Vec<u32>,
    /// The output before the call.
    pub out: Bytes,
}

/// What a case is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Capacity and rows in use.
    pub rows: (u32, Option<u32>),
    /// Heads of a row.
    pub heads: u32,
    /// Dims of a head, and those that turn.
    pub dims: (u32, u32),
    /// Elements between rows beyond their width.
    pub gap: u32,
    /// Types of x and out.
    pub dtypes: (Dtype, Dtype),
    /// Whether x is the output itself.
    pub in_place: bool,
    /// Which dims turn together.
    pub pairing: Pairing,
    /// Seed of the values.
    pub seed: u64,
}

/// Positions of the tables of cases.
pub const TABLE_LEN: u32 = 300;

/// The table of cases.
pub fn table(rotary_dims: u32) -> Bytes {
    let table = Table { base: 10_000.0, rotary_dims, scaling: Scaling::None };
    let mut rows = vec![0f32; (TABLE_LEN * rotary_dims) as usize];
    table.fill(0, &mut rows).expect("the numbers are good");
    Bytes::of(&rows)
}

impl Shape {
    /// A plain call in f32.
    pub const fn plain(rows: u32, heads: u32, head_dim: u32, rotary_dims: u32) -> Self {
        Self {
            rows: (rows, None),
            heads,
            dims: (head_dim, rotary_dims),
            gap: 0,
            dtypes: (Dtype::F32, Dtype::F32),
            in_place: false,
            pairing: Pairing::Neox,
            seed: 1,
        }
    }

    /// The call with its values.
    pub fn case(self) -> RopeCase {
        let (head_dim, rotary_dims) = self.dims;
        let (x_dtype, out_dtype) = self.dtypes;
        let stride = u64::from(self.heads * head_dim + self.gap);
        let elements = self.rows.0 as usize * stride as usize;
        let mut noise = Noise::new(self.seed);
        let values = noise.normals(elements, 2.0);
        let out = if self.in_place {
            Bytes::rounded(out_dtype, &values)
        } else {
            Bytes::poisoned(elements * out_dtype.align() as usize)
        };
        let params = params::Rope {
            x_row_stride: if self.in_place { 0 } else { stride },
            out_row_stride: stride,
            rows_max: self.rows.0,
            heads: self.heads,
            head_dim,
            rotary_dims,
            table_len: TABLE_LEN,
            pairing: match self.pairing {
                Pairing::Neox => params::ROPE_NEOX,
                Pairing::Interleaved => params::ROPE_INTERLEAVED,
            },
            x_dtype: if self.in_place { out_dtype as u32 } else { x_dtype as u32 },
            out_dtype: out_dtype as u32,
        };
        RopeCase {
            params,
            rows: self.rows.1,
            x: (!self.in_place).then(|| Bytes::rounded(x_dtype, &values)),
            table: table(rotary_dims),
            positions: (0..self.rows.0).map(|_| noise.below(TABLE_LEN)).collect(),
            out,
        }
    }
}

/// The list.
pub fn cases() -> Vec<RopeCase> {
    use Dtype::{Bf16, F16, F32};
    let mut shapes = Vec::new();
    for pairing in [Pairing::Neox, Pairing::Interleaved] {
        // Around the 16 lanes of pairs, whole heads and parts of them.
        let dims = [(2, 2), (8, 8), (30, 30), (32, 32), (34, 34), (64, 64), (72, 72), (80, 80)];
        let parts = [(128, 128), (256, 256), (64, 16), (80, 32), (96, 34), (128, 2), (255, 254)];
        for dims in dims.into_iter().chain(parts) {
            shapes.push(Shape { pairing, dims, ..Shape::plain(2, 2, 8, 8) });
        }
        for x in [F32, F16, Bf16] {
            shapes.push(Shape {
                pairing,
                dtypes: (x, x),
                in_place: true,
                gap: 3,
                ..Shape::plain(3, 2, 80, 64)
            });
            for out in [F32, F16, Bf16] {
                shapes.push(Shape { pairing, dtypes: (x, out), ..Shape::plain(2, 3, 72, 72) });
            }
        }
        shapes.push(Shape { pairing, rows: (4, Some(0)), ..Shape::plain(4, 1, 32, 32) });
        shapes.push(Shape {
            pairing,
            rows: (4, Some(3)),
            in_place: true,
            gap: 5,
            ..Shape::plain(4, 1, 32, 32)
        });
    }
    shapes.push(Shape { in_place: true, dtypes: (Bf16, Bf16), ..Shape::plain(20, 32, 128, 128) });
    let mut cases: Vec<RopeCase> = shapes.into_iter().map(Shape::case).collect();
    // The first and the last position; NaN and infinity stay in their own pair.
    let mut ugly = Shape::plain(2, 1, 40, 32).case();
    ugly.positions = vec![0, TABLE_LEN - 1];
    let x = ugly.x.as_mut().expect("not in place").as_mut_slice();
    x[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    x[164..168].copy_from_slice(&f32::INFINITY.to_le_bytes());
    cases.push(ugly);
    // More rows than each block of a device checks itself.
    cases.push(Shape::plain(520, 1, 8, 8).case());
    cases
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtype = prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::Bf16)];
    let pairing = prop_oneof![Just(Pairing::Neox), Just(Pairing::Interleaved)];
    let dims = (1u32..60, 0u32..50);
    let kind = (pairing, any::<bool>(), dtype.clone(), dtype);
    (1u32..6, 1u32..4, dims, 0u32..9, kind, any::<u64>()).prop_map(
        |(rows, heads, (pairs, rest), gap, (pairing, in_place, x, out), seed)| Shape {
            rows: (rows, None),
            heads,
            dims: (2 * pairs + rest, 2 * pairs),
            gap,
            dtypes: (if in_place { out } else { x }, out),
            in_place,
            pairing,
            seed,
        },
    )
}

impl RopeCase {
    fn dtypes(&self) -> (Dtype, Dtype) {
        let find = |number| Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == number);
        // A malformed call may name none: it is refused before that matters.
        let find = |number| find(number).unwrap_or(Dtype::F32);
        (find(self.params.x_dtype), find(self.params.out_dtype))
    }

    fn pairing(&self) -> Pairing {
        match self.params.pairing {
            params::ROPE_INTERLEAVED => Pairing::Interleaved,
            _ => Pairing::Neox,
        }
    }
}

impl Case for RopeCase {
    const KERNEL: &'static str = "rope";

    fn name(&self) -> String {
        let (p, (x, out)) = (&self.params, self.dtypes());
        let (x, out) = (x.name(), out.name());
        let live = self.rows.map_or(String::new(), |rows| format!(" live {rows}"));
        let place = if self.x.is_none() { " in place" } else { "" };
        let gap = p.out_row_stride - u64::from(p.heads * p.head_dim);
        let dims = format!("{}/{}", p.rotary_dims, p.head_dim);
        let pairing = self.pairing();
        format!("{}x{}x{dims} {pairing:?} gap {gap} {x}-{out}{place}{live}", p.rows_max, p.heads)
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let mut out = self.out.clone();
        let positions = Bytes::of(&self.positions);
        let rows = self.rows.map(|rows| Bytes::of(&[rows]));
        let command = Rope::<Host<'_>> {
            params: self.params,
            x: self.x.as_ref().map(Bytes::as_slice),
            table: self.table.as_slice(),
            positions: positions.as_slice(),
            out: out.as_mut_slice(),
            rows: rows.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        Ok(vec![Output { name: "out", dtype: self.dtypes().1, bytes: out }])
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let (p, (x_dtype, out_dtype)) = (&self.params, self.dtypes());
        let real =
            |values: &[f32]| -> Vec<R> { values.iter().map(|&v| R::of(f64::from(v))).collect() };
        let (x, x_row_stride) = match &self.x {
            Some(x) => (x.floats(x_dtype), p.x_row_stride),
            None => (self.out.floats(out_dtype), p.out_row_stride),
        };
        let table = real(&self.table.floats(Dtype::F32));
        let (dims, pairs) = (p.rotary_dims as usize, p.rotary_dims as usize / 2);
        let mut rows = Vec::new();
        for row in 0..self.rows.unwrap_or(p.rows_max) as usize {
            let turns = &table[self.positions[row] as usize * dims..][..dims];
            for head in 0..p.heads as usize {
                let at = |stride: u64| row * stride as usize + head * p.head_dim as usize;
                let input = real(&x[at(x_row_stride)..][..p.head_dim as usize]);
                let values = rope::spec(&input, self.pairing(), &turns[..pairs], &turns[pairs..]);
                rows.push(Row { at: at(p.out_row_stride), values });
            }
        }
        vec![rows]
    }
}
