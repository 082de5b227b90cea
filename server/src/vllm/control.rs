//! What trainers call between rollouts, in vLLM's spelling.

use crate::adapters::spelling::label_of;
use crate::http::routes::Answer;
use crate::http::{Call, Server, json_of};
use crate::openai::Refusal;
use crate::runtime::Pause;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// How `/pause` treats what is in flight.
fn mode(call: &Call) -> Result<(String, crate::openai::fields::Fields), Refusal> {
    let mut fields = call.fields()?;
    let mode = call.either::<String>(&mut fields, "mode")?;
    Ok((mode.unwrap_or_else(|| "abort".into()), fields))
}

/// Ends requests by name; all, where none is named.
pub fn abort(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let names: Option<Vec<String>> = fields.take("request_ids")?;
        fields.done()?;
        let which =
            move |name: &str| names.as_ref().is_none_or(|all| all.iter().any(|it| it == name));
        let aborted = server.runtime.abort(which).await?;
        Ok(json_of(&json!({ "status": "aborted", "aborted": aborted })))
    })
}

/// `abort` and `wait` refuse who comes; `keep` freezes what is in flight.
pub fn pause(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let (mode, mut fields) = mode(&call)?;
        let clear = call.either::<bool>(&mut fields, "clear_cache")?.unwrap_or(true);
        fields.done()?;
        let runtime = &server.runtime;
        match mode.as_str() {
            "abort" => {
                runtime.rest(Some(Pause::Refuse)).await?;
                runtime.abort(|_| true).await?;
                runtime.drained().await;
            }
            "wait" => {
                runtime.rest(Some(Pause::Refuse)).await?;
                runtime.drained().await;
            }
            "keep" => runtime.rest(Some(Pause::Freeze)).await?,
            other => {
                let refusal = Refusal::expected("mode", "abort, wait or keep", other);
                return Err(refusal);
            }
        }
        // Pages of another version are never found: this only frees them.
        if clear && mode != "keep" {
            runtime.with(|engine| engine.forget_prefixes()).await?;
        }
        Ok(json_of(&json!({ "status": "paused" })))
    })
}

/// What rests goes on.
pub fn resume(server: Arc<Server>) -> Answer {
    Box::pin(async move {
        server.runtime.rest(None).await?;
        Ok(json_of(&json!({ "status": "resumed" })))
    })
}

pub fn is_paused(server: Arc<Server>) -> Answer {
    Box::pin(async move { Ok(json_of(&json!({ "is_paused": server.runtime.pause().is_some() }))) })
}

/// Forgets prefixes that nobody uses. Nothing stale is found without it.
pub fn reset_prefixes(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let running = call.either::<bool>(&mut fields, "reset_running_requests")?.unwrap_or(false);
        call.either::<bool>(&mut fields, "reset_external")?;
        fields.done()?;
        let forget = move |engine: &mut engine::engine::Engine| {
            if running {
                engine.retract();
            }
            engine.forget_prefixes();
            engine.counters().running == 0
        };
        let success = server.runtime.with(forget).await?;
        Ok(json_of(&json!({ "success": success })))
    })
}

pub fn weight_info(server: Arc<Server>) -> Answer {
    Box::pin(async move {
        let version = server.runtime.label(None).await?;
        Ok(json_of(&json!({ "weight_version": version })))
    })
}

/// Calls the weights otherwise. Requests go on: only who says so ends them.
pub fn relabel(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let version = label_of("new_version", fields.must("new_version")?)?;
        let abort = fields.switch("abort_all_requests")?;
        fields.done()?;
        if abort {
            server.runtime.abort(|_| true).await?;
        }
        server.runtime.relabel(None, version.clone()).await?;
        let message = format!("Weight version updated to {version}");
        Ok(json_of(&json!({ "success": true, "message": message, "new_version": version })))
    })
}

pub fn world_size() -> Answer {
    Box::pin(async { Ok(json_of(&json!({ "world_size": 1 }))) })
}

/// NCCL and IPC carry tensors between GPUs.
pub fn transfer() -> Answer {
    Box::pin(async {
        let words = "weights come from disk here: NCCL and CUDA IPC carry tensors between GPUs, \
                     and this server runs on the CPU; use /v1/load_lora_adapter, or \
                     /update_weights with `weight_dir`";
        let mut refusal = Refusal::new(StatusCode::CONFLICT, words);
        refusal.code = Some("no_transfer_backend");
        Err(refusal)
    })
}

/// A trajectory has ended. Its pages are an index's, which lets go of them by itself.
pub fn finish_session(call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let session = call.either::<String>(&mut fields, "session_id")?;
        fields.done()?;
        session.ok_or_else(|| Refusal::field("session_id", "is required"))?;
        Ok(json_of(&json!({ "status": "ok" })))
    })
}

/// Gives the memory of keys and values back, unless episodes have some. Weights stay: nothing
/// here could bring them back.
pub fn sleep(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let (mode, mut fields) = mode(&call)?;
        let level = call.either::<u32>(&mut fields, "level")?.unwrap_or(1);
        call.either::<String>(&mut fields, "tags")?;
        fields.done()?;
        if level > 2 {
            return Err(Refusal::expected("level", "0 to 2", level));
        }
        let runtime = &server.runtime;
        match mode.as_str() {
            "abort" => {
                runtime.rest(Some(Pause::Freeze)).await?;
                runtime.abort(|_| true).await?;
            }
            "wait" => {
                runtime.rest(Some(Pause::Refuse)).await?;
                runtime.drained().await;
                runtime.rest(Some(Pause::Freeze)).await?;
            }
            "keep" => runtime.rest(Some(Pause::Retract)).await?,
            other => return Err(Refusal::expected("mode", "abort, wait or keep", other)),
        }
        if level > 0 {
            let release = |engine: &mut engine::engine::Engine| {
                engine.forget_prefixes();
                engine.release_pages()
            };
            let released = runtime.with(release).await?;
            let words = |error| format!("memory of pages: {error}");
            released.map_err(|error| Refusal::internal(words(error)))?;
        }
        server.sleeping.store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(json_of(&json!({ "status": "sleeping", "level": level })))
    })
}

pub fn wake_up(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let tags: Vec<String> = call.all("tags").map(str::to_owned).collect();
        wake(server, tags).await
    })
}

/// Wakes what these tags name; all, where none is named.
pub fn wake(server: Arc<Server>, mut tags: Vec<String>) -> Answer {
    Box::pin(async move {
        let all = ["weights", "kv_cache"];
        if let Some(unknown) = tags.iter().find(|tag| !all.contains(&tag.as_str())) {
            return Err(Refusal::expected("tags", "weights or kv_cache", unknown));
        }
        if tags.is_empty() {
            tags = all.map(str::to_owned).to_vec();
        }
        // Weights never went: only the pages are waited for.
        let awake = tags.iter().any(|tag| tag == "kv_cache");
        if awake {
            let taken = server.runtime.with(|engine| engine.take_pages()).await?;
            let words = |error| format!("memory of pages: {error}");
            taken.map_err(|error| Refusal::new(StatusCode::INSUFFICIENT_STORAGE, words(error)))?;
            server.runtime.rest(None).await?;
            server.sleeping.store(false, std::sync::atomic::Ordering::SeqCst);
        }
        let status = if awake { "awake" } else { "sleeping" };
        Ok(json_of(&json!({ "status": status, "tags": tags })))
    })
}

pub fn is_sleeping(server: Arc<Server>) -> Answer {
    Box::pin(async move {
        let sleeping = server.sleeping.load(std::sync::atomic::Ordering::SeqCst);
        Ok(json_of(&json!({ "is_sleeping": sleeping })))
    })
}

/// What clients look for before they begin, under vLLM's names and SGLang's.
pub fn server_info(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        if let Some(format) = call.asked("config_format")
            && !["json", "text"].contains(&format)
        {
            return Err(Refusal::expected("config_format", "json or text", format));
        }
        let served = &server.served;
        let lora = served
            .adapters
            .slots()
            .map(|slots| json!({ "max_loras": slots.slots, "max_lora_rank": slots.rank_max }));
        let mut info = crate::sglang::info::server_info(&server).await?;
        let own = json!({
            "vllm_config": {
                "model_config": {
                    "model": served.name,
                    "dtype": format!("torch.{}", served.dtype),
                    "max_model_len": served.context,
                },
                "lora_config": lora,
                "weight_transfer_config": null,
                "parallel_config": {
                    "data_parallel_size": 1,
                    "tensor_parallel_size": 1,
                    "pipeline_parallel_size": 1,
                },
            },
            "vllm_env": {},
            "system_env": { "pagewise": env!("CARGO_PKG_VERSION"), "numerics": served.numerics },
        });
        if let Value::Object(own) = own {
            info.extend(own);
        }
        Ok(json_of(&info.into()))
    })
}
