//! Events of the engine to pieces of answers: the same pieces whether they are sent as
//! they come or gathered.

use super::sampling::Asked;
use super::shape::CompletionDetails;
use super::{Context, Refusal};
use crate::rollouts::Told;
use crate::runtime::Labels;
use crate::text::calls::read::{Calls, Came};
use crate::text::characters::Characters;
use crate::text::tokenizer::Tokenizer;
use engine::engine::{Made, Policy, Span};
use engine::request::{Event, Finish, Miss, Scored};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What came of one answer in a step.
#[derive(Debug)]
pub struct Piece {
    /// Which answer, prompts first: `prompt * choices + choice`.
    pub index: usize,
    /// Text that no stop string can take back any more.
    pub text: String,
    /// What came of calls.
    pub calls: Vec<Came>,
    /// Its tokens, with where each begins in the text, in characters.
    pub tokens: Vec<(Scored, usize)>,
    /// What made them.
    pub versions: Versions,
    /// Why it has ended, if it has.
    pub end: Option<End>,
}

/// What made tokens that follow each other: names by number, and how many tokens each has.
#[derive(Clone, Debug, Default)]
pub struct Versions(Vec<(Made, usize)>);

impl Versions {
    /// With more tokens that were made so.
    fn push(&mut self, made: &Made, tokens: usize) {
        match self.0.last_mut() {
            Some((last, count)) if last.span == made.span && made.over.is_empty() => {
                *count += tokens;
            }
            _ => self.0.push((made.clone(), tokens)),
        }
    }

    /// The last one.
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|(made, _)| made.span.policy.version())
    }

    /// With those of what came next.
    fn join(&mut self, next: &Self) {
        next.0.iter().for_each(|(made, count)| self.push(made, *count));
    }

    /// Each version with its first token and the one after its last; `before` tokens came
    /// before these.
    pub fn spans(&self, before: usize, labels: &Labels) -> Vec<VersionSpan> {
        let mut start = before;
        let over = |span: &Span| Over {
            from: span.from,
            version: labels.name(span.policy.version()),
            weights: span.policy.adapter.map(|_| labels.name(span.policy.weights)),
        };
        let span = |(made, count): &(Made, usize)| {
            let Over { from, version, weights } = over(&made.span);
            let end = start + count;
            let alone = from == 0 && made.over.is_empty();
            let told = if alone { &[][..] } else { std::slice::from_ref(&made.span) };
            let kv = made.over.iter().chain(told).map(over).collect();
            VersionSpan { version, start: std::mem::replace(&mut start, end), end, weights, kv }
        };
        self.0.iter().map(span).collect()
    }

    /// How many have come since the oldest of them, of the weights and of the adapter.
    pub fn behind(&self, labels: &Labels) -> u64 {
        let behind = |(made, _): &(Made, usize)| {
            let Policy { weights, adapter } = made.span.policy;
            labels.behind(weights) + adapter.map_or(0, |adapter| labels.behind(adapter))
        };
        self.0.iter().map(behind).max().unwrap_or(0)
    }
}

/// Tokens of one version.
#[derive(Clone, Debug, Serialize)]
pub struct VersionSpan {
    /// What it is called.
    pub version: Arc<str>,
    /// Its first token.
    pub start: usize,
    /// The one after its last.
    pub end: usize,
    /// What the weights under it are called, where it is an adapter's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Arc<str>>,
    /// What computed the keys and values that its tokens stand on, where that was not this
    /// version alone. Of positions before the first of them it is what the span before says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kv: Vec<Over>,
}

/// Keys and values of one version, from a position of the sequence on.
#[derive(Clone, Debug, Serialize)]
pub struct Over {
    /// The first.
    pub from: usize,
    /// What it is called.
    pub version: Arc<str>,
    /// What the weights under it are called, where it is an adapter's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Arc<str>>,
}

impl Piece {
    /// Of an answer of which nothing has come.
    pub fn empty(index: usize) -> Self {
        Self {
            index,
            text: String::new(),
            calls: Vec::new(),
            tokens: Vec::new(),
            versions: Versions::default(),
            end: None,
        }
    }

    /// With what came next.
    pub fn join(&mut self, next: Self) {
        self.text.push_str(&next.text);
        self.calls.extend(next.calls);
        self.tokens.extend(next.tokens);
        self.versions.join(&next.versions);
        self.end = self.end.take().or(next.end);
    }
}

/// Why an answer has ended, in OpenAI's words.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// `stop`, `length`, `tool_calls` or `abort`.
    pub reason: &'static str,
    /// What stopped it, besides the model's own end.
    pub stop: Option<StopReason>,
}

/// What stopped an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum StopReason {
    /// A token.
    Token(u32),
    /// A string, or the words of an end from outside.
    String(String),
}

/// What is known of a prompt that is computed.
#[derive(Debug)]
pub struct Computed {
    /// Tokens that pages held already.
    pub cached: u32,
    /// Why not more.
    pub miss: Miss,
    /// Of its tokens, if they were asked for.
    pub logprobs: Vec<Option<Scored>>,
}

/// The answers of a request in the making.
pub struct Answers {
    choices: Vec<Choice>,
    /// For each prompt.
    pub computed: Vec<Option<Computed>>,
    per_prompt: usize,
    open: usize,
    /// Tokens of all answers.
    pub new: usize,
    /// What was guessed of those that have ended.
    pub guessed: CompletionDetails,
    /// What made the tokens of each answer.
    pub versions: Vec<Versions>,
    /// What became of them besides, where that was asked.
    pub rollout: Told,
}

impl Answers {
    /// So many prompts are asked.
    pub fn new(asked: &Asked, prompts: usize) -> Self {
        let per_prompt = asked.choices as usize;
        let choice = || Choice::new(asked);
        Self {
            choices: std::iter::repeat_with(choice).take(prompts * per_prompt).collect(),
            computed: std::iter::repeat_with(|| None).take(prompts).collect(),
            per_prompt,
            open: prompts * per_prompt,
            new: 0,
            guessed: CompletionDetails::default(),
            versions: vec![Versions::default(); prompts * per_prompt],
            rollout: Told {
                each: vec![None; prompts * per_prompt],
                groups: vec![None; prompts],
                collects: asked.rollout.as_ref().is_some_and(|it| it.collect.is_some()),
            },
        }
    }

    /// What made an answer, with the last piece of it, if it is to be told.
    pub fn told(
        &self,
        piece: &Piece,
        asked: &Asked,
        context: &Context,
    ) -> Option<Vec<VersionSpan>> {
        let labels = &context.served.labels;
        let due = asked.show_versions && piece.end.is_some();
        due.then(|| self.versions[piece.index].spans(0, labels))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.choices.len()
    }

    /// Whether all have ended.
    pub fn ended(&self) -> bool {
        self.open == 0
    }

    /// What happened to a prompt's answers in a step.
    pub fn take(
        &mut self,
        prompt: usize,
        events: Vec<Event>,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<Piece>, Refusal> {
        let mut news: BTreeMap<usize, News> = BTreeMap::new();
        for event in events {
            match event {
                Event::Admitted { .. } => {}
                Event::Prompt { cached, miss, logprobs, .. } => {
                    self.computed[prompt] = Some(Computed { cached, miss, logprobs });
                }
                Event::Token { choice, token, made, held, .. } => {
                    let news = news.entry(choice as usize).or_default();
                    news.tokens.push(token);
                    news.versions.push(&made, 1);
                    news.held = held;
                }
                Event::End { why: Finish::Failed(words), .. } => {
                    return Err(Refusal::internal(words));
                }
                Event::End { choice, why, guessed, held, .. } => {
                    self.guessed.accepted_prediction_tokens += held;
                    self.guessed.rejected_prediction_tokens += guessed - held;
                    news.entry(choice as usize).or_default().why = Some(why);
                }
                Event::Embedding { .. } => {
                    return Err(Refusal::internal("an embedding came where text was asked for"));
                }
            }
        }
        let pieces = news.into_iter().map(|(choice, news)| {
            self.open -= usize::from(news.why.is_some());
            self.new += news.tokens.len();
            let index = prompt * self.per_prompt + choice;
            self.versions[index].join(&news.versions);
            self.choices[index].piece(index, news, tokenizer)
        });
        Ok(pieces.collect())
    }
}

/// What happened to one answer in a step.
#[derive(Default)]
struct News {
    tokens: Vec<Scored>,
    versions: Versions,
    /// Bytes at the end that may begin a stop string.
    held: usize,
    why: Option<Finish>,
}

/// One answer's bytes, and how many of them are told.
struct Choice {
    stop_strings: Arc<[String]>,
    stop_expressions: Arc<[String]>,
    keep_stop: bool,
    skip_special: bool,
    calls: Option<Calls>,
    bytes: Vec<u8>,
    /// Special tokens within `bytes`, which the engine does not count: where each stands
    /// by the engine's count, and its bytes.
    special: Vec<(usize, usize)>,
    /// The engine's count of bytes.
    counted: usize,
    told: usize,
    characters: Characters,
    /// Where the next token begins: characters of all bytes so far.
    offset: usize,
    offsets: Characters,
}

impl Choice {
    fn new(asked: &Asked) -> Self {
        Self {
            stop_strings: asked.stop_strings.clone(),
            stop_expressions: asked.stop_expressions.clone(),
            keep_stop: asked.keep_stop,
            skip_special: asked.skip_special,
            calls: asked.calls.clone().map(|(form, names)| Calls::new(form, names)),
            bytes: Vec::new(),
            special: Vec::new(),
            counted: 0,
            told: 0,
            characters: Characters::default(),
            offset: 0,
            offsets: Characters::default(),
        }
    }

    fn piece(&mut self, index: usize, news: News, tokenizer: &Tokenizer) -> Piece {
        let News { tokens, versions, held, why } = news;
        let ending = matches!(why, Some(Finish::Eos | Finish::Token(_))) && !self.keep_stop;
        let last = tokens.len().wrapping_sub(1);
        let placed = tokens.into_iter().enumerate().map(|(at, token)| {
            let offset = self.offset;
            if !(ending && at == last) {
                self.push(token.token, tokenizer);
            }
            (token, offset)
        });
        let tokens = placed.collect();
        let mut end = why.map(|why| self.end(why));
        let sure = match end {
            Some(_) => self.bytes.len(),
            None => self.bytes.len().saturating_sub(self.doubtful(held)),
        };
        let mut text = String::new();
        if sure > self.told {
            text = self.characters.push(&self.bytes[self.told..sure]);
            self.told = sure;
        }
        if end.is_some() {
            text.push_str(&self.characters.finish());
        }
        let calls = self.calls_in(&mut text, end.as_mut());
        Piece { index, text, calls, tokens, versions, end }
    }

    /// Takes calls out of text; an answer that has some and stops does so for them.
    fn calls_in(&mut self, text: &mut String, end: Option<&mut End>) -> Vec<Came> {
        let Some(calls) = &mut self.calls else { return Vec::new() };
        let mut came = calls.push(text);
        if let Some(end) = end {
            came.extend(calls.finish());
            if calls.whole() && end.reason == "stop" {
                end.reason = "tool_calls";
            }
        }
        text.clear();
        let said = came.extract_if(.., |came| match came {
            Came::Text(said) => {
                text.push_str(said);
                true
            }
            _ => false,
        });
        said.for_each(drop);
        came
    }

    fn push(&mut self, token: u32, tokenizer: &Tokenizer) {
        let bytes = tokenizer.bytes(token);
        if !tokenizer.is_special(token) {
            self.counted += bytes.len();
        } else if self.skip_special {
            return;
        } else {
            self.special.push((self.counted, bytes.len()));
        }
        self.bytes.extend_from_slice(bytes);
        self.offset += self.offsets.push(bytes).chars().count();
    }

    /// Bytes at the end that a stop string may yet take, by the engine's count of them.
    fn doubtful(&self, held: usize) -> usize {
        if self.keep_stop {
            return 0;
        }
        let special = self.special.iter().filter(|(at, _)| *at + held > self.counted);
        held + special.map(|(_, bytes)| bytes).sum::<usize>()
    }

    /// Cuts the bytes where the answer ends, and says why in OpenAI's words.
    fn end(&mut self, why: Finish) -> End {
        match why {
            Finish::Length => End { reason: "length", stop: None },
            Finish::Eos | Finish::Complete => End { reason: "stop", stop: None },
            Finish::Token(token) => End { reason: "stop", stop: Some(StopReason::Token(token)) },
            Finish::String { which, before } => {
                let stop = self.stop_strings.get(which).cloned().unwrap_or_default();
                let end = before + if self.keep_stop { stop.len() } else { 0 };
                let special = self.special.iter().filter(|(at, _)| *at <= before);
                let end = end + special.map(|(_, bytes)| bytes).sum::<usize>();
                self.bytes.truncate(end);
                End { reason: "stop", stop: Some(StopReason::String(stop)) }
            }
            Finish::Expression(which) => {
                let stop = self.stop_expressions.get(which).cloned().unwrap_or_default();
                End { reason: "stop", stop: Some(StopReason::String(stop)) }
            }
            Finish::Cancelled | Finish::Aborted => End { reason: "abort", stop: None },
            Finish::Deadline => {
                End { reason: "abort", stop: Some(StopReason::String("timeout".into())) }
            }
            // What failed is refused before it comes here.
            Finish::Stuck(words) | Finish::Failed(words) => {
                End { reason: "abort", stop: Some(StopReason::String(words)) }
            }
        }
    }
}
