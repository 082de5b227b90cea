//! The store as others see it: appending, reading, waiting.

use crate::index::{Index, Place};
use crate::log::Log;
use crate::query::{Exported, Filter, Query};
use crate::record::{self, Draft};
use crate::{Damage, Error, Fault, Id, Settings, Syncing, Trajectory};
use crate::{check, segment, segment::Lock};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Trajectories in a folder, open for reading and writing.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    sync: Syncing,
    damages: Vec<Damage>,
    log: Mutex<Log>,
    /// Something was acknowledged, or a sync has ended.
    changed: Condvar,
    /// Held as long as the store.
    _lock: Lock,
}

/// How a store stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Trajectories in it.
    pub count: u64,
    /// Their rewards.
    pub rewards: u64,
    /// Bytes of its segments.
    pub bytes: u64,
    /// How many segments those are.
    pub segments: u64,
    /// Trajectories that made room for others, since the store was made.
    pub dropped: u64,
    /// The least id in it.
    pub oldest: Option<Id>,
    /// The greatest id in it.
    pub newest: Option<Id>,
}

impl Store {
    /// Opens the store in a folder, which is made if it is not there. All segments are read:
    /// [`Store::damages`] says what was not whole.
    pub fn open(folder: &Path, settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        segment::create_folder(folder)?;
        let lock = segment::lock(folder)?;
        let (log, damages) = Log::open(folder.to_owned(), settings)?;
        Ok(Self {
            folder: folder.to_owned(),
            sync: settings.sync,
            damages,
            log: Mutex::new(log),
            changed: Condvar::new(),
            _lock: lock,
        })
    }

    /// What was not whole when the store was opened, in order.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Keeps a trajectory, and gives it its id. When this returns it is acknowledged, as
    /// [`Settings::sync`] says.
    pub fn append(&self, trajectory: &Trajectory) -> Result<Id, Error> {
        let mut draft = Draft::trajectory(trajectory)?;
        let log = self.turn(draft.len());
        self.write(log, &mut draft, None)
    }

    /// Gives a trajectory a reward, acknowledged as a trajectory is. All are kept.
    pub fn reward(&self, id: Id, value: f64, by: &str) -> Result<(), Error> {
        let mut draft = Draft::reward(value, by)?;
        let log = self.turn(draft.len());
        if log.index.find(id).is_none() {
            return Err(Error::Unknown { id });
        }
        self.write(log, &mut draft, Some(id)).map(|_| ())
    }

    /// The trajectory of that id, with its rewards; `None` if there is none.
    pub fn get(&self, id: Id) -> Result<Option<Trajectory>, Error> {
        let place = {
            let log = self.log();
            log.index.find(id).map(|(segment, entry)| log.index.place(segment, entry))
        };
        place.map_or(Ok(None), |place| self.read(place, &mut None))
    }

    /// The trajectories that a filter lets through, ids ascending. Those that come while it
    /// is read are not part of it.
    pub fn query(&self, filter: Filter) -> Result<Query<'_>, Error> {
        if let Some(value) = filter.min_reward {
            check::reward(value, "").map_err(|_| Error::field("min_reward", "finite", value))?;
        }
        Ok(Query::new(self, filter))
    }

    /// Writes what a filter lets through, one JSON object a line. Records that are damaged
    /// are told and left out.
    pub fn export(&self, filter: Filter, to: &mut dyn Write) -> Result<Exported, Error> {
        self.query(filter)?.export(to)
    }

    /// Waits for a trajectory with an id above `id`, for `timeout` at most: the greatest
    /// id then, if it is above.
    pub fn wait_beyond(&self, id: Id, timeout: Duration) -> Option<Id> {
        let none = |log: &mut Log| log.index.newest().is_none_or(|newest| newest <= id);
        let waited = self.changed.wait_timeout_while(self.log(), timeout, none);
        let (log, _) = waited.unwrap_or_else(PoisonError::into_inner);
        log.index.newest().filter(|newest| *newest > id)
    }

    /// Sees to it that the disk has all that was acknowledged.
    pub fn sync(&self) -> Result<(), Error> {
        let log = self.log();
        let end = log.written;
        self.settle(log, end)
    }

    /// How it stands.
    pub fn stats(&self) -> Stats {
        let log = self.log();
        let index = &log.index;
        Stats {
            count: index.len(),
            rewards: index.rewards_len(),
            bytes: log.used,
            segments: index.segments().len() as u64,
            dropped: log.dropped(),
            oldest: index.oldest(),
            newest: index.newest(),
        }
    }

    /// What is in the store, while nobody else changes it.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Index) -> T) -> T {
        at(&self.log().index)
    }

    /// Reads a trajectory. `None`: it made room for others meanwhile. `file` is the segment
    /// that was read last, for whoever reads many.
    pub(crate) fn read(
        &self,
        place: Place,
        file: &mut Option<(u64, File)>,
    ) -> Result<Option<Trajectory>, Error> {
        let path = segment::path(&self.folder, place.segment);
        let io = Error::io(&path, "read");
        let (_, open) = match file.take().filter(|(number, _)| *number == place.segment) {
            Some(open) => file.insert(open),
            None => match File::open(&path) {
                Ok(open) => file.insert((place.segment, open)),
                Err(error) if error.kind() == ErrorKind::NotFound && self.went(place.id) => {
                    return Ok(None);
                }
                Err(error) => return Err(io(error)),
            },
        };
        open.seek(SeekFrom::Start(place.at)).map_err(&io)?;
        let mut bytes = Vec::new();
        open.take(place.len).read_to_end(&mut bytes).map_err(&io)?;
        let Some(trajectory) = record::read(&bytes, place.segment, place.id) else {
            let (segment, at, bytes) = (place.segment, place.at, place.len);
            return Err(Error::Damaged(Damage { segment, at, bytes, fault: Fault::Corrupt }));
        };
        Ok(Some(Trajectory { rewards: place.rewards, ..trajectory }))
    }

    fn went(&self, id: Id) -> bool {
        self.log().index.find(id).is_none()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log, once a frame of that length may be written.
    fn turn(&self, len: u64) -> MutexGuard<'_, Log> {
        let busy = |log: &mut Log| log.syncing && log.turns(len);
        let waited = self.changed.wait_while(self.log(), busy);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn write<'a>(
        &'a self,
        mut log: MutexGuard<'a, Log>,
        draft: &mut Draft,
        of: Option<Id>,
    ) -> Result<Id, Error> {
        let synced = log.synced;
        let written = log.write(draft, of);
        if log.synced > synced {
            // A segment ended, and with it the wait of all who have written to it.
            self.changed.notify_all();
        }
        let (id, end) = (written?, log.written);
        let due = match self.sync {
            Syncing::Always => true,
            Syncing::Batched { bytes } => {
                log.acknowledge(end);
                self.changed.notify_all();
                end - log.synced > bytes
            }
        };
        if due {
            self.settle(log, end)?;
        }
        Ok(id)
    }

    /// Waits until the disk has what was written up to `end`. Whoever comes first syncs for
    /// all who have written by then; who comes meanwhile waits, and one of them is the next.
    fn settle<'a>(&'a self, mut log: MutexGuard<'a, Log>, end: u64) -> Result<(), Error> {
        while log.synced < end {
            if let Some(cause) = &log.broken {
                return Err(Error::Broken { cause: Box::new(cause.clone()) });
            }
            if log.syncing {
                log = self.changed.wait(log).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            log.syncing = true;
            let (file, path, written) = (log.file.clone(), log.path(), log.written);
            drop(log);
            let synced = file.sync_data().map_err(Error::io(&path, "sync"));
            log = self.log();
            log.syncing = false;
            match synced {
                Ok(()) => log.settle(written),
                Err(error) => log.broken = Some(error),
            }
            self.changed.notify_all();
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Nobody is left to tell. What was promised does not hang on it: `Syncing::Always` has
        // nothing that waits.
        let _ = self.sync();
    }
}
