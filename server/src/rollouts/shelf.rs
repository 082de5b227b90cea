//! The store of a server, and what it refuses in the words of the API.

use crate::command::sized;
use crate::config;
use crate::openai::Refusal;
use hyper::StatusCode;
use std::path::PathBuf;
use trajectories::{Error, Policy, Settings, Store};

/// A store that is open, with its bounds.
pub struct Shelf {
    /// The store.
    pub store: Store,
    folder: PathBuf,
    settings: Settings,
}

impl Shelf {
    /// Opens the store, if there is to be one. What of it is damaged is logged.
    pub fn open(settings: &config::Trajectories) -> Result<Option<Self>, Error> {
        let Some(folder) = settings.trajectory_dir.clone() else { return Ok(None) };
        let settings = settings.settings();
        let store = Store::open(&folder, settings)?;
        for damage in store.damages() {
            tracing::warn!(folder = %folder.display(), %damage, "trajectories are damaged");
        }
        Ok(Some(Self { store, folder, settings }))
    }

    /// What is there, in a line.
    pub fn described(&self) -> String {
        let stats = self.store.stats();
        let (used, cap) = (sized(stats.bytes), sized(self.settings.cap_bytes));
        format!("{} trajectories, {used} of {cap}, {}", stats.count, self.folder.display())
    }

    /// Bytes that there may be.
    pub fn bytes_max(&self) -> u64 {
        self.settings.cap_bytes
    }

    /// What happens when there are so many, in a word.
    pub fn policy(&self) -> &'static str {
        match self.settings.policy {
            Policy::Refuse => "refuse",
            Policy::DropOldest => "drop-oldest",
        }
    }

    /// Refuses what is known to find no room, whatever the answers will be.
    pub fn check_room(&self, bytes_least: u64) -> Result<(), Refusal> {
        let (used, cap) = (self.store.stats().bytes, self.settings.cap_bytes);
        let drops = self.settings.policy == Policy::DropOldest;
        let full = used.saturating_add(bytes_least) > cap;
        if drops || !full {
            return Ok(());
        }
        Err(refused(&Error::Full { used, asked: bytes_least, cap }))
    }
}

/// Why a store did not do something, in the words of the API.
pub fn refused(error: &Error) -> Refusal {
    let (status, param, code) = match error {
        Error::Field { field, .. } => {
            (StatusCode::BAD_REQUEST, Some(named(field).to_owned()), None)
        }
        Error::Unknown { .. } => {
            (StatusCode::NOT_FOUND, Some("id".to_owned()), Some("trajectory_not_found"))
        }
        Error::Full { .. } => (
            StatusCode::INSUFFICIENT_STORAGE,
            Some("collect_trajectory".to_owned()),
            Some("trajectories_full"),
        ),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, None, Some("trajectories_failed")),
    };
    let words = match error {
        Error::Field { field, expected, got } => {
            format!("{}: expected {expected}, got {got}", named(field))
        }
        Error::Full { .. } => format!(
            "{error}; --trajectory-max-bytes says how many, --trajectory-policy what happens then"
        ),
        other => other.to_string(),
    };
    let mut refusal = Refusal::new(status, words);
    (refusal.param, refusal.code) = (param, code);
    refusal
}

/// A word for a failure, by which it is counted.
pub fn reason(error: &Error) -> &'static str {
    match error {
        Error::Full { .. } => "full",
        Error::Field { .. } => "invalid",
        _ => "failed",
    }
}

/// A field of a trajectory by its name in a request.
fn named(field: &str) -> &str {
    match field {
        "group" => "group_id",
        "session" => "session_id",
        same => same,
    }
}

/// Where there is no store.
pub const NONE: &str =
    "this server keeps no trajectories: --trajectory-dir names a folder for them";
