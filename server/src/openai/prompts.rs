//! Prompts as clients give them: one or several, as text or as tokens.

use super::Refusal;
use super::fields::Fields;
use super::sampling::known;
use crate::served::Served;
use serde_json::Value;
use std::sync::Arc;

/// Prompts of one request, at most.
const PROMPTS_MAX: usize = 4096;

/// Bytes of a text that is sure to be cut: its last tokens depend on all before them, and
/// as tokens it takes a hundred times its bytes for a while.
const CUT_BYTES_MAX: usize = 1 << 20;
/// The field of [`Cut`].
const TRUNCATE: &str = "truncate_prompt_tokens";

/// How prompts are read.
#[derive(Clone, Copy)]
pub struct Reading<'a> {
    /// For which model.
    pub served: &'a Served,
    /// Whether special tokens are added to a text.
    pub special: bool,
    /// What of a prompt is cut off.
    pub cut: Cut,
}

/// What `truncate_prompt_tokens` asks: the last tokens of a prompt stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All stay.
    No,
    /// So many.
    Last(usize),
    /// As many as fit before the answer.
    Fitting,
}

impl Cut {
    /// From a request's fields.
    pub fn read(fields: &mut Fields) -> Result<Self, Refusal> {
        match fields.within(TRUNCATE, -1..=i64::from(u32::MAX))? {
            None => Ok(Self::No),
            Some(0) => Err(Refusal::expected(TRUNCATE, "-1 or at least 1", 0)),
            Some(-1) => Ok(Self::Fitting),
            Some(keep) => Ok(Self::Last(keep as usize)),
        }
    }
}

/// A prompt.
pub struct Prompt {
    /// The field that holds it, and its place there.
    pub name: String,
    /// Its tokens, at least one.
    pub tokens: Arc<[u32]>,
    /// As it was given, where it was given as text.
    pub text: Option<String>,
}

impl Prompt {
    /// Leaves its last tokens alone, as was asked, before an answer of so many tokens.
    pub fn cut(&mut self, reading: Reading<'_>, answer: u32) {
        let keep = match reading.cut {
            Cut::No => return,
            Cut::Last(keep) => keep,
            // Where the answer takes all, its own field is refused.
            Cut::Fitting => reading.served.context.saturating_sub(answer).max(1) as usize,
        };
        if self.tokens.len() > keep {
            self.tokens = self.tokens[self.tokens.len() - keep..].into();
            self.text = None;
        }
    }
}

/// From a field that holds text, tokens, or a list of these.
pub fn read(name: &str, value: Value, reading: Reading<'_>) -> Result<Vec<Prompt>, Refusal> {
    let expected = "a string, a list of strings, a list of tokens or a list of lists of tokens";
    let wrong = || Refusal::field(name, format!("expected {expected}"));
    let prompts = match value {
        Value::String(_) => vec![one(name, value, reading)?],
        Value::Array(all) if all.is_empty() => return Err(Refusal::expected(name, expected, "[]")),
        Value::Array(all) if all[0].is_number() => {
            vec![one(name, Value::Array(all), reading)?]
        }
        Value::Array(all) if all.len() > PROMPTS_MAX => {
            return Err(Refusal::expected(
                name,
                &format!("at most {PROMPTS_MAX} prompts"),
                all.len(),
            ));
        }
        Value::Array(all) => {
            let each = all.into_iter().enumerate();
            let each = each.map(|(at, value)| one(&format!("{name}[{at}]"), value, reading));
            each.collect::<Result<_, _>>()?
        }
        _ => return Err(wrong()),
    };
    Ok(prompts)
}

fn one(name: &str, value: Value, reading: Reading<'_>) -> Result<Prompt, Refusal> {
    let (tokens, text) = match value {
        Value::String(text) => (encode(name, &text, reading)?, Some(text)),
        value => {
            let tokens: Vec<u32> = serde_json::from_value(value)
                .map_err(|_| Refusal::field(name, "expected a string or a list of tokens"))?;
            known(name, &tokens, reading.served)?;
            (tokens.into(), None)
        }
    };
    if tokens.is_empty() {
        return Err(Refusal::field(name, "has no tokens"));
    }
    Ok(Prompt { name: name.to_owned(), tokens, text })
}

/// The tokens of a text, unless it is sure to be longer than the model takes, or than is
/// tokenized for its end alone.
pub fn encode(name: &str, text: &str, reading: Reading<'_>) -> Result<Arc<[u32]>, Refusal> {
    let Reading { served, special, cut } = reading;
    let tokenizer = &served.text.tokenizer;
    let least = tokenizer.tokens_least(text.len());
    let long = least > served.context as usize;
    if long && cut == Cut::No {
        let words = format!("has at least {least} tokens; the model takes {}", served.context);
        return Err(Refusal::too_long(name, words));
    }
    if long && text.len() > CUT_BYTES_MAX {
        let words = format!(
            "has {} bytes; a text that `{TRUNCATE}` is to cut may have {CUT_BYTES_MAX}",
            text.len()
        );
        return Err(Refusal::too_long(name, words));
    }
    Ok(tokenizer.encode(text, special)?)
}
