//! A request that the engine has: who hears of it, and when what of it came.

use super::{News, answers};
use crate::metrics::{Course, Metrics};
use engine::request::{Event, Finish, Request, Task};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedSender;

/// A request that the engine has.
pub(super) struct Live {
    /// The client's name of it.
    pub name: Arc<str>,
    pub news: UnboundedSender<News>,
    /// Which of those submitted together.
    pub at: usize,
    prompt: usize,
    pub streamed: bool,
    /// Answers that have not ended.
    pub open: usize,
    arrived: Instant,
    /// When the step that began with it did.
    admitted: Option<Instant>,
    /// When a token of an answer last came, and how many have.
    answers: Vec<(Option<Instant>, u32)>,
    first: Option<Instant>,
}

impl Live {
    pub fn new(
        request: &Request,
        name: Arc<str>,
        at: usize,
        streamed: bool,
        news: UnboundedSender<News>,
    ) -> Self {
        let open = answers(request);
        Self {
            name,
            news,
            at,
            prompt: request.prompt.len(),
            streamed,
            open,
            arrived: Instant::now(),
            admitted: None,
            first: None,
            answers: vec![(None, 0); open],
        }
    }

    /// Counts what happened in a step that took so long.
    pub fn count(&mut self, event: &Event, step: Range<Instant>, metrics: &Metrics) {
        let now = step.end;
        match event {
            Event::Admitted { .. } => self.admitted = Some(step.start),
            Event::Prompt { cached, miss, .. } => metrics.prompt(self.prompt, *cached, *miss),
            Event::Token { choice, .. } => {
                let Some((last, tokens)) = self.answers.get_mut(*choice as usize) else { return };
                metrics.token(last.is_none(), now - last.unwrap_or(self.arrived));
                (*last, *tokens) = (Some(now), *tokens + 1);
                self.first.get_or_insert(now);
            }
            Event::End { why, .. } => metrics.ended(match why {
                Finish::Length => "length",
                Finish::Eos
                | Finish::Token(_)
                | Finish::Complete
                | Finish::String { .. }
                | Finish::Expression(_) => "stop",
                Finish::Cancelled
                | Finish::Aborted
                | Finish::Deadline
                | Finish::Stuck(_)
                | Finish::Failed(_) => "abort",
            }),
            Event::Embedding { .. } => metrics.ended("stop"),
        }
    }

    pub fn course(&self, now: Instant) -> Course {
        let admitted = self.admitted.unwrap_or(now);
        let first = self.first.unwrap_or(now);
        Course {
            queued: admitted - self.arrived,
            prefill: first - admitted,
            decode: now - first,
            tokens: self.answers.iter().map(|(_, tokens)| tokens).sum(),
            longest: self.answers.iter().map(|(_, tokens)| *tokens).max().unwrap_or(0),
        }
    }
}

/// Tokens of an answer, at most.
pub(super) fn most(request: &Request) -> u32 {
    match &request.task {
        Task::Generate(generate) => generate.max_new,
        Task::Embed(_) => 0,
    }
}

/// Whose event it is.
pub(super) fn number(event: &Event) -> u64 {
    match event {
        Event::Admitted { id }
        | Event::Prompt { id, .. }
        | Event::Token { id, .. }
        | Event::End { id, .. }
        | Event::Embedding { id, .. } => *id,
    }
}

/// Whether nothing more comes of an answer.
pub(super) fn ends(event: &Event) -> bool {
    matches!(event, Event::End { .. } | Event::Embedding { .. })
}

#[cfg(test)]
mod tests {
    use super::{Live, most};
    use crate::metrics::Metrics;
    use engine::engine::{Made, Policy, Span};
    use engine::request::{
        Class, Event, Finish, Generate, Miss, Request, Sampling, Scored, Stop, Task,
    };
    use std::time::Duration;
    use tokio::sync::mpsc::unbounded_channel;

    /// A request for so many answers.
    fn request(choices: u32) -> Request {
        let task = Task::Generate(Generate {
            choices,
            max_new: 8,
            sampling: Sampling::default(),
            stop: Stop::default(),
            top: None,
            chosen: [].into(),
            kept: None,
            prompt_top: None,
            prompt_from: 0,
            grammar: None,
        });
        Request {
            id: 1,
            prompt: vec![1, 2],
            task,
            class: Class::Inference,
            priority: 0,
            salt: [].into(),
            adapter: None,
            episode: None,
            deadline: None,
        }
    }

    #[test]
    fn times_of_a_request_are_of_its_seat_its_first_token_and_its_end() {
        let request = request(1);
        let metrics = Metrics::new("tiny", 32, 8, None);
        let mut live = Live::new(&request, "".into(), 0, false, unbounded_channel().0);
        let at = |seconds| live.arrived + Duration::from_secs(seconds);
        let token = Scored {
            token: 1,
            raw: -1.0,
            processed: -1.0,
            top: Vec::new(),
            chosen: Vec::new(),
            kept: None,
        };
        let policy = Policy { weights: 0, adapter: None };
        let made = Made { span: Span { from: 0, policy }, over: Vec::new() };
        // A seat in the step from second 3 to 5, the prompt done in that from 5 to 9.
        let steps = [
            (Event::Admitted { id: 1 }, at(3)..at(5)),
            (
                Event::Prompt { id: 1, cached: 0, miss: Miss::Cold, logprobs: Vec::new() },
                at(5)..at(9),
            ),
            (
                Event::Token {
                    id: 1,
                    choice: 0,
                    token: token.clone(),
                    made: made.clone(),
                    held: 0,
                },
                at(5)..at(9),
            ),
            (Event::Token { id: 1, choice: 0, token, made, held: 0 }, at(9)..at(10)),
            (
                Event::End { id: 1, choice: 0, why: Finish::Length, guessed: 0, held: 0 },
                at(9)..at(10),
            ),
        ];
        let end = at(10);
        for (event, step) in steps {
            live.count(&event, step, &metrics);
        }
        let course = live.course(end);
        let seconds = [course.queued, course.prefill, course.decode].map(|time| time.as_secs());
        assert_eq!(seconds, [3, 6, 1]);
        assert_eq!((course.tokens, course.longest, most(&request)), (2, 2, 8));
    }

    #[test]
    fn who_never_had_a_seat_was_in_the_queue_all_the_time() {
        let live = Live::new(&request(2), "".into(), 0, true, unbounded_channel().0);
        let course = live.course(live.arrived + Duration::from_secs(7));
        assert_eq!(course.queued, Duration::from_secs(7));
        assert_eq!(course.prefill + course.decode, Duration::ZERO);
    }
}
