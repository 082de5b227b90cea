//! `pagewise complete`.

use super::Failure;
use super::session::{Session, drawing};
use crate::config;
use crate::openai::{Chat, Completions};
use serde_json::{Value, json};
use std::io::{self, Write};

/// Writes how a prompt goes on, or what is answered to it.
pub fn run(
    settings: &config::Complete,
    machine: &config::Machine,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let session = Session::open(&settings.model, &settings.running, machine)?;
    let mut fields = drawing(&settings.drawing);
    if settings.chat {
        let message = json!({"role": "user", "content": settings.prompt});
        fields.insert("messages".into(), json!([message]));
        let body = Value::Object(fields).to_string();
        session.ask(&Chat::read(body.as_bytes(), session.context())?, out)?;
        return Ok(());
    }
    fields.insert("prompt".into(), settings.prompt.clone().into());
    let body = Value::Object(fields).to_string();
    let answer = session.ask(&Completions::read(body.as_bytes(), session.context())?, out)?;
    if answer.is_empty() && session.speaks() {
        // A model of conversations takes a bare text for one that is over.
        let _ = writeln!(
            io::stderr(),
            "pagewise: the model ended at once. It is made for conversations: --chat sends the \
             prompt as a message, and `pagewise chat` talks with it"
        );
    }
    Ok(())
}
