//! Why a checkpoint cannot be opened, or an adapter not be written.

use std::fmt;
use std::path::{Path, PathBuf};

/// A refusal of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The file, or the folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It cannot be read, in the system's words.
    Unreadable(String),
    /// It cannot be written, in the system's words or ours.
    Unwritable(String),
    /// It is not what its name says.
    Malformed(String),
    /// A field of a configuration.
    Field {
        /// Its name in the file.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// A tensor.
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// A refusal.
    pub fn new(path: &Path, fault: Fault) -> Self {
        Self { path: path.to_owned(), fault }
    }

    /// The system did not give the file.
    pub fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self::new(path, Fault::Unreadable(error.to_string()))
    }

    /// The system did not take the file.
    pub fn unwritable(path: &Path, error: &std::io::Error) -> Self {
        Self::new(path, Fault::Unwritable(error.to_string()))
    }

    /// The file is not what its name says.
    pub fn malformed(path: &Path, what: impl ToString) -> Self {
        Self::new(path, Fault::Malformed(what.to_string()))
    }

    /// A tensor of the file cannot be.
    pub fn tensor(path: &Path, tensor: &str, what: impl ToString) -> Self {
        let (tensor, what) = (short(tensor.to_owned()), what.to_string());
        Self::new(path, Fault::Tensor { tensor, what })
    }
}

/// What a file says, for people to read: files may hold names as long as themselves.
pub fn short(mut text: String) -> String {
    const LEN_MAX: usize = 500;
    if text.len() > LEN_MAX {
        text.truncate(text.floor_char_boundary(LEN_MAX));
        text.push('…');
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: ", self.path.display())?;
        match &self.fault {
            Fault::Unreadable(why) => write!(to, "cannot be read: {why}"),
            Fault::Unwritable(why) => write!(to, "cannot be written: {why}"),
            Fault::Malformed(what) => write!(to, "{what}"),
            Fault::Field { field, expected, got } => {
                write!(to, "{field} must be {expected}, not {got}")
            }
            Fault::Tensor { tensor, what } => write!(to, "tensor {tensor} {what}"),
        }
    }
}

impl std::error::Error for Error {}
