//! How long masks over a large vocabulary take: `cargo bench -p pagewise-benches --bench masks
//! -- TOKENIZER.json SCHEMAS.jsonl`. The tokenizer is one of bytes (GPT-2, Llama 3, Qwen); of
//! the file a schema a line is read. It says what it found as JSON. Without files it has
//! nothing to measure; with `--test` it goes once through a small vocabulary of its own.
#![expect(clippy::print_stdout, reason = "it says what it found")]
#![expect(unsafe_code, reason = "C's functions take pointers")]

use grammar::{
    Compiler, Done, Grammar, Job, Masker, Matcher, Settings, Source, Text, Threads, Tokens,
};
use pagewise::header::{self, pw_grammars, pw_masker, pw_matcher, pw_status, pw_vocabulary};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::ptr::{null, null_mut};
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

/// Texts whose masks are asked for at once through C, for how many steps, and how long one
/// waits where it does not wait for all.
const C_BATCH: usize = 256;
const C_STEPS: usize = 100;
const C_DEADLINE_US: u32 = 4000;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--test") {
        let schema = json!({"type": "array", "items": {"enum": ["a", "b"]}});
        let told = measure(&of_bytes(), &[schema.to_string()], 3);
        assert!(told["c"]["share_us"]["count"].as_u64() > Some(0), "masks came: {told}");
        println!("Testing masks\nSuccess");
        return;
    }
    let files: Vec<&String> = arguments.iter().filter(|name| name.contains(".json")).collect();
    let [tokenizer, schemas] = files[..] else { return };
    let vocabulary = Vocabulary::read(&serde_json::from_str(&read(tokenizer)).expect("JSON"));
    let schemas: Vec<String> = read(schemas).lines().map(str::to_owned).collect();
    println!("{}", measure(&vocabulary, &schemas, STEPS));
}

fn measure(vocabulary: &Vocabulary, schemas: &[String], steps: usize) -> Value {
    let (tokens, end) = (vocabulary.tokens(), vocabulary.end);
    let compiler = Compiler::new(&tokens, Settings::default());
    let mut dice = Dice(2026);
    let (mut compiled, mut masks, mut grammars) = (Vec::new(), Vec::new(), Vec::new());
    let mut taken = Vec::new();
    for schema in schemas {
        let begun = Instant::now();
        let Ok(mut matcher) = compiler.compile(&Source::Schema(schema.clone())) else { continue };
        let mut words = vec![0; tokens.mask_words()];
        matcher.mask(&mut words).expect("a mask");
        compiled.push(begun.elapsed());
        taken.push(schema);
        grammars.push(Grammar::new(matcher.fork()));
        masks.extend(walk(matcher.as_mut(), &mut words, end, &mut dice));
    }
    let batch = together(&grammars, tokens.mask_words(), end, &mut dice, steps);
    let c = through_c(vocabulary, &taken, &mut dice, steps.min(C_STEPS));
    json!({
        "vocabulary": tokens.count(), "schemas": grammars.len(),
        "compile_us": spread(compiled), "mask_us": spread(masks), "batch": batch, "c": c,
    })
}

/// Masks of many texts at once, as an engine in C asks for them: all by the masker, with and
/// without a deadline, and each by itself on as many threads of the caller's.
fn through_c(vocabulary: &Vocabulary, schemas: &[&String], dice: &mut Dice, steps: usize) -> Value {
    let c = C::new(vocabulary, schemas);
    let mut texts: Vec<*mut pw_matcher> = (0..C_BATCH).map(|at| c.begin(at)).collect();
    let row_words = vocabulary.bytes.len().div_ceil(32);
    let mut words = vec![0; C_BATCH * row_words];
    let mut statuses = vec![0; C_BATCH];
    let (mut shares, mut each, mut bounded) = (Vec::new(), Vec::new(), Vec::new());
    let (mut late, mut asked) = (0, 0);
    let mut next = C_BATCH;
    for step in 0..steps {
        // By turns.
        let begun = Instant::now();
        let mut batch =
            |deadline| c.masks(&texts, deadline, &mut words, row_words, &mut statuses) as usize;
        match step % 3 {
            0 => {
                assert_eq!(batch(0), 0, "nobody is late where everybody is waited for");
                shares.push(begun.elapsed() / C_BATCH as u32);
            }
            1 => {
                each.extend(c.each(&texts, &mut words, row_words));
            }
            _ => {
                late += batch(C_DEADLINE_US);
                asked += C_BATCH;
                bounded.push(begun.elapsed());
                // Whoever was late is waited for, and goes on like the others.
                assert_eq!(c.masks(&texts, 0, &mut words, row_words, &mut statuses), 0);
            }
        }
        for (at, text) in texts.iter_mut().enumerate() {
            let row = &mut words[at * row_words..][..row_words];
            let token = dice.token(row).filter(|token| *token != vocabulary.end);
            if !token.is_some_and(|token| c.accept(*text, token)) {
                c.end(*text);
                *text = c.begin(next);
                next += 1;
            }
        }
    }
    texts.into_iter().for_each(|text| c.end(text));
    json!({
        "texts": C_BATCH, "threads": THREADS, "share_us": spread(shares),
        "each_us": spread(each), "deadline_us": C_DEADLINE_US, "batch_us": spread(bounded),
        "late": late, "asked": asked,
    })
}

/// What C holds.
struct C {
    grammars: *mut pw_grammars,
    masker: *mut pw_masker,
    /// At the beginning of each schema.
    first: Vec<*mut pw_matcher>,
}

impl C {
    fn new(vocabulary: &Vocabulary, schemas: &[&String]) -> Self {
        let bytes = vocabulary.bytes.concat();
        let mut starts = vec![0_u64];
        for token in &vocabulary.bytes {
            starts.push(starts[starts.len() - 1] + token.len() as u64);
        }
        let special: Vec<u32> = vocabulary.special.keys().copied().collect();
        let of = pw_vocabulary {
            struct_size: size_of::<pw_vocabulary>() as u32,
            tokens: vocabulary.bytes.len() as u32,
            bytes: bytes.as_ptr(),
            starts: starts.as_ptr(),
            special: special.as_ptr(),
            ends: &vocabulary.end,
            special_count: special.len() as u32,
            end_count: 1,
        };
        let (mut grammars, mut masker) = (null_mut(), null_mut());
        // SAFETY: a vocabulary, and places for handles.
        good(unsafe { header::pw_grammars_create(&of, null(), &mut grammars, null_mut()) });
        // SAFETY: as above.
        good(unsafe { header::pw_masker_create(THREADS as u32, &mut masker, null_mut()) });
        let first = schemas.iter().map(|schema| {
            let (mut matcher, kind) = (null_mut(), header::PW_SOURCE_SCHEMA);
            let (text, len) = (schema.as_ptr().cast(), schema.len() as u64);
            // SAFETY: a text of so many bytes, and a place for the handle.
            good(unsafe {
                header::pw_matcher_create(grammars, kind, text, len, &mut matcher, null_mut())
            });
            matcher
        });
        let first = first.collect();
        Self { grammars, masker, first }
    }

    /// A text of the schema whose turn it is.
    fn begin(&self, turn: usize) -> *mut pw_matcher {
        let mut fork = null_mut();
        let first = self.first[turn % self.first.len()];
        // SAFETY: a place for the handle.
        good(unsafe { header::pw_matcher_fork(first, &mut fork, null_mut()) });
        fork
    }

    fn masks(
        &self,
        texts: &[*mut pw_matcher],
        deadline_us: u32,
        words: &mut [u32],
        row_words: usize,
        statuses: &mut [pw_status],
    ) -> u32 {
        let (count, mut late) = (texts.len() as u32, 0);
        // SAFETY: lists of as many texts, and rows of so many words.
        good(unsafe {
            header::pw_masker_masks(
                self.masker,
                texts.as_ptr(),
                count,
                deadline_us,
                words.as_mut_ptr(),
                row_words as u64,
                statuses.as_mut_ptr(),
                &mut late,
                null_mut(),
            )
        });
        late
    }

    /// How long each mask took, on threads that share them.
    fn each(
        &self,
        texts: &[*mut pw_matcher],
        words: &mut [u32],
        row_words: usize,
    ) -> Vec<Duration> {
        // Handles are numbers, and go where they like.
        let texts: Vec<usize> = texts.iter().map(|text| text.addr()).collect();
        let many = texts.len().div_ceil(THREADS);
        let parts = texts.chunks(many).zip(words.chunks_mut(many * row_words));
        thread::scope(|scope| {
            let threads: Vec<_> = parts
                .map(|(texts, rows)| scope.spawn(move || times(texts, rows, row_words)))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("masks")).collect()
        })
    }

    fn accept(&self, text: *mut pw_matcher, token: u32) -> bool {
        // SAFETY: a list of one token.
        unsafe { header::pw_matcher_accept(text, &token, 1, null_mut()) == 0 }
    }

    fn end(&self, text: *mut pw_matcher) {
        // SAFETY: any handle will do.
        unsafe { header::pw_matcher_destroy(text) }
    }
}

impl Drop for C {
    fn drop(&mut self) {
        self.first.iter().for_each(|text| self.end(*text));
        // SAFETY: any handle will do.
        unsafe {
            header::pw_masker_destroy(self.masker);
            header::pw_grammars_destroy(self.grammars);
        }
    }
}

/// How long each mask took, one after the other.
fn times(texts: &[usize], rows: &mut [u32], row_words: usize) -> Vec<Duration> {
    let mask = |(text, row): (&usize, &mut [u32])| {
        let text = std::ptr::without_provenance_mut(*text);
        let begun = Instant::now();
        // SAFETY: a row of so many words.
        good(unsafe {
            header::pw_matcher_mask(text, row.as_mut_ptr(), row.len() as u64, null_mut())
        });
        begun.elapsed()
    };
    texts.iter().zip(rows.chunks_mut(row_words)).map(mask).collect()
}

fn good(status: pw_status) {
    assert_eq!(status, header::PW_OK as pw_status, "a good call is made");
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
fn together(grammars: &[Grammar], words: usize, end: u32, dice: &mut Dice, steps: usize) -> Value {
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
    for _ in 0..steps {
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

/// The tokens of a model.
struct Vocabulary {
    bytes: Vec<Vec<u8>>,
    special: BTreeMap<u32, String>,
    /// The token that ends an answer.
    end: u32,
}

/// One whose tokens are bytes.
fn of_bytes() -> Vocabulary {
    let bytes = (0..=255u8).map(|byte| vec![byte]).chain([b"<|end|>".to_vec()]).collect();
    Vocabulary { bytes, special: BTreeMap::from([(256, "<|end|>".to_owned())]), end: 256 }
}

impl Vocabulary {
    /// Of a `tokenizer.json`.
    fn read(tokenizer: &Value) -> Self {
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
        let bytes = (0..count).map(|token| bytes.remove(&token).unwrap_or_default()).collect();
        let end = *special.keys().next().expect("a token that ends an answer");
        Self { bytes, special, end }
    }

    fn tokens(&self) -> Tokens {
        Tokens::new(&self.bytes, &self.special, &[self.end])
    }
}

/// The byte of each letter by which such tokenizers spell: printable bytes are themselves,
/// the others come after U+0100.
fn byte_letters() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (themselves, others): (Vec<u8>, Vec<u8>) = (0..=255u8).partition(printable);
    let moved = ('\u{100}'..).zip(others);
    themselves.into_iter().map(|byte| (char::from(byte), byte)).chain(moved).collect()
}
