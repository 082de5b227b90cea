//! Cases of `token_logprob`: products of [`matmul`](super::matmul), and a token for
//! each row.

use super::matmul::{Format, MatmulCase, Shape};
use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::math::Real;
use kernels_core::params::{self, SampleRow};
use kernels_core::sample::{self, Sample};
use kernels_core::simd::Level;
use kernels_core::token_logprob::TokenLogprob;
use kernels_core::workers::{Inline, Workers};

/// A call of `token_logprob` with its buffers.
#[derive(Clone, Debug)]
pub struct TokenLogprobCase {
    /// Its scalars.
    pub params: params::TokenLogprob,
    /// The product it is made from, with an output in f32.
    pub product: MatmulCase,
    /// The token of each row.
    pub token: Vec<u32>,
}

/// The call for a product.
pub fn case(shape: Shape) -> TokenLogprobCase {
    let shape = Shape { dtypes: (shape.dtypes.0, Dtype::F32), ..shape };
    let product = shape.case();
    let p = &product.params;
    let params = params::TokenLogprob {
        x_row_stride: p.x_row_stride,
        rows_max: p.rows_max,
        x_dtype: p.x_dtype,
        bias_dtype: p.bias_dtype,
        reserved: 0,
        weight: p.weight,
    };
    let mut noise = Noise::new(shape.seed ^ 0x70);
    let token = (0..p.rows_max).map(|_| noise.below(p.weight.outputs)).collect();
    TokenLogprobCase { params, product, token }
}

/// The list.
pub fn cases() -> Vec<TokenLogprobCase> {
    use Dtype::{Bf16, F16, F32, I4, I8};
    let nibbles = Format::Groups(I4, 32, true, F16);
    let mut shapes = Vec::new();
    // Around lanes, tiles and blocks.
    for outputs in [1, 2, 15, 16, 17, 31, 32, 33, 1000, 4095, 4096, 4097, 8191, 8192, 8193] {
        shapes.push(Shape::plain(2, 64, outputs, nibbles));
    }
    for format in [
        Format::Floats(F32),
        Format::Floats(F16),
        Format::Floats(Bf16),
        Format::Groups(I8, 64, false, F32),
    ] {
        shapes.push(Shape { bias: Some(Bf16), gap: 3, ..Shape::plain(3, 640, 4200, format) });
    }
    // Around the rows of a panel and of a chunk.
    for rows in [1, 7, 8, 9, 13, 83, 84, 85] {
        shapes.push(Shape::plain(rows, 32, 100, nibbles));
    }
    shapes.push(Shape { rows: (4, Some(3)), ..Shape::plain(4, 64, 200, nibbles) });
    // Few rows and many, with x and weights of each type: devices have a form for each.
    for rows in [3, 35] {
        for (x, format) in [
            (F32, Format::Floats(F32)),
            (F32, Format::Floats(Bf16)),
            (F16, Format::Floats(Bf16)),
            (Bf16, Format::Floats(Bf16)),
            (F32, Format::Floats(F16)),
            (F16, Format::Floats(F16)),
            (Bf16, Format::Groups(I8, 32, true, F16)),
        ] {
            let shape = Shape::plain(rows, 96, 4140, format);
            shapes.push(Shape { dtypes: (x, F32), ..shape });
        }
    }
    // Rows enough that the order in which blocks fold shows in a logarithm.
    shapes.push(Shape::plain(24, 32, 12_500, nibbles));
    let mut cases: Vec<TokenLogprobCase> = shapes.into_iter().map(case).collect();
    // A row with a NaN is reported, its neighbour is not.
    let mut nan = case(Shape::plain(2, 64, 5000, Format::Floats(F32)));
    nan.product.x.as_mut_slice()[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    cases.push(nan);
    cases
}

impl TokenLogprobCase {
    /// Rows in use.
    pub fn live(&self) -> usize {
        self.product.rows.unwrap_or(self.params.rows_max) as usize
    }

    /// The raw log-probabilities that `sample` gives for the product's logits, of every
    /// row's own token: the one that is left by filters of one.
    pub fn sampled(&self, workers: &dyn Workers) -> Vec<f32> {
        let logits = self.product.run(Level::best(), workers).expect("the product is a good one");
        let logits = logits[0].bytes.cast::<f32>();
        let (vocab, stride) =
            (self.params.weight.outputs as usize, self.product.params.out_row_stride as usize);
        let one = |row: usize| {
            let raw = &logits[row * stride..][..vocab];
            let mut masked = vec![f32::NEG_INFINITY; vocab];
            masked[self.token[row] as usize] = 0.0;
            raw_logprob(raw, &masked)
        };
        (0..self.live()).map(one).collect()
    }
}

/// The raw log-probability of the only token that `masked` leaves.
fn raw_logprob(raw: &[f32], masked: &[f32]) -> f32 {
    let params = params::Sample {
        row_stride: masked.len() as u64,
        raw_row_stride: raw.len() as u64,
        rows_max: 1,
        vocab: raw.len() as u32,
        ..Default::default()
    };
    let settings = SampleRow { temperature: 1.0, top_p: 1.0, ..Default::default() };
    let [mut token, mut status, mut logprob] = [0; 3].map(|value| Bytes::filled(4, value));
    let command = Sample::<Host<'_>> {
        params,
        logits: bytemuck::cast_slice(masked),
        raw_logits: Some(bytemuck::cast_slice(raw)),
        settings: bytemuck::bytes_of(&settings),
        masks: None,
        row_masks: None,
        token: token.as_mut_slice(),
        status: status.as_mut_slice(),
        raw_logprob: Some(logprob.as_mut_slice()),
        processed_logprob: None,
        top_token: None,
        top_logprob: None,
        kept: None,
        kept_count: None,
        rows: None,
    };
    let needs = command.needs(1).expect("the call is a good one");
    let mut workspace = Bytes::filled(needs.workspace_bytes as usize, 0);
    sample::run(Level::best(), &Inline, command, workspace.as_mut_slice())
        .expect("the call is a good one");
    logprob.cast::<f32>()[0]
}

impl Case for TokenLogprobCase {
    const KERNEL: &'static str = "token_logprob";

    fn name(&self) -> String {
        self.product.name()
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let rows = self.token.len();
        let (mut logprob, mut status) = (Bytes::poisoned(rows * 4), Bytes::poisoned(rows * 4));
        let token = Bytes::of(&self.token);
        let live = self.product.rows.map(|rows| Bytes::of(&[rows]));
        let command = TokenLogprob::<Host<'_>> {
            params: self.params,
            x: self.product.x.as_slice(),
            weight: self.product.weight.as_slice(),
            bias: self.product.bias.as_ref().map(Bytes::as_slice),
            token: token.as_slice(),
            logprob: logprob.as_mut_slice(),
            status: status.as_mut_slice(),
            rows: live.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        // Words have no float in them: as bytes they are compared by bits alone.
        Ok(vec![
            Output { name: "logprob", dtype: Dtype::F32, bytes: logprob },
            Output { name: "status", dtype: Dtype::I8, bytes: status },
        ])
    }

    /// By the same quantised inputs as the product, row by row.
    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let p = &self.params;
        let mut product = self.product.clone();
        // A malformed call may still be a good one of another shape.
        product.params = params::Matmul {
            x_row_stride: p.x_row_stride,
            rows_max: p.rows_max,
            x_dtype: p.x_dtype,
            bias_dtype: p.bias_dtype,
            weight: p.weight,
            ..product.params
        };
        let logits = product.spec::<R>().remove(0);
        let values = logits.iter().zip(&self.token).map(|(row, token)| {
            let most = row.values.iter().fold(R::of(f64::NEG_INFINITY), |most, &x| x.larger(most));
            let mut sum = R::of(0.0);
            for &x in &row.values {
                sum += (x - most).exp();
            }
            (row.values[*token as usize] - most) - sum.ln()
        });
        let rows = vec![Row { at: 0, values: values.collect() }];
        vec![rows, Vec::new()]
    }
}
