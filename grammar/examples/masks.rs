//! How long masks over a large vocabulary take: `cargo run --release -p pagewise-grammar
//! --example masks -- TOKENIZER.json SCHEMAS.jsonl`. The tokenizer is one of bytes (GPT-2,
//! Llama 3, Qwen); of the file a schema a line is read. It says what it found as JSON.
#![expect(clippy::print_stdout, reason = "it says what it found")]

use grammar::{
    Compiler, Done, Grammar, Job, Masker, Matcher, Settings, Source, Text, Threads, Tokens,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// Tokens of a text whose masks are timed one by one.
const TOKENS: usize = 60;
/// Texts that go on together, and for how many steps.
const BATCH: usize = 32;
const STEPS: usize = 400;
/// Threads that compute their masks, and how long a step waits for them.
const THREADS: usize = 2;
const PATIENCE: Duration = Duration::from_micros(800);
/// What else a step does meanwhile: little, as in the smallest of models.
const STEP: Duration = Duration::from_millis(2);

fn main() {
    let (tokenizer, schemas) = match &env::args().skip(1).collect::<Vec<_>>()[..] {
        [tokenizer, schemas] => (read(tokenizer), read(schemas)),
        _ => panic!("a tokenizer and schemas are expected"),
    };
    let (tokens, end) = vocabulary(&serde_json::from_str(&tokenizer).expect("JSON"));
    let sources = schemas.lines().map(|line| Source::Schema(line.to_owned()));
    let compiler = Compiler::new(&tokens, Settings::default());
    let mut dice = Dice(2026);
    let (mut compiled, mut masks, mut grammars) = (Vec::new(), Vec::new(), Vec::new());
    for source in sources {
        let begun = Instant::now();
        let Ok(mut matcher) = compiler.compile(&source) else { continue };
        let mut words = vec![0; tokens.mask_words()];
        matcher.mask(&mut words).expect("a mask");
        compiled.push(begun.elapsed());
        grammars.push(Grammar::new(matcher.fork()));
        masks.extend(walk(matcher.as_mut(), &mut words, end, &mut dice));
    }
    let batch = together(&grammars, tokens.mask_words(), end, &mut dice);
    let told = json!({
        "vocabulary": tokens.count(), "schemas": grammars.len(),
        "compile_us": spread(compiled), "mask_us": spread(masks), "batch": batch,
    });
    println!("{told}");
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Goes on with a text until it ends; how long each mask took.
fn walk(matcher: &mut dyn Matcher, words: &mut [u32], end: u32, dice: &mut Dice) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..TOKENS {
        let begun = Instant::now();
        if matcher.mask(words).is_err() {
            break;
        }
        took.push(begun.elapsed());
        match dice.token(words) {
            Some(token) if token != end => matcher.accept(token).expect("it is allowed"),
            _ => break,
        }
    }
    took
}

/// Many texts at once, as the steps of an engine go: whose mask comes late waits for a later
/// step. A text that ends makes way for the next.
fn together(grammars: &[Grammar], words: usize, end: u32, dice: &mut Dice) -> Value {
    let mut threads = Threads::new(THREADS, PATIENCE);
    let mut next = grammars.iter().cycle();
    let mut new = |id: u64| Job {
        id,
        text: Text::New(next.next().expect("there are some").clone()),
        tokens: Vec::new(),
        paths: Vec::new(),
        words,
        dear: false,
    };
    threads.ask((0..BATCH as u64).map(&mut new).collect());
    let ids: Vec<u64> = (0..BATCH as u64).collect();
    let (mut waits, mut asked, mut late) = (Vec::new(), 0, 0);
    for _ in 0..STEPS {
        thread::sleep(STEP);
        let begun = Instant::now();
        let done = threads.done(&ids);
        waits.push(begun.elapsed());
        asked += BATCH;
        late += BATCH - done.len();
        let go_on = |Done { id, outcome }: Done| {
            let token = outcome.as_ref().ok().and_then(|next| dice.token(&next.masks));
            match (outcome, token.filter(|&token| token != end)) {
                (Ok(next), Some(token)) => {
                    let (text, dear) = (Text::Begun(next.matcher), next.dear);
                    Job { id, text, tokens: vec![token], paths: Vec::new(), words, dear }
                }
                _ => new(id),
            }
        };
        threads.ask(done.into_iter().map(go_on).collect());
    }
    json!({"masks": asked, "late": late, "wait_us": spread(waits)})
}

fn spread(mut took: Vec<Duration>) -> Value {
    took.sort_unstable();
    let at = |part: f64| {
        let index = ((took.len() as f64 * part).ceil() as usize).clamp(1, took.len());
        took[index - 1].as_secs_f64() * 1e6
    };
    json!({"count": took.len(), "p50": at(0.5), "p99": at(0.99), "max": at(1.0)})
}

/// Draws tokens: small numbers more often, as texts have them.
struct Dice(u64);

impl Dice {
    /// One of those that a mask allows, if there are any.
    fn token(&mut self, mask: &[u32]) -> Option<u32> {
        let count: u32 = mask.iter().map(|word| word.count_ones()).sum();
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let unit = (self.0 >> 40) as f64 / (1u64 << 24) as f64;
        let mut rank = (f64::from(count).powf(unit) as u32).min(count.checked_sub(1)?);
        for (word, bits) in (0..).zip(mask) {
            if rank < bits.count_ones() {
                let mut left = *bits;
                (0..rank).for_each(|_| left &= left - 1);
                return Some(word * 32 + left.trailing_zeros());
            }
            rank -= bits.count_ones();
        }
        None
    }
}

/// The bytes of all tokens of a `tokenizer.json`, and the token that ends an answer.
fn vocabulary(tokenizer: &Value) -> (Tokens, u32) {
    let letters = byte_letters();
    let mut bytes: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut special = BTreeMap::new();
    let number = |value: &Value| value.as_u64().expect("a number") as u32;
    for (name, token) in tokenizer["model"]["vocab"].as_object().expect("a vocabulary") {
        let spelled: Option<Vec<u8>> = name.chars().map(|c| letters.get(&c).copied()).collect();
        bytes.insert(number(token), spelled.expect("a tokenizer of bytes"));
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let (token, name) = (number(&added["id"]), added["content"].as_str().expect("text"));
        bytes.insert(token, name.as_bytes().to_vec());
        if added["special"] == true {
            special.insert(token, name.to_owned());
        }
    }
    let count = bytes.last_key_value().map_or(0, |(last, _)| last + 1);
    let all = (0..count).map(|token| bytes.remove(&token).unwrap_or_default());
    let end = *special.keys().next().expect("a token that ends an answer");
    (Tokens::new(all, &special, &[end]), end)
}

/// The byte of each letter by which such tokenizers spell: printable bytes are themselves,
/// the others come after U+0100.
fn byte_letters() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (themselves, others): (Vec<u8>, Vec<u8>) = (0..=255u8).partition(printable);
    let moved = ('\u{100}'..).zip(others);
    themselves.into_iter().map(|byte| (char::from(byte), byte)).chain(moved).collect()
}
