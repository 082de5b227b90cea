//! The prompts of `/generate`, one or several, and what is said of each.

use crate::openai::Refusal;
use crate::openai::fields::{Fields, misread};
use crate::openai::prompts::{self, Cut, Prompt, Reading};
use crate::openai::sampling::is_request_id;
use crate::served::Served;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// Prompts of a request, at most.
const PROMPTS_MAX: usize = 4096;

/// Prompts as they came.
pub struct Input {
    field: &'static str,
    value: Value,
    /// Whether there is a list of them.
    pub many: bool,
}

impl Input {
    /// From `text` or `input_ids`.
    pub fn read(fields: &mut Fields) -> Result<Self, Refusal> {
        let (text, ids) = (fields.take::<Value>("text")?, fields.take::<Value>("input_ids")?);
        let (field, value) = match (text, ids) {
            (Some(value), None) => ("text", value),
            (None, Some(value)) => ("input_ids", value),
            _ => return Err(Refusal::field("text", "exactly one of `text` and `input_ids`")),
        };
        let many = match (field, &value) {
            ("text", Value::String(_)) => false,
            ("text", Value::Array(all)) if !all.is_empty() && all.iter().all(Value::is_string) => {
                true
            }
            ("text", _) => {
                return Err(Refusal::field("text", "expected a string or a list of strings"));
            }
            (_, Value::Array(all)) if !all.is_empty() && all.iter().all(Value::is_array) => true,
            (_, Value::Array(all)) if all.iter().all(Value::is_number) => false,
            _ => {
                let words = "expected a list of tokens or a list of such lists";
                return Err(Refusal::field("input_ids", words));
            }
        };
        let input = Self { field, value, many };
        // Before anything is made for each of them.
        if input.count() > PROMPTS_MAX {
            let expected = format!("at most {PROMPTS_MAX} prompts");
            return Err(Refusal::expected(field, &expected, input.count()));
        }
        Ok(input)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.value.as_array().filter(|_| self.many).map_or(1, Vec::len)
    }

    /// As tokens, after those that are there already.
    pub fn prompts(self, context: &[u32], served: &Served) -> Result<Vec<Prompt>, Refusal> {
        let reading = Reading { served, special: context.is_empty(), cut: Cut::No };
        let mut prompts = prompts::read(self.field, self.value, reading)?;
        if context.is_empty() {
            return Ok(prompts);
        }
        let begin = served.text.tokenizer.encode("", true)?;
        for prompt in &mut prompts {
            // A beginning stands where the session begins, and nowhere else.
            let new = match begin.first() {
                Some(begin) if prompt.tokens.len() > 1 && prompt.tokens[0] == *begin => {
                    &prompt.tokens[1..]
                }
                _ => &prompt.tokens,
            };
            prompt.tokens = [context, new].concat().into();
            prompt.text = None;
        }
        Ok(prompts)
    }
}

/// A field's value for each prompt.
pub enum Each<T> {
    /// One for all, or none.
    All(Option<T>),
    /// Each has its own.
    Own(Vec<Option<T>>),
}

impl<T: DeserializeOwned> Each<T> {
    /// From a field: a list goes with a list of prompts.
    pub fn read(fields: &mut Fields, name: &str, input: &Input) -> Result<Self, Refusal> {
        match fields.take::<Value>(name)? {
            None => Ok(Self::All(None)),
            Some(Value::Array(all)) if input.many => {
                if all.len() != input.count() {
                    let expected = format!("one for each of {} prompts", input.count());
                    return Err(Refusal::expected(name, &expected, all.len()));
                }
                let read = |(at, value)| {
                    let name = format!("{name}[{at}]");
                    serde_json::from_value(value).map_err(|error| misread(&name, &error))
                };
                all.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Self::Own)
            }
            Some(value) => {
                let read = serde_json::from_value(value).map_err(|error| misread(name, &error))?;
                Ok(Self::All(Some(read)))
            }
        }
    }

    /// From a field of lists: one alone is for all prompts.
    pub fn lists(fields: &mut Fields, name: &str, input: &Input) -> Result<Self, Refusal> {
        let given = fields.look(name).and_then(Value::as_array);
        match given.is_some_and(|all| all.iter().all(Value::is_number)) {
            true => fields.take(name).map(Self::All),
            false => Self::read(fields, name, input),
        }
    }

    /// That of one prompt.
    pub fn of(&self, at: usize) -> Option<&T> {
        match self {
            Self::All(value) => value.as_ref(),
            Self::Own(all) => all[at].as_ref(),
        }
    }

    /// Whether each has its own.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

/// The name of each prompt's request.
pub fn names(fields: &mut Fields, input: &Input, unnamed: &str) -> Result<Vec<Arc<str>>, Refusal> {
    let count = input.count();
    let names: Vec<String> = match fields.take::<Value>("rid")? {
        Some(Value::Array(_)) if !input.many => {
            return Err(Refusal::field("rid", "a list goes with a list of prompts"));
        }
        Some(Value::Array(all)) => {
            if all.len() != count {
                let expected = format!("one for each of {count} prompts");
                return Err(Refusal::expected("rid", &expected, all.len()));
            }
            serde_json::from_value(Value::Array(all))
                .map_err(|_| Refusal::field("rid", "expected a string or a list of strings"))?
        }
        given => {
            let prefix = match given {
                None => unnamed.to_owned(),
                Some(Value::String(given)) => given,
                Some(_) => {
                    return Err(Refusal::field("rid", "expected a string or a list of strings"));
                }
            };
            match input.many {
                true => (0..count).map(|at| format!("{prefix}_{at}")).collect(),
                false => vec![prefix],
            }
        }
    };
    match names.iter().find(|name| !is_request_id(name)) {
        Some(name) => {
            let expected = "1 to 128 printable characters of ASCII";
            Err(Refusal::expected("rid", expected, format!("{} bytes", name.len())))
        }
        None => Ok(names.into_iter().map(Arc::from).collect()),
    }
}
