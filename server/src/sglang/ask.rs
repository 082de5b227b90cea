//! The body of `/generate`: one prompt or several, each with what is asked of it.

use super::input::{Each, Input, names};
use super::params::{self, Beside, Params};
use super::session::{Place, Turn};
use super::{Kept, atropos};
use crate::adapters::Known;
use crate::openai::fields::Fields;
use crate::openai::prompts::Prompt;
use crate::openai::sampling::{check_salt, class, known};
use crate::openai::{Context, Refusal, Surface};
use crate::rollouts::Rollout;
use crate::served::Served;
use engine::request::{Class, Generate};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Most likely tokens listed with one, at most.
const TOP_MAX: u32 = 128;
/// Answers to all prompts of a request, at most.
const ANSWERS_MAX: usize = 1 << 16;
/// Bytes of parameters of all prompts together, where each is read with something of its own.
const PARAMS_BYTES_MAX: usize = 64 << 20;
/// Bytes of log-probabilities of prompts in a reply, at most; and about what one takes.
const REPEATED_BYTES_MAX: usize = 256 << 20;
const LOGPROB_BYTES: usize = 64;

/// Switches for what this server cannot tell.
const NEVER: &[&str] = &[
    "return_hidden_states",
    "return_routed_experts",
    "return_indexer_topk",
    "return_entropy",
    "return_sampling_mask",
    "return_flat_raw_top_logprobs",
    "return_flat_raw_output_top_logprobs",
    "return_flat_raw_top_logprobs_b64",
    "require_reasoning",
];
/// Fields that concern logs, and ways between servers, and change no answer.
const REMARKS: &[&str] = &[
    "log_metrics",
    "no_logs",
    "custom_labels",
    "routing_key",
    "session_id",
    "sampling_logprobs_mode",
];

/// What a body asks.
pub enum Body {
    /// In the words of SGLang.
    Native(Box<Native>),
    /// In those of a server of Atropos' that has the same path.
    Prompt(Arc<dyn Surface>),
}

/// A request in the words of SGLang.
pub struct Native {
    /// One for each prompt.
    pub asks: Vec<Ask>,
    /// Whether the reply is a list.
    pub listed: bool,
    /// Pieces are sent as they come.
    pub stream: bool,
    /// Tokens have their text beside their log-probabilities.
    pub token_texts: bool,
    /// The reply tells the prompt's tokens.
    pub show_prompt: bool,
}

/// One prompt.
pub struct Ask {
    /// The client's name of it.
    pub name: Arc<str>,
    /// Its tokens.
    pub prompt: Prompt,
    /// What is asked of its answers.
    pub params: Arc<Params>,
    /// Tokens of each at most.
    pub room: u32,
    /// Log-probabilities, if they are asked for.
    pub scores: Option<Scores>,
    /// Its place in a session.
    pub turn: Option<Turn>,
    /// The adapter that is asked for.
    pub adapter: Option<Known>,
}

/// Log-probabilities that are asked for.
#[derive(Clone)]
pub struct Scores {
    /// The first token of the prompt that is listed, if some are.
    pub from: Option<usize>,
    /// The most likely tokens that are listed with each.
    pub top: u32,
    /// The tokens that are listed with each, whether likely or not.
    pub chosen: Arc<[u32]>,
}

impl Ask {
    /// The request of the engine.
    pub fn request(&self) -> engine::request::Request {
        let last = self.prompt.tokens.len() - 1;
        let scored =
            self.scores.as_ref().filter(|scores| scores.from.is_some_and(|from| from < last));
        let top = scored.map(|scores| scores.top);
        let request = self.params.asked.request(&self.prompt.tokens, self.room, top);
        let adapter = self.adapter.as_ref().map(|known| known.number);
        engine::request::Request { adapter, ..request }
    }
}

/// Reads a body.
pub fn read(body: &[u8], context: Arc<Context>, kept: &Kept) -> Result<Body, Refusal> {
    let mut fields = Fields::read(body)?;
    if fields.has("prompt") {
        return atropos::read(fields, context).map(Body::Prompt);
    }
    let served = &context.served;
    let rollout = Rollout::read(&mut fields, &context)?.map(Arc::new);
    refuse_what_is_not_done(&mut fields)?;
    let place: Option<Map<String, Value>> = fields.take("session_params")?;
    let place = place.map(Place::read).transpose()?;
    let input = Input::read(&mut fields)?;
    let names = names(&mut fields, &input, &context.request_id)?;
    let each = Said { rollout, ..Said::read(&mut fields, &input, &context)? };
    let (stream, show_prompt) =
        (fields.switch("stream")?, fields.switch("return_prompt_token_ids")?);
    let token_texts = fields.switch("return_text_in_logprobs")?;
    fields.done()?;
    let (many, mut before, mut turn) = (input.many, Vec::new(), None);
    if let Some(place) = &place {
        if many {
            return Err(Refusal::field("session_params", "not with several prompts"));
        }
        let (tokens, begun) = kept.sessions.begin(place, names[0].clone())?;
        (before, turn) = (tokens, Some(begun));
    }
    let prompts = input.prompts(&before, served)?;
    // A line of text is scored as it grows, or not at all.
    let scores_prompts = !turn.as_ref().is_some_and(Turn::is_streaming);
    let mut asks = each.asks(prompts, names, scores_prompts, served)?;
    let choices = asks[0].params.asked.choices;
    check_answers(&asks)?;
    if let Some(turn) = turn {
        if choices > 1 {
            return Err(Refusal::expected("sampling_params.n", "1 in a session", choices));
        }
        turn.reserve(asks[0].prompt.tokens.len() + asks[0].room as usize)?;
        asks[0].turn = Some(turn);
    }
    let listed = many || choices > 1;
    Ok(Body::Native(Box::new(Native { asks, listed, stream, token_texts, show_prompt })))
}

/// What is said of each prompt.
struct Said {
    params: Each<Map<String, Value>>,
    /// Whether log-probabilities are asked for, from where, and how many.
    scored: Each<bool>,
    starts: Each<i64>,
    tops: Each<u32>,
    chosen: Each<Arc<[u32]>>,
    salts: Each<String>,
    keys: Each<String>,
    adapters: Each<String>,
    processors: Each<String>,
    thinking: Each<u32>,
    class: Class,
    priority: i32,
    /// What is made of answers besides, if anything is.
    rollout: Option<Arc<Rollout>>,
}

impl Said {
    fn read(fields: &mut Fields, input: &Input, context: &Context) -> Result<Self, Refusal> {
        let priority: i64 = fields.take("priority")?.unwrap_or(0);
        // There, larger comes first.
        let priority = -priority.clamp(-i64::from(i32::MAX), i64::from(i32::MAX));
        Ok(Self {
            params: Each::read(fields, "sampling_params", input)?,
            scored: Each::read(fields, "return_logprob", input)?,
            starts: Each::read(fields, "logprob_start_len", input)?,
            tops: Each::read(fields, "top_logprobs_num", input)?,
            chosen: Each::lists(fields, "token_ids_logprob", input)?,
            salts: Each::read(fields, "cache_salt", input)?,
            keys: Each::read(fields, "extra_key", input)?,
            adapters: Each::read(fields, "lora_path", input)?,
            processors: Each::read(fields, "custom_logit_processor", input)?,
            thinking: Each::read(fields, "max_thinking_tokens", input)?,
            class: class(fields)?.or(context.class).unwrap_or(Class::Rollout),
            priority: priority as i32,
            rollout: None,
        })
    }

    /// All of it together. Prompts of which the same is said share that.
    fn asks(
        &self,
        prompts: Vec<Prompt>,
        names: Vec<Arc<str>>,
        scores_prompts: bool,
        served: &Served,
    ) -> Result<Vec<Ask>, Refusal> {
        let mut asks: Vec<Ask> = Vec::with_capacity(prompts.len());
        // Where each has its own, the body bounds them.
        let shared = self.params.of(0).filter(|_| !self.params.is_own()).map_or(0, told_bytes);
        let (mut last, mut read_bytes): (Option<Beside>, usize) = (None, 0);
        for (at, (prompt, name)) in prompts.into_iter().zip(names).enumerate() {
            let scores = self.scores(at, scores_prompts, &prompt, served)?;
            // With a key they are one, which is refused by the key's name.
            if let Some(salt) = self.salts.of(at).filter(|salt| !salt.is_empty()) {
                check_salt("cache_salt", salt)?;
            }
            let beside = self.beside(at, scores.as_ref(), &prompt);
            let params = match asks.last().filter(|_| last.as_ref() == Some(&beside)) {
                Some(ask) if !self.params.is_own() => ask.params.clone(),
                _ => {
                    read_bytes += shared;
                    if read_bytes > PARAMS_BYTES_MAX {
                        let words = "are too long to be read with so many salts and starts";
                        return Err(Refusal::field("sampling_params", words));
                    }
                    let given = self.params.of(at).cloned().unwrap_or_default();
                    Arc::new(params::read(given, &beside, self.rollout.clone(), served)?)
                }
            };
            let room = params.room(&prompt, &beside.place, served)?;
            last = Some(beside);
            let adapter = self.adapters.of(at).map(|name| adapter(name, served)).transpose()?;
            asks.push(Ask { name, prompt, params, room, scores, turn: None, adapter });
        }
        Ok(asks)
    }

    fn scores(
        &self,
        at: usize,
        scores_prompts: bool,
        prompt: &Prompt,
        served: &Served,
    ) -> Result<Option<Scores>, Refusal> {
        if !self.scored.of(at).is_some_and(|scored| *scored) {
            return Ok(None);
        }
        let start = self.starts.of(at).filter(|_| scores_prompts).copied();
        let top = self.tops.of(at).copied().unwrap_or(0);
        let from = from(start.unwrap_or(-1), top, prompt)?;
        let chosen = self.chosen.of(at).cloned().unwrap_or_default();
        let name = "token_ids_logprob";
        if chosen.len() > Generate::CHOSEN_MAX {
            let expected = format!("at most {} tokens", Generate::CHOSEN_MAX);
            return Err(Refusal::expected(name, &expected, chosen.len()));
        }
        known(name, &chosen, served)?;
        Ok(Some(Scores { from, top, chosen }))
    }

    fn beside(&self, at: usize, scores: Option<&Scores>, prompt: &Prompt) -> Beside {
        let place = match self.params.is_own() {
            true => format!("sampling_params[{at}]"),
            false => "sampling_params".to_owned(),
        };
        // The first that is listed has none.
        let from = scores.and_then(|scores| scores.from).map(|from| from + 1);
        Beside {
            place,
            top: scores.map(|scores| scores.top),
            chosen: scores.map(|scores| scores.chosen.clone()).unwrap_or_default(),
            prompt_from: from.filter(|from| *from < prompt.tokens.len()),
            salt: salt(self.salts.of(at), self.keys.of(at)),
            class: self.class,
            priority: self.priority,
            processor: self.processors.of(at).cloned(),
            thinking: self.thinking.of(at).copied(),
        }
    }
}

/// About how many bytes parameters take.
fn told_bytes(params: &Map<String, Value>) -> usize {
    serde_json::to_string(params).map_or(0, |told| told.len())
}

/// One clear place for each thing that is refused, by its name.
fn refuse_what_is_not_done(fields: &mut Fields) -> Result<(), Refusal> {
    if fields.has("input_embeds") {
        return Err(Refusal::unsupported("input_embeds"));
    }
    for name in NEVER {
        fields.only(name, &[Value::Bool(false)])?;
    }
    fields.only("routed_experts_start_len", &[0.into()])?;
    fields.only("routed_dp_rank", &[0.into()])?;
    for name in REMARKS {
        fields.take::<Value>(name)?;
    }
    Ok(())
}

/// The adapter of a name.
fn adapter(name: &str, served: &Served) -> Result<Known, Refusal> {
    served.adapters.find(name).ok_or_else(|| {
        let words = format!("no adapter is called `{name}`: /load_lora_adapter loads one");
        Refusal::field("lora_path", words)
    })
}

/// The first token of a prompt that is listed, if some are.
fn from(start: i64, top: u32, prompt: &Prompt) -> Result<Option<usize>, Refusal> {
    if top > TOP_MAX {
        let expected = format!("at most {TOP_MAX}");
        return Err(Refusal::expected("top_logprobs_num", &expected, top));
    }
    let len = prompt.tokens.len() as i64;
    if !(-1..=len).contains(&start) {
        let expected = format!("-1 to {len}, the tokens of the prompt");
        return Err(Refusal::expected("logprob_start_len", &expected, start));
    }
    Ok(usize::try_from(start).ok())
}

/// Two keys as one, by which pages are kept apart; a salt alone is what it is on the other
/// surfaces.
fn salt(salt: Option<&String>, key: Option<&String>) -> String {
    let salt = salt.map_or("", String::as_str);
    match key.map(String::as_str) {
        None | Some("") => salt.to_owned(),
        Some(key) => format!("{}\u{0}{salt}{key}", salt.len()),
    }
}

/// There are not too many answers, and what they repeat of their prompts is bounded.
fn check_answers(asks: &[Ask]) -> Result<(), Refusal> {
    let choices = asks[0].params.asked.choices;
    if asks.iter().any(|ask| ask.params.asked.choices != choices) {
        return Err(Refusal::field("sampling_params", "`n` must be the same for all prompts"));
    }
    let answers = asks.len() * choices as usize;
    if answers > ANSWERS_MAX {
        let expected = format!("at most {ANSWERS_MAX} answers to all prompts together");
        return Err(Refusal::expected("sampling_params.n", &expected, answers));
    }
    let listed = |ask: &Ask| {
        let Some(Scores { from: Some(from), top, chosen }) = &ask.scores else { return 0 };
        let each = 1 + *top as usize + chosen.len();
        ask.prompt.tokens.len().saturating_sub(*from) * each
    };
    let listed: usize = asks.iter().map(listed).sum();
    let bytes = listed.saturating_mul(choices as usize).saturating_mul(LOGPROB_BYTES);
    if bytes > REPEATED_BYTES_MAX {
        let expected = format!("at most {REPEATED_BYTES_MAX} bytes of prompts' log-probabilities");
        return Err(Refusal::expected("logprob_start_len", &expected, bytes));
    }
    Ok(())
}
