//! The engine's two-layer Llama equals what transformers makes of it, and a
//! token's bits do not depend on how its sequence was cut, paged or shared out.

use backends::cpu::Cpu;
use engine::weights::Quantize;
use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use pagewise_tests::model::thin::{capacity, checkpoint, expected, prompt};
use pagewise_tests::model::{self, Evaluation, Runner, distance, greedy, logprobs};

const IN_ORDER: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
const SHUFFLED: [u32; 8] = [5, 2, 7, 0, 3, 6, 1, 4];

/// The golden model, whose sequence has its pages in that order.
fn runner(cpu: Cpu, kv: Dtype, pages: &[u32; 8]) -> Runner {
    Runner::new(cpu, &checkpoint(), None, &capacity(kv), pages)
}

/// The logits of the prompt, given in chunks of those lengths.
fn logits(
    level: Level,
    threads: u32,
    kv: Dtype,
    pages: &[u32; 8],
    chunks: &[usize],
) -> Vec<Vec<f32>> {
    let mut llama = runner(Cpu::new(level, threads), kv, pages);
    let tokens = prompt();
    assert_eq!(chunks.iter().sum::<usize>(), tokens.len(), "the chunks are the prompt");
    let mut rest = &tokens[..];
    let mut logits = Vec::new();
    for &chunk in chunks {
        logits.extend(llama.forward(&rest[..chunk]));
        rest = &rest[chunk..];
    }
    logits
}

fn bits(logits: &[Vec<f32>]) -> Vec<u32> {
    logits.iter().flatten().map(|v| v.to_bits()).collect()
}

/// The golden in f64, over pages of a type.
fn truth(kv: Dtype) -> Vec<Vec<f64>> {
    let by = Evaluation { max_len: capacity(kv).max_len, kv, quantize: None };
    model::truth(&checkpoint(), &prompt(), by)
}

/// The log-probabilities of the whole prompt at once, over pages of a type.
fn forward(kv: Dtype) -> Vec<Vec<f64>> {
    let logits = logits(Level::best(), 2, kv, &IN_ORDER, &[37]);
    logits.iter().map(|row| logprobs(row)).collect()
}

#[test]
fn a_recorded_forward_pass_equals_transformers() {
    let (got, truth) = (forward(Dtype::F32), expected());
    let distance = distance(&got, &truth);
    assert!(distance < 1e-4, "log-probabilities differ by {distance}");
    for (got, truth) in got.iter().zip(&truth) {
        assert_eq!(greedy(got), greedy(truth));
    }
}

#[test]
fn the_specifications_equal_transformers() {
    // What is not in f64 here: the table's cosines, and keys and values as f32.
    let distance = distance(&truth(Dtype::F32), &expected());
    assert!(distance < 2e-5, "log-probabilities differ by {distance}");
}

#[test]
fn pages_that_round_give_what_their_rounding_gives_in_f64() {
    // A number that f32 brings over the middle between two neighbours becomes the other
    // one. One in hundreds does among f16's fine steps, one in thousands among bf16's,
    // none here among those of i8: so much of what rounding itself moves is allowed.
    for (kv, part) in [(Dtype::F16, 0.5), (Dtype::Bf16, 0.03), (Dtype::I8, 1e-3)] {
        let (rounded, name) = (truth(kv), kv.name());
        let error = distance(&forward(kv), &rounded);
        let moved = distance(&rounded, &expected());
        assert!(moved > 1e-2, "{name}: rounding moves {moved} alone");
        assert!(error < part * moved, "{name}: {error}, where rounding moves {moved}");
    }
}

#[test]
fn every_level_chunk_page_order_and_thread_gives_the_same_bits() {
    for kv in [Dtype::F32, Dtype::I8] {
        let whole = bits(&logits(Level::best(), 1, kv, &IN_ORDER, &[37]));
        for level in Level::all() {
            assert_eq!(whole, bits(&logits(level, 1, kv, &IN_ORDER, &[37])), "{}", level.name());
        }
        let one_by_one = [1; 37];
        let cuts: [&[usize]; 5] = [&[20, 17], &[8, 8, 8, 8, 5], &[36, 1], &[1, 36], &one_by_one];
        for chunks in cuts {
            let got = logits(Level::best(), 2, kv, &SHUFFLED, chunks);
            assert_eq!(whole, bits(&got), "in chunks of {chunks:?}");
        }
    }
}

#[test]
fn the_golden_is_sharp() {
    // One token changed: whatever ignored its context would not notice.
    let mut llama = runner(Cpu::new(Level::best(), 1), Dtype::F32, &IN_ORDER);
    let mut tokens = prompt();
    tokens[0] = (tokens[0] + 1) % 131;
    let other = llama.forward(&tokens);
    let last = other.len() - 1;
    let golden = expected();
    let moved = logprobs(&other[last]).into_iter().zip(&golden[last]);
    let moved = moved.map(|(got, truth)| (got - truth).abs()).fold(0.0, f64::max);
    assert!(moved > 1e-2, "the last row moved by {moved} only");
}

#[test]
fn weights_that_are_quantised_give_what_their_rounding_gives_in_f64() {
    let capacity = capacity(Dtype::F32);
    for quantize in [Quantize::Q8, Quantize::Q4] {
        let cpu = Cpu::new(Level::best(), 2);
        let mut llama = Runner::new(cpu, &checkpoint(), Some(quantize), &capacity, &IN_ORDER);
        let got: Vec<Vec<f64>> = llama.forward(&prompt()).iter().map(|row| logprobs(row)).collect();
        let by = Evaluation { max_len: 64, kv: Dtype::F32, quantize: Some(quantize) };
        let truth = model::truth(&checkpoint(), &prompt(), by);
        let (error, moved) = (distance(&got, &truth), distance(&truth, &expected()));
        assert!(moved > 1e-2, "{quantize:?}: rounding moves {moved} alone");
        // An activation that f32 brings over the middle between two numbers becomes the
        // other one.
        assert!(error < 0.2 * moved, "{quantize:?}: {error}, where rounding moves {moved}");
    }
}
