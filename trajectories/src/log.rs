//! The writing end of a store: the last segment, the cap, and what waits for the disk.

use crate::frame::{ID_MAX, Kind};
use crate::index::{Entry, Index};
use crate::opening::Opened;
use crate::record::Draft;
use crate::segment;
use crate::{Damage, Error, Id, Policy, Reward, Settings};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// The writing end of a store.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    settings: Settings,
    /// What was acknowledged.
    pub index: Index,
    /// The last segment.
    pub file: Arc<File>,
    /// Its number.
    number: u64,
    /// The next id.
    next: Id,
    /// Bytes of all segments.
    pub used: u64,
    /// Bytes of frames that were written since opening.
    pub written: u64,
    /// Of these, the bytes that the disk has.
    pub synced: u64,
    /// Somebody syncs the last segment, without holding the log.
    pub syncing: bool,
    /// Why nothing more is written.
    pub broken: Option<Error>,
    /// What was written and not acknowledged.
    waiting: VecDeque<Waiting>,
}

/// A frame that was written.
#[derive(Debug)]
struct Waiting {
    /// `Log::written` after it.
    end: u64,
    segment: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Trajectory(Entry),
    Reward(Id, Reward),
}

impl Log {
    /// Reads all segments of a folder, cuts a torn end off, and goes on after it.
    pub fn open(folder: PathBuf, settings: Settings) -> Result<(Self, Vec<Damage>), Error> {
        let mut opened = Opened::read(&folder)?;
        let (number, file) = opened.go_on(&folder)?;
        let Opened { index, next, used, damages, .. } = opened;
        let log = Self {
            folder,
            settings,
            index,
            file: Arc::new(file),
            number,
            next,
            used,
            written: 0,
            synced: 0,
            syncing: false,
            broken: None,
            waiting: VecDeque::new(),
        };
        Ok((log, damages))
    }

    /// A frame of that length needs a new segment, or room that others must make. Nobody
    /// may be syncing then.
    pub fn turns(&self, len: u64) -> bool {
        self.bytes() + len > self.settings.segment_bytes
            || self.used + len > self.settings.cap_bytes
    }

    /// Writes a trajectory, which gets an id, or a reward of one.
    pub fn write(&mut self, draft: &mut Draft, of: Option<Id>) -> Result<Id, Error> {
        if let Some(cause) = &self.broken {
            return Err(Error::Broken { cause: Box::new(cause.clone()) });
        }
        let len = draft.len();
        self.make_room(len)?;
        if self.full(len) {
            self.turn()?;
        }

        let id = of.unwrap_or(self.next);
        if id > ID_MAX {
            return Err(Error::field("id", format!("at most {ID_MAX}"), id));
        }
        let at = self.bytes();
        let write = (&*self.file).write_all(draft.place(self.number, id));
        if let Err(error) = write {
            return Err(self.take_back(at, Error::io(&self.path(), "append")(error)));
        }
        let what = match draft.kind() {
            Kind::Trajectory => self.index.entry(id, at, len, draft.keys()).map(What::Trajectory),
            Kind::Reward => self.index.reward(draft.keys()).map(|reward| What::Reward(id, reward)),
        };
        let what = what.expect("keys that were written here are read here");
        if of.is_none() {
            self.next += 1;
        }
        self.grow(len);
        self.waiting.push_back(Waiting { end: self.written, segment: self.number, what });
        Ok(id)
    }

    /// All that was written up to a place is acknowledged.
    pub fn acknowledge(&mut self, end: u64) {
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.end <= end) {
            match waiting.what {
                What::Trajectory(entry) => self.index.push(waiting.segment, entry),
                What::Reward(id, reward) => self.index.give(id, reward),
            }
        }
    }

    /// The disk has what was written up to a place.
    pub fn settle(&mut self, end: u64) {
        self.synced = self.synced.max(end);
        self.acknowledge(self.synced);
    }

    /// Where the last segment is.
    pub fn path(&self) -> PathBuf {
        segment::path(&self.folder, self.number)
    }

    /// Trajectories that made room for others, since the store was made.
    pub fn dropped(&self) -> u64 {
        self.index.segments().front().map_or(0, |segment| segment.first - 1)
    }

    /// Length of the last segment.
    fn bytes(&self) -> u64 {
        self.index.segments().back().map_or(0, |segment| segment.bytes)
    }

    fn grow(&mut self, len: u64) {
        if let Some(segment) = self.index.last_mut() {
            segment.bytes += len;
        }
        self.used += len;
        self.written += len;
    }

    /// A frame of that length goes to a new segment.
    fn full(&self, len: u64) -> bool {
        let bytes = self.bytes();
        bytes > segment::EMPTY && bytes + len > self.settings.segment_bytes
    }

    /// Bytes that a frame of that length adds.
    fn asked(&self, len: u64) -> u64 {
        len + if self.full(len) { segment::EMPTY } else { 0 }
    }

    /// Sees to it that a frame of that length stays below the cap.
    fn make_room(&mut self, len: u64) -> Result<(), Error> {
        let (used, asked, cap) = (self.used, self.asked(len), self.settings.cap_bytes);
        if used + asked <= cap {
            return Ok(());
        }
        // Once all others are gone, it is alone in a segment.
        if self.settings.policy == Policy::Refuse || segment::EMPTY + len > cap {
            return Err(Error::Full { used, asked, cap });
        }
        while self.used + self.asked(len) > cap {
            if self.index.segments().len() == 1 {
                self.turn()?;
            }
            let Some(oldest) = self.index.segments().front() else { break };
            segment::remove(&self.folder, oldest.number)?;
            self.used -= oldest.bytes;
            self.index.pop();
        }
        self.index.forget_names();
        segment::sync_folder(&self.folder)
    }

    /// Ends the last segment and begins another.
    fn turn(&mut self) -> Result<(), Error> {
        assert!(!self.syncing, "the last segment stays while somebody syncs it");
        if let Err(error) = self.file.sync_data() {
            let error = Error::io(&self.path(), "sync")(error);
            self.broken = Some(error.clone());
            return Err(error);
        }
        self.settle(self.written);
        let number = segment::after(self.number)?;
        self.file = Arc::new(segment::create(&self.folder, number, self.next)?);
        self.number = number;
        self.index.begin(number, self.next, segment::EMPTY);
        self.used += segment::EMPTY;
        Ok(())
    }

    /// Cuts off what was written of a frame that failed.
    fn take_back(&mut self, at: u64, error: Error) -> Error {
        if self.file.set_len(at).is_err() {
            self.broken = Some(error.clone());
        }
        error
    }
}
