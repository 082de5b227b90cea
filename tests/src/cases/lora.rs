//! Cases of `lora`.

use crate::harness::{Bytes, Case, Machine, Magnitude, Noise, Output, Row, rounded_sums};
use half::{bf16, f16};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::lora::{self, Adapter, Lora, pack_a, pack_b};
use kernels_core::math::Real;
use kernels_core::params::{self, LORA_NONE};
use proptest::prelude::*;

/// A call of `lora` with its buffers, and its adapters before they were packed.
#[derive(Clone, Debug)]
pub struct LoraCase {
    /// Its scalars.
    pub params: params::Lora,
    /// Rows in use, where they are given.
    pub rows: Option<u32>,
    /// The input.
    pub x: Bytes,
    /// A of each slot, packed.
    pub a: Bytes,
    /// B of each slot, packed.
    pub b: Bytes,
    /// A of each slot, `[rank, inputs]`.
    pub a_rows: Vec<Vec<f32>>,
    /// B of each slot, `[outputs, rank]`.
    pub b_rows: Vec<Vec<f32>>,
    /// The rank of each slot.
    pub ranks: Vec<u32>,
    /// The scale of each slot.
    pub scales: Vec<f32>,
    /// The magnitude of each output of each slot.
    pub magnitudes: Option<Vec<f32>>,
    /// The slot of each row.
    pub adapters: Vec<u32>,
    /// The base result.
    pub out: Bytes,
}

/// What a case is made from.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Rows in use.
    pub live: Option<u32>,
    /// Elements of a row of x.
    pub inputs: u32,
    /// Elements of a row of out.
    pub outputs: u32,
    /// The rank of each slot.
    pub ranks: Vec<u32>,
    /// Ranks a slot has room for beyond the largest.
    pub spare: u32,
    /// The slot of each row; past the slots, none.
    pub adapters: Vec<u32>,
    /// Elements between rows beyond their width.
    pub gap: u32,
    /// Types of x and of the weights.
    pub dtypes: (Dtype, Dtype),
    /// Whether outputs are multiplied at the end.
    pub magnitudes: bool,
    /// Seed of the values.
    pub seed: u64,
}

impl Shape {
    /// A plain call in f32.
    pub fn plain(inputs: u32, outputs: u32, ranks: &[u32], adapters: &[u32]) -> Self {
        Self {
            live: None,
            inputs,
            outputs,
            ranks: ranks.to_vec(),
            spare: 0,
            adapters: adapters.to_vec(),
            gap: 0,
            dtypes: (Dtype::F32, Dtype::F32),
            magnitudes: false,
            seed: 1,
        }
    }

    /// The call with its values; what no rank, output or row uses is NaN.
    pub fn case(&self) -> LoraCase {
        let (x_dtype, weight_dtype) = self.dtypes;
        let slots = self.ranks.len() as u32;
        let rank_max = self.ranks.iter().max().map_or(16, |rank| rank.next_multiple_of(16));
        let params = params::Lora {
            x_row_stride: u64::from(self.inputs + self.gap),
            out_row_stride: u64::from(self.outputs + self.gap),
            rows_max: self.adapters.len() as u32,
            inputs: self.inputs,
            outputs: self.outputs,
            slots,
            rank_max: rank_max + self.spare,
            x_dtype: x_dtype as u32,
            weight_dtype: weight_dtype as u32,
            reserved: 0,
        };
        let mut noise = Noise::new(self.seed);
        let mut rounded = |count: u32, scale| {
            Bytes::rounded(weight_dtype, &noise.normals(count as usize, scale)).floats(weight_dtype)
        };
        let a_rows: Vec<Vec<f32>> =
            self.ranks.iter().map(|r| rounded(r * self.inputs, 0.1)).collect();
        let b_rows: Vec<Vec<f32>> =
            self.ranks.iter().map(|r| rounded(r * self.outputs, 0.3)).collect();
        let named = |&slot: &u32| if slot < slots { slot } else { LORA_NONE };
        let rows = self.adapters.len();
        let mut x = vec![f32::NAN; rows * params.x_row_stride as usize];
        for row in x.chunks_mut(params.x_row_stride as usize) {
            row[..self.inputs as usize].copy_from_slice(&noise.normals(self.inputs as usize, 1.0));
        }
        let elements = rows * params.out_row_stride as usize;
        LoraCase {
            a: packed(&params, &a_rows, lora::a_elements(&params), |rows, _, slot| {
                pack_a(rows, self.inputs as usize, slot);
            }),
            b: packed(&params, &b_rows, lora::b_elements(&params), |rows, at, slot| {
                pack_b(rows, self.ranks[at] as usize, slot);
            }),
            a_rows,
            b_rows,
            x: Bytes::rounded(x_dtype, &x),
            scales: (0..slots).map(|slot| 0.5 + slot as f32).collect(),
            magnitudes: self
                .magnitudes
                .then(|| noise.normals((slots * self.outputs) as usize, 1.0)),
            ranks: self.ranks.clone(),
            adapters: self.adapters.iter().map(named).collect(),
            out: Bytes::of(&noise.normals(elements, 2.0)),
            rows: self.live,
            params,
        }
    }
}

/// A slab of packed matrices.
fn packed(
    p: &params::Lora,
    matrices: &[Vec<f32>],
    elements: u64,
    pack: impl Fn(&[f32], usize, &mut [f32]),
) -> Bytes {
    let mut slab = vec![f32::NAN; matrices.len() * elements as usize];
    for (at, (rows, slot)) in matrices.iter().zip(slab.chunks_mut(elements as usize)).enumerate() {
        pack(rows, at, slot);
    }
    // Values were rounded before, so this loses nothing.
    match Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == p.weight_dtype) {
        Some(Dtype::F16) => Bytes::of(&slab.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>()),
        Some(Dtype::Bf16) => {
            Bytes::of(&slab.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>())
        }
        _ => Bytes::of(&slab),
    }
}

/// The list.
pub fn cases() -> Vec<LoraCase> {
    use Dtype::{Bf16, F16, F32};
    const NONE: u32 = LORA_NONE;
    let mut shapes = vec![
        Shape::plain(1, 1, &[1], &[0]),
        Shape::plain(7, 5, &[3], &[NONE, NONE]),
        Shape { live: Some(0), ..Shape::plain(7, 5, &[3], &[0, 0]) },
        Shape { live: Some(3), gap: 3, ..Shape::plain(33, 17, &[5, 2], &[1, NONE, 0, 1]) },
    ];
    // Around every constant of the order: segments of 512, alone and several at once.
    for inputs in [511, 512, 513, 1023, 1024, 1025, 2047, 2048, 2049, 2561] {
        shapes.push(Shape::plain(inputs, 8, &[2], &[0]));
    }
    // Around panels: 16 ranks, 32 outputs, four panels of outputs at once.
    for rank in [1, 15, 16, 17, 31, 32, 33, 255, 256] {
        shapes.push(Shape::plain(20, 40, &[rank, 3], &[0, 1, 0]));
    }
    for outputs in [15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 160] {
        shapes.push(Shape { magnitudes: true, ..Shape::plain(9, outputs, &[4], &[0, 0, 0]) });
    }
    // Around the rows that share a load: 1, 4, 8.
    for rows in [2, 3, 4, 5, 7, 8, 9, 15, 17] {
        shapes.push(Shape::plain(1030, 70, &[18], &vec![0; rows]));
    }
    for x in [F32, F16, Bf16] {
        for weight in [F32, F16, Bf16] {
            let mixed = Shape::plain(600, 50, &[8, 64, 1], &[2, 0, NONE, 1, 0, 1, 2, 0]);
            shapes.push(Shape { dtypes: (x, weight), spare: 16, gap: 2, ..mixed });
        }
    }
    shapes.push(Shape {
        dtypes: (F32, Bf16),
        magnitudes: true,
        ..Shape::plain(2048, 2050, &[16, 8], &[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1])
    });
    let mut cases: Vec<LoraCase> = shapes.iter().map(Shape::case).collect();
    // NaN stays in its own row.
    let mut ugly = Shape::plain(40, 40, &[4], &[0; 9]).case();
    ugly.x.as_mut_slice()[160..164].copy_from_slice(&f32::NAN.to_le_bytes());
    cases.push(ugly);
    cases
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let dtype = prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::Bf16)];
    let slots = proptest::collection::vec(1u32..70, 1..5);
    let adapters = proptest::collection::vec(0u32..5, 1..30);
    let flags = (any::<bool>(), 0u32..4, any::<u64>());
    (slots, adapters, 1u32..700, 1u32..200, (dtype.clone(), dtype), flags).prop_map(
        |(ranks, adapters, inputs, outputs, dtypes, (magnitudes, gap, seed))| Shape {
            dtypes,
            magnitudes,
            gap,
            seed,
            ..Shape::plain(inputs, outputs, &ranks, &adapters)
        },
    )
}

impl LoraCase {
    /// The rows that change: in use, and with an adapter.
    pub fn adapted(&self) -> Vec<usize> {
        let live = self.rows.unwrap_or(self.params.rows_max) as usize;
        (0..live).filter(|&row| self.adapters[row] != LORA_NONE).collect()
    }
}

impl Case for LoraCase {
    const KERNEL: &'static str = "lora";

    fn name(&self) -> String {
        let p = &self.params;
        let find = |number| Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == number);
        let named = |number| find(number).map_or("?", Dtype::name);
        let (x, weight) = (named(p.x_dtype), named(p.weight_dtype));
        let live = self.rows.map_or(String::new(), |rows| format!(" live {rows}"));
        let dora = if self.magnitudes.is_some() { " magnitudes" } else { "" };
        let gap = p.out_row_stride.saturating_sub(u64::from(p.outputs));
        let slots: Vec<i32> = self.adapters.iter().map(|&slot| slot as i32).collect();
        format!(
            "{}x{} ranks {:?} of {} gap {gap} {x}-{weight}{dora} rows {slots:?}{live}",
            p.inputs, p.outputs, self.ranks, p.rank_max
        )
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let mut out = self.out.clone();
        let (ranks, scales) = (Bytes::of(&self.ranks), Bytes::of(&self.scales));
        let magnitudes = self.magnitudes.as_deref().map(Bytes::of);
        let adapters = Bytes::of(&self.adapters);
        let rows = self.rows.map(|rows| Bytes::of(&[rows]));
        let command = Lora::<Host<'_>> {
            params: self.params,
            x: self.x.as_slice(),
            a: self.a.as_slice(),
            b: self.b.as_slice(),
            ranks: ranks.as_slice(),
            scales: scales.as_slice(),
            magnitudes: magnitudes.as_ref().map(Bytes::as_slice),
            adapters: adapters.as_slice(),
            rows: rows.as_ref().map(Bytes::as_slice),
            out: out.as_mut_slice(),
        };
        machine.run(command)?;
        Ok(vec![Output { name: "out", dtype: Dtype::F32, bytes: out }])
    }

    /// Rows without an adapter, rows beyond the live ones and the gaps between rows keep
    /// their bits.
    fn assert_answer(&self, outputs: &[Output]) {
        let (before, after) = (self.out.cast::<u32>(), outputs[0].bytes.cast::<u32>());
        let (stride, adapted) = (self.params.out_row_stride as usize, self.adapted());
        for (at, (before, after)) in before.iter().zip(after).enumerate() {
            let written =
                adapted.contains(&(at / stride)) && at % stride < self.params.outputs as usize;
            assert!(written || before == after, "{}: out[{at}]", self.name());
        }
    }

    fn within(&self, output: usize, _truth: &[Vec<Row<f64>>]) -> Vec<f64> {
        rounded_sums(&self.spec::<Magnitude>()[output])
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let p = &self.params;
        let real =
            |values: &[f32]| -> Vec<R> { values.iter().map(|&v| R::of(f64::from(v))).collect() };
        let x_dtype = Dtype::ALL.into_iter().find(|dtype| *dtype as u32 == p.x_dtype);
        let x = self.x.floats(x_dtype.expect("a good call names its type"));
        let base = self.out.floats(Dtype::F32);
        let row = |&row: &usize| {
            let slot = self.adapters[row] as usize;
            let x = &x[row * p.x_row_stride as usize..][..p.inputs as usize];
            let at = row * p.out_row_stride as usize;
            let outputs = p.outputs as usize;
            let magnitude = self.magnitudes.as_ref().map(|m| real(&m[slot * outputs..][..outputs]));
            let adapter = Adapter {
                a: &real(&self.a_rows[slot]),
                b: &real(&self.b_rows[slot]),
                scale: R::of(f64::from(self.scales[slot])),
                magnitude: magnitude.as_deref(),
            };
            Row { at, values: lora::spec(&real(x), &real(&base[at..at + outputs]), adapter) }
        };
        vec![self.adapted().iter().map(row).collect()]
    }
}
