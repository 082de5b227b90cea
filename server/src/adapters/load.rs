//! Adapters on their way in and out.

use super::spelling::Swap;
use super::{Adapters, Entry, From, Held, Known, Line, Made, unknown};
use crate::aside::aside;
use crate::checkpoints::Origin;
use crate::deadline::Deadline;
use crate::openai::Refusal;
use crate::runtime::{Coming, Runtime, Scoring, Swapped};
use crate::weights::must_fit;
use engine::engine::{InFlight, Moved, Publish};
use engine::lora::{Adapter, Image};
use engine::model::Source;
use engine::request::Class;
use hyper::StatusCode;
use kernels_core::workers::Inline;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Times that the numbers of an adapter are in the host's memory while it is read: as its file
/// has them, as numbers, and as a slot holds them.
const COPIES: u64 = 3;
/// How long a version may take to find a place on the device.
const PLACE_WITHIN: Duration = Duration::from_secs(120);

/// An adapter to serve.
pub struct Load {
    /// The name that clients ask for.
    pub name: String,
    /// Where it lies, or what came with the request.
    pub source: Given,
    /// It may replace the one of that name.
    pub replace: bool,
    /// It never makes room for others.
    pub pinned: bool,
    /// How it comes; it is called `NAME@COUNT` if nothing is said.
    pub swap: Swap,
    /// What it must say about as the version before did, or the base where there is none.
    pub canary: Option<Canary>,
}

/// Tokens that an adapter is tried on before it serves.
pub struct Canary {
    /// At least two.
    pub tokens: Vec<u32>,
    /// How far their log-probabilities may be from those before, on average.
    pub divergence_max: f32,
}

impl Load {
    /// One that is there before anybody asks.
    pub fn at_start(name: &str, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            source: Given::Folder(folder.to_owned()),
            replace: false,
            pinned: false,
            swap: Swap { origin: Origin::Start, ..Swap::default() },
            canary: None,
        }
    }
}

/// What an adapter is made of.
pub enum Given {
    /// A folder.
    Folder(PathBuf),
    /// The text of a configuration, and a file of tensors.
    Bytes { config: Vec<u8>, tensors: Vec<u8> },
}

impl Adapters {
    /// Serves an adapter. Nothing changes unless all of it is good.
    pub async fn load(self: &Arc<Self>, runtime: &Runtime, load: Load) -> Result<Line, Refusal> {
        let (adapters, runtime) = (self.clone(), runtime.clone());
        whole(async move { adapters.load_whole(&runtime, load).await }).await
    }

    async fn load_whole(self: &Arc<Self>, runtime: &Runtime, load: Load) -> Result<Line, Refusal> {
        self.must_slots()?;
        self.check_name(&load.name)?;
        let Swap { label, in_flight, until, origin } = load.swap;
        let _one = until.keep(self.loading.lock()).await?;
        let old = self.names().get(&load.name).cloned();
        if old.is_some() && !load.replace {
            let words = format!(
                "the adapter `{}` is loaded already: `load_inplace` replaces it",
                load.name
            );
            return Err(Refusal::field("lora_name", words));
        }
        let from = match &load.source {
            Given::Folder(path) => From::Folder(path.clone()),
            Given::Bytes { .. } => From::Request,
        };
        let base = self.base.count();
        let made = until.keep(self.made(load.source)).await??;
        if let Some(canary) = load.canary {
            if runtime.pause().is_some() {
                let words = "a canary is scored, and nothing is while the server rests";
                return Err(Refusal::new(StatusCode::CONFLICT, words));
            }
            let before =
                old.as_ref().map(|old| Known { name: load.name.clone(), number: old.number });
            self.try_out(runtime, &made.image, canary, before, until).await?;
        }
        let came = old.as_ref().map_or(0, |old| old.count) + 1;
        let count = self.count(&load.name, origin, came);
        let label = label.unwrap_or_else(|| format!("{}@{count}", load.name));
        let number = old.as_ref().map_or_else(|| self.number(), |old| old.number);
        let placed = Placed {
            number,
            image: made.image.clone(),
            pinned: load.pinned,
            again: false,
            label,
            in_flight,
            until,
        };
        let swapped = self.place(runtime, placed).await?;
        let entry = Entry {
            number,
            count,
            now: Held { from, label: swapped.label.clone(), made, base },
            before: old.map(|old| old.now),
            pinned: load.pinned,
        };
        tracing::info!(
            adapter = load.name,
            version = &*swapped.label,
            bytes = entry.now.made.image.bytes(),
            moved = ?swapped.moved,
            "an adapter is served"
        );
        let line = entry.line(&load.name);
        self.names().insert(load.name.clone(), entry.clone());
        self.came(origin, &load.name, &entry).await;
        Ok(line)
    }

    /// Serves the version before again, as a new one.
    pub async fn roll_back(
        self: &Arc<Self>,
        runtime: &Runtime,
        name: &str,
        swap: Swap,
    ) -> Result<Line, Refusal> {
        let (adapters, runtime) = (self.clone(), runtime.clone());
        let name = name.to_owned();
        whole(async move { adapters.roll_back_whole(&runtime, &name, swap).await }).await
    }

    async fn roll_back_whole(
        self: &Arc<Self>,
        runtime: &Runtime,
        name: &str,
        swap: Swap,
    ) -> Result<Line, Refusal> {
        let until = swap.until;
        let _one = until.keep(self.loading.lock()).await?;
        let old = self.names().get(name).cloned().ok_or_else(|| unknown(name))?;
        let Some(Held { from, label, made, base }) = old.before else {
            let words = format!("the adapter `{name}` has had no other version");
            return Err(Refusal::new(StatusCode::CONFLICT, words));
        };
        let placed = Placed {
            number: old.number,
            image: made.image.clone(),
            pinned: old.pinned,
            again: false,
            label: swap.label.unwrap_or_else(|| label.to_string()),
            in_flight: swap.in_flight,
            until,
        };
        let swapped = self.place(runtime, placed).await?;
        let entry = Entry {
            count: self.count(name, swap.origin, old.count + 1),
            now: Held { from, label: swapped.label, made, base },
            before: Some(old.now),
            ..old
        };
        let line = entry.line(name);
        self.names().insert(name.to_owned(), entry.clone());
        self.came(swap.origin, name, &entry).await;
        Ok(line)
    }

    /// Takes a name away. Answers in flight come to their end.
    pub async fn unload(self: &Arc<Self>, runtime: &Runtime, name: &str) -> Result<(), Refusal> {
        let (adapters, runtime) = (self.clone(), runtime.clone());
        let name = name.to_owned();
        whole(async move {
            let _one = adapters.loading.lock().await;
            let entry = adapters.names().remove(&name).ok_or_else(|| unknown(&name))?;
            runtime.with(move |engine| engine.withdraw(entry.number)).await?;
            tracing::info!(adapter = name, "an adapter is served no more");
            Ok(())
        })
        .await
    }

    /// Has an adapter on the device, from where it may have had to go.
    pub async fn ready(self: &Arc<Self>, runtime: &Runtime, known: &Known) -> Result<(), Refusal> {
        let number = known.number;
        self.fits_base(&known.name)?;
        let there = move |engine: &mut engine::engine::Engine| engine.has_adapter(number);
        if runtime.with(there).await? {
            return Ok(());
        }
        let _one = self.loading.lock().await;
        self.bring_back(runtime, known).await
    }

    /// The same for who comes alone.
    async fn bring_back(&self, runtime: &Runtime, known: &Known) -> Result<(), Refusal> {
        let number = known.number;
        if runtime.with(move |engine| engine.has_adapter(number)).await? {
            return Ok(());
        }
        let entry = self.names().get(&known.name).cloned();
        let entry = entry.filter(|entry| entry.number == number);
        let Some(Entry { now: Held { made, label, .. }, pinned, .. }) = entry else {
            return Err(unknown(&known.name));
        };
        tracing::info!(adapter = known.name, "an adapter comes back");
        let (label, until) = (label.to_string(), Deadline::default());
        // It is no new version for anybody: who has the one before keeps it, even where the
        // engine rests.
        let in_flight = Some(InFlight::Wait);
        let image = made.image;
        let placed = Placed { number, image, pinned, again: true, label, in_flight, until };
        self.place(runtime, placed).await.map(drop)
    }

    /// Refuses an adapter whose rows were brought to lengths over other weights.
    fn fits_base(&self, name: &str) -> Result<(), Refusal> {
        let stale =
            |held: &Held| held.made.image.is_of_its_base() && held.base != self.base.count();
        if !self.names().get(name).is_some_and(|entry| stale(&entry.now)) {
            return Ok(());
        }
        let words = format!(
            "the adapter `{name}` has magnitudes (DoRA), and was loaded over other weights than \
             those that serve now: load it again"
        );
        let mut refusal = Refusal::new(StatusCode::CONFLICT, words);
        refusal.code = Some("adapter_outdated");
        Err(refusal)
    }

    /// Has an adapter score the canary's tokens under a number of its own, and refuses it
    /// where they come out too far from what they were.
    async fn try_out(
        self: &Arc<Self>,
        runtime: &Runtime,
        image: &Arc<Image>,
        canary: Canary,
        before: Option<Known>,
        until: Deadline,
    ) -> Result<(), Refusal> {
        let number = self.number();
        let placed = Placed {
            number,
            image: image.clone(),
            pinned: false,
            again: true,
            label: "canary".into(),
            in_flight: Some(InFlight::Wait),
            until,
        };
        self.place(runtime, placed).await?;
        let scored = async {
            if let Some(before) = &before {
                self.bring_back(runtime, before).await?;
            }
            // What a canary has computed is for nobody else.
            let scoring = |adapter| Scoring {
                tokens: canary.tokens.clone(),
                from: 1,
                adapter,
                salt: b"canary".as_slice().into(),
                class: Class::Inference,
                priority: 0,
            };
            let all = vec![scoring(Some(number)), scoring(before.map(|before| before.number))];
            runtime.score("canary", all).await
        };
        let scored = until.keep(scored).await;
        runtime.with(move |engine| engine.withdraw(number)).await?;
        let scored = scored??;
        let apart = scored[0].iter().zip(&scored[1]).map(|(new, old)| (new - old).abs());
        let divergence = apart.sum::<f32>() / scored[0].len().max(1) as f32;
        if divergence <= canary.divergence_max {
            return Ok(());
        }
        let words = format!(
            "the canary's tokens are {divergence} from what they were on average, more than {}: \
             the adapter is not served",
            canary.divergence_max
        );
        let mut refusal = Refusal::field("canary", words);
        (refusal.status, refusal.code) = (StatusCode::UNPROCESSABLE_ENTITY, Some("canary"));
        Err(refusal)
    }

    /// Reads an adapter, checks it and packs it, on a thread that stands back.
    async fn made(self: &Arc<Self>, source: Given) -> Result<Made, Refusal> {
        let adapters = self.clone();
        aside("adapter", move || adapters.read(source)).await?
    }

    fn read(&self, source: Given) -> Result<Made, Refusal> {
        let base = self.base.checkpoint();
        let (config, slots) = (&base.config, self.must_slots()?);
        let most = slots.slot_bytes(config).saturating_mul(COPIES);
        must_fit(most, "adapters of that rank", "while one is read")?;
        let adapter: Result<Adapter, checkpoint::Error> = match source {
            Given::Folder(path) => {
                if !path.is_dir() {
                    return Err(absent(&path));
                }
                checkpoint::adapter(&path, config)
            }
            Given::Bytes { config: text, tensors } => {
                checkpoint::adapter_of_bytes(&text, &tensors, config)
            }
        };
        let bad = |words: String| Refusal::field("lora_path", words);
        let adapter = adapter.map_err(|error| bad(error.to_string()))?;
        let (tensors, quantize) = (&base.tensors, self.base.quantize);
        let source = Source { config, tensors, quantize, workers: &Inline };
        let image = Image::new(&adapter, &source, slots);
        // Whatever was read of the base's files can be read again.
        base.let_go();
        let image = image.map(Arc::new).map_err(|error| bad(error.to_string()))?;
        let adapter = self.checkpoints.get().map(|_| Arc::new(adapter));
        Ok(Made { image, adapter })
    }

    async fn place(&self, runtime: &Runtime, placed: Placed) -> Result<Swapped, Refusal> {
        let Placed { number, image, pinned, again, label, in_flight, until } = placed;
        let follows = in_flight.is_none();
        let in_flight = in_flight.unwrap_or(InFlight::Wait);
        let publish = Publish { adapter: number, image, in_flight, pinned };
        let placing = runtime.publish(publish, Coming { label: label.clone(), follows, again });
        let within = until.at().unwrap_or_else(|| Instant::now() + PLACE_WITHIN);
        match tokio::time::timeout_at(within, placing).await {
            Ok(placed) => placed,
            Err(_) => {
                let lost = runtime.with(move |engine| engine.unpublish(number)).await?;
                if !lost {
                    // It came in this very moment.
                    return Ok(Swapped { label: label.into(), moved: Moved::default() });
                }
                Err(if until.has_passed() { until.late() } else { no_slot() })
            }
        }
    }
}

/// Answers kept it from a place for too long.
fn no_slot() -> Refusal {
    let words = format!(
        "the adapter found no free slot within {} seconds: answers use them all",
        PLACE_WITHIN.as_secs()
    );
    let mut refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, words);
    refusal.code = Some("no_slot");
    refusal
}

/// Comes to its end also where whoever asked goes away in its middle: else names and engine
/// would tell different things.
pub async fn whole<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    let broken = |_| Err(Refusal::internal("the change broke: this is a fault of the server"));
    tokio::spawn(work).await.unwrap_or_else(broken)
}

/// An image on its way to the device.
struct Placed {
    number: u64,
    image: Arc<Image>,
    pinned: bool,
    /// It has made room for others, and comes back.
    again: bool,
    /// What its version is called.
    label: String,
    in_flight: Option<InFlight>,
    /// By when it must have come.
    until: Deadline,
}

fn absent(path: &Path) -> Refusal {
    let words = format!("no folder {} is on this machine", path.display());
    let mut refusal = Refusal::new(StatusCode::NOT_FOUND, words);
    refusal.param = Some("lora_path".into());
    refusal
}
