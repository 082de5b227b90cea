//! The vocabulary as grammars see it: the bytes of each token.

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// The bytes of each token, in a tree.
#[derive(Clone)]
pub struct Tokens {
    pub(crate) env: TokEnv,
    pub(crate) special: Special,
}

/// Special tokens by their names, and those that end an answer.
#[derive(Clone)]
pub(crate) struct Special {
    by_name: Arc<HashMap<String, u32>>,
    /// Bytes that names have, most first.
    lengths: Arc<[usize]>,
    ends: Arc<[u32]>,
    /// Tokens there are, special or not.
    count: u32,
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
        Self {
            env: Arc::new(ApproximateTokEnv::new(trie)),
            special: Special::new(special, ends, count),
        }
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
        &self.special.ends
    }
}

impl Special {
    fn new(names: &BTreeMap<u32, String>, ends: Vec<u32>, count: u32) -> Self {
        let names = names.iter().filter(|(token, name)| **token < count && !name.is_empty());
        let by_name: HashMap<_, _> = names.map(|(&token, name)| (name.clone(), token)).collect();
        let mut lengths: Vec<usize> = by_name.keys().map(String::len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Self { by_name: Arc::new(by_name), lengths: lengths.into(), ends: ends.into(), count }
    }

    pub fn named(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    /// Whether it ends an answer.
    pub fn ends(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Names within a text from its beginning on, the longest of those that begin at one
    /// place: where they are, and their tokens.
    pub fn within<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (Range<usize>, u32)> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            while from < text.len() {
                let ends = self.lengths.iter().map(|length| from + length);
                let mut spans = ends.map(|end| from..end);
                let found = spans.find_map(|span| {
                    let token = self.named(text.get(span.clone())?)?;
                    Some((span, token))
                });
                from = found.as_ref().map_or(from + 1, |(span, _)| span.end);
                if found.is_some() {
                    return found;
                }
            }
            None
        })
    }
}
