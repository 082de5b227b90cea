//! `sampling_params` in the words of SGLang, read as the other surfaces read theirs.

use crate::openai::Refusal;
use crate::openai::fields::Fields;
use crate::openai::prompts::Prompt;
use crate::openai::sampling::Asked;
use crate::rollouts::Rollout;
use crate::served::Served;
use engine::request::Class;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Below it the most likely token is taken.
const GREEDY_BELOW: f64 = 1e-6;
/// A schema that any JSON object follows.
const ANY_OBJECT: &str = "$$ANY$$";

/// Parameters that have the same name here and there.
const SAME: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "n",
    "stop",
    "stop_regex",
    "stop_token_ids",
    "ignore_eos",
    "skip_special_tokens",
    "logit_bias",
    "custom_params",
    "processors",
];
/// Those that have another one: here, there.
const RENAMED: &[(&str, &str)] = &[
    ("min_new_tokens", "min_tokens"),
    ("no_stop_trim", "include_stop_str_in_output"),
    ("sampling_seed", "seed"),
];
/// What an answer keeps to: here, there.
const STRUCTURES: &[(&str, &str)] =
    &[("json_schema", "json"), ("regex", "regex"), ("structural_tag", "structural_tag")];
/// Fields of the request itself that are told there: here, there.
const OUTSIDE: &[(&str, &str)] = &[
    ("logprob_start_len", "prompt_logprob_start"),
    ("top_logprobs_num", "prompt_logprobs"),
    ("top_logprobs_num", "logprobs"),
    ("extra_key", "cache_salt"),
    (PROCESSOR, PROCESSOR),
    (THINKING, THINKING),
];
/// Fields beside the parameters that have the same name here and there.
const PROCESSOR: &str = "custom_logit_processor";
const THINKING: &str = "max_thinking_tokens";

/// What else a request says of an answer.
#[derive(PartialEq)]
pub struct Beside {
    /// Where the parameters stand.
    pub place: String,
    /// The most likely tokens to list with each, if log-probabilities are asked.
    pub top: Option<u32>,
    /// The tokens to list with each, whether likely or not.
    pub chosen: Arc<[u32]>,
    /// The first token of the prompt that is scored, if some are.
    pub prompt_from: Option<usize>,
    /// Keeps its pages apart.
    pub salt: String,
    /// Who asks.
    pub class: Class,
    /// Smaller comes first.
    pub priority: i32,
    /// A class that changes logits, by a pickle that names it.
    pub processor: Option<String>,
    /// Tokens of thinking at most.
    pub thinking: Option<u32>,
}

/// What is asked of an answer.
pub struct Params {
    /// As the other surfaces ask it.
    pub asked: Asked,
    /// Tokens at most; `None` is as many as fit.
    max_new: Option<u32>,
    /// Whether the client said so.
    max_new_given: bool,
    /// Tokens between two pieces of a stream.
    pub interval: usize,
    /// What is told of a token is what it was drawn from: tempered, and with penalties.
    /// Where only some tokens could be drawn, it is what the model says itself.
    pub tempered: bool,
}

impl Params {
    /// How many tokens an answer to a prompt has at most.
    pub fn room(&self, prompt: &Prompt, place: &str, served: &Served) -> Result<u32, Refusal> {
        let left = served.context.saturating_sub(prompt.tokens.len() as u32).max(1);
        // Where nobody asked for so many, fewer do.
        let max_new = self.max_new.map(|new| if self.max_new_given { new } else { new.min(left) });
        let room = self.asked.room(("max_new_tokens", max_new), prompt, served);
        room.map_err(|refusal| match refusal.param.as_deref() {
            Some("max_new_tokens" | "min_tokens") => renamed(refusal, place),
            _ => refusal,
        })
    }
}

/// Tokens of an answer where nothing is asked.
const MAX_NEW: u32 = 128;

/// Reads parameters.
pub fn read(
    mut given: Map<String, Value>,
    beside: &Beside,
    rollout: Option<Arc<Rollout>>,
    served: &Served,
) -> Result<Params, Refusal> {
    let max_new_given = given.contains_key("max_new_tokens");
    given.retain(|_, value| !value.is_null());
    let own = Own::read(Fields::of(given), max_new_given, beside);
    let own = own.map_err(|refusal| within(refusal, &beside.place))?;
    let Own { max_new, interval, mut ours } = own;
    let tempered = is_unfiltered(&ours);
    // So that what is said of drawing is kept.
    let collects = rollout.as_ref().is_some_and(|rollout| rollout.collect.is_some());
    ours.insert("collect_trajectory".into(), collects.into());
    let asked = Asked::read(&mut Fields::of(ours), served, beside.top);
    let compiled = asked.and_then(|mut asked| asked.compile(served).map(|()| asked));
    let mut asked = compiled.map_err(|refusal| renamed(refusal, &beside.place))?;
    asked.chosen = beside.chosen.clone();
    asked.rollout = rollout;
    Ok(Params { asked, max_new, max_new_given, interval, tempered })
}

/// What this surface alone has, and the rest under the names of the others.
struct Own {
    max_new: Option<u32>,
    interval: usize,
    ours: Map<String, Value>,
}

impl Own {
    fn read(mut fields: Fields, max_new_given: bool, beside: &Beside) -> Result<Self, Refusal> {
        refuse_what_is_not_done(&mut fields)?;
        let max_new = match fields.take("max_new_tokens")? {
            None if !max_new_given => Some(MAX_NEW),
            max_new => max_new,
        };
        let interval = fields.within("stream_interval", 1..=1 << 20)?.unwrap_or(1);
        // A tokenizer of today writes none, whatever is asked.
        fields.take::<bool>("spaces_between_special_tokens")?;
        let ours = translated(&mut fields, beside)?;
        fields.done()?;
        Ok(Self { max_new, interval, ours })
    }
}

/// A refusal of the other surfaces' words in the words of this one.
pub fn renamed(mut refusal: Refusal, place: &str) -> Refusal {
    let Some(param) = refusal.param.clone() else { return refusal };
    let of = |names: &[(&'static str, &'static str)], there: &str| {
        names.iter().find(|(_, other)| *other == there).map(|(here, _)| *here)
    };
    let structure = param.strip_prefix("structured_outputs.");
    let own = of(RENAMED, &param).or_else(|| structure.and_then(|there| of(STRUCTURES, there)));
    let outside = of(OUTSIDE, &param);
    let Some(name) = outside.or(own) else { return within(refusal, place) };
    let why = refusal.message.strip_prefix(&param).unwrap_or(&refusal.message);
    refusal.message = format!("{name}{why}");
    refusal.param = Some(name.to_owned());
    if outside.is_some() { refusal } else { within(refusal, place) }
}

/// A refusal that names where its field stands.
fn within(mut refusal: Refusal, place: &str) -> Refusal {
    if let Some(param) = &refusal.param {
        refusal.message = format!("{place}.{}", refusal.message);
        refusal.param = Some(format!("{place}.{param}"));
    }
    refusal
}

fn refuse_what_is_not_done(fields: &mut Fields) -> Result<(), Refusal> {
    if fields.has("ebnf") {
        let words = "this server does not read EBNF: `regex`, `json_schema` and \
                     `structural_tag` it does, and Lark by `structured_outputs` of /v1/completions";
        return Err(Refusal::field("ebnf", words));
    }
    fields.only("beam_width", &[1.into()])
}

/// The parameters under the names of the other surfaces.
fn translated(fields: &mut Fields, beside: &Beside) -> Result<Map<String, Value>, Refusal> {
    let mut ours = Map::new();
    let renamed = RENAMED.iter().copied();
    for (here, there) in SAME.iter().map(|name| (*name, *name)).chain(renamed) {
        if let Some(value) = fields.take::<Value>(here)? {
            ours.insert(there.into(), value);
        }
    }
    // An empty list, or text, asks for nothing.
    ours.retain(|name, value| match name.as_str() {
        "stop_token_ids" => *value != json!([]),
        "stop_regex" => *value != json!(""),
        _ => true,
    });
    if ours
        .get("temperature")
        .and_then(Value::as_f64)
        .is_some_and(|t| (0.0..GREEDY_BELOW).contains(&t))
    {
        ours.insert("temperature".into(), 0.into());
    }
    if let Some(structure) = structure(fields)? {
        ours.insert("structured_outputs".into(), Value::Object(structure));
    }
    if let Some(from) = beside.prompt_from {
        ours.insert("prompt_logprob_start".into(), from.into());
    }
    // There an empty salt is none.
    if !beside.salt.is_empty() {
        ours.insert("cache_salt".into(), beside.salt.clone().into());
    }
    ours.insert("class".into(), beside.class.name().into());
    ours.insert("priority".into(), beside.priority.into());
    // Without a class that reads them they say nothing.
    if beside.processor.is_none() {
        ours.remove("custom_params");
    }
    let beside = [
        (PROCESSOR, beside.processor.clone().map(Value::from)),
        (THINKING, beside.thinking.map(Value::from)),
    ];
    ours.extend(beside.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    Ok(ours)
}

fn structure(fields: &mut Fields) -> Result<Option<Map<String, Value>>, Refusal> {
    let mut structure = Map::new();
    for (here, there) in STRUCTURES {
        let Some(value) = fields.take::<Value>(here)? else { continue };
        if !structure.is_empty() {
            let words = "only one of json_schema, regex, ebnf and structural_tag";
            return Err(Refusal::field(*here, words));
        }
        if value == ANY_OBJECT {
            structure.insert("json_object".into(), true.into());
        } else {
            structure.insert((*there).into(), value);
        }
    }
    Ok(Some(structure).filter(|structure| !structure.is_empty()))
}

/// Whether tokens are drawn, and from all there are.
fn is_unfiltered(ours: &Map<String, Value>) -> bool {
    let number = |name: &str, absent: f64| ours.get(name).map_or(Some(absent), Value::as_f64);
    let free = ["processors", PROCESSOR, THINKING].iter().all(|name| !ours.contains_key(*name));
    free && number("temperature", 1.0).is_some_and(|x| x > 0.0)
        && number("top_p", 1.0) == Some(1.0)
        && number("top_k", -1.0).is_some_and(|x| x <= 0.0)
        && number("min_p", 0.0) == Some(0.0)
}
