//! The engine on a thread of its own: requests go in, news come out, and nobody who reads
//! slowly makes it wait.

mod control;
mod labels;
mod live;
mod score;
mod worker;

pub use control::{Coming, Made, PAUSED, Pause, Swapped};
pub use labels::Labels;
pub use score::{Scoring, unanswered};
pub use worker::{Pace, start};

use crate::http::closed;
use crate::openai::Refusal;
use control::Control;
use engine::request::{Event, Refused, Request, Task};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};

/// When to come again, where there is no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The way to the engine.
#[derive(Clone)]
pub struct Runtime {
    to: mpsc::Sender<Message>,
    load: Arc<Load>,
}

/// What the engine has to do.
struct Load {
    /// Answers that have not ended.
    open: AtomicUsize,
    /// Answers that may be open.
    open_max: usize,
    alive: watch::Sender<bool>,
    /// Whether it computes on a device that tells of its memory.
    on_device: bool,
    /// Why the engine has stopped, where its device failed.
    failure: OnceLock<String>,
    /// How it rests, if it does.
    pause: watch::Sender<Option<Pause>>,
}

/// What the engine's thread is told.
enum Message {
    /// Take these.
    Submit(Submission),
    /// Do this between two steps.
    Control(Control),
    /// Count the memory of the device.
    Look,
    /// Give up those of these numbers.
    Cancel(Range<u64>),
    /// End them with what they have.
    End(Range<u64>),
    /// Give up all, and whatever comes after.
    GiveUp,
    /// Break, as a fault would.
    #[cfg(test)]
    Break,
}

/// Requests to take, all or none.
struct Submission {
    /// The client's name of each.
    names: Vec<Arc<str>>,
    requests: Vec<Request>,
    streamed: bool,
    news: UnboundedSender<News>,
    /// Of no request yet; it comes back with their numbers.
    ticket: Ticket,
    taken: oneshot::Sender<Result<Ticket, Refusal>>,
}

/// What happened to one of the requests in a step.
#[derive(Debug)]
pub struct News {
    /// Which of those submitted together.
    pub at: usize,
    /// What happened.
    pub events: Vec<Event>,
}

/// Requests that the engine has taken. Dropping it gives up those that have not ended,
/// also where it never reaches whoever asked, for that one has gone meanwhile. It holds
/// at most what the requests allow: news wait here for slow readers.
pub struct Ticket {
    /// Their numbers.
    requests: Range<u64>,
    news: UnboundedReceiver<News>,
    to: mpsc::Sender<Message>,
}

impl Runtime {
    /// Hands requests of one name to the engine, all or none.
    pub async fn submit(
        &self,
        name: &str,
        requests: Vec<Request>,
        streamed: bool,
    ) -> Result<Ticket, Refusal> {
        let names = vec![name.into(); requests.len()];
        self.submit_named(names, requests, streamed).await
    }

    /// Hands requests to the engine, each with its name, all or none.
    pub async fn submit_named(
        &self,
        names: Vec<Arc<str>>,
        requests: Vec<Request>,
        streamed: bool,
    ) -> Result<Ticket, Refusal> {
        let answers = requests.iter().map(answers).sum::<usize>();
        self.load.reserve(answers)?;
        let (sender, news) = unbounded_channel();
        let (taken, answer) = oneshot::channel();
        let ticket = Ticket { requests: 0..0, news, to: self.to.clone() };
        let message =
            Message::Submit(Submission { names, requests, streamed, news: sender, ticket, taken });
        // Whoever waits here may go away: so the worker gives back what is reserved.
        let sent = self.to.send(message);
        let outcome = if sent.is_ok() { answer.await.ok() } else { None };
        outcome.unwrap_or_else(|| Err(self.stopped()))
    }

    /// How the device failed, if it did: then the engine has stopped, or is about to.
    pub fn failure(&self) -> Option<&str> {
        self.load.failure.get().map(String::as_str)
    }

    /// What is answered by an engine that has stopped.
    fn stopped(&self) -> Refusal {
        match self.failure() {
            Some(why) => closed::failed(why),
            None => Refusal::internal("the engine has stopped"),
        }
    }

    /// Answers that have not ended.
    pub fn open(&self) -> usize {
        self.load.open.load(Ordering::Relaxed)
    }

    /// Whether the engine's thread runs.
    pub fn alive(&self) -> bool {
        *self.load.alive.borrow()
    }

    /// Has the memory of the device counted, within a step.
    pub fn look(&self) {
        if !self.load.on_device {
            return;
        }
        // An engine that has stopped has nothing to tell.
        let _ = self.to.send(Message::Look);
    }

    /// Waits until the engine's thread has ended.
    pub async fn ended(&self) {
        let mut alive = self.load.alive.subscribe();
        // An error says that nobody can say it any more.
        drop(alive.wait_for(|alive| !alive).await);
    }

    /// Ends every answer as cancelled, within a step, and those that are asked for later.
    pub fn give_up(&self) {
        // An engine that has stopped has given up already.
        let _ = self.to.send(Message::GiveUp);
    }

    /// Breaks the engine's thread.
    #[cfg(test)]
    pub fn break_off(&self) {
        self.to.send(Message::Break).expect("the engine runs");
    }
}

impl Load {
    fn reserve(&self, answers: usize) -> Result<(), Refusal> {
        let room = |open: usize| {
            // A request larger than the queue is taken when nothing else is.
            (open == 0 || open + answers <= self.open_max).then_some(open + answers)
        };
        let reserved = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        reserved.map(drop).map_err(|open| {
            let words = format!(
                "{open} answers are open, {answers} more are asked; at most {} may be",
                self.open_max
            );
            Refusal::busy(words, RETRY_AFTER)
        })
    }

    fn release(&self, answers: usize) {
        self.open.fetch_sub(answers, Ordering::Relaxed);
    }
}

impl Ticket {
    /// What happened next; `None` where the engine has stopped.
    pub async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Ends the answers of some of the requests that have not ended, with what they have; their
    /// ends are among the news that follow, and their pages are free by then.
    pub fn end(&self, which: Range<usize>) {
        if which.is_empty() {
            return;
        }
        let of = |at: usize| self.requests.start + at as u64;
        // An engine that has stopped has ended all.
        let _ = self.to.send(Message::End(of(which.start)..of(which.end)));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Where all have ended, or the engine has stopped, there is nothing to give up.
        let _ = self.to.send(Message::Cancel(self.requests.clone()));
    }
}

/// Answers that a request has.
fn answers(request: &Request) -> usize {
    match &request.task {
        Task::Generate(generate) => generate.choices as usize,
        Task::Embed(_) => 1,
    }
}

/// The engine's refusal in the words of the API.
fn spelled(refused: &Refused) -> Refusal {
    let field = match refused.field {
        "choices" => "n",
        "top" => "logprobs",
        "prompt_top" => "prompt_logprobs",
        "prompt_from" => "prompt_logprob_start",
        "sampling.presence" => "presence_penalty",
        "sampling.frequency" => "frequency_penalty",
        "sampling.repetition" => "repetition_penalty",
        "sampling.bias" => "logit_bias",
        "sampling.allowed" => "allowed_token_ids",
        "stop.strings" => "stop",
        "stop.tokens" => "stop_token_ids",
        same => same.strip_prefix("sampling.").unwrap_or(same),
    };
    Refusal::expected(field, &refused.expected, &refused.got)
}
