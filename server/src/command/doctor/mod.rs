//! `pagewise doctor`: makes the calls of a trainer's step to a running server, reads each reply
//! as that trainer does, and tells what differs and how the trainer is pointed at the server.

mod adapter;
mod answers;
mod call;
mod part;
mod prime_rl;
mod skyrl;
mod slime;
mod trl;
mod visit;

use super::Failure;
use super::client::Client;
use crate::config::{Doctor, Trainer};
use serde_json::json;
use std::io::{self, Write};
use tokio::signal::unix::{SignalKind, signal};
use visit::Visit;

/// Makes the visit, and tells; it fails where a call differs.
pub fn run(settings: &Doctor, out: &mut impl Write) -> Result<(), Failure> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let executor = executor.map_err(Failure::Thread)?;
    executor.block_on(examine(settings, out))
}

async fn examine(settings: &Doctor, out: &mut dyn Write) -> Result<(), Failure> {
    let unasked = |failure: Failure| Failure::Unasked(failure.to_string());
    let client = Client::of("URL", &settings.url, settings.key.api_key.clone());
    let client = client.map_err(unasked)?;
    client.reach().await?;
    let mut visit = Visit::new(settings, client, out);
    let paused = visit.look("/is_paused").await.unwrap_or_default();
    if paused["is_paused"] == json!(true) {
        let words = "the server is paused: somebody trains on it, and would be disturbed";
        return Err(Failure::Unasked(words.to_owned()));
    }
    let ended = ended()?;
    let stepped = tokio::select! {
        stepped = step(&mut visit) => Some(stepped),
        () = ended => None,
    };
    // Whatever came of it.
    let put_back = visit.put_back().await;
    let interrupted = || Failure::Server("interrupted: not all calls were made".to_owned());
    let configuration = stepped.ok_or_else(interrupted)??;
    put_back?;
    visit.close(&configuration)?;
    match visit.differing {
        0 => Ok(()),
        count => Err(Failure::Differing { count }),
    }
}

/// Waits until somebody ends the visit: at the terminal, from elsewhere, or with the terminal.
fn ended() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// The trainer's calls; gives the lines that point it at the server.
async fn step(visit: &mut Visit<'_>) -> io::Result<Vec<String>> {
    match visit.settings.trainer {
        Trainer::Trl => trl::step(visit).await,
        Trainer::PrimeRl => prime_rl::step(visit).await,
        Trainer::SkyRl => skyrl::step(visit).await,
        Trainer::Slime => slime::step(visit).await,
    }
}
