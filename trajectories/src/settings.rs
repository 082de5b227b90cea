//! How a store is kept.

use crate::Error;

/// How a store is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes of a segment, unless one record is longer. The shorter, the less goes at once
    /// when room is made; each costs a file.
    pub segment_bytes: u64,
    /// Bytes of all segments.
    pub cap_bytes: u64,
    /// What happens at the cap.
    pub policy: Policy,
    /// When something is acknowledged.
    pub sync: Syncing,
}

/// What happens at the cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing more is appended; nothing is lost.
    Refuse,
    /// Whole segments go, the oldest first.
    DropOldest,
}

/// When something is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncing {
    /// When the disk has it: it outlives a loss of power. Threads that append at once share
    /// a sync.
    Always,
    /// When the system has it: it outlives the process. The disk has it once more than
    /// these bytes wait, when a segment ends, on [`Store::sync`](crate::Store::sync) and
    /// when the store is dropped.
    Batched {
        /// Bytes that wait for the disk at most.
        bytes: u64,
    },
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            cap_bytes: 16 << 30,
            policy: Policy::Refuse,
            sync: Syncing::Always,
        }
    }
}

impl Settings {
    /// Bytes of a segment at least.
    pub const SEGMENT_BYTES_MIN: u64 = 1 << 10;

    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self { segment_bytes, cap_bytes, .. } = *self;
        if segment_bytes < Self::SEGMENT_BYTES_MIN {
            let expected = format!("at least {}", Self::SEGMENT_BYTES_MIN);
            return Err(Error::field("segment_bytes", expected, segment_bytes));
        }
        // With less than two segments, making room would drop all there is.
        if segment_bytes > cap_bytes / 2 {
            let expected = format!("at most half of cap_bytes, {}", cap_bytes / 2);
            return Err(Error::field("segment_bytes", expected, segment_bytes));
        }
        Ok(())
    }
}
