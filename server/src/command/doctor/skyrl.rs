//! SkyRL: its `RemoteInferenceClient`, with adapters that come from disk.

use super::adapter::published;
use super::answers::{self, MOST, PROMPTS, Spelling, messages};
use super::call::Call;
use super::part::Part;
use super::visit::{BETWEEN_GPUS, Visit};
use hyper::Method;
use serde_json::{Value, json};
use std::io;

/// The headers of a trajectory name it.
const SESSION: &str = "pagewise-doctor";

/// Its calls, and its configuration.
pub async fn step(visit: &mut Visit<'_>) -> io::Result<Vec<String>> {
    // Its configuration tells it the name.
    let models = visit.look("/v1/models").await.unwrap_or_default();
    let model = models["data"][0]["id"].as_str().unwrap_or_default().to_owned();
    let size = Call::get("/get_world_size", "its ranks").with(json!({}));
    visit.ask(size, |reply| reply.at("world_size").count()).await?;
    texts(visit, &model).await?;
    publish(visit, &model).await?;
    visit.skip("POST /init_weight_transfer_engine, /collective_rpc", BETWEEN_GPUS)?;
    let bare = "vLLM's weights are gone after that, and only the trainer brings them back";
    visit.skip("POST /sleep?level=2, /wake_up", bare)?;
    let path = format!("/finish_session?session_id={SESSION}");
    let finish = Call::new(Method::POST, path, "the trajectory is over").at_best();
    visit.tell(finish).await?;
    Ok(configuration(&visit.url(), &model))
}

/// What is asked between two updates.
async fn texts(visit: &mut Visit<'_>, model: &str) -> io::Result<()> {
    let text = json!({ "model": model, "prompt": "What is 12 + 34?", "add_special_tokens": true });
    let text = Call::post("/tokenize", "a prompt", text);
    visit.ask(text, |reply| reply.at("tokens").tokens()).await?;
    let tokens = visit.ask(rollout(model, "a turn of a trajectory"), rolled_out).await?;
    let answer = json!({ "model": model, "tokens": tokens.unwrap_or_default() });
    let read = Call::post("/detokenize", "its text", answer);
    visit.ask(read, |reply| reply.at("prompt").text().is_some()).await?;
    let chat = json!({
        "model": model, "messages": messages(), "max_tokens": MOST, "temperature": 1.0,
    });
    let chat = Call::post("/v1/chat/completions", "an agent's turn", chat).of(SESSION);
    visit.ask(chat, answers::chat).await?;
    let plain = json!({
        "model": model, "prompt": "12 + 34 =", "max_tokens": MOST, "temperature": 1.0,
    });
    let plain = Call::post("/v1/completions", "an agent's completion", plain).of(SESSION);
    let read = |reply: &Part<'_>| {
        let choice = reply.at("choices").item(0);
        choice.at("text").text();
        choice.at("finish_reason").text();
    };
    visit.ask(plain, read).await?;
    Ok(())
}

fn rollout(model: &str, what: &'static str) -> Call {
    let body = json!({
        "sampling_params": {
            "min_tokens": 1, "skip_special_tokens": true, "include_stop_str_in_output": true,
            "max_tokens": MOST, "temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0,
            "logprobs": 1, "stop": null,
        },
        "model": model, "token_ids": PROMPTS[0], "cache_salt": "0",
    });
    Call::post("/inference/v1/generate", what, body).of(SESSION)
}

fn rolled_out(reply: &Part<'_>) -> Vec<u64> {
    answers::generated(reply, Spelling::Unread)
}

/// A new policy: what is in flight waits, and goes on.
async fn publish(visit: &mut Visit<'_>, model: &str) -> io::Result<()> {
    let adapter = published(visit).await;
    let name = format!("skyrl-lora-{}", std::process::id());
    let path = "/pause?mode=keep&clear_cache=false";
    let pause = Call::new(Method::POST, path, "a new policy comes");
    let resume = Call::new(Method::POST, "/resume", "the new policy is there");
    let resume = visit.change(pause, resume).await?;
    let waiting = visit.begin(rollout(model, "a turn over the pause"));
    let mut unload = None;
    match &adapter {
        Ok(adapter) => {
            let body = json!({ "lora_name": name, "lora_path": adapter.path });
            let load = Call::post("/skyrl/v1/load_lora_adapter", "the new policy", body);
            let (path, body) = ("/v1/unload_lora_adapter", json!({ "lora_name": name }));
            let check = |reply: &Part<'_>| {
                reply.at("status").is(&json!("ok"));
                reply.at("lora_name").is(&json!(name));
                reply.at("lora_int_id").count();
            };
            let over = Call::post(path, "the run is over", body);
            unload = visit.change_as(load, over, check).await?;
        }
        Err(why) => visit.skip("POST /skyrl/v1/load_lora_adapter, /v1/unload_lora_adapter", why)?,
    }
    let reset = json!({ "reset_running_requests": false });
    let reset = Call::post("/reset_prefix_cache", "nothing stale is used", reset);
    visit.ask(reset, |_| ()).await?;
    visit.go_on(resume, waiting, |reply| drop(rolled_out(reply))).await?;
    if unload.is_some() {
        visit.ask(rollout(&name, "a turn of the new policy"), rolled_out).await?;
        visit.undo(unload).await?;
    }
    Ok(())
}

fn configuration(url: &str, model: &str) -> Vec<String> {
    let engine = "generator.inference_engine";
    let model = Value::from(model);
    vec![
        "# overrides; the folder is one that trainer and server both see".to_owned(),
        format!("{engine}.run_engines_locally=false"),
        format!("{engine}.external_proxy_url={url}"),
        format!("{engine}.external_server_urls=\"['{url}']\""),
        format!("{engine}.served_model_name={model}"),
        "trainer.placement.colocate_all=false".to_owned(),
        "trainer.policy.model.lora.lora_sync_path=FOLDER".to_owned(),
    ]
}
