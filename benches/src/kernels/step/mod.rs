//! A layer of a small Llama as its kernels, one after the other, each timed in place:
//! what share of a step goes to norm, to quantising activations and to the activation
//! between gate and up.
//!
//! One row decodes at position 512, 32 rows do so for a sequence each, 512 rows are a
//! prompt. Layers are walked through, weights and pages, so that none is in a cache.

mod calls;

use crate::frame::{Bench, Copies, Entry, On, Subject, Work};
use half::bf16;
use kernels_core::dtype::Dtype;
use kernels_core::packing;
use kernels_core::params;
use kernels_core::rope::table::{Scaling, Table};
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::kv_pages::{Form, Pages};
use pagewise_tests::cases::matmul::Format;
use pagewise_tests::harness::{Bytes, Noise};
use std::collections::BTreeMap;
use std::time::Duration;

const HIDDEN: usize = 2048;
const INTERMEDIATE: usize = 5632;
const Q_HEADS: usize = 32;
const KV_HEADS: usize = 4;
const HEAD_DIM: usize = 64;
const QKV: usize = (Q_HEADS + 2 * KV_HEADS) * HEAD_DIM;
const FORMAT: Format = Format::Groups(Dtype::I4, 32, true, Dtype::F16);
const POSITIONS: usize = 512;
const PAGE_LEN: usize = 32;
/// Pages of a sequence.
const PAGES: usize = POSITIONS / PAGE_LEN;
/// Rows that the scalar level answers too.
const ROWS_CHECKED: usize = 2;

/// Times the layer at one row, at many and as a prompt.
pub fn bench(bench: &mut Bench) {
    for rows in [1, 32, 512] {
        let work = Work::Items(rows as u64);
        let entry = Entry { kernel: "step", shape: format!("m{rows}"), work };
        bench.time(entry, |bench| Layer::new(rows, bench));
    }
}

/// A weight, one copy for each layer.
struct Weight {
    params: params::Weight,
    packed: Copies,
}

/// The weights of a layer, in the order of their use: outputs and inputs.
const WEIGHTS: [(usize, usize); 4] =
    [(QKV, HIDDEN), (HIDDEN, HIDDEN), (2 * INTERMEDIATE, HIDDEN), (HIDDEN, INTERMEDIATE)];

/// What rows hold between kernels: f32.
struct States {
    residual: Bytes,
    /// What the layer before adds to the residual; then what this one does.
    delta: Bytes,
    normed: Bytes,
    qkv: Bytes,
    attended: Bytes,
    gate_up: Bytes,
    active: Bytes,
}

struct Layer {
    rows: usize,
    weights: [Weight; 4],
    /// `[2][HIDDEN]` bf16: before attention and before the feed-forward.
    norms: Copies,
    pages: Pages,
    kv: Copies,
    /// Turns of every position.
    table: Bytes,
    /// What the first layer is given.
    start: Bytes,
    states: States,
    workspace: Bytes,
    spent: BTreeMap<&'static str, Duration>,
}

impl Layer {
    fn new(rows: usize, bench: &Bench) -> Self {
        let weights = WEIGHTS.map(|(outputs, inputs)| FORMAT.weight(outputs as u32, inputs as u32));
        let bytes = weights.iter().map(|weight| packing::packed_bytes(weight).expect("it is good"));
        let layers = bench.cycle(bytes.sum::<u64>() as usize);
        let mut noise = Noise::new(1);
        let weights = weights.map(|params| {
            let packed = FORMAT.packed(&params, &mut noise);
            Weight { params, packed: Copies::new(packed.as_slice(), layers) }
        });
        let norms = noise.normals(2 * HIDDEN, 1.0).into_iter().map(bf16::from_f32);
        let norms = Bytes::of(&norms.collect::<Vec<_>>());
        let seqs = if is_prompt(rows) { 1 } else { rows };
        let pages = Pages {
            form: Form::Native,
            pages: (seqs * PAGES) as u32,
            page_len: PAGE_LEN as u32,
            kv_heads: KV_HEADS as u32,
            head_dim: HEAD_DIM as u32,
            dtype: Dtype::F16,
            token_scales: false,
        };
        let numbers = noise.normals(seqs * POSITIONS * KV_HEADS * HEAD_DIM * 2, 0.5);
        let kv = Bytes::rounded(Dtype::F16, &numbers);
        let turns = Table { base: 10_000.0, rotary_dims: HEAD_DIM as u32, scaling: Scaling::None };
        let mut table = vec![0f32; POSITIONS * HEAD_DIM];
        turns.fill(0, &mut table).expect("the numbers are good");
        let state = |width: usize| Bytes::filled(rows * width * 4, 0);
        Self {
            rows,
            weights,
            norms: Copies::new(norms.as_slice(), layers),
            pages,
            kv: Copies::new(kv.as_slice(), layers),
            table: Bytes::of(&table),
            start: Bytes::of(&noise.normals(rows * HIDDEN, 1.0)),
            states: States {
                residual: state(HIDDEN),
                delta: state(HIDDEN),
                normed: state(HIDDEN),
                qkv: state(QKV),
                attended: state(HIDDEN),
                gate_up: state(2 * INTERMEDIATE),
                active: state(INTERMEDIATE),
            },
            workspace: Bytes::filled(0, 0),
            spent: BTreeMap::new(),
        }
    }

    /// The layer of turn 0 on the first rows of what it is given: the residual and what
    /// comes on top of it.
    fn answer(&mut self, on: On<'_>, rows: usize) -> [Vec<u8>; 2] {
        self.states.delta.as_mut_slice().copy_from_slice(self.start.as_slice());
        self.states.residual.as_mut_slice().fill(0);
        self.run(on, 0, rows);
        let first =
            |state: &Bytes| state.as_slice()[..rows.min(ROWS_CHECKED) * HIDDEN * 4].to_vec();
        [first(&self.states.residual), first(&self.states.delta)]
    }
}

/// Whether so many rows are one sequence, not one each.
const fn is_prompt(rows: usize) -> bool {
    rows == POSITIONS
}

impl Subject for Layer {
    fn check(&mut self, on: On<'_>) {
        let got = self.answer(on, self.rows);
        let scalar = Level::named("scalar").expect("every machine has the scalar level");
        let plain = On { level: scalar, workers: &Inline };
        let expected = self.answer(plain, self.rows.min(ROWS_CHECKED));
        assert!(got == expected, "the first rows have the scalar level's bits");
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        self.run(on, turn, self.rows);
    }

    fn parts(&mut self) -> Vec<(&'static str, Duration)> {
        let mut parts: Vec<_> = std::mem::take(&mut self.spent).into_iter().collect();
        // A product quantises for itself: what is timed apart is no part of the layer.
        let whole = parts.iter().filter(|(part, _)| *part != calls::QUANTISE);
        parts.push(("layer", whole.map(|(_, spent)| *spent).sum()));
        parts
    }
}
