//! Prompts as clients give them: one or several, as text or as tokens.

use super::Refusal;
use super::fields::Fields;
use super::sampling::known;
use crate::served::Served;
use serde_json::Value;
use std::sync::Arc;

/// Prompts of one request, at most.
const PROMPTS_MAX: usize = 4096;

/// A prompt.
pub struct Prompt {
    /// The field that holds it, and its place there.
    pub name: String,
    /// Its tokens, at least one.
    pub tokens: Arc<[u32]>,
    /// As it was given, where it was given as text.
    pub text: Option<String>,
}

/// From a field that holds text, tokens, or a list of these.
pub fn read(
    name: &str,
    value: Value,
    special: bool,
    served: &Served,
) -> Result<Vec<Prompt>, Refusal> {
    let expected = "a string, a list of strings, a list of tokens or a list of lists of tokens";
    let wrong = || Refusal::field(name, format!("expected {expected}"));
    let prompts = match value {
        Value::String(_) => vec![one(name, value, special, served)?],
        Value::Array(all) if all.is_empty() => return Err(Refusal::expected(name, expected, "[]")),
        Value::Array(all) if all[0].is_number() => {
            vec![one(name, Value::Array(all), special, served)?]
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
            let each =
                each.map(|(at, value)| one(&format!("{name}[{at}]"), value, special, served));
            each.collect::<Result<_, _>>()?
        }
        _ => return Err(wrong()),
    };
    Ok(prompts)
}

fn one(name: &str, value: Value, special: bool, served: &Served) -> Result<Prompt, Refusal> {
    let (tokens, text) = match value {
        Value::String(text) => (encode(name, &text, special, served)?, Some(text)),
        value => {
            let tokens: Vec<u32> = serde_json::from_value(value)
                .map_err(|_| Refusal::field(name, "expected a string or a list of tokens"))?;
            known(name, &tokens, served)?;
            (tokens.into(), None)
        }
    };
    if tokens.is_empty() {
        return Err(Refusal::field(name, "has no tokens"));
    }
    Ok(Prompt { name: name.to_owned(), tokens, text })
}

/// The tokens of a text, unless it is sure to be longer than the model takes.
pub fn encode(
    name: &str,
    text: &str,
    special: bool,
    served: &Served,
) -> Result<Arc<[u32]>, Refusal> {
    let tokenizer = &served.text.tokenizer;
    let least = tokenizer.tokens_least(text.len());
    if least > served.context as usize {
        let words = format!("has at least {least} tokens; the model takes {}", served.context);
        return Err(Refusal::too_long(name, words));
    }
    Ok(tokenizer.encode(text, special)?)
}

/// Leaves the last tokens alone, as `truncate_prompt_tokens` asks; -1 leaves what fits
/// before an answer of so many tokens.
pub fn truncate(
    fields: &mut Fields,
    prompts: &mut [Prompt],
    answer: u32,
    served: &Served,
) -> Result<(), Refusal> {
    const NAME: &str = "truncate_prompt_tokens";
    let keep = match fields.within(NAME, -1..=i64::from(u32::MAX))? {
        None => return Ok(()),
        Some(0) => return Err(Refusal::expected(NAME, "-1 or at least 1", 0)),
        // Where the answer takes all, its own field is refused.
        Some(-1) => served.context.saturating_sub(answer).max(1) as usize,
        Some(keep) => keep as usize,
    };
    for prompt in prompts {
        if prompt.tokens.len() > keep {
            prompt.tokens = prompt.tokens[prompt.tokens.len() - keep..].into();
            prompt.text = None;
        }
    }
    Ok(())
}
