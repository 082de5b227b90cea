//! Whole models on the emulated device: forward passes as recorded programs, over the golden
//! checkpoints of every family.
#![cfg(emulated)]

use backends::plugin::Plugin;
use checkpoint::Checkpoint;
use engine::model::Capacity;
use kernels_core::dtype::Dtype;
use pagewise_tests::model::golden::{Golden, Packed, SERVED};
use pagewise_tests::model::{Runner, distance, greedy, logprobs};

const PAGE_LEN: u32 = 32;
/// Fewer than the prompt: it goes in chunks.
const ROWS_MAX: u32 = 160;
const CHUNKS: [usize; 6] = [1, 62, 130, 7, 160, 40];

fn capacity(kv: Dtype) -> Capacity {
    Capacity {
        rows_max: ROWS_MAX,
        seqs_max: 2,
        logit_rows_max: ROWS_MAX,
        max_len: SERVED,
        pages: SERVED.div_ceil(PAGE_LEN),
        page_len: PAGE_LEN,
        kv,
    }
}

fn runner(checkpoint: &Checkpoint, kv: Dtype) -> Runner {
    let device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    let pages: Vec<u32> = (0..capacity(kv).pages).rev().collect();
    Runner::new(device, checkpoint, None, &capacity(kv), &pages)
}

/// The logits of a prompt in chunks of those lengths.
fn logits(runner: &mut Runner, prompt: &[u32], chunks: &[usize]) -> Vec<Vec<f32>> {
    let (mut rest, mut rows) = (prompt, Vec::new());
    for &chunk in chunks {
        let (tokens, after) = rest.split_at(chunk.min(rest.len()));
        rows.extend(runner.forward(tokens));
        rest = after;
    }
    assert!(rest.is_empty(), "the chunks are the prompt");
    rows
}

fn bits(rows: &[Vec<f32>]) -> Vec<u32> {
    rows.iter().flatten().map(|x| x.to_bits()).collect()
}

#[test]
fn every_family_equals_transformers_and_goes_on_as_it_does() {
    for golden in Golden::all() {
        let mut runner = runner(&golden.checkpoint, Dtype::F32);
        let rows = logits(&mut runner, &golden.prompt, &CHUNKS);
        let rows: Vec<Vec<f64>> = rows.iter().map(|row| logprobs(row)).collect();
        let distance = golden.distance(&rows);
        assert!(distance < 1e-4, "{}: log-probabilities differ by {distance}", golden.name);
        let mut row = rows.last().expect("a row for each token").clone();
        for (at, &token) in golden.greedy().iter().enumerate() {
            let next = greedy(&row) as u32;
            assert_eq!(next, token, "{}: greedy token {at}", golden.name);
            row = logprobs(&runner.forward(&[token])[0]);
        }
    }
}

#[test]
fn packed_weights_and_half_keys_keep_close_to_their_packers() {
    for name in ["mlx-4-g32-f32", "awq-4-g64", "gptq-8-g64"] {
        let packed = Packed::open(name);
        let mut runner = runner(&packed.checkpoint, Dtype::F32);
        let rows = logits(&mut runner, &packed.prompt, &[packed.prompt.len()]);
        let rows: Vec<Vec<f64>> = rows.iter().map(|row| logprobs(row)).collect();
        // An activation may be rounded to the other of two numbers and moves its row: most
        // rows say that the rest is right.
        let one = std::slice::from_ref;
        let mut distances: Vec<f64> =
            rows.iter().zip(&packed.expected).map(|(a, b)| distance(one(a), one(b))).collect();
        distances.sort_by(f64::total_cmp);
        let middle = distances[distances.len() / 2];
        assert!(middle < 1e-5, "{name}: log-probabilities differ by {middle} in most rows");
    }
}

#[test]
fn chunks_change_no_bit() {
    let golden = Golden::open("qwen3", "config");
    for kv in [Dtype::F16, Dtype::I8] {
        let mut runner = runner(&golden.checkpoint, kv);
        let once = logits(&mut runner, &golden.prompt, &CHUNKS);
        runner.restart();
        let again = logits(&mut runner, &golden.prompt, &[160, 3, 1, 1, 155, 80]);
        assert_eq!(bits(&once), bits(&again), "kv {}", kv.name());
    }
}
