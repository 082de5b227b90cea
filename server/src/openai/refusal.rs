//! What is answered instead of an answer, in the shape of OpenAI's errors.

use crate::text;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

/// Of a client's own words, so many are told back.
const TOLD_BYTES_MAX: usize = 400;

/// When to come again, where nothing else is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The code of what does not fit the model's context.
const TOO_LONG: &str = "context_length_exceeded";

/// Why there is no answer.
#[derive(Debug)]
pub struct Refusal {
    /// Of the response.
    pub status: StatusCode,
    /// What to do about it, in words.
    pub message: String,
    /// The field at fault.
    pub param: Option<String>,
    /// A word for programs, where the status does not say it all; docs/serving.md lists them.
    pub code: Option<&'static str>,
    /// When to come again.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// With a status and words alone; of long words the beginning.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let message = shortened(message.into());
        // Who is told to come again is told when.
        let again = status == StatusCode::TOO_MANY_REQUESTS;
        let retry_after = again.then_some(RETRY_AFTER);
        Self { status, message, param: None, code: None, retry_after }
    }

    /// The request cannot be read.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field is not what it must be.
    pub fn field(name: impl Into<String>, why: impl AsRef<str>) -> Self {
        let name = name.into();
        let message = format!("{name}: {}", why.as_ref());
        Self { param: Some(name), ..Self::malformed(message) }
    }

    /// A field must be one thing and is another.
    pub fn expected(name: &str, expected: &str, got: impl std::fmt::Display) -> Self {
        Self::field(name, format!("expected {expected}, got {got}"))
    }

    /// Of a field within another one.
    pub fn within(mut self, outer: &str) -> Self {
        if let Some(inner) = &self.param {
            let name = format!("{outer}.{inner}");
            // The words of a field begin with its name.
            self.message = shortened(format!("{outer}.{}", self.message));
            self.param = Some(name);
        }
        self
    }

    /// What a field asks for does not fit the model's context.
    pub fn too_long(name: &str, why: impl AsRef<str>) -> Self {
        let mut refusal = Self::field(name, why);
        refusal.code = Some(TOO_LONG);
        refusal
    }

    /// Whether that field is at fault.
    pub fn is_of(&self, field: &str) -> bool {
        self.param.as_deref() == Some(field)
    }

    /// Whether something does not fit the model's context.
    pub fn is_too_long(&self) -> bool {
        self.code == Some(TOO_LONG)
    }

    /// The field belongs to what this server does not do.
    pub fn unsupported(name: &str) -> Self {
        let mut refusal = Self::field(name, "this server does not support it");
        refusal.code = Some("unsupported_parameter");
        refusal
    }

    /// A field, or a file, that nobody knows.
    pub fn unknown(name: &str) -> Self {
        let mut refusal = Self::field(name, "no such field");
        refusal.code = Some("unknown_parameter");
        refusal
    }

    /// The model that is asked for is not the one served.
    pub fn model(asked: &str, served: &str) -> Self {
        let message = format!("the model `{asked}` is not served here; served is `{served}`");
        let mut refusal = Self::new(StatusCode::NOT_FOUND, message);
        (refusal.param, refusal.code) = (Some("model".into()), Some("model_not_found"));
        refusal
    }

    /// There is more to do than the server takes on.
    pub fn busy(message: impl Into<String>, retry_after: Duration) -> Self {
        let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, message);
        (refusal.code, refusal.retry_after) = (Some("queue_full"), Some(retry_after));
        refusal
    }

    /// The server is at fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The body of the response.
    pub fn body(&self) -> Value {
        json!({ "error": {
            "message": self.message,
            "type": kind(self.status),
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl From<text::Error> for Refusal {
    fn from(error: text::Error) -> Self {
        Self::malformed(error.to_string())
    }
}

/// The `type` of OpenAI's errors.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "server_error",
    }
}

/// Not the whole of a long prompt, if an error quotes it.
fn shortened(mut message: String) -> String {
    if message.len() > TOLD_BYTES_MAX {
        let end = (0..=TOLD_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::Refusal;

    #[test]
    fn an_error_names_its_field() {
        let body = Refusal::expected("n", "a number from 1 to 128", 0).body();
        assert_eq!(body["error"]["param"], "n");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(body["error"]["message"], "n: expected a number from 1 to 128, got 0");
    }

    #[test]
    fn a_long_quotation_is_cut_between_characters() {
        let refusal = Refusal::malformed("é".repeat(9999));
        assert!(refusal.message.len() < 500 && refusal.message.ends_with("é…"));
    }
}
