//! What is answered while the doors are not open yet, and when they close.

use crate::openai::Refusal;
use hyper::StatusCode;
use std::time::Duration;

/// When to come again: another server may stand here by then.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The model is not there yet.
pub fn loading() -> Refusal {
    unavailable("the model is being loaded", "loading")
}

/// The server takes no more.
pub fn stopping() -> Refusal {
    unavailable("the server is shutting down", "shutting_down")
}

/// The device has failed for good.
pub fn failed(why: &str) -> Refusal {
    unavailable(&format!("the device has failed, and the server ends: {why}"), "device_failed")
}

fn unavailable(words: &str, code: &'static str) -> Refusal {
    let mut refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, words);
    (refusal.code, refusal.retry_after) = (Some(code), Some(RETRY_AFTER));
    refusal
}
