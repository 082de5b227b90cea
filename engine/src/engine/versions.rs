//! Versions: which weights and which adapter each part of an answer is computed with, and
//! which of them are on the device.
//!
//! Every version of the weights and of any adapter has a number of its own, larger than all
//! before. A sequence has [`Span`]s: from which position on which [`Policy`] computes it. A
//! version is on the device as long as it is the current one or some span has it.

use crate::lora::Image;
use kernels_core::params::LORA_NONE;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What becomes of answers in flight when a version comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InFlight {
    /// They come to their end under the version they have; who comes later has the new one.
    Wait,
    /// Their keys and values are computed anew, before their next token.
    Recompute,
    /// They go on under the new version over the keys and values they have.
    Keep,
    /// They end with what they have.
    Abort,
}

/// What a row is computed with: versions by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// That of the weights.
    pub weights: u64,
    /// That of the adapter, where there is one.
    pub adapter: Option<u64>,
}

impl Policy {
    /// The version by which it is told: the adapter's, where there is one.
    pub fn version(self) -> u64 {
        self.adapter.unwrap_or(self.weights)
    }
}

/// Positions of a sequence, from one on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first of them; the next span ends it.
    pub from: usize,
    /// What computes them.
    pub policy: Policy,
}

/// What made a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The span that its position is in.
    pub span: Span,
    /// The spans before it that no token of the answer has told. Where the first span that is
    /// told begins at 0, nothing counts that was told before; where it begins later, what was
    /// told of positions before it still does.
    pub over: Vec<Span>,
}

/// The policy of a position.
pub(super) fn policy_at(spans: &[Span], position: usize) -> Policy {
    let span = spans.iter().rev().find(|span| span.from <= position);
    span.expect("the first span begins at position 0").policy
}

/// A version of an adapter that is on the device, or on its way there.
#[derive(Debug)]
pub(super) struct Version {
    /// Whose version it is.
    pub adapter: u64,
    pub slot: u32,
    /// Sequences with a span of it.
    pub users: u32,
    /// It goes with no other weights than those it was made over.
    pub of_its_base: bool,
}

/// An adapter whose version requests are given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub version: u64,
    /// Never given up for another.
    pub pinned: bool,
    /// The step it was asked for last.
    pub last_used: u64,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Versions {
    /// Sequences with a span of each version of the weights.
    pub weights: BTreeMap<u64, u32>,
    /// Those of them that requests are given.
    pub current_weights: u64,
    /// Adapters by their callers' numbers.
    pub current: HashMap<u64, Current>,
    /// Versions of adapters by their numbers.
    pub adapters: HashMap<u64, Version>,
    /// Slots that nobody has.
    pub free: Vec<u32>,
    /// The last number that was given.
    last: u64,
}

/// A version that nobody needs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unused {
    Weights(u64),
    Adapter { adapter: u64, version: u64 },
}

impl Versions {
    /// The weights of that number, and so many slots for adapters.
    pub fn new(weights: u64) -> Self {
        Self {
            weights: BTreeMap::from([(weights, 0)]),
            current_weights: weights,
            current: HashMap::new(),
            adapters: HashMap::new(),
            free: Vec::new(),
            last: weights,
        }
    }

    /// The number of the next version.
    pub fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// What a request for an adapter, or for none, is computed with from now on.
    pub fn policy(&self, adapter: Option<u64>) -> Option<Policy> {
        let adapter = match adapter {
            Some(adapter) => Some(self.current.get(&adapter)?.version),
            None => None,
        };
        Some(Policy { weights: self.current_weights, adapter })
    }

    /// The slot of a policy's adapter.
    pub fn slot(&self, policy: Policy) -> u32 {
        let version = policy.adapter.map(|version| &self.adapters[&version]);
        version.map_or(LORA_NONE, |version| version.slot)
    }

    /// One more sequence has these spans.
    pub fn hold(&mut self, spans: &[Span]) {
        let (weights, adapters) = distinct(spans);
        for version in weights {
            *self.weights.get_mut(&version).expect("a span's weights are there") += 1;
        }
        for version in adapters {
            self.adapters.get_mut(&version).expect("a span's adapter is there").users += 1;
        }
    }

    /// One sequence fewer has them. Says which versions nobody needs any more, and forgets
    /// them.
    pub fn release(&mut self, spans: &[Span]) -> Vec<Unused> {
        let (weights, adapters) = distinct(spans);
        for version in &weights {
            *self.weights.get_mut(version).expect("a span's weights are there") -= 1;
        }
        for version in &adapters {
            self.adapters.get_mut(version).expect("a span's adapter is there").users -= 1;
        }
        let adapters = adapters.into_iter().filter_map(|version| self.drop_adapter(version));
        let mut unused: Vec<Unused> = adapters.collect();
        unused.extend(weights.into_iter().filter_map(|version| self.drop_weights(version)));
        unused
    }

    /// Forgets a version of an adapter, and frees its slot, if nobody needs it.
    pub fn drop_adapter(&mut self, version: u64) -> Option<Unused> {
        let Version { adapter, slot, users, .. } = *self.adapters.get(&version)?;
        let current = self.current.get(&adapter).is_some_and(|it| it.version == version);
        if users > 0 || current {
            return None;
        }
        self.adapters.remove(&version);
        self.free.push(slot);
        Some(Unused::Adapter { adapter, version })
    }

    /// Forgets a version of the weights, if nobody needs it.
    pub fn drop_weights(&mut self, version: u64) -> Option<Unused> {
        let users = *self.weights.get(&version)?;
        if users > 0 || version == self.current_weights {
            return None;
        }
        self.weights.remove(&version);
        Some(Unused::Weights(version))
    }

    /// Versions of adapters that go with no other weights.
    pub fn tied(&self) -> impl Iterator<Item = u64> {
        self.adapters.iter().filter(|(_, it)| it.of_its_base).map(|(version, _)| *version)
    }

    /// The adapter that was not asked for longest, of those that may go: not pinned, and
    /// nobody has a version of it.
    pub fn longest_unused(&self) -> Option<u64> {
        let idle =
            |current: &Current| !current.pinned && self.adapters[&current.version].users == 0;
        let idle = self.current.iter().filter(|(_, current)| idle(current));
        idle.min_by_key(|(adapter, current)| (current.last_used, **adapter)).map(|(id, _)| *id)
    }
}

/// The versions of some spans, each once.
fn distinct(spans: &[Span]) -> (Vec<u64>, Vec<u64>) {
    let mut weights: Vec<u64> = spans.iter().map(|span| span.policy.weights).collect();
    let mut adapters: Vec<u64> = spans.iter().filter_map(|span| span.policy.adapter).collect();
    for all in [&mut weights, &mut adapters] {
        all.sort_unstable();
        all.dedup();
    }
    (weights, adapters)
}

/// An adapter's version on its way to the device.
#[derive(Debug)]
pub(super) struct Staging {
    pub adapter: u64,
    pub version: u64,
    pub image: Arc<Image>,
    pub in_flight: InFlight,
    pub pinned: bool,
}
