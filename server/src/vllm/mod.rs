//! vLLM's own surfaces: tokens in and out, and the controls that trainers call.

pub mod control;
mod generate;
mod rpc;

pub use control::server_info;

use crate::http::routes::{Reading, Route, controls, generates, reads};
use crate::openai::render;
use generate::Generate;
pub use generate::OUTER;
use hyper::Method;
use std::sync::Arc;

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];

const GENERATE: Reading = |body, context| Generate::read(body, context).map(|it| Arc::new(it) as _);

/// Its paths.
pub const ROUTES: &[Route] = &[
    generates("/inference/v1/generate", GENERATE),
    // SkyRL's name of it.
    generates("/skyrl/v1/generate", GENERATE),
    reads("/v1/chat/completions/render", render::chat),
    reads("/v1/completions/render", render::completions),
    controls("/collective_rpc", POST, |server, call| rpc::collective(server, call)),
    controls("/inference/v1/abort_requests", POST, |server, call| control::abort(server, call)),
    controls("/abort_requests", POST, |server, call| control::abort(server, call)),
    controls("/pause", POST, |server, call| control::pause(server, call)),
    controls("/resume", POST, |server, _| control::resume(server)),
    controls("/is_paused", GET, |server, _| control::is_paused(server)),
    controls("/sleep", POST, |server, call| control::sleep(server, call)),
    controls("/wake_up", POST, |server, call| control::wake_up(server, call)),
    controls("/is_sleeping", GET, |server, _| control::is_sleeping(server)),
    controls("/reset_prefix_cache", POST, |server, call| control::reset_prefixes(server, call)),
    controls("/weight_info", GET, |server, _| control::weight_info(server)),
    controls("/update_weight_version", POST, |server, call| control::relabel(server, call)),
    controls("/get_world_size", GET, |_, _| control::world_size()),
    controls("/server_info", GET, |server, call| control::server_info(server, call)),
    controls("/init_weight_transfer_engine", POST, |_, _| control::transfer()),
    controls("/finish_session", POST, |_, call| control::finish_session(call)),
];
