//! What the engine is told besides requests: to rest, to end some, to take new versions.

use super::{Message, Runtime};
use crate::openai::Refusal;
use engine::engine::{Engine, InFlight, Moved, Publish, Unplaced};
use engine::model::Model;
use engine::request::Refused;
use engine::weights::Aside;
use hyper::StatusCode;
use kernels_core::device::DeviceMemory;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// When to come again, where the server rests.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The code of what is refused for the server rests.
pub const PAUSED: &str = "paused";

/// How the engine rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Who comes is refused; what is in flight goes on.
    Refuse,
    /// Nothing is computed; who comes waits. What is in flight has its keys and values, and
    /// keeps them when a version comes.
    Freeze,
    /// The same, but what was in flight has given its keys and values back.
    Retract,
}

/// A version that is the current one.
#[derive(Clone, Debug)]
pub struct Swapped {
    /// What it is called.
    pub label: Arc<str>,
    /// What became of answers in flight.
    pub moved: Moved,
}

/// A version on its way, besides what the engine is told of it.
#[derive(Clone, Debug)]
pub struct Coming {
    /// What it is called.
    pub label: String,
    /// Whether what becomes of answers in flight may follow from how the engine rests.
    pub follows: bool,
    /// It was the current one before, and comes back to the device: none is older for it.
    pub again: bool,
}

/// Weights that were made ready aside.
pub struct Made {
    /// Those that serve.
    pub serves: (Aside, Model),
    /// The same in the format by which the base guesses, if it does.
    pub drafts: Option<(Aside, Model)>,
}

/// Which requests, by their names.
pub type Which = Box<dyn Fn(&str) -> bool + Send>;

/// One order.
pub(super) enum Control {
    /// Rest so, or no longer.
    Pause(Option<Pause>, oneshot::Sender<()>),
    /// End those with what they have; says how many.
    Abort(Which, oneshot::Sender<usize>),
    /// Bring a version of an adapter, called so.
    Publish { publish: Publish, coming: Coming, done: oneshot::Sender<Result<Swapped, Refusal>> },
    /// Serve other weights, called so.
    Weights {
        made: Box<Made>,
        in_flight: Option<InFlight>,
        label: String,
        done: oneshot::Sender<Result<Swapped, Refusal>>,
    },
    /// Call the weights, or an adapter's version, so from the next token on.
    Relabel(Option<u64>, String, oneshot::Sender<()>),
    /// What the current weights, or an adapter's version, are called.
    Label(Option<u64>, oneshot::Sender<Option<Arc<str>>>),
    /// Whatever else the engine does between two steps.
    With(Box<dyn FnOnce(&mut Engine) + Send>),
}

/// Who comes while the server rests is told to come again.
pub(super) fn paused() -> Refusal {
    let words = "generation is paused: /resume lets it go on";
    let mut refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, words);
    (refusal.code, refusal.retry_after) = (Some(PAUSED), Some(RETRY_AFTER));
    refusal
}

/// Why a version is not served.
pub(super) fn unplaced(why: &Unplaced) -> Refusal {
    let status = match why {
        Unplaced::Full { .. } => StatusCode::TOO_MANY_REQUESTS,
        Unplaced::Withdrawn => StatusCode::CONFLICT,
        Unplaced::Backend(_) => StatusCode::INSUFFICIENT_STORAGE,
    };
    let mut refusal = Refusal::new(status, format!("the adapter finds no place: {why}"));
    refusal.code = Some("no_slot");
    refusal
}

/// Why the engine does not take one.
pub(super) fn untaken(refused: &Refused) -> Refusal {
    Refusal::expected(refused.field, &refused.expected, &refused.got)
}

impl Runtime {
    /// How the engine rests, if it does.
    pub fn pause(&self) -> Option<Pause> {
        *self.load.pause.borrow()
    }

    /// Has the engine rest, or go on.
    pub async fn rest(&self, how: Option<Pause>) -> Result<(), Refusal> {
        self.order(|done| Control::Pause(how, done)).await
    }

    /// Waits until nothing is in flight.
    pub async fn drained(&self) {
        while self.open() > 0 && self.alive() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends the requests of those names with what they have; how many.
    pub async fn abort(
        &self,
        which: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<usize, Refusal> {
        self.order(|done| Control::Abort(Box::new(which), done)).await
    }

    /// Brings a version of an adapter, and waits until it is the current one. `in_flight`
    /// of `None` follows from how the engine rests: where it does not, they wait.
    pub async fn publish(&self, publish: Publish, coming: Coming) -> Result<Swapped, Refusal> {
        self.order(|done| Control::Publish { publish, coming, done }).await?
    }

    /// Serves other weights, which were made ready aside and are called so. `in_flight` of `None` follows from how the engine rests.
    pub async fn replace_weights(
        &self,
        made: Made,
        in_flight: Option<InFlight>,
        label: String,
    ) -> Result<Swapped, Refusal> {
        let made = Box::new(made);
        self.order(|done| Control::Weights { made, in_flight, label, done }).await?
    }

    /// Calls the current weights, or an adapter's version, so from the next token on.
    pub async fn relabel(&self, adapter: Option<u64>, label: String) -> Result<(), Refusal> {
        self.order(|done| Control::Relabel(adapter, label, done)).await
    }

    /// What the current weights, or an adapter's version, are called.
    pub async fn label(&self, adapter: Option<u64>) -> Result<Option<Arc<str>>, Refusal> {
        self.order(|done| Control::Label(adapter, done)).await
    }

    /// The memory of the device as it is now, if there is one that tells.
    pub async fn device_memory(&self) -> Result<Option<DeviceMemory>, Refusal> {
        if !self.load.on_device {
            return Ok(None);
        }
        self.with(|engine| engine.device_memory()).await
    }

    /// Waits until who comes is not refused any more.
    pub async fn admits(&self) {
        let mut pause = self.load.pause.subscribe();
        // An error says that nobody can say it any more.
        drop(pause.wait_for(|pause| *pause != Some(Pause::Refuse)).await);
    }

    /// Has the engine do something between two steps.
    pub async fn with<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        self.order(|done| {
            Control::With(Box::new(|engine| {
                // Whoever asked may have gone.
                let _ = done.send(what(engine));
            }))
        })
        .await
    }

    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<T>) -> Control,
    ) -> Result<T, Refusal> {
        let (done, answer) = oneshot::channel();
        // An engine that has stopped drops the order, and with it the sender.
        let _ = self.to.send(Message::Control(order(done)));
        answer.await.map_err(|_| self.stopped())
    }
}

/// What becomes of answers in flight when a version comes while the engine rests so.
pub(super) fn by_rest(pause: Option<Pause>, otherwise: InFlight) -> InFlight {
    match pause {
        Some(Pause::Freeze) => InFlight::Keep,
        Some(Pause::Retract) => InFlight::Recompute,
        Some(Pause::Refuse) | None => otherwise,
    }
}
