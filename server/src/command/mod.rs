//! What the binary does, one file for each command, and what they share.

mod action_sets;
pub mod bench;
pub mod chat;
pub mod client;
pub mod complete;
pub mod doctor;
mod drafter;
pub mod info;
mod load;
mod needs;
pub mod replay;
pub mod serve;
pub mod session;

use crate::demo;
use crate::hub;
use crate::openai::Refusal;
use crate::text;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command ended.
#[derive(Debug)]
pub enum Failure {
    /// Its output could not be written, or its input not read.
    Stream(io::Error),
    /// The model is nowhere.
    Missing(hub::Missing),
    /// Its files do not say what a model is.
    Checkpoint(checkpoint::Error),
    /// Its trajectories cannot be kept.
    Trajectories(trajectories::Error),
    /// Its versions cannot be kept.
    Archive(checkpoint::archive::Error),
    /// Its weights are not those of its configuration.
    Weights(engine::weights::LoadError),
    /// Its tokenizer or template cannot be used.
    Text(text::Error),
    /// It cannot be run so.
    Engine(engine::engine::OpenError),
    /// A setting does not fit the model.
    Setting(String),
    /// The address is taken, or not there.
    Address(String),
    /// The device is not there.
    Device(crate::backend::Refused),
    /// The device failed while it served.
    Failed(String),
    /// A thread could not be started.
    Thread(io::Error),
    /// A thread broke that nothing goes on without.
    Broken(String),
    /// It was told to end at once.
    Stopped {
        /// Answers that had not ended.
        open: usize,
    },
    /// What was asked is refused.
    Refused(Refusal),
    /// Trajectories that the server says otherwise.
    Parted {
        /// How many.
        count: usize,
    },
    /// Trajectories of which nobody knows whether the server says the same.
    Uncompared {
        /// How many.
        count: usize,
    },
    /// A server that is asked does not answer so.
    Server(String),
    /// A server is not there to be asked, or lets nobody in.
    Unasked(String),
    /// Calls that are not answered as a trainer needs it.
    Differing {
        /// How many.
        count: usize,
    },
    /// A kernel was not shown.
    Demo(demo::Failure),
}

impl fmt::Display for Failure {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(error) => write!(to, "input or output broke: {error}"),
            Self::Missing(error) => error.fmt(to),
            Self::Checkpoint(error) => error.fmt(to),
            Self::Trajectories(error) => write!(to, "--trajectory-dir: {error}"),
            Self::Archive(error) => write!(to, "--checkpoint-dir: {error}"),
            Self::Weights(error) => error.fmt(to),
            Self::Text(error) => error.fmt(to),
            Self::Engine(error) => error.fmt(to),
            Self::Device(refused) => write!(to, "--device: {refused}"),
            Self::Failed(why) => write!(to, "the device has failed: {why}"),
            Self::Thread(error) => write!(to, "no thread could be started: {error}"),
            Self::Broken(why) => write!(to, "a fault of the server ended it: {why}"),
            Self::Stopped { open } => {
                write!(to, "told to stop again: {open} answers were given up")
            }
            Self::Parted { count } => write!(to, "{count} trajectories part from the server"),
            Self::Uncompared { count } => {
                write!(to, "{count} trajectories could not be compared; none of the others parts")
            }
            Self::Differing { count } => {
                write!(to, "calls that are not answered as the trainer needs it: {count}")
            }
            Self::Demo(failure) => failure.fmt(to),
            Self::Refused(refusal) => refusal.message.fmt(to),
            Self::Setting(words)
            | Self::Address(words)
            | Self::Server(words)
            | Self::Unasked(words) => words.fmt(to),
        }
    }
}

impl Failure {
    /// What the process ends with.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Unasked(_) => ExitCode::from(2),
            Self::Uncompared { .. } => ExitCode::from(3),
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Stream(error)
    }
}

impl From<demo::Failure> for Failure {
    fn from(failure: demo::Failure) -> Self {
        match failure {
            demo::Failure::Output(error) => Self::Stream(error),
            other => Self::Demo(other),
        }
    }
}

impl From<crate::backend::Refused> for Failure {
    fn from(refused: crate::backend::Refused) -> Self {
        Self::Device(refused)
    }
}

impl From<hub::Missing> for Failure {
    fn from(error: hub::Missing) -> Self {
        Self::Missing(error)
    }
}

impl From<checkpoint::Error> for Failure {
    fn from(error: checkpoint::Error) -> Self {
        Self::Checkpoint(error)
    }
}

impl From<trajectories::Error> for Failure {
    fn from(error: trajectories::Error) -> Self {
        Self::Trajectories(error)
    }
}

impl From<checkpoint::archive::Error> for Failure {
    fn from(error: checkpoint::archive::Error) -> Self {
        Self::Archive(error)
    }
}

impl From<engine::weights::LoadError> for Failure {
    fn from(error: engine::weights::LoadError) -> Self {
        Self::Weights(error)
    }
}

impl From<text::Error> for Failure {
    fn from(error: text::Error) -> Self {
        Self::Text(error)
    }
}

impl From<engine::engine::OpenError> for Failure {
    fn from(error: engine::engine::OpenError) -> Self {
        Self::Engine(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Bytes, in a unit that reads well.
pub fn sized(bytes: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}
