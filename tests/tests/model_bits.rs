//! The log-probabilities that an engine tells of whole models have their committed bits at
//! every level: of a prompt's tokens, and of the most likely ones after it.

use checkpoint::Checkpoint;
use engine::engine::Settings;
use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use pagewise_tests::harness::{assert_committed, hash};
use pagewise_tests::model::golden::{Golden, Packed, SERVED};
use pagewise_tests::serving::{Making, Served, generate, greedy, settings};

/// Packed checkpoints: of affine numbers of 4 bits, and of symmetric ones of 8.
const KEPT: [&str; 2] = ["mlx-4-g32-f32", "gptq-8-g64"];
/// Tokens after the prompt of a packed checkpoint.
const NEW: u32 = 16;

/// A model with its prompt.
struct Asked {
    name: String,
    checkpoint: Checkpoint,
    prompt: Vec<u32>,
    new: u32,
    kv: Dtype,
}

/// Every golden model, and packed ones over each of the smaller types of keys and values.
fn all() -> Vec<Asked> {
    let goldens = Golden::all().map(|golden| {
        let new = golden.greedy().len() as u32;
        let Golden { name, checkpoint, prompt, .. } = golden;
        Asked { name, checkpoint, prompt, new, kv: Dtype::F32 }
    });
    let packed = KEPT.into_iter().flat_map(|name| {
        let Packed { checkpoint, prompt, .. } = Packed::open(name);
        [Dtype::F16, Dtype::I8].map(|kv| Asked {
            name: name.to_owned(),
            checkpoint: checkpoint.clone(),
            prompt: prompt.clone(),
            new: NEW,
            kv,
        })
    });
    goldens.chain(packed).collect()
}

/// The hash of all that an engine at a level tells of a model.
fn told(level: Level, asked: &Asked) -> u64 {
    let settings =
        Settings { step_tokens: 96, chunk: 64, max_len: SERVED, kv: asked.kv, ..settings() };
    let making = Making { checkpoint: Some(asked.checkpoint.clone()), level, ..Making::default() };
    let mut request = greedy(1, &asked.prompt, asked.new);
    let wanted = generate(&mut request);
    (wanted.top, wanted.prompt_top) = (Some(1), Some(1));
    let answer = Served::made(settings, making).answer(request);
    let scored = answer.prompt.as_ref().map_or(0, |prompt| prompt.2.len());
    assert_eq!(scored, asked.prompt.len(), "{}: the prompt is scored", asked.name);
    assert_eq!(answer.tokens(0).len(), asked.new as usize, "{}: it goes on", asked.name);
    hash(answer.bits().into_iter().flat_map(|bits| [bits as u32, (bits >> 32) as u32]))
}

#[test]
fn the_bits_are_those_committed() {
    let all = all();
    let hashes = |level: Level| -> Vec<(String, u64)> {
        let one =
            |asked: &Asked| (format!("{}, kv {}", asked.name, asked.kv.name()), told(level, asked));
        all.iter().map(one).collect()
    };
    let scalar = hashes(Level::named("scalar").expect("every machine has the scalar level"));
    for level in Level::all().filter(|level| level.name() != "scalar") {
        assert_eq!(scalar, hashes(level), "{} has the scalar level's bits", level.name());
    }
    assert_committed("models", scalar);
}
