//! The engine: requests in, events out, one step after the other.
//!
//! A step plans who runs ([`schedule`](crate::schedule)), makes room in pages, runs one
//! program for prompts and answers together, and says what came of it. Nothing here
//! depends on company: a token and its log-probabilities have the same bits alone or among
//! strangers, however its prompt was cut, wherever its pages came from, and however often
//! it had to wait. For that, noise is keyed by a request's seed, the token's position and
//! the choice, and every kernel gives a row the bits that its own inputs make.

mod admit;
mod answer;
mod check;
mod counters;
mod device;
mod draft;
mod drafter;
mod drawn;
mod episodes;
mod guide;
mod launch;
mod lookup;
mod memory;
mod record;
mod sampling;
mod sequence;
mod settings;
mod stop;
mod swap;
mod versions;
mod watched;

use crate::lora;
use crate::model::{Batch, Config, Model};
use crate::request::{Class, Event, Finish, Refused, Request, Task};
use crate::schedule::{Balance, Limits};
use crate::vocabulary::Vocabulary;
use admit::Run;
use check::refused;
use device::{Asked, Device};
use draft::Fared;
use drafter::Drafter;
use episodes::Episode;
use grammar::Masker;
use kernels_core::Error;
use kernels_core::device::{Backend, DeviceMemory};
use launch::Launched;
use memory::Memory;
use sampling::Masks;
use sequence::{Group, Sequence};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::time::Duration;
use versions::{Staging, Versions};

pub use counters::Counters;
pub use draft::Guessing;
pub use episodes::{OnSwap, Standing, Start};
pub use settings::Settings;
pub use swap::{Change, Moved, Publish, Unplaced};
pub use versions::{InFlight, Made, Policy, Span};

/// Episodes draw noise that no choice of a request does.
const NOISE_OF_EPISODES: u32 = 1 << 31;

/// A model that serves requests. See the head of the crate for how it is driven.
pub struct Engine {
    device: Device,
    settings: Settings,
    limits: Limits,
    vocabulary: Vocabulary,
    /// Tokens with which the model ends an answer.
    eos: Vec<u32>,
    memory: Memory,
    groups: HashMap<u64, Group>,
    /// Sequences with a seat, by number.
    running: BTreeMap<u64, Sequence>,
    /// Sequences without.
    waiting: BTreeMap<u64, Sequence>,
    /// Seats that nobody has.
    seats: Vec<u32>,
    step: u64,
    /// The number of the next sequence.
    next: u64,
    events: Vec<Event>,
    counters: Counters,
    balance: Balance,
    batch: Batch,
    masks: Masks,
    masker: Box<dyn Masker>,
    drafter: Option<Drafter>,
    versions: Versions,
    /// Of adapters, if it takes some.
    slots: Option<lora::Settings>,
    /// Versions on their way, the next one first; and how far that one is.
    staging: VecDeque<Staging>,
    staged: Option<lora::Work>,
    changes: Vec<Change>,
    episodes: BTreeMap<u64, Episode>,
    /// The noise of the last episode.
    noise: u32,
}

/// Why an engine could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// A setting is not what it must be.
    Settings(Refused),
    /// The backend does not serve the model so.
    Backend(Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(refused) => refused.fmt(to),
            Self::Backend(error) => error.fmt(to),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<Refused> for OpenError {
    fn from(refused: Refused) -> Self {
        Self::Settings(refused)
    }
}

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Backend(error)
    }
}

impl Engine {
    /// An engine for a model that was loaded to this backend. The vocabulary may lack
    /// tokens: they have no bytes then. Masks of grammars are computed by `masker`.
    pub fn new(
        backend: Box<dyn Backend>,
        model: Model,
        vocabulary: Vocabulary,
        masker: Box<dyn Masker>,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        settings.check()?;
        let config = model.config();
        let vocab = config.vocab;
        let eos: Vec<u32> = config.eos.iter().copied().filter(|&token| token < vocab).collect();
        let capacity = settings.capacity();
        let device = Device::new(backend, model, settings.weights, capacity, Asked::Anything)?;
        Ok(Self {
            device,
            limits: settings.limits(),
            vocabulary,
            memory: Memory::new(settings.pages, settings.page_len),
            groups: HashMap::new(),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            seats: (0..settings.rows).rev().collect(),
            step: 0,
            next: 0,
            events: Vec::new(),
            counters: Counters::default(),
            balance: Balance::default(),
            batch: Batch::new(settings.page_len),
            masks: Masks::new(vocab, eos.clone(), settings.capacity().logit_rows_max),
            masker,
            drafter: None,
            versions: Versions::new(settings.weights),
            slots: None,
            staging: VecDeque::new(),
            staged: None,
            changes: Vec::new(),
            episodes: BTreeMap::new(),
            noise: NOISE_OF_EPISODES,
            eos,
            settings,
        })
    }

    /// The shape of its model.
    pub fn config(&self) -> &Config {
        self.device.config()
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes a request, which ends by events of later steps; or refuses it by the field
    /// that is at fault.
    pub fn submit(&mut self, mut request: Request) -> Result<(), Refused> {
        if let Some(failure) = self.failure() {
            return Err(refused("device", "one that has not failed", failure));
        }
        let vocab = self.config().vocab;
        self.take_up(&mut request)?;
        let checks = check::Checks { settings: &self.settings, vocab, eos: self.eos.len() };
        checks.request(&request)?;
        if self.groups.contains_key(&request.id) {
            return Err(refused("id", "a number that no living request has", request.id));
        }
        let policy = match request.episode {
            // It has its versions, whatever became of their names.
            Some(id) => Some(self.episodes[&id].policy()),
            None => self.versions.policy(request.adapter),
        };
        let Some(policy) = policy else {
            let got = request.adapter.unwrap_or_default();
            return Err(refused("adapter", "one that is there", got));
        };
        if let Some(current) = request.adapter.and_then(|id| self.versions.current.get_mut(&id)) {
            current.last_used = self.step;
        }
        let tokens = std::mem::take(&mut request.prompt);
        let mut sequence = Sequence::new(&request, tokens, policy, &self.settings, self.step);
        match request.episode {
            // It holds its versions already.
            Some(id) => self.resume(&mut sequence, request.id, id),
            None => self.versions.hold(&sequence.spans),
        }
        let mut group = Group::new(request);
        group.sequences.push(self.next);
        self.groups.insert(group.request.id, group);
        self.waiting.insert(self.next, sequence);
        self.next += 1;
        self.counters.requests += 1;
        Ok(())
    }

    /// Ends a request with what it has: its pages are free at once, its events come with
    /// the next step. Of a request that does not live, nothing comes.
    pub fn cancel(&mut self, id: u64) {
        self.end_group(id, &Finish::Cancelled);
    }

    /// Ends a request with what it has, which whoever asked still wants.
    pub fn abort(&mut self, id: u64) {
        self.end_group(id, &Finish::Aborted);
    }

    /// Whether there is nothing to do, and nothing to tell.
    pub fn is_idle(&self) -> bool {
        self.groups.is_empty() && self.events.is_empty() && self.staging.is_empty()
    }

    /// Computes one step and says what happened since the last one. `now` is compared with
    /// deadlines alone. A version that comes is told of before the step that it serves: then
    /// nothing is computed.
    pub fn step(&mut self, now: Duration) -> Vec<Event> {
        self.end_overdue(now);
        let came = self.advance(false);
        if !came && !self.groups.is_empty() && self.has_pages() {
            self.step += 1;
            self.compute();
        }
        self.end_with_its_device();
        std::mem::take(&mut self.events)
    }

    /// Says what happened since the last step, brings versions on their way, and computes
    /// nothing.
    pub fn rest(&mut self, now: Duration) -> Vec<Event> {
        self.end_overdue(now);
        self.advance(true);
        self.end_with_its_device();
        std::mem::take(&mut self.events)
    }

    /// How a device failed that it needs, if one did: it computes nothing any more, and its
    /// requests have ended.
    pub fn failure(&self) -> Option<Error> {
        self.device.failure().or_else(|| self.drafter.as_ref().and_then(Drafter::failure))
    }

    /// The memory of its device, and what it takes of that; nothing where it computes in the
    /// host's, or where the device does not tell.
    pub fn device_memory(&self) -> Option<DeviceMemory> {
        let own = self.device.memory()?;
        let beside = self.drafter.as_ref().and_then(Drafter::memory);
        let beside_bytes = beside.map_or(0, |memory| memory.allocated_bytes);
        Some(DeviceMemory { allocated_bytes: own.allocated_bytes + beside_bytes, ..own })
    }

    /// What it has done so far, and how it stands.
    pub fn counters(&self) -> Counters {
        let pages = &self.memory.pages;
        let of = |all: &BTreeMap<u64, Sequence>| {
            Class::ALL.map(|class| all.values().filter(|it| it.class == class).count() as u32)
        };
        Counters {
            running_of: of(&self.running),
            waiting_of: of(&self.waiting),
            evictions: self.memory.evictions,
            running: self.running.len() as u32,
            waiting: self.waiting.len() as u32,
            pages_total: pages.total(),
            pages_free: pages.free(),
            pages_idle: pages.idle(),
            ..self.counters.clone()
        }
    }

    /// Forgets what pages hold of sequences that have ended.
    pub fn forget_prefixes(&mut self) {
        self.memory.index.forget(&mut self.memory.pages, |_| true);
    }

    /// Whether it has memory for keys and values: without, requests wait.
    pub fn has_pages(&self) -> bool {
        self.device.has_pages() && self.drafter.as_ref().is_none_or(Drafter::has_pages)
    }

    /// Gives the memory for keys and values back to the system, with all that it held of
    /// sequences that have ended and of episodes that rest, which are rebuilt when they go on.
    /// Where a sequence or a reservation holds some, it stays: it says whether nobody did.
    pub fn release_pages(&mut self) -> Result<bool, Error> {
        self.memory.make_free(self.memory.pages.total().into());
        self.count_evicted_episodes();
        let pages = &self.memory.pages;
        if pages.free() + pages.idle() < pages.total() {
            return Ok(false);
        }
        self.forget_prefixes();
        self.device.release_pages()?;
        if let Some(drafter) = &mut self.drafter {
            drafter.release_pages()?;
        }
        Ok(true)
    }

    /// Takes that memory again, empty.
    pub fn take_pages(&mut self) -> Result<(), Error> {
        self.device.take_pages()?;
        self.drafter.as_mut().map_or(Ok(()), Drafter::take_pages)
    }

    fn compute(&mut self) {
        self.take_masks();
        let plan = self.plan();
        for &id in &plan.preempt {
            self.preempt(id);
        }
        for &id in &plan.refuse {
            let why = "its keys and values take more pages than there are";
            self.end(id, Finish::Failed(why.into()));
        }
        let mut runs = self.make_room(&plan);
        self.count_evicted_episodes();
        if runs.is_empty() {
            self.await_the_late();
            return;
        }
        self.begin_counting(runs.len() as u32);
        // Where weights have changed, those of the versions in use pass one after the other.
        let mut weights: Vec<u64> = runs.iter().map(|run| run.weights).collect();
        weights.sort_unstable();
        weights.dedup();
        let before = self.counters.tokens_of;
        for weights in weights {
            let part = runs.extract_if(.., |run| run.weights == weights).collect();
            self.pass(weights, part);
        }
        if let Some(share) = self.limits.rollout_share {
            let after = self.counters.tokens_of;
            let tokens = [0, 1].map(|class| after[class] - before[class]);
            self.balance.settle(share, tokens, plan.short);
        }
    }

    /// A forward pass of some weights, and what comes of it.
    fn pass(&mut self, weights: u64, mut runs: Vec<Run>) {
        // Who fails may take others of its request along.
        runs.retain(|run| self.running.contains_key(&run.id));
        if runs.is_empty() {
            return;
        }
        self.guess(weights, &mut runs);
        for run in &runs {
            let class = self.running[&run.id].class;
            self.counters.tokens_of[class as usize] += u64::from(run.rows());
        }
        let draws = self.draws(&runs);
        let launched = self.launch(weights, &runs, draws);
        match launched {
            Ok(Launched { guided, drawn }) => {
                self.absorb(&runs);
                self.take(&mut runs, &guided.draws, drawn);
                guided.late.into_iter().for_each(|id| self.put_back(id));
                guided.ends.into_iter().for_each(|(id, why)| self.end(id, why));
            }
            Err(error) => {
                self.counters.failed_steps += 1;
                for run in &runs {
                    self.fail_request_of(run.id, &error.to_string());
                }
            }
        }
        let forks = runs.into_iter().flat_map(|run| run.guesses).filter_map(|guess| guess.fork);
        forks.for_each(|(table, _)| table.release(&mut self.memory.pages));
    }

    fn end_overdue(&mut self, now: Duration) {
        let overdue = |group: &Group| group.request.deadline.is_some_and(|at| at <= now);
        let mut ids: Vec<u64> =
            self.groups.iter().filter(|(_, group)| overdue(group)).map(|(&id, _)| id).collect();
        ids.sort_unstable();
        for id in ids {
            self.end_group(id, &Finish::Deadline);
        }
    }

    /// Nobody is answered by a device that has failed.
    fn end_with_its_device(&mut self) {
        let Some(failure) = self.failure() else { return };
        let why = Finish::Failed(failure.to_string());
        let mut ids: Vec<u64> = self.groups.keys().copied().collect();
        ids.sort_unstable();
        ids.into_iter().for_each(|id| self.end_group(id, &why));
    }

    /// Ends the request of a sequence, if it still lives.
    fn fail_request_of(&mut self, id: u64, why: &str) {
        let sequence = self.running.get(&id).or_else(|| self.waiting.get(&id));
        if let Some(request) = sequence.map(|sequence| sequence.request) {
            self.end_group(request, &Finish::Failed(why.into()));
        }
    }

    /// Ends all that is left of a request.
    fn end_group(&mut self, request: u64, why: &Finish) {
        let Some(group) = self.groups.get_mut(&request) else { return };
        let unforked = std::mem::take(&mut group.unforked);
        let choices = group.generate().map_or(1, |generate| generate.choices);
        for id in group.sequences.clone() {
            self.end(id, why.clone());
        }
        for choice in choices - unforked..choices {
            self.tell_end(request, choice, why.clone(), [0, 0]);
        }
    }

    /// Ends one sequence: nobody holds its pages any more.
    fn end(&mut self, id: u64, why: Finish) {
        let sequence = self.running.remove(&id).or_else(|| self.waiting.remove(&id));
        let Some(mut sequence) = sequence else { return };
        self.seats.extend(sequence.seat);
        let (request, choice, guessing) = (sequence.request, sequence.choice, sequence.guessing);
        match sequence.episode {
            Some(episode) => self.park(sequence, episode, &why),
            None => {
                self.memory.clear(&mut sequence);
                let unused = self.versions.release(&sequence.spans);
                self.let_go(unused);
            }
        }
        let group = self.groups.get_mut(&request).expect("a sequence has a request");
        group.sequences.retain(|&other| other != id);
        let embeds = matches!(group.request.task, Task::Embed(_));
        if group.sequences.is_empty() && group.unforked == 0 {
            self.groups.remove(&request);
        }
        if !(embeds && why == Finish::Length) {
            let Fared { guessed, held, .. } = guessing;
            self.tell_end(request, choice, why, [guessed, held]);
        }
    }

    fn tell_end(&mut self, id: u64, choice: u32, why: Finish, [guessed, held]: [u32; 2]) {
        self.counters.failures += u64::from(matches!(why, Finish::Failed(_)));
        self.events.push(Event::End { id, choice, why, guessed, held });
    }
}
