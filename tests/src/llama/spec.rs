//! The golden model over the kernels' specifications in f64, with keys and values rounded
//! as pages of a type hold them: the truth for pages that round.

use super::{
    EPSILON, HEAD_DIM, HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, KV_WIDTH, LAYERS, POSITIONS, Q_WIDTH,
    VOCABULARY, prompt, tensor,
};
use crate::harness::Bytes;
use half::{bf16, f16};
use kernels_core::activation::{self, Kind};
use kernels_core::attention::{self, Key, Scores};
use kernels_core::dtype::Dtype;
use kernels_core::rope::table::{Scaling, Table};
use kernels_core::rope::{self, Pairing};
use kernels_core::{matmul, norm};

type Rows = Vec<Vec<f64>>;

/// The log-probabilities of the prompt: `[prompt][vocabulary]`.
pub fn truth(kv: Dtype) -> Vec<Vec<f64>> {
    let table = weights("model.embed_tokens", HIDDEN);
    let mut hidden: Rows = prompt().iter().map(|&token| table[token as usize].clone()).collect();
    for layer in 0..LAYERS {
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let normed = normed(&hidden, &name("input_layernorm"));
        let attended = attended(kv, &normed, &name("self_attn"));
        add(&mut hidden, &product(&attended, &name("self_attn.o_proj"), Q_WIDTH));
        let normed = self::normed(&hidden, &name("post_attention_layernorm"));
        let gate = product(&normed, &name("mlp.gate_proj"), HIDDEN);
        let up = product(&normed, &name("mlp.up_proj"), HIDDEN);
        let both = |(gate, up): (Vec<f64>, Vec<f64>)| {
            let pairs = gate.into_iter().zip(up);
            pairs.map(|(gate, up)| activation::spec(Kind::Silu, gate, up)).collect()
        };
        let gated: Rows = gate.into_iter().zip(up).map(both).collect();
        add(&mut hidden, &product(&gated, &name("mlp.down_proj"), INTERMEDIATE));
    }
    let logits = product(&normed(&hidden, "model.norm"), "lm_head", HIDDEN);
    assert_eq!(logits[0].len(), VOCABULARY as usize, "a logit for each token");
    logits.iter().map(|row| logprobs(row)).collect()
}

fn logprobs(row: &[f64]) -> Vec<f64> {
    let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
    row.iter().map(|x| x - most - sum.ln()).collect()
}

/// A tensor in rows of `width`.
fn weights(name: &str, width: u32) -> Rows {
    let bytes = Bytes::of(&tensor(&format!("{name}.weight")));
    let wide = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect();
    bytes.cast::<f32>().chunks(width as usize).map(wide).collect()
}

fn normed(rows: &Rows, name: &str) -> Rows {
    let weight = weights(name, HIDDEN).remove(0);
    rows.iter().map(|row| norm::spec(row, &weight, f64::from(EPSILON), 0.0)).collect()
}

fn product(rows: &Rows, name: &str, inputs: u32) -> Rows {
    let weight = weights(name, inputs);
    let row = |x: &Vec<f64>| weight.iter().map(|w| matmul::spec(x, w, 0.0)).collect();
    rows.iter().map(row).collect()
}

fn add(to: &mut Rows, rows: &Rows) {
    for (to, from) in to.iter_mut().flatten().zip(rows.iter().flatten()) {
        *to += from;
    }
}

/// Attention of every row to the rows up to its own.
fn attended(kv: Dtype, normed: &Rows, name: &str) -> Rows {
    let [mut q, mut k, v] =
        ["q", "k", "v"].map(|x| product(normed, &format!("{name}.{x}_proj"), HIDDEN));
    turn(&mut q);
    turn(&mut k);
    let dims = HEAD_DIM as usize;
    let head = |rows: &Rows, at: usize, head: usize| rows[at][head * dims..][..dims].to_vec();
    let by = Scores { scale: 0.25, softcap: 0.0, slope: 0.0, sink: None };
    let row = |row: usize| {
        let head_of = |h: usize| {
            let own = h / (HEADS / KV_HEADS) as usize;
            let key = |at: usize| Key {
                distance: at as f64 - row as f64,
                k: stored(kv, &head(&k, at, own)),
                v: stored(kv, &head(&v, at, own)),
            };
            let keys: Vec<Key<f64>> = (0..=row).map(key).collect();
            attention::spec(&head(&q, row, h), &keys, by, dims).0
        };
        (0..HEADS as usize).flat_map(head_of).collect()
    };
    assert_eq!(k[0].len(), KV_WIDTH as usize, "keys of every head");
    (0..normed.len()).map(row).collect()
}

/// Turns each head of each row by its position.
fn turn(rows: &mut Rows) {
    let (dims, table) = (
        HEAD_DIM as usize,
        Table { base: 10_000.0, rotary_dims: HEAD_DIM, scaling: Scaling::None },
    );
    let mut turns = vec![0f32; POSITIONS as usize * dims];
    table.fill(0, &mut turns).expect("a good table");
    for (row, turns) in rows.iter_mut().zip(turns.chunks(dims)) {
        let turns: Vec<f64> = turns.iter().map(|&x| f64::from(x)).collect();
        for head in row.chunks_mut(dims) {
            let turned = rope::spec(head, Pairing::Neox, &turns[..dims / 2], &turns[dims / 2..]);
            head.copy_from_slice(&turned);
        }
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
        Dtype::E4m3 | Dtype::I4 => unreachable!("the thin slice has no pages of this type"),
    };
    x.iter().map(one).collect()
}
