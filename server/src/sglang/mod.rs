//! SGLang's own surface: `/generate` with text or tokens, sessions that remember them, and
//! the orders of those who train beside the server.

mod ask;
mod atropos;
mod control;
mod generate;
pub mod info;
mod input;
mod memory;
mod names;
mod params;
mod reply;
mod score;
mod session;
mod weights;

use crate::http::{How, Reply, Route, controls};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};
use names::Names;
use session::Sessions;

const POST: &[Method] = &[Method::POST];
const EITHER: &[Method] = &[Method::GET, Method::POST];
const GET: &[Method] = &[Method::GET];

/// What clients of this surface keep in the server.
#[derive(Default)]
pub struct Kept {
    /// Names of requests that have not ended.
    pub names: Names,
    /// Their sessions.
    pub sessions: Sessions,
}

/// Every path of this surface.
pub const ROUTES: &[Route] = &[
    Route {
        path: "/generate",
        methods: &[Method::POST, Method::PUT],
        key: true,
        how: How::Answers(generate::generate),
    },
    Route { path: "/v1/score", methods: POST, key: true, how: How::Answers(score::score) },
    Route {
        path: "/health_generate",
        methods: GET,
        key: false,
        how: How::Control(control::health_generate),
    },
    controls("/abort_request", POST, control::abort_request),
    controls("/pause_generation", POST, control::pause_generation),
    controls("/continue_generation", POST, control::continue_generation),
    controls("/flush_cache", EITHER, control::flush_cache),
    controls("/open_session", EITHER, session::open),
    controls("/close_session", EITHER, session::close),
    controls("/model_info", GET, info::model_info),
    controls("/get_model_info", GET, info::model_info),
    controls("/get_server_info", GET, crate::vllm::server_info),
    controls("/get_weight_version", EITHER, info::get_weight_version),
    controls("/get_load", GET, info::get_load),
    controls("/v1/loads", GET, info::loads),
    controls("/release_memory_occupation", EITHER, memory::release),
    controls("/resume_memory_occupation", EITHER, memory::resume),
    controls("/init_weights_update_group", POST, weights::no_group),
    controls("/destroy_weights_update_group", POST, weights::no_group),
    controls("/update_weights_from_distributed", POST, weights::no_group),
    controls("/update_weights_from_ipc", POST, weights::no_handles),
];

/// A response of words.
fn words(status: StatusCode, words: &'static str) -> Response<Reply> {
    let mut response = Response::new(Reply::whole(words));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
