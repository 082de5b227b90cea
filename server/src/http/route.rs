//! One request: which path, who may, and what comes back.

use super::body::Reply;
use super::call::Call;
use super::entry::{Entry, Streamed};
use super::routes::{self, Asking, How};
use super::upload::{self, Upload};
use super::{Begun, Door, Server, closed, generate, guard};
use crate::metrics;
use crate::openai::embeddings::Embeddings;
use crate::openai::{self, Context, Refusal};
use crate::page;
use generate::json;
use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, ALLOW, CONNECTION, CONTENT_TYPE,
    HeaderMap, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// By how much threads that read large bodies stand back.
const LARGE_BACK: i32 = 10;

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
    let file = || page::file(path).map(|file| file.path);
    let other = if path.starts_with("/v1/models/") { "/v1/models/{model}" } else { "other" };
    routes::find(path).map(|route| route.path).or_else(file).unwrap_or(other)
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
    let file = page::file(path);
    let route = routes::find(path);
    let open = file.is_some() || route.is_some_and(|route| !route.key);
    if !open {
        guard::key(&head.headers, &server.limits.api_key)?;
    }
    if let Some(file) = file {
        return match method {
            Method::GET | Method::HEAD => Ok(shown(file)),
            _ => Ok(not_so(&[Method::GET])),
        };
    }
    if let Some(name) = path.strip_prefix("/v1/models/") {
        if method != Method::GET && method != Method::HEAD {
            return Ok(not_so(&[Method::GET]));
        }
        let name = percent_decode_str(name).decode_utf8_lossy();
        return openai::model(&name, &server.served).map(json);
    }
    let Some(route) = route else {
        server.uploads.discard(body).await;
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no {path}")));
    };
    let asked = if method == Method::HEAD { Method::GET } else { method.clone() };
    if !route.methods.contains(&asked) {
        return Ok(not_so(route.methods));
    }
    match route.how {
        How::Plain(how) => how(server, &head.headers),
        How::Generate(read) => {
            let (begun, body, context) = begin(server, &head.headers, body, entry).await?;
            let surface = self::read(body, move |body| read(body, context)).await?;
            generate::generate(server.clone(), surface, begun, entry.clone()).await
        }
        How::Read(read) => {
            let (_begun, body, context) = begin(server, &head.headers, body, entry).await?;
            self::read(body, move |body| read(body, context)).await.map(json)
        }
        How::Embed => {
            let (_begun, body, context) = begin(server, &head.headers, body, entry).await?;
            let asked = self::read(body, move |body| Embeddings::read(body, context)).await?;
            generate::embed(server, &asked).await.map(json)
        }
        How::Answers(how) => {
            let (begun, body, context) = begin(server, &head.headers, body, entry).await?;
            let call = Call::new(head.uri.query(), body);
            how(server.clone(), Asking { call, context, begun, entry: entry.clone() }).await
        }
        How::Control(how) => {
            guard::no_strange_page(&head.headers, &server.limits.allowed_origins)?;
            let body = server.uploads.read_maybe(&head.headers, body).await?;
            let call = Call::new(head.uri.query(), body);
            let call = call.at(route.part(head.uri.path()).unwrap_or(""));
            how(server.clone(), call).await
        }
    }
}

/// How it stands, in a word.
pub fn state(status: StatusCode, word: &str) -> Response<Reply> {
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

/// Begins what takes a body of JSON, unless the server is closing.
async fn begin(
    server: &Arc<Server>,
    headers: &HeaderMap,
    body: Incoming,
    entry: &Entry,
) -> Result<(Begun, Upload, Arc<Context>), Refusal> {
    let begun = match server.begin() {
        Ok(begun) => begun,
        Err(refusal) => {
            server.uploads.discard(body).await;
            return Err(refusal);
        }
    };
    let body = server.uploads.read(headers, body).await?;
    let class = guard::class(headers)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let served = server.served.clone();
    let session = guard::session(headers);
    let context = Context { served, request_id: entry.id.clone(), session, class, now };
    Ok((begun, body, Arc::new(context)))
}

/// Reads a body where a long text does not keep others waiting; its room is free then. A
/// large one has a thread of its own, which stands back where others want the cores.
pub async fn read<T: Send + 'static>(
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
fn not_so(methods: &[Method]) -> Response<Reply> {
    let methods = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let words = format!("this path is asked by {methods}");
    let mut response = refused(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, words));
    if let Ok(methods) = HeaderValue::from_str(&methods) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

fn refused(refusal: Refusal) -> Response<Reply> {
    refused_with(&refusal, &refusal.body())
}

/// A refusal whose body is in a client's own words.
pub fn refused_with(refusal: &Refusal, body: &Value) -> Response<Reply> {
    let mut response = json(body.to_string().into_bytes());
    *response.status_mut() = refusal.status;
    if refusal.status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(after) = refusal.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    response
}
