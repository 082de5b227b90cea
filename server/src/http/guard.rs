//! What is checked before a request is read: keys, origins, names.

use crate::openai::Refusal;
use crate::openai::sampling::{class_named, is_request_id};
use engine::request::Class;
use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue, ORIGIN};

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

/// A page of an origin that is not listed may change nothing: browsers send some requests
/// without asking first.
pub fn no_strange_page(headers: &HeaderMap, allowed: &[String]) -> Result<(), Refusal> {
    if !headers.contains_key(ORIGIN) || origin(headers, allowed).is_some() {
        return Ok(());
    }
    let words = "pages of this origin may not: --allowed-origins lists those that may";
    Err(Refusal::new(StatusCode::FORBIDDEN, words))
}

/// The client's name of the request, if it has one that can be told back.
pub fn name(headers: &HeaderMap) -> Option<String> {
    let name = headers.get("x-request-id")?.to_str().ok()?;
    is_request_id(name).then(|| name.to_owned())
}

/// The episode that the request is a turn of, if its headers say so.
pub fn session(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("x-session-id")?.to_str().ok()?.to_owned())
}

/// Who asks, if its headers say so.
pub fn class(headers: &HeaderMap) -> Result<Option<Class>, Refusal> {
    let Some(name) = headers.get("x-request-class") else { return Ok(None) };
    class_named("X-Request-Class", &String::from_utf8_lossy(name.as_bytes())).map(Some)
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
