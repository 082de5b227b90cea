//! Reading all segments of a store when it is opened, and mending the last.

use crate::frame::{Frame, Kind};
use crate::index::Index;
use crate::scan::{Scanned, scan};
use crate::segment;
use crate::{Damage, Error, Fault, Id};
use std::fs::File;
use std::path::Path;

/// What the segments of a folder hold.
#[derive(Debug)]
pub struct Opened {
    pub index: Index,
    /// The next id.
    pub next: Id,
    /// Bytes of all segments, without a torn end.
    pub used: u64,
    pub damages: Vec<Damage>,
    last: Option<Last>,
}

/// The last segment.
#[derive(Clone, Copy, Debug)]
struct Last {
    number: u64,
    /// Its length without a torn end.
    bytes: u64,
    /// Its head is whole.
    headed: bool,
}

impl Opened {
    /// Reads all segments, and changes none.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let (index, damages) = (Index::default(), Vec::new());
        let mut opened = Self { index, next: 1, used: 0, damages, last: None };
        let numbers = segment::list(folder)?;
        for (at, &number) in numbers.iter().enumerate() {
            opened.miss(number);
            let is_last = at + 1 == numbers.len();
            opened.read_segment(folder, number, is_last)?;
        }
        Ok(opened)
    }

    /// Cuts a torn end off the last segment, and opens it to go on; or another, where its
    /// head is spoilt or there is none.
    pub fn go_on(&mut self, folder: &Path) -> Result<(u64, File), Error> {
        let number = match self.last {
            Some(Last { number, bytes, headed: true }) => {
                return Ok((number, segment::resume(folder, number, bytes)?));
            }
            // Nothing of it is whole: it was being made when the process died.
            Some(Last { number, bytes: 0, .. }) => {
                segment::remove(folder, number)?;
                self.index.unbegin();
                number
            }
            Some(Last { number, bytes, .. }) => {
                segment::resume(folder, number, bytes)?;
                segment::after(number)?
            }
            None => 1,
        };
        let file = segment::create(folder, number, self.next)?;
        self.index.begin(number, self.next, segment::EMPTY);
        self.used += segment::EMPTY;
        Ok((number, file))
    }

    /// Tells segments that are missing before this one: once, by the first of them, for a
    /// name may claim any number.
    fn miss(&mut self, number: u64) {
        if let Some(last) = self.last
            && last.number + 1 < number
        {
            let (segment, fault) = (last.number + 1, Fault::Missing);
            self.damages.push(Damage { segment, at: 0, bytes: 0, fault });
        }
    }

    fn read_segment(&mut self, folder: &Path, number: u64, is_last: bool) -> Result<(), Error> {
        // Until its head is known to be whole, all that is known of its ids is what came before.
        self.index.begin(number, self.next, 0);
        let path = segment::path(folder, number);
        let scanned = scan(&path, number, |frame, at, keys| self.take(frame, at, keys))?;
        let Scanned { head, mut bytes, mut damages, torn } = scanned;
        if is_last
            && let Some(damage) = damages.last_mut()
            && damage.at + damage.bytes == bytes
        {
            damage.fault = Fault::Tail;
            bytes = damage.at;
        }
        if let Some(segment) = self.index.last_mut() {
            segment.bytes = bytes;
            segment.starts(head.map(|head| head.first));
            self.next = self.next.max(segment.first);
        }
        // The id of a torn trajectory may have been told: it is not given again.
        self.next = torn.map_or(self.next, |torn| self.next.max(torn + 1));
        self.used += bytes;
        self.damages.append(&mut damages);
        self.last = Some(Last { number, bytes, headed: head.is_some() });
        Ok(())
    }

    /// Takes a whole frame, unless it is not where it was written: ids ascend.
    fn take(&mut self, frame: &Frame, at: u64, keys: &[u8]) -> bool {
        let taken = match frame.kind {
            Kind::Trajectory if frame.id < self.next => None,
            Kind::Trajectory => {
                let entry = self.index.entry(frame.id, at, frame.len(), keys);
                entry.map(|entry| {
                    self.index.push(frame.segment, entry);
                    self.next = frame.id + 1;
                })
            }
            Kind::Reward => {
                let reward = self.index.reward(keys);
                reward.map(|reward| self.index.give(frame.id, reward))
            }
        };
        taken.is_some()
    }
}
