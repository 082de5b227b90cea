//! Which trajectories, one after the other or as lines of JSON.

use crate::index::{Entry, Index, Place};
use crate::store::Store;
use crate::{Damage, Error, Id, Trajectory};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Which trajectories: those that everything given here lets through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// These, if they are there.
    pub ids: Option<Vec<Id>>,
    /// Those with an id above this.
    pub beyond: Id,
    /// Of this group.
    pub group: Option<String>,
    /// Of this session.
    pub session: Option<String>,
    /// Of this model or adapter.
    pub model: Option<String>,
    /// With a token of this version.
    pub version: Option<String>,
    /// Whose last reward is this or more; those without one do not pass.
    pub min_reward: Option<f64>,
    /// So many at most.
    pub limit: Option<usize>,
}

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Lines that were written.
    pub lines: u64,
    /// What could not be read.
    pub damages: Vec<Damage>,
}

/// The trajectories that a filter lets through, ids ascending. After an error it goes on
/// with the next.
#[derive(Debug)]
pub struct Query<'a> {
    store: &'a Store,
    filter: Filter,
    /// Ids up to this were looked at.
    seen: Id,
    /// The last id there was when it began.
    last: Id,
    /// How many may come.
    left: usize,
    /// Those to read next.
    places: VecDeque<Place>,
    file: Option<(u64, File)>,
}

/// Places that are looked up at once, and entries that are looked at for them: nobody
/// appends meanwhile.
const PLACES: usize = 64;
const LOOKS: usize = 4096;

impl<'a> Query<'a> {
    pub(crate) fn new(store: &'a Store, mut filter: Filter) -> Self {
        if let Some(ids) = &mut filter.ids {
            ids.sort_unstable();
            ids.dedup();
        }
        let last = store.look(|index| index.newest().unwrap_or(0));
        let (seen, left) = (filter.beyond, filter.limit.unwrap_or(usize::MAX));
        Self { store, filter, seen, last, left, places: VecDeque::new(), file: None }
    }

    pub(crate) fn export(mut self, to: &mut dyn Write) -> Result<Exported, Error> {
        let mut exported = Exported::default();
        let io = Error::io(Path::new("export"), "write");
        for trajectory in &mut self {
            match trajectory {
                Ok(trajectory) => {
                    let mut line = serde_json::to_vec(&trajectory)
                        .map_err(|error| Error::field("trajectory", "writable as JSON", error))?;
                    line.push(b'\n');
                    to.write_all(&line).map_err(&io)?;
                    exported.lines += 1;
                }
                Err(Error::Damaged(damage)) => exported.damages.push(damage),
                Err(error) => return Err(error),
            }
        }
        to.flush().map_err(&io)?;
        Ok(exported)
    }

    /// Looks the next places up, until there is one or there are no more.
    fn look(&mut self) {
        let (store, filter) = (self.store, &self.filter);
        while self.places.is_empty() && self.seen < self.last {
            let most = PLACES.min(self.left);
            let found = store.look(|index| look(index, filter, self.seen, self.last, most));
            (self.places, self.seen) = found;
        }
    }
}

impl Iterator for Query<'_> {
    type Item = Result<Trajectory, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            self.look();
            let place = self.places.pop_front()?;
            // What made room for others meanwhile is not missed.
            if let Some(trajectory) = self.store.read(place, &mut self.file).transpose() {
                self.left -= 1;
                return Some(trajectory);
            }
        }
        None
    }
}

/// Some of the places that a filter lets through, of ids above `seen` and up to `last`; and
/// up to which id it looked.
fn look(index: &Index, filter: &Filter, seen: Id, last: Id, most: usize) -> (VecDeque<Place>, Id) {
    let mut places = VecDeque::new();
    let mut looked = last;
    let passes = |entry: &Entry| passes(filter, index, entry);
    match &filter.ids {
        Some(ids) => {
            let ids = &ids[ids.partition_point(|id| *id <= seen)..];
            for (looks, &id) in ids.iter().take_while(|id| **id <= last).enumerate() {
                let found = index.find(id).filter(|(_, entry)| passes(entry));
                places.extend(found.map(|(segment, entry)| index.place(segment, entry)));
                if places.len() == most || looks == LOOKS {
                    looked = id;
                    break;
                }
            }
        }
        None => {
            for (looks, (segment, entry)) in index.beyond(seen).enumerate() {
                if entry.id > last {
                    break;
                }
                if passes(entry) {
                    places.push_back(index.place(segment, entry));
                }
                if places.len() == most || looks == LOOKS {
                    looked = entry.id;
                    break;
                }
            }
        }
    }
    (places, looked)
}

fn passes(filter: &Filter, index: &Index, entry: &Entry) -> bool {
    let named = |wanted: &Option<String>, name: Option<&Arc<str>>| {
        wanted.as_deref().is_none_or(|wanted| name.is_some_and(|name| **name == *wanted))
    };
    let version = filter.version.as_deref();
    let reward = || index.rewards(entry.id).last().map(|reward| reward.value);
    named(&filter.group, entry.group.as_ref())
        && named(&filter.session, entry.session.as_ref())
        && named(&filter.model, Some(&entry.model))
        && version.is_none_or(|wanted| entry.versions.iter().any(|name| **name == *wanted))
        && filter.min_reward.is_none_or(|min| reward().is_some_and(|value| value >= min))
}
