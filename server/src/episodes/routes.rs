//! Episodes over HTTP: the same five calls as over gRPC, in JSON.

use super::held::{Held, Opening};
use super::step::Step;
use crate::http::routes::{Answer, Route, controls, generates};
use crate::http::{Call, Server, json_of};
use crate::openai::fields::Fields;
use crate::openai::sampling::is_request_id;
use crate::openai::{Refusal, check_model};
use crate::served::Served;
use engine::engine::{OnSwap, Standing};
use hyper::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const POST: &[Method] = &[Method::POST];

/// Paths of episodes.
pub const ROUTES: &[Route] = &[
    controls("/v1/episodes/start", POST, |server, call| start(server, call)),
    generates("/v1/episodes/step", |body, context| {
        Step::read(body, context).map(|it| Arc::new(it) as _)
    }),
    controls("/v1/episodes/end", POST, |server, call| end(server, call)),
    controls("/v1/episodes/fork", POST, |server, call| fork(server, call)),
    controls("/v1/episodes/get", POST, |server, call| get(server, call)),
];

/// How an episode is to begin.
pub fn opening(fields: &mut Fields, served: &Served) -> Result<Opening, Refusal> {
    let adapter = check_model(fields, served)?;
    let on_swap = match fields.take::<String>("on_swap")?.as_deref() {
        None | Some("pin") => OnSwap::Pin,
        Some("keep") => OnSwap::Keep,
        Some("recompute") => OnSwap::Recompute,
        Some(other) => return Err(Refusal::expected("on_swap", "pin, keep or recompute", other)),
    };
    let reserve: u32 = fields.take("reserve_tokens")?.unwrap_or(0);
    if reserve > served.context {
        let expected = format!("at most {}, the tokens that the model takes", served.context);
        return Err(Refusal::expected("reserve_tokens", &expected, reserve));
    }
    Ok(Opening {
        name: name(fields)?,
        adapter,
        salt: crate::openai::sampling::salt(fields)?,
        on_swap,
        reserve,
        seed: fields.take("seed")?,
        timeout: fields.within("timeout_seconds", 0.001..=1e7)?.map(Duration::from_secs_f64),
    })
}

/// The name that a client gives, if it does.
fn name(fields: &mut Fields) -> Result<Option<String>, Refusal> {
    let name: Option<String> = fields.take("episode_id")?;
    match name {
        Some(name) if !is_request_id(&name) => {
            let expected = "1 to 128 printable characters of ASCII";
            Err(Refusal::expected("episode_id", expected, format!("{} bytes", name.len())))
        }
        name => Ok(name),
    }
}

fn start(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let opening = opening(&mut fields, &server.served)?;
        fields.done()?;
        let served = &server.served;
        if let Some(known) = &opening.adapter {
            served.adapters.ready(&server.runtime, known).await?;
        }
        let held = served.episodes.start(&server.runtime, &server.metrics, opening).await?;
        Ok(json_of(&began(&held)))
    })
}

fn fork(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let from: String = fields.must("from_episode_id")?;
        let (name, seed) = (name(&mut fields)?, fields.take("seed")?);
        fields.done()?;
        let episodes = &server.served.episodes;
        let from = episodes.find(&from)?;
        let held = episodes.fork(&server.runtime, &from, name, seed).await?;
        Ok(json_of(&began(&held)))
    })
}

fn end(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let name: String = fields.must("episode_id")?;
        fields.done()?;
        let standing = server.served.episodes.end(&server.runtime, &name).await?;
        Ok(json_of(&shown(&name, standing.as_ref(), &server)))
    })
}

fn get(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let name: String = fields.must("episode_id")?;
        fields.done()?;
        let held = server.served.episodes.find(&name)?;
        let number = held.number;
        let standing = server.runtime.with(move |engine| engine.episode(number)).await?;
        Ok(json_of(&shown(&name, standing.as_ref(), &server)))
    })
}

fn began(held: &Held) -> Value {
    json!({
        "episode_id": held.name,
        "position": held.position(),
        "seed": held.seed,
        "model": held.adapter.as_ref().map(|known| &known.name),
    })
}

/// How an episode stands.
fn shown(name: &str, standing: Option<&Standing>, server: &Server) -> Value {
    let tokens = standing.map_or(&[][..], |standing| &standing.tokens);
    let text = server.served.text.tokenizer.decode(tokens, false).unwrap_or_default();
    json!({
        "episode_id": name,
        "position": tokens.len(),
        "token_ids": tokens,
        "text": text,
        "computed_tokens": standing.map(|standing| standing.computed),
        "step_in_flight": standing.is_some_and(|standing| standing.request.is_some()),
        "evictions": standing.map(|standing| standing.evictions),
    })
}
