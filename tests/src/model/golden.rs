//! Tiny checkpoints of every family and what transformers makes of them in f64: made by
//! `golden/models/make.py`.

use crate::harness::Bytes;
use checkpoint::Checkpoint;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// Tokens of a prompt and its continuation: what a server of these models reaches.
pub const SERVED: u32 = 408;

/// The families, each with its configurations over the same weights.
pub const GOLDENS: [(&str, &[&str]); 4] = [
    ("llama", &["config", "linear", "dynamic", "llama3", "yarn", "yarn-old"]),
    ("mistral", &["config"]),
    ("qwen2", &["config"]),
    ("qwen3", &["config", "yarn-old"]),
];

/// Checkpoints packed by others, made by `golden/packed/make.py`.
pub const PACKED: [&str; 7] = [
    "mlx-4-g32-f32",
    "mlx-4-g128-bf16",
    "mlx-8-g64-f16",
    "awq-4-g64",
    "gptq-4-g128-signed",
    "gptq-4-g32-v2",
    "gptq-8-g64",
];

/// A packed checkpoint, and what is expected of it.
#[derive(Debug)]
pub struct Packed {
    /// The model.
    pub checkpoint: Checkpoint,
    /// The prompt.
    pub prompt: Vec<u32>,
    /// `[prompt][vocab]`, in f64 with activations rounded as products round them.
    pub expected: Vec<Vec<f64>>,
    /// The same without that rounding.
    pub floats: Vec<Vec<f64>>,
}

impl Packed {
    /// One of them.
    pub fn open(name: &str) -> Self {
        let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "golden/packed", name].iter().collect();
        let checkpoint = Checkpoint::open(&folder).expect("the golden is committed whole");
        let file = File::open(&folder);
        let vocab = checkpoint.config.vocab;
        let (expected, floats) = (file.rows("expected", vocab), file.rows("floats", vocab));
        Self { prompt: file.words("prompt"), checkpoint, expected, floats }
    }
}

/// A folder's `golden.safetensors`.
struct File(Vec<u8>);

impl File {
    fn open(folder: &Path) -> Self {
        Self(std::fs::read(folder.join("golden.safetensors")).expect("the golden is there"))
    }

    fn tensor(&self, name: &str) -> Bytes {
        let file = SafeTensors::deserialize(&self.0).expect("the golden is committed whole");
        Bytes::of(file.tensor(name).unwrap_or_else(|_| panic!("{name} is there")).data())
    }

    fn words(&self, name: &str) -> Vec<u32> {
        self.tensor(name).cast::<u32>().to_vec()
    }

    fn rows(&self, name: &str, width: u32) -> Vec<Vec<f64>> {
        self.tensor(name).cast::<f64>().chunks(width as usize).map(<[f64]>::to_vec).collect()
    }
}

/// One configuration of a checkpoint, and what is expected of it.
#[derive(Debug)]
pub struct Golden {
    /// Its folder and configuration.
    pub name: String,
    /// The model.
    pub checkpoint: Checkpoint,
    /// The prompt.
    pub prompt: Vec<u32>,
    /// Rows of the prompt whose log-probabilities are all there.
    pub rows: Vec<usize>,
    /// `[rows][vocab]`.
    pub logprobs: Vec<Vec<f64>>,
    /// The log-probability of each token of the prompt but the first.
    pub tokens: Vec<f64>,
    /// Beginnings of the prompt by their tokens, the last of them the whole, and the
    /// greedy continuation of each.
    pub continuations: Vec<(usize, Vec<u32>)>,
}

/// The folder of a family's checkpoint.
pub fn folder(family: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "golden/models", family].iter().collect()
}

impl Golden {
    /// One of the goldens.
    pub fn open(family: &str, variant: &str) -> Self {
        let folder = folder(family);
        let mut checkpoint = Checkpoint::open(&folder).expect("the golden is committed whole");
        if variant != "config" {
            let file = folder.join(format!("config.{variant}.json"));
            checkpoint.config = checkpoint::config_of(&file).expect("a good configuration");
        }
        let file = File::open(&folder);
        let rows = file.words("row_numbers").into_iter().map(|row| row as usize);
        let lengths = file.words("lengths").into_iter().map(|length| length as usize);
        let greedy = file.words(&format!("{variant}.greedy"));
        let each = greedy.chunks(greedy.len() / lengths.len()).map(<[u32]>::to_vec);
        Self {
            name: format!("{family} {variant}"),
            prompt: file.words("prompt"),
            rows: rows.collect(),
            logprobs: file.rows(&format!("{variant}.rows"), checkpoint.config.vocab),
            tokens: file.rows(&format!("{variant}.tokens"), u32::MAX).concat(),
            continuations: lengths.zip(each).collect(),
            checkpoint,
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let variants = GOLDENS.into_iter();
        variants.flat_map(|(family, variants)| variants.iter().map(move |v| Self::open(family, v)))
    }

    /// The greedy continuation of the whole prompt.
    pub fn greedy(&self) -> &[u32] {
        &self.continuations.last().expect("the whole prompt goes on").1
    }

    /// The largest distance of a prompt's log-probabilities from what is expected.
    pub fn distance(&self, got: &[Vec<f64>]) -> f64 {
        let rows: Vec<Vec<f64>> = self.rows.iter().map(|&row| got[row].clone()).collect();
        let next = self.prompt[1..].iter().zip(got);
        let tokens: Vec<f64> = next.map(|(&token, row)| row[token as usize]).collect();
        let tokens = super::distance(&[tokens], std::slice::from_ref(&self.tokens));
        super::distance(&rows, &self.logprobs).max(tokens)
    }
}
