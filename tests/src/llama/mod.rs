//! A two-layer Llama as recorded commands: the thin slice that proves the contract.
//!
//! The weights and the expected log-probabilities were made by `golden/llama/make.py`
//! with transformers in f64.

mod spec;

use crate::harness::Bytes;
use backends::cpu::Cpu;
use kernels_core::activation::Activation;
use kernels_core::append_kv::AppendKv;
use kernels_core::attention::Attention;
use kernels_core::device::{Backend, Buffer, Command, Launch, Program, Read, Slice, Update, Write};
use kernels_core::dtype::Dtype;
use kernels_core::embed::Embed;
use kernels_core::matmul::Matmul;
use kernels_core::norm::Norm;
use kernels_core::packing;
use kernels_core::params;
use kernels_core::rope::Rope;
use kernels_core::rope::table::{Scaling, Table};
use safetensors::SafeTensors;

pub use spec::truth;

/// Shapes of the golden model.
const LAYERS: usize = 2;
const VOCABULARY: u32 = 131;
const HIDDEN: u32 = 96;
const INTERMEDIATE: u32 = 136;
const HEADS: u32 = 6;
const KV_HEADS: u32 = 2;
const HEAD_DIM: u32 = 16;
const Q_WIDTH: u32 = HEADS * HEAD_DIM;
const KV_WIDTH: u32 = KV_HEADS * HEAD_DIM;
const EPSILON: f32 = 1e-5;
/// A page is small and the rows few, so that a prompt spans pages and chunks.
const PAGE_LEN: u32 = 8;
const PAGES: u32 = 8;
const ROWS_MAX: u32 = 40;
const POSITIONS: u32 = PAGE_LEN * PAGES;

const F32: u32 = params::DTYPE_F32;

static GOLDEN: &[u8] = include_bytes!("../../golden/llama/golden.safetensors");

/// The golden prompt.
pub fn prompt() -> Vec<u32> {
    tensor_u32("tokens")
}

/// The golden log-probabilities: `[prompt][vocabulary]`.
pub fn expected() -> Vec<Vec<f64>> {
    let bytes = tensor("expected.logprobs");
    let all = Bytes::of(&bytes);
    let all = all.cast::<f64>();
    all.chunks(VOCABULARY as usize).map(<[f64]>::to_vec).collect()
}

fn tensor(name: &str) -> Vec<u8> {
    let file = SafeTensors::deserialize(GOLDEN).expect("the golden is committed whole");
    file.tensor(name).unwrap_or_else(|_| panic!("the golden holds {name}")).data().to_vec()
}

fn tensor_u32(name: &str) -> Vec<u32> {
    Bytes::of(&tensor(name)).cast::<u32>().to_vec()
}

/// The model on a backend, and one sequence of its pages.
pub struct Llama {
    cpu: Cpu,
    program: Program,
    step: Step,
    logits: Slice,
    /// Pages of the sequence, in the order of its positions.
    pages: Vec<u32>,
    filled: u32,
}

/// What changes from step to step.
struct Step {
    tokens: Slice,
    positions: Slice,
    slots: Slice,
    q_start: Slice,
    kv_len: Slice,
    page_ids: Slice,
    rows: Slice,
}

impl Llama {
    /// The model with pages of a type, and its pages in that order.
    pub fn new(mut cpu: Cpu, kv: Dtype, pages: &[u32]) -> Self {
        assert_eq!(pages.len(), PAGES as usize, "a page for every position");
        let mut build = Builder { cpu: &mut cpu, commands: Vec::new(), kv: layout(kv) };
        let step = Step {
            tokens: build.words(ROWS_MAX),
            positions: build.words(ROWS_MAX),
            slots: build.words(2 * ROWS_MAX),
            q_start: build.words(2),
            kv_len: build.words(1),
            page_ids: build.words(PAGES),
            rows: build.words(1),
        };
        let logits = build.forward(&step);
        let commands = std::mem::take(&mut build.commands);
        let program = cpu.record(&commands).expect("every command keeps its contract");
        Self { cpu, program, step, logits, pages: pages.to_vec(), filled: 0 }
    }

    /// The logits of some more tokens of the sequence, all in one step.
    pub fn forward(&mut self, tokens: &[u32]) -> Vec<Vec<f32>> {
        let count = tokens.len() as u32;
        let positions: Vec<u32> = (self.filled..self.filled + count).collect();
        let slot =
            |position: &u32| [self.pages[(position / PAGE_LEN) as usize], position % PAGE_LEN];
        let slots: Vec<u32> = positions.iter().flat_map(slot).collect();
        self.filled += count;
        let (q_start, kv_len, rows) = ([0, count], [self.filled], [count]);
        let step = &self.step;
        let writes = [
            part(step.tokens, tokens),
            part(step.positions, &positions),
            part(step.slots, &slots),
            part(step.q_start, &q_start),
            part(step.kv_len, &kv_len),
            part(step.page_ids, &self.pages),
            part(step.rows, &rows),
        ];
        let read = Slice { bytes: u64::from(count * VOCABULARY) * 4, ..self.logits };
        let launch = Launch { writes: &writes, program: self.program, reads: &[read] };
        let ticket = self.cpu.submit(launch).expect("a good step runs");
        let mut out = Bytes::filled(read.bytes as usize, 0);
        self.cpu.collect(ticket, out.as_mut_slice()).expect("the ticket is new");
        out.cast::<f32>().chunks(VOCABULARY as usize).map(<[f32]>::to_vec).collect()
    }
}

/// The beginning of a step buffer, and what goes there.
fn part(slice: Slice, words: &[u32]) -> (Slice, &[u8]) {
    let bytes = bytemuck::cast_slice(words);
    (Slice { bytes: bytes.len() as u64, ..slice }, bytes)
}

/// Pages as the project lays them out: K transposed, V after it.
fn layout(dtype: Dtype) -> params::KvLayout {
    let (page_len, dim) = (u64::from(PAGE_LEN), u64::from(HEAD_DIM));
    let head = 2 * page_len * dim;
    let token_scales = matches!(dtype, Dtype::I8 | Dtype::I4 | Dtype::E4m3);
    params::KvLayout {
        page_stride: head * u64::from(KV_HEADS),
        k_head_stride: head,
        k_token_stride: 1,
        k_dim_stride: page_len,
        v_head_stride: head,
        v_token_stride: dim,
        v_offset: page_len * dim,
        pages: PAGES,
        page_len: PAGE_LEN,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        dtype: dtype as u32,
        scales: if token_scales { params::KV_SCALES_TOKEN } else { params::KV_SCALES_NONE },
        k_scale: 0.0,
        v_scale: 0.0,
    }
}

/// Commands as they are written down.
struct Builder<'a> {
    cpu: &'a mut Cpu,
    commands: Vec<Command>,
    kv: params::KvLayout,
}

impl Builder<'_> {
    fn alloc(&mut self, bytes: u64) -> Slice {
        let buffer: Buffer = self.cpu.alloc(bytes).expect("there is memory");
        Slice { buffer, offset: 0, bytes }
    }

    fn words(&mut self, count: u32) -> Slice {
        self.alloc(u64::from(count) * 4)
    }

    fn rows(&mut self, width: u32) -> Slice {
        self.words(ROWS_MAX * width)
    }

    fn upload(&mut self, bytes: &[u8]) -> Slice {
        let slice = self.alloc(bytes.len() as u64);
        self.cpu.write(slice, bytes).expect("the slice is its own");
        slice
    }

    /// The whole step: from token ids to logits.
    fn forward(&mut self, step: &Step) -> Slice {
        let table = self.table();
        let (hidden, normed) = (self.rows(HIDDEN), self.rows(HIDDEN));
        let branch = self.rows(HIDDEN);
        self.embed(step, hidden);
        for layer in 0..LAYERS {
            let name = |rest: &str| format!("model.layers.{layer}.{rest}.weight");
            if layer == 0 {
                self.norm(step, &name("input_layernorm"), hidden, None, normed);
            } else {
                self.norm(step, &name("input_layernorm"), branch, Some(hidden), normed);
            }
            let attended = self.attention(step, table, layer, normed);
            let width = (Q_WIDTH, HIDDEN);
            self.matmul(step, &[name("self_attn.o_proj")], width, attended, branch);
            let after = name("post_attention_layernorm");
            self.norm(step, &after, branch, Some(hidden), normed);
            let both = self.rows(2 * INTERMEDIATE);
            let names = [name("mlp.gate_proj"), name("mlp.up_proj")];
            self.matmul(step, &names, (HIDDEN, 2 * INTERMEDIATE), normed, both);
            let gated = self.rows(INTERMEDIATE);
            self.activation(step, both, gated);
            self.matmul(step, &[name("mlp.down_proj")], (INTERMEDIATE, HIDDEN), gated, branch);
        }
        self.norm(step, "model.norm.weight", branch, Some(hidden), normed);
        let logits = self.rows(VOCABULARY);
        self.matmul(step, &["lm_head.weight".into()], (HIDDEN, VOCABULARY), normed, logits);
        logits
    }

    /// Queries, keys and values in one product; keys and values into pages; attention.
    fn attention(&mut self, step: &Step, table: Slice, layer: usize, normed: Slice) -> Slice {
        let width = Q_WIDTH + 2 * KV_WIDTH;
        let qkv = self.rows(width);
        let names =
            ["q", "k", "v"].map(|x| format!("model.layers.{layer}.self_attn.{x}_proj.weight"));
        self.matmul(step, &names, (HIDDEN, width), normed, qkv);
        let column = |first: u32| Slice {
            offset: u64::from(first) * 4,
            bytes: qkv.bytes - u64::from(first) * 4,
            ..qkv
        };
        let dtype = Dtype::ALL.into_iter().find(|d| *d as u32 == self.kv.dtype);
        let dtype = dtype.expect("the layout names a type");
        let slab = dtype.bytes(Some(u64::from(PAGES) * self.kv.page_stride)).expect("small");
        let keys = self.alloc(slab);
        let scales = (self.kv.scales == params::KV_SCALES_TOKEN)
            .then(|| self.words(PAGES * KV_HEADS * 2 * PAGE_LEN));
        self.commands.push(
            AppendKv {
                params: params::AppendKv {
                    kv: self.kv,
                    k_row_stride: width.into(),
                    v_row_stride: width.into(),
                    rows_max: ROWS_MAX,
                    slots_max: ROWS_MAX,
                    x_dtype: F32,
                    rope: params::ROPE_NEOX,
                    rotary_dims: HEAD_DIM,
                    table_len: POSITIONS,
                },
                k: Read(column(Q_WIDTH)),
                v: Read(column(Q_WIDTH + KV_WIDTH)),
                keys: Update(keys),
                values: None,
                scales: scales.map(Update),
                slots: Read(step.slots),
                slot_starts: None,
                table: Some(Read(table)),
                positions: Some(Read(step.positions)),
                rows: Some(Read(step.rows)),
            }
            .into(),
        );
        self.rope(step, table, width, qkv);
        let attended = self.rows(Q_WIDTH);
        self.commands.push(
            Attention {
                params: params::Attention {
                    kv: self.kv,
                    q_row_stride: width.into(),
                    out_row_stride: Q_WIDTH.into(),
                    rows_max: ROWS_MAX,
                    seqs_max: 1,
                    q_heads: HEADS,
                    kv_len_max: POSITIONS,
                    table_width: PAGES,
                    page_ids_max: 0,
                    q_dtype: F32,
                    out_dtype: F32,
                    causal: 1,
                    window: 0,
                    scale: 0.25,
                    softcap: 0.0,
                },
                q: Read(qkv),
                keys: Read(keys),
                values: None,
                scales: scales.map(Read),
                q_start: Read(step.q_start),
                kv_len: Read(step.kv_len),
                first_position: None,
                page_start: None,
                page_ids: Read(step.page_ids),
                intervals: None,
                tree_bits: None,
                sinks: None,
                slopes: None,
                out: Write(attended),
                lse: None,
                seqs: None,
            }
            .into(),
        );
        attended
    }

    fn embed(&mut self, step: &Step, out: Slice) {
        let table = self.upload(&tensor("model.embed_tokens.weight"));
        let command = Embed {
            params: params::Embed {
                table_row_stride: HIDDEN.into(),
                out_row_stride: HIDDEN.into(),
                rows_max: ROWS_MAX,
                packed: 0,
                out_dtype: F32,
                scale: 1.0,
                weight: params::Weight {
                    outputs: VOCABULARY,
                    inputs: HIDDEN,
                    dtype: F32,
                    ..Default::default()
                },
            },
            table: Read(table),
            tokens: Read(step.tokens),
            out: Write(out),
            rows: Some(Read(step.rows)),
        };
        self.commands.push(command.into());
    }

    /// silu(gate) · up, of `[gate | up]` rows.
    fn activation(&mut self, step: &Step, both: Slice, out: Slice) {
        let command = Activation {
            params: params::Activation {
                x_row_stride: u64::from(2 * INTERMEDIATE),
                out_row_stride: INTERMEDIATE.into(),
                rows_max: ROWS_MAX,
                columns: INTERMEDIATE,
                up_offset: INTERMEDIATE,
                kind: params::ACTIVATION_SILU,
                x_dtype: F32,
                out_dtype: F32,
            },
            x: Read(both),
            out: Write(out),
            rows: Some(Read(step.rows)),
        };
        self.commands.push(command.into());
    }

    /// Turns the queries of `[q | k | v]` rows in place.
    fn rope(&mut self, step: &Step, table: Slice, width: u32, qkv: Slice) {
        let command = Rope {
            params: params::Rope {
                x_row_stride: 0,
                out_row_stride: width.into(),
                rows_max: ROWS_MAX,
                heads: HEADS,
                head_dim: HEAD_DIM,
                rotary_dims: HEAD_DIM,
                table_len: POSITIONS,
                pairing: params::ROPE_NEOX,
                x_dtype: F32,
                out_dtype: F32,
            },
            x: None,
            table: Read(table),
            positions: Read(step.positions),
            out: Update(qkv),
            rows: Some(Read(step.rows)),
        };
        self.commands.push(command.into());
    }

    fn norm(&mut self, step: &Step, name: &str, x: Slice, residual: Option<Slice>, out: Slice) {
        let weight = self.upload(&tensor(name));
        let command = Norm {
            params: params::Norm {
                x_row_stride: HIDDEN.into(),
                residual_row_stride: residual.map_or(0, |_| HIDDEN.into()),
                out_row_stride: HIDDEN.into(),
                rows_max: ROWS_MAX,
                heads: 1,
                columns: HIDDEN,
                x_dtype: F32,
                weight_dtype: F32,
                out_dtype: F32,
                epsilon: EPSILON,
                weight_offset: 0.0,
            },
            x: Read(x),
            weight: Read(weight),
            residual: residual.map(Update),
            out: Write(out),
            rows: Some(Read(step.rows)),
        };
        self.commands.push(command.into());
    }

    /// The named matrices, one after the other, as one product.
    fn matmul(
        &mut self,
        step: &Step,
        names: &[String],
        (inputs, outputs): (u32, u32),
        x: Slice,
        out: Slice,
    ) {
        let weight = params::Weight {
            outputs,
            inputs,
            dtype: F32,
            scheme: params::SCHEME_NONE,
            group: 0,
            scale_dtype: 0,
        };
        let values: Vec<u8> = names.iter().flat_map(|name| tensor(name)).collect();
        let bytes = packing::packed_bytes(&weight).expect("a good shape");
        let mut packed = Bytes::filled(bytes as usize, 0);
        let source = packing::Source::Floats { dtype: Dtype::F32, values: &values };
        packing::pack(&weight, 0..outputs, source, packed.as_mut_slice()).expect("good weights");
        let packed = self.upload(packed.as_slice());
        let command = Matmul {
            params: params::Matmul {
                x_row_stride: inputs.into(),
                out_row_stride: outputs.into(),
                rows_max: ROWS_MAX,
                x_dtype: F32,
                bias_dtype: 0,
                out_dtype: F32,
                weight,
            },
            x: Read(x),
            weight: Read(packed),
            bias: None,
            out: Write(out),
            rows: Some(Read(step.rows)),
        };
        self.commands.push(command.into());
    }

    /// Cosines and sines of every position.
    fn table(&mut self) -> Slice {
        let table = Table { base: 10_000.0, rotary_dims: HEAD_DIM, scaling: Scaling::None };
        let mut rows = vec![0f32; (POSITIONS * HEAD_DIM) as usize];
        table.fill(0, &mut rows).expect("a good table");
        self.upload(bytemuck::cast_slice(&rows))
    }
}
