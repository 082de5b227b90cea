//! What a store refuses, and what it finds spoilt.

use crate::Id;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A field of a trajectory, of a reward or of the settings.
    Field {
        /// Its name.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// The store is at its cap.
    Full {
        /// Bytes that it has.
        used: u64,
        /// Bytes that were asked for.
        asked: u64,
        /// Bytes that it may have.
        cap: u64,
    },
    /// No such trajectory: it never was, or made room for others.
    Unknown {
        /// The number that was asked for.
        id: Id,
    },
    /// Another process, or another part of this one, has the store open.
    Locked {
        /// The store's folder.
        folder: PathBuf,
    },
    /// A segment was written in another layout.
    Version {
        /// The segment.
        path: PathBuf,
        /// The version that is read here.
        expected: u32,
        /// The version that it has.
        got: u32,
    },
    /// A record was whole when the store was opened and no longer is.
    Damaged(Damage),
    /// The system did not do something.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was asked for.
        doing: &'static str,
        /// The kind of failure.
        kind: io::ErrorKind,
        /// The system's words.
        why: String,
    },
    /// An earlier write could not be made durable or taken back, so that nobody knows what
    /// the disk holds: nothing more is appended until the store is opened again.
    Broken {
        /// The failure.
        cause: Box<Error>,
    },
}

/// Bytes of a segment that are no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The number of the segment, which is the name of its file.
    pub segment: u64,
    /// Where they begin.
    pub at: u64,
    /// How many there are.
    pub bytes: u64,
    /// What they are.
    pub fault: Fault,
}

/// What damaged bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The end of the last segment, written by halves: it was cut off.
    Tail,
    /// Records that do not fit their checksums: they were skipped.
    Corrupt,
    /// The head of a segment; its records were read all the same.
    Head,
    /// The whole segment: there is no such file, though there are some before and after it.
    Missing,
}

impl Error {
    pub(crate) fn field(
        field: impl Into<String>,
        expected: impl ToString,
        got: impl ToString,
    ) -> Self {
        Self::Field { field: field.into(), expected: expected.to_string(), got: got.to_string() }
    }

    /// For `map_err`: the system did not do something to a path.
    pub(crate) fn io<'a>(path: &'a Path, doing: &'static str) -> impl Fn(io::Error) -> Self + 'a {
        move |error| {
            let (path, kind, why) = (path.to_owned(), error.kind(), error.to_string());
            Self::Io { path, doing, kind, why }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field { field, expected, got } => {
                write!(to, "{field} must be {expected}, not {got}")
            }
            Self::Full { used, asked, cap } => {
                write!(to, "the store is full: {used} bytes and {asked} more pass its cap of {cap}")
            }
            Self::Unknown { id } => write!(to, "there is no trajectory {id}"),
            Self::Locked { folder } => {
                write!(to, "{}: another process has this store open", folder.display())
            }
            Self::Version { path, expected, got } => {
                write!(to, "{}: version must be {expected}, not {got}", path.display())
            }
            Self::Damaged(damage) => write!(to, "{damage}"),
            Self::Io { path, doing, why, .. } => {
                write!(to, "{}: cannot {doing}: {why}", path.display())
            }
            Self::Broken { cause } => write!(to, "nothing is appended since this failed: {cause}"),
        }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Damage {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, at, bytes, fault } = self;
        match fault {
            Fault::Tail => write!(to, "segment {segment}: {bytes} bytes at {at} were torn: cut"),
            Fault::Corrupt => {
                write!(to, "segment {segment}: {bytes} bytes at {at} are corrupt: skipped")
            }
            Fault::Head => write!(to, "segment {segment}: its first {bytes} bytes are corrupt"),
            Fault::Missing => write!(to, "segment {segment} is missing"),
        }
    }
}
