//! One call of a trainer, and what comes of it.

use crate::command::client::Client;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// Characters of a body that are shown.
const SHOWN: usize = 200;

/// A call.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: String,
    /// What it is made for.
    pub what: &'static str,
    body: Option<Value>,
    session: Option<&'static str>,
    /// The trainer goes on whatever the status is.
    pub best_effort: bool,
}

/// What came.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Whether it says that it is JSON.
    pub says_json: bool,
    body: Bytes,
}

impl Call {
    /// One without a body.
    pub fn new(method: Method, path: impl Into<String>, what: &'static str) -> Self {
        Self { method, path: path.into(), what, body: None, session: None, best_effort: false }
    }

    /// GET.
    pub fn get(path: &str, what: &'static str) -> Self {
        Self::new(Method::GET, path, what)
    }

    /// POST of JSON.
    pub fn post(path: &str, what: &'static str, body: Value) -> Self {
        Self::new(Method::POST, path, what).with(body)
    }

    /// The same with a body of JSON.
    pub fn with(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    /// As a turn of a session.
    pub fn of(self, session: &'static str) -> Self {
        Self { session: Some(session), ..self }
    }

    /// One that the trainer does not wait to go well.
    pub fn at_best(self) -> Self {
        Self { best_effort: true, ..self }
    }

    /// Makes it; says why nothing came, if nothing does.
    pub async fn make(self, client: Client, patience: Duration) -> Result<Reply, String> {
        let client = self.session.map_or_else(|| client.clone(), |name| client.of_session(name));
        let reply = async {
            let response = client.send(self.method, &self.path, self.body).await?;
            let status = response.status();
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let says_json = kind.is_some_and(|kind| kind.starts_with("application/json"));
            let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok(Reply { status, says_json, body: body.to_bytes() })
        };
        let late = |_| format!("none within {} s", patience.as_secs());
        tokio::time::timeout(patience, reply).await.map_err(late)?
    }
}

impl fmt::Display for Call {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} {}", self.method, self.path)
    }
}

impl Reply {
    /// Its body as Python reads JSON.
    pub fn value(&self) -> Option<Value> {
        let strict = serde_json::from_slice(&self.body).ok();
        strict.or_else(|| {
            let text = std::str::from_utf8(&self.body).ok()?;
            serde_json::from_str(&quoted(text)).ok()
        })
    }

    /// What its body begins with.
    pub fn shown(&self) -> String {
        match self.body.is_empty() {
            true => "nothing".into(),
            false => String::from_utf8_lossy(&self.body).trim().chars().take(SHOWN).collect(),
        }
    }
}

/// JSON in which the numbers that only Python's has are texts, to be told by their places.
fn quoted(text: &str) -> String {
    let (mut whole, mut rest, mut inside) = (String::with_capacity(text.len()), text, false);
    while let Some(first) = rest.chars().next() {
        let word = ["NaN", "-Infinity", "Infinity"].into_iter().find(|word| rest.starts_with(word));
        let len = match (inside, word) {
            (false, Some(word)) => {
                whole.push_str(&format!("\"{word}\""));
                rest = &rest[word.len()..];
                continue;
            }
            // What is escaped ends no text.
            (true, _) if first == '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => first.len_utf8(),
        };
        inside ^= first == '"';
        whole.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn numbers_that_are_none_become_texts_and_texts_stay() {
        let read = r#"{"a\"NaN": [NaN, -Infinity, 1.5], "NaN": "Infinity \\"}"#;
        let becomes = r#"{"a\"NaN": ["NaN", "-Infinity", 1.5], "NaN": "Infinity \\"}"#;
        assert_eq!(quoted(read), becomes);
        assert_eq!(quoted("\"é\\"), "\"é\\");
    }
}
