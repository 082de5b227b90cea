//! What the surfaces of generation ask alike: how to draw, when to stop, what to show.

use super::fields::Fields;
use super::kept::{self, KEPT_MAX};
use super::masking;
use super::processors;
use super::prompts::Prompt;
use super::structured::Structure;
use super::tools::Tools;
use super::{Context, Refusal};
use crate::adapters::Known;
use crate::rollouts::Rollout;
use crate::served::Served;
use crate::text::calls::Form;
use engine::processor::{self, Keep, Then};
use engine::request::{Class, Generate, Request, Sampling, Stop, Task};
use grammar::{Grammar, Limits, Search};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Answers to one prompt, at most.
const CHOICES_MAX: u32 = 128;
/// Most likely tokens listed beside one, at most.
pub const TOP_MAX: u32 = 20;
/// Words that do not come out, at most, and the bytes of one.
const BAD_WORDS_MAX: usize = Generate::BANNED_MAX;
const BAD_WORD_BYTES_MAX: usize = 4096;
/// What answers repeat of their prompts, at most; and about what a token takes there, and
/// one of its log-probabilities.
const REPEATED_BYTES_MAX: usize = 256 << 20;
const TOKEN_BYTES: usize = 8;
const LOGPROB_BYTES: usize = 64;
/// Characters of a client's own name of a request.
const REQUEST_ID_MAX: usize = 128;
/// Bytes of a salt.
const SALT_BYTES_MAX: usize = 1024;

/// What is asked of every answer.
pub struct Asked {
    /// Answers to each prompt.
    pub choices: u32,
    /// How tokens are drawn.
    sampling: Sampling,
    /// The key of the noise, if the client chose it.
    seed: Option<u64>,
    /// When an answer ends.
    stop: Stop,
    /// What it keeps to, and that compiled.
    structure: Option<Structure>,
    /// How calls of tools are read from it, if there may be such.
    pub calls: Option<(Form, Arc<[String]>)>,
    grammar: Option<Grammar>,
    /// [`Stop::strings`] as text; all answers share it.
    pub stop_strings: Arc<[String]>,
    /// [`Stop::expressions`] as they came.
    pub stop_expressions: Arc<[String]>,
    /// The text keeps what ended it.
    pub keep_stop: bool,
    /// Special tokens have no text.
    pub skip_special: bool,
    /// Most likely tokens to list with each of an answer.
    pub top: Option<u32>,
    /// Tokens whose log-probabilities are listed with each.
    pub chosen: Arc<[u32]>,
    /// How the tokens that each of an answer was drawn from are told.
    pub kept: Option<Keep>,
    /// Most likely tokens to list with each of the prompt, as `prompt_logprobs` asks.
    pub prompt_top: Option<u32>,
    /// The first token of the prompt that is scored.
    prompt_from: u32,
    /// Pieces are sent as they come.
    pub stream: Option<Streaming>,
    /// Tokens are shown beside the text.
    pub show_tokens: bool,
    /// Versions are shown beside the text.
    pub show_versions: bool,
    /// Where a token is named, its number stands.
    pub numbered_tokens: bool,
    /// Keeps its pages apart.
    salt: Arc<[u8]>,
    /// Who asks, if that is said.
    class: Option<Class>,
    /// Smaller comes first.
    priority: i32,
    /// The client's own name of the request.
    pub request_id: Option<String>,
    /// The adapter that is asked for.
    pub adapter: Option<Known>,
    /// The base's log-probabilities of each answer are told, too.
    pub references: bool,
    /// What is said of drawing besides temperature and filters, where trajectories keep it.
    masking: Map<String, Value>,
    /// What is made of answers besides, if anything is.
    pub rollout: Option<Arc<Rollout>>,
}

/// How pieces are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streaming {
    /// A last piece says what was used.
    pub usage: bool,
}

impl Asked {
    /// From a request's fields. `logprobs` differs between the surfaces: its count is given.
    pub fn read(fields: &mut Fields, served: &Served, top: Option<u32>) -> Result<Self, Refusal> {
        let masking = masking::given(fields);
        let (strings, expressions) = (strings(fields, "stop")?, strings(fields, "stop_regex")?);
        let asked = Self {
            choices: fields.within("n", 1..=CHOICES_MAX)?.unwrap_or(1),
            seed: seed(fields)?,
            sampling: sampling(fields, served)?,
            stop: Stop {
                tokens: tokens(fields, "stop_token_ids", served)?.unwrap_or_default(),
                strings: strings.iter().map(|text| text.clone().into_bytes()).collect(),
                expressions: None,
                ignore_eos: fields.switch("ignore_eos")?,
                min_new: fields.take("min_tokens")?.unwrap_or(0),
            },
            structure: Structure::read(fields)?,
            calls: None,
            grammar: None,
            stop_strings: strings.into(),
            stop_expressions: expressions.into(),
            keep_stop: fields.switch("include_stop_str_in_output")?,
            skip_special: fields.take("skip_special_tokens")?.unwrap_or(true),
            top,
            chosen: [].into(),
            kept: kept::read(fields)?,
            prompt_top: fields.within("prompt_logprobs", 0..=TOP_MAX)?,
            prompt_from: fields.take("prompt_logprob_start")?.unwrap_or(0),
            stream: streaming(fields)?,
            show_tokens: fields.switch("return_token_ids")?,
            show_versions: fields.switch("return_weight_versions")?,
            numbered_tokens: fields.switch("return_tokens_as_token_ids")?,
            salt: salt(fields)?,
            class: class(fields)?,
            priority: fields.take("priority")?.unwrap_or(0),
            request_id: request_id(fields)?,
            adapter: None,
            references: references(fields)?,
            masking,
            rollout: None,
        };
        fields.only("detokenize", &[Value::Bool(true)])?;
        fields.only("spaces_between_special_tokens", &[Value::Bool(true)])?;
        fields.only("stream_interval", &[1.into()])?;
        // Nothing is kept for later, whoever asks for it.
        fields.only("store", &[Value::Bool(false), Value::Bool(true)])?;
        fields.only("best_of", &[asked.choices.into()])?;
        fields.only("service_tier", &["auto".into(), "default".into()])?;
        Ok(asked)
    }

    /// With what is made of answers besides, and the groups that those to so many prompts may
    /// be.
    pub fn group(
        &mut self,
        fields: &mut Fields,
        mut rollout: Option<Rollout>,
        prompts: usize,
    ) -> Result<(), Refusal> {
        if let Some(begun) = Rollout::read_group(&mut rollout, fields, prompts)? {
            if self.stream.is_some() {
                return Err(Refusal::field("group", "not together with `stream`"));
            }
            if self.choices != 1 && self.choices != begun {
                let expected = format!("{begun}, as the `group` says, or nothing");
                return Err(Refusal::expected("n", &expected, self.choices));
            }
            self.choices = begun;
        }
        self.rollout = rollout.map(Arc::new);
        Ok(())
    }

    /// Who asks, as far as the request does not say it itself: as its headers do, or a trainer
    /// where answers are collected, or whoever mostly asks so.
    pub fn classify(&mut self, context: &Context, mostly: Class) {
        let collects = self.rollout.as_ref().is_some_and(|rollout| rollout.collect.is_some());
        let mostly = if collects { Class::Rollout } else { mostly };
        self.class = self.class.or(context.class).or(Some(mostly));
    }

    /// Offers tools.
    pub fn offer(&mut self, tools: &Tools) -> Result<(), Refusal> {
        self.calls = tools.calls();
        if self.calls.is_some() && self.structure.is_some() {
            let words = "not together with `response_format` or `structured_outputs`";
            return Err(Refusal::field("tools", words));
        }
        self.structure = self.structure.take().or_else(|| tools.structure());
        Ok(())
    }

    /// Compiles what answers keep to, and what ends them, once all else is known to be good.
    pub fn compile(&mut self, served: &Served) -> Result<(), Refusal> {
        if !self.stop_expressions.is_empty() {
            let search = Search::new(&self.stop_expressions, &Limits::default());
            let refused =
                |refusal: grammar::Refusal| Refusal::field("stop_regex", refusal.to_string());
            self.stop.expressions = Some(search.map_err(refused)?);
        }
        let grammar = self.structure.as_ref().map(|structure| structure.compile(served));
        self.grammar = grammar.transpose()?;
        Ok(())
    }

    /// Whether some tokens may not be drawn, other than by the temperature.
    fn narrows(&self) -> bool {
        let Sampling { top_k, top_p, min_p, allowed, bad_words, processors, .. } = &self.sampling;
        let filters = *top_k > 0 || *top_p < 1.0 || *min_p > 0.0;
        let masks = allowed.is_some() || !bad_words.is_empty() || !processors.is_empty();
        filters || masks || self.grammar.is_some() || self.stop.min_new > 0
    }

    /// What is said of drawing besides temperature and filters, as it can be said again.
    pub fn masking(&self) -> Map<String, Value> {
        let mut said = self.masking.clone();
        let structure = self.structure.as_ref().map(Structure::told);
        said.extend(structure.map(|told| ("structured_outputs".to_owned(), told)));
        said
    }

    /// The name of the model that answers.
    pub fn model(&self, served: &Served) -> String {
        self.adapter.as_ref().map_or_else(|| served.name.clone(), |known| known.name.clone())
    }

    /// A request of the engine; its number is given by whoever submits it.
    pub fn request(&self, prompt: &[u32], max_new: u32, prompt_top: Option<u32>) -> Request {
        let sampling =
            Sampling { seed: self.seed.unwrap_or_else(any_seed), ..self.sampling.clone() };
        let collects = self.rollout.as_ref().is_some_and(|rollout| rollout.collect.is_some());
        Request {
            id: 0,
            prompt: prompt.to_vec(),
            task: Task::Generate(Generate {
                choices: self.choices,
                max_new,
                sampling,
                stop: self.stop.clone(),
                // Who collects wants them, whoever shows them.
                top: self.top.or(collects.then_some(0)),
                chosen: self.chosen.clone(),
                kept: self.kept.or((collects && self.narrows()).then_some(Keep::Hash)),
                prompt_top,
                prompt_from: self.prompt_from,
                grammar: self.grammar.clone(),
            }),
            class: self.class.unwrap_or_default(),
            priority: self.priority,
            salt: self.salt.clone(),
            adapter: self.adapter.as_ref().map(|known| known.number),
            episode: None,
            deadline: None,
        }
    }

    /// How many tokens an answer to so long a prompt has at most, by what was asked and
    /// what the model can.
    pub fn room(
        &self,
        (field, asked): (&str, Option<u32>),
        prompt: &Prompt,
        served: &Served,
    ) -> Result<u32, Refusal> {
        let (prompt, name) = (prompt.tokens.len(), &prompt.name);
        let context = served.context as usize;
        let left = context.saturating_sub(prompt) as u32;
        if prompt > context || (left == 0 && asked != Some(0)) {
            let words = format!("has {prompt} tokens; the model takes {context} with its answer");
            return Err(Refusal::too_long(name, words));
        }
        if let Some(new) = asked.filter(|new| *new > left) {
            let most = format!("at most {left} after a prompt of {prompt} tokens");
            let words = format!("expected {most} in a context of {context}, got {new}");
            return Err(Refusal::too_long(field, words));
        }
        let new = asked.unwrap_or(left);
        if self.stop.min_new > new {
            let words = format!("at most {new}, the tokens of an answer");
            return Err(Refusal::expected("min_tokens", &words, self.stop.min_new));
        }
        Ok(new)
    }

    /// What answers tell of the tokens that were kept is bounded: `room` are the tokens of an
    /// answer to each prompt.
    pub fn check_kept(&self, room: &[u32], served: &Served) -> Result<(), Refusal> {
        if self.kept != Some(Keep::Tokens) {
            return Ok(());
        }
        let most = u64::from(self.kept_most(served));
        let tokens: u64 = room.iter().map(|room| u64::from(*room)).sum();
        let all = u64::from(self.choices).saturating_mul(tokens).saturating_mul(most);
        if all <= KEPT_MAX {
            return Ok(());
        }
        let expected = format!(
            "at most {KEPT_MAX} tokens in all sampling masks, got {all}: `n` x tokens of an \
             answer x {most}, the most that `top_k` and masks leave of {}; `sampling_mask`: \
             \"hash\" has no such bound",
            served.vocabulary
        );
        Err(Refusal::field("return_sampling_mask", format!("expected {expected}")))
    }

    /// Tokens that one is drawn from, at most.
    fn kept_most(&self, served: &Served) -> u32 {
        let sampling = &self.sampling;
        let mut most = served.vocabulary;
        let mut greedy = sampling.temperature == 0.0;
        let allowed = sampling.allowed.as_ref().map(|list| list.len() as u32);
        let top_k = (sampling.top_k > 0).then_some(sampling.top_k);
        most = most.min(allowed.unwrap_or(most)).min(top_k.unwrap_or(most));
        for processor in sampling.processors.iter() {
            most = most.min(match processor {
                processor::Processor::Allowed(set) => set.len(),
                processor::Processor::Disallowed(set) => served.vocabulary - set.len(),
                processor::Processor::Steps(steps) if steps.then != Then::Free => {
                    steps.lists.iter().map(|list| list.len() as u32).max().unwrap_or(most)
                }
                processor::Processor::Temperature(_) => {
                    greedy = false;
                    continue;
                }
                processor::Processor::Steps(_) | processor::Processor::Thinking(_) => continue,
            });
        }
        if greedy { 1 } else { most }
    }

    /// What answers repeat of their prompts is bounded: on the wire each has its own.
    pub fn check_repeated(&self, prompts: &[Prompt], echo: bool) -> Result<(), Refusal> {
        let listed = |top: Option<u32>| top.map_or(0, |top| (1 + top as usize) * LOGPROB_BYTES);
        let scores = listed(self.prompt_top) + listed(self.top.filter(|_| echo));
        let shown = usize::from(echo) + usize::from(self.show_tokens);
        let tokens: usize = prompts.iter().map(|prompt| prompt.tokens.len()).sum();
        let answers = self.choices as usize;
        let bytes = tokens.saturating_mul(answers).saturating_mul(scores + shown * TOKEN_BYTES);
        if bytes <= REPEATED_BYTES_MAX {
            return Ok(());
        }
        let name = match (answers, scores) {
            (1, 0) => "prompt",
            (1, _) if self.prompt_top.is_some() => "prompt_logprobs",
            (1, _) => "logprobs",
            _ => "n",
        };
        let expected = format!(
            "at most {REPEATED_BYTES_MAX} bytes of prompts in all answers: `n` x their tokens x \
             ({TOKEN_BYTES} for `echo`, {TOKEN_BYTES} for `return_token_ids`, {LOGPROB_BYTES} for \
             each log-probability of `prompt_logprobs`, and of `logprobs` with `echo`)"
        );
        Err(Refusal::expected(name, &expected, bytes))
    }
}

/// What keeps prefixes apart; nothing, where nothing is said.
pub fn salt(fields: &mut Fields) -> Result<Arc<[u8]>, Refusal> {
    let Some(salt) = fields.take::<String>("cache_salt")? else { return Ok([].into()) };
    check_salt("cache_salt", &salt)?;
    Ok(salt.into_bytes().into())
}

/// Refuses a salt that is none, or too long to go with every page.
pub fn check_salt(field: &str, salt: &str) -> Result<(), Refusal> {
    if (1..=SALT_BYTES_MAX).contains(&salt.len()) {
        return Ok(());
    }
    let expected = format!("1 to {SALT_BYTES_MAX} bytes");
    Err(Refusal::expected(field, &expected, format!("{} bytes", salt.len())))
}

/// The client's own name of the request, which logs and answers hold.
fn request_id(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    let id: Option<String> = fields.take("request_id")?;
    match id {
        Some(id) if !is_request_id(&id) => {
            let expected = format!("1 to {REQUEST_ID_MAX} printable characters of ASCII");
            Err(Refusal::expected("request_id", &expected, format!("{} bytes", id.len())))
        }
        id => Ok(id),
    }
}

/// Whether a text may name a request, wherever it comes from: quotation marks and
/// backslashes would have to be escaped where it is told.
pub fn is_request_id(text: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    (1..=REQUEST_ID_MAX).contains(&text.len()) && text.bytes().all(plain)
}

fn sampling(fields: &mut Fields, served: &Served) -> Result<Sampling, Refusal> {
    let top_k: i64 = fields.within("top_k", -1..=i64::from(u32::MAX))?.unwrap_or(0);
    let bad_words = bad_words(fields)?;
    let processors = processors::read(fields)?;
    let processors = processors.iter().map(|processor| processor.of(served));
    Ok(Sampling {
        temperature: fields.within("temperature", 0.0..=100.0)?.unwrap_or(1.0),
        top_k: top_k.max(0) as u32,
        top_p: fields.within("top_p", 0.0..=1.0)?.unwrap_or(1.0),
        min_p: fields.within("min_p", 0.0..=1.0)?.unwrap_or(0.0),
        seed: 0,
        presence: fields.within("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        frequency: fields.within("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        repetition: fields.within("repetition_penalty", 0.01..=100.0)?.unwrap_or(1.0),
        bias: bias(fields, served)?,
        allowed: tokens(fields, "allowed_token_ids", served)?,
        bad_words: sequences(&bad_words, served)?,
        processors: processors.collect::<Result<_, _>>()?,
    })
}

/// A number of 64 bits; negative ones are read as their two's complement.
fn seed(fields: &mut Fields) -> Result<Option<u64>, Refusal> {
    let bounds = i128::from(i64::MIN)..=i128::from(u64::MAX);
    Ok(fields.within::<i128>("seed", bounds)?.map(|seed| seed as u64))
}

/// For who did not choose: it need not be secret, only another one each time.
fn any_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// Whether the base's log-probabilities are asked for: there is no other reference.
/// Who asks, if a field says so.
pub fn class(fields: &mut Fields) -> Result<Option<Class>, Refusal> {
    let name: Option<String> = fields.take("class")?;
    name.map(|name| class_named("class", &name)).transpose()
}

/// A class by its name.
pub fn class_named(field: &str, name: &str) -> Result<Class, Refusal> {
    let class = Class::ALL.into_iter().find(|class| class.name() == name);
    class.ok_or_else(|| Refusal::expected(field, "`inference` or `rollout`", name))
}

fn references(fields: &mut Fields) -> Result<bool, Refusal> {
    match fields.take::<String>("return_ref_logprobs")?.as_deref() {
        None => Ok(false),
        Some("base") => Ok(true),
        Some(other) => Err(Refusal::expected("return_ref_logprobs", "base", other)),
    }
}

fn streaming(fields: &mut Fields) -> Result<Option<Streaming>, Refusal> {
    let stream = fields.switch("stream")?;
    let options: Option<serde_json::Map<String, Value>> = fields.take("stream_options")?;
    let Some(options) = options else { return Ok(stream.then_some(Streaming { usage: false })) };
    if !stream {
        return Err(Refusal::field("stream_options", "only where `stream` is true"));
    }
    let mut usage = false;
    for (name, value) in options {
        match (name.as_str(), value) {
            ("include_usage", Value::Bool(include)) => usage = include,
            // Padding against those who watch the wire: clients ask for it by default.
            ("include_obfuscation", Value::Bool(_)) => {}
            (_, Value::Null | Value::Bool(false)) => {}
            (name, _) => return Err(Refusal::unsupported(&format!("stream_options.{name}"))),
        }
    }
    Ok(Some(Streaming { usage }))
}

/// One string or several.
fn strings(fields: &mut Fields, name: &str) -> Result<Vec<String>, Refusal> {
    match fields.take::<Value>(name)? {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(value) => serde_json::from_value(value)
            .map_err(|_| Refusal::field(name, "expected a string or a list of strings")),
    }
}

/// Words, bounded before they are tokenized.
fn bad_words(fields: &mut Fields) -> Result<Vec<String>, Refusal> {
    let name = "bad_words";
    let all = strings(fields, name)?;
    if all.len() > BAD_WORDS_MAX {
        return Err(Refusal::expected(
            name,
            &format!("at most {BAD_WORDS_MAX} strings"),
            all.len(),
        ));
    }
    let wrong = all.iter().find(|text| !(1..=BAD_WORD_BYTES_MAX).contains(&text.len()));
    match wrong {
        Some(text) => {
            let expected = format!("strings of 1 to {BAD_WORD_BYTES_MAX} bytes");
            Err(Refusal::expected(name, &expected, format!("one of {}", text.len())))
        }
        None => Ok(all),
    }
}

/// Tokens of the model, at least one.
fn tokens(fields: &mut Fields, name: &str, served: &Served) -> Result<Option<Arc<[u32]>>, Refusal> {
    let Some(tokens) = fields.take::<Arc<[u32]>>(name)? else { return Ok(None) };
    if tokens.is_empty() {
        return Err(Refusal::expected(name, "at least one token", "none"));
    }
    known(name, &tokens, served)?;
    Ok(Some(tokens))
}

/// Tokens that the model does not have are refused.
pub fn known(name: &str, tokens: &[u32], served: &Served) -> Result<(), Refusal> {
    match tokens.iter().find(|token| **token >= served.vocabulary) {
        Some(token) => {
            let expected = format!("tokens below {}", served.vocabulary);
            Err(Refusal::expected(name, &expected, token))
        }
        None => Ok(()),
    }
}

fn bias(fields: &mut Fields, served: &Served) -> Result<Arc<[(u32, f32)]>, Refusal> {
    let name = "logit_bias";
    let map: BTreeMap<String, f32> = fields.take(name)?.unwrap_or_default();
    let mut bias = Vec::with_capacity(map.len());
    for (token, by) in map {
        let token = token.parse().map_err(|_| Refusal::expected(name, "tokens as keys", &token))?;
        known(name, &[token], served)?;
        if !(-100.0..=100.0).contains(&by) {
            return Err(Refusal::expected(name, "values from -100 to 100", by));
        }
        bias.push((token, by));
    }
    Ok(bias.into())
}

/// The tokens of words, at the beginning of a text and within one.
fn sequences(words: &[String], served: &Served) -> Result<Arc<[Vec<u32>]>, Refusal> {
    let mut sequences: Vec<Vec<u32>> = Vec::new();
    for word in words {
        for text in [word.clone(), format!(" {}", word.trim_start())] {
            let tokens = served.text.tokenizer.encode(&text, false)?.to_vec();
            if !tokens.is_empty() && !sequences.contains(&tokens) {
                sequences.push(tokens);
            }
        }
    }
    Ok(sequences.into())
}
