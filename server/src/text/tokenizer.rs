//! Text to tokens, tokens to bytes and text, by the checkpoint's `tokenizer.json`.

use super::Error;
use lru::LruCache;
use serde_json::Value;
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Texts whose tokens are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");
/// Longer texts are not: so many would not be looked up again.
const REMEMBERED_BYTES_MAX: usize = 32 << 10;

/// A checkpoint's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Of each token; empty where it has none.
    bytes: Vec<Box<[u8]>>,
    special: Vec<bool>,
    longest: usize,
    remembered: Mutex<Remembered>,
}

/// By text, and whether special tokens are added.
type Remembered = LruCache<(Box<str>, bool), Arc<[u32]>>;

/// How a token's spelling stands for its bytes.
#[derive(Clone, Copy, PartialEq)]
enum Spelling {
    /// Each character is a byte, by the table of GPT-2.
    ByteLevel,
    /// `▁` is a space, `<0x0A>` a byte, the rest itself.
    Pieces,
}

impl Tokenizer {
    /// From a `tokenizer.json`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = |why: String| Error::File { path: path.to_owned(), why };
        let text = std::fs::read(path).map_err(|error| file(error.to_string()))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&text)
            .map_err(|error| file(format!("is no tokenizer: {error}")))?;
        // Whoever asks says how long a prompt is.
        inner.with_truncation(None).map_err(|error| file(error.to_string()))?;
        inner.with_padding(None);
        let json: Value = serde_json::from_slice(&text).map_err(|error| file(error.to_string()))?;
        let spelling = spelling(&json["decoder"]).ok_or_else(|| {
            file(
                "its decoder must be ByteLevel, or made of Replace, ByteFallback, Metaspace".into(),
            )
        })?;
        let (bytes, special) = table(&inner, spelling);
        let longest = bytes.iter().map(|bytes| bytes.len()).max().unwrap_or(0);
        let remembered = Mutex::new(LruCache::new(REMEMBERED));
        Ok(Self { inner, bytes, special, longest, remembered })
    }

    /// The tokens of a text; special ones are added where `special` says so and the
    /// tokenizer has such. Those spelled out in the text are always read as what they are.
    pub fn encode(&self, text: &str, special: bool) -> Result<Arc<[u32]>, Error> {
        let short = text.len() <= REMEMBERED_BYTES_MAX;
        let key = (Box::from(if short { text } else { "" }), special);
        if short && let Some(tokens) = self.memory().get(&key) {
            return Ok(tokens.clone());
        }
        let encoding = self.inner.encode_fast(text, special);
        let encoding = encoding.map_err(|error| Error::Encode(error.to_string()))?;
        let tokens: Arc<[u32]> = encoding.get_ids().into();
        if short {
            self.memory().put(key, tokens.clone());
        }
        Ok(tokens)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text of tokens.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> Result<String, Error> {
        self.inner.decode(tokens, skip_special).map_err(|error| Error::Decode(error.to_string()))
    }

    /// The fewest tokens that so many bytes of text can be.
    pub fn tokens_least(&self, text_bytes: usize) -> usize {
        text_bytes / self.longest.max(1)
    }

    /// The bytes of a token.
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], |bytes| bytes)
    }

    /// Whether a token marks rather than says something.
    pub fn is_special(&self, token: u32) -> bool {
        self.special.get(token as usize).copied().unwrap_or(false)
    }

    /// A token's text alone; what is no whole character is U+FFFD.
    pub fn name(&self, token: u32) -> String {
        String::from_utf8_lossy(self.bytes(token)).into_owned()
    }

    /// A token as the vocabulary spells it.
    pub fn spelling(&self, token: u32) -> Option<String> {
        self.inner.id_to_token(token)
    }

    /// The token of a spelling.
    pub fn token(&self, spelling: &str) -> Option<u32> {
        self.inner.token_to_id(spelling)
    }

    /// All tokens as grammars see them; `ends` are those that end an answer.
    pub fn grammar_tokens(&self, ends: &[u32]) -> grammar::Tokens {
        let special = (0..).zip(&self.special).filter(|(_, special)| **special);
        let special = special.map(|(token, _)| (token, self.name(token))).collect();
        grammar::Tokens::new(self.answer_bytes(), &special, ends)
    }

    /// The bytes of all tokens as they count in an answer: special ones have none.
    pub fn answer_bytes(&self) -> Vec<Box<[u8]>> {
        let all = self.bytes.iter().zip(&self.special);
        all.map(|(bytes, special)| if *special { Box::default() } else { bytes.clone() }).collect()
    }
}

/// How the tokens under such a decoder are spelled; `None` where that is not known.
fn spelling(decoder: &Value) -> Option<Spelling> {
    let all: Vec<&Value> = match decoder["decoders"].as_array() {
        Some(parts) => parts.iter().collect(),
        None => vec![decoder],
    };
    let names: Vec<&str> = all.iter().filter_map(|part| part["type"].as_str()).collect();
    if names.contains(&"ByteLevel") {
        return Some(Spelling::ByteLevel);
    }
    let known = ["Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"];
    let pieces = !names.is_empty() && names.iter().all(|name| known.contains(name));
    pieces.then_some(Spelling::Pieces)
}

fn table(inner: &tokenizers::Tokenizer, spelling: Spelling) -> (Vec<Box<[u8]>>, Vec<bool>) {
    let vocabulary = inner.get_vocab(true);
    let count = vocabulary.values().max().map_or(0, |last| *last as usize + 1);
    let (mut bytes, mut special) = (vec![Box::default(); count], vec![false; count]);
    let letters = byte_letters();
    for (name, token) in vocabulary {
        bytes[token as usize] = match spelling {
            Spelling::ByteLevel => of_letters(&name, &letters),
            Spelling::Pieces => of_piece(&name),
        };
    }
    // Added tokens are spelled as they are.
    for (token, added) in inner.get_added_tokens_decoder() {
        if let Some(entry) = bytes.get_mut(token as usize) {
            *entry = added.content.as_bytes().into();
            special[token as usize] = added.special;
        }
    }
    (bytes, special)
}

/// The byte of each letter of GPT-2's table: printable bytes of Latin-1 are themselves,
/// the others come after U+0100 in ascending order.
fn byte_letters() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (themselves, others): (Vec<u8>, Vec<u8>) = (0..=255u8).partition(|byte| printable(*byte));
    let moved = others.into_iter().zip('\u{100}'..).map(|(byte, letter)| (letter, byte));
    themselves.into_iter().map(|byte| (char::from(byte), byte)).chain(moved).collect()
}

fn of_letters(name: &str, letters: &HashMap<char, u8>) -> Box<[u8]> {
    let bytes: Option<Vec<u8>> = name.chars().map(|letter| letters.get(&letter).copied()).collect();
    bytes.unwrap_or_else(|| name.as_bytes().to_vec()).into()
}

fn of_piece(name: &str) -> Box<[u8]> {
    let hex = name.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        return [byte].into();
    }
    name.replace('▁', " ").into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::{byte_letters, of_letters, of_piece, spelling};
    use serde_json::json;

    #[test]
    fn every_byte_has_a_letter_of_its_own() {
        let letters = byte_letters();
        assert_eq!(letters.len(), 256);
        assert_eq!((letters[&'Ġ'], letters[&'Ċ'], letters[&'a']), (b' ', b'\n', b'a'));
        assert_eq!(*of_letters("Ġhé", &letters), *b" h\xe9");
    }

    #[test]
    fn pieces_spell_spaces_and_bytes() {
        assert_eq!(*of_piece("▁two▁words"), *b" two words");
        assert_eq!(*of_piece("<0xE6>"), [0xE6]);
        assert_eq!(*of_piece("<0xZZ>"), *b"<0xZZ>");
    }

    #[test]
    fn a_decoder_that_is_not_known_is_refused() {
        assert!(spelling(&json!({"type": "ByteLevel"})).is_some());
        let pieces =
            json!({"type": "Sequence", "decoders": [{"type": "Replace"}, {"type": "Fuse"}]});
        assert!(spelling(&pieces).is_some());
        assert!(spelling(&json!({"type": "WordPiece"})).is_none());
        assert!(spelling(&json!(null)).is_none());
    }
}
