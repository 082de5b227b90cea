//! How much an engine serves, and how it is shared out.

use super::check::{above, range, refused};
use super::draft::Guessing;
use crate::model::{Capacity, Config, Scratch};
use crate::request::Refused;
use crate::schedule::Limits;
use kernels_core::dtype::Dtype;

/// Rows of logits at least: as many tokens of a prompt are listed in one launch, which
/// streams the output weights once.
const LOGIT_ROWS_LEAST: u32 = 32;

/// Settings of an engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tokens of a step, of all requests together; at least `rows`.
    pub step_tokens: u32,
    /// Answers that are generated at once.
    pub rows: u32,
    /// Tokens of one prompt in one step.
    pub chunk: u32,
    /// Tokens of all prompts in a step in which answers go on, or as many as these are: the
    /// fewer, the shorter the gap between two tokens of an answer.
    pub beside: u32,
    /// Tokens of a page of keys and values.
    pub page_len: u32,
    /// Pages of keys and values.
    pub pages: u32,
    /// Tokens of a prompt and its answer together.
    pub max_len: u32,
    /// The type of keys and values.
    pub kv: Dtype,
    /// Steps that a request waits before it comes first.
    pub patience: u64,
    /// Tokens that an answer gains before it may have to wait for a request that comes
    /// first.
    pub turn: u32,
    /// The part of the tokens that rollouts have while inference could use more, too, above 0
    /// and below 1; if none is given, classes make no difference.
    pub rollout_share: Option<f64>,
    /// What is guessed of answers, so that several tokens come in one step.
    pub guessing: Guessing,
    /// The version of the weights: keys and values of one are never used under another.
    pub weights: u64,
}

impl Settings {
    /// [`Settings::beside`] where nothing else is said: about the rows that a CPU computes
    /// while it streams the weights.
    pub const BESIDE: u32 = 16;

    /// What suits a model: f16 pages of 32 tokens, enough for `rows` prompts of its
    /// length.
    pub fn of(config: &Config, rows: u32) -> Self {
        let page_len = 32;
        Self {
            step_tokens: rows.max(512),
            rows,
            chunk: 512,
            beside: Self::BESIDE,
            page_len,
            pages: rows.saturating_mul(config.max_len.div_ceil(page_len)),
            max_len: config.max_len,
            kv: Dtype::F16,
            patience: 1000,
            turn: 64,
            rollout_share: None,
            guessing: Guessing::NONE,
            weights: 1,
        }
    }

    /// Refuses what cannot be served, by the name of the field.
    pub fn check(&self) -> Result<(), Refused> {
        range("rows", self.rows, 1..=1 << 16)?;
        range("step_tokens", self.step_tokens, self.rows..=1 << 20)?;
        above("chunk", self.chunk, 0)?;
        above("beside", self.beside, 0)?;
        range("page_len", self.page_len, 1..=1 << 16)?;
        above("pages", self.pages, 0)?;
        range("max_len", self.max_len, 1..=1 << 30)?;
        above("turn", self.turn, 0)?;
        if let Some(share) = self.rollout_share.filter(|share| !(*share > 0.0 && *share < 1.0)) {
            return Err(refused("rollout_share", "above 0 and below 1", share));
        }
        range("guessing.tokens", self.guessing.tokens, 0..=64)?;
        range("guessing.paths", self.guessing.paths, 1..=16)?;
        range("guessing.rows", self.guessing.rows, 0..=1 << 12)?;
        let ids = u64::from(self.rows) * u64::from(self.max_len.div_ceil(self.page_len));
        if ids > 1 << 30 {
            return Err(refused("max_len", "at most 2^30 pages for all rows together", ids));
        }
        Ok(())
    }

    /// Tokens of a prompt and its answer together, where all pages are theirs.
    pub fn len_max(&self) -> u32 {
        self.max_len.min(self.pages.saturating_mul(self.page_len))
    }

    /// What a program serves at most.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            // Each guess but the first of an answer computes a token that is known, too.
            rows_max: self.step_tokens + 2 * self.guessing.rows,
            seqs_max: self.rows + self.guessing.rows,
            logit_rows_max: self.rows.max(LOGIT_ROWS_LEAST) + self.guessing.rows,
            max_len: self.max_len,
            pages: self.pages,
            page_len: self.page_len,
            kv: self.kv,
        }
    }

    /// Bytes that an engine takes beside weights, keys and values: the rows of a step and
    /// of its logits, with what changes these. Lists of a few KiB are not counted.
    pub fn workspace_bytes(&self, config: &Config) -> u64 {
        let capacity = self.capacity();
        let logits = u64::from(capacity.logit_rows_max) * u64::from(config.vocab);
        // Changed logits as f32, a count of each token in 16 bits, a bit of each of two masks,
        // and one of what was kept.
        let masked = logits * 6 + logits / 4 + logits / 8;
        Scratch::bytes(config, &capacity) + masked + 4 * u64::from(capacity.page_ids_max())
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            tokens: self.step_tokens,
            rows: self.rows,
            chunk: self.chunk.min(self.step_tokens),
            beside: self.beside,
            page_len: self.page_len,
            patience: self.patience,
            turn: self.turn,
            rollout_share: self.rollout_share,
        }
    }
}
