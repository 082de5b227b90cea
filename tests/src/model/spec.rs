//! A model over the kernels' specifications in f64, with keys and values rounded as pages
//! of a type hold them. It reads tensors by their names and knows nothing of the engine's
//! layers.

use checkpoint::Checkpoint;
use engine::model::{Config, Family};
use engine::weights::{Element, Quantize, Tensor};
use half::{bf16, f16};
use kernels_core::activation::{self, Kind};
use kernels_core::attention::{self, Key, Scores};
use kernels_core::dtype::Dtype;
use kernels_core::rope::{self, Pairing};
use kernels_core::{matmul, norm};

type Rows = Vec<Vec<f64>>;

/// What a model is evaluated with.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation {
    /// Positions that are served.
    pub max_len: u32,
    /// The type of keys and values.
    pub kv: Dtype,
    /// What becomes of the weights of products.
    pub quantize: Option<Quantize>,
}

/// The log-probabilities of every position of a prompt: `[prompt][vocabulary]`.
pub fn truth(checkpoint: &Checkpoint, prompt: &[u32], by: Evaluation) -> Vec<Vec<f64>> {
    let model = Truth { checkpoint, config: &checkpoint.config, by };
    let config = model.config;
    let embedding = "model.embed_tokens";
    let table = match config.tied {
        true => model.matrix(embedding).0,
        false => model.rows(&format!("{embedding}.weight")),
    };
    let mut hidden: Rows = prompt.iter().map(|&token| table[token as usize].clone()).collect();
    for layer in 0..config.layers {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let normed = model.normed(&hidden, &name("input_layernorm"));
        let attended = model.attended(&normed, layer);
        add(&mut hidden, &model.product(&attended, &name("self_attn.o_proj")));
        let normed = model.normed(&hidden, &name("post_attention_layernorm"));
        let gate = model.product(&normed, &name("mlp.gate_proj"));
        let up = model.product(&normed, &name("mlp.up_proj"));
        let both = |(gate, up): (Vec<f64>, Vec<f64>)| {
            let pairs = gate.into_iter().zip(up);
            pairs.map(|(gate, up)| activation::spec(Kind::Silu, gate, up)).collect()
        };
        let gated: Rows = gate.into_iter().zip(up).map(both).collect();
        add(&mut hidden, &model.product(&gated, &name("mlp.down_proj")));
    }
    let output = if config.tied { "model.embed_tokens" } else { "lm_head" };
    let logits = model.product(&model.normed(&hidden, "model.norm"), output);
    assert_eq!(logits[0].len(), config.vocab as usize, "a logit for each token");
    logits.iter().map(|row| logprobs(row)).collect()
}

fn logprobs(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
    row.iter().map(|x| x - most - sum.ln()).collect()
}

/// A checkpoint and what it is evaluated with.
struct Truth<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a Config,
    by: Evaluation,
}

impl Truth<'_> {
    /// A tensor in rows; a vector is one row.
    fn rows(&self, name: &str) -> Rows {
        let tensor = self.tensor(name).unwrap_or_else(|| panic!("the checkpoint holds {name}"));
        let width = *tensor.shape().last().expect("no tensor is a scalar") as usize;
        floats(tensor).chunks(width).map(<[f64]>::to_vec).collect()
    }

    fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.checkpoint.tensors.get(name)
    }

    fn normed(&self, rows: &Rows, name: &str) -> Rows {
        let weight = self.rows(&format!("{name}.weight")).remove(0);
        let epsilon = f64::from(self.config.norm_epsilon);
        rows.iter().map(|row| norm::spec(row, &weight, epsilon, 0.0)).collect()
    }

    /// Rows times a matrix, plus its bias where the checkpoint has one.
    fn product(&self, rows: &Rows, name: &str) -> Rows {
        let (weight, group) = self.matrix(name);
        let bias = format!("{name}.bias");
        let bias = match self.tensor(&bias) {
            Some(_) => self.rows(&bias).remove(0),
            None => vec![0.0; weight.len()],
        };
        let row = |x: &Vec<f64>| {
            let x = &match group {
                // Activations become whole numbers as weights did.
                Some(group) => {
                    let single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
                    matmul::quantised(&single, group)
                }
                None => x.clone(),
            };
            let outputs = weight.iter().zip(&bias);
            outputs.map(|(w, &bias)| matmul::spec(x, w, bias)).collect()
        };
        rows.iter().map(row).collect()
    }

    /// The values that a matrix has in products, and the length of its groups.
    fn matrix(&self, name: &str) -> (Rows, Option<usize>) {
        let rows = self.rows(&format!("{name}.weight"));
        match self.by.quantize {
            Some(quantize) if rows[0].len().is_multiple_of(32) => {
                let group = if rows[0].len().is_multiple_of(64) { 64 } else { 32 };
                let row = |row: &Vec<f64>| {
                    row.chunks(group).flat_map(|group| quantised(quantize, group)).collect()
                };
                (rows.iter().map(row).collect(), Some(group))
            }
            _ => (rows, None),
        }
    }

    /// Attention of every row to those it sees.
    fn attended(&self, normed: &Rows, layer: u32) -> Rows {
        let name = |rest: &str| format!("model.layers.{layer}.self_attn.{rest}");
        let [mut q, mut k, v] =
            ["q_proj", "k_proj", "v_proj"].map(|x| self.product(normed, &name(x)));
        if self.config.family == Family::Qwen3 {
            self.norm_heads(&mut q, &name("q_norm"));
            self.norm_heads(&mut k, &name("k_norm"));
        }
        self.turn(&mut q);
        self.turn(&mut k);
        let dims = self.config.head_dim as usize;
        let group = (self.config.heads / self.config.kv_heads) as usize;
        let head = |rows: &Rows, at: usize, head: usize| rows[at][head * dims..][..dims].to_vec();
        let scale = 1.0 / (dims as f64).sqrt();
        let by = Scores { scale, softcap: 0.0, slope: 0.0, sink: None };
        let window =
            self.config.windows[layer as usize].map_or(usize::MAX, |window| window as usize);
        let stored = |rows: &Rows| -> Rows {
            let row = |row: &Vec<f64>| {
                row.chunks(dims).flat_map(|head| stored(self.by.kv, head)).collect()
            };
            rows.iter().map(row).collect()
        };
        let (k, v) = (stored(&k), stored(&v));
        let row = |row: usize| {
            let head_of = |h: usize| {
                let key = |at: usize| Key {
                    distance: at as f64 - row as f64,
                    k: head(&k, at, h / group),
                    v: head(&v, at, h / group),
                };
                let first = (row + 1).saturating_sub(window);
                let keys: Vec<Key<f64>> = (first..=row).map(key).collect();
                attention::spec(&head(&q, row, h), &keys, by, dims).0
            };
            (0..self.config.heads as usize).flat_map(head_of).collect()
        };
        (0..normed.len()).map(row).collect()
    }

    fn norm_heads(&self, rows: &mut Rows, name: &str) {
        let dims = self.config.head_dim as usize;
        for row in rows {
            let heads: Rows = row.chunks(dims).map(<[f64]>::to_vec).collect();
            *row = self.normed(&heads, name).concat();
        }
    }

    /// Turns each head of each row by its position.
    fn turn(&self, rows: &mut Rows) {
        let dims = self.config.head_dim as usize;
        let mut turns = vec![0f32; rows.len() * dims];
        self.config.table(self.by.max_len).fill(0, &mut turns).expect("a good table");
        for (row, turns) in rows.iter_mut().zip(turns.chunks(dims)) {
            let turns: Vec<f64> = turns.iter().map(|&x| f64::from(x)).collect();
            for head in row.chunks_mut(dims) {
                let turned =
                    rope::spec(head, Pairing::Neox, &turns[..dims / 2], &turns[dims / 2..]);
                head.copy_from_slice(&turned);
            }
        }
    }
}

/// What a group of weights becomes.
fn quantised(quantize: Quantize, group: &[f64]) -> Vec<f64> {
    let half = |x: f64| f16::from_f32(x as f32).to_f64();
    let most = group.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = group.iter().copied().fold(f64::INFINITY, f64::min);
    let (scale, bias, allowed) = match quantize {
        Quantize::Q8 => (half(most.max(-least) / 127.0), 0.0, -127.0..=127.0),
        Quantize::Q4 => (half((most - least) / 15.0), half(least), 0.0..=15.0),
    };
    let value = |x: &f64| {
        let number = ((x - bias) / scale).round_ties_even();
        number.clamp(*allowed.start(), *allowed.end()) * scale + bias
    };
    group.iter().map(value).collect()
}

/// The floats of a tensor.
fn floats(tensor: &Tensor) -> Vec<f64> {
    let bytes = tensor.bytes();
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match tensor.element() {
        Element::Float(Dtype::F16) => pairs().map(|&x| f16::from_le_bytes(x).to_f64()).collect(),
        Element::Float(Dtype::Bf16) => pairs().map(|&x| bf16::from_le_bytes(x).to_f64()).collect(),
        Element::Float(_) => {
            bytes.as_chunks::<4>().0.iter().map(|&x| f64::from(f32::from_le_bytes(x))).collect()
        }
        Element::Word | Element::Other { .. } => panic!("only floats have values"),
    }
}

fn add(to: &mut Rows, rows: &Rows) {
    for (to, from) in to.iter_mut().flatten().zip(rows.iter().flatten()) {
        *to += from;
    }
}

/// One token's numbers of one head, as pages of a type give them back.
fn stored(kv: Dtype, x: &[f64]) -> Vec<f64> {
    let most = x.iter().fold(0f64, |most, x| most.max(x.abs()));
    let scale = f64::from((most / 127.0) as f32);
    let one = |&x: &f64| match kv {
        Dtype::F32 => f64::from(x as f32),
        Dtype::F16 => f16::from_f64(x).to_f64(),
        Dtype::Bf16 => bf16::from_f64(x).to_f64(),
        Dtype::I8 => (x / scale).round_ties_even().clamp(-127.0, 127.0) * scale,
        Dtype::E4m3 | Dtype::I4 => unreachable!("no test has pages of this type"),
    };
    x.iter().map(one).collect()
}
