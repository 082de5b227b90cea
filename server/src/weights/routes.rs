//! Updates of weights as each of the clients spells them: vLLM, prime-rl, SGLang.

use super::check;
use crate::adapters::spelling::{Swap, safetensors};
use crate::deadline::Deadline;
use crate::http::routes::{Answer, Route, controls};
use crate::http::{Call, Reply, Server, json_of, refused_with};
use crate::openai::Refusal;
use crate::openai::fields::Fields;
use crate::runtime::Swapped;
use hyper::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::task::block_in_place;

const POST: &[Method] = &[Method::POST];
const EITHER: &[Method] = &[Method::GET, Method::POST];

/// Paths of updates, and of looks at what serves.
pub const ROUTES: &[Route] = &[
    controls("/start_weight_update", POST, |server, call| {
        start(server, call, "Weight update started")
    }),
    controls("/update_weights", POST, |server, call| update(server, call)),
    controls("/finish_weight_update", POST, |server, call| finish(server, call)),
    controls("/begin_weight_update", POST, |server, call| {
        start(server, call, "Weight update begun.")
    }),
    controls("/update_weights_from_disk", POST, |server, call| from_disk(server, call)),
    controls("/update_weights_from_tensor", POST, |server, call| from_tensor(server, call)),
    controls("/end_weight_update", POST, |server, call| end(server, call)),
    controls("/fetch_weights", POST, |server, call| fetch(server, call)),
    controls("/weights_checker", EITHER, |server, call| check::of_sglang(server, call)),
    controls("/weight_checker", POST, |server, call| check::of_vllm(server, call)),
    controls("/get_weights_by_name", EITHER, |server, call| check::by_name(server, call)),
];

/// By when an update must be ended that is started now.
pub fn deadline(server: &Server, seconds: Option<f64>) -> Result<Deadline, Refusal> {
    let usual = server.limits.weight_update_timeout_seconds as f64;
    Deadline::of("deadline_seconds", seconds.unwrap_or(usual))
}

fn start(server: Arc<Server>, call: Call, words: &'static str) -> Answer {
    Box::pin(async move {
        // What else is said is for other engines, whose servers pass it over too.
        let mut fields = call.fields()?;
        of_target(&mut fields)?;
        let until = deadline(&server, fields.take("deadline_seconds")?)?;
        server.served.updates.start(until);
        let seconds = until.seconds();
        Ok(json_of(&json!({
            "message": words, "success": true, "status": "ok", "deadline_seconds": seconds,
        })))
    })
}

/// One path of three clients: told apart by their bodies.
pub fn update(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        if fields.has("weights") {
            return Err(no_transfer("weights"));
        }
        if let Some(folder) = fields.take::<String>("weight_dir")? {
            let swap = Swap::read(&mut fields)?;
            fields.done()?;
            let updates = &server.served.updates;
            updates.from_folder(&server.runtime, ("weight_dir", folder.into()), swap).await?;
            return Ok(json_of(&json!({ "status": "ok", "message": "Weights updated" })));
        }
        let Some(info) = fields.take("update_info")? else {
            let words = "expected `weight_dir`, or `update_info`";
            return Err(Refusal::field("weight_dir", words));
        };
        fields.done()?;
        bring(&server, info)?;
        Ok(json_of(&json!({ "message": "Weights updated", "status": "ok" })))
    })
}

/// What `update_info` tells of joins the update: tensors, or weights that were fetched.
pub fn bring(server: &Server, info: Value) -> Result<(), Refusal> {
    let infos: Vec<Map<String, Value>> = match info {
        Value::Object(one) => vec![one],
        other => serde_json::from_value(other)
            .map_err(|_| Refusal::field("update_info", "expected an object or a list"))?,
    };
    if infos.is_empty() {
        return Err(Refusal::field("update_info", "is empty: nothing comes with it"));
    }
    let updates = &server.served.updates;
    for info in infos {
        let mut info = Fields::of(info);
        // What its publisher says besides concerns the files that were fetched.
        if let Some(version) = info.take("target_version")?.or(info.take("version")?) {
            updates.add_fetched(version)?;
            continue;
        }
        let Some(file) = info.take::<String>("safetensors")? else {
            return Err(no_transfer("update_info"));
        };
        info.done()?;
        updates.add(safetensors("update_info.safetensors", &file)?)?;
    }
    Ok(())
}

/// SkyRL's: the weights of a folder are looked at while answers go on, to be swapped in by an
/// update whose `update_info` names their version.
pub fn fetched(server: &Server, mut fields: Fields) -> Result<Value, Refusal> {
    let version: u64 = fields.must("target_version")?;
    if fields.has("uri") {
        let words = "this server reads folders, not object stores: send `sync_dir`";
        return Err(Refusal::field("uri", words));
    }
    let folder: String = fields.must("sync_dir")?;
    fields.done()?;
    let updates = &server.served.updates;
    block_in_place(|| updates.fetch(version, ("sync_dir", folder.into())))?;
    Ok(json!({ "status": "ok", "target_version": version }))
}

fn fetch(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let result = fetched(&server, call.fields()?)?;
        Ok(json_of(&json!({ "status": "ok", "result": [result] })))
    })
}

fn finish(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let swap = Swap::read(&mut fields)?;
        fields.done()?;
        let swapped = server.served.updates.finish(&server.runtime, swap).await?;
        let version = swapped.label;
        Ok(json_of(&json!({ "message": "Weight update finished", "weight_version": version })))
    })
}

/// SGLang's reply: of a refusal, too.
fn told(server: &Server, outcome: Result<Swapped, Refusal>) -> Response<Reply> {
    let paused = if server.runtime.pause().is_some() { server.runtime.open() } else { 0 };
    match outcome {
        Ok(swapped) => json_of(&json!({
            "success": true,
            "message": "Succeeded to update model weights.",
            "num_paused_requests": paused,
            "weight_version": swapped.label,
        })),
        Err(refusal) => {
            let mut body = refusal.body();
            body["success"] = false.into();
            body["message"] = refusal.message.clone().into();
            body["num_paused_requests"] = paused.into();
            let mut response = refused_with(&refusal, &body);
            // Its clients know no other status than this one.
            let known = refusal.status.is_client_error();
            *response.status_mut() = if known { StatusCode::BAD_REQUEST } else { refusal.status };
            response
        }
    }
}

/// Fields that concern other engines' memory and devices, and change nothing here.
const IGNORED: &[&str] = &[
    "flush_cache",
    "is_async",
    "torch_empty_cache",
    "keep_pause",
    "recapture_cuda_graph",
    "token_step",
    "manifest",
];

/// Weights of the model that is served, and not of one that guesses for it.
fn of_target(fields: &mut Fields) -> Result<(), Refusal> {
    fields.only("selector", &["all".into(), "target".into()])
}

fn of_sglang(fields: &mut Fields) -> Result<(Swap, bool), Refusal> {
    IGNORED.iter().try_for_each(|name| fields.take::<Value>(name).map(drop))?;
    of_target(fields)?;
    Ok((Swap::read(fields)?, fields.switch("abort_all_requests")?))
}

fn from_disk(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let folder: String = fields.must("model_path")?;
        fields.only("load_format", &["auto".into(), "safetensors".into()])?;
        let (swap, abort) = of_sglang(&mut fields)?;
        fields.done()?;
        if abort {
            server.runtime.abort(|_| true).await?;
        }
        let updates = &server.served.updates;
        let folder = ("model_path", folder.into());
        let outcome = updates.from_folder(&server.runtime, folder, swap).await;
        Ok(told(&server, outcome))
    })
}

fn from_tensor(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let files: Vec<String> = fields.must("serialized_named_tensors")?;
        fields.only("load_format", &["safetensors".into()])?;
        let (swap, abort) = of_sglang(&mut fields)?;
        fields.done()?;
        let name = "serialized_named_tensors";
        let [file] = &files[..] else {
            return Err(Refusal::field(name, "expected one file: this server has one rank"));
        };
        let file = safetensors(name, file)?;
        if abort {
            server.runtime.abort(|_| true).await?;
        }
        let updates = &server.served.updates;
        // Within an update they wait for its end; alone they are one.
        if updates.is_begun() {
            updates.add(file)?;
            let words = "Tensors are taken; /end_weight_update swaps them in.";
            return Ok(json_of(&json!({ "success": true, "message": words })));
        }
        let outcome = updates.replace(&server.runtime, file, swap).await;
        Ok(told(&server, outcome))
    })
}

fn end(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let (swap, _) = of_sglang(&mut fields)?;
        fields.done()?;
        let outcome = server.served.updates.finish(&server.runtime, swap).await;
        Ok(told(&server, outcome))
    })
}

/// Tensors do not come that way.
pub fn no_transfer(field: &str) -> Refusal {
    let words = "carries tensors between GPUs (NCCL, CUDA IPC), and this server runs on the \
                 CPU: send `weight_dir`, or `update_info` with `safetensors` as base64";
    let mut refusal = Refusal::field(field, words);
    (refusal.status, refusal.code) = (StatusCode::CONFLICT, Some("no_transfer_backend"));
    refusal
}
