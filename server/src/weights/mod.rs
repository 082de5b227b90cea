//! Other weights of the same shape, while the server runs: made ready aside, then swapped
//! between two steps.
//!
//! An update is one call with a folder, or several: it is started, tensors come in as many
//! calls as they need, and the last call swaps all of them in at once. Who starts anew drops
//! what came before; who never ends it is forgotten after a while.

mod routes;

pub use routes::{ROUTES, update};

use crate::adapters::whole;
use crate::backend::available_bytes;
use crate::command::sized;
use crate::openai::Refusal;
use crate::runtime::{Runtime, Swapped};
use checkpoint::Checkpoint;
use engine::engine::InFlight;
use engine::model::{Config, Model, Source};
use engine::weights::{Aside, LoadError, Quantize, Tensors};
use hyper::StatusCode;
use kernels_core::workers::Inline;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How far the thread that makes weights ready stands back.
const BACK: i32 = 10;
/// After so long without another call an update is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The weights that are served, as their files have them.
pub struct Base {
    checkpoint: RwLock<Arc<Checkpoint>>,
    /// What they become when they are loaded.
    pub quantize: Option<Quantize>,
    /// How often they were replaced.
    count: AtomicU64,
}

/// The way of weights into the server.
pub struct Updates {
    base: Arc<Base>,
    begun: Mutex<Option<Update>>,
    /// One comes after the other.
    swapping: tokio::sync::Mutex<()>,
}

/// An update that was started.
struct Update {
    /// Tensors that came, by name.
    tensors: Tensors,
    /// When the last call was.
    touched: Instant,
}

impl Base {
    /// A checkpoint, and what its weights become.
    pub fn new(checkpoint: Checkpoint, quantize: Option<Quantize>) -> Arc<Self> {
        let checkpoint = RwLock::new(Arc::new(checkpoint));
        Arc::new(Self { checkpoint, quantize, count: AtomicU64::new(0) })
    }

    /// How often they were replaced.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// The checkpoint that is served now.
    pub fn checkpoint(&self) -> Arc<Checkpoint> {
        self.checkpoint.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, checkpoint: Checkpoint) {
        *self.checkpoint.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(checkpoint);
    }
}

/// What is to serve.
enum Coming {
    /// All of it.
    Whole(Checkpoint),
    /// Some tensors, the others as they are.
    Tensors(Tensors),
}

/// How an update is swapped in.
#[derive(Clone, Debug, Default)]
pub struct Swap {
    /// What the version is called; its count, if nothing is said.
    pub label: Option<String>,
    /// What becomes of answers in flight; `None`: it follows from how the engine rests.
    pub in_flight: Option<InFlight>,
}

impl Updates {
    /// Of what is served.
    pub fn new(base: Arc<Base>) -> Self {
        Self { base, begun: Mutex::default(), swapping: tokio::sync::Mutex::new(()) }
    }

    /// Starts an update; whatever was started before is dropped.
    pub fn start(self: &Arc<Self>) {
        *self.begun() = Some(Update { touched: Instant::now(), tensors: Tensors::new() });
        let updates = self.clone();
        tokio::spawn(async move {
            while updates.is_begun() {
                tokio::time::sleep(FORGOTTEN_AFTER).await;
                updates.forget_abandoned();
            }
        });
    }

    /// Whether one is started.
    pub fn is_begun(&self) -> bool {
        self.begun().is_some()
    }

    /// Tensors of a safetensors file join the update. Says how many.
    pub fn add(&self, file: Vec<u8>) -> Result<usize, Refusal> {
        let tensors = self.read(file)?;
        let count = tensors.len();
        let mut begun = self.begun();
        let Some(update) = begun.as_mut() else { return Err(not_begun()) };
        update.tensors.extend(tensors);
        update.touched = Instant::now();
        Ok(count)
    }

    /// Swaps in what came.
    pub async fn finish(
        self: &Arc<Self>,
        runtime: &Runtime,
        swap: Swap,
    ) -> Result<Swapped, Refusal> {
        let update = self.begun().take().ok_or_else(not_begun)?;
        if update.tensors.is_empty() {
            let words = "no tensor came since the update was started";
            return Err(Refusal::new(StatusCode::CONFLICT, words));
        }
        self.swap(runtime, Coming::Tensors(update.tensors), swap).await
    }

    /// Swaps in tensors that come all at once.
    pub async fn replace(
        self: &Arc<Self>,
        runtime: &Runtime,
        file: Vec<u8>,
        swap: Swap,
    ) -> Result<Swapped, Refusal> {
        let tensors = self.read(file)?;
        self.swap(runtime, Coming::Tensors(tensors), swap).await
    }

    /// Swaps in the checkpoint of a folder.
    pub async fn from_folder(
        self: &Arc<Self>,
        runtime: &Runtime,
        (field, folder): (&'static str, PathBuf),
        swap: Swap,
    ) -> Result<Swapped, Refusal> {
        if !folder.is_dir() {
            let words = format!("no folder {} is on this machine", folder.display());
            let mut refusal = Refusal::new(StatusCode::NOT_FOUND, words);
            refusal.param = Some(field.into());
            return Err(refusal);
        }
        let served = self.base.checkpoint();
        let bad = move |words: String| Refusal::field(field, words);
        let opened = Checkpoint::open(&folder).map_err(|error| bad(error.to_string()))?;
        // What ends an answer is the server's matter, as it was when it started.
        let config = Config { eos: served.config.eos.clone(), ..opened.config.clone() };
        if config != served.config {
            let words = format!(
                "{}: the model has another shape than the one that is served",
                folder.display()
            );
            return Err(bad(words));
        }
        self.swap(runtime, Coming::Whole(Checkpoint { config, ..opened }), swap).await
    }

    /// Forgets an update that nobody goes on with.
    fn forget_abandoned(&self) {
        let mut begun = self.begun();
        let idle = |update: &Update| update.touched.elapsed() >= FORGOTTEN_AFTER;
        if begun.as_ref().is_some_and(idle) {
            tracing::warn!("an update of weights was started and not ended: it is forgotten");
            *begun = None;
        }
    }

    async fn swap(
        self: &Arc<Self>,
        runtime: &Runtime,
        coming: Coming,
        swap: Swap,
    ) -> Result<Swapped, Refusal> {
        let (updates, runtime) = (self.clone(), runtime.clone());
        whole(async move { updates.swap_whole(&runtime, coming, swap).await }).await
    }

    async fn swap_whole(
        &self,
        runtime: &Runtime,
        coming: Coming,
        swap: Swap,
    ) -> Result<Swapped, Refusal> {
        let _one = self.swapping.lock().await;
        let checkpoint = match coming {
            Coming::Whole(checkpoint) => checkpoint,
            // Over what serves now: another update may have come before this one.
            Coming::Tensors(tensors) => {
                let mut checkpoint = (*self.base.checkpoint()).clone();
                checkpoint.tensors.extend(tensors);
                checkpoint
            }
        };
        let (to, made) = oneshot::channel();
        let (quantize, own) = (self.base.quantize, checkpoint.clone());
        let work = move || {
            grammar::stand_back(BACK);
            // Whoever asked may have gone.
            let _ = to.send(make(&own, quantize));
        };
        let thread = std::thread::Builder::new().name("weights".into()).spawn(work);
        thread.map_err(|error| Refusal::internal(format!("weights: {error}")))?;
        let broken = "the weights could not be read: this is a fault of the server";
        let made = made.await.unwrap_or_else(|_| Err(Refusal::internal(broken)))?;
        let swapped = runtime.replace_weights(made, swap.in_flight, swap.label).await?;
        self.base.replace(checkpoint);
        self.base.count.fetch_add(1, Ordering::SeqCst);
        tracing::info!(version = &*swapped.label, moved = ?swapped.moved, "other weights serve");
        Ok(swapped)
    }

    fn read(&self, file: Vec<u8>) -> Result<Tensors, Refusal> {
        let bad = |words: String| Refusal::field("tensors", words);
        let tensors = checkpoint::tensors_of_bytes(file).map_err(|error| bad(error.to_string()))?;
        let served = self.base.checkpoint();
        for (name, tensor) in &tensors {
            let Some(own) = served.tensors.get(name) else {
                return Err(bad(format!("the model has no tensor {name}")));
            };
            if own.shape() != tensor.shape() {
                return Err(bad(format!(
                    "{name} must be {:?}, not {:?}",
                    own.shape(),
                    tensor.shape()
                )));
            }
        }
        Ok(tensors)
    }

    fn begun(&self) -> MutexGuard<'_, Option<Update>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes weights ready in the host's memory, if that has room for them.
fn make(checkpoint: &Checkpoint, quantize: Option<Quantize>) -> Result<(Aside, Model), Refusal> {
    let Checkpoint { config, tensors, .. } = checkpoint;
    let source = Source { config, tensors, quantize, workers: &Inline };
    let bad = |error: LoadError| Refusal::field("tensors", error.to_string());
    let bytes = Model::bytes(&source).map_err(bad)?;
    must_fit(bytes, "the weights", "beside those that serve until the swap")?;
    let mut aside = Aside::default();
    let model = Model::load(&mut aside, &source, &mut |_, _| checkpoint.let_go()).map_err(bad)?;
    Ok((aside, model))
}

/// Refuses what takes more of the host's memory than can be had.
pub fn must_fit(bytes: u64, what: &str, how: &str) -> Result<(), Refusal> {
    let Some(available) = available_bytes().filter(|available| bytes > *available) else {
        return Ok(());
    };
    let (bytes, available) = (sized(bytes), sized(available));
    let words = format!("{what} take {bytes}, {how}: {available} are available");
    let mut refusal = Refusal::new(StatusCode::INSUFFICIENT_STORAGE, words);
    refusal.code = Some("out_of_memory");
    Err(refusal)
}

fn not_begun() -> Refusal {
    let words = "no update of weights is started: /start_weight_update starts one";
    Refusal::new(StatusCode::CONFLICT, words)
}
