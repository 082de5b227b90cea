//! A model asked from the command line, as a server would ask it.

use super::Failure;
use super::load::{Loaded, load};
use crate::config;
use crate::metrics::Metrics;
use crate::openai::answer::Answers;
use crate::openai::{Context, Refusal, Surface};
use crate::runtime::{self, News, Pace, Runtime};
use crate::served::Served;
use std::future::pending;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A model that waits to be asked.
pub struct Session {
    runtime: Runtime,
    served: Arc<Served>,
    executor: tokio::runtime::Runtime,
}

impl Session {
    /// Loads a model.
    pub fn open(
        model: &config::Model,
        running: &config::Running,
        machine: &config::Machine,
    ) -> Result<Self, Failure> {
        let Loaded { engine, busy, served, .. } = load(model, None, running, machine)?;
        let shape = engine.settings();
        let metrics = Arc::new(Metrics::new(
            &served.name,
            shape.page_len,
            shape.pages,
            served.device.as_ref(),
        ));
        let pace = Pace { gather: Duration::ZERO, timeout: None, open_max: usize::MAX };
        let labels = served.labels.clone();
        let started = runtime::start(engine, busy, pace, metrics, labels);
        let (runtime, _) = started.map_err(Failure::Thread)?;
        let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let executor = executor.map_err(Failure::Thread)?;
        Ok(Self { runtime, served: Arc::new(served), executor })
    }

    /// Takes no more tokens than the model was trained on, where it says how many: a talk
    /// would go wrong before the model's positions end.
    pub fn within_training(mut self) -> Self {
        let served = Arc::get_mut(&mut self.served).expect("nobody has asked yet");
        served.context = served.context.min(served.text.len_max.unwrap_or(u32::MAX));
        self
    }

    /// Whether the model has a template for conversations.
    pub fn speaks(&self) -> bool {
        self.served.text.template().is_some()
    }

    /// What a surface is told.
    pub fn context(&self) -> Arc<Context> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Arc::new(Context {
            served: self.served.clone(),
            request_id: "here".into(),
            session: None,
            class: None,
            now,
        })
    }

    /// Hears of Ctrl-C, which no longer ends the process from now on.
    pub fn interrupts(&self) -> io::Result<Signal> {
        let _within = self.executor.enter();
        signal(SignalKind::interrupt())
    }

    /// What comes of waiting for it.
    pub fn wait<T>(&self, until: impl Future<Output = T>) -> T {
        self.executor.block_on(until)
    }

    /// Writes the answer as it comes, and gives it back.
    pub fn ask(&self, surface: &dyn Surface, out: &mut impl Write) -> Result<String, Failure> {
        self.ask_until(surface, pending(), out)
    }

    /// The same, of an answer that ends where it is when `over` does.
    pub fn ask_until(
        &self,
        surface: &dyn Surface,
        over: impl Future<Output = ()>,
        out: &mut impl Write,
    ) -> Result<String, Failure> {
        self.executor.block_on(async {
            tokio::pin!(over);
            let mut ticket = self.runtime.submit("", surface.requests(), true).await?;
            let mut answers = Answers::new(surface.asked(), 1);
            let mut whole = String::new();
            while !answers.ended() {
                let news = tokio::select! {
                    news = ticket.next() => news,
                    () = &mut over => break,
                };
                let stopped = || Refusal::internal("the engine has stopped");
                let News { at, events } = news.ok_or_else(stopped)?;
                for piece in answers.take(at, events, &self.served.text.tokenizer)? {
                    out.write_all(piece.text.as_bytes())?;
                    out.flush()?;
                    whole.push_str(&piece.text);
                }
            }
            writeln!(out)?;
            Ok(whole)
        })
    }
}

/// The fields of a request that say how it is drawn.
pub fn drawing(drawing: &config::Drawing) -> serde_json::Map<String, serde_json::Value> {
    let mut fields = serde_json::Map::new();
    fields.insert("max_tokens".into(), drawing.max_tokens.into());
    fields.insert("temperature".into(), drawing.temperature.into());
    if let Some(seed) = drawing.seed {
        fields.insert("seed".into(), seed.into());
    }
    fields
}
