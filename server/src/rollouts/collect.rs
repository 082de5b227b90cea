//! Answers on their way to the store: gathered while they come, scored and appended where
//! they end, before the last of them is told.

use super::ask::Rollout;
use super::groups::{self, Groups};
use super::shelf::{Shelf, reason, refused};
use super::told::Collected;
use crate::metrics::Metrics;
use crate::openai::Refusal;
use crate::openai::answer::{Answers, Piece};
use crate::openai::sampling::Asked;
use crate::served::Served;
use engine::engine::Standing;
use engine::processor::Kept;
use engine::request::{Request, Task};
use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use trajectories::{Logprobs, Masks, Metadata, Over, Sampling, Span, Trajectory};

/// Bytes that a record has besides its tokens, at least: its frame and the names of its
/// fields.
const RECORD_BYTES_LEAST: u64 = 256;

/// The answers of one request.
pub struct Collector {
    rollout: Arc<Rollout>,
    served: Arc<Served>,
    metrics: Arc<Metrics>,
    model: String,
    prompts: Vec<Prompt>,
    masking: Metadata,
    drafts: Vec<Draft>,
    per_prompt: usize,
    /// The groups that they are, if they are.
    groups: Option<Groups>,
}

/// What all answers to a prompt have in common.
struct Prompt {
    tokens: Vec<u32>,
    sampling: Sampling,
}

/// What has come of an answer.
#[derive(Default)]
struct Draft {
    text: String,
    tokens: Vec<u32>,
    raw: Vec<f32>,
    processed: Vec<f32>,
    /// Hashes of what each token was drawn from, where that was narrowed.
    masks: Vec<u64>,
}

/// An answer that has ended.
struct Ended {
    rollout: Arc<Rollout>,
    shelf: Option<Arc<Shelf>>,
    metrics: Arc<Metrics>,
    text: String,
    trajectory: Trajectory,
    staleness: u64,
}

impl Collector {
    /// For the answers of a request that asks for anything of the kind. Where it is plain
    /// that the store has no room for them, they are refused before they begin.
    pub fn new(
        asked: &Asked,
        requests: &[Request],
        served: &Arc<Served>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>, Refusal> {
        let Some(rollout) = asked.rollout.clone() else { return Ok(None) };
        let per_prompt = asked.choices as usize;
        let count = requests.len() * per_prompt;
        if let (Some(shelf), Some(_)) = (&served.shelf, &rollout.collect) {
            // A token takes a byte at least.
            let tokens: usize = requests.iter().map(|request| request.prompt.len()).sum();
            let each = requests.len() as u64 * RECORD_BYTES_LEAST + tokens as u64;
            shelf.check_room(each * per_prompt as u64).inspect_err(|_| {
                metrics.trajectories.refused("full");
            })?;
        }
        let groups = rollout.group.as_ref().map(|rule| Groups::new(rule, requests.len()));
        Ok(Some(Self {
            rollout,
            served: served.clone(),
            metrics: metrics.clone(),
            model: asked.model(served),
            prompts: requests.iter().map(Prompt::of).collect(),
            masking: asked.masking(),
            drafts: std::iter::repeat_with(Draft::default).take(count).collect(),
            per_prompt,
            groups,
        }))
    }

    /// Of another model than the served one, as an adapter is.
    pub fn of_model(self, name: &str) -> Self {
        Self { model: name.to_owned(), ..self }
    }

    /// With what an episode had before the step.
    pub fn go_on(&mut self, before: Standing) {
        let prompt = &mut self.prompts[0];
        prompt.tokens.splice(..0, before.tokens);
        prompt.sampling.choice = before.noise;
    }

    /// Takes what came of a prompt; what has ended with it is in the store when this returns,
    /// and `answers` tell of it.
    pub async fn take(&mut self, prompt: usize, pieces: &[Piece], answers: &mut Answers) {
        let takes = self.groups.is_some() && self.served.atropos.is_some();
        let over = self.groups.as_ref().is_some_and(|groups| groups.is_over(prompt));
        let mut ended = Vec::new();
        for piece in pieces {
            self.drafts[piece.index].push(piece);
            let Some(end) = &piece.end else { continue };
            let cancelled = over && end.reason == "abort";
            if let Some(groups) = &mut self.groups {
                groups.closed(prompt, cancelled);
            }
            if cancelled {
                continue;
            }
            let answer = self.ended(piece.index, end.reason, answers);
            let handed = takes.then(|| answer.trajectory.clone());
            // The disk and long texts keep nobody else waiting.
            let settled = tokio::task::spawn_blocking(|| answer.settle());
            ended.push((piece.index, handed, settled));
        }
        for (index, answer, settled) in ended {
            let collected = settled.await.unwrap_or_else(|_| Collected {
                trajectory_error: Some("a fault of the server".to_owned()),
                ..Collected::default()
            });
            if let (Some(groups), Some(reward)) = (&mut self.groups, collected.reward) {
                groups.ended(prompt, groups::Ended { index, reward, answer });
            }
            answers.rollout.each[index] = Some(collected);
        }
    }

    /// The prompts of which it is plain with what came of one that no more answers are needed.
    pub fn over(&mut self, prompt: usize, answers: &mut Answers) -> Range<usize> {
        let Some(groups) = &mut self.groups else { return 0..0 };
        let over = groups.over(prompt);
        answers.rollout.groups[prompt] = Some(groups.summary(prompt));
        if let (Some(atropos), Some(group)) = (&self.served.atropos, groups.whole(prompt)) {
            atropos.leave(group, &self.metrics);
        }
        over
    }

    /// Whether the reply has an answer: all but those of a group that it does not need.
    pub fn returns(&self, index: usize) -> bool {
        let groups = self.groups.as_ref();
        groups.is_none_or(|groups| groups.has(index / self.per_prompt, index))
    }

    fn ended(&mut self, index: usize, finish: &str, answers: &Answers) -> Ended {
        let Draft { text, tokens, raw, processed, masks } = std::mem::take(&mut self.drafts[index]);
        let labels = &self.served.labels;
        let staleness = answers.versions[index].behind(labels);
        let prompt = &self.prompts[index / self.per_prompt];
        // A step has one answer, which draws the noise of its episode.
        let choice = prompt.sampling.choice + (index % self.per_prompt) as u32;
        let common = self.rollout.collect.as_ref().map(|collect| collect.common.clone());
        let trajectory = Trajectory {
            model: self.model.clone(),
            prompt: prompt.tokens.clone(),
            answer: tokens,
            logprobs: Logprobs { raw, processed },
            versions: spans(answers, index, labels),
            masks: (!masks.is_empty()).then_some(Masks::Hashes(masks)),
            masking: self.masking.clone(),
            sampling: Sampling { choice, ..prompt.sampling.clone() },
            finish: finish.to_owned(),
            template_hash: self.rollout.template_hash,
            created_ms: now_ms(),
            staleness: Some(u32::try_from(staleness).unwrap_or(u32::MAX)),
            ..common.unwrap_or_default()
        };
        Ended {
            rollout: self.rollout.clone(),
            shelf: self.served.shelf.clone(),
            metrics: self.metrics.clone(),
            text,
            trajectory,
            staleness,
        }
    }
}

impl Prompt {
    fn of(request: &Request) -> Self {
        let tokens = request.prompt.clone();
        let Task::Generate(generate) = &request.task else {
            return Self { tokens, sampling: Sampling::default() };
        };
        let engine::request::Sampling { temperature, top_p, top_k, min_p, seed, .. } =
            generate.sampling;
        Self { tokens, sampling: Sampling { temperature, top_p, top_k, min_p, seed, choice: 0 } }
    }
}

impl Draft {
    fn push(&mut self, piece: &Piece) {
        self.text.push_str(&piece.text);
        for (scored, _) in &piece.tokens {
            self.tokens.push(scored.token);
            self.raw.push(scored.raw);
            self.processed.push(scored.processed);
            self.masks.extend(scored.kept.as_ref().map(Kept::hash));
        }
    }
}

impl Ended {
    /// Scores it and keeps it. The reward comes after the trajectory: whoever is told of one
    /// has been told of neither before.
    fn settle(self) -> Collected {
        let scoring = self.rollout.scoring.as_ref();
        let reward = scoring.map(|it| it.score(&self.text, self.trajectory.answer.len()));
        let collected = Collected { reward, ..Collected::default() };
        let (Some(collect), Some(shelf)) = (&self.rollout.collect, &self.shelf) else {
            return collected;
        };
        let metrics = &self.metrics.trajectories;
        metrics.staleness(self.staleness);
        let staleness = self.trajectory.staleness;
        let collected = Collected { staleness, ..collected };
        if let Some(most) = collect.max_staleness.filter(|most| self.staleness > *most) {
            metrics.refused("stale");
            let words = format!(
                "not collected: {} versions came after that of its oldest token, at most {most} \
                 may",
                self.staleness
            );
            return Collected { stale: true, trajectory_error: Some(words), ..collected };
        }
        let id = match shelf.store.append(&self.trajectory) {
            Ok(id) => id,
            Err(error) => {
                metrics.refused(reason(&error));
                let words = format!("not collected: {}", refused(&error).message);
                tracing::warn!(%error, "a trajectory was not kept");
                return Collected { trajectory_error: Some(words), ..collected };
            }
        };
        metrics.collected();
        let collected = Collected { trajectory_id: Some(id), ..collected };
        let given = reward.zip(scoring).map(|(reward, scoring)| {
            shelf.store.reward(id, reward, scoring.name).inspect(|()| metrics.rewarded())
        });
        let Some(Err(error)) = given else { return collected };
        metrics.refused(reason(&error));
        let words = format!("its reward is not in the store: {}", refused(&error).message);
        Collected { trajectory_error: Some(words), ..collected }
    }
}

fn spans(answers: &Answers, index: usize, labels: &crate::runtime::Labels) -> Vec<Span> {
    let spans = answers.versions[index].spans(0, labels).into_iter();
    let text = |name: std::sync::Arc<str>| name.to_string();
    let over = |over: crate::openai::answer::Over| Over {
        from: over.from as u32,
        version: text(over.version),
        weights: over.weights.map(text),
    };
    let span = |span: crate::openai::answer::VersionSpan| Span {
        version: text(span.version),
        start: span.start as u32,
        end: span.end as u32,
        weights: span.weights.map(text),
        kv: span.kv.into_iter().map(over).collect(),
    };
    spans.map(span).collect()
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
