//! `pagewise chat`: a conversation, line by line.

use super::Failure;
use super::session::{Session, drawing};
use crate::config;
use crate::openai::{Chat, Refusal};
use serde_json::{Map, Value, json};
use std::io::{self, BufRead, IsTerminal, Write};
use tokio::sync::mpsc::{Receiver, channel};

/// Answers each line that is typed, until there are no more. Ctrl-C ends an answer, and
/// the talk where none is being written.
pub fn run(
    settings: &config::Talk,
    machine: &config::Machine,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let session = Session::open(&settings.model, &settings.running, machine)?;
    let session = session.within_training();
    let mut talk = Talk::new(settings);
    let mut interrupts = session.interrupts()?;
    let (mut lines, typed) = (lines()?, io::stdin().is_terminal());
    let prompt = |out: &mut dyn Write| -> io::Result<()> {
        if typed {
            write!(out, "> ")?;
        }
        out.flush()
    };
    prompt(out)?;
    loop {
        let line = session.wait(async {
            tokio::select! {
                line = lines.recv() => line,
                _ = interrupts.recv() => None,
            }
        });
        let Some(line) = line else { break };
        match String::from_utf8(line?) {
            Ok(line) if line.trim().is_empty() => {}
            Ok(line) => match talk.ask(line.trim_end_matches('\r'), &session) {
                Ok(asked) => {
                    let over = async {
                        interrupts.recv().await;
                    };
                    let answer = session.ask_until(&asked, over, out)?;
                    talk.messages.push(json!({"role": "assistant", "content": answer}));
                }
                Err(refusal) if refusal.is_too_long() => say(&refusal.message),
                Err(refusal) => return Err(refusal.into()),
            },
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                say(&format!("a line must be UTF-8, from byte {at} on it is not: not sent"));
            }
        }
        prompt(out)?;
    }
    // Whatever comes next is on a line of its own.
    if typed {
        writeln!(out)?;
    }
    Ok(())
}

/// Lines as they come, read on a thread that may wait for the next one for ever.
fn lines() -> Result<Receiver<io::Result<Vec<u8>>>, Failure> {
    let (to, lines) = channel(1);
    let read = move || {
        let mut all = io::stdin().lock().split(b'\n');
        while all.next().is_some_and(|line| to.blocking_send(line).is_ok()) {}
    };
    std::thread::Builder::new().name("input".into()).spawn(read).map_err(Failure::Thread)?;
    Ok(lines)
}

/// A conversation so far.
struct Talk {
    /// What goes with every request.
    fields: Map<String, Value>,
    messages: Vec<Value>,
    /// Messages at the start that stay: what the model was told before.
    kept: usize,
    /// Whether it was said that some were dropped.
    shortened: bool,
}

impl Talk {
    fn new(settings: &config::Talk) -> Self {
        let told = settings.system.iter();
        let messages: Vec<Value> =
            told.map(|text| json!({"role": "system", "content": text})).collect();
        let kept = messages.len();
        Self { fields: drawing(&settings.drawing), messages, kept, shortened: false }
    }

    /// The request of a line after all before it, or after the latest where not all fit. A
    /// line that is refused leaves the conversation as if it had not been typed.
    fn ask(&mut self, line: &str, session: &Session) -> Result<Chat, Refusal> {
        let mut messages = self.messages.clone();
        messages.push(json!({"role": "user", "content": line}));
        loop {
            self.fields.insert("messages".into(), messages.clone().into());
            let body = Value::Object(self.fields.clone()).to_string();
            match Chat::read(body.as_bytes(), session.context()) {
                Ok(asked) => {
                    let dropped = messages.len() <= self.messages.len();
                    if dropped && !std::mem::replace(&mut self.shortened, true) {
                        say("the talk is longer than the model takes: it forgets the oldest turns");
                    }
                    self.messages = messages;
                    return Ok(asked);
                }
                // A turn is a question and its answer.
                Err(refusal) if refusal.is_too_long() && messages.len() > self.kept + 2 => {
                    messages.drain(self.kept..self.kept + 2);
                }
                Err(refusal) => return Err(refusal),
            }
        }
    }
}

/// To whoever types, beside the answers. Where standard error is closed nobody misses it.
fn say(words: &str) {
    let _ = writeln!(io::stderr(), "pagewise: {words}");
}
