//! Ways for weights that this server does not have: each says so, and which it has.

use crate::http::generate::json;
use crate::http::{Answer, Call, Server};
use hyper::StatusCode;
use serde_json::json;
use std::sync::Arc;

/// Weights by a group of processes.
pub fn no_group(server: Arc<Server>, call: Call) -> Answer {
    refused(server, call, "a group of processes that sends weights needs NCCL, which needs GPUs")
}

/// Weights by handles of another process's memory.
pub fn no_handles(server: Arc<Server>, call: Call) -> Answer {
    refused(server, call, "handles of CUDA's memory need GPUs")
}

fn refused(_: Arc<Server>, _: Call, why: &'static str) -> Answer {
    Box::pin(async move {
        let message = format!(
            "{why}, and this server computes on CPUs: use /update_weights_from_disk, or \
             /load_lora_adapter for an adapter"
        );
        let body = json!({ "success": false, "message": message });
        let mut response = json(body.to_string().into_bytes());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        Ok(response)
    })
}
