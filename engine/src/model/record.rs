//! A forward pass as commands.

use super::{Capacity, Loaded, Model, Scratch, Slab, Slabs, StepSlices};
use crate::lora::Slots;
use crate::weights::{Matrix, Table};
use kernels_core::activation::Activation;
use kernels_core::append_kv::AppendKv;
use kernels_core::attention::Attention;
use kernels_core::device::{Command, Read, Slice, Update, Write};
use kernels_core::embed::Embed;
use kernels_core::gather::Gather;
use kernels_core::matmul::Matmul;
use kernels_core::norm::Norm;
use kernels_core::params;
use kernels_core::rope::Rope;

const F32: u32 = params::DTYPE_F32;

/// Where a forward pass happens.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// How much it serves at most.
    pub capacity: &'a Capacity,
    /// What it is about, step by step.
    pub step: &'a StepSlices,
    /// Its keys and values.
    pub slabs: &'a Slabs,
    /// Its rows between layers.
    pub scratch: &'a Scratch,
    /// Adapters that rows may have.
    pub adapters: Option<&'a Slots>,
}

/// Rows of which logits are asked for.
#[derive(Clone, Copy, Debug)]
pub struct LogitRows {
    /// `[logit_rows_max]` u32: rows of the step by number.
    pub indices: Slice,
    /// `[1]` u32: how many are asked for.
    pub count: Slice,
}

impl Model {
    /// Appends a forward pass: from token ids to hidden states after the last norm, which
    /// lie in the slice it gives, `[rows_max, hidden]` f32.
    pub fn forward(&self, place: &Place<'_>, commands: &mut Vec<Command>) -> Slice {
        let mut recorder = Recorder { model: self, place, commands };
        let scratch = place.scratch;
        recorder.embed();
        let mut slabs = place.slabs.layers.iter();
        let mut branch = None;
        for (at, layer) in self.layers.iter().enumerate() {
            let (first, second) = ((at, false), (at, true));
            match *layer {
                Loaded::Attention { norm, qkv, head_norms, out, window } => {
                    recorder.norm_hidden(branch, norm);
                    let slab = slabs.next().expect("slabs were made for this model's layers");
                    recorder.product(first, &qkv, scratch.normed, scratch.wide);
                    recorder.attention(head_norms, window, slab);
                    recorder.product(second, &out, scratch.narrow, scratch.branch);
                }
                Loaded::FeedForward { norm, gate_up, down } => {
                    recorder.norm_hidden(branch, norm);
                    recorder.product(first, &gate_up, scratch.normed, scratch.wide);
                    recorder.activation();
                    recorder.product(second, &down, scratch.narrow, scratch.branch);
                }
            }
            branch = Some(scratch.branch);
        }
        recorder.norm_hidden(branch, self.norm);
        scratch.normed
    }

    /// Appends the logits of some rows, which lie in the slice it gives,
    /// `[logit_rows_max, vocab]` f32.
    pub fn logits(
        &self,
        place: &Place<'_>,
        hidden: Slice,
        rows: LogitRows,
        commands: &mut Vec<Command>,
    ) -> Slice {
        let (scratch, columns) = (place.scratch, self.config.hidden);
        let gather = Gather {
            params: params::Gather {
                x_row_stride: columns.into(),
                out_row_stride: columns.into(),
                x_rows: place.capacity.rows_max,
                rows_max: place.capacity.logit_rows_max,
                columns,
                dtype: F32,
            },
            x: Read(hidden),
            indices: Read(rows.indices),
            out: Write(scratch.gathered),
            rows: Some(Read(rows.count)),
        };
        commands.push(gather.into());
        let rows_max = place.capacity.logit_rows_max;
        let (x, out) = (scratch.gathered, scratch.logits);
        commands.push(matmul(&self.output, rows_max, rows.count, x, out));
        if let Some(adapters) = place.adapters {
            adapters.add_to_output(x, out, rows.count, commands);
        }
        scratch.logits
    }
}

/// Commands as they are written down.
struct Recorder<'a> {
    model: &'a Model,
    place: &'a Place<'a>,
    commands: &'a mut Vec<Command>,
}

impl Recorder<'_> {
    fn push(&mut self, command: impl Into<Command>) {
        self.commands.push(command.into());
    }

    fn rows(&self) -> Option<Read> {
        Some(Read(self.place.step.rows))
    }

    fn embed(&mut self) {
        let columns = self.model.config.hidden;
        let (weight, table, packed) = match self.model.embedding {
            Table::Plain(weight, table) => (weight, table, 0),
            Table::Packed(weight, table) => (weight, table, 1),
        };
        self.push(Embed {
            params: params::Embed {
                table_row_stride: if packed == 1 { 0 } else { columns.into() },
                out_row_stride: columns.into(),
                rows_max: self.place.capacity.rows_max,
                packed,
                out_dtype: F32,
                scale: 1.0,
                weight,
            },
            table: Read(table),
            tokens: Read(self.place.step.tokens),
            out: Write(self.place.scratch.hidden),
            rows: self.rows(),
        });
        if let Some(adapters) = self.place.adapters {
            let (out, rows) = (self.place.scratch.hidden, self.place.step.rows);
            adapters.add_to_embedding(out, rows, self.commands);
        }
    }

    /// The norm of the hidden states, to which what the layer before gave is added first.
    fn norm_hidden(&mut self, branch: Option<Slice>, weight: Slice) {
        let (scratch, columns) = (self.place.scratch, self.model.config.hidden);
        let x = branch.unwrap_or(scratch.hidden);
        let residual = branch.map(|_| Update(scratch.hidden));
        self.push(Norm {
            params: params::Norm {
                residual_row_stride: branch.map_or(0, |_| columns.into()),
                ..self.norm(1, columns, columns, columns)
            },
            x: Read(x),
            weight: Read(weight),
            residual,
            out: Write(scratch.normed),
            rows: self.rows(),
        });
    }

    fn norm(&self, heads: u32, columns: u32, x_stride: u32, out_stride: u32) -> params::Norm {
        params::Norm {
            x_row_stride: x_stride.into(),
            residual_row_stride: 0,
            out_row_stride: out_stride.into(),
            rows_max: self.place.capacity.rows_max,
            heads,
            columns,
            x_dtype: F32,
            weight_dtype: F32,
            out_dtype: F32,
            epsilon: self.model.config.norm_epsilon,
            weight_offset: 0.0,
        }
    }

    /// A product of a layer, its first or its second, and what adapters add to it.
    fn product(&mut self, which: (usize, bool), matrix: &Matrix, x: Slice, out: Slice) {
        let (rows_max, rows) = (self.place.capacity.rows_max, self.place.step.rows);
        self.push(matmul(matrix, rows_max, rows, x, out));
        if let Some(adapters) = self.place.adapters {
            adapters.add_to_product(which, x, out, rows, self.commands);
        }
    }

    /// silu(gate) · up, of `[gate | up]` rows.
    fn activation(&mut self) {
        let columns = self.model.config.intermediate;
        self.push(Activation {
            params: params::Activation {
                x_row_stride: 2 * u64::from(columns),
                out_row_stride: columns.into(),
                rows_max: self.place.capacity.rows_max,
                columns,
                up_offset: columns,
                kind: params::ACTIVATION_SILU,
                x_dtype: F32,
                out_dtype: F32,
            },
            x: Read(self.place.scratch.wide),
            out: Write(self.place.scratch.narrow),
            rows: self.rows(),
        });
    }

    /// Of queries, keys and values in rows: keys and values into pages; attention.
    fn attention(&mut self, head_norms: Option<[Slice; 2]>, window: Option<u32>, slab: &Slab) {
        let (scratch, config) = (self.place.scratch, &self.model.config);
        let (q_width, kv_width) = (config.q_width(), config.kv_width());
        let width = q_width + 2 * kv_width;
        let v = Rows { slice: column(scratch.wide, q_width + kv_width), stride: width };
        let (q, k) = match (head_norms, scratch.heads) {
            (Some([q_norm, k_norm]), Some(heads)) => {
                let stride = q_width + kv_width;
                let q = Rows { slice: heads, stride };
                let k = Rows { slice: column(heads, q_width), stride };
                let x = Rows { slice: scratch.wide, stride: width };
                self.norm_heads(config.heads, q_norm, x, q);
                let x = Rows { slice: column(scratch.wide, q_width), stride: width };
                self.norm_heads(config.kv_heads, k_norm, x, k);
                (q, k)
            }
            _ => (
                Rows { slice: scratch.wide, stride: width },
                Rows { slice: column(scratch.wide, q_width), stride: width },
            ),
        };
        self.append(k, v, slab);
        self.rope(q);
        self.attend(q, window, slab);
    }

    /// The norm of each head.
    fn norm_heads(&mut self, heads: u32, weight: Slice, x: Rows, out: Rows) {
        let columns = self.model.config.head_dim;
        self.push(Norm {
            params: self.norm(heads, columns, x.stride, out.stride),
            x: Read(x.slice),
            weight: Read(weight),
            residual: None,
            out: Write(out.slice),
            rows: self.rows(),
        });
    }

    /// Keys, turned, and values into the pages.
    fn append(&mut self, k: Rows, v: Rows, slab: &Slab) {
        let (capacity, step) = (self.place.capacity, self.place.step);
        self.push(AppendKv {
            params: params::AppendKv {
                kv: self.place.slabs.layout,
                k_row_stride: k.stride.into(),
                v_row_stride: v.stride.into(),
                rows_max: capacity.rows_max,
                slots_max: capacity.rows_max,
                x_dtype: F32,
                rope: params::ROPE_NEOX,
                rotary_dims: self.model.config.head_dim,
                table_len: capacity.max_len,
            },
            k: Read(k.slice),
            v: Read(v.slice),
            keys: Update(slab.keys),
            values: None,
            scales: slab.scales.map(Update),
            slots: Read(step.slots),
            slot_starts: None,
            table: Some(Read(self.place.scratch.turns)),
            positions: Some(Read(step.positions)),
            rows: self.rows(),
        });
    }

    /// Turns the queries in place.
    fn rope(&mut self, q: Rows) {
        let (config, capacity) = (&self.model.config, self.place.capacity);
        self.push(Rope {
            params: params::Rope {
                x_row_stride: 0,
                out_row_stride: q.stride.into(),
                rows_max: capacity.rows_max,
                heads: config.heads,
                head_dim: config.head_dim,
                rotary_dims: config.head_dim,
                table_len: capacity.max_len,
                pairing: params::ROPE_NEOX,
                x_dtype: F32,
                out_dtype: F32,
            },
            x: None,
            table: Read(self.place.scratch.turns),
            positions: Read(self.place.step.positions),
            out: Update(q.slice),
            rows: self.rows(),
        });
    }

    fn attend(&mut self, q: Rows, window: Option<u32>, slab: &Slab) {
        let (config, capacity, step) = (&self.model.config, self.place.capacity, self.place.step);
        self.push(Attention {
            params: params::Attention {
                kv: self.place.slabs.layout,
                q_row_stride: q.stride.into(),
                out_row_stride: config.q_width().into(),
                rows_max: capacity.rows_max,
                seqs_max: capacity.seqs_max,
                q_heads: config.heads,
                kv_len_max: capacity.max_len,
                table_width: 0,
                page_ids_max: capacity.page_ids_max(),
                q_dtype: F32,
                out_dtype: F32,
                causal: 1,
                window: window.unwrap_or(0),
                scale: (1.0 / f64::from(config.head_dim).sqrt()) as f32,
                softcap: 0.0,
            },
            q: Read(q.slice),
            keys: Read(slab.keys),
            values: None,
            scales: slab.scales.map(Read),
            q_start: Read(step.q_start),
            kv_len: Read(step.kv_len),
            first_position: None,
            page_start: Some(Read(step.page_start)),
            page_ids: Read(step.page_ids),
            intervals: None,
            tree_bits: None,
            sinks: None,
            slopes: None,
            out: Write(self.place.scratch.narrow),
            lse: None,
            seqs: Some(Read(step.seqs)),
        });
    }
}

/// Rows of f32, so many elements apart.
#[derive(Clone, Copy)]
struct Rows {
    slice: Slice,
    stride: u32,
}

/// The columns from `first` on of rows.
fn column(rows: Slice, first: u32) -> Slice {
    let before = 4 * u64::from(first);
    Slice { offset: rows.offset + before, bytes: rows.bytes - before, ..rows }
}

fn matmul(matrix: &Matrix, rows_max: u32, rows: Slice, x: Slice, out: Slice) -> Command {
    let weight = matrix.weight;
    let command = Matmul {
        params: params::Matmul {
            x_row_stride: weight.inputs.into(),
            out_row_stride: weight.outputs.into(),
            rows_max,
            x_dtype: F32,
            bias_dtype: if matrix.bias.is_some() { F32 } else { 0 },
            out_dtype: F32,
            weight,
        },
        x: Read(x),
        weight: Read(matrix.packed),
        bias: matrix.bias.map(Read),
        out: Write(out),
        rows: Some(Read(rows)),
    };
    command.into()
}
