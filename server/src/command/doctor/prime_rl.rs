//! prime-rl: its admin client, and the renderers of verifiers, which take tokens and give
//! tokens.

use super::adapter::published;
use super::answers::{self, MOST, PROMPTS, Spelling, messages};
use super::call::Call;
use super::part::Part;
use super::visit::Visit;
use hyper::Method;
use serde_json::{Value, json};
use std::io;

/// The headers of a rollout name it.
const TRAJECTORY: &str = "pagewise-doctor";

/// Its calls, and its configuration.
pub async fn step(visit: &mut Visit<'_>) -> io::Result<Vec<String>> {
    visit.tell(Call::get("/health", "whether it is up")).await?;
    visit.tell(Call::get("/liveness", "whether it lives")).await?;
    let models = Call::get("/v1/models", "the model's name and length");
    let model = visit.ask(models, answers::card).await?.flatten().unwrap_or_default();
    visit.ask(rollout(&model, "0", "a turn of a rollout"), rolled_out).await?;
    let eval = json!({
        "model": model, "messages": messages(), "temperature": 1.0,
        "max_completion_tokens": MOST, "top_k": -1, "min_p": 0.0, "return_token_ids": true,
    });
    visit.ask(Call::post("/v1/chat/completions", "an evaluation", eval), evaluated).await?;
    let score = json!({
        "model": model, "token_ids": PROMPTS[0],
        "sampling_params": { "max_tokens": 1, "prompt_logprobs": 1 },
    });
    visit.ask(Call::post("/inference/v1/generate", "a teacher's scores", score), scores).await?;
    weights(visit, &model).await?;
    adapters(visit).await?;
    visit.skip("POST /init_broadcaster", "it opens a broadcast between GPUs (NCCL)")?;
    Ok(configuration(&visit.url(), &model))
}

/// A turn as renderers ask for it; the salt is the policy's version.
fn rollout(model: &str, salt: &str, what: &'static str) -> Call {
    let body = json!({
        "model": model, "token_ids": PROMPTS[0],
        "sampling_params": {
            "temperature": 1.0, "top_p": 1.0, "max_tokens": MOST, "logprobs": 1,
            "skip_special_tokens": false, "stop_token_ids": [2],
        },
        "cache_salt": salt,
    });
    Call::post("/inference/v1/generate", what, body).of(TRAJECTORY)
}

fn rolled_out(reply: &Part<'_>) {
    answers::generated(reply, Spelling::TokenId);
    if let Some(prompt) = reply.at("prompt_token_ids").maybe() {
        prompt.is(&json!(PROMPTS[0]));
    }
}

fn evaluated(reply: &Part<'_>) {
    answers::chat(reply);
    answers::tokens(&reply.at("choices").item(0).at("token_ids"));
}

/// The first value of each place is read.
fn scores(reply: &Part<'_>) {
    let places = reply.at("prompt_logprobs").items_of(PROMPTS[0].len());
    for place in places.iter().skip(1) {
        match place.fields().first() {
            Some((_, score)) => drop(score.at("logprob").logprob()),
            None => place.differs("a token's log-probability"),
        }
    }
}

/// Whole weights, from a folder: what is in flight waits, and goes on.
async fn weights(visit: &mut Visit<'_>, model: &str) -> io::Result<()> {
    let folder = visit.settings.weights.clone();
    if folder.is_some() {
        visit.keep_version().await;
    }
    let path = "/pause?mode=keep&clear_cache=false";
    let pause = Call::new(Method::POST, path, "weights come");
    let resume = Call::new(Method::POST, "/resume", "the weights are there");
    let resume = visit.change(pause, resume).await?;
    let waiting = visit.begin(rollout(model, "0", "a turn over the pause"));
    match folder {
        Some(folder) => {
            let update = json!({ "weight_dir": folder });
            visit.tell(Call::post("/update_weights", "the weights", update)).await?;
        }
        None => visit.skip("POST /update_weights", "--weights FOLDER gives what to publish")?,
    }
    visit.go_on(resume, waiting, rolled_out).await
}

/// An adapter, under one name at every step.
async fn adapters(visit: &mut Visit<'_>) -> io::Result<()> {
    let adapter = match published(visit).await {
        Ok(adapter) => adapter,
        Err(why) => {
            return visit.skip("POST /load_lora_adapter, /v1/unload_lora_adapter", &why);
        }
    };
    let name = format!("pagewise-doctor-{}", std::process::id());
    let load = |what| {
        let body = json!({ "lora_name": name, "lora_path": adapter.path });
        Call::post("/load_lora_adapter", what, body)
    };
    let body = json!({ "lora_name": name });
    let over = Call::post("/v1/unload_lora_adapter", "the run is over", body);
    let unload = visit.change(load("the new policy"), over).await?;
    if unload.is_none() {
        return Ok(());
    }
    visit.ask(rollout(&name, "1", "a turn of the new policy"), rolled_out).await?;
    if visit.tell(load("the next one, in its place")).await? {
        visit.ask(rollout(&name, "2", "a turn of the next one"), rolled_out).await?;
    }
    visit.undo(unload).await.map(drop)
}

fn configuration(url: &str, model: &str) -> Vec<String> {
    let (url, model) = (Value::from(format!("{url}/v1")), Value::from(model));
    vec![
        "# rl.toml".to_owned(),
        "[model]".to_owned(),
        format!("name = {model}"),
        String::new(),
        "[deployment]".to_owned(),
        "num_infer_gpus = 0".to_owned(),
        String::new(),
        "[orchestrator.model.client]".to_owned(),
        format!("base_url = {url}"),
        format!("admin_base_url = [{url}]"),
        String::new(),
        "[weight_broadcast]".to_owned(),
        "type = \"filesystem\"".to_owned(),
    ]
}
