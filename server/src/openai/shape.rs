//! Parts that the answers of both surfaces of generation are made of. They are written
//! straight from floats: a detour over `serde_json::Value` would widen them.

use super::answer::Answers;
use super::sampling::Asked;
use crate::text::tokenizer::Tokenizer;
use engine::request::Scored;
use serde::ser::{Serialize, SerializeMap, Serializer};
use std::collections::BTreeMap;

/// What JSON has instead of minus infinity, by the custom of this API.
const LEAST: f32 = -9999.0;

/// A log-probability that JSON can say.
pub fn said(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { LEAST }
}

/// How tokens are named in an answer.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// Whose tokens they are.
    pub tokenizer: &'a Tokenizer,
    /// By their numbers.
    pub numbered: bool,
}

impl Names<'_> {
    /// A token's name.
    pub fn of(&self, token: u32) -> String {
        if self.numbered { format!("token_id:{token}") } else { self.tokenizer.name(token) }
    }
}

/// Names and log-probabilities as one object.
pub struct Table(pub Vec<(String, f32)>);

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        for (at, (name, logprob)) in self.0.iter().enumerate() {
            // Two tokens may read alike; the likelier one comes first.
            if !self.0[..at].iter().any(|(before, _)| before == name) {
                map.serialize_entry(name, logprob)?;
            }
        }
        map.end()
    }
}

/// One token of a prompt, as `prompt_logprobs` lists it.
#[derive(serde::Serialize)]
struct PromptToken {
    logprob: f32,
    /// Its place among those that are listed, the likeliest first; the token that stands there
    /// comes last where it is not of the likeliest, and has no place alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    rank: Option<usize>,
    decoded_token: String,
}

/// A prompt's log-probabilities as `prompt_logprobs` shows them: by token, the one that
/// stands there and the likeliest.
pub struct PromptScores<'a> {
    /// Of each token.
    pub scores: &'a [Option<Scored>],
    /// Most likely tokens to list.
    pub top: u32,
    /// How tokens are named.
    pub names: Names<'a>,
}

impl Serialize for PromptScores<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let of = |scored| ScoresAt { scored, top: self.top, names: self.names };
        to.collect_seq(self.scores.iter().map(|scored| scored.as_ref().map(of)))
    }
}

/// Those at one token.
struct ScoresAt<'a> {
    scored: &'a Scored,
    top: u32,
    names: Names<'a>,
}

impl Serialize for ScoresAt<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let entry = |token: u32, logprob: f32, rank| PromptToken {
            logprob: said(logprob),
            rank,
            decoded_token: self.names.of(token),
        };
        let Scored { token: own, raw, top, .. } = self.scored;
        let listed = top.iter().take(self.top as usize);
        let mut map = to.serialize_map(None)?;
        for (at, (token, raw)) in listed.clone().enumerate() {
            map.serialize_entry(token, &entry(*token, *raw, Some(at + 1)))?;
        }
        if !listed.clone().any(|(token, _)| token == own) {
            let after = (self.top > 0).then_some(listed.len() + 1);
            map.serialize_entry(own, &entry(*own, *raw, after))?;
        }
        map.end()
    }
}

/// What a request cost.
#[derive(serde::Serialize)]
pub struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

/// How answers came.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct CompletionDetails {
    /// Tokens that were guessed and came, each without a step of its own.
    pub accepted_prediction_tokens: u32,
    /// Tokens that were guessed and did not.
    pub rejected_prediction_tokens: u32,
}

/// Where a prompt's keys and values came from.
#[derive(serde::Serialize)]
struct PromptDetails {
    /// Tokens that pages held already.
    cached_tokens: u32,
    /// Tokens that none held, by the reason.
    miss_tokens: BTreeMap<&'static str, usize>,
}

/// Of prompts of these lengths, and their answers.
pub fn usage(prompts: &[usize], answers: &Answers) -> Usage {
    let prompt_tokens = prompts.iter().sum();
    let (mut cached_tokens, mut miss_tokens) = (0, BTreeMap::new());
    for (tokens, computed) in prompts.iter().zip(&answers.computed) {
        let Some(computed) = computed else { continue };
        cached_tokens += computed.cached;
        let missed = tokens.saturating_sub(computed.cached as usize);
        if missed > 0 {
            *miss_tokens.entry(computed.miss.name()).or_default() += missed;
        }
    }
    Usage {
        prompt_tokens,
        completion_tokens: answers.new,
        total_tokens: prompt_tokens + answers.new,
        prompt_tokens_details: PromptDetails { cached_tokens, miss_tokens },
        completion_tokens_details: answers.guessed,
    }
}

/// What heads every answer, whole or in pieces.
#[derive(serde::Serialize)]
pub struct Head {
    id: String,
    /// Seconds since 1970.
    created: u64,
    /// The name that was asked for.
    model: String,
    /// The numerics that its bits follow.
    system_fingerprint: String,
}

impl Head {
    /// The name of a call, as no other of this response.
    pub fn call(&self, answer: usize, index: usize) -> String {
        let id = self.id.split_once('-').map_or(&*self.id, |(_, id)| id);
        format!("call_{id}-{answer}-{index}")
    }

    /// With the client's own name of the request, if it has one.
    pub fn new(prefix: &str, asked: &Asked, context: &super::Context) -> Self {
        let id = asked.request_id.as_deref().unwrap_or(&context.request_id);
        Self {
            id: format!("{prefix}-{id}"),
            created: context.now,
            model: asked.model(&context.served),
            system_fingerprint: format!("pagewise-{}", context.served.numerics),
        }
    }
}
