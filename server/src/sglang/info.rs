//! What the server tells of itself in SGLang's words.

use crate::http::generate::json;
use crate::http::{Answer, Call, Server};
use crate::openai::Refusal;
use engine::engine::{Counters, Settings};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// `/model_info`.
pub fn model_info(server: Arc<Server>, _: Call) -> Answer {
    Box::pin(async move {
        let served = &server.served;
        let folder = served.folder.display().to_string();
        let config = config(&server);
        Ok(json_of(&json!({
            "model_path": folder,
            "served_model_name": served.name,
            "tokenizer_path": folder,
            "is_generation": true,
            "preferred_sampling_params": null,
            "weight_version": server.runtime.label(None).await?,
            "load_format": "auto",
            "reasoning_parser": null,
            "tool_call_parser": null,
            "disaggregation_mode": "null",
            "has_image_understanding": false,
            "has_audio_understanding": false,
            "model_type": config.get("model_type"),
            "architectures": config.get("architectures"),
        })))
    })
}

/// `/get_weight_version`.
pub fn get_weight_version(server: Arc<Server>, _: Call) -> Answer {
    Box::pin(async move {
        let version = server.runtime.label(None).await?;
        Ok(json_of(&json!({ "weight_version": version })))
    })
}

/// How the server is set up, and how it stands.
pub async fn server_info(server: &Server) -> Result<Map<String, Value>, Refusal> {
    let (settings, counters) = state(server).await?;
    let memory = server.runtime.device_memory().await?;
    let (served, version) = (&server.served, server.runtime.label(None).await?);
    let folder = served.folder.display().to_string();
    let tokens = tokens_max(&settings);
    let info = json!({
        "model_path": folder,
        "tokenizer_path": folder,
        "served_model_name": served.name,
        "device": served.device.as_ref().map_or("cpu", |device| device.kind),
        "device_name": served.device.as_ref().map(|device| &device.name),
        "device_memory": memory.map(|memory| json!({
            "total_bytes": memory.total_bytes,
            "free_bytes": memory.free_bytes,
            "allocated_bytes": memory.allocated_bytes,
        })),
        "dtype": served.dtype,
        "kv_cache_dtype": settings.kv.name(),
        "load_format": "auto",
        "trust_remote_code": false,
        "context_length": served.context,
        "tp_size": 1,
        "dp_size": 1,
        "pp_size": 1,
        "ep_size": 1,
        "nnodes": 1,
        "node_rank": 0,
        "page_size": settings.page_len,
        "chunked_prefill_size": settings.chunk,
        "max_running_requests": settings.rows,
        "max_total_num_tokens": tokens,
        "max_total_tokens": tokens,
        "max_req_input_len": served.context.saturating_sub(1),
        "disable_radix_cache": false,
        "disaggregation_mode": "null",
        "enable_memory_saver": true,
        "enable_custom_logit_processor": true,
        "weight_version": version,
        "startup_time": served.created,
        "internal_states": [{
            "weight_version": version,
            "max_total_num_tokens": tokens,
            "effective_max_running_requests_per_dp": settings.rows,
            "num_running_reqs": counters.running,
            "num_waiting_reqs": counters.waiting,
            "is_paused": server.runtime.pause().is_some(),
        }],
        "version": env!("CARGO_PKG_VERSION"),
        "frontend": "rust",
    });
    match info {
        Value::Object(info) => Ok(info),
        _ => Ok(Map::new()),
    }
}

/// `/get_load`: one entry, for there is one rank.
pub fn get_load(server: Arc<Server>, _: Call) -> Answer {
    Box::pin(async move {
        let (settings, counters) = state(&server).await?;
        Ok(json_of(&json!([{
            "dp_rank": 0,
            "num_reqs": counters.running + counters.waiting,
            "num_waiting_reqs": counters.waiting,
            "num_tokens": tokens_held(&settings, &counters),
        }])))
    })
}

/// `/v1/loads`.
pub fn loads(server: Arc<Server>, _: Call) -> Answer {
    Box::pin(async move {
        let (settings, counters) = state(&server).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |at| at.as_secs_f64());
        let (held, most) = (tokens_held(&settings, &counters), tokens_max(&settings));
        let usage = held as f64 / most.max(1) as f64;
        let asked = counters.cached_tokens + counters.prompt_tokens;
        let (running, waiting) = (counters.running, counters.waiting);
        Ok(json_of(&json!({
            "timestamp": now,
            "version": env!("CARGO_PKG_VERSION"),
            "dp_rank_count": 1,
            "loads": [{
                "dp_rank": 0,
                "timestamp": now,
                "num_running_reqs": running,
                "num_waiting_reqs": waiting,
                "num_used_tokens": held,
                "max_total_num_tokens": most,
                "token_usage": usage,
                "cache_hit_rate": counters.cached_tokens as f64 / asked.max(1) as f64,
                "utilization": f64::from(running) / f64::from(settings.rows.max(1)),
                "max_running_requests": settings.rows,
            }],
            "aggregate": {
                "total_running_reqs": running,
                "total_waiting_reqs": waiting,
                "total_reqs": running + waiting,
                "avg_token_usage": usage,
            },
        })))
    })
}

async fn state(server: &Server) -> Result<(Settings, Counters), Refusal> {
    server.runtime.with(|engine| (engine.settings().clone(), engine.counters())).await
}

fn tokens_max(settings: &Settings) -> u64 {
    u64::from(settings.pages) * u64::from(settings.page_len)
}

/// Places in pages that somebody needs.
fn tokens_held(settings: &Settings, counters: &Counters) -> u64 {
    let needed = counters.pages_total - counters.pages_free - counters.pages_idle;
    u64::from(needed) * u64::from(settings.page_len)
}

/// What the checkpoint says of itself; nothing, where its files have gone meanwhile.
fn config(server: &Server) -> Map<String, Value> {
    let text = std::fs::read(server.served.folder.join("config.json")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn json_of(value: &Value) -> hyper::Response<crate::http::Reply> {
    json(value.to_string().into_bytes())
}
