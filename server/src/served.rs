//! The model that is served, as the surfaces know it.

use crate::adapters::Adapters;
use crate::atropos::Atropos;
use crate::backend::Named;
use crate::checkpoints::Checkpoints;
use crate::episodes::Episodes;
use crate::rollouts::Shelf;
use crate::runtime::Labels;
use crate::text::Text;
use crate::weights::Updates;
use engine::processor::TokenSet;
use grammar::Compiler;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A model, its text and its bounds.
pub struct Served {
    /// The name that clients ask for.
    pub name: String,
    /// Where its files are.
    pub folder: PathBuf,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Its tokenizer and template.
    pub text: Text,
    /// Tokens of a prompt and its answer together, at most.
    pub context: u32,
    /// Tokens that its logits score.
    pub vocabulary: u32,
    /// Values of a hidden state, which an embedding has as well.
    pub hidden: u32,
    /// Compiles what answers are to keep to.
    pub grammars: Compiler,
    /// Whether requests may bring chat templates of their own.
    pub trust_request_chat_template: bool,
    /// Adapters over it, by name.
    pub adapters: Arc<Adapters>,
    /// Conversations that the server holds.
    pub episodes: Arc<Episodes>,
    /// The way of other weights into it.
    pub updates: Arc<Updates>,
    /// The type that its checkpoint computes in, as its files say.
    pub dtype: &'static str,
    /// The archive of versions, if there is one.
    pub checkpoints: Option<Arc<Checkpoints>>,
    /// The store of trajectories, if there is one.
    pub shelf: Option<Arc<Shelf>>,
    /// Who takes scored groups, if somebody does.
    pub atropos: Option<Atropos>,
    /// What versions are called.
    pub labels: Arc<Labels>,
    /// The numerics of the backend: same words, same bits.
    pub numerics: String,
    /// The device that it runs on, unless that is the CPU.
    pub device: Option<Named>,
    /// Sets of tokens that requests allow by name.
    pub action_sets: BTreeMap<String, TokenSet>,
}

impl Served {
    /// Has versions saved from now on.
    pub fn save_versions(&mut self, checkpoints: &Arc<Checkpoints>) {
        self.checkpoints = Some(checkpoints.clone());
        // Nobody else has said so.
        let _ = self.adapters.checkpoints.set(checkpoints.clone());
        let _ = self.updates.checkpoints.set(checkpoints.clone());
    }

    /// The token that is spelled so, if there is one that logits score.
    pub fn token(&self, spelling: &str) -> Option<u32> {
        self.text.tokenizer.token(spelling).filter(|token| *token < self.vocabulary)
    }
}
