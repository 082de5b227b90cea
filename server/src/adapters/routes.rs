//! Loading and unloading, as each of the clients spells it: vLLM, prime-rl, SGLang, SkyRL.

use super::load::{Canary, Given, Load};
use super::spelling::{Swap, safetensors};
use super::{Line, unknown};
use crate::http::routes::{Answer, Route, controls};
use crate::http::{Call, Reply, Server, json_of, refused_with, text_of};
use crate::openai::Refusal;
use crate::openai::fields::Fields;
use crate::openai::prompts::{self, Cut, Reading};
use crate::served::Served;
use hyper::{Method, Response};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];

/// Paths of adapters.
pub const ROUTES: &[Route] = &[
    controls("/v1/load_lora_adapter", POST, |server, call| vllm_load(server, call)),
    controls("/v1/unload_lora_adapter", POST, |server, call| vllm_unload(server, call)),
    controls("/load_lora_adapter", POST, |server, call| load_in_place(server, call)),
    controls("/load_lora_adapter_from_tensors", POST, |server, call| load_bytes(server, call)),
    controls("/unload_lora_adapter", POST, |server, call| unload(server, call)),
    controls("/skyrl/v1/load_lora_adapter", POST, |server, call| load_in_place(server, call)),
    controls("/v1/rollback_lora_adapter", POST, |server, call| roll_back(server, call)),
    controls("/v1/lora_adapters", GET, |server, _| list(server)),
];

/// What is said of an adapter besides its name and where it lies.
fn load(
    fields: &mut Fields,
    served: &Served,
    source: Given,
    replace: bool,
) -> Result<Load, Refusal> {
    Ok(Load {
        name: fields.must("lora_name")?,
        source,
        replace: fields.take("load_inplace")?.unwrap_or(replace),
        pinned: fields.switch("pinned")?,
        swap: Swap::read(fields)?,
        canary: canary(fields, served)?,
    })
}

/// What an adapter is tried on, if something is.
fn canary(fields: &mut Fields, served: &Served) -> Result<Option<Canary>, Refusal> {
    let Some(canary) = fields.take::<Map<String, Value>>("canary")? else { return Ok(None) };
    let mut canary = Fields::of(canary);
    let reading = Reading { served, special: true, cut: Cut::No };
    let mut prompts = prompts::read("canary.prompt", canary.must("prompt")?, reading)?;
    let divergence_max = canary.within("max_divergence", 0.0..=1e9)?;
    canary.done()?;
    let (Some(prompt), true) = (prompts.pop(), prompts.is_empty()) else {
        return Err(Refusal::field("canary.prompt", "expected one prompt"));
    };
    let most = served.context as usize;
    if !(2..=most).contains(&prompt.tokens.len()) {
        let expected = format!("2 to {most} tokens");
        return Err(Refusal::expected("canary.prompt", &expected, prompt.tokens.len()));
    }
    let divergence_max =
        divergence_max.ok_or_else(|| Refusal::field("canary.max_divergence", "is required"))?;
    Ok(Some(Canary { tokens: prompt.tokens.to_vec(), divergence_max }))
}

fn folder(fields: &mut Fields) -> Result<Given, Refusal> {
    let path: String = fields.must("lora_path")?;
    if path.is_empty() {
        return Err(Refusal::expected("lora_path", "a folder of this machine", "nothing"));
    }
    Ok(Given::Folder(path.into()))
}

/// vLLM's: text comes back.
fn vllm_load(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let source = folder(&mut fields)?;
        let load = load(&mut fields, &server.served, source, false)?;
        fields.only("is_3d_lora_weight", &[false.into()])?;
        fields.done()?;
        let served = &server.served;
        let line = served.adapters.load(&server.runtime, load).await?;
        Ok(text_of(format!("Success: LoRA adapter '{}' added successfully.", line.name)))
    })
}

fn vllm_unload(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let name: String = fields.must("lora_name")?;
        fields.take::<u64>("lora_int_id")?;
        fields.done()?;
        server.served.adapters.unload(&server.runtime, &name).await?;
        Ok(text_of(format!("Success: LoRA adapter '{name}' removed successfully.")))
    })
}

/// prime-rl's, SkyRL's and SGLang's: one name again and again, and a reply for all three.
fn load_in_place(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let source = folder(&mut fields)?;
        let load = load(&mut fields, &server.served, source, true)?;
        fields.done()?;
        let outcome = server.served.adapters.load(&server.runtime, load).await;
        Ok(told(&server, outcome))
    })
}

/// An adapter whose files come with the request, as base64 of safetensors.
fn load_bytes(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let config: Map<String, Value> = fields.must("config_dict")?;
        let tensors: Vec<String> = fields.must("serialized_named_tensors")?;
        fields.take::<Value>("expected_checksums")?;
        fields.only("added_tokens_config", &[json!({})])?;
        fields.only("load_format", &["safetensors".into()])?;
        let [tensors] = &tensors[..] else {
            let words = "expected one file: this server has one rank";
            return Err(Refusal::field("serialized_named_tensors", words));
        };
        let tensors = safetensors("serialized_named_tensors", tensors)?;
        let config = Value::Object(config).to_string().into_bytes();
        let load = load(&mut fields, &server.served, Given::Bytes { config, tensors }, true)?;
        fields.done()?;
        let outcome = server.served.adapters.load(&server.runtime, load).await;
        Ok(told(&server, outcome))
    })
}

fn unload(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let name: String = fields.must("lora_name")?;
        fields.done()?;
        let adapters = &server.served.adapters;
        let line = adapters.line(&name).ok_or_else(|| unknown(&name));
        let outcome = match line {
            Ok(line) => adapters.unload(&server.runtime, &name).await.map(|()| line),
            Err(refusal) => Err(refusal),
        };
        Ok(told(&server, outcome))
    })
}

fn roll_back(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let name: String = fields.must("lora_name")?;
        let swap = Swap::read(&mut fields)?;
        fields.done()?;
        let adapters = &server.served.adapters;
        let outcome = adapters.roll_back(&server.runtime, &name, swap).await;
        Ok(told(&server, outcome))
    })
}

fn list(server: Arc<Server>) -> Answer {
    Box::pin(async move {
        let adapters = &server.served.adapters;
        let slots = adapters.slots();
        let base = server.served.adapters.base.checkpoint();
        let config = &base.config;
        Ok(json_of(&json!({
            "object": "list",
            "slots": slots.map(|slots| slots.slots),
            "rank_max": slots.map(|slots| slots.rank_max),
            "slot_bytes": slots.map(|slots| slots.slot_bytes(config)),
            "data": adapters.list(),
        })))
    })
}

/// What came of it: of a refusal, too, each client finds its own words.
fn told(server: &Server, outcome: Result<Line, Refusal>) -> Response<Reply> {
    let refusal = match outcome {
        Ok(line) => return json_of(&loaded(server, line)),
        Err(refusal) => refusal,
    };
    let mut body = refusal.body();
    body["status"] = "error".into();
    body["success"] = false.into();
    body["error_message"] = refusal.message.clone().into();
    refused_with(&refusal, &body)
}

/// A reply in which each client finds what it looks for.
fn loaded(server: &Server, line: Line) -> Value {
    let all = server.served.adapters.list().into_iter();
    let all: Map<String, Value> = all.map(|line| (line.name, line.path.into())).collect();
    json!({
        "status": "ok",
        "success": true,
        "error_message": null,
        "rid": null,
        "http_worker_ipc": null,
        "lora_name": line.name,
        "lora_int_id": line.id,
        "weight_version": line.version,
        "rank": line.rank,
        "bytes": line.bytes,
        "loaded_adapters": all,
    })
}
