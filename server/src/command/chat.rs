//! `pagewise chat`: a conversation, line by line.

use super::Failure;
use super::session::{Session, drawing};
use crate::config;
use crate::openai::Chat;
use serde_json::{Value, json};
use std::io::{self, BufRead, IsTerminal, Write};

/// Answers each line that is typed, until there are no more.
pub fn run(
    settings: &config::Talk,
    machine: &config::Machine,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let session = Session::open(&settings.model, &settings.running, machine)?;
    let mut messages = Vec::new();
    if let Some(text) = &settings.system {
        messages.push(json!({"role": "system", "content": text}));
    }
    let (input, typed) = (io::stdin().lock(), io::stdin().is_terminal());
    let prompt = |out: &mut dyn Write| -> io::Result<()> {
        if typed {
            write!(out, "> ")?;
        }
        out.flush()
    };
    prompt(out)?;
    for line in input.lines() {
        let line = line?;
        if !line.trim().is_empty() {
            messages.push(json!({"role": "user", "content": line}));
            let mut fields = drawing(&settings.drawing);
            fields.insert("messages".into(), messages.clone().into());
            let body = Value::Object(fields).to_string();
            let asked = Chat::read(body.as_bytes(), session.context())?;
            let answer = session.ask(&asked, out)?;
            messages.push(json!({"role": "assistant", "content": answer}));
        }
        prompt(out)?;
    }
    Ok(())
}
