//! Cases of `attention_fold`.

use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::attention_fold::{self, AttentionFold};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::math::Real;
use kernels_core::params;
use proptest::prelude::*;

/// A call of `attention_fold` with its buffers.
#[derive(Clone, Debug)]
pub struct AttentionFoldCase {
    /// Its scalars.
    pub params: params::AttentionFold,
    /// Types of the parts and of the output.
    pub dtypes: (Dtype, Dtype),
    /// The outputs of the parts.
    pub parts: Bytes,
    /// The logarithms of their denominators.
    pub part_lse: Bytes,
    /// The length of the output.
    pub out_bytes: usize,
    /// The length of the logarithms.
    pub lse_bytes: usize,
    /// Rows in use.
    pub rows: u32,
}

/// What a case is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Parts, rows, heads and elements of a head.
    pub sizes: (u32, u32, u32, u32),
    /// Types of the parts and of the output.
    pub dtypes: (Dtype, Dtype),
    /// Of eight states, so many saw nothing.
    pub empty: u32,
    /// Logarithms are this large.
    pub size: f32,
    /// Seed of the values.
    pub seed: u64,
}

impl Shape {
    /// The call with its values.
    pub fn case(self) -> AttentionFoldCase {
        let (parts, rows, heads, head_dim) = self.sizes;
        let mut noise = Noise::new(self.seed);
        let (rows_max, width) = (rows + 1, heads * head_dim);
        let (part_row_stride, out_row_stride) = (width + 3, width + 1);
        let params = params::AttentionFold {
            part_row_stride: part_row_stride.into(),
            out_row_stride: out_row_stride.into(),
            rows_max,
            parts,
            heads,
            head_dim,
            part_dtype: self.dtypes.0 as u32,
            out_dtype: self.dtypes.1 as u32,
        };
        let mut values = noise.normals((parts * rows_max * part_row_stride) as usize, 1.0);
        let mut part_lse = noise.normals((parts * rows_max * heads) as usize, self.size);
        for (state, lse) in part_lse.iter_mut().enumerate() {
            if noise.below(8) < self.empty {
                // Nothing was seen: what its output holds is of no account.
                *lse = f32::NEG_INFINITY;
                let (row, head) = (state as u32 / heads, state as u32 % heads);
                let start = (row * part_row_stride + head * head_dim) as usize;
                values[start..start + head_dim as usize].fill(f32::NAN);
            }
        }
        AttentionFoldCase {
            params,
            dtypes: self.dtypes,
            parts: Bytes::rounded(self.dtypes.0, &values),
            part_lse: Bytes::of(&part_lse),
            out_bytes: (rows_max * out_row_stride) as usize * self.dtypes.1.align() as usize,
            lse_bytes: (rows_max * heads * 4) as usize,
            rows,
        }
    }
}

/// The list.
pub fn cases() -> Vec<AttentionFoldCase> {
    use Dtype::{Bf16, F16, F32};
    let plain = Shape { sizes: (3, 4, 2, 16), dtypes: (F32, F32), empty: 3, size: 2.0, seed: 1 };
    let mut shapes = vec![
        // Nothing seen by anyone, and by everyone.
        Shape { empty: 8, ..plain },
        Shape { empty: 0, ..plain },
        Shape { sizes: (1, 3, 2, 72), ..plain },
        // Logarithms that no exp can take.
        Shape { size: 6e4, ..plain },
        Shape { size: 1e37, ..plain },
        Shape { sizes: (2, 0, 1, 8), ..plain },
        Shape { sizes: (9, 40, 3, 80), ..plain },
    ];
    for part in [F32, F16, Bf16] {
        for out in [F32, F16, Bf16] {
            for dims in [8, 24, 64, 256] {
                shapes.push(Shape { sizes: (4, 2, 3, dims), dtypes: (part, out), ..plain });
            }
        }
    }
    shapes.into_iter().map(Shape::case).collect()
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtype = prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::Bf16)];
    let sizes = (1u32..6, 0u32..6, 1u32..5, (1u32..12).prop_map(|eights| 8 * eights));
    (sizes, (dtype.clone(), dtype), 0u32..9, any::<u64>())
        .prop_map(|(sizes, dtypes, empty, seed)| Shape { sizes, dtypes, empty, size: 3.0, seed })
}

impl Case for AttentionFoldCase {
    const KERNEL: &'static str = "attention_fold";

    fn name(&self) -> String {
        let (p, (part, out)) = (&self.params, self.dtypes);
        let lse = self.part_lse.cast::<f32>();
        let empty = lse.iter().filter(|lse| **lse == f32::NEG_INFINITY).count();
        let most = lse
            .iter()
            .fold(0.0, |most: f32, lse| if lse.is_finite() { most.max(lse.abs()) } else { most });
        format!(
            "{}x{}x{}x{} {}-{} empty {empty} most {most:.1e}",
            p.parts,
            self.rows,
            p.heads,
            p.head_dim,
            part.name(),
            out.name()
        )
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let (mut out, mut lse) = (Bytes::poisoned(self.out_bytes), Bytes::poisoned(self.lse_bytes));
        let rows = Bytes::of(&[self.rows]);
        let command = AttentionFold::<Host<'_>> {
            params: self.params,
            parts: self.parts.as_slice(),
            part_lse: self.part_lse.as_slice(),
            out: out.as_mut_slice(),
            lse: Some(lse.as_mut_slice()),
            rows: Some(rows.as_slice()),
        };
        machine.run(command)?;
        Ok(vec![
            Output { name: "out", dtype: self.dtypes.1, bytes: out },
            Output { name: "lse", dtype: Dtype::F32, bytes: lse },
        ])
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let p = &self.params;
        let (parts, part_lse) = (self.parts.floats(self.dtypes.0), self.part_lse.cast::<f32>());
        let (heads, dims) = (p.heads as usize, p.head_dim as usize);
        let (mut outs, mut lses) = (Vec::new(), Vec::new());
        for row in 0..self.rows as usize {
            for head in 0..heads {
                let states: Vec<(Vec<R>, R)> = (0..p.parts as usize)
                    .map(|part| part * p.rows_max as usize + row)
                    .filter(|at| part_lse[at * heads + head] != f32::NEG_INFINITY)
                    .map(|at| {
                        let start = at * p.part_row_stride as usize + head * dims;
                        let out = &parts[start..start + dims];
                        let out = out.iter().map(|&v| R::of(v.into())).collect();
                        (out, R::of(part_lse[at * heads + head].into()))
                    })
                    .collect();
                let (values, lse) = attention_fold::spec(&states, dims);
                outs.push(Row { at: row * p.out_row_stride as usize + head * dims, values });
                lses.push(lse);
            }
        }
        vec![outs, vec![Row { at: 0, values: lses }]]
    }
}
