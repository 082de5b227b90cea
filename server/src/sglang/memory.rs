//! The memory of keys and values, given back while a trainer needs it and taken again. The
//! weights stay: they are mapped from their files or packed once, and nothing here could
//! bring them back.

use crate::http::generate::json;
use crate::http::{Answer, Call, Server};
use crate::openai::Refusal;
use hyper::StatusCode;
use kernels_core::Error;
use std::sync::Arc;

/// What has a tag in SGLang. Only one of them takes memory that can be had back here.
const TAGS: &[&str] = &["kv_cache", "weights", "cuda_graph"];

/// `/release_memory_occupation`.
pub fn release(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        if !of_pages(&call)? {
            return Ok(json(b"null".to_vec()));
        }
        let paused = server.runtime.pause().is_some();
        let release = move |engine: &mut engine::engine::Engine| {
            let counters = engine.counters();
            // Who waits while nobody said so would wait for memory.
            if counters.running > 0 || (counters.waiting > 0 && !paused) {
                return Ok(false);
            }
            engine.release_pages()
        };
        match server.runtime.with(release).await? {
            Ok(true) => Ok(json(b"null".to_vec())),
            Ok(false) => {
                let words = "requests or reserved episodes hold keys and values: finish, abort or retract \
                             requests, and end such episodes, first";
                Err(Refusal::new(StatusCode::BAD_REQUEST, words))
            }
            Err(error) => Err(broken(&error)),
        }
    })
}

/// `/resume_memory_occupation`.
pub fn resume(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        if of_pages(&call)? {
            let taken = server.runtime.with(|engine| engine.take_pages()).await?;
            taken.map_err(|error| broken(&error))?;
        }
        Ok(json(b"null".to_vec()))
    })
}

/// Whether the memory of pages is meant.
fn of_pages(call: &Call) -> Result<bool, Refusal> {
    let mut fields = call.fields()?;
    let tags: Option<Vec<String>> = fields.take("tags")?;
    fields.done()?;
    let Some(tags) = tags else { return Ok(true) };
    match tags.iter().find(|tag| !TAGS.contains(&tag.as_str())) {
        Some(tag) => Err(Refusal::expected("tags", "kv_cache, weights or cuda_graph", tag)),
        None => Ok(tags.iter().any(|tag| tag == "kv_cache")),
    }
}

fn broken(error: &Error) -> Refusal {
    Refusal::new(StatusCode::INSUFFICIENT_STORAGE, format!("memory of pages: {error}"))
}
