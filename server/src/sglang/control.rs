//! Orders between two steps: end some, rest and go on, forget what was computed.

use super::words;
use crate::http::generate::{json, news};
use crate::http::{Answer, Call, Reply, Server};
use crate::openai::Refusal;
use crate::runtime::{News, Pause};
use engine::request::{Class, Event, Finish, Generate, Request, Sampling, Stop, Task};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one token may take before the server is said to be ill.
const HEALTHY_WITHIN: Duration = Duration::from_secs(20);
/// Between two looks at what runs.
const PAUSE: Duration = Duration::from_millis(5);
/// Seconds that a client may have the server wait, at most.
const WAIT_MAX: f64 = 3600.0;

/// `/abort_request`: ends those whose names begin so, or all. They tell what they have.
pub fn abort_request(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let rid: String = call.either(&mut fields, "rid")?.unwrap_or_default();
        let all = call.either(&mut fields, "abort_all")?.unwrap_or(false);
        fields.take::<Value>("abort_message")?;
        fields.done()?;
        // Every name begins with nothing: whoever means all says so.
        let which = move |name: &str| all || (!rid.is_empty() && name.starts_with(&rid));
        // First those that the engine does not have yet.
        server.kept.names.end(&which);
        server.runtime.abort(which).await?;
        Ok(Response::new(Reply::whole("")))
    })
}

/// `/pause_generation`: nothing more is computed, and who comes waits.
pub fn pause_generation(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let mode: Option<String> = call.either(&mut fields, "mode")?;
        fields.done()?;
        match mode.as_deref() {
            None | Some("abort") => end_all(&server).await?,
            Some("retract") => server.runtime.rest(Some(Pause::Retract)).await?,
            Some("in_place") => server.runtime.rest(Some(Pause::Freeze)).await?,
            Some(other) => {
                return Err(Refusal::expected("mode", "abort, retract or in_place", other));
            }
        }
        Ok(told("Generation paused successfully."))
    })
}

/// Ends all that is in flight with what it has, also where it rests already.
async fn end_all(server: &Server) -> Result<(), Refusal> {
    let runtime = &server.runtime;
    runtime.abort(|_| true).await?;
    runtime.rest(Some(Pause::Refuse)).await?;
    // Some may have been on their way to the engine.
    while runtime.open() > 0 && runtime.alive() {
        runtime.abort(|_| true).await?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// `/continue_generation`.
pub fn continue_generation(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        fields.take::<bool>("torch_empty_cache")?;
        fields.done()?;
        server.runtime.rest(None).await?;
        Ok(told("Generation continued successfully."))
    })
}

fn told(message: &str) -> Response<Reply> {
    json(json!({ "message": message, "status": "ok" }).to_string().into_bytes())
}

/// `/flush_cache`: forgets what pages hold, unless somebody needs it.
pub fn flush_cache(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let timeout: f64 = call.either(&mut fields, "timeout")?.unwrap_or(0.0);
        fields.done()?;
        if !(0.0..=WAIT_MAX).contains(&timeout) {
            let expected = format!("seconds from 0 to {WAIT_MAX}");
            return Err(Refusal::expected("timeout", &expected, timeout));
        }
        let until = Instant::now() + Duration::from_secs_f64(timeout);
        loop {
            if flushed(&server).await? {
                return Ok(words(StatusCode::OK, "Cache flushed.\n"));
            }
            if Instant::now() >= until {
                let why = "Cache not flushed: requests are running or waiting. Finish, abort or \
                           retract them first.\n";
                return Ok(words(StatusCode::BAD_REQUEST, why));
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
}

/// Forgets what pages hold where nobody runs. Who waits holds nothing, but will need it,
/// unless it waits for the server to go on.
async fn flushed(server: &Server) -> Result<bool, Refusal> {
    let rests = server.runtime.pause().is_some();
    let flush = move |engine: &mut engine::engine::Engine| {
        let counters = engine.counters();
        let idle = counters.running == 0 && (counters.waiting == 0 || rests);
        if idle {
            engine.forget_prefixes();
        }
        idle
    };
    server.runtime.with(flush).await
}

/// `/health_generate`: whether a token comes. A server that rests, or has its hands full, is
/// not ill.
pub fn health_generate(server: Arc<Server>, _: Call) -> Answer {
    Box::pin(async move {
        let ill = || words(StatusCode::SERVICE_UNAVAILABLE, "no token comes\n");
        let well = || Response::new(Reply::whole(""));
        if !server.runtime.alive() {
            return Ok(ill());
        }
        let has_pages = server.runtime.with(|engine| engine.has_pages()).await?;
        if server.runtime.pause().is_some() || !has_pages {
            return Ok(well());
        }
        match tokio::time::timeout(HEALTHY_WITHIN, token(&server)).await {
            Ok(Ok(())) => Ok(well()),
            Ok(Err(refusal)) if refusal.retry_after.is_some() && server.runtime.alive() => {
                Ok(well())
            }
            Ok(Err(_)) | Err(_) => Ok(ill()),
        }
    })
}

/// Generates one.
async fn token(server: &Server) -> Result<(), Refusal> {
    let task = Task::Generate(Generate {
        choices: 1,
        max_new: 1,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stop: Stop::default(),
        grammar: None,
        chosen: [].into(),
        kept: None,
        top: None,
        prompt_top: None,
        prompt_from: 0,
    });
    let request = Request {
        id: 0,
        prompt: vec![0],
        task,
        class: Class::Inference,
        priority: i32::MIN,
        salt: [].into(),
        adapter: None,
        episode: None,
        deadline: None,
    };
    let mut ticket = server.runtime.submit("health", vec![request], false).await?;
    loop {
        let News { events, .. } = news(&mut ticket).await?;
        for event in events {
            match event {
                Event::End { why: Finish::Failed(why), .. } => return Err(Refusal::internal(why)),
                Event::End { .. } => return Ok(()),
                _ => {}
            }
        }
    }
}
