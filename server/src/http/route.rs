//! One request: which path, who may, and what comes back.

use super::body::Reply;
use super::entry::{Entry, Streamed};
use super::upload::{self, Upload};
use super::{Door, Server, closed, generate, guard};
use crate::metrics::{self, Format};
use crate::openai::embeddings::Embeddings;
use crate::openai::{self, Chat, Completions, Context, Refusal, tokens};
use crate::page;
use generate::json;
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS,
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// By how much threads that read large bodies stand back.
const LARGE_BACK: i32 = 10;

/// Paths that are asked with a body.
const POSTS: &[&str] =
    &["/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize"];
/// Paths that are asked without, beside the page's, and whether a key is needed.
const GETS: &[(&str, bool)] = &[
    ("/v1/models", true),
    ("/health", false),
    ("/ready", false),
    ("/version", false),
    ("/metrics", false),
    ("/debug/metrics", true),
];

/// Methods as they are counted: what clients make up is one.
const METHODS: &[Method] =
    &[Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS];

/// The response to a request; errors are responses, too.
pub async fn answer(
    request: Request<Incoming>,
    door: Arc<Door>,
) -> Result<Response<Reply>, Infallible> {
    let begun = Instant::now();
    let number = door.requests.fetch_add(1, Ordering::Relaxed);
    let id = guard::name(request.headers()).unwrap_or_else(|| unnamed(number));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let entry = Entry { id, method, path, begun };
    let origin = guard::origin(request.headers(), &door.limits.allowed_origins);
    let server = door.server.get();
    let outcome = match server {
        Some(server) => dispatch(request, server, &entry).await,
        None => unopened(request, &door).await,
    };
    let mut response = outcome.unwrap_or_else(refused);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&entry.id) {
        headers.insert("x-request-id", id);
    }
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let shown = HeaderValue::from_static("x-request-id, retry-after");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, shown);
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
    if server.is_some_and(|server| server.draining()) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let status = response.status();
    if let Some(server) = server {
        let handler = known(&entry.path);
        let method = if METHODS.contains(&entry.method) { entry.method.as_str() } else { "other" };
        let (method, status) = (method.to_owned(), status.as_u16());
        server.metrics.request(&metrics::Response { handler, method, status });
    }
    if response.extensions_mut().remove::<Streamed>().is_none() {
        entry.write(status, response.extensions().get());
    }
    Ok(response)
}

/// While the model is loaded: the page is there, and shows that it is.
async fn unopened(request: Request<Incoming>, door: &Door) -> Result<Response<Reply>, Refusal> {
    if let (&Method::GET | &Method::HEAD, Some(file)) =
        (request.method(), page::file(request.uri().path()))
    {
        return Ok(shown(file));
    }
    if let "/health" | "/ready" = request.uri().path() {
        return Ok(state(StatusCode::SERVICE_UNAVAILABLE, "loading"));
    }
    upload::discard(request.into_body(), door.limits.max_body_bytes).await;
    Err(closed::loading())
}

/// A name that no other request of this server has.
fn unnamed(number: u64) -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}{number:04x}", RandomState::new().hash_one(number))
}

/// The path as it is counted: what clients make up is one.
fn known(path: &str) -> &'static str {
    gets()
        .map(|(path, _)| path)
        .chain(POSTS.iter().copied())
        .find(|known| *known == path)
        .unwrap_or(if path.starts_with("/v1/models/") { "/v1/models/{model}" } else { "other" })
}

/// Paths that are asked without a body, the page's among them, and whether a key is needed.
fn gets() -> impl Iterator<Item = (&'static str, bool)> {
    GETS.iter().copied().chain(page::FILES.iter().map(|file| (file.path, false)))
}

async fn dispatch(
    request: Request<Incoming>,
    server: &Arc<Server>,
    entry: &Entry,
) -> Result<Response<Reply>, Refusal> {
    let (head, body) = request.into_parts();
    let (method, path) = (head.method, head.uri.path());
    if method == Method::OPTIONS {
        return Ok(preflight(&head.headers));
    }
    let open = gets().any(|(known, key)| known == path && !key);
    if !open {
        guard::key(&head.headers, &server.limits.api_key)?;
    }
    if POSTS.contains(&path) {
        return match method {
            Method::POST => post(path, &head.headers, body, server, entry).await,
            _ => Ok(not_so("POST")),
        };
    }
    let model = path.strip_prefix("/v1/models/");
    if model.is_none() && !gets().any(|(known, _)| known == path) {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no {path}")));
    }
    if method != Method::GET && method != Method::HEAD {
        return Ok(not_so("GET"));
    }
    match model {
        Some(name) => {
            let name = percent_decode_str(name).decode_utf8_lossy();
            openai::model(&name, &server.served).map(json)
        }
        None => Ok(get(path, &head.headers, server)),
    }
}

/// How it stands, in a word.
fn state(status: StatusCode, word: &str) -> Response<Reply> {
    let mut response = json(format!("{{\"status\":\"{word}\"}}").into_bytes());
    *response.status_mut() = status;
    response
}

/// A file of the page.
fn shown(file: &page::File) -> Response<Reply> {
    let mut response = Response::new(Reply::whole(file.text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(file.kind));
    for (name, value) in page::HEADERS {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    response
}

/// What is asked without a body.
fn get(path: &str, headers: &HeaderMap, server: &Server) -> Response<Reply> {
    if let Some(file) = page::file(path) {
        return shown(file);
    }
    match path {
        "/v1/models" => json(openai::models(&server.served)),
        "/health" | "/ready" if !server.runtime.alive() => {
            state(StatusCode::SERVICE_UNAVAILABLE, "the engine has stopped")
        }
        "/health" => state(StatusCode::OK, "alive"),
        "/ready" if server.ready() => state(StatusCode::OK, "ready"),
        "/ready" => state(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
        "/version" => json(format!("{{\"version\":\"{}\"}}", env!("CARGO_PKG_VERSION")).into()),
        "/debug/metrics" => json(server.metrics.debug()),
        // `/metrics`, the last one.
        _ => {
            let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
            let format = Format::asked(accept.unwrap_or(""));
            let mut response = Response::new(Reply::whole(server.metrics.text(format)));
            let kind = HeaderValue::from_static(format.content_type());
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
    }
}

/// What is asked with a body.
async fn post(
    path: &str,
    headers: &HeaderMap,
    body: Incoming,
    server: &Arc<Server>,
    entry: &Entry,
) -> Result<Response<Reply>, Refusal> {
    let begun = match server.begin() {
        Ok(begun) => begun,
        Err(refusal) => {
            server.uploads.discard(body).await;
            return Err(refusal);
        }
    };
    let body = server.uploads.read(headers, body).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let served = server.served.clone();
    let context = Arc::new(Context { served, request_id: entry.id.clone(), now });
    match path {
        "/v1/completions" => {
            let surface = read(body, move |body| Completions::read(body, context)).await?;
            generate::generate(server.clone(), Arc::new(surface), begun, entry.clone()).await
        }
        "/v1/chat/completions" => {
            let surface = read(body, move |body| Chat::read(body, context)).await?;
            generate::generate(server.clone(), Arc::new(surface), begun, entry.clone()).await
        }
        "/v1/embeddings" => {
            let asked = read(body, move |body| Embeddings::read(body, context)).await?;
            generate::embed(server, &asked).await.map(json)
        }
        "/tokenize" => {
            read(body, move |body| tokens::tokenize(body, &context.served)).await.map(json)
        }
        // `/detokenize`, the last one.
        _ => read(body, move |body| tokens::detokenize(body, &context.served)).await.map(json),
    }
}

/// Reads a body where a long text does not keep others waiting; its room is free then. A
/// large one has a thread of its own, which stands back where others want the cores.
async fn read<T: Send + 'static>(
    body: Upload,
    how: impl FnOnce(&[u8]) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let (to, read) = oneshot::channel();
    let large = body.is_large();
    let work = move || {
        // Who asked may have gone.
        let _ = to.send(how(&body.bytes));
    };
    if large {
        let stands_back = move || {
            grammar::stand_back(LARGE_BACK);
            work();
        };
        let thread = std::thread::Builder::new().name("large".into()).spawn(stands_back);
        thread.map_err(|error| Refusal::internal(format!("a large request: {error}")))?;
    } else {
        tokio::task::spawn_blocking(work);
    }
    read.await.unwrap_or_else(|_| {
        tracing::error!("a request broke its reader");
        Err(Refusal::internal("the request could not be read: this is a fault of the server"))
    })
}

/// What a browser asks before it sends a page's request.
fn preflight(asked: &HeaderMap) -> Response<Reply> {
    let mut response = Response::new(Reply::whole(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, OPTIONS"));
    // Clients have headers of their own; a page that may not ask is stopped by its origin.
    let plain = || HeaderValue::from_static("authorization, content-type, x-request-id");
    let allowed = asked.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or_else(plain);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    response
}

/// The path is known, the method is not its own.
fn not_so(method: &'static str) -> Response<Reply> {
    let words = format!("this path is asked by {method}");
    let mut response = refused(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, words));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

fn refused(refusal: Refusal) -> Response<Reply> {
    let mut response = json(refusal.body().to_string().into_bytes());
    *response.status_mut() = refusal.status;
    if refusal.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(after) = refusal.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response
}
