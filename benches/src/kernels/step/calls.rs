//! The kernels of a layer, each timed.

use super::{
    HEAD_DIM, HIDDEN, INTERMEDIATE, KV_HEADS, Layer, PAGE_LEN, PAGES, POSITIONS, Q_HEADS, QKV,
    is_prompt,
};
use crate::frame::On;
use kernels_core::activation::{self, Activation};
use kernels_core::append_kv::{self, AppendKv};
use kernels_core::attention::{self, Attention};
use kernels_core::command::Host;
use kernels_core::matmul::{self, Matmul};
use kernels_core::norm::{self, Norm};
use kernels_core::params;
use kernels_core::rope::{self, Rope};
use pagewise_tests::harness::Bytes;
use std::time::Instant;

/// The part that is timed twice: apart, and within the products.
pub(super) const QUANTISE: &str = "quantise";

const F32: u32 = params::DTYPE_F32;
const GOOD: &str = "the call is a good one";

/// One call of the layer.
struct Step<'a> {
    on: On<'a>,
    turn: usize,
    rows: usize,
    /// Position of each row, of its sequence's last one.
    positions: Bytes,
}

impl Layer {
    /// The layer of that turn, on the first rows.
    pub(super) fn run(&mut self, on: On<'_>, turn: usize, rows: usize) {
        let position = |row| if self.is_prompt() { row } else { POSITIONS - 1 };
        let positions: Vec<u32> = (0..rows).map(|row| position(row) as u32).collect();
        let step = Step { on, turn, rows, positions: Bytes::of(&positions) };
        self.norm(&step, 0);
        self.product(&step, 0);
        self.append(&step);
        self.attend(&step);
        self.product(&step, 1);
        self.norm(&step, 1);
        self.product(&step, 2);
        self.activate(&step);
        self.product(&step, 3);
    }

    fn is_prompt(&self) -> bool {
        is_prompt(self.rows)
    }

    fn spend(&mut self, part: &'static str, start: Instant) {
        *self.spent.entry(part).or_default() += start.elapsed();
    }

    fn norm(&mut self, step: &Step<'_>, which: usize) {
        let states = &mut self.states;
        let command = Norm::<Host> {
            params: params::Norm {
                x_row_stride: HIDDEN as u64,
                residual_row_stride: HIDDEN as u64,
                out_row_stride: HIDDEN as u64,
                rows_max: step.rows as u32,
                heads: 1,
                columns: HIDDEN as u32,
                x_dtype: F32,
                weight_dtype: params::DTYPE_BF16,
                out_dtype: F32,
                epsilon: 1e-5,
                weight_offset: 0.0,
            },
            x: states.delta.as_slice(),
            weight: &self.norms.turn(step.turn)[which * HIDDEN * 2..][..HIDDEN * 2],
            residual: Some(states.residual.as_mut_slice()),
            out: states.normed.as_mut_slice(),
            rows: None,
        };
        let start = Instant::now();
        norm::run(step.on.level, step.on.workers, command).expect(GOOD);
        self.spend("norm", start);
    }

    /// The product with a weight of the list; first its rows are quantised apart.
    fn product(&mut self, step: &Step<'_>, which: usize) {
        let states = &mut self.states;
        let (x, out) = match which {
            0 => (&states.normed, &mut states.qkv),
            1 => (&states.attended, &mut states.delta),
            2 => (&states.normed, &mut states.gate_up),
            _ => (&states.active, &mut states.delta),
        };
        let weight = &self.weights[which];
        let params = params::Matmul {
            x_row_stride: weight.params.inputs.into(),
            out_row_stride: weight.params.outputs.into(),
            rows_max: step.rows as u32,
            x_dtype: F32,
            bias_dtype: 0,
            out_dtype: F32,
            weight: weight.params,
        };
        let (x, weight) = (x.as_slice(), weight.packed.turn(step.turn));
        let (level, workers) = (step.on.level, step.on.workers);
        let command = matmul(params, x, weight, out);
        let needs = command.needs(workers.count()).expect(GOOD);
        let workspace = room(&mut self.workspace, needs.workspace_bytes);
        let start = Instant::now();
        matmul::convert(level, workers, command, workspace).expect(GOOD);
        let quantised = Instant::now();
        matmul::run(level, workers, matmul(params, x, weight, out), workspace).expect(GOOD);
        self.spend("matmul", quantised);
        *self.spent.entry(QUANTISE).or_default() += quantised - start;
    }

    /// Queries turn in place, keys on their way into pages.
    fn append(&mut self, step: &Step<'_>) {
        let slots = step.positions.cast::<u32>().iter().enumerate().map(|(row, &position)| {
            let seq = if self.is_prompt() { 0 } else { row };
            [(seq * PAGES) as u32 + position / PAGE_LEN as u32, position % PAGE_LEN as u32]
        });
        let slots = Bytes::of(&slots.collect::<Vec<_>>());
        let turn = Rope::<Host> {
            params: params::Rope {
                x_row_stride: 0,
                out_row_stride: QKV as u64,
                rows_max: step.rows as u32,
                heads: Q_HEADS as u32,
                head_dim: HEAD_DIM as u32,
                rotary_dims: HEAD_DIM as u32,
                table_len: POSITIONS as u32,
                pairing: params::ROPE_NEOX,
                x_dtype: F32,
                out_dtype: F32,
            },
            x: None,
            table: self.table.as_slice(),
            positions: step.positions.as_slice(),
            out: self.states.qkv.as_mut_slice(),
            rows: None,
        };
        let start = Instant::now();
        rope::run(step.on.level, step.on.workers, turn).expect(GOOD);
        let append = AppendKv::<Host> {
            params: params::AppendKv {
                kv: self.pages.layout(),
                k_row_stride: QKV as u64,
                v_row_stride: QKV as u64,
                rows_max: step.rows as u32,
                slots_max: step.rows as u32,
                x_dtype: F32,
                rope: params::ROPE_NEOX,
                rotary_dims: HEAD_DIM as u32,
                table_len: POSITIONS as u32,
            },
            k: &self.states.qkv.as_slice()[HIDDEN * 4..],
            v: &self.states.qkv.as_slice()[(HIDDEN + KV_HEADS * HEAD_DIM) * 4..],
            keys: self.kv.turn_mut(step.turn),
            values: None,
            scales: None,
            slots: slots.as_slice(),
            slot_starts: None,
            table: Some(self.table.as_slice()),
            positions: Some(step.positions.as_slice()),
            rows: None,
        };
        let needs = append.needs(step.on.workers.count()).expect(GOOD);
        let workspace = room(&mut self.workspace, needs.workspace_bytes);
        append_kv::run(step.on.level, step.on.workers, append, workspace).expect(GOOD);
        self.spend("append", start);
    }

    fn attend(&mut self, step: &Step<'_>) {
        let (seqs, rows_each) = if self.is_prompt() { (1, step.rows) } else { (step.rows, 1) };
        let kv_len = if self.is_prompt() { step.rows } else { POSITIONS };
        let starts =
            |each: usize| Bytes::of(&(0..=seqs).map(|seq| (seq * each) as u32).collect::<Vec<_>>());
        let (q_start, page_start) = (starts(rows_each), starts(PAGES));
        let kv_len = Bytes::of(&vec![kv_len as u32; seqs]);
        let page_ids = Bytes::of(&(0..(seqs * PAGES) as u32).collect::<Vec<_>>());
        let command = Attention::<Host> {
            params: params::Attention {
                kv: self.pages.layout(),
                q_row_stride: QKV as u64,
                out_row_stride: HIDDEN as u64,
                rows_max: step.rows as u32,
                seqs_max: seqs as u32,
                q_heads: Q_HEADS as u32,
                kv_len_max: POSITIONS as u32,
                page_ids_max: (seqs * PAGES) as u32,
                q_dtype: F32,
                out_dtype: F32,
                causal: 1,
                scale: 1.0 / (HEAD_DIM as f32).sqrt(),
                ..Default::default()
            },
            q: self.states.qkv.as_slice(),
            keys: self.kv.turn(step.turn),
            values: None,
            scales: None,
            q_start: q_start.as_slice(),
            kv_len: kv_len.as_slice(),
            first_position: None,
            page_start: Some(page_start.as_slice()),
            page_ids: page_ids.as_slice(),
            intervals: None,
            tree_bits: None,
            sinks: None,
            slopes: None,
            out: self.states.attended.as_mut_slice(),
            lse: None,
            seqs: None,
        };
        let needs = command.needs(step.on.workers.count()).expect(GOOD);
        let workspace = room(&mut self.workspace, needs.workspace_bytes);
        let start = Instant::now();
        attention::run(step.on.level, step.on.workers, command, workspace).expect(GOOD);
        self.spend("attention", start);
    }

    fn activate(&mut self, step: &Step<'_>) {
        let command = Activation::<Host> {
            params: params::Activation {
                x_row_stride: 2 * INTERMEDIATE as u64,
                out_row_stride: INTERMEDIATE as u64,
                rows_max: step.rows as u32,
                columns: INTERMEDIATE as u32,
                up_offset: INTERMEDIATE as u32,
                kind: params::ACTIVATION_SILU,
                x_dtype: F32,
                out_dtype: F32,
            },
            x: self.states.gate_up.as_slice(),
            out: self.states.active.as_mut_slice(),
            rows: None,
        };
        let start = Instant::now();
        activation::run(step.on.level, step.on.workers, command).expect(GOOD);
        self.spend("activation", start);
    }
}

fn matmul<'a>(
    params: params::Matmul,
    x: &'a [u8],
    weight: &'a [u8],
    out: &'a mut Bytes,
) -> Matmul<Host<'a>> {
    Matmul { params, x, weight, bias: None, out: out.as_mut_slice(), rows: None }
}

/// Workspace of at least so many bytes.
fn room(workspace: &mut Bytes, bytes: u64) -> &mut [u8] {
    if (workspace.len() as u64) < bytes {
        *workspace = Bytes::filled(bytes as usize, 0);
    }
    workspace.as_mut_slice()
}
