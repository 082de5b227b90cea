//! Why there is no grammar of a source.

use std::fmt;

/// Why there is no grammar of a source. A client can mend all but [`Busy`](Self::Busy).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be read, or means nothing.
    Invalid {
        /// Where in it, as a JSON pointer; empty at its root.
        at: String,
        /// What is wrong.
        why: String,
    },
    /// A keyword of JSON Schema, or a field or a format of structural tags, that is not
    /// honoured, and not ignored either.
    Unsupported {
        /// Where it stands, as a JSON pointer.
        at: String,
        /// Its name, or what of it.
        keyword: String,
    },
    /// More of something than is built.
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How much it is, or how much was counted before no more was.
        got: u64,
        /// How much it may be.
        most: u64,
    },
    /// It did not compile in the time or the steps that there are.
    TooSlow,
    /// Others are compiled, and wait.
    Busy,
}

impl Refusal {
    /// The same of what stands at a place in something else.
    pub(crate) fn under(mut self, place: &str) -> Self {
        if let Self::Invalid { at, .. } | Self::Unsupported { at, .. } = &mut self {
            at.insert_str(0, place);
        }
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { at, why } if at.is_empty() => write!(to, "{why}"),
            Self::Invalid { at, why } => write!(to, "at {at}: {why}"),
            Self::Unsupported { at, keyword } => {
                let at = if at.is_empty() { "the root" } else { at };
                write!(to, "at {at}: {keyword} is not supported")
            }
            Self::TooMuch { what, got, most } => write!(to, "{got} {what}: there may be {most}"),
            Self::TooSlow => write!(to, "it takes too long to compile"),
            Self::Busy => write!(to, "too many grammars wait to be compiled"),
        }
    }
}

impl std::error::Error for Refusal {}
