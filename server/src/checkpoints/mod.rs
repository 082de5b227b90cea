//! Versions that outlive the server: an archive, and a thread beside the engine that writes
//! into it. No step waits for a disk; where the disk is slower than versions come, those who
//! publish them wait.

mod resume;
mod routes;

pub use resume::resume;
pub use routes::ROUTES;

use crate::metrics::Metrics;
use crate::openai::Refusal;
use checkpoint::archive::{Archive, Error, Of, Saved, Version};
use checkpoint::{Checkpoint, Fault};
use engine::lora::Adapter;
use hyper::StatusCode;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// How far the thread that writes stands back.
const BACK: i32 = 10;
/// Versions that wait for it, at most.
const WAITING_MAX: usize = 4;

/// The archive of a server.
pub struct Checkpoints {
    archive: Arc<Archive>,
    /// Every so many versions of a name one is saved by itself; 0: none.
    every: u64,
    /// How many versions names have had here: the thread writes it later.
    counts: Mutex<BTreeMap<Of, u64>>,
    to: mpsc::Sender<Job>,
}

/// The model that versions are of.
pub struct Served {
    /// Its name.
    pub name: String,
    /// The text of its configuration.
    pub config: Vec<u8>,
}

/// Where a version comes from.
#[derive(Clone, Copy, Debug, Default)]
pub enum Origin {
    /// Somebody publishes it.
    #[default]
    Published,
    /// It is there from the start.
    Start,
    /// The archive.
    Saved {
        /// Its number there.
        id: u64,
    },
}

/// What is saved of a version.
pub enum What {
    /// An adapter over a base.
    Adapter(Arc<Adapter>, Arc<Checkpoint>),
    /// Weights.
    Weights(Arc<Checkpoint>),
}

enum Job {
    Save { version: Version, what: What, done: Option<oneshot::Sender<Result<Saved, Error>>> },
    Renew { id: u64, version: Version },
    Count { version: Version },
}

impl Checkpoints {
    /// Starts the thread; it ends when nobody can reach it any more, and has written by then.
    pub fn start(
        archive: Archive,
        every: u64,
        served: Served,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<(Arc<Self>, JoinHandle<()>)> {
        let archive = Arc::new(archive);
        let (to, mut inbox) = mpsc::channel(WAITING_MAX);
        let writer = Writer { archive: archive.clone(), served, metrics };
        let thread = std::thread::Builder::new().name("checkpoints".into()).spawn(move || {
            grammar::stand_back(BACK);
            while let Some(job) = inbox.blocking_recv() {
                writer.work(job);
            }
        })?;
        Ok((Arc::new(Self { archive, every, counts: Mutex::default(), to }), thread))
    }

    /// A version is the current one of its name: it is saved, if its turn has come, or, if it
    /// comes from the archive, is the latest there again. Calls of one name come in the order
    /// in which its versions did.
    pub async fn came(&self, origin: Origin, version: Version, what: What) {
        self.counts().insert(version.of.clone(), version.count);
        let job = match origin {
            Origin::Published if self.every > 0 && version.count.is_multiple_of(self.every) => {
                Job::Save { version, what, done: None }
            }
            Origin::Published => Job::Count { version },
            Origin::Start => return,
            Origin::Saved { id } => Job::Renew { id, version },
        };
        // Where the thread is no more, it has said why.
        let _ = self.to.send(job).await;
    }

    /// A version serves that somebody else keeps: it counts, and no more.
    pub async fn passed(&self, version: Version) {
        self.counts().insert(version.of.clone(), version.count);
        let _ = self.to.send(Job::Count { version }).await;
    }

    /// How many versions a name has had with the one that comes, of which so many came while
    /// this server runs: it counts on from what others had before.
    pub fn count(&self, of: &Of, origin: Origin, came: u64) -> u64 {
        let here = self.counts().get(of).copied().unwrap_or(0);
        let before = self.archive.count(of).max(here);
        match origin {
            // The first that is served again is the one that was there last.
            Origin::Saved { .. } if came == 1 => before.max(1),
            _ => came.max(before + 1),
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Of, u64>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves a version that somebody asks for.
    pub async fn save(&self, version: Version, what: What) -> Result<Saved, Refusal> {
        let (done, saved) = oneshot::channel();
        let _ = self.to.send(Job::Save { version, what, done: Some(done) }).await;
        let broken = |_| Refusal::internal("the writer of checkpoints has stopped");
        saved.await.map_err(broken)?.map_err(|error| refused(&error))
    }
}

struct Writer {
    archive: Arc<Archive>,
    served: Served,
    metrics: Arc<Metrics>,
}

impl Writer {
    fn work(&self, job: Job) {
        match job {
            Job::Save { version, what, done } => {
                let saved = self.save(version, &what);
                if let Some(done) = done {
                    // Whoever asked may have gone.
                    let _ = done.send(saved);
                }
            }
            Job::Renew { id, version } => {
                self.count(&version);
                if let Err(error) = self.archive.renew(id, &version.label) {
                    tracing::warn!(%error, "a checkpoint that serves again is not the latest");
                }
            }
            Job::Count { version } => self.count(&version),
        }
    }

    fn count(&self, version: &Version) {
        if let Err(error) = self.archive.counted(&version.of, version.count) {
            tracing::warn!(%error, "the next server may give a version's name again");
        }
    }

    fn save(&self, version: Version, what: &What) -> Result<Saved, Error> {
        let (begun, label) = (Instant::now(), version.label.clone());
        let saved = match what {
            What::Adapter(adapter, base) => {
                let model = (&base.config, &*self.served.name);
                self.archive.save_adapter(version, adapter, model, &[])
            }
            What::Weights(checkpoint) => {
                let tensors = &checkpoint.tensors;
                let saved = self.archive.save_weights(version, tensors, &self.served.config);
                // What was read of files can be read again.
                checkpoint.let_go();
                saved
            }
        };
        let counts = &self.metrics.checkpoints;
        match &saved {
            Ok(saved) => {
                counts.saved(saved.bytes(), begun.elapsed());
                tracing::info!(id = saved.id, version = label, "a checkpoint is saved");
            }
            Err(error) => {
                counts.failed();
                tracing::error!(%error, version = label, "a checkpoint is not saved");
            }
        }
        saved
    }
}

/// What is known of a version that is saved now.
pub fn version(of: Of, label: &str, count: u64) -> Version {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let saved_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Version { of, label: label.to_owned(), count, step: None, metric: None, saved_ms }
}

/// Opens an archive. What it holds that is none of its versions is logged.
pub fn open(folder: &Path, settings: checkpoint::archive::Settings) -> Result<Archive, Error> {
    let archive = Archive::open(folder, settings)?;
    for error in archive.strange() {
        tracing::warn!(%error, "a checkpoint is not whole");
    }
    Ok(archive)
}

/// Why the archive did not do something, in the words of the API.
fn refused(error: &Error) -> Refusal {
    let (status, param, code) = match error {
        Error::Field { field, .. } => (StatusCode::BAD_REQUEST, Some(*field), None),
        Error::Unknown { .. } => (StatusCode::NOT_FOUND, Some("id"), Some("checkpoint_not_found")),
        Error::File(checkpoint::Error { fault: Fault::Unwritable(_), .. }) => {
            (StatusCode::INSUFFICIENT_STORAGE, None, Some("checkpoint_not_saved"))
        }
        Error::File(_) => (StatusCode::CONFLICT, None, Some("checkpoint_damaged")),
        Error::Locked { .. } => (StatusCode::CONFLICT, None, None),
    };
    let mut refusal = Refusal::new(status, error.to_string());
    (refusal.param, refusal.code) = (param.map(str::to_owned), code);
    refusal
}
