//! HTTP/1.1: who may connect, for how long, and how the doors are opened and closed.

mod body;
mod call;
pub mod closed;
mod entry;
pub mod generate;
mod guard;
mod patience;
pub mod route;
pub mod routes;
mod upload;

pub use body::Reply;
pub use call::Call;
pub use entry::Course;
pub use guard::key;
pub use route::refused_with;
pub use routes::{Answer, Asking, How, Route, controls};

use crate::backend::addresses_left;
use crate::config::Limits;
use crate::metrics::{Format, Metrics};
use crate::openai::Refusal;
use crate::runtime::Runtime;
use crate::served::Served;
use crate::sglang::Kept;
pub use generate::json;
use hyper::Response;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use patience::Patient;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use upload::Uploads;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 8192;
/// How long a client may take for the head of a request, and be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take nothing of what it is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// When to come again, where there are too many streams.
const STREAM_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Waited where the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long answers may still be sent by a server whose device has failed.
const FAILED_SECONDS: u64 = 2;
/// How long answers that are given up have to say so.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(10);
/// How long clients have to take what is left of their answers when all have ended.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// A server as clients find it from the moment that its port is bound.
pub struct Door {
    limits: Arc<Limits>,
    /// Requests so far, for their names.
    requests: AtomicU64,
    /// There when the model is loaded.
    server: OnceLock<Arc<Server>>,
}

/// What every request is handled with.
pub struct Server {
    /// The model.
    pub served: Arc<Served>,
    /// The way to the engine.
    pub runtime: Runtime,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bounds on clients.
    pub limits: Arc<Limits>,
    /// What clients of SGLang's surface keep here.
    pub kept: Kept,
    /// Room for the bodies of requests.
    uploads: Uploads,
    /// Streams that may still begin.
    streams: Arc<Semaphore>,
    /// Whether it was told to sleep.
    pub sleeping: AtomicBool,
    /// Whether it is closing.
    draining: AtomicBool,
    /// Whoever answers a request holds a receiver: it closes when all have ended.
    begun: watch::Sender<()>,
}

/// Says while it is held that a request is being answered.
pub type Begun = watch::Receiver<()>;

/// What is sent piece by piece: a server that closes waits for it.
pub struct Held {
    server: Arc<Server>,
    _permit: OwnedSemaphorePermit,
    _begun: Begun,
}

impl Held {
    /// Whether the server is closing.
    pub fn closing(&self) -> bool {
        self.server.draining()
    }
}

impl Door {
    /// With nobody behind it yet.
    pub fn new(limits: Limits) -> Arc<Self> {
        let (limits, requests) = (Arc::new(limits), AtomicU64::new(0));
        Arc::new(Self { limits, requests, server: OnceLock::new() })
    }

    /// What requests are answered with, once there is a model.
    pub fn server(&self) -> Option<Arc<Server>> {
        self.server.get().cloned()
    }

    /// Lets requests in to a model.
    pub fn open(&self, served: Arc<Served>, runtime: Runtime, metrics: Arc<Metrics>) {
        let limits = self.limits.clone();
        self.server.get_or_init(|| {
            Arc::new(Server {
                uploads: Uploads::new(limits.max_body_bytes, addresses_left()),
                streams: Arc::new(Semaphore::new(limits.max_concurrent_streams as usize)),
                served,
                runtime,
                metrics,
                limits,
                sleeping: AtomicBool::new(false),
                kept: Kept::default(),
                draining: AtomicBool::new(false),
                begun: watch::Sender::new(()),
            })
        });
    }
}

/// A response of a value.
pub fn json_of(value: &Value) -> Response<Reply> {
    json(value.to_string().into_bytes())
}

/// A response of plain text.
pub fn text_of(text: String) -> Response<Reply> {
    let mut response = Response::new(Reply::whole(text));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// What is counted, as whoever asks reads it.
fn shown_metrics(server: &Server, headers: &HeaderMap) -> Response<Reply> {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::asked(accept.unwrap_or(""));
    if let Some(shelf) = &server.served.shelf {
        server.metrics.trajectories.bytes(shelf.store.stats().bytes);
    }
    // For who asks next: an engine in a step is not waited for, and counts while it works.
    server.runtime.look();
    let mut response = Response::new(Reply::whole(server.metrics.text(format)));
    let kind = HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

impl Server {
    /// Whether it takes requests that arrive now.
    fn ready(&self) -> bool {
        !self.draining() && self.runtime.alive()
    }

    /// What is answered to who waits where the server is closing.
    pub fn stopping(&self) -> Result<(), Refusal> {
        if self.draining() { Err(self.closing()) } else { Ok(()) }
    }

    /// Why nobody is let in any more.
    fn closing(&self) -> Refusal {
        self.runtime.failure().map_or_else(closed::stopping, closed::failed)
    }

    /// Begins what is sent piece by piece, however long that takes.
    pub fn hold(self: &Arc<Self>) -> Result<Held, Refusal> {
        let begun = self.begin()?;
        Ok(Held { server: self.clone(), _permit: self.stream()?, _begun: begun })
    }

    /// One more stream, if there may be one.
    pub fn stream(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        self.streams.clone().try_acquire_owned().map_err(|_| {
            let most = self.limits.max_concurrent_streams;
            Refusal::busy(format!("{most} streams are open: no more may be"), STREAM_RETRY_AFTER)
        })
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Begins a request, unless the server is closing.
    pub fn begin(&self) -> Result<Begun, Refusal> {
        // In this order: whoever closes looks for requests when `draining` is set.
        let begun = self.begun.subscribe();
        if self.draining() { Err(self.closing()) } else { Ok(begun) }
    }
}

/// Serves until `stop` says so; then lets what is begun come to its end, for a while. Until
/// that end whoever comes is told how it stands.
pub async fn serve(listener: TcpListener, door: Arc<Door>, stop: watch::Receiver<bool>) {
    let (close, closing) = watch::channel(false);
    tokio::select! {
        never = accept(listener, &door, closing) => match never {},
        () = drained(&door, stop) => {}
    }
    close.send_replace(true);
    // Each connection holds a receiver.
    if tokio::time::timeout(CLOSE_WITHIN, close.closed()).await.is_err() {
        tracing::warn!(connections = close.receiver_count(), "clients take nothing and are left");
    }
}

async fn accept(
    listener: TcpListener,
    door: &Arc<Door>,
    closing: watch::Receiver<bool>,
) -> Infallible {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let permit = room.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, door.clone(), closing.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits until it is said to stop and every answer has ended; those that take too long are
/// ended in words.
async fn drained(door: &Door, mut stop: watch::Receiver<bool>) {
    told(&mut stop).await;
    let Some(server) = door.server.get() else { return };
    server.draining.store(true, Ordering::SeqCst);
    // Where nothing can be answered any more, nobody is waited for long.
    let seconds = match server.runtime.failure() {
        Some(_) => server.limits.drain_timeout_seconds.min(FAILED_SECONDS),
        None => server.limits.drain_timeout_seconds,
    };
    tracing::info!(open = server.runtime.open(), seconds, "draining");
    let ended = async |within| tokio::time::timeout(within, server.begun.closed()).await.is_ok();
    if ended(Duration::from_secs(seconds)).await {
        return;
    }
    tracing::warn!(open = server.runtime.open(), "answers are given up");
    server.runtime.give_up();
    if !ended(GIVE_UP_WITHIN).await {
        tracing::warn!(open = server.runtime.open(), "answers did not end in time");
    }
}

/// One connection, with all its requests.
async fn connection(stream: TcpStream, door: Arc<Door>, mut closing: watch::Receiver<bool>) {
    // Pieces of a stream are small, and each is awaited.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Patient::new(stream, WRITE_TIMEOUT));
    let service = service_fn(move |request| route::answer(request, door.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(64)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = told(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Waits until it is said to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    // An error says that nobody can say it any more: then it is over, too.
    drop(stop.wait_for(|stop| *stop).await);
}
