//! Whole models on the emulated devices: forward passes as recorded programs, over the golden
//! checkpoints of every family.
#![cfg(emulated)]

use backends::plugin::Plugin;
use checkpoint::Checkpoint;
use emulator::seed;
use engine::model::Capacity;
use kernels_core::dtype::Dtype;
use pagewise_tests::model::golden::{GOLDENS, Golden, Packed, SERVED};
use pagewise_tests::model::{Runner, distance, greedy, logprobs};

const PAGE_LEN: u32 = 32;
/// Fewer than the prompt: it goes in chunks.
const ROWS_MAX: u32 = 160;
const CHUNKS: [usize; 6] = [1, 62, 130, 7, 160, 40];
/// Checkpoints of each packer.
const PACKED: [&str; 3] = ["mlx-4-g32-f32", "awq-4-g64", "gptq-8-g64"];
/// Of keys and values, where chunks are compared.
const DTYPES: [Dtype; 2] = [Dtype::F16, Dtype::I8];

/// The C table of an emulated device.
type Table = fn() -> &'static plugin::pwp_table;

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

fn runner(table: Table, checkpoint: &Checkpoint, kv: Dtype) -> Runner {
    let device = Plugin::of_table(table(), 0).expect("the emulator is there");
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

/// The prompt has the log-probabilities that transformers gives it, as near as on the CPU, and
/// goes on with the same tokens.
fn assert_as_transformers(table: Table, golden: &Golden) {
    let mut runner = runner(table, &golden.checkpoint, Dtype::F32);
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

/// A packed checkpoint comes near to what its packer makes of it.
fn assert_as_packer(table: Table, name: &str) {
    let packed = Packed::open(name);
    let mut runner = runner(table, &packed.checkpoint, Dtype::F32);
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

/// A prompt has the same bits in other chunks, under another schedule of the device's threads.
fn assert_chunks(table: Table, kv: Dtype) {
    let golden = Golden::open("qwen3", "config");
    let mut runner = runner(table, &golden.checkpoint, kv);
    seed(1);
    let once = logits(&mut runner, &golden.prompt, &CHUNKS);
    runner.restart();
    seed(2);
    let again = logits(&mut runner, &golden.prompt, &[160, 3, 1, 1, 155, 80]);
    assert_eq!(bits(&once), bits(&again), "kv {}", kv.name());
}

/// One golden of each family: what its configurations change are tables that the host makes.
fn of_each_family() -> impl Iterator<Item = Golden> {
    GOLDENS.into_iter().map(|(family, variants)| {
        Golden::open(family, variants.last().expect("a family has a configuration"))
    })
}

/// The tests of a device, over some of the goldens.
macro_rules! models {
    ($device:ident: $goldens:path) => {
        mod $device {
            use crate::{DTYPES, PACKED, assert_as_packer, assert_as_transformers, assert_chunks};
            use emulator::$device as table;

            #[test]
            fn every_family_equals_transformers_and_goes_on_as_it_does() {
                $goldens().for_each(|golden| assert_as_transformers(table, &golden));
            }

            #[test]
            fn packed_weights_keep_close_to_their_packers() {
                PACKED.into_iter().for_each(|name| assert_as_packer(table, name));
            }

            #[test]
            fn chunks_change_no_bit() {
                DTYPES.into_iter().for_each(|kv| assert_chunks(table, kv));
            }
        }
    };
}

models! { cuda: pagewise_tests::model::golden::Golden::all }
models! { metal: crate::of_each_family }
