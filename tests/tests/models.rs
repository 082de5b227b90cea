//! Every family, opened from a folder as transformers saves it, equals what transformers
//! makes of it in f64, and each part of its configuration matters.

use backends::cpu::Cpu;
use checkpoint::Checkpoint;
use engine::model::{Capacity, Family};
use kernels_core::dtype::Dtype;
use kernels_core::rope::table::Scaling;
use kernels_core::simd::Level;
use pagewise_tests::model::golden::{Golden, SERVED};
use pagewise_tests::model::{Evaluation, Runner, greedy, logprobs, truth};

const PAGE_LEN: u32 = 32;
/// Fewer than the prompt: it goes in chunks.
const ROWS_MAX: u32 = 160;

fn capacity() -> Capacity {
    Capacity {
        rows_max: ROWS_MAX,
        seqs_max: 2,
        logit_rows_max: ROWS_MAX,
        max_len: SERVED,
        pages: SERVED.div_ceil(PAGE_LEN),
        page_len: PAGE_LEN,
        kv: Dtype::F32,
    }
}

fn runner(checkpoint: &Checkpoint) -> Runner {
    let pages: Vec<u32> = (0..capacity().pages).rev().collect();
    Runner::new(Cpu::new(Level::best(), 2), checkpoint, None, &capacity(), &pages)
}

/// The log-probabilities of a prompt in chunks of those lengths.
fn evaluated(runner: &mut Runner, prompt: &[u32], chunks: &[usize]) -> Vec<Vec<f64>> {
    let mut rest = prompt;
    let mut rows = Vec::new();
    for &chunk in chunks {
        let (tokens, after) = rest.split_at(chunk);
        rows.extend(runner.forward(tokens).iter().map(|row| logprobs(row)));
        rest = after;
    }
    assert!(rest.is_empty(), "the chunks are the prompt");
    rows
}

#[test]
fn every_family_equals_transformers_and_goes_on_as_it_does() {
    for golden in Golden::all() {
        let mut runner = runner(&golden.checkpoint);
        let rows = evaluated(&mut runner, &golden.prompt, &[1, 62, 130, 7, 160, 40]);
        let distance = golden.distance(&rows);
        assert!(distance < 1e-4, "{}: log-probabilities differ by {distance}", golden.name);
        for (length, tokens) in &golden.continuations {
            runner.restart();
            let mut row = Vec::new();
            for chunk in golden.prompt[..*length].chunks(ROWS_MAX as usize) {
                row = runner.forward(chunk).pop().expect("a row for each token");
            }
            for &token in tokens {
                let next = greedy(&logprobs(&row)) as u32;
                assert_eq!(next, token, "{} after {length}: the greedy token", golden.name);
                row = runner.forward(&[token]).remove(0);
            }
        }
    }
}

#[test]
fn the_specifications_equal_transformers_for_every_family() {
    for (family, variant) in
        [("llama", "config"), ("mistral", "config"), ("qwen2", "config"), ("qwen3", "yarn-old")]
    {
        let golden = Golden::open(family, variant);
        let by = Evaluation { max_len: SERVED, kv: Dtype::F32, quantize: None };
        let distance = golden.distance(&truth(&golden.checkpoint, &golden.prompt, by));
        assert!(distance < 2e-5, "{}: log-probabilities differ by {distance}", golden.name);
    }
}

/// The checkpoint without tensors whose names end so.
fn without(checkpoint: &mut Checkpoint, ends: &[&str]) {
    checkpoint.tensors.retain(|name, _| !ends.iter().any(|end| name.ends_with(end)));
}

#[test]
fn the_goldens_are_sharp() {
    type Change = fn(&mut Checkpoint);
    let changes: [(&str, &str, Change); 13] = [
        ("llama", "linear", |c| c.config.rope.scaling = Scaling::None),
        ("llama", "dynamic", |c| c.config.rope.scaling = Scaling::None),
        ("llama", "llama3", |c| c.config.rope.scaling = Scaling::None),
        ("llama", "yarn", |c| c.config.rope.scaling = Scaling::None),
        ("llama", "yarn", |c| {
            let Scaling::Yarn(yarn) = &mut c.config.rope.scaling else { panic!("it is yarn") };
            yarn.attention_factor = 1.0;
        }),
        ("qwen3", "yarn-old", |c| c.config.rope.scaling = Scaling::None),
        ("llama", "config", |c| {
            c.config.attention_bias = false;
            without(c, &["_proj.bias"]);
            c.config.mlp_bias = false;
        }),
        ("mistral", "config", |c| c.config.windows = vec![None; 2]),
        ("mistral", "config", |c| c.config.windows = vec![Some(36); 2]),
        ("mistral", "config", |c| c.config.windows = vec![Some(38); 2]),
        ("qwen2", "config", |c| c.config.windows[1] = Some(46)),
        ("qwen2", "config", |c| {
            c.config.family = Family::Mistral;
            without(c, &["_proj.bias"]);
        }),
        ("qwen3", "config", |c| {
            c.config.family = Family::Llama;
            without(c, &["q_norm.weight", "k_norm.weight"]);
        }),
    ];
    for (at, (family, variant, change)) in changes.into_iter().enumerate() {
        let mut golden = Golden::open(family, variant);
        change(&mut golden.checkpoint);
        let mut runner = runner(&golden.checkpoint);
        let rows = evaluated(&mut runner, &golden.prompt, &[160, 160, 80]);
        let moved = golden.distance(&rows);
        assert!(moved > 1e-2, "change {at} of {}: it moves {moved} only", golden.name);
    }
}
