//! A small vocabulary, and what its masks say.

use grammar::{Compiler, Matcher, Settings, Source, Tokens};
use std::collections::BTreeMap;
use std::time::Duration;

/// Words beside the bytes; some are parts of others, or of names of special tokens.
const WORDS: [&str; 14] = [
    "\":", "true", "{\"", "\"}", "yes", "no", "<f", "<fun", "<func", "tion=", "ion", "ab", "</",
    ">{",
];
/// The token that ends an answer.
pub const END: u32 = 256 + WORDS.len() as u32;
/// `<|call|>`.
pub const CALL: u32 = END + 1;
/// `</call>`.
pub const DONE: u32 = END + 2;

/// A token for each byte, some words, one that ends and two that are special.
pub fn tokens() -> Tokens {
    let bytes = (0..=255u8).map(|byte| vec![byte]);
    let words = WORDS.iter().map(|word| word.as_bytes().to_vec());
    Tokens::new(bytes.chain(words).chain([vec![], vec![], vec![]]), &special(), &[END])
}

fn special() -> BTreeMap<u32, String> {
    let names = [(END, "<|end|>"), (CALL, "<|call|>"), (DONE, "</call>")];
    names.map(|(token, name)| (token, name.to_owned())).into()
}

/// One for whom there is patience, whatever else the machine does.
pub fn compiler() -> Compiler {
    let settings = Settings { patience: Duration::from_secs(200), ..Settings::default() };
    Compiler::new(&tokens(), settings)
}

/// Tokens that may come.
pub fn mask(matcher: &mut dyn Matcher) -> Vec<u32> {
    // A row may be longer than the vocabulary.
    let mut words = vec![!0; tokens().mask_words() + 2];
    matcher.mask(&mut words).expect("it has a mask");
    assert_eq!(words[tokens().mask_words()..], [0, 0]);
    (0..tokens().count()).filter(|t| words[(t / 32) as usize] >> (t % 32) & 1 == 1).collect()
}

/// A text byte by byte.
pub fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// A text in the longest tokens, special ones among them.
pub fn longest(text: &str) -> Vec<u32> {
    let words = (256..).zip(WORDS.map(str::to_owned));
    let all: Vec<(u32, String)> = words.chain(special()).collect();
    let mut tokens = Vec::new();
    let mut rest = text.as_bytes();
    while let Some(&byte) = rest.first() {
        let here = all.iter().filter(|(_, word)| rest.starts_with(word.as_bytes()));
        let (token, length) = here
            .max_by_key(|(_, word)| word.len())
            .map_or((u32::from(byte), 1), |(token, word)| (*token, word.len()));
        tokens.push(token);
        rest = &rest[length..];
    }
    tokens
}

/// Whether tokens are one of the source's texts: each is asked for in the mask, and taken
/// exactly if it is there.
pub fn takes(compiler: &Compiler, source: &Source, tokens: &[u32]) -> bool {
    let mut matcher = compiler.compile(source).expect("a good source");
    for &token in tokens {
        let allowed = mask(matcher.as_mut()).contains(&token);
        assert_eq!(matcher.accept(token).is_ok(), allowed, "{tokens:?} at {token}");
        if !allowed {
            return false;
        }
    }
    let ends = mask(matcher.as_mut()).contains(&END);
    assert_eq!(matcher.may_end(), Ok(ends), "{tokens:?}");
    ends
}
