//! The thread that owns the engine: takes what arrives, steps while there is work, and
//! sends what came of it.

use super::control::{Coming, Control, Made, Pause, Swapped, by_rest, paused, unplaced, untaken};
use super::labels::Labels;
use super::live::{Live, ends, most, number};
use super::{Load, Message, News, Runtime, Submission, answers, spelled};
use crate::backend::Busy;
use crate::http::closed;
use crate::metrics::{Metrics, Step};
use crate::openai::Refusal;
use engine::engine::{Change, Engine, InFlight, Policy};
use engine::request::Event;
use hyper::StatusCode;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How long an engine that rests waits for orders before it looks for deadlines.
const REST: Duration = Duration::from_millis(20);
/// How long what is told of a device's memory holds, where there is work.
const LOOK: Duration = Duration::from_secs(1);
/// What the weights are called until somebody says otherwise.
const FIRST_LABEL: &str = "default";

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
    labels: Arc<Labels>,
) -> std::io::Result<(Runtime, JoinHandle<()>)> {
    let (to, inbox) = mpsc::channel();
    let memory = engine.device_memory();
    let load = Load {
        open: AtomicUsize::new(0),
        open_max: pace.open_max,
        alive: watch::Sender::new(true),
        on_device: memory.is_some(),
        failure: OnceLock::new(),
        pause: watch::Sender::new(None),
    };
    let load = Arc::new(load);
    let first = labels.add(FIRST_LABEL, None);
    let alive = Alive(load.clone());
    // So that what there is can be seen before anything happens.
    metrics.step(&Step { counters: engine.counters(), ..Step::default() });
    metrics.device_memory(memory);
    let engine_weights = engine.settings().weights;
    let worker = Worker {
        engine,
        busy,
        counted: None,
        looked: Instant::now(),
        pace,
        metrics,
        inbox,
        load: load.clone(),
        live: HashMap::new(),
        next: 1,
        labels,
        called: HashMap::from([(engine_weights, first)]),
        current: HashMap::from([(None, engine_weights)]),
        coming: HashMap::new(),
        gone: Vec::new(),
        gives_up: false,
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
        self.0.alive.send_replace(false);
    }
}

/// Fields are in the order in which they go: whoever waits is told before a device is let go,
/// which may take long where it has failed.
struct Worker {
    busy: Busy,
    /// When the last step was counted, unless there was nothing to do since.
    counted: Option<Instant>,
    /// When the device last told of its memory.
    looked: Instant,
    pace: Pace,
    metrics: Arc<Metrics>,
    inbox: Receiver<Message>,
    load: Arc<Load>,
    /// By the engine's number.
    live: HashMap<u64, Live>,
    /// The number of the next request.
    next: u64,
    labels: Arc<Labels>,
    /// The number of the name of each of the engine's versions.
    called: HashMap<u64, u64>,
    /// The current version of the weights, and of each adapter.
    current: HashMap<Option<u64>, u64>,
    /// Versions on their way, with the numbers of their names.
    coming: HashMap<u64, (u64, oneshot::Sender<Result<Swapped, Refusal>>)>,
    /// Versions that are no more, whose last tokens are yet to be told.
    gone: Vec<u64>,
    /// Nothing is answered any more.
    gives_up: bool,
    began: Instant,
    engine: Engine,
}

impl Worker {
    fn run(mut self) {
        loop {
            if self.rests() {
                self.counted = None;
                let wait = if self.engine.is_changing() { Duration::ZERO } else { REST };
                match self.inbox.recv_timeout(wait) {
                    Ok(message) => self.take(message),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else if self.live.is_empty() && !self.engine.is_changing() {
                let Ok(message) = self.inbox.recv() else { return };
                self.counted = None;
                self.take(message);
                self.gather();
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.take(message);
            }
            if self.rests() {
                let events = self.engine.rest(self.began.elapsed());
                let now = Instant::now();
                self.tell_all(events, now..now);
            } else if !self.live.is_empty() || self.engine.is_changing() {
                self.step();
            }
            self.tell_changes();
            self.look();
            if let Some(failure) = self.engine.failure() {
                return self.fail(&failure);
            }
        }
    }

    /// Whoever is in flight was told, or is told by what is dropped now: nobody comes after it.
    fn fail(&mut self, failure: &kernels_core::Error) {
        tracing::error!(%failure, "the device has failed");
        // Said before the thread ends, so that whoever sees the end can tell why.
        let _ = self.load.failure.set(failure.to_string());
        self.load.alive.send_replace(false);
    }

    /// What is answered where the device has failed meanwhile, else the refusal.
    fn or_failed(&self, refusal: Refusal) -> Refusal {
        let failure = self.engine.failure();
        failure.map_or(refusal, |failure| closed::failed(&failure.to_string()))
    }

    /// Counts the memory of the device, where the last time was long ago.
    fn look(&mut self) {
        if self.load.on_device && self.looked.elapsed() >= LOOK {
            self.metrics.device_memory(self.engine.device_memory());
            self.looked = Instant::now();
        }
    }

    /// Whether nothing is computed until somebody says so.
    fn rests(&self) -> bool {
        let paused = matches!(*self.load.pause.borrow(), Some(Pause::Freeze | Pause::Retract));
        paused || !self.engine.has_pages()
    }

    /// Waits for more after the first request, if it is to and there is room for more.
    fn gather(&mut self) {
        let until = Instant::now() + self.pace.gather;
        let rows = self.engine.settings().rows as usize;
        loop {
            let open: usize = self.live.values().map(|live| live.open).sum();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || open == 0 || open >= rows || self.gives_up {
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
            Message::Submit(submission) => self.submit(submission),
            Message::Control(control) => self.control(control),
            // It looks in its turn.
            Message::Look => {}
            Message::Cancel(ids) => self.cancel(ids),
            Message::End(ids) => self.end(ids),
            Message::GiveUp => {
                self.gives_up = true;
                for id in self.live.keys() {
                    self.engine.cancel(*id);
                }
            }
            #[cfg(test)]
            Message::Break => panic!("told to break"),
        }
    }

    fn control(&mut self, control: Control) {
        // Of all of these, whoever asked may have gone.
        match control {
            Control::Pause(how, done) => {
                if how == Some(Pause::Retract) {
                    self.engine.retract();
                }
                self.load.pause.send_replace(how);
                let _ = done.send(());
            }
            Control::Abort(which, done) => {
                let live = self.live.iter().filter(|(_, live)| which(&live.name));
                let ids: Vec<u64> = live.map(|(&id, _)| id).collect();
                ids.iter().for_each(|&id| self.engine.abort(id));
                let _ = done.send(ids.len());
            }
            Control::Publish { mut publish, coming, done } => {
                let Coming { label, follows, again } = coming;
                let adapter = publish.adapter;
                if follows {
                    publish.in_flight = by_rest(*self.load.pause.borrow(), publish.in_flight);
                }
                match self.engine.publish(publish) {
                    Ok(version) => {
                        let name = match again {
                            true => self.labels.add(&label, Some(adapter)),
                            false => self.labels.coming(&label, Some(adapter)),
                        };
                        self.coming.insert(version, (name, done));
                    }
                    Err(refused) => {
                        let _ = done.send(Err(self.or_failed(untaken(&refused))));
                    }
                }
            }
            Control::Weights { made, in_flight, label, done } => {
                let rest = *self.load.pause.borrow();
                let in_flight = in_flight.unwrap_or(by_rest(rest, InFlight::Wait));
                let Made { serves, drafts } = *made;
                match self.engine.replace_weights(serves, in_flight) {
                    Ok(version) => {
                        let renewed = drafts.map(|drafts| self.engine.renew_base_drafter(drafts));
                        if let Some(Err(error)) = renewed {
                            tracing::warn!(%error, "the base guesses by weights of before");
                        }
                        self.coming.insert(version, (self.labels.coming(&label, None), done));
                    }
                    Err(error) => {
                        let words = format!("the weights are not served: {error}");
                        let refusal = Refusal::new(StatusCode::INSUFFICIENT_STORAGE, words);
                        let _ = done.send(Err(self.or_failed(refusal)));
                    }
                }
            }
            Control::Relabel(adapter, label, done) => {
                if let Some(version) = self.current.get(&adapter) {
                    self.called.insert(*version, self.labels.add(&label, adapter));
                }
                let _ = done.send(());
            }
            Control::Label(adapter, done) => {
                let version = self.current.get(&adapter);
                let name = version.and_then(|version| self.called.get(version));
                let _ = done.send(name.map(|name| self.labels.name(*name)));
            }
            Control::With(what) => what(&mut self.engine),
        }
    }

    /// Tells those who wait for a version what became of it.
    fn tell_changes(&mut self) {
        // By now their last tokens are told.
        for version in self.gone.drain(..) {
            self.called.remove(&version);
        }
        for change in self.engine.changes() {
            match change {
                Change::Current { adapter, version, moved, took } => {
                    self.metrics.swapped(adapter.is_some(), &moved, took);
                    self.current.insert(adapter, version);
                    let Some((name, done)) = self.coming.remove(&version) else { continue };
                    self.labels.came(name);
                    self.called.insert(version, name);
                    let label = self.labels.name(name);
                    let _ = done.send(Ok(Swapped { label, moved }));
                }
                Change::Failed { version, why, .. } => {
                    let Some((_, done)) = self.coming.remove(&version) else { continue };
                    let _ = done.send(Err(self.or_failed(unplaced(&why))));
                }
                Change::GivenUp { adapter } => {
                    self.current.remove(&Some(adapter));
                }
                Change::Gone { version, .. } => self.gone.push(version),
            }
        }
    }

    fn cancel(&mut self, ids: Range<u64>) {
        for id in ids {
            if self.live.contains_key(&id) {
                self.engine.cancel(id);
            }
        }
    }

    fn end(&mut self, ids: Range<u64>) {
        for id in ids {
            if self.live.contains_key(&id) {
                self.engine.abort(id);
            }
        }
    }

    fn submit(&mut self, submission: Submission) {
        let Submission { names, requests, streamed, news, mut ticket, taken } = submission;
        let first = self.next;
        let reserved: usize = requests.iter().map(answers).sum();
        // Here alone: whoever was told of the pause finds that nobody comes after it.
        if *self.load.pause.borrow() == Some(Pause::Refuse) {
            self.load.release(reserved);
            let _ = taken.send(Err(paused()));
            return;
        }
        // One past all time is none.
        let deadline =
            self.pace.timeout.and_then(|timeout| self.began.elapsed().checked_add(timeout));
        for (at, (name, mut request)) in names.into_iter().zip(requests).enumerate() {
            request.id = self.next;
            request.deadline = deadline;
            let live = Live::new(&request, name, at, streamed, news.clone());
            let asked = most(&request);
            if let Err(refused) = self.engine.submit(request) {
                // Those before it go, too; what they reserved is given back as they end.
                self.cancel(first..self.next);
                let going: usize = (first..self.next).map(|id| self.live[&id].open).sum();
                self.load.release(reserved - going);
                let _ = taken.send(Err(self.or_failed(spelled(&refused))));
                return;
            }
            self.metrics.taken(live.open as u32, asked);
            self.live.insert(self.next, live);
            self.next += 1;
        }
        ticket.requests = first..self.next;
        if self.gives_up {
            self.cancel(first..self.next);
        }
        // Where whoever asked has gone, the ticket is dropped, which gives them up.
        let _ = taken.send(Ok(ticket));
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
        // The names of versions that came with this step are those of its tokens.
        self.tell_changes();
        self.tell_all(events, begun..now);
    }

    /// What versions are called now, by number.
    fn names(&self, of: Policy) -> Policy {
        let name = |version| self.called.get(&version).copied().unwrap_or_default();
        Policy { weights: name(of.weights), adapter: of.adapter.map(name) }
    }

    /// Sends what happened to whom it happened.
    fn tell_all(&mut self, events: Vec<Event>, step: Range<Instant>) {
        let now = step.end;
        let mut news: Vec<(u64, Vec<Event>)> = Vec::new();
        for mut event in events {
            if let Event::Token { made, .. } = &mut event {
                let spans = made.over.iter_mut().chain([&mut made.span]);
                spans.for_each(|span| span.policy = self.names(span.policy));
            }
            let id = number(&event);
            if let Some(live) = self.live.get_mut(&id) {
                live.count(&event, step.clone(), &self.metrics);
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

    /// Sends news. Where nobody listens any more, the ticket was dropped: that it is to be
    /// given up comes through the inbox.
    fn tell(&mut self, id: u64, events: Vec<Event>, now: Instant) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let ended = events.iter().filter(|event| ends(event)).count();
        live.open = live.open.saturating_sub(ended);
        self.load.release(ended);
        if live.open == 0 {
            self.metrics.course(&live.course(now));
        }
        let _ = live.news.send(News { at: live.at, events });
        if live.open == 0 {
            self.live.remove(&id);
        }
    }
}
