//! Adapters that are served: by name, each with a version at a time over the shared base.
//!
//! A name stays known when its adapter has to make room on the device for others: the next
//! request for it brings it back from where it came. What a name has had before its current
//! version is kept for one call to return to.

mod load;
mod routes;
pub mod spelling;

pub use load::{Given, Load, whole};
pub use routes::ROUTES;

use crate::checkpoints::{self, Checkpoints, Origin, What};
use crate::openai::Refusal;
use crate::weights::Base;
use checkpoint::archive::{Of, Version};
use engine::lora::{self, Adapter, Image};
use hyper::StatusCode;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes of a name.
const NAME_BYTES_MAX: usize = 256;
/// Names that are known at once.
const NAMES_MAX: usize = 4096;

/// All names, and what is known of them.
pub struct Adapters {
    base: Arc<Base>,
    /// The name of the base, which no adapter has.
    base_name: String,
    /// The slots of the device; `None`: it has none.
    slots: Option<lora::Settings>,
    names: Mutex<BTreeMap<String, Entry>>,
    /// One comes after the other: a name has the version that came last.
    loading: tokio::sync::Mutex<()>,
    next: AtomicU64,
    /// What saves their versions, if something does.
    pub checkpoints: OnceLock<Arc<Checkpoints>>,
}

/// What is known of a name.
#[derive(Clone)]
struct Entry {
    /// The engine's number.
    number: u64,
    /// Versions that it has had.
    count: u64,
    now: Held,
    before: Option<Held>,
    pinned: bool,
}

/// A version in the host's memory.
#[derive(Clone)]
struct Held {
    from: From,
    label: Arc<str>,
    made: Made,
    /// How often the base had been replaced when it came.
    base: u64,
}

/// What is made of an adapter's files.
#[derive(Clone)]
struct Made {
    image: Arc<Image>,
    /// The adapter itself, where it may be saved.
    adapter: Option<Arc<Adapter>>,
}

/// Where an adapter came from.
#[derive(Clone, Debug)]
pub enum From {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A request.
    Request,
}

impl From {
    /// In words: a path, if it has one.
    pub fn path(&self) -> String {
        match self {
            Self::Folder(path) => path.display().to_string(),
            Self::Request => String::new(),
        }
    }
}

/// An adapter that a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// The engine's number.
    pub number: u64,
}

/// A line of the list of adapters.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// The engine's number.
    pub id: u64,
    /// Where it came from.
    pub path: String,
    /// What its version is called.
    pub version: Arc<str>,
    /// How many it has had.
    pub versions: u64,
    /// Its largest rank.
    pub rank: u32,
    /// Bytes that it takes of its slot.
    pub bytes: u64,
    /// Bytes of the host that it takes to come back, with the version before.
    pub host_bytes: u64,
    /// It never makes room for others.
    pub pinned: bool,
}

impl Adapters {
    /// None yet, over a base of that name.
    pub fn new(base: Arc<Base>, base_name: String, slots: Option<lora::Settings>) -> Self {
        Self {
            base,
            base_name,
            slots,
            names: Mutex::default(),
            loading: tokio::sync::Mutex::new(()),
            next: AtomicU64::new(1),
            checkpoints: OnceLock::new(),
        }
    }

    /// The slots of the device.
    pub fn slots(&self) -> Option<lora::Settings> {
        self.slots
    }

    /// The adapter of a name.
    pub fn find(&self, name: &str) -> Option<Known> {
        let names = self.names();
        names.get(name).map(|entry| Known { name: name.to_owned(), number: entry.number })
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<Line> {
        let names = self.names();
        names.iter().map(|(name, entry)| entry.line(name)).collect()
    }

    /// One of them.
    pub fn line(&self, name: &str) -> Option<Line> {
        self.names().get(name).map(|entry| entry.line(name))
    }

    /// The version that a name has, as checkpoints are made of it.
    pub fn saveable(&self, name: &str) -> Result<(Version, What), Refusal> {
        let entry = self.names().get(name).cloned().ok_or_else(|| unknown(name))?;
        self.saved_as(name, &entry).ok_or_else(|| unknown(name))
    }

    /// How many versions a name has had with one that comes, of which so many came here.
    fn count(&self, name: &str, origin: Origin, came: u64) -> u64 {
        let of = Of::Adapter(name.to_owned());
        self.checkpoints.get().map_or(came, |checkpoints| checkpoints.count(&of, origin, came))
    }

    fn saved_as(&self, name: &str, entry: &Entry) -> Option<(Version, What)> {
        let adapter = entry.now.made.adapter.clone()?;
        let of = Of::Adapter(name.to_owned());
        let version = checkpoints::version(of, &entry.now.label, entry.count);
        Some((version, What::Adapter(adapter, self.base.checkpoint())))
    }

    /// A version is the current one: it may have to be saved.
    async fn came(&self, origin: Origin, name: &str, entry: &Entry) {
        let saved_as = self.saved_as(name, entry);
        if let (Some(checkpoints), Some((version, what))) = (self.checkpoints.get(), saved_as) {
            checkpoints.came(origin, version, what).await;
        }
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Refuses a name that cannot be one.
    fn check_name(&self, name: &str) -> Result<(), Refusal> {
        let plain = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name.chars().any(|c| c.is_control());
        if !plain {
            let expected = format!("1 to {NAME_BYTES_MAX} bytes without control characters");
            return Err(Refusal::expected("lora_name", &expected, format!("{name:?}")));
        }
        if name == self.base_name {
            return Err(Refusal::field("lora_name", "is the name of the base model"));
        }
        let names = self.names();
        if !names.contains_key(name) && names.len() >= NAMES_MAX {
            let words = format!("{NAMES_MAX} adapters are known: unload some");
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, words));
        }
        Ok(())
    }

    /// The slots, or why there are none.
    fn must_slots(&self) -> Result<lora::Settings, Refusal> {
        self.slots.ok_or_else(|| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "this server has no slots for adapters: --max-loras makes some",
            )
        })
    }
}

impl Entry {
    fn line(&self, name: &str) -> Line {
        let before = self.before.as_ref().map_or(0, |before| before.made.bytes());
        let image = &self.now.made.image;
        Line {
            name: name.to_owned(),
            id: self.number,
            path: self.now.from.path(),
            version: self.now.label.clone(),
            versions: self.count,
            rank: image.rank(),
            bytes: image.bytes(),
            host_bytes: self.now.made.bytes() + before,
            pinned: self.pinned,
        }
    }
}

impl Made {
    /// Bytes of the host that it takes.
    fn bytes(&self) -> u64 {
        self.image.bytes() + self.adapter.as_ref().map_or(0, |adapter| adapter.bytes())
    }
}

/// No adapter has that name.
fn unknown(name: &str) -> Refusal {
    let words = format!("no adapter is called `{name}`");
    let mut refusal = Refusal::new(StatusCode::NOT_FOUND, words);
    (refusal.param, refusal.code) = (Some("lora_name".into()), Some("model_not_found"));
    refusal
}
