//! Log-probabilities of tokens that are given.

use super::{News, Runtime};
use crate::openai::Refusal;
use engine::request::{Class, Event, Finish, Generate, Request, Sampling, Stop, Task};
use hyper::StatusCode;
use std::sync::Arc;

/// Tokens to score.
pub struct Scoring {
    /// All of them, those that are not scored before the others.
    pub tokens: Vec<u32>,
    /// The first that is scored.
    pub from: u32,
    /// The adapter that scores them, by the engine's number.
    pub adapter: Option<u64>,
    /// Keeps their pages apart.
    pub salt: Arc<[u8]>,
    /// Who asks.
    pub class: Class,
    /// Smaller comes first.
    pub priority: i32,
}

impl Runtime {
    /// The log-probabilities of each one's tokens, as the model says them.
    pub async fn score(&self, name: &str, all: Vec<Scoring>) -> Result<Vec<Vec<f32>>, Refusal> {
        let mut scores: Vec<Vec<f32>> = vec![Vec::new(); all.len()];
        let firsts: Vec<usize> = all.iter().map(|scoring| scoring.from as usize).collect();
        let mut open = all.len();
        let requests = all.into_iter().map(request).collect();
        let mut ticket = self.submit(name, requests, false).await?;
        while open > 0 {
            let stopped = || Refusal::internal("the engine has stopped");
            let News { at, events } = ticket.next().await.ok_or_else(stopped)?;
            for event in events {
                match event {
                    Event::Prompt { logprobs, .. } => {
                        let own = logprobs.into_iter().skip(firsts[at]);
                        scores[at] = own.map(|it| it.map_or(0.0, |scored| scored.raw)).collect();
                    }
                    Event::End { why: Finish::Length, .. } => open -= 1,
                    Event::End { why, .. } => return Err(unanswered(why)),
                    Event::Admitted { .. } | Event::Token { .. } | Event::Embedding { .. } => {}
                }
            }
        }
        Ok(scores)
    }
}

fn request(scoring: Scoring) -> Request {
    let Scoring { tokens, from, adapter, salt, class, priority } = scoring;
    let task = Task::Generate(Generate {
        choices: 1,
        max_new: 0,
        sampling: Sampling::default(),
        stop: Stop::default(),
        grammar: None,
        chosen: [].into(),
        kept: None,
        top: None,
        prompt_top: Some(0),
        prompt_from: from,
    });
    Request {
        id: 0,
        prompt: tokens,
        task,
        class,
        priority,
        salt,
        adapter,
        episode: None,
        deadline: None,
    }
}

/// Why there are no scores.
/// Why there is no answer, where nothing is told of one that is not whole.
pub fn unanswered(why: Finish) -> Refusal {
    match why {
        Finish::Deadline => {
            let words = "the request took longer than --request-timeout-seconds";
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, words)
        }
        Finish::Aborted => Refusal::new(StatusCode::CONFLICT, "the request was aborted"),
        Finish::Cancelled => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down")
        }
        Finish::Failed(words) => Refusal::internal(words),
        other => Refusal::internal(format!("{other:?}")),
    }
}
