//! Every path there is, besides the page's: how it is asked, and who answers.

use super::body::Reply;
use super::call::Call;
use super::entry::Entry;
use super::generate::json;
use super::route::state;
use super::{Begun, Server, json_of, shown_metrics};
use crate::openai::{self, Chat, Completions, Context, Refusal, Surface, tokens};
use crate::sglang;
use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};
use serde_json::json;
use std::pin::Pin;
use std::sync::Arc;

/// A path.
pub struct Route {
    /// As it stands in the address, where braces stand for one part of it.
    pub path: &'static str,
    /// How it may be asked; HEAD is GET.
    pub methods: &'static [Method],
    /// Whether a key is needed, where the server has some.
    pub key: bool,
    /// Who answers.
    pub how: How,
}

/// What is made of a call.
pub type Answer = Pin<Box<dyn Future<Output = Result<Response<Reply>, Refusal>> + Send>>;
/// What makes a reply of a body.
pub type Making = fn(&[u8], Arc<Context>) -> Result<Vec<u8>, Refusal>;
/// What reads a body as a surface of generation.
pub type Reading = fn(&[u8], Arc<Context>) -> Result<Arc<dyn Surface>, Refusal>;

/// Who answers a path.
pub enum How {
    /// Something that is there.
    Plain(fn(&Server, &HeaderMap) -> Result<Response<Reply>, Refusal>),
    /// Answers are generated, as the body asks.
    Generate(Reading),
    /// The body tells all.
    Read(Making),
    /// Texts become vectors.
    Embed,
    /// Answers are generated, by a surface that sends them itself.
    Answers(fn(Arc<Server>, Asking) -> Answer),
    /// Something changes, or is looked at, between two steps.
    Control(fn(Arc<Server>, Call) -> Answer),
}

/// A call that answers are generated for.
pub struct Asking {
    /// All that came.
    pub call: Call,
    /// What surfaces are told besides.
    pub context: Arc<Context>,
    /// Held until it is answered.
    pub begun: Begun,
    /// Its line in the log.
    pub entry: Entry,
}

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];

/// OpenAI's, and those that watch the server.
const ROUTES: &[Route] = &[
    generates("/v1/completions", |body, context| {
        Completions::read(body, context).map(|it| Arc::new(it) as _)
    }),
    generates("/v1/chat/completions", |body, context| {
        Chat::read(body, context).map(|it| Arc::new(it) as _)
    }),
    Route { path: "/v1/embeddings", methods: POST, key: true, how: How::Embed },
    reads("/tokenize", |body, context| tokens::tokenize(body, &context.served)),
    reads("/detokenize", |body, context| tokens::detokenize(body, &context.served)),
    plain("/v1/models", true, |server, _| Ok(json(openai::models(&server.served)))),
    plain("/health", false, |server, _| Ok(alive(server))),
    // prime-rl's name of it, and vLLM's.
    plain("/liveness", false, |server, _| Ok(alive(server))),
    plain("/ping", false, |server, _| Ok(alive(server))),
    plain("/ready", false, |server, _| {
        Ok(match (server.runtime.alive(), server.ready()) {
            (true, true) => state(StatusCode::OK, "ready"),
            (true, false) => state(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
            (false, _) => stopped(server),
        })
    }),
    plain("/version", false, |_, _| {
        Ok(json(format!("{{\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION")).into()))
    }),
    plain("/metrics", false, |server, headers| Ok(shown_metrics(server, headers))),
    plain("/debug/metrics", true, |server, _| Ok(json(server.metrics.debug()))),
];

/// Whether the engine lives.
fn alive(server: &Server) -> Response<Reply> {
    match server.runtime.alive() {
        true => state(StatusCode::OK, "alive"),
        false => stopped(server),
    }
}

/// The engine does not live, and why.
fn stopped(server: &Server) -> Response<Reply> {
    let words = match server.runtime.failure() {
        Some(why) => format!("the device has failed: {why}"),
        None => "the engine has stopped".into(),
    };
    let mut response = json_of(&json!({ "status": words }));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// The route of a path: one without braces comes before those with.
pub fn find(path: &str) -> Option<&'static Route> {
    let all = [
        ROUTES,
        crate::vllm::ROUTES,
        crate::adapters::ROUTES,
        crate::weights::ROUTES,
        crate::checkpoints::ROUTES,
        crate::episodes::ROUTES,
        crate::rollouts::ROUTES,
        sglang::ROUTES,
    ];
    let all = || all.into_iter().flatten();
    let exact = all().find(|route| route.path == path);
    exact.or_else(|| all().find(|route| route.part(path).is_some()))
}

impl Route {
    /// What a path of this route has in place of the braces.
    pub fn part<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (before, rest) = self.path.split_once('{')?;
        let (_, after) = rest.split_once('}')?;
        let part = path.strip_prefix(before)?.strip_suffix(after)?;
        (!part.is_empty() && !part.contains('/')).then_some(part)
    }
}

/// A path that generates.
pub const fn generates(path: &'static str, read: Reading) -> Route {
    Route { path, methods: POST, key: true, how: How::Generate(read) }
}

/// A path whose body tells all.
pub const fn reads(path: &'static str, read: Making) -> Route {
    Route { path, methods: POST, key: true, how: How::Read(read) }
}

/// A path that shows something.
pub const fn plain(
    path: &'static str,
    key: bool,
    how: fn(&Server, &HeaderMap) -> Result<Response<Reply>, Refusal>,
) -> Route {
    Route { path, methods: GET, key, how: How::Plain(how) }
}

/// A path that changes something.
pub const fn controls(
    path: &'static str,
    methods: &'static [Method],
    how: fn(Arc<Server>, Call) -> Answer,
) -> Route {
    Route { path, methods, key: true, how: How::Control(how) }
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn braces_stand_for_one_part_of_a_path() {
        let path = |path: &str| find(path).map(|route| route.path);
        let one = Some("/v1/trajectories/{id}");
        assert_eq!(path("/v1/trajectories"), Some("/v1/trajectories"));
        assert_eq!(path("/v1/trajectories/stats"), Some("/v1/trajectories/stats"));
        assert_eq!([path("/v1/trajectories/7"), path("/v1/trajectories/a%2Fb")], [one; 2]);
        let reward = Some("/v1/trajectories/{id}/reward");
        assert_eq!(path("/v1/trajectories/7/reward"), reward);
        for none in ["", "/v1/trajectories/", "/v1/trajectories/7/", "/v1/trajectories/7/8"] {
            assert_eq!(path(none), None, "{none}");
        }
        assert_eq!(path("/v1/trajectories//reward"), None);
        let route = find("/v1/trajectories/7/reward").expect("it is there");
        assert_eq!(route.part("/v1/trajectories/7/reward"), Some("7"));
    }
}
