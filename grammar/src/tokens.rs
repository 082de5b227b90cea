//! The vocabulary as grammars see it: the bytes of each token.

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The bytes of each token, in a tree.
#[derive(Clone)]
pub struct Tokens {
    pub(crate) env: TokEnv,
    ends: Vec<u32>,
}

impl Tokens {
    /// `bytes` of token 0, 1, 2 and so on, empty for one without text. `special` tokens
    /// have a name instead, by which a grammar asks for them (`<|tool|>`), and are never
    /// text. `ends` are those that end an answer.
    pub fn new<B: AsRef<[u8]>>(
        bytes: impl IntoIterator<Item = B>,
        special: &BTreeMap<u32, String>,
        ends: &[u32],
    ) -> Self {
        let mut words: Vec<Vec<u8>> = bytes.into_iter().map(|b| b.as_ref().to_vec()).collect();
        for (token, word) in (0..).zip(&mut words) {
            if let Some(name) = special.get(&token) {
                *word = [&[TokTrie::SPECIAL_TOKEN_MARKER], name.as_bytes()].concat();
            } else if word.contains(&TokTrie::SPECIAL_TOKEN_MARKER) {
                // No byte of any text: it would pass for the mark of a special token.
                word.clear();
            }
        }
        let count = words.len() as u32;
        let ends: Vec<u32> = ends.iter().copied().filter(|&end| end < count).collect();
        let first = ends.first().copied().unwrap_or(u32::MAX);
        let mut trie = TokTrie::from(&TokRxInfo::new(count, first), &words);
        if ends.len() > 1 {
            trie = trie.with_eos_tokens(&ends);
        }
        // An environment that cannot split text as the model was taught to forces nothing:
        // a mask then has every token that the grammar allows.
        Self { env: Arc::new(ApproximateTokEnv::new(trie)), ends }
    }

    /// Tokens there are.
    pub fn count(&self) -> u32 {
        self.env.tok_trie().vocab_size() as u32
    }

    /// Words of a mask.
    pub fn mask_words(&self) -> usize {
        self.count().div_ceil(32) as usize
    }

    /// Tokens that end an answer.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }
}
