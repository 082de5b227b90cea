//! `processors`: what changes logits from step to step, as JSON; the same under the names of
//! vLLM and SGLang. What the JSON says is read first and made the engine's for a model then,
//! so that every surface may bring some.

mod by_class;
mod pickle;

pub use by_class::of_pickle;

use super::Refusal;
use super::fields::Fields;
use super::sampling::known;
use crate::served::Served;
use engine::processor::{self, Course, Schedule, Steps, Then, TokenSet};
use serde_json::{Map, Value};
use std::sync::Arc;

/// What thinking begins and ends with, where a tokenizer has them as tokens.
const THINK: [&str; 2] = ["<think>", "</think>"];
/// Temperatures, as `temperature` has them.
const TEMPERATURES: std::ops::RangeInclusive<f64> = 0.0..=100.0;

/// What is asked, of no model yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Processor {
    /// Nothing but these comes.
    Allowed(List),
    /// None of these comes.
    Disallowed(List),
    /// Each token has a list of its own.
    Steps {
        /// The field.
        field: String,
        /// One for each token.
        lists: Vec<Arc<[u32]>>,
        /// What holds after them.
        then: Then,
    },
    /// Nothing but what a set has comes, which the server was given under that name.
    Set {
        /// The field.
        field: String,
        /// The set's name.
        name: String,
    },
    /// The temperature.
    Temperature(Schedule),
    /// A bound on thinking.
    Thinking {
        /// The field.
        field: String,
        /// Tokens.
        tokens: u32,
        /// What it begins with, if not with the tokenizer's `<think>`.
        start: Option<List>,
        /// What ends it, if not the tokenizer's `</think>`.
        end: Option<List>,
    },
}

/// Tokens, and the field that they came in.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// The field.
    pub field: String,
    /// The tokens.
    pub tokens: Arc<[u32]>,
}

impl Processor {
    /// A bound on thinking that came in a field of its own.
    pub fn thinking(field: &str, tokens: u32) -> Self {
        Self::Thinking { field: field.to_owned(), tokens, start: None, end: None }
    }

    /// As the engine takes it.
    pub fn of(&self, served: &Served) -> Result<processor::Processor, Refusal> {
        use processor::Processor as Engines;
        Ok(match self {
            Self::Allowed(list) => Engines::Allowed(list.set(served)?),
            Self::Disallowed(list) => Engines::Disallowed(list.set(served)?),
            Self::Steps { field, lists, then } => {
                for (at, list) in lists.iter().enumerate() {
                    known(&format!("{field}[{at}]"), list, served)?;
                }
                Engines::Steps(Steps { lists: lists.clone().into(), then: *then })
            }
            Self::Set { field, name } => match served.action_sets.get(name) {
                Some(set) => Engines::Allowed(set.clone()),
                None => {
                    let names: Vec<_> = served.action_sets.keys().map(String::as_str).collect();
                    let names = if names.is_empty() { "none".into() } else { names.join(", ") };
                    let words = format!("an action set of this server ({names})");
                    return Err(Refusal::expected(field, &words, format!("`{name}`")));
                }
            },
            Self::Temperature(schedule) => Engines::Temperature(*schedule),
            Self::Thinking { field, tokens, start, end } => {
                let [begins, ends] = THINK.map(|text| served.token(text));
                let start = match start {
                    Some(list) => Some(list.known(served)?),
                    None => begins.map(|token| [token].into()),
                };
                let end = match (end, ends) {
                    (Some(list), _) => list.known(served)?,
                    (None, Some(token)) => [token].into(),
                    (None, None) => {
                        let words = "this model's tokenizer has no token `</think>`, so the tokens \
                                     that end thinking must be given: `end` of a `thinking_budget` \
                                     among `processors`";
                        return Err(Refusal::field(field, words));
                    }
                };
                Engines::Thinking(processor::Thinking { tokens: *tokens, start, end })
            }
        })
    }
}

impl List {
    fn known(&self, served: &Served) -> Result<Arc<[u32]>, Refusal> {
        known(&self.field, &self.tokens, served)?;
        Ok(self.tokens.clone())
    }

    fn set(&self, served: &Served) -> Result<TokenSet, Refusal> {
        TokenSet::new(served.vocabulary, &self.tokens)
            .map_err(|refused| Refusal::expected(&self.field, &refused.expected, refused.got))
    }
}

/// From a request's fields: `processors`; vLLM's `thinking_token_budget` and SGLang's
/// `max_thinking_tokens`; and SGLang's `custom_logit_processor` with its `custom_params`.
pub fn read(fields: &mut Fields) -> Result<Vec<Processor>, Refusal> {
    let name = "processors";
    let mut all = match fields.take::<Value>(name)? {
        None => Vec::new(),
        Some(Value::Array(list)) if list.len() > processor::Processor::MAX => {
            let expected = format!("at most {}", processor::Processor::MAX);
            return Err(Refusal::expected(name, &expected, list.len()));
        }
        Some(Value::Array(list)) => {
            let each = list.into_iter().enumerate();
            each.map(|(at, value)| one(&format!("{name}[{at}]"), value))
                .collect::<Result<_, _>>()?
        }
        Some(value) => vec![one(name, value)?],
    };
    for name in ["thinking_token_budget", "max_thinking_tokens"] {
        all.extend(fields.take(name)?.map(|tokens| Processor::thinking(name, tokens)));
    }
    let custom: Option<String> = fields.take("custom_logit_processor")?;
    let params: Map<String, Value> = fields.take("custom_params")?.unwrap_or_default();
    match custom {
        Some(custom) => all.extend(of_pickle(&custom, &params)?),
        None if params.is_empty() => {}
        None => {
            return Err(Refusal::field("custom_params", "only with `custom_logit_processor`"));
        }
    }
    Ok(all)
}

fn one(field: &str, value: Value) -> Result<Processor, Refusal> {
    let Value::Object(object) = value else {
        return Err(Refusal::field(field, "expected an object with a `type`"));
    };
    let mut fields = Fields::of(object);
    let read = |fields: &mut Fields| {
        let kind: String = fields.must("type")?;
        match kind.as_str() {
            "action_mask" => action_mask(field, fields),
            "disallowed_tokens" => {
                Ok(Processor::Disallowed(list(field, "token_ids", fields.must("token_ids")?)?))
            }
            "temperature_schedule" => temperatures(fields),
            "thinking_budget" => thinking(field, fields),
            kind => {
                let expected =
                    "action_mask, disallowed_tokens, temperature_schedule or thinking_budget";
                Err(Refusal::expected("type", expected, format!("`{kind}`")))
            }
        }
    };
    let processor = read(&mut fields).map_err(|refusal| within(field, refusal))?;
    fields.done().map_err(|refusal| within(field, refusal))?;
    Ok(processor)
}

fn action_mask(field: &str, fields: &mut Fields) -> Result<Processor, Refusal> {
    let allowed = fields.take("allowed_token_ids")?;
    let steps: Option<Vec<Arc<[u32]>>> = fields.take("steps")?;
    let set: Option<String> = fields.take("set")?;
    let then: Option<String> = fields.take("then")?;
    if then.is_some() && steps.is_none() {
        return Err(Refusal::field("then", "only with `steps`"));
    }
    match (allowed, steps, set) {
        (Some(tokens), None, None) => {
            Ok(Processor::Allowed(list(field, "allowed_token_ids", tokens)?))
        }
        (None, Some(lists), None) => {
            if lists.is_empty() {
                return Err(Refusal::expected("steps", "at least one list", "none"));
            }
            if let Some(at) = lists.iter().position(|list| list.is_empty()) {
                let name = format!("steps[{at}]");
                return Err(Refusal::expected(&name, "at least one token", "none"));
            }
            let then = match then.as_deref() {
                None | Some("free") => Then::Free,
                Some("last") => Then::Last,
                Some("end") => Then::End,
                Some(other) => {
                    let expected = "`free`, `last` or `end`";
                    return Err(Refusal::expected("then", expected, format!("`{other}`")));
                }
            };
            Ok(Processor::Steps { field: format!("{field}.steps"), lists, then })
        }
        (None, None, Some(name)) => Ok(Processor::Set { field: format!("{field}.set"), name }),
        _ => {
            let words = "expected one of `allowed_token_ids`, `steps` and `set`, and no other";
            Err(Refusal::field("allowed_token_ids", words))
        }
    }
}

fn temperatures(fields: &mut Fields) -> Result<Processor, Refusal> {
    let mut must = |name: &str| {
        let given = fields.within(name, TEMPERATURES)?;
        given.ok_or_else(|| Refusal::field(name, "is required"))
    };
    let (start, end) = (must("start")?, must("end")?);
    let decay = fields.within("decay", 0.0..=1.0)?;
    let tokens = fields.within("tokens", 1..=u32::MAX)?;
    let course = match (decay, tokens) {
        (Some(decay), None) => Course::Decay(decay),
        (None, Some(tokens)) => Course::Tokens(tokens),
        _ => return Err(Refusal::field("decay", "expected one of `decay` and `tokens`")),
    };
    Ok(Processor::Temperature(Schedule { start, end, course }))
}

fn thinking(field: &str, fields: &mut Fields) -> Result<Processor, Refusal> {
    let tokens = fields.must("tokens")?;
    let mut given = |name: &str| {
        let tokens: Option<Arc<[u32]>> = fields.take(name)?;
        tokens.map(|tokens| list(field, name, tokens)).transpose()
    };
    let (start, end) = (given("start")?, given("end")?);
    Ok(Processor::Thinking { field: field.to_owned(), tokens, start, end })
}

/// Tokens of a field within another, at least one.
fn list(field: &str, name: &str, tokens: Arc<[u32]>) -> Result<List, Refusal> {
    if tokens.is_empty() {
        return Err(Refusal::expected(name, "at least one token", "none"));
    }
    Ok(List { field: format!("{field}.{name}"), tokens })
}

/// What is wrong with a field of a field.
fn within(field: &str, refusal: Refusal) -> Refusal {
    let param = refusal.param.map(|name| format!("{field}.{name}"));
    Refusal { message: format!("{field}.{}", refusal.message), param, ..refusal }
}

#[cfg(test)]
mod tests {
    use super::{List, Processor, read};
    use crate::openai::fields::Fields;
    use engine::processor::{Course, Schedule, Then};
    use serde_json::{Value, json};

    fn asked(body: Value) -> Result<Vec<Processor>, String> {
        let mut fields = Fields::read(body.to_string().as_bytes()).expect("an object");
        let all = read(&mut fields).map_err(|refusal| {
            let param = refusal.param.expect("a field");
            assert!(refusal.message.starts_with(&format!("{param}: ")), "{}", refusal.message);
            param
        })?;
        fields.done().expect("all is taken");
        Ok(all)
    }

    fn list(field: &str, tokens: &[u32]) -> List {
        List { field: field.into(), tokens: tokens.into() }
    }

    #[test]
    fn every_spelling_of_a_processor_is_read() {
        let temperature =
            |course| Processor::Temperature(Schedule { start: 1.2, end: 0.6, course });
        let steps = |then| Processor::Steps {
            field: "processors.steps".into(),
            lists: vec![[1].into(), [2, 3].into()],
            then,
        };
        let (schedule, mask) = ("temperature_schedule", "action_mask");
        for (processors, expected) in [
            (
                json!({"type": mask, "allowed_token_ids": [1, 2]}),
                Processor::Allowed(list("processors.allowed_token_ids", &[1, 2])),
            ),
            (json!({"type": mask, "steps": [[1], [2, 3]]}), steps(Then::Free)),
            (json!({"type": mask, "steps": [[1], [2, 3]], "then": "last"}), steps(Then::Last)),
            (json!({"type": mask, "steps": [[1], [2, 3]], "then": "end"}), steps(Then::End)),
            (
                json!({"type": mask, "set": "moves"}),
                Processor::Set { field: "processors.set".into(), name: "moves".into() },
            ),
            (
                json!({"type": "disallowed_tokens", "token_ids": [7]}),
                Processor::Disallowed(list("processors.token_ids", &[7])),
            ),
            (
                json!({"type": schedule, "start": 1.2, "end": 0.6, "decay": 0.97}),
                temperature(Course::Decay(0.97)),
            ),
            (
                json!({"type": schedule, "start": 1.2, "end": 0.6, "tokens": 9}),
                temperature(Course::Tokens(9)),
            ),
            (
                json!({"type": "thinking_budget", "tokens": 5, "end": [4, 5], "start": null}),
                Processor::Thinking {
                    field: "processors".into(),
                    tokens: 5,
                    start: None,
                    end: Some(list("processors.end", &[4, 5])),
                },
            ),
        ] {
            assert_eq!(asked(json!({"processors": processors})), Ok(vec![expected]));
        }
        let body = json!({
            "processors": [{"type": "thinking_budget", "tokens": 0}],
            "thinking_token_budget": 3,
        });
        let both = [("processors[0]", 0), ("thinking_token_budget", 3)];
        let both = both.map(|(field, tokens)| Processor::thinking(field, tokens));
        assert_eq!(asked(body), Ok(both.to_vec()));
        assert_eq!(asked(json!({})), Ok(Vec::new()));
        assert_eq!(asked(json!({"processors": []})), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_with_a_processor_is_refused_by_its_field() {
        let schedule = |more: Value| {
            let mut all =
                json!({"type": "temperature_schedule", "start": 1, "end": 0.5, "decay": 0.9});
            for (name, value) in more.as_object().expect("fields") {
                all[name] = value.clone();
            }
            all
        };
        let mask = |name: &str, value: Value| json!({"type": "action_mask", name: value});
        for (processor, field) in [
            (json!(3), ""),
            (json!({}), "type"),
            (json!({"type": "python"}), "type"),
            (json!({"type": "action_mask"}), "allowed_token_ids"),
            (mask("allowed_token_ids", json!([])), "allowed_token_ids"),
            (mask("allowed_token_ids", json!([-1])), "allowed_token_ids"),
            (mask("allowed_token_ids", json!([1e99])), "allowed_token_ids"),
            (mask("steps", json!([])), "steps"),
            (mask("steps", json!([[1], []])), "steps[1]"),
            (mask("steps", json!([1])), "steps"),
            (mask("set", json!(["moves"])), "set"),
            (json!({"type": "action_mask", "set": "a", "steps": [[1]]}), "allowed_token_ids"),
            (json!({"type": "action_mask", "steps": [[1]], "then": "stop"}), "then"),
            (json!({"type": "action_mask", "set": "a", "then": "end"}), "then"),
            (json!({"type": "action_mask", "set": "a", "sets": "b"}), "sets"),
            (json!({"type": "disallowed_tokens"}), "token_ids"),
            (json!({"type": "disallowed_tokens", "token_ids": []}), "token_ids"),
            (schedule(json!({"start": null})), "start"),
            (schedule(json!({"start": 101})), "start"),
            (schedule(json!({"end": -0.1})), "end"),
            (schedule(json!({"decay": 1.5})), "decay"),
            (schedule(json!({"decay": null})), "decay"),
            (schedule(json!({"tokens": 4})), "decay"),
            (schedule(json!({"decay": null, "tokens": 0})), "tokens"),
            (json!({"type": "thinking_budget"}), "tokens"),
            (json!({"type": "thinking_budget", "tokens": -1}), "tokens"),
            (json!({"type": "thinking_budget", "tokens": 1, "end": []}), "end"),
            (json!({"type": "thinking_budget", "tokens": 1, "start": []}), "start"),
        ] {
            let named = |outer: &str| match field {
                "" => outer.to_owned(),
                field => format!("{outer}.{field}"),
            };
            let alone = asked(json!({"processors": processor}));
            assert_eq!(alone, Err(named("processors")), "{processor}");
            let second = asked(
                json!({"processors": [{"type": "disallowed_tokens", "token_ids": [1]}, processor]}),
            );
            assert_eq!(second, Err(named("processors[1]")), "{processor}");
        }
        let many = vec![json!({"type": "disallowed_tokens", "token_ids": [1]}); 17];
        assert_eq!(asked(json!({"processors": many})), Err("processors".into()));
        assert_eq!(asked(json!({"processors": "action_mask"})), Err("processors".into()));
        for budget in [json!(-1), json!("8"), json!(1.5)] {
            let refused = asked(json!({"thinking_token_budget": budget}));
            assert_eq!(refused, Err("thinking_token_budget".into()));
        }
    }
}
