//! New versions: brought aside, a part in each step, and swapped between two steps.

use super::check::refused;
use super::episodes::OnSwap;
use super::sequence::Sequence;
use super::versions::{Current, InFlight, Policy, Span, Staging, Unused, Version};
use super::{Engine, OpenError};
use crate::lora::{self, Image};
use crate::model::Model;
use crate::request::{Finish, Refused};
use crate::weights::Aside;
use kernels_core::Error;
use kv::Scope;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of an adapter that are written in a step in which somebody runs: so few that no
/// step is longer for it than one can tell.
const BESIDE_BYTES: usize = 1 << 20;
/// Those that are written where nobody does.
const ALONE_BYTES: usize = 64 << 20;

/// An adapter to bring to the device.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Its number, which its caller chooses; requests ask for it by this.
    pub adapter: u64,
    /// What it is.
    pub image: Arc<Image>,
    /// What becomes of answers in flight under its version before.
    pub in_flight: InFlight,
    /// It is never given up for another.
    pub pinned: bool,
}

/// What became of versions.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A version is the current one.
    Current {
        /// The adapter, or the weights.
        adapter: Option<u64>,
        /// Its number.
        version: u64,
        /// What became of answers in flight.
        moved: Moved,
        /// How long nothing else was done for it.
        took: Duration,
    },
    /// A version did not come: the one before stays.
    Failed {
        /// The adapter, or the weights.
        adapter: Option<u64>,
        /// Its number.
        version: u64,
        /// Why.
        why: Unplaced,
    },
    /// An adapter made room for another: requests for it are refused until it is published
    /// again.
    GivenUp {
        /// The adapter.
        adapter: u64,
    },
    /// Nobody needs a version any more: what it took is free.
    Gone {
        /// The adapter, or the weights.
        adapter: Option<u64>,
        /// Its number.
        version: u64,
    },
}

/// Why a version did not come.
#[derive(Clone, Debug, PartialEq)]
pub enum Unplaced {
    /// Every slot has an adapter that stays.
    Full {
        /// How many there are.
        slots: u32,
    },
    /// It was taken back before it came.
    Withdrawn,
    /// The backend's refusal.
    Backend(Error),
}

impl fmt::Display for Unplaced {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { slots } => {
                write!(to, "all {slots} slots have adapters that are pinned, or still used")
            }
            Self::Withdrawn => write!(to, "it was taken back before it came"),
            Self::Backend(error) => error.fmt(to),
        }
    }
}

/// Sequences in flight when a version came, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Had not begun: they begin under the new version.
    pub unbegun: u32,
    /// Come to their end under the old one.
    pub waited: u32,
    /// Are computed anew.
    pub recomputed: u32,
    /// Go on over what they have.
    pub kept: u32,
    /// Have ended.
    pub aborted: u32,
}

impl Engine {
    /// Makes slots for adapters.
    pub fn with_adapters(mut self, settings: lora::Settings) -> Result<Self, OpenError> {
        super::check::range("adapters.slots", settings.slots, 1..=4096)?;
        self.device.make_slots(settings)?;
        self.versions.free = (0..settings.slots).rev().collect();
        self.slots = Some(settings);
        Ok(self)
    }

    /// Its slots for adapters, if it has some.
    pub fn adapter_settings(&self) -> Option<lora::Settings> {
        self.slots
    }

    /// Begins to bring a version of an adapter to the device, and gives its number. It is the
    /// current one when [`changes`](Self::changes) says so.
    pub fn publish(&mut self, publish: Publish) -> Result<u64, Refused> {
        let Publish { adapter, image, in_flight, pinned } = publish;
        let Some(slots) = self.slots else {
            return Err(refused("adapter", "absent: this engine has no slots for them", adapter));
        };
        if image.settings() != slots {
            let got = format!("{:?}", image.settings());
            return Err(refused("adapter", format!("packed for {slots:?}"), got));
        }
        let version = self.versions.next();
        self.staging.push_back(Staging { adapter, version, image, in_flight, pinned });
        Ok(version)
    }

    /// Takes an adapter away from those who come later; who has it keeps it to the end. Says
    /// whether there was one.
    pub fn withdraw(&mut self, adapter: u64) -> bool {
        let came = self.take_back(|staging| staging.adapter == adapter);
        let Some(current) = self.versions.current.remove(&adapter) else { return came };
        let unused = self.versions.drop_adapter(current.version);
        self.let_go(unused.into_iter().collect());
        true
    }

    /// Gives up the versions of an adapter that are not there yet. Says whether some were on
    /// their way.
    pub fn unpublish(&mut self, adapter: u64) -> bool {
        self.take_back(|staging| staging.adapter == adapter)
    }

    /// Whether requests may ask for an adapter.
    pub fn has_adapter(&self, adapter: u64) -> bool {
        self.versions.current.contains_key(&adapter)
    }

    fn take_back(&mut self, which: impl Fn(&Staging) -> bool) -> bool {
        if self.staging.front().is_some_and(&which) {
            self.versions.free.extend(self.staged.take().map(|work| work.slot()));
        }
        let all = std::mem::take(&mut self.staging).into_iter();
        let (gone, left): (Vec<_>, Vec<_>) = all.partition(which);
        self.staging = left.into();
        let failed = |staging: &Staging| Change::Failed {
            adapter: Some(staging.adapter),
            version: staging.version,
            why: Unplaced::Withdrawn,
        };
        self.changes.extend(gone.iter().map(failed));
        !gone.is_empty()
    }

    /// What became of versions since the last call.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whether a version is on its way.
    pub fn is_changing(&self) -> bool {
        !self.staging.is_empty()
    }

    /// Every answer that runs gives its pages back and waits: what it has is computed anew.
    pub fn retract(&mut self) {
        let running: Vec<u64> = self.running.keys().copied().collect();
        running.into_iter().for_each(|id| self.unseat(id));
    }

    /// Brings the next version on its way, and swaps it in when it is there whole; `rests`
    /// says that nothing is computed meanwhile. Says whether there is something to tell.
    pub(super) fn advance(&mut self, rests: bool) -> bool {
        let alone = rests || (self.running.is_empty() && self.waiting.is_empty());
        let bytes = if alone { ALONE_BYTES } else { BESIDE_BYTES };
        let Some(next) = self.staging.front() else { return false };
        let (adapter, version) = (next.adapter, next.version);
        match self.stage(bytes, rests) {
            Ok(false) => return false,
            Ok(true) => {
                let staging = self.staging.pop_front().expect("it was staged");
                let work = self.staged.take().expect("it was staged");
                self.swap(&staging, work.slot());
            }
            Err(why) => {
                self.staging.pop_front();
                let work = self.staged.take();
                self.versions.free.extend(work.map(|work| work.slot()));
                self.changes.push(Change::Failed { adapter: Some(adapter), version, why });
            }
        }
        true
    }

    /// Writes so much more of the next version; whether it is there whole.
    fn stage(&mut self, bytes: usize, rests: bool) -> Result<bool, Unplaced> {
        let image = self.staging.front().expect("it is next").image.clone();
        if self.staged.is_none() {
            let Some(slot) = self.slot() else {
                let slots = self.slots.map_or(0, |settings| settings.slots);
                // Who is answered will end, unless nothing goes on; an adapter that is pinned
                // stays, and so does what an episode has.
                let ends = !rests && !self.groups.is_empty();
                return if ends { Ok(false) } else { Err(Unplaced::Full { slots }) };
            };
            self.staged = Some(lora::Work::new(slot));
            self.device.make_room(&image).map_err(Unplaced::Backend)?;
        }
        let work = self.staged.as_mut().expect("it was begun");
        self.device.stage(&image, work, bytes).map_err(Unplaced::Backend)
    }

    /// A slot that nobody has; an adapter that nobody uses gives up its own.
    fn slot(&mut self) -> Option<u32> {
        if self.versions.free.is_empty() {
            let adapter = self.versions.longest_unused()?;
            let current = self.versions.current.remove(&adapter).expect("it is current");
            self.changes.push(Change::GivenUp { adapter });
            let unused = self.versions.drop_adapter(current.version);
            self.let_go(unused.into_iter().collect());
        }
        self.versions.free.pop()
    }

    /// From now on requests for the adapter have this version.
    fn swap(&mut self, staging: &Staging, slot: u32) {
        let begun = Instant::now();
        let &Staging { adapter, version, in_flight, pinned, .. } = staging;
        let of_its_base = staging.image.is_of_its_base();
        self.versions.adapters.insert(version, Version { adapter, slot, users: 0, of_its_base });
        let current = Current { version, pinned, last_used: self.step };
        let old = self.versions.current.insert(adapter, current);
        let moved = self.move_all(in_flight, |policy, of| {
            (of == Some(adapter)).then_some(Policy { adapter: Some(version), ..policy })
        });
        let unused = old.and_then(|old| self.versions.drop_adapter(old.version));
        self.let_go(unused.into_iter().collect());
        let took = begun.elapsed();
        self.changes.push(Change::Current { adapter: Some(adapter), version, moved, took });
    }

    /// Serves other weights of the same shape from now on, which were made ready aside, and
    /// gives their number.
    pub fn replace_weights(
        &mut self,
        (aside, model): (Aside, Model),
        in_flight: InFlight,
    ) -> Result<u64, OpenError> {
        if model.config() != self.config() {
            let got = "a model of another shape";
            return Err(refused("model", "of the shape that is served", got).into());
        }
        let begun = Instant::now();
        let version = self.versions.next();
        self.device.add_model(version, aside, model)?;
        let old = std::mem::replace(&mut self.versions.current_weights, version);
        self.versions.weights.insert(version, 0);
        // An adapter that was made of the old weights' numbers stays with them.
        let tied: Vec<u64> = self.versions.tied().collect();
        let moved = self.move_all(in_flight, |policy, _| {
            let stays = policy.adapter.is_some_and(|adapter| tied.contains(&adapter));
            (!stays).then_some(Policy { weights: version, ..policy })
        });
        let unused = self.versions.drop_weights(old);
        self.let_go(unused.into_iter().collect());
        let took = begun.elapsed();
        self.changes.push(Change::Current { adapter: None, version, moved, took });
        Ok(version)
    }

    /// Has sequences go on by another policy; which one, is told by the one they have and
    /// their adapter.
    fn move_all(
        &mut self,
        in_flight: InFlight,
        to: impl Fn(Policy, Option<u64>) -> Option<Policy>,
    ) -> Moved {
        let mut moved = Moved::default();
        let ids: Vec<u64> = self.running.keys().chain(self.waiting.keys()).copied().collect();
        let mut aborted = Vec::new();
        for id in ids {
            let sequence = self.sequence(id);
            let (request, begun, now) = (sequence.request, sequence.begun, sequence.policy());
            let adapter = self.groups[&request].request.adapter;
            let episode = sequence.episode.map(|id| self.episodes[&id].on_swap);
            let Some(next) = to(now, adapter) else { continue };
            match episode.map_or(in_flight, OnSwap::in_flight) {
                _ if !begun => {
                    self.begin_anew(id, next);
                    moved.unbegun += 1;
                }
                InFlight::Wait => moved.waited += 1,
                InFlight::Recompute => {
                    self.recompute(id, next);
                    moved.recomputed += 1;
                }
                InFlight::Keep => {
                    self.keep(id, next);
                    moved.kept += 1;
                }
                InFlight::Abort => {
                    moved.aborted += 1;
                    if !aborted.contains(&request) {
                        aborted.push(request);
                    }
                }
            }
        }
        aborted.into_iter().for_each(|request| self.end_group(request, &Finish::Aborted));
        self.move_episodes(&to);
        moved
    }

    /// A sequence of which nothing is computed, or nothing counts, has another policy.
    fn begin_anew(&mut self, id: u64, policy: Policy) {
        self.set_spans(id, vec![Span { from: 0, policy }]);
        if let Some(sequence) = self.waiting.get_mut(&id) {
            self.memory.shorten(sequence, 0);
            (sequence.resumed, sequence.probed) = (0, None);
        }
    }

    /// A sequence waits until all of it is computed by another policy.
    fn recompute(&mut self, id: u64, policy: Policy) {
        self.unseat(id);
        self.begin_anew(id, policy);
        let request = self.sequence(id).request;
        let group = self.groups.get_mut(&request).expect("a sequence has a request");
        group.forget_scores();
    }

    /// A sequence goes on by another policy over what it has.
    fn keep(&mut self, id: u64, policy: Policy) {
        let sequence = self.sequence(id);
        // What was told of it was computed once: pushed aside, it is computed again as it was.
        let told = match sequence.generated().is_empty() {
            true => sequence.before.saturating_sub(1),
            false => sequence.tokens.len() - 1,
        };
        let from = sequence.computed().max(told);
        if from == 0 {
            return self.begin_anew(id, policy);
        }
        let mut spans = sequence.spans.clone();
        // A span of which nothing was computed is none.
        spans.retain(|span| span.from < from);
        spans.push(Span { from, policy });
        self.set_spans(id, spans);
        // What it computes from now on is nobody else's.
        if let Some(sequence) = self.running.get_mut(&id) {
            self.memory.abandon(sequence);
        }
    }

    fn set_spans(&mut self, id: u64, spans: Vec<Span>) {
        self.versions.hold(&spans);
        let sequence = self.running.get_mut(&id).or_else(|| self.waiting.get_mut(&id));
        let sequence = sequence.expect("it lives");
        let group = &self.groups[&sequence.request];
        sequence.scope = scope(spans[0].policy, group.request.adapter, &group.request.salt);
        sequence.told = sequence.told.min(spans.len() - 1);
        let old = std::mem::replace(&mut sequence.spans, spans);
        let unused = self.versions.release(&old);
        self.let_go(unused);
    }

    /// Nobody needs these versions any more.
    pub(super) fn let_go(&mut self, unused: Vec<Unused>) {
        for unused in unused {
            let (adapter, version) = match unused {
                Unused::Weights(version) => (None, version),
                Unused::Adapter { adapter, version } => (Some(adapter), version),
            };
            let stale = |scope: &Scope| match adapter {
                None => scope.weights == version,
                Some(_) => scope.adapter_version == version,
            };
            self.memory.index.forget(&mut self.memory.pages, stale);
            if adapter.is_none() {
                self.device.drop_model(version);
            }
            self.changes.push(Change::Gone { adapter, version });
        }
    }

    fn sequence(&self, id: u64) -> &Sequence {
        self.running.get(&id).or_else(|| self.waiting.get(&id)).expect("it lives")
    }
}

/// What the keys and values of a policy are found by.
pub(super) fn scope(policy: Policy, adapter: Option<u64>, salt: &Arc<[u8]>) -> Scope {
    Scope {
        weights: policy.weights,
        adapter: adapter.map_or(0, |adapter| adapter + 1),
        adapter_version: policy.adapter.unwrap_or(0),
        salt: salt.clone(),
    }
}
