//! `pagewise complete`.

use super::Failure;
use super::session::{Session, drawing};
use crate::config;
use crate::openai::Completions;
use serde_json::Value;
use std::io::Write;

/// Writes how a prompt goes on.
pub fn run(
    settings: &config::Complete,
    machine: &config::Machine,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let session = Session::open(&settings.model, &settings.running, machine)?;
    let mut fields = drawing(&settings.drawing);
    fields.insert("prompt".into(), settings.prompt.clone().into());
    let body = Value::Object(fields).to_string();
    let asked = Completions::read(body.as_bytes(), session.context())?;
    session.ask(&asked, out)?;
    Ok(())
}
