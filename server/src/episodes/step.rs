//! A step of an episode: an observation, and the answer to it.

use super::held::{Held, Opened, Turn};
use crate::openai::answer::{Answers, Piece, StopReason, VersionSpan};
use crate::openai::fields::Fields;
use crate::openai::prompts::{self, Cut, Reading};
use crate::openai::sampling::{Asked, TOP_MAX, known};
use crate::openai::shape::said;
use crate::openai::{Context, Refusal, Surface, written};
use crate::rollouts::{Collected, Rollout};
use engine::request::{Class, Request, Scored};
use serde::Serialize;
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Tokens of an answer where nothing is asked.
const MAX_NEW: u32 = 128;

/// What is asked.
pub struct Step {
    context: Arc<Context>,
    asked: Asked,
    held: Arc<Held>,
    turn: Turn,
    observation: Arc<[u32]>,
    room: u32,
    /// What came so far, for who asks again.
    so_far: Mutex<Piece>,
}

/// What a step came to, or a part of it.
#[derive(Serialize)]
pub struct Reply<'a> {
    /// The episode.
    pub episode_id: &'a str,
    /// Tokens that it had before the step.
    pub position_before: usize,
    /// Tokens that it has now.
    pub position: usize,
    /// Those of the observation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observation_token_ids: Option<&'a [u32]>,
    /// The answer's.
    pub token_ids: Vec<u32>,
    /// As text.
    pub text: String,
    /// Of each token, if they were asked for.
    pub logprobs: Option<Vec<Logprob>>,
    /// Why it has ended, if it has.
    pub finish_reason: Option<&'static str>,
    /// What stopped it.
    pub stop_reason: Option<StopReason>,
    /// What made it, with its last piece.
    pub weight_versions: Option<Vec<VersionSpan>>,
    /// Tokens that the step had to compute before its answer.
    pub computed_tokens: Option<usize>,
    /// Those of them that were computed before, and had to go.
    pub rebuilt_tokens: Option<usize>,
    /// What became of it besides, with its last piece.
    #[serde(flatten)]
    pub collected: Option<Collected>,
}

/// A token and its log-probabilities.
#[derive(Serialize)]
pub struct Logprob {
    /// Which.
    pub token_id: u32,
    /// Before penalties, temperature and filters.
    pub logprob: f32,
    /// After them.
    pub processed_logprob: f32,
    /// The most likely ones.
    pub top_logprobs: Vec<Top>,
}

/// One of the most likely.
#[derive(Serialize)]
pub struct Top {
    /// Which.
    pub token_id: u32,
    /// Its log-probability.
    pub logprob: f32,
}

impl Step {
    /// From a body.
    pub fn read(body: &[u8], context: Arc<Context>) -> Result<Self, Refusal> {
        let mut hash = DefaultHasher::new();
        body.hash(&mut hash);
        Self::of(Fields::read(body)?, hash.finish(), context)
    }

    /// From fields, and a hash that tells what is asked.
    pub fn of(mut fields: Fields, hash: u64, context: Arc<Context>) -> Result<Self, Refusal> {
        let served = &context.served;
        let name: String = fields.must("episode_id")?;
        let held = served.episodes.find(&name)?;
        let expected: Option<usize> = fields.take("expected_position")?;
        let reading = Reading { served, special: false, cut: Cut::No };
        let text: Option<String> = fields.take("observation")?;
        let tokens: Option<Arc<[u32]>> = fields.take("observation_token_ids")?;
        let observation = match (text, tokens) {
            (Some(_), Some(_)) => {
                let words = "not together with `observation_token_ids`";
                return Err(Refusal::field("observation", words));
            }
            (Some(text), None) => prompts::encode("observation", &text, reading)?,
            (None, tokens) => tokens.unwrap_or_default(),
        };
        known("observation_token_ids", &observation, served)?;
        if let Some(params) = fields.take::<Value>("sampling_params")? {
            let Value::Object(params) = params else {
                return Err(Refusal::field("sampling_params", "expected an object"));
            };
            for (name, value) in params {
                if fields.has(&name) {
                    let words = "is there twice: once within `sampling_params`";
                    return Err(Refusal::field(name, words));
                }
                fields.put(name, value);
            }
        }
        let top = fields.within("logprobs", 0..=TOP_MAX)?;
        let max_new: Option<u32> = fields.take("max_tokens")?;
        fields.only("n", &[1.into()])?;
        fields.only("prompt_logprobs", &[])?;
        let seeded = fields.has("seed");
        if !seeded {
            fields.put("seed".into(), held.seed.into());
        }
        let mut asked = Asked::read(&mut fields, served, top)?;
        let mut rollout = Rollout::read(&mut fields, &context)?;
        fields.done()?;
        if asked.references {
            let words = "is of requests that have all their tokens: not of steps";
            return Err(Refusal::field("return_ref_logprobs", words));
        }
        if let Some(collect) = rollout.as_mut().and_then(|rollout| rollout.collect.as_mut()) {
            collect.common.session.get_or_insert_with(|| held.name.clone());
        }
        asked.rollout = rollout.map(Arc::new);
        asked.adapter = held.adapter.clone();
        asked.classify(&context, Class::Rollout);
        if asked.kept.is_some() {
            return Err(Refusal::field("return_sampling_mask", "not of steps of episodes"));
        }
        let turn = held.begin(expected, hash)?;
        let so_far = Mutex::new(Piece::empty(0));
        let mut step = Self { asked, held, turn, observation, room: 0, so_far, context };
        let Turn::New(opened) = &step.turn else { return Ok(step) };
        let opened = opened.clone();
        match step.fit(opened.position, max_new) {
            Ok(()) => Ok(step),
            Err(refusal) => {
                // Nothing has begun: the next step need not wait.
                opened.settle_at(None);
                Err(refusal)
            }
        }
    }

    /// Finds out how many tokens the answer may have, and compiles what it keeps to.
    fn fit(&mut self, position: usize, max_new: Option<u32>) -> Result<(), Refusal> {
        let (observation, served) = (&self.observation, &self.context.served);
        if position + observation.len() == 0 {
            let words = "the first step of an episode has at least one token";
            return Err(Refusal::field("observation", words));
        }
        let context_len = served.context as usize;
        let all = position + observation.len();
        if all > context_len {
            let words =
                format!("the episode has {all} tokens with it; the model takes {context_len}");
            return Err(Refusal::too_long("observation", words));
        }
        let left = (context_len - all) as u32;
        let room = max_new.unwrap_or(MAX_NEW.min(left));
        if room > left {
            let words = format!("expected at most {left} after {all} tokens, got {room}");
            return Err(Refusal::too_long("max_tokens", words));
        }
        self.room = room;
        self.asked.compile(served)
    }

    fn opened(&self) -> Option<&Arc<Opened>> {
        match &self.turn {
            Turn::New(opened) => Some(opened),
            Turn::Again(_) => None,
        }
    }

    /// What a piece tells; of the last one, all that is known.
    pub fn reply(&self, piece: &Piece, answers: &Answers) -> Reply<'_> {
        let before = self.opened().map_or(0, |opened| opened.position);
        let ended = piece.end.is_some();
        let entry = |(scored, _): &(Scored, usize)| Logprob {
            token_id: scored.token,
            logprob: said(scored.raw),
            processed_logprob: said(scored.processed),
            top_logprobs: scored
                .top
                .iter()
                .take(self.asked.top.unwrap_or(0) as usize)
                .map(|&(token_id, raw)| Top { token_id, logprob: said(raw) })
                .collect(),
        };
        let all = before + self.observation.len();
        let computed = answers.computed[0].as_ref().map(|computed| all - computed.cached as usize);
        // Of what was there before, the last token was drawn and not computed.
        let new = self.observation.len() + usize::from(before > 0);
        Reply {
            episode_id: &self.held.name,
            position_before: before,
            position: all + answers.new,
            observation_token_ids: self.asked.show_tokens.then_some(&*self.observation),
            token_ids: piece.tokens.iter().map(|(scored, _)| scored.token).collect(),
            text: piece.text.clone(),
            logprobs: self.asked.top.map(|_| piece.tokens.iter().map(entry).collect()),
            finish_reason: piece.end.as_ref().map(|end| end.reason),
            stop_reason: piece.end.as_ref().and_then(|end| end.stop.clone()),
            weight_versions: ended
                .then(|| answers.versions[0].spans(0, &self.context.served.labels)),
            computed_tokens: computed,
            rebuilt_tokens: computed.map(|computed| computed.saturating_sub(new)),
            collected: answers.rollout.of(piece),
        }
    }

    /// A piece has come: with the last one the episode rests.
    pub fn came(&self, piece: &Piece, answers: &Answers) {
        let mut so_far = self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        so_far.join(Piece {
            index: 0,
            text: piece.text.clone(),
            calls: Vec::new(),
            tokens: piece.tokens.clone(),
            versions: piece.versions.clone(),
            end: piece.end.clone(),
        });
        if let (Some(opened), true) = (self.opened(), so_far.end.is_some()) {
            let reply = self.reply(&so_far, answers);
            self.held.metrics.episodes.rebuilt(reply.rebuilt_tokens.unwrap_or(0) as u64);
            opened.settle(reply.position, &written(&reply));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let Some(opened) = self.opened().filter(|opened| !opened.is_settled()) else { return };
        // Whoever asked has gone, or was refused: what the engine has is how it stands.
        let opened = opened.clone();
        let threads = opened.held.threads.clone();
        threads.spawn(async move {
            let number = opened.held.number;
            loop {
                let how = opened.held.runtime.with(move |engine| engine.episode(number)).await;
                match how {
                    // Its cancelling is still on its way.
                    Ok(Some(standing)) if standing.request.is_some() => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    Ok(standing) => return opened.settle_at(standing.as_ref()),
                    // An engine that has stopped goes on with nothing.
                    Err(_) => return opened.settle_at(None),
                }
            }
        });
    }
}

impl Surface for Step {
    fn asked(&self) -> &Asked {
        &self.asked
    }

    fn tells_tokens(&self) -> bool {
        true
    }

    fn ready(&self) -> Option<Vec<u8>> {
        match &self.turn {
            Turn::New(_) => None,
            Turn::Again(reply) => Some(reply.to_vec()),
        }
    }

    fn requests(&self) -> Vec<Request> {
        let request = self.asked.request(&self.observation, self.room, None);
        vec![Request { episode: Some(self.held.number), ..request }]
    }

    fn whole(&self, mut pieces: Vec<Piece>, answers: &Answers) -> Vec<u8> {
        let piece = pieces.pop().unwrap_or_else(|| Piece::empty(0));
        self.came(&piece, answers);
        written(&self.reply(&piece, answers))
    }

    fn beginning(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn chunk(&self, piece: Piece, _: bool, answers: &Answers) -> Vec<u8> {
        self.came(&piece, answers);
        written(&self.reply(&piece, answers))
    }

    fn last(&self, answers: &Answers) -> Vec<u8> {
        written(&serde_json::json!({
            "episode_id": self.held.name,
            "usage": crate::openai::shape::usage(&[self.observation.len()], answers),
        }))
    }
}
