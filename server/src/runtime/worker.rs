//! The thread that owns the engine: takes what arrives, steps while there is work, and
//! sends what came of it.

use super::{Load, Message, News, Runtime, answers};
use crate::backend::Busy;
use crate::metrics::{Course, Metrics, Step};
use engine::engine::Engine;
use engine::request::{Event, Finish, Refused, Request, Task};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// How the engine is driven.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long an idle engine waits for more after the first request.
    pub gather: Duration,
    /// After so long a request ends with what it has.
    pub timeout: Option<Duration>,
    /// Answers that may be open.
    pub open_max: usize,
}

/// Starts the thread; it ends when nobody can reach it any more.
pub fn start(
    engine: Engine,
    busy: Busy,
    pace: Pace,
    metrics: Arc<Metrics>,
) -> std::io::Result<(Runtime, JoinHandle<()>)> {
    let (to, inbox) = mpsc::channel();
    let load =
        Load { open: AtomicUsize::new(0), open_max: pace.open_max, alive: AtomicBool::new(true) };
    let load = Arc::new(load);
    let alive = Alive(load.clone());
    let worker = Worker {
        engine,
        busy,
        counted: None,
        pace,
        metrics,
        inbox,
        load: load.clone(),
        live: HashMap::new(),
        next: 1,
        began: Instant::now(),
    };
    let thread = std::thread::Builder::new().name("engine".into());
    let thread = thread.spawn(move || {
        let _alive = alive;
        worker.run();
    })?;
    Ok((Runtime { to, load }, thread))
}

/// Says that the thread has ended, however it did.
struct Alive(Arc<Load>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.alive.store(false, std::sync::atomic::Ordering::Relaxed);
    }
}

struct Worker {
    engine: Engine,
    busy: Busy,
    /// When the last step was counted, unless there was nothing to do since.
    counted: Option<Instant>,
    pace: Pace,
    metrics: Arc<Metrics>,
    inbox: Receiver<Message>,
    load: Arc<Load>,
    /// By the engine's number.
    live: HashMap<u64, Live>,
    /// The number of the next request.
    next: u64,
    began: Instant,
}

/// A request that the engine has.
struct Live {
    news: UnboundedSender<News>,
    /// Which of those submitted together.
    at: usize,
    prompt: usize,
    streamed: bool,
    /// Answers that have not ended.
    open: usize,
    arrived: Instant,
    /// When its prompt was computed.
    computed: Option<Instant>,
    /// When a token of an answer last came, and how many have.
    answers: Vec<(Option<Instant>, u32)>,
    first: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        // So that what there is can be seen before anything happens.
        let counters = self.engine.counters();
        self.metrics.step(&Step { counters, ..Step::default() });
        loop {
            if self.live.is_empty() {
                let Ok(message) = self.inbox.recv() else { return };
                self.counted = None;
                self.take(message);
                self.gather();
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.take(message);
            }
            if !self.live.is_empty() {
                self.step();
            }
        }
    }

    /// Waits for more after the first, if it is to.
    fn gather(&mut self) {
        let until = Instant::now() + self.pace.gather;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            match self.inbox.recv_timeout(left) {
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Submit { requests, streamed, news, taken } => {
                self.submit(requests, streamed, &news, taken);
            }
            Message::Cancel { first, count } => self.cancel(first..first + count),
        }
    }

    fn cancel(&mut self, ids: std::ops::Range<u64>) {
        for id in ids {
            if self.live.contains_key(&id) {
                self.engine.cancel(id);
            }
        }
    }

    fn submit(
        &mut self,
        requests: Vec<Request>,
        streamed: bool,
        news: &UnboundedSender<News>,
        taken: oneshot::Sender<Result<u64, Refused>>,
    ) {
        let first = self.next;
        let reserved: usize = requests.iter().map(answers).sum();
        let deadline = self.pace.timeout.map(|timeout| self.began.elapsed() + timeout);
        for (at, mut request) in requests.into_iter().enumerate() {
            request.id = self.next;
            request.deadline = deadline;
            let live = Live::new(&request, at, streamed, news.clone());
            let asked = most(&request);
            if let Err(refused) = self.engine.submit(request) {
                // Those before it go, too; what they reserved is given back as they end.
                self.cancel(first..self.next);
                let going: usize = (first..self.next).map(|id| self.live[&id].open).sum();
                self.load.release(reserved - going);
                let _ = taken.send(Err(refused));
                return;
            }
            self.metrics.taken(live.open as u32, asked);
            self.live.insert(self.next, live);
            self.next += 1;
        }
        // Whoever asked may have gone while it was taken.
        if taken.send(Ok(first)).is_err() {
            self.cancel(first..self.next);
        }
    }

    fn step(&mut self) {
        let streamed = self.live.values().any(|live| live.streamed);
        let (begun, busy) = (Instant::now(), self.busy.so_far());
        let events = self.engine.step(self.began.elapsed());
        let counters = self.engine.counters();
        let now = Instant::now();
        // What the last step's news and new requests took is a part of this one.
        let cycle = now - self.counted.unwrap_or(begun);
        let kernels = self.busy.so_far().saturating_sub(busy);
        // Counted before it is told: whoever hears of an end finds it counted.
        self.metrics.step(&Step { counters, streamed, took: now - begun, cycle, kernels });
        self.counted = Some(now);
        let mut news: Vec<(u64, Vec<Event>)> = Vec::new();
        for event in events {
            let id = number(&event);
            if let Some(live) = self.live.get_mut(&id) {
                live.count(&event, now, &self.metrics);
                // Events of one request mostly follow each other.
                match news.iter_mut().rev().find(|(other, _)| *other == id) {
                    Some((_, events)) => events.push(event),
                    None => news.push((id, vec![event])),
                }
            }
        }
        for (id, events) in news {
            self.tell(id, events, now);
        }
    }

    /// Sends news; where nobody listens any more, the request is given up.
    fn tell(&mut self, id: u64, events: Vec<Event>, now: Instant) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let ended = events.iter().filter(|event| ends(event)).count();
        live.open = live.open.saturating_sub(ended);
        self.load.release(ended);
        if live.open == 0 {
            self.metrics.course(&live.course(now));
        }
        let (done, told) = (live.open == 0, live.news.send(News { at: live.at, events }));
        if done {
            self.live.remove(&id);
        } else if told.is_err() {
            self.engine.cancel(id);
        }
    }
}

/// Tokens of an answer, at most.
fn most(request: &Request) -> u32 {
    match &request.task {
        Task::Generate(generate) => generate.max_new,
        Task::Embed(_) => 0,
    }
}

/// Whose event it is.
fn number(event: &Event) -> u64 {
    match event {
        Event::Prompt { id, .. }
        | Event::Token { id, .. }
        | Event::End { id, .. }
        | Event::Embedding { id, .. } => *id,
    }
}

/// Whether nothing more comes of an answer.
fn ends(event: &Event) -> bool {
    matches!(event, Event::End { .. } | Event::Embedding { .. })
}

impl Live {
    fn new(request: &Request, at: usize, streamed: bool, news: UnboundedSender<News>) -> Self {
        let open = answers(request);
        Self {
            news,
            at,
            prompt: request.prompt.len(),
            streamed,
            open,
            arrived: Instant::now(),
            computed: None,
            first: None,
            answers: vec![(None, 0); open],
        }
    }

    fn count(&mut self, event: &Event, now: Instant, metrics: &Metrics) {
        match event {
            Event::Prompt { cached, miss, .. } => {
                metrics.prompt(self.prompt, *cached, *miss);
                self.computed = Some(now);
            }
            Event::Token { choice, .. } => {
                let Some((last, tokens)) = self.answers.get_mut(*choice as usize) else { return };
                metrics.token(last.is_none(), now - last.unwrap_or(self.arrived));
                (*last, *tokens) = (Some(now), *tokens + 1);
                self.first.get_or_insert(now);
            }
            Event::End { why, .. } => metrics.ended(match why {
                Finish::Length => "length",
                Finish::Eos | Finish::Token(_) | Finish::String { .. } => "stop",
                Finish::Cancelled | Finish::Deadline | Finish::Failed(_) => "abort",
            }),
            Event::Embedding { .. } => metrics.ended("stop"),
        }
    }

    fn course(&self, now: Instant) -> Course {
        let computed = self.computed.unwrap_or(now);
        let first = self.first.unwrap_or(now);
        Course {
            queued: computed - self.arrived,
            prefill: first.saturating_duration_since(computed),
            decode: now - first,
            tokens: self.answers.iter().map(|(_, tokens)| tokens).sum(),
            longest: self.answers.iter().map(|(_, tokens)| *tokens).max().unwrap_or(0),
        }
    }
}
