//! The episodes that live: by name, with what the last step of each came to, so that one
//! that is sent twice is computed once.

use crate::adapters::Known;
use crate::metrics::Metrics;
use crate::openai::Refusal;
use crate::runtime::Runtime;
use engine::engine::{OnSwap, Standing, Start};
use hyper::StatusCode;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Episodes that live at once.
const EPISODES_MAX: usize = 1 << 16;
/// How often those that rest too long are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long an episode may rest, if nothing is said, and at most.
const TIMEOUT: Duration = Duration::from_secs(600);
const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// All that live.
#[derive(Default)]
pub struct Episodes {
    live: Mutex<HashMap<String, Arc<Held>>>,
    next: AtomicU64,
}

/// One of them.
pub struct Held {
    /// Its name.
    pub name: String,
    /// The engine's number.
    pub number: u64,
    /// The adapter that it has.
    pub adapter: Option<Known>,
    /// What keys its noise, where a step says nothing.
    pub seed: u64,
    /// The way to the engine.
    pub runtime: Runtime,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Where what is left of a step is looked after, whichever thread it ends on.
    pub threads: Handle,
    timeout: Duration,
    state: Mutex<State>,
}

struct State {
    touched: Instant,
    /// Tokens that it has.
    position: usize,
    /// A step is in flight.
    busy: bool,
    last: Option<Last>,
}

/// The last step that came to its end.
struct Last {
    /// Tokens before it.
    position: usize,
    /// A hash of what was asked.
    asked: u64,
    reply: Arc<[u8]>,
}

/// How an episode is to begin.
pub struct Opening {
    /// Its name; one is made up, if none is given.
    pub name: Option<String>,
    pub adapter: Option<Known>,
    pub salt: Arc<[u8]>,
    pub on_swap: OnSwap,
    /// Tokens for which it has pages in any case.
    pub reserve: u32,
    pub seed: Option<u64>,
    /// How long it may rest.
    pub timeout: Option<Duration>,
}

/// A step that may be computed, until it is dropped.
pub struct Opened {
    pub held: Arc<Held>,
    /// Tokens before it.
    pub position: usize,
    asked: u64,
    settled: Mutex<bool>,
}

/// What a step is told when it is asked for.
pub enum Turn {
    /// It is to be computed.
    New(Arc<Opened>),
    /// It was, and came to this.
    Again(Arc<[u8]>),
}

impl Episodes {
    /// Begins an episode.
    pub async fn start(
        self: &Arc<Self>,
        runtime: &Runtime,
        metrics: &Arc<Metrics>,
        opening: Opening,
    ) -> Result<Arc<Held>, Refusal> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let name = opening.name.unwrap_or_else(|| unnamed(number));
        let timeout = opening.timeout.unwrap_or(TIMEOUT);
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            let expected = format!("above 0, at most {} seconds", TIMEOUT_MAX.as_secs());
            return Err(Refusal::expected("timeout", &expected, timeout.as_secs_f64()));
        }
        let Opening { adapter, salt, on_swap, reserve, seed, .. } = opening;
        let held = Held {
            name,
            number,
            adapter,
            seed: seed.unwrap_or_else(any),
            runtime: runtime.clone(),
            metrics: metrics.clone(),
            threads: Handle::current(),
            timeout,
            state: State::at(0),
        };
        let held = self.insert(held)?;
        let adapter = held.adapter.as_ref().map(|known| known.number);
        let start = Start { adapter, salt, on_swap, reserve };
        let started = runtime.with(move |engine| engine.start_episode(number, start)).await;
        let started = started.and_then(|started| {
            started.map_err(|refused| {
                let field =
                    if refused.field == "reserve" { "reserve_tokens" } else { refused.field };
                Refusal::expected(field, &refused.expected, &refused.got)
            })
        });
        if let Err(refusal) = started {
            self.live().remove(&held.name);
            return Err(refusal);
        }
        held.metrics.episodes.started();
        Ok(held)
    }

    /// Begins another where one stands.
    pub async fn fork(
        self: &Arc<Self>,
        runtime: &Runtime,
        from: &Held,
        name: Option<String>,
        seed: Option<u64>,
    ) -> Result<Arc<Held>, Refusal> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let name = name.unwrap_or_else(|| unnamed(number));
        let position = {
            let state = from.state();
            if state.busy {
                return Err(from.busy());
            }
            state.position
        };
        let held = self.insert(Held {
            name,
            number,
            adapter: from.adapter.clone(),
            seed: seed.unwrap_or_else(any),
            runtime: runtime.clone(),
            metrics: from.metrics.clone(),
            threads: Handle::current(),
            timeout: from.timeout,
            state: State::at(position),
        })?;
        let source = from.number;
        let forked = runtime.with(move |engine| engine.fork_episode(source, number)).await;
        let forked = forked.and_then(|forked| {
            forked.map_err(|refused| {
                Refusal::expected(refused.field, &refused.expected, &refused.got)
            })
        });
        if let Err(refusal) = forked {
            self.live().remove(&held.name);
            return Err(refusal);
        }
        held.metrics.episodes.started();
        from.touch();
        Ok(held)
    }

    /// Ends an episode; how it stood.
    pub async fn end(&self, runtime: &Runtime, name: &str) -> Result<Option<Standing>, Refusal> {
        let held = self.live().remove(name).ok_or_else(|| unknown(name))?;
        held.metrics.episodes.ended("asked");
        let number = held.number;
        let ended = move |engine: &mut engine::engine::Engine| {
            let standing = engine.episode(number);
            engine.end_episode(number);
            standing
        };
        runtime.with(ended).await
    }

    /// The episode of a name.
    pub fn find(&self, name: &str) -> Result<Arc<Held>, Refusal> {
        self.live().get(name).cloned().ok_or_else(|| unknown(name))
    }

    /// Ends those that rest too long, for as long as the server lives.
    pub async fn reap(self: Arc<Self>, runtime: Runtime) {
        while runtime.alive() {
            tokio::time::sleep(LOOK_EVERY).await;
            // Out of the list at once: a name that begins anew meanwhile is another episode.
            let late: Vec<Arc<Held>> =
                self.live().extract_if(|_, held| held.is_late()).map(|(_, held)| held).collect();
            for held in late {
                tracing::info!(episode = held.name, "an episode has rested too long: it ends");
                held.metrics.episodes.ended("expired");
                let number = held.number;
                // An engine that has stopped has none.
                drop(runtime.with(move |engine| engine.end_episode(number)).await);
            }
        }
    }

    fn insert(&self, held: Held) -> Result<Arc<Held>, Refusal> {
        let mut live = self.live();
        if live.contains_key(&held.name) {
            let words = format!("an episode `{}` lives already", held.name);
            let mut refusal = Refusal::new(StatusCode::CONFLICT, words);
            refusal.param = Some("episode_id".into());
            return Err(refusal);
        }
        if live.len() >= EPISODES_MAX {
            let words = format!("{EPISODES_MAX} episodes live: no more may");
            return Err(Refusal::busy(words, Duration::from_secs(1)));
        }
        let held = Arc::new(held);
        live.insert(held.name.clone(), held.clone());
        Ok(held)
    }

    fn live(&self) -> MutexGuard<'_, HashMap<String, Arc<Held>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn at(position: usize) -> Mutex<Self> {
        Mutex::new(Self { touched: Instant::now(), position, busy: false, last: None })
    }
}

impl Held {
    /// Tokens that it has.
    pub fn position(&self) -> usize {
        self.state().position
    }

    /// Begins a step of that hash, where the client says how many tokens there are. One that
    /// was computed already, and is sent again, is not computed twice.
    pub fn begin(self: &Arc<Self>, expected: Option<usize>, asked: u64) -> Result<Turn, Refusal> {
        let mut state = self.state();
        state.touched = Instant::now();
        if state.busy {
            return Err(self.busy());
        }
        if let (Some(expected), Some(last)) = (expected, &state.last)
            && (last.position, last.asked) == (expected, asked)
        {
            return Ok(Turn::Again(last.reply.clone()));
        }
        let position = state.position;
        if expected.is_some_and(|expected| expected != position) {
            let words = format!("the episode has {position} tokens");
            let mut refusal = Refusal::field("expected_position", words);
            (refusal.status, refusal.code) = (StatusCode::CONFLICT, Some("wrong_position"));
            return Err(refusal);
        }
        state.busy = true;
        let settled = Mutex::new(false);
        Ok(Turn::New(Arc::new(Opened { held: self.clone(), position, asked, settled })))
    }

    fn busy(&self) -> Refusal {
        let words = format!("a step of episode `{}` is in flight", self.name);
        let mut refusal = Refusal::new(StatusCode::CONFLICT, words);
        refusal.code = Some("step_in_flight");
        refusal
    }

    fn touch(&self) {
        self.state().touched = Instant::now();
    }

    fn is_late(&self) -> bool {
        let state = self.state();
        !state.busy && state.touched.elapsed() > self.timeout
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// The step has come to its end, with that reply.
    pub fn settle(&self, position: usize, reply: &[u8]) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *settled, true) {
            return;
        }
        let mut state = self.held.state();
        let last = Last { position: self.position, asked: self.asked, reply: reply.into() };
        (state.position, state.last) = (position, Some(last));
        (state.busy, state.touched) = (false, Instant::now());
    }

    /// It has come to an end that nobody was told: the engine knows how the episode stands.
    pub fn settle_at(&self, standing: Option<&Standing>) {
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *settled, true) {
            return;
        }
        let mut state = self.held.state();
        state.position = standing.map_or(state.position, |standing| standing.tokens.len());
        (state.busy, state.touched) = (false, Instant::now());
    }

    /// Whether its end was told.
    pub fn is_settled(&self) -> bool {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No such episode.
fn unknown(name: &str) -> Refusal {
    let words = format!("no episode `{name}` lives: it has ended, or rested too long");
    let mut refusal = Refusal::new(StatusCode::NOT_FOUND, words);
    (refusal.param, refusal.code) = (Some("episode_id".into()), Some("episode_not_found"));
    refusal
}

fn unnamed(number: u64) -> String {
    format!("ep-{:016x}{number:x}", any())
}

fn any() -> u64 {
    RandomState::new().hash_one(0)
}
