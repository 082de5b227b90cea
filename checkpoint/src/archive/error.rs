//! What an archive refuses.

use std::fmt;
use std::path::PathBuf;

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A file or folder is not what it must be, or the system did not take it.
    File(crate::Error),
    /// Another process, or another part of this one, has the archive open.
    Locked {
        /// The archive's folder.
        folder: PathBuf,
    },
    /// No such version: it never was, or has gone.
    Unknown {
        /// The number that was asked for.
        id: u64,
    },
    /// Something that was said of a version.
    Field {
        /// Its name.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
}

impl Error {
    pub(super) fn field(field: &'static str, expected: impl ToString, got: impl ToString) -> Self {
        Self::Field { field, expected: expected.to_string(), got: got.to_string() }
    }
}

impl From<crate::Error> for Error {
    fn from(error: crate::Error) -> Self {
        Self::File(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(to),
            Self::Locked { folder } => {
                write!(to, "{}: another process has this archive open", folder.display())
            }
            Self::Unknown { id } => write!(to, "there is no checkpoint {id}"),
            Self::Field { field, expected, got } => {
                write!(to, "{field} must be {expected}, not {got}")
            }
        }
    }
}

impl std::error::Error for Error {}
