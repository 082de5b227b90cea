//! What is checked before a request is read: keys, origins, names, sizes.

use crate::config::Limits;
use crate::openai::Refusal;
use crate::openai::sampling::is_request_id;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, ORIGIN};
use std::time::Duration;

/// How long a client may take for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Of a body that is too large, so many times the bytes that one may have are read, for
/// so long.
const DISCARDED_TIMES: usize = 4;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the client has a key, where one is asked for.
pub fn key(headers: &HeaderMap, keys: &[String]) -> Result<(), Refusal> {
    let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    // Every byte of every key is looked at: time tells nothing of them.
    let right = given.is_some_and(|(_, given)| {
        keys.iter().fold(false, |right, key| right | same(key.as_bytes(), given.as_bytes()))
    });
    if keys.is_empty() || right {
        return Ok(());
    }
    let words = "a key is needed: send `Authorization: Bearer KEY` with one that --api-key gave";
    let mut refusal = Refusal::new(StatusCode::UNAUTHORIZED, words);
    refusal.code = Some("invalid_api_key");
    Err(refusal)
}

fn same(key: &[u8], given: &[u8]) -> bool {
    let different = key.iter().zip(given).fold(0, |different, (a, b)| different | (a ^ b));
    key.len() == given.len() && different == 0
}

/// What tells a browser that the page of this origin may read the answer.
pub fn origin(headers: &HeaderMap, allowed: &[String]) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    if allowed.iter().any(|allowed| allowed == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    let listed = allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
    listed.then(|| origin.clone())
}

/// The client's name of the request, if it has one that can be told back.
pub fn name(headers: &HeaderMap) -> Option<String> {
    let name = headers.get("x-request-id")?.to_str().ok()?;
    is_request_id(name).then(|| name.to_owned())
}

/// The body, of JSON, if it is not too large and comes in time. A page that may not ask
/// cannot send JSON without asking the browser first: that is why the type must be told.
pub async fn body(headers: &HeaderMap, body: Incoming, limits: &Limits) -> Result<Bytes, Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let words = "the body must be JSON: send `Content-Type: application/json`";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, words));
    }
    let most = limits.max_body_bytes;
    let told = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if told.is_some_and(|length: usize| length > most) {
        discard(body, most).await;
        return Err(large(most));
    }
    let whole = Limited::new(body, most).collect();
    match tokio::time::timeout(BODY_TIMEOUT, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(large(most)),
        Ok(Err(error)) => Err(Refusal::malformed(format!("the body broke off: {error}"))),
        Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// Reads on for a while: a client that is still sending would not see the answer.
pub async fn discard(mut body: Incoming, most: usize) {
    let reading = async {
        let mut left = most.saturating_mul(DISCARDED_TIMES);
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // Whether it ended or not, the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, reading).await;
}

fn large(most: usize) -> Refusal {
    let words = format!("the body may have {most} bytes; --max-body-bytes says how many");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words)
}

#[cfg(test)]
mod tests {
    use super::{key, name, origin};
    use hyper::header::{HeaderMap, HeaderValue};

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().expect("a name"), HeaderValue::from_static(value))])
    }

    #[test]
    fn only_a_whole_key_opens() {
        let keys = ["secret".to_owned(), "other".to_owned()];
        for (value, opens) in
            [("Bearer secret", true), ("bearer other", true), ("Bearer secre", false)]
        {
            assert_eq!(key(&headers("authorization", value), &keys).is_ok(), opens, "{value}");
        }
        assert!(key(&headers("authorization", "secret"), &keys).is_err());
        assert!(key(&HeaderMap::new(), &keys).is_err());
        assert!(key(&HeaderMap::new(), &[String::new()]).is_err());
        assert!(key(&HeaderMap::new(), &[]).is_ok());
    }

    #[test]
    fn an_origin_is_told_back_where_it_is_listed() {
        let asked = headers("origin", "http://page.example");
        assert_eq!(origin(&asked, &[]), None);
        let listed = ["http://page.example".to_owned()];
        assert_eq!(origin(&asked, &listed).expect("listed"), "http://page.example");
        assert_eq!(origin(&asked, &["*".to_owned()]).expect("all are"), "*");
    }

    #[test]
    fn a_name_is_told_back_where_it_is_plain() {
        assert_eq!(name(&headers("x-request-id", "run-7")).as_deref(), Some("run-7"));
        assert_eq!(name(&headers("x-request-id", "a\"b")), None);
    }
}
