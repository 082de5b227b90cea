//! Episodes over gRPC.

use super::status::status;
use crate::episodes::{Step, opening};
use crate::http::Server;
use crate::http::generate::{Course, submit};
use crate::openai::fields::Fields;
use crate::openai::{Context, Refusal, Surface};
use engine::engine::Standing;
use prost::Message;
use proto::step_request::{Observation, StructuredOutput};
use proto::{
    EndEpisodeRequest, EpisodeState, ForkEpisodeRequest, GetEpisodeRequest, Logprob, OnSwap, Over,
    StartEpisodeRequest, StartEpisodeResponse, StepRequest, StepResponse, TopLogprob, VersionSpan,
};
use serde_json::{Map, Value, json};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

/// Pieces that wait to be sent.
const PIECES_WAITING: usize = 16;

/// The service.
pub struct Episodes(pub Arc<Server>);

#[tonic::async_trait]
impl proto::episodes_server::Episodes for Episodes {
    type StepStream = ReceiverStream<Result<StepResponse, Status>>;

    async fn start_episode(
        &self,
        request: Request<StartEpisodeRequest>,
    ) -> Result<Response<StartEpisodeResponse>, Status> {
        let asked = request.into_inner();
        let mut fields = Fields::of(started(&asked));
        let server = &self.0;
        let started = async {
            let opening = opening(&mut fields, &server.served)?;
            if let Some(known) = &opening.adapter {
                server.served.adapters.ready(&server.runtime, known).await?;
            }
            server.served.episodes.start(&server.runtime, &server.metrics, opening).await
        };
        let held = started.await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(StartEpisodeResponse {
            episode_id: held.name.clone(),
            position: held.position() as u64,
            seed: held.seed,
        }))
    }

    async fn step(
        &self,
        request: Request<StepRequest>,
    ) -> Result<Response<Self::StepStream>, Status> {
        let within = within(request.metadata());
        let asked = request.into_inner();
        let (to, pieces) = channel(PIECES_WAITING);
        begin(&self.0, asked, within, to).await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    async fn end_episode(
        &self,
        request: Request<EndEpisodeRequest>,
    ) -> Result<Response<EpisodeState>, Status> {
        let name = request.into_inner().episode_id;
        let ended = self.0.served.episodes.end(&self.0.runtime, &name).await;
        let standing = ended.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(state(&self.0, name, standing)))
    }

    async fn fork_episode(
        &self,
        request: Request<ForkEpisodeRequest>,
    ) -> Result<Response<StartEpisodeResponse>, Status> {
        let ForkEpisodeRequest { from_episode_id, episode_id, seed } = request.into_inner();
        let episodes = &self.0.served.episodes;
        let forked = async {
            let from = episodes.find(&from_episode_id)?;
            episodes.fork(&self.0.runtime, &from, episode_id, seed).await
        };
        let held = forked.await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(StartEpisodeResponse {
            episode_id: held.name.clone(),
            position: held.position() as u64,
            seed: held.seed,
        }))
    }

    async fn get_episode(
        &self,
        request: Request<GetEpisodeRequest>,
    ) -> Result<Response<EpisodeState>, Status> {
        let name = request.into_inner().episode_id;
        let found = async {
            let number = self.0.served.episodes.find(&name)?.number;
            self.0.runtime.with(move |engine| engine.episode(number)).await
        };
        let standing = found.await.map_err(|refusal| status(&refusal))?;
        Ok(Response::new(state(&self.0, name, standing)))
    }
}

fn started(asked: &StartEpisodeRequest) -> Map<String, Value> {
    let on_swap = match asked.on_swap() {
        OnSwap::Unspecified | OnSwap::Pin => "pin",
        OnSwap::Keep => "keep",
        OnSwap::Recompute => "recompute",
    };
    object(json!({
        "episode_id": asked.episode_id,
        "model": asked.model,
        "on_swap": on_swap,
        "reserve_tokens": asked.reserve_tokens,
        "seed": asked.seed,
        "timeout_seconds": asked.timeout_seconds,
        "cache_salt": asked.cache_salt,
    }))
}

fn state(server: &Server, name: String, standing: Option<Standing>) -> EpisodeState {
    let Some(standing) = standing else {
        return EpisodeState { episode_id: name, ..EpisodeState::default() };
    };
    EpisodeState {
        episode_id: name,
        position: standing.tokens.len() as u64,
        text: server.served.text.tokenizer.decode(&standing.tokens, false).unwrap_or_default(),
        computed_tokens: standing.computed.into(),
        step_in_flight: standing.request.is_some(),
        evictions: standing.evictions,
        token_ids: standing.tokens,
    }
}

/// Begins a step, whose pieces are sent as they come.
async fn begin(
    server: &Arc<Server>,
    asked: StepRequest,
    within: Option<Duration>,
    to: Sender<Result<StepResponse, Status>>,
) -> Result<(), Refusal> {
    let begun = server.begin()?;
    let mut hash = DefaultHasher::new();
    asked.encode_to_vec().hash(&mut hash);
    let fields = Fields::of(asked_of(asked)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let served = server.served.clone();
    let context = Context { served, request_id: "grpc".into(), session: None, class: None, now };
    // A long observation keeps nobody else waiting.
    let reading =
        tokio::task::spawn_blocking(move || Step::of(fields, hash.finish(), Arc::new(context)));
    let broken = |_| Refusal::internal("the step could not be read: this is a fault of the server");
    let step = reading.await.map_err(broken)??;
    if let Some(reply) = step.ready() {
        let reply = again(&reply)?;
        // Whoever asked may have gone.
        let _ = to.send(Ok(reply)).await;
        return Ok(());
    }
    let permit = server.stream()?;
    let requests = step.requests();
    let course = Course::new(&step, &requests, server).await?;
    let (name, adapter) = (step.asked().request_id.clone(), step.asked().adapter.clone());
    let name = name.unwrap_or_else(|| "grpc".into());
    let ticket = submit(server, &name, adapter.as_ref(), requests, true).await?;
    let server = server.clone();
    tokio::spawn(async move {
        let sending = send(&server, step, course, ticket, &to);
        let late = async {
            match within {
                Some(within) => tokio::time::sleep(within).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sending => {}
            // Whoever asked has gone: so do the ticket and the step.
            () = to.closed() => {}
            () = late => {
                let _ = to.send(Err(Status::deadline_exceeded("the step took too long"))).await;
            }
        }
        drop((permit, begun));
    });
    Ok(())
}

async fn send(
    server: &Server,
    step: Step,
    mut course: Course,
    mut ticket: crate::runtime::Ticket,
    to: &Sender<Result<StepResponse, Status>>,
) {
    while !course.answers.ended() {
        let pieces = match course.next(server, &mut ticket).await {
            Ok(pieces) => pieces,
            Err(refusal) => {
                let _ = to.send(Err(status(&refusal))).await;
                return;
            }
        };
        for piece in pieces {
            step.came(&piece, &course.answers);
            let reply = step.reply(&piece, &course.answers);
            let logprobs = reply.logprobs.unwrap_or_default().into_iter().map(|entry| Logprob {
                token_id: entry.token_id,
                logprob: entry.logprob,
                processed_logprob: entry.processed_logprob,
                top: entry
                    .top_logprobs
                    .into_iter()
                    .map(|top| TopLogprob { token_id: top.token_id, logprob: top.logprob })
                    .collect(),
            });
            let spans = reply.weight_versions.unwrap_or_default().into_iter();
            let stop = reply.stop_reason.map(|stop| match stop {
                crate::openai::answer::StopReason::Token(token) => token.to_string(),
                crate::openai::answer::StopReason::String(text) => text,
            });
            let piece = StepResponse {
                token_ids: reply.token_ids,
                text: reply.text,
                logprobs: logprobs.collect(),
                position_before: reply.position_before as u64,
                position: reply.position as u64,
                finish_reason: reply.finish_reason.map(str::to_owned),
                stop_reason: stop,
                weight_versions: spans
                    .map(|span| VersionSpan {
                        version: span.version.to_string(),
                        start: span.start as u64,
                        end: span.end as u64,
                        weights: span.weights.map(|name| name.to_string()),
                        kv: span
                            .kv
                            .into_iter()
                            .map(|over| Over {
                                from: over.from as u64,
                                version: over.version.to_string(),
                                weights: over.weights.map(|name| name.to_string()),
                            })
                            .collect(),
                    })
                    .collect(),
                computed_tokens: reply.computed_tokens.map(|count| count as u64),
                rebuilt_tokens: reply.rebuilt_tokens.map(|count| count as u64),
                trajectory_id: reply.collected.as_ref().and_then(|it| it.trajectory_id),
                reward: reply.collected.as_ref().and_then(|it| it.reward),
                trajectory_error: reply.collected.and_then(|it| it.trajectory_error),
            };
            if to.send(Ok(piece)).await.is_err() {
                return;
            }
        }
    }
}

/// A step as the fields of its JSON.
fn asked_of(asked: StepRequest) -> Result<Map<String, Value>, Refusal> {
    let structure = asked.structured_output.map(|structure| match structure {
        StructuredOutput::Json(schema) => {
            let parsed = serde_json::from_str::<Value>(&schema);
            parsed.map(|schema| json!({ "json": schema }))
        }
        StructuredOutput::Regex(regex) => Ok(json!({ "regex": regex })),
        StructuredOutput::Grammar(grammar) => Ok(json!({ "grammar": grammar })),
        StructuredOutput::StructuralTag(tag) => Ok(json!({ "structural_tag": tag })),
    });
    let structure = structure.transpose();
    let structure =
        structure.map_err(|error| Refusal::field("json", format!("is no JSON: {error}")))?;
    let (text, tokens) = match asked.observation {
        None => (None, None),
        Some(Observation::Text(text)) => (Some(text), None),
        Some(Observation::Tokens(tokens)) => (None, Some(tokens.ids)),
    };
    let list = |all: &[u32]| (!all.is_empty()).then(|| all.to_vec());
    let mut fields = object(json!({
        "episode_id": asked.episode_id,
        "expected_position": asked.expected_position,
        "observation": text,
        "observation_token_ids": tokens,
        "max_tokens": asked.max_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "top_k": asked.top_k,
        "min_p": asked.min_p,
        "seed": asked.seed,
        "stop": (!asked.stop.is_empty()).then_some(asked.stop),
        "stop_token_ids": list(&asked.stop_token_ids),
        "ignore_eos": asked.ignore_eos,
        "min_tokens": asked.min_tokens,
        "logprobs": asked.logprobs,
        "class": asked.request_class,
        "structured_outputs": structure,
    }));
    if let Some(options) = asked.options_json {
        let wrong = |error: serde_json::Error| {
            Refusal::field("options_json", format!("is no JSON object: {error}"))
        };
        let options: Map<String, Value> = serde_json::from_str(&options).map_err(wrong)?;
        for (name, value) in options {
            if fields.contains_key(&name) {
                let words = format!("holds `{name}`, which is given already");
                return Err(Refusal::field("options_json", words));
            }
            fields.insert(name, value);
        }
    }
    Ok(fields)
}

/// The fields that are there.
fn object(value: Value) -> Map<String, Value> {
    let Value::Object(mut fields) = value else { return Map::new() };
    fields.retain(|_, value| !value.is_null());
    fields
}

/// What a step that is sent again came to.
fn again(reply: &[u8]) -> Result<StepResponse, Refusal> {
    let broken = || Refusal::internal("the last reply is lost");
    let reply: Value = serde_json::from_slice(reply).map_err(|_| broken())?;
    let number = |name: &str| reply[name].as_u64();
    let float = |value: &Value| value.as_f64().unwrap_or(0.0) as f32;
    let id = |value: &Value| value["token_id"].as_u64().unwrap_or(0) as u32;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let entry = |entry: &Value| Logprob {
        token_id: id(entry),
        logprob: float(&entry["logprob"]),
        processed_logprob: float(&entry["processed_logprob"]),
        top: list(&entry["top_logprobs"])
            .iter()
            .map(|top| TopLogprob { token_id: id(top), logprob: float(&top["logprob"]) })
            .collect(),
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let over = |over: &Value| Over {
        from: over["from"].as_u64().unwrap_or(0),
        version: text(&over["version"]).unwrap_or_default(),
        weights: text(&over["weights"]),
    };
    let span = |span: &Value| VersionSpan {
        version: text(&span["version"]).unwrap_or_default(),
        start: span["start"].as_u64().unwrap_or(0),
        end: span["end"].as_u64().unwrap_or(0),
        weights: text(&span["weights"]),
        kv: list(&span["kv"]).iter().map(over).collect(),
    };
    let stop = match &reply["stop_reason"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    Ok(StepResponse {
        token_ids: list(&reply["token_ids"])
            .iter()
            .map(|token| token.as_u64().unwrap_or(0) as u32)
            .collect(),
        text: reply["text"].as_str().unwrap_or_default().to_owned(),
        logprobs: list(&reply["logprobs"]).iter().map(entry).collect(),
        position_before: number("position_before").unwrap_or(0),
        position: number("position").unwrap_or(0),
        finish_reason: reply["finish_reason"].as_str().map(str::to_owned),
        stop_reason: stop,
        weight_versions: list(&reply["weight_versions"]).iter().map(span).collect(),
        computed_tokens: number("computed_tokens"),
        rebuilt_tokens: number("rebuilt_tokens"),
        trajectory_id: number("trajectory_id"),
        reward: reply["reward"].as_f64(),
        trajectory_error: reply["trajectory_error"].as_str().map(str::to_owned),
    })
}

/// How long a client waits at most, if it says so: `100m` is a tenth of a second.
fn within(metadata: &MetadataMap) -> Option<Duration> {
    let told = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = told.split_at_checked(told.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}
