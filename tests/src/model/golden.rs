//! Tiny checkpoints of every family and what transformers makes of them in f64: made by
//! `golden/models/make.py`.

use crate::harness::Bytes;
use checkpoint::Checkpoint;
use safetensors::SafeTensors;
use std::path::PathBuf;

/// Tokens of a prompt and its continuation: what a server of these models reaches.
pub const SERVED: u32 = 408;

/// The families, each with its configurations over the same weights.
pub const GOLDENS: [(&str, &[&str]); 4] = [
    ("llama", &["config", "linear", "dynamic", "llama3", "yarn", "yarn-old"]),
    ("mistral", &["config"]),
    ("qwen2", &["config"]),
    ("qwen3", &["config", "yarn-old"]),
];

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
    /// The greedy continuation.
    pub greedy: Vec<u32>,
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
        let bytes = std::fs::read(folder.join("golden.safetensors")).expect("the golden is there");
        let file = SafeTensors::deserialize(&bytes).expect("the golden is committed whole");
        let tensor = |name: &str| {
            Bytes::of(file.tensor(name).unwrap_or_else(|_| panic!("{name} is there")).data())
        };
        let words = |name: &str| tensor(name).cast::<u32>().to_vec();
        let vocab = checkpoint.config.vocab as usize;
        let rows = tensor(&format!("{variant}.rows"));
        Self {
            name: format!("{family} {variant}"),
            checkpoint,
            prompt: words("prompt"),
            rows: words("row_numbers").into_iter().map(|row| row as usize).collect(),
            logprobs: rows.cast::<f64>().chunks(vocab).map(<[f64]>::to_vec).collect(),
            tokens: tensor(&format!("{variant}.tokens")).cast::<f64>().to_vec(),
            greedy: words(&format!("{variant}.greedy")),
        }
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let variants = GOLDENS.into_iter();
        variants.flat_map(|(family, variants)| variants.iter().map(move |v| Self::open(family, v)))
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
