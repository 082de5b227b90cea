//! A client of a running server, for commands that ask one.

use super::Failure;
use crate::config::Remote;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Where a server listens, and what opens it.
#[derive(Clone)]
pub struct Client {
    /// Host and port.
    authority: String,
    key: Option<String>,
    /// That its requests are turns of, in headers.
    session: Option<String>,
}

impl Client {
    /// Of such a server.
    pub fn new(remote: &Remote) -> Result<Self, Failure> {
        Self::of("--base-url", &remote.base_url, remote.key.api_key.clone())
    }

    /// Of one that a setting names.
    pub fn of(setting: &str, url: &str, key: Option<String>) -> Result<Self, Failure> {
        let authority = url.strip_prefix("http://").ok_or_else(|| {
            Failure::Setting(format!("{setting}: must begin with http://, not `{url}`"))
        })?;
        let authority = authority.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        Ok(Self { authority, key, session: None })
    }

    /// The address that all paths follow.
    pub fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    /// The same, for turns of a session.
    pub fn of_session(&self, session: &str) -> Self {
        Self { session: Some(session.to_owned()), ..self.clone() }
    }

    /// Whether somebody listens there.
    pub async fn reach(&self) -> Result<(), Failure> {
        let reached = TcpStream::connect(&self.authority).await;
        reached.map(drop).map_err(|error| Failure::Unasked(format!("{}: {error}", self.url())))
    }

    /// What it answers, which must be JSON and well.
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let wrong = |why: String| format!("{}{path}: {why}", self.url());
        let answer = self.answer(method, path, body).await;
        let (status, body) = answer.map_err(|why| Failure::Unasked(wrong(why)))?;
        if !status.is_success() {
            let words = wrong(format!("{status}: {}", String::from_utf8_lossy(&body)));
            let closed = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            return Err(if closed { Failure::Unasked(words) } else { Failure::Server(words) });
        }
        serde_json::from_slice(&body).map_err(|error| Failure::Server(wrong(error.to_string())))
    }

    /// What it answers, well or not: why none came is an error.
    pub async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Bytes), String> {
        let response = self.send(method, path, body).await?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    }

    /// Its response, on a connection of its own.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Response<Incoming>, String> {
        let stream =
            TcpStream::connect(&self.authority).await.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        if let Some(session) = &self.session {
            request = request.header("x-session-id", session);
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        sender.send_request(request).await.map_err(|error| error.to_string())
    }
}
