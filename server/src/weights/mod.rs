//! Other weights of the same shape, while the server runs: made ready aside, then swapped
//! between two steps.
//!
//! An update is one call with a folder, or several: it is started, tensors come in as many
//! calls as they need, and the last call swaps all of them in at once. Who starts anew drops
//! what came before; what is not ended by its deadline is dropped.

mod begun;
mod check;
mod routes;

pub use routes::{ROUTES, bring, deadline, fetched, no_transfer, update};

use crate::adapters::spelling::Swap;
use crate::adapters::whole;
use crate::aside::aside;
use crate::backend::available_bytes;
use crate::checkpoints::{self, Checkpoints, Origin, What};
use crate::command::sized;
use crate::deadline::Deadline;
use crate::openai::Refusal;
use crate::runtime::{Made, Runtime, Swapped};
use begun::{Begun, Came};
use checkpoint::Checkpoint;
use checkpoint::archive::{Of, Version};
use engine::model::{Config, Model, Source};
use engine::weights::{Aside, LoadError, Quantize, Tensor, Tensors};
use hyper::StatusCode;
use kernels_core::device::DeviceMemory;
use kernels_core::workers::Inline;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// The weights that are served, as their files have them.
pub struct Base {
    checkpoint: RwLock<Arc<Checkpoint>>,
    /// What they become when they are loaded.
    pub quantize: Option<Quantize>,
    /// The format by which they guess, if that is another.
    drafts: Option<Quantize>,
    /// How often they were replaced.
    count: AtomicU64,
}

/// The way of weights into the server.
pub struct Updates {
    base: Arc<Base>,
    begun: Arc<Begun>,
    /// A checkpoint that was opened for an update to come, by the version that it will be.
    fetched: Mutex<Option<(u64, Checkpoint)>>,
    /// Checksums that others are compared with, by tensor.
    snapshot: Mutex<Option<check::Sums>>,
    /// One comes after the other.
    swapping: tokio::sync::Mutex<()>,
    /// What saves their versions, if something does.
    pub checkpoints: OnceLock<Arc<Checkpoints>>,
}

impl Base {
    /// A checkpoint, what its weights become, and by which others they guess, if they do.
    pub fn new(
        checkpoint: Checkpoint,
        quantize: Option<Quantize>,
        drafts: Option<Quantize>,
    ) -> Arc<Self> {
        let checkpoint = RwLock::new(Arc::new(checkpoint));
        Arc::new(Self { checkpoint, quantize, drafts, count: AtomicU64::new(0) })
    }

    /// How often they were replaced.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// The checkpoint that is served now.
    pub fn checkpoint(&self) -> Arc<Checkpoint> {
        self.checkpoint.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes weights ready in the host's memory, if that has room for them, and so has that of
    /// the device, where they go to one.
    fn make(&self, checkpoint: &Checkpoint, device: Option<DeviceMemory>) -> Result<Made, Refusal> {
        let Checkpoint { config, tensors, .. } = checkpoint;
        let source = |quantize| Source { config, tensors, quantize, workers: &Inline };
        let bad = |error: LoadError| Refusal::field("tensors", error.to_string());
        let (own, drafts) = (source(self.quantize), self.drafts.map(|it| source(Some(it))));
        let sources = [&own].into_iter().chain(&drafts);
        let bytes = sources.map(Model::bytes).sum::<Result<u64, _>>().map_err(bad)?;
        let beside = "beside those that serve until the swap";
        must_fit(bytes, "the weights", beside)?;
        if let Some(DeviceMemory { free_bytes, .. }) = device {
            must_fit_in(free_bytes, bytes, "the weights", &format!("on the device, {beside}"))?;
        }
        let unfit =
            |(name, tensor): (&String, &Tensor)| tensor.first_unfit().map(|at| (name.clone(), at));
        if let Some((name, at)) = tensors.iter().find_map(unfit) {
            let words = format!("{name}: number {at} is not finite");
            return Err(Refusal::field("tensors", words));
        }
        let load = |source: &Source<'_>| {
            let mut aside = Aside::default();
            let model = Model::load(&mut aside, source, &mut |_, _| checkpoint.let_go());
            model.map(|model| (aside, model)).map_err(bad)
        };
        Ok(Made { serves: load(&own)?, drafts: drafts.as_ref().map(load).transpose()? })
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

impl Updates {
    /// Of what is served.
    pub fn new(base: Arc<Base>) -> Self {
        Self {
            base,
            begun: Arc::default(),
            fetched: Mutex::default(),
            snapshot: Mutex::default(),
            swapping: tokio::sync::Mutex::new(()),
            checkpoints: OnceLock::new(),
        }
    }

    /// Starts an update; whatever was started before is dropped.
    pub fn start(&self, until: Deadline) {
        self.begun.start(until);
    }

    /// Whether one is started.
    pub fn is_begun(&self) -> bool {
        self.begun.is_open()
    }

    /// Tensors of a safetensors file join the update.
    pub fn add(&self, file: Vec<u8>) -> Result<(), Refusal> {
        let tensors = self.read(file)?;
        self.begun.join(|came| {
            came.tensors.extend(tensors);
            Ok(())
        })
    }

    /// Opens the checkpoint of a folder, while all goes on as it was, for an update to come.
    pub fn fetch(&self, version: u64, folder: (&'static str, PathBuf)) -> Result<(), Refusal> {
        let opened = self.open(folder)?;
        *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some((version, opened));
        Ok(())
    }

    /// The checkpoint that was fetched for a version joins the update.
    pub fn add_fetched(&self, version: u64) -> Result<(), Refusal> {
        self.begun.join(|came| {
            let mut fetched = self.fetched.lock().unwrap_or_else(PoisonError::into_inner);
            let checkpoint = fetched.take_if(|(own, _)| *own == version).ok_or_else(|| {
                let words =
                    format!("no weights were fetched for version {version}: /fetch_weights does");
                Refusal::new(StatusCode::CONFLICT, words)
            })?;
            came.whole = Some(checkpoint);
            Ok(())
        })
    }

    /// Swaps in what came.
    pub async fn finish(
        self: &Arc<Self>,
        runtime: &Runtime,
        swap: Swap,
    ) -> Result<Swapped, Refusal> {
        let (Came { whole, tensors }, until) = self.begun.take()?;
        let swap = Swap { until: swap.until.or(until), ..swap };
        if let Some((version, mut checkpoint)) = whole {
            checkpoint.tensors.extend(tensors);
            let label = swap.label.or_else(|| Some(version.to_string()));
            return self.swap(runtime, Coming::Whole(checkpoint), Swap { label, ..swap }).await;
        }
        if tensors.is_empty() {
            let words = "no tensor came since the update was started";
            return Err(Refusal::new(StatusCode::CONFLICT, words));
        }
        self.swap(runtime, Coming::Tensors(tensors), swap).await
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
        folder: (&'static str, PathBuf),
        swap: Swap,
    ) -> Result<Swapped, Refusal> {
        let updates = self.clone();
        let opened = aside("checkpoint", move || updates.open(folder));
        let opened = swap.until.keep(opened).await???;
        self.swap(runtime, Coming::Whole(opened), swap).await
    }

    /// The checkpoint of a folder, which must be of the model that is served.
    fn open(&self, (field, folder): (&'static str, PathBuf)) -> Result<Checkpoint, Refusal> {
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
        Ok(Checkpoint { config, ..opened })
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
        let until = swap.until;
        let _one = until.keep(self.swapping.lock()).await?;
        let sent = matches!(coming, Coming::Tensors(_));
        let checkpoint = match coming {
            Coming::Whole(checkpoint) => checkpoint,
            // Over what serves now: another update may have come before this one.
            Coming::Tensors(tensors) => {
                let mut checkpoint = (*self.base.checkpoint()).clone();
                checkpoint.tensors.extend(tensors);
                checkpoint
            }
        };
        let (base, own) = (self.base.clone(), checkpoint.clone());
        // What is late is freed by the thread that makes it.
        let device = until.keep(runtime.device_memory()).await??;
        let made = until.keep(aside("weights", move || base.make(&own, device))).await???;
        let came = self.base.count() + 1;
        let count = self
            .checkpoints
            .get()
            .map_or(came, |checkpoints| checkpoints.count(&Of::Weights, swap.origin, came));
        let label = swap.label.unwrap_or_else(|| count.to_string());
        // No deadline from here: the engine has them within a step, and who gave up meanwhile
        // would tell of others than serve.
        let swapped = runtime.replace_weights(made, swap.in_flight, label).await?;
        self.base.replace(checkpoint);
        self.base.count.store(count, Ordering::SeqCst);
        tracing::info!(version = &*swapped.label, moved = ?swapped.moved, "other weights serve");
        if let Some(checkpoints) = self.checkpoints.get() {
            let (version, what) = self.saved_as(&swapped.label);
            match swap.origin {
                // Those of another folder are kept by whoever has that.
                Origin::Published if !sent => checkpoints.passed(version).await,
                origin => checkpoints.came(origin, version, what).await,
            }
        }
        Ok(swapped)
    }

    /// The version that serves, as checkpoints are made of it.
    pub async fn saveable(&self, runtime: &Runtime) -> Result<(Version, What), Refusal> {
        let _one = self.swapping.lock().await;
        let label = runtime.label(None).await?.unwrap_or_default();
        Ok(self.saved_as(&label))
    }

    fn saved_as(&self, label: &str) -> (Version, What) {
        let version = checkpoints::version(Of::Weights, label, self.base.count());
        (version, What::Weights(self.base.checkpoint()))
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
}

/// Refuses what takes more of the host's memory than can be had.
pub fn must_fit(bytes: u64, what: &str, how: &str) -> Result<(), Refusal> {
    available_bytes().map_or(Ok(()), |available| must_fit_in(available, bytes, what, how))
}

/// Refuses what takes more memory than is available.
fn must_fit_in(available: u64, bytes: u64, what: &str, how: &str) -> Result<(), Refusal> {
    if bytes <= available {
        return Ok(());
    }
    let (bytes, available) = (sized(bytes), sized(available));
    let words = format!("{what} take {bytes}, {how}: {available} are available");
    let mut refusal = Refusal::new(StatusCode::INSUFFICIENT_STORAGE, words);
    refusal.code = Some("out_of_memory");
    Err(refusal)
}
