//! The model that is served, as the surfaces know it.

use crate::adapters::Adapters;
use crate::rollouts::Shelf;
use crate::runtime::Labels;
use crate::text::Text;
use grammar::Compiler;
use std::sync::Arc;

/// A model, its text and its bounds.
pub struct Served {
    /// The name that clients ask for.
    pub name: String,
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
    /// The type that its checkpoint computes in, as its files say.
    pub dtype: &'static str,
    /// The store of trajectories, if there is one.
    pub shelf: Option<Arc<Shelf>>,
    /// What versions are called.
    pub labels: Arc<Labels>,
    /// The numerics of the backend: same words, same bits.
    pub numerics: String,
}
