//! Structural tags, as vLLM and SGLang take them: a tree of formats in JSON, or the older
//! list of structures and triggers. They are read here, each field known or refused by its
//! name and place, and written as a grammar in Lark's form.

mod fields;
mod read;
mod write;

use crate::tokens::Special;
use crate::{Limits, Refusal, schema};
use serde_json::Value;

/// What is written.
enum Format {
    /// This text, which has no name of a special token.
    Text(String),
    /// This text, which has some.
    Named(String),
    /// Values of a schema that was looked over.
    Schema(Value),
    /// What an expression matches.
    Expression(String),
    /// A token.
    Token(u32),
    /// Text without some strings. It must end where something known begins.
    Free {
        at: String,
        excludes: Vec<String>,
    },
    Sequence(Vec<Format>),
    Or(Vec<Format>),
    Repeat {
        content: Box<Format>,
        least: u32,
        most: Option<u32>,
    },
    Tag(Box<Tag>),
    Triggered(Triggered),
    Separated {
        tags: Vec<Tag>,
        separator: String,
        at_least_one: bool,
        one: bool,
    },
}

/// Bytes of what begins or ends something: each is written several times.
const MARK_BYTES: usize = 1024;

/// Where something begins or ends.
#[derive(Clone, PartialEq, Eq)]
enum Mark {
    Text(String),
    Token(u32),
}

/// Something between two marks.
struct Tag {
    begin: Mark,
    content: Format,
    /// One of these; none where what follows ends it.
    ends: Vec<Mark>,
}

/// Text in which triggers begin tags.
struct Triggered {
    at: String,
    triggers: Vec<String>,
    /// Each tag, and how many bytes of its beginning are its trigger.
    tags: Vec<(Tag, usize)>,
    /// What no text has.
    excludes: Vec<String>,
    at_least_one: bool,
    one: bool,
}

/// Reads structural tags; the same as a grammar in Lark's form.
pub fn read(text: &str, limits: &Limits, special: &Special) -> Result<String, Refusal> {
    let format = read::format(schema::parse(text, limits)?, limits, special)?;
    write::lark(&format, limits, special)
}
