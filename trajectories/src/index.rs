//! What a store holds in memory: where each trajectory is, what it is searched by, and
//! the rewards.

use crate::record::{Given, Keys};
use crate::{Id, Reward};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// All trajectories that were acknowledged.
#[derive(Debug, Default)]
pub struct Index {
    segments: VecDeque<Segment>,
    rewards: HashMap<Id, Vec<Reward>>,
    /// Texts that entries and rewards share.
    names: HashSet<Arc<str>>,
}

/// A segment, and the trajectories in it.
#[derive(Debug)]
pub struct Segment {
    pub number: u64,
    /// No trajectory in it has an id below this; none in an earlier segment has this or more.
    pub first: Id,
    /// Its length.
    pub bytes: u64,
    /// Ids ascend.
    entries: Vec<Entry>,
}

/// A trajectory.
#[derive(Debug)]
pub struct Entry {
    pub id: Id,
    /// Where its frame begins.
    pub at: u64,
    /// Bytes of its frame.
    pub len: u64,
    pub group: Option<Arc<str>>,
    pub session: Option<Arc<str>>,
    pub model: Arc<str>,
    pub versions: Box<[Arc<str>]>,
}

/// Where a trajectory is, and its rewards.
#[derive(Debug)]
pub struct Place {
    pub id: Id,
    pub segment: u64,
    pub at: u64,
    pub len: u64,
    pub rewards: Vec<Reward>,
}

impl Segment {
    /// Its first id is what its head says; without one, that of its first trajectory.
    pub fn starts(&mut self, head: Option<Id>) {
        let entry = self.entries.first().map(|entry| entry.id);
        // What a head says is no reason to lose a trajectory that is there.
        let first = [head, entry].into_iter().flatten().min();
        self.first = first.map_or(self.first, |first| first.max(self.first));
    }
}

impl Index {
    /// A trajectory from its keys, which `push` takes. `None`: these are no keys.
    pub fn entry(&mut self, id: Id, at: u64, len: u64, keys: &[u8]) -> Option<Entry> {
        let keys: Keys = rmp_serde::from_slice(keys).ok()?;
        let group = keys.group.map(|text| self.name(text));
        let session = keys.session.map(|text| self.name(text));
        let model = self.name(keys.model);
        let versions = keys.versions.iter().map(|text| self.name(text)).collect();
        Some(Entry { id, at, len, group, session, model, versions })
    }

    /// A reward from its keys, which `give` takes. `None`: these are no keys.
    pub fn reward(&mut self, keys: &[u8]) -> Option<Reward> {
        let Given { value, by } = rmp_serde::from_slice(keys).ok()?;
        Some(Reward { value, by: self.name(by) })
    }

    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.names.get(text) {
            return name.clone();
        }
        let name: Arc<str> = text.into();
        self.names.insert(name.clone());
        name
    }

    /// A new last segment.
    pub fn begin(&mut self, number: u64, first: Id, bytes: u64) {
        self.segments.push_back(Segment { number, first, bytes, entries: Vec::new() });
    }

    /// Lets go of the last segment, which holds nothing.
    pub fn unbegin(&mut self) {
        self.segments.pop_back();
    }

    /// The last segment.
    pub fn last_mut(&mut self) -> Option<&mut Segment> {
        self.segments.back_mut()
    }

    /// Adds a trajectory to the segment of that number, after all others.
    pub fn push(&mut self, segment: u64, entry: Entry) {
        if let Some(segment) = self.segments.iter_mut().rev().find(|of| of.number == segment) {
            segment.entries.push(entry);
        }
    }

    /// Adds a reward, unless its trajectory is gone.
    pub fn give(&mut self, id: Id, reward: Reward) {
        if self.find(id).is_some() {
            self.rewards.entry(id).or_default().push(reward);
        }
    }

    /// Lets go of the oldest segment.
    pub fn pop(&mut self) -> Option<Segment> {
        let segment = self.segments.pop_front()?;
        for entry in &segment.entries {
            self.rewards.remove(&entry.id);
        }
        Some(segment)
    }

    /// Lets go of names that nobody has.
    pub fn forget_names(&mut self) {
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }

    pub fn segments(&self) -> &VecDeque<Segment> {
        &self.segments
    }

    pub fn find(&self, id: Id) -> Option<(&Segment, &Entry)> {
        let after = self.segments.partition_point(|segment| segment.first <= id);
        let segment = self.segments.get(after.checked_sub(1)?)?;
        let at = segment.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        Some((segment, &segment.entries[at]))
    }

    /// Trajectories with an id above `id`, ascending.
    pub fn beyond(&self, id: Id) -> impl Iterator<Item = (&Segment, &Entry)> {
        // The one before the first that begins beyond may end beyond.
        let after = self.segments.partition_point(|segment| segment.first <= id);
        let segments = self.segments.range(after.saturating_sub(1)..);
        segments.flat_map(move |segment| {
            let from = segment.entries.partition_point(|entry| entry.id <= id);
            segment.entries[from..].iter().map(move |entry| (segment, entry))
        })
    }

    pub fn rewards(&self, id: Id) -> &[Reward] {
        self.rewards.get(&id).map_or(&[], Vec::as_slice)
    }

    pub fn place(&self, segment: &Segment, entry: &Entry) -> Place {
        let Entry { id, at, len, .. } = *entry;
        Place { id, segment: segment.number, at, len, rewards: self.rewards(id).to_vec() }
    }

    pub fn oldest(&self) -> Option<Id> {
        self.segments.iter().find_map(|segment| segment.entries.first()).map(|entry| entry.id)
    }

    pub fn newest(&self) -> Option<Id> {
        self.segments.iter().rev().find_map(|segment| segment.entries.last()).map(|entry| entry.id)
    }

    pub fn len(&self) -> u64 {
        self.segments.iter().map(|segment| segment.entries.len() as u64).sum()
    }

    pub fn rewards_len(&self) -> u64 {
        self.rewards.values().map(|rewards| rewards.len() as u64).sum()
    }
}
