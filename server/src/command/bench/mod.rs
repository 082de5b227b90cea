//! `pagewise bench`: a client that loads a running server, and tells how fast it answers.

mod client;
mod report;

use super::Failure;
use crate::config::Bench;
use client::{Asker, Outcome};
use report::Report;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Loads the server, and tells.
pub fn run(settings: &Bench, out: &mut impl Write) -> Result<(), Failure> {
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(Failure::Thread)?;
    let (outcomes, took) = executor.block_on(load(settings))?;
    let report = Report::of(&outcomes, took, settings);
    if settings.json {
        writeln!(out, "{}", report.json())?;
    } else {
        write!(out, "{report}")?;
    }
    match report.all_failed() {
        Some(why) => Err(Failure::Server(format!("every request failed: {why}"))),
        None => Ok(()),
    }
}

/// What came of each request, and how long all took.
async fn load(settings: &Bench) -> Result<(Vec<Outcome>, Duration), Failure> {
    if settings.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
        return Err(Failure::Setting("--rate: must be above 0".into()));
    }
    let (shared, prompt) = (settings.shared_tokens, settings.prompt_tokens);
    if shared > prompt {
        let words = format!("--shared-tokens: a prompt has {prompt} tokens, not {shared}");
        return Err(Failure::Setting(words));
    }
    let asker = Arc::new(Asker::open(settings).await?);
    let begun = Instant::now();
    let outcomes = match settings.rate {
        Some(rate) => arriving(settings, rate, &asker).await,
        None => waiting(settings, &asker).await,
    };
    Ok((outcomes, begun.elapsed()))
}

/// Clients that each wait for an answer before they ask again.
async fn waiting(settings: &Bench, asker: &Arc<Asker>) -> Vec<Outcome> {
    let next = Arc::new(AtomicU32::new(0));
    let requests = settings.requests;
    let mut clients = JoinSet::new();
    for _ in 0..settings.concurrency.min(requests) {
        let (next, asker) = (next.clone(), asker.clone());
        clients.spawn(async move {
            let mut outcomes = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return outcomes;
                }
                outcomes.push(asker.ask(number).await);
            }
        });
    }
    clients.join_all().await.into_iter().flatten().collect()
}

/// Requests that arrive at random, whoever has ended: the times between are exponential.
async fn arriving(settings: &Bench, rate: f64, asker: &Arc<Asker>) -> Vec<Outcome> {
    let mut noise = Noise(settings.seed);
    let mut requests = JoinSet::new();
    let mut due = tokio::time::Instant::now();
    for number in 0..settings.requests {
        tokio::time::sleep_until(due).await;
        let asker = asker.clone();
        requests.spawn(async move { asker.ask(number).await });
        due += Duration::from_secs_f64(-noise.unit().ln() / rate);
    }
    requests.join_all().await
}

/// SplitMix64: the same load for the same seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}
