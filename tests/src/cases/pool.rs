//! Cases of `pool`.

use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::math::Real;
use kernels_core::params;
use kernels_core::pool::{self, Kind, Pool};
use proptest::prelude::*;

/// Every way to pool.
pub const KINDS: [u32; 3] = [params::POOL_FIRST, params::POOL_LAST, params::POOL_MEAN];

/// A call of `pool` with its buffers.
#[derive(Clone, Debug)]
pub struct PoolCase {
    /// Its scalars.
    pub params: params::Pool,
    /// Sequences in use, where they are given.
    pub seqs: Option<u32>,
    /// Hidden rows.
    pub x: Bytes,
    /// Where each sequence's rows start.
    pub starts: Vec<u32>,
    /// The length of the output.
    pub out_bytes: usize,
}

/// What a case is made from.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Rows of each sequence.
    pub lens: Vec<u32>,
    /// Sequences in use.
    pub seqs: Option<u32>,
    /// Elements of a row.
    pub columns: u32,
    /// Elements between rows beyond their width.
    pub gap: u32,
    /// How rows become one.
    pub kind: u32,
    /// Whether vectors are divided by their length.
    pub normalise: bool,
    /// The type of x.
    pub x: Dtype,
    /// How large its elements are.
    pub magnitude: f32,
    /// Seed of the values.
    pub seed: u64,
}

impl Shape {
    /// Sequences of such lengths, in f32.
    pub fn plain(lens: &[u32], columns: u32, kind: u32) -> Self {
        Self {
            lens: lens.to_vec(),
            seqs: None,
            columns,
            gap: 0,
            kind,
            normalise: false,
            x: Dtype::F32,
            magnitude: 1.0,
            seed: 1,
        }
    }

    /// The call with its values. A row before the first sequence, one after the last, and
    /// what lies between rows are no numbers.
    pub fn case(&self) -> PoolCase {
        let stride = (self.columns + self.gap) as usize;
        let mut noise = Noise::new(self.seed);
        let mut starts = vec![1];
        for len in &self.lens {
            starts.push(starts[starts.len() - 1] + len);
        }
        let (seqs, end) = (self.lens.len(), starts[self.lens.len()]);
        let mut values = noise.normals((end as usize + 1) * stride, self.magnitude);
        for (at, value) in values.iter_mut().enumerate() {
            let row = (at / stride) as u32;
            if at % stride >= self.columns as usize || row == 0 || row == end {
                *value = f32::NAN;
            }
        }
        let params = params::Pool {
            x_row_stride: stride as u64,
            out_row_stride: stride as u64,
            rows_max: end + 1,
            seqs_max: seqs as u32,
            columns: self.columns,
            kind: self.kind,
            x_dtype: self.x as u32,
            normalise: self.normalise.into(),
        };
        let x = Bytes::rounded(self.x, &values);
        PoolCase { params, seqs: self.seqs, x, starts, out_bytes: seqs * stride * 4 }
    }
}

/// The list.
pub fn cases() -> Vec<PoolCase> {
    let mut shapes = Vec::new();
    for kind in KINDS {
        let some = [3, 0, 1, 5];
        for columns in [1, 15, 16, 17, 31, 33, 72, 200] {
            shapes.push(Shape { gap: 3, ..Shape::plain(&some, columns, kind) });
            shapes.push(Shape { normalise: true, ..Shape::plain(&some, columns, kind) });
        }
        for x in [Dtype::F16, Dtype::Bf16] {
            shapes.push(Shape { x, gap: 1, ..Shape::plain(&some, 72, kind) });
            shapes.push(Shape { x, normalise: true, ..Shape::plain(&some, 72, kind) });
        }
        // No rows at all; fewer sequences than there is room for; many columns.
        shapes.push(Shape { normalise: true, ..Shape::plain(&[0], 24, kind) });
        shapes.push(Shape { seqs: Some(0), ..Shape::plain(&some, 24, kind) });
        shapes.push(Shape { seqs: Some(2), ..Shape::plain(&some, 24, kind) });
        shapes.push(Shape { normalise: true, ..Shape::plain(&[2, 7], 2048, kind) });
    }
    let mean = params::POOL_MEAN;
    // Around the rows that are added at once.
    shapes.push(Shape::plain(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 40, mean));
    shapes.push(Shape::plain(&[1000], 40, mean));
    // Vectors shorter than the least length, about it, and zeros.
    for magnitude in [0.0, 1e-14, 2e-13, 1e-12, 1e-9] {
        shapes.push(Shape { magnitude, normalise: true, ..Shape::plain(&[1, 2], 24, mean) });
    }
    // More sequences than each block of a device checks itself.
    shapes.push(Shape::plain(&[1; 520], 8, mean));
    shapes.iter().map(Shape::case).collect()
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let x = prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::Bf16]);
    let lens = prop::collection::vec(0u32..12, 1..6);
    let modes = (prop::sample::select(KINDS.to_vec()), any::<bool>(), x);
    (lens, 1u32..100, 0u32..9, modes, any::<u64>()).prop_map(
        |(lens, columns, gap, (kind, normalise, x), seed)| Shape {
            gap,
            normalise,
            x,
            seed,
            ..Shape::plain(&lens, columns, kind)
        },
    )
}

impl PoolCase {
    fn x_dtype(&self) -> Dtype {
        let find = |number| Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == number);
        // A malformed call may name none: it is refused before that matters.
        find(self.params.x_dtype).unwrap_or(Dtype::F32)
    }
}

impl Case for PoolCase {
    const KERNEL: &'static str = "pool";

    fn name(&self) -> String {
        let (p, x) = (&self.params, self.x_dtype().name());
        let kind = ["?", "first", "last", "mean"][p.kind.min(3) as usize];
        let gap = p.x_row_stride.saturating_sub(p.columns.into());
        let live = self.seqs.map_or(String::new(), |seqs| format!(" live {seqs}"));
        let normalised = if p.normalise == 1 { " normalised" } else { "" };
        let most = self.x.floats(self.x_dtype()).into_iter().fold(0f32, f32::max);
        let tiny = if most < 0.1 { format!(" to {most:e}") } else { String::new() };
        let sizes = format!("{:?}x{} gap {gap}", self.starts, p.columns);
        format!("{kind} {sizes} {x}{normalised}{tiny}{live}")
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let mut out = Bytes::poisoned(self.out_bytes);
        let starts = Bytes::of(&self.starts);
        let seqs = self.seqs.map(|seqs| Bytes::of(&[seqs]));
        let command = Pool::<Host<'_>> {
            params: self.params,
            x: self.x.as_slice(),
            starts: starts.as_slice(),
            out: out.as_mut_slice(),
            seqs: seqs.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        Ok(vec![Output { name: "out", dtype: Dtype::F32, bytes: out }])
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let p = &self.params;
        let (columns, stride) = (p.columns as usize, p.x_row_stride as usize);
        let kind = match p.kind {
            params::POOL_FIRST => Kind::First,
            params::POOL_LAST => Kind::Last,
            _ => Kind::Mean,
        };
        let x = self.x.floats(self.x_dtype());
        let row = |row: u32| -> Vec<R> {
            let x = &x[row as usize * stride..][..columns];
            x.iter().map(|&x| R::of(f64::from(x))).collect()
        };
        let rows = (0..self.seqs.unwrap_or(p.seqs_max) as usize).map(|seq| {
            let rows: Vec<Vec<R>> = (self.starts[seq]..self.starts[seq + 1]).map(row).collect();
            let values = pool::spec(&rows, columns, kind, p.normalise == 1);
            Row { at: seq * p.out_row_stride as usize, values }
        });
        vec![rows.collect()]
    }
}
