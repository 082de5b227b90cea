//! HTTP/1.1: who may connect, for how long, and how the doors are closed.

mod body;
mod generate;
mod guard;
mod patience;
mod route;

use crate::config::Limits;
use crate::metrics::Metrics;
use crate::runtime::Runtime;
use crate::served::Served;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use patience::Patient;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 8192;
/// How long a client may take for the head of a request, and be idle between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take nothing of what it is sent.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Waited where the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every request is handled with.
pub struct Server {
    /// The model.
    pub served: Arc<Served>,
    /// The way to the engine.
    pub runtime: Runtime,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bounds on clients.
    pub limits: Limits,
    /// Streams that may still begin.
    streams: Arc<Semaphore>,
    /// Whether it is closing.
    draining: AtomicBool,
    /// Requests so far, for their names.
    requests: AtomicU64,
}

impl Server {
    /// Of its parts.
    pub fn new(
        served: Arc<Served>,
        runtime: Runtime,
        metrics: Arc<Metrics>,
        limits: Limits,
    ) -> Arc<Self> {
        let streams = Arc::new(Semaphore::new(limits.max_concurrent_streams as usize));
        let (draining, requests) = (AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Self { served, runtime, metrics, limits, streams, draining, requests })
    }

    /// Whether it takes requests that arrive now.
    fn ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.runtime.alive()
    }
}

/// Serves until `stop` says so; then lets what is begun come to its end, for a while.
pub async fn serve(listener: TcpListener, server: Arc<Server>, stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut stopped = stop.clone();
    loop {
        let permit = room.clone().acquire_owned().await;
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told(&mut stopped) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, server.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    server.draining.store(true, Ordering::Relaxed);
    let seconds = server.limits.drain_timeout_seconds;
    tracing::info!(open = server.runtime.open(), seconds, "draining");
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(seconds), drained).await.is_err() {
        tracing::warn!(open = server.runtime.open(), "requests are given up");
        connections.shutdown().await;
    }
}

/// One connection, with all its requests.
async fn connection(stream: TcpStream, server: Arc<Server>, mut stop: watch::Receiver<bool>) {
    // Pieces of a stream are small, and each is awaited.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Patient::new(stream, WRITE_TIMEOUT));
    let service = service_fn(move |request| route::answer(request, server.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(64)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = told(&mut stop) => {
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
