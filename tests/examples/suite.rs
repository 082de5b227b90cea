//! Runs the JSON-Schema-Test-Suite through compiled matchers, from Rust and from C, and writes
//! docs/json-schema.md:
//! `cargo run -p pagewise-tests --example suite -- JSON-Schema-Test-Suite/tests/draft2020-12`.
//! The suite is at <https://github.com/json-schema-org/JSON-Schema-Test-Suite>.
#![expect(clippy::print_stdout, reason = "it says what it found")]
#![expect(unsafe_code, reason = "C's functions take pointers")]

use grammar::{Compiler, Refusal, Settings, Source, Tokens};
use pagewise::header::{
    PW_E_GRAMMAR, PW_E_TOO_MUCH, PW_SOURCE_SCHEMA, pw_grammars, pw_grammars_create,
    pw_grammars_destroy, pw_grammars_options, pw_matcher, pw_matcher_accept, pw_matcher_create,
    pw_matcher_destroy, pw_matcher_fork, pw_matcher_may_end, pw_vocabulary,
};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::time::Duration;
use std::{env, fs};

/// How many ways to order an instance's properties are tried.
const ORDERS: usize = 5000;
const END: u32 = 256;

#[derive(Default)]
struct Verdicts {
    exact: usize,
    refused: usize,
    valid_rejected: usize,
    invalid_accepted: usize,
}

#[derive(Default)]
struct Found {
    files: BTreeMap<String, Verdicts>,
    /// Cases by why their schema is refused.
    refusals: BTreeMap<String, usize>,
    /// Cases whose verdict is not exact.
    inexact: Vec<String>,
}

fn main() {
    let folder = env::args().nth(1).expect("the folder of a draft's tests");
    let mut found = Found::default();
    let (compiler, c) = (compiler(), C::new());
    for path in files(Path::new(&folder)) {
        let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("a file of tests");
        let groups: Value = serde_json::from_str(&text).expect("tests are JSON");
        for group in groups.as_array().expect("a list of groups") {
            found.group(&compiler, &c, &name, group);
        }
    }
    let page = found.page();
    println!("{page}");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json-schema.md");
    fs::write(docs, page).expect("the page is written");
    let accepted: usize = found.files.values().map(|file| file.invalid_accepted).sum();
    assert_eq!(accepted, 0, "nothing invalid is accepted");
}

/// The files of a folder, not those of folders within: what drafts leave open.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder of tests");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    paths.sort();
    paths
}

/// One whose tokens are bytes.
fn compiler() -> Compiler {
    let bytes = (0..=255u8).map(|byte| vec![byte]).chain([Vec::new()]);
    let special = BTreeMap::from([(END, "<|end|>".to_owned())]);
    let settings = Settings { patience: Duration::from_secs(600), ..Settings::default() };
    Compiler::new(&Tokens::new(bytes, &special, &[END]), settings)
}

/// The same through C.
struct C(*mut pw_grammars);

/// A schema, compiled through C.
struct Compiled(*mut pw_matcher);

impl C {
    fn new() -> Self {
        let bytes: Vec<u8> = (0..=255).chain(*b"<|end|>").collect();
        let starts: Vec<u64> = (0..=256).chain([bytes.len() as u64]).collect();
        let of = pw_vocabulary {
            struct_size: size_of::<pw_vocabulary>() as u32,
            tokens: END + 1,
            bytes: bytes.as_ptr(),
            starts: starts.as_ptr(),
            special: &END,
            ends: &END,
            special_count: 1,
            end_count: 1,
        };
        let options = pw_grammars_options {
            struct_size: size_of::<pw_grammars_options>() as u32,
            threads: 0,
            patience_ms: 600_000,
            waiting: 0,
            kept_bytes: 0,
        };
        let mut grammars = null_mut();
        // SAFETY: a vocabulary, options, and a place for the handle.
        let status = unsafe { pw_grammars_create(&of, &options, &mut grammars, null_mut()) };
        assert_eq!(status, 0, "a vocabulary of bytes");
        Self(grammars)
    }

    /// None if it is refused as a grammar.
    fn compile(&self, schema: &str) -> Option<Compiled> {
        let (mut matcher, text) = (null_mut(), schema.as_ptr().cast());
        let (kind, bytes) = (PW_SOURCE_SCHEMA, schema.len() as u64);
        // SAFETY: a text of so many bytes, and a place for the handle.
        let status =
            unsafe { pw_matcher_create(self.0, kind, text, bytes, &mut matcher, null_mut()) };
        assert!([0, PW_E_GRAMMAR, PW_E_TOO_MUCH].contains(&status), "{status}: {schema}");
        (status == 0).then_some(Compiled(matcher))
    }
}

impl Compiled {
    fn accepts(&self, text: &str) -> bool {
        let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
        let (mut fork, mut may_end) = (null_mut(), 0);
        // SAFETY: places for a handle and a number, and a list of so many tokens.
        unsafe {
            assert_eq!(pw_matcher_fork(self.0, &mut fork, null_mut()), 0);
            let count = tokens.len() as u32;
            let taken = pw_matcher_accept(fork, tokens.as_ptr(), count, null_mut()) == 0;
            assert_eq!(pw_matcher_may_end(fork, &mut may_end, null_mut()), 0);
            pw_matcher_destroy(fork);
            taken && may_end == 1
        }
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: any handle will do.
        unsafe { pw_matcher_destroy(self.0) }
    }
}

impl Drop for C {
    fn drop(&mut self) {
        // SAFETY: any handle will do.
        unsafe { pw_grammars_destroy(self.0) }
    }
}

impl Found {
    fn group(&mut self, compiler: &Compiler, c: &C, file: &str, group: &Value) {
        let tests = group["tests"].as_array().expect("a list of tests");
        let verdicts = self.files.entry(file.to_owned()).or_default();
        let schema = group["schema"].to_string();
        let through_c = c.compile(&schema);
        let matcher = match compiler.compile(&Source::Schema(schema)) {
            Ok(matcher) => matcher,
            Err(refusal) => {
                assert!(through_c.is_none(), "{file}: C takes what Rust refuses: {refusal}");
                verdicts.refused += tests.len();
                *self.refusals.entry(why(&refusal)).or_default() += tests.len();
                return;
            }
        };
        let through_c = through_c.expect("C takes what Rust takes");
        for test in tests {
            let accepted = orders(&test["data"], ORDERS).iter().any(|text| {
                let mut matcher = matcher.fork();
                let taken = text.bytes().all(|byte| matcher.accept(byte.into()).is_ok());
                let accepted = taken && matcher.may_end().expect("it says");
                assert_eq!(through_c.accepts(text), accepted, "{file}: {text} from Rust and C");
                accepted
            });
            let valid = test["valid"].as_bool().expect("it is valid or not");
            if valid == accepted {
                verdicts.exact += 1;
                continue;
            }
            let verdict = if valid { "valid, rejected" } else { "invalid, accepted" };
            *(if valid { &mut verdicts.valid_rejected } else { &mut verdicts.invalid_accepted }) +=
                1;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (group, test) = (text(&group["description"]), text(&test["description"]));
            self.inexact.push(format!("{file}: {group}: {test}: {verdict}"));
        }
    }

    fn page(&self) -> String {
        let mut page = PREFACE.to_owned();
        let mut line = |text: String| writeln!(page, "{text}").expect("text takes text");
        line(SUITE.to_owned());
        let mut all = Verdicts::default();
        for (file, of) in &self.files {
            line(format!("| {file} | {of} |"));
            all.exact += of.exact;
            all.refused += of.refused;
            all.valid_rejected += of.valid_rejected;
            all.invalid_accepted += of.invalid_accepted;
        }
        line(format!("| **all** | {all} |"));
        line("\n## Why schemas are refused\n\n| Why | Cases |\n|---|---|".to_owned());
        let mut refusals: Vec<_> = self.refusals.iter().collect();
        refusals.sort_by_key(|(_, cases)| std::cmp::Reverse(**cases));
        for (why, cases) in refusals {
            line(format!("| {} | {cases} |", why.replace('|', "\\|")));
        }
        line("\n## Verdicts that are not exact\n".to_owned());
        for case in &self.inexact {
            line(format!("- {case}"));
        }
        page
    }
}

impl std::fmt::Display for Verdicts {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { exact, refused, valid_rejected, invalid_accepted } = self;
        let cases = exact + refused + valid_rejected + invalid_accepted;
        write!(to, "{cases} | {exact} | {refused} | {valid_rejected} | {invalid_accepted}")
    }
}

/// What a schema is refused for, without its place.
fn why(refusal: &Refusal) -> String {
    match refusal {
        // Without which document, or which draft, it is.
        Refusal::Unsupported { keyword, .. } => {
            let end = keyword.find(" (").or_else(|| keyword.find(" \"http"));
            format!("`{}` is not supported", &keyword[..end.unwrap_or(keyword.len())])
        }
        Refusal::Invalid { why, .. } => why.clone(),
        refusal => refusal.to_string(),
    }
}

/// A value as text, its properties in every order, as far as there are not too many.
fn orders(value: &Value, most: usize) -> Vec<String> {
    match value {
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(|value| orders(value, most)).collect();
            let texts = joined(&values, most);
            texts.iter().map(|text| format!("[{text}]")).collect()
        }
        Value::Object(properties) => {
            let pairs = permuted(properties, most).into_iter().flat_map(|order| {
                let pairs: Vec<_> = order
                    .iter()
                    .map(|name| {
                        let key = Value::from(name.as_str());
                        let values = orders(&properties[name.as_str()], most);
                        values.iter().map(|value| format!("{key}:{value}")).collect()
                    })
                    .collect();
                joined(&pairs, most)
            });
            pairs.take(most).map(|text| format!("{{{text}}}")).collect()
        }
        value => vec![value.to_string()],
    }
}

/// Each way to take one text of each list.
fn joined(lists: &[Vec<String>], most: usize) -> Vec<String> {
    let mut texts = vec![String::new()];
    for (at, list) in lists.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        let longer = texts
            .iter()
            .flat_map(|text| list.iter().map(move |more| format!("{text}{comma}{more}")));
        texts = longer.take(most).collect();
    }
    texts
}

/// Orders of names.
fn permuted(properties: &Map<String, Value>, most: usize) -> Vec<Vec<String>> {
    let mut orders = vec![Vec::new()];
    for name in properties.keys() {
        let longer = orders.iter().flat_map(|order: &Vec<String>| {
            (0..=order.len()).rev().map(move |at| {
                let mut order = order.clone();
                order.insert(at, name.clone());
                order
            })
        });
        orders = longer.take(most).collect();
    }
    orders
}

const PREFACE: &str = "# JSON Schema

What of JSON Schema (draft 2020-12, and what older drafts call otherwise) grammars honour. A schema that asks for more is refused,
by the name of the keyword and its JSON pointer; nothing is ignored that would forbid something.

- What is generated is valid. Not all that is valid is generated: properties come in the order in which `properties` names them, then
  the others; a number without a fraction has no point (1, not 1.0) where `integer`, `const` or
  `enum` ask for it.
- `format` is asserted by its form: leap years, leap seconds and the letters of international host names are not looked into, nor is
  the length of a host name. What ECMAScript calls white space is what Unicode does, in a `pattern`.
- `uniqueItems: false`, `nullable: false` ask for nothing, and are taken.
- References are followed within the schema alone: nothing is fetched.

docs/serving.md has the table of keywords and formats.
";

const SUITE: &str = "
## JSON-Schema-Test-Suite, draft 2020-12

`cargo run -p pagewise-tests --example suite -- JSON-Schema-Test-Suite/tests/draft2020-12` writes this page. A case is accepted if its
instance is, in some order of its properties, byte by byte through the compiled matcher. Exact: what is valid is accepted, what is
not is rejected. Refused: its schema is, by name. Each case goes through `pagewise.h` too, and has the same verdict there.

| File | Cases | Exact | Refused | Valid, rejected | Invalid, accepted |
|---|---|---|---|---|---|";
