//! TRL: `VLLMClient` of GRPO, and asynchronous GRPO, which publishes adapters from disk.

use super::adapter::published;
use super::answers::{self, MOST, PROMPTS, messages, spelled};
use super::call::Call;
use super::part::Part;
use super::visit::Visit;
use hyper::Method;
use serde_json::{Value, json};
use std::io;

/// Answers of a prompt.
const GROUP: usize = 2;
/// As large as the seeds that it draws.
const SEED: u64 = i64::MAX as u64;
const NCCL: &str = "the trainer broadcasts tensors between GPUs (NCCL)";

/// How weights can come to the server.
#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    /// As adapters.
    adapters: bool,
    /// By vLLM's engine of transfers.
    transfer: bool,
}

/// Its calls, and its configuration.
pub async fn step(visit: &mut Visit<'_>) -> io::Result<Vec<String>> {
    visit.tell(Call::get("/health", "whether it is up")).await?;
    let models = Call::get("/v1/models", "the model's name and length");
    let model = visit.ask(models, answers::card).await?.flatten().unwrap_or_default();
    let info = Call::get("/server_info?config_format=json", "how it is set up");
    let ways = visit.ask(info, ways).await?.unwrap_or_default();
    let size = Call::get("/get_world_size", "its ranks");
    visit.ask(size, |reply| reply.at("world_size").count()).await?;
    rollouts(visit, &model).await?;
    publish(visit, &model).await?;
    let updates = "POST /init_weight_transfer_engine, /start_weight_update, /update_weights, \
                   /finish_weight_update";
    visit.skip(updates, NCCL)?;
    let reset = Call::new(Method::POST, "/reset_prefix_cache", "after an update");
    visit.ask(reset, |reply| reply.at("success").switch()).await?;
    Ok(configuration(&visit.url(), ways))
}

fn ways(reply: &Part<'_>) -> Ways {
    let config = reply.at("vllm_config");
    config.at("model_config").at("dtype").text();
    config.at("parallel_config").at("data_parallel_size").is(&json!(1));
    let has = |name: &str| config.at(name).maybe().is_some();
    let ways = Ways { adapters: has("lora_config"), transfer: has("weight_transfer_config") };
    if !ways.adapters && !ways.transfer {
        config.at("lora_config").differs("an object, here or as weight_transfer_config");
    }
    ways
}

/// What GRPO asks between two updates.
async fn rollouts(visit: &mut Visit<'_>, model: &str) -> io::Result<()> {
    let group = json!({
        "model": model, "prompt": PROMPTS, "return_token_ids": true,
        "return_tokens_as_token_ids": true, "n": GROUP, "repetition_penalty": 1.0,
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": MOST,
        "logprobs": 0,
    });
    visit.ask(Call::post("/v1/completions", "groups of two prompts", group), groups).await?;
    let chat = json!({
        "model": model, "messages": messages(), "n": 1, "repetition_penalty": 1.0,
        "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": MOST,
        "logprobs": true, "top_logprobs": 0, "return_token_ids": true,
        "return_tokens_as_token_ids": true,
    });
    visit.ask(Call::post("/v1/chat/completions", "a conversation", chat), conversation).await?;
    let score = json!({
        "model": model, "prompt": [PROMPTS[0]], "max_tokens": 1, "temperature": 1.0,
        "prompt_logprobs": 2,
    });
    visit.ask(Call::post("/v1/completions", "a teacher's scores", score), scores).await?;
    Ok(())
}

fn groups(reply: &Part<'_>) {
    let choices = reply.at("choices").items_of(PROMPTS.len() * GROUP);
    for (choice, index) in choices.iter().zip(0..) {
        // Prompt after prompt, each with its whole group.
        choice.at("prompt_token_ids").is(&json!(PROMPTS[(index / GROUP).min(1)]));
        let (tokens, logprobs) = (answers::tokens(&choice.at("token_ids")), choice.at("logprobs"));
        let names = logprobs.at("tokens").items_of(tokens.len());
        names.iter().zip(&tokens).for_each(|(name, &token)| name.is(&spelled(token)));
        for own in logprobs.at("token_logprobs").items_of(tokens.len()) {
            own.logprob();
        }
        for top in logprobs.at("top_logprobs").items_of(tokens.len()) {
            top.fields().iter().for_each(|(name, logprob)| alternative(name, logprob));
        }
    }
}

/// A token among those that could have come, by its name.
fn alternative(name: &str, logprob: &Part<'_>) {
    let token = name.strip_prefix("token_id:").and_then(|token| token.parse::<u64>().ok());
    if token.is_none() {
        logprob.differs("a key as token_id:N");
    }
    logprob.logprob();
}

fn conversation(reply: &Part<'_>) {
    reply.at("prompt_token_ids").tokens();
    answers::chat(reply);
    let choice = reply.at("choices").item(0);
    let tokens = answers::tokens(&choice.at("token_ids"));
    let entries = choice.at("logprobs").at("content").items_of(tokens.len());
    for (entry, &token) in entries.iter().zip(&tokens) {
        entry.at("token").is(&spelled(token));
        entry.at("logprob").logprob();
        entry.at("top_logprobs").items();
    }
}

fn scores(reply: &Part<'_>) {
    let places = reply.at("choices").item(0).at("prompt_logprobs").items_of(PROMPTS[0].len());
    for (place, token) in places.iter().zip(PROMPTS[0]).skip(1) {
        // All are sorted by their ranks, the token that stands there among them.
        place.at(&token.to_string()).at("logprob").logprob();
        for (_, score) in place.fields() {
            score.at("logprob").logprob();
            score.at("rank").count();
        }
    }
}

/// A new policy: what is in flight waits, and goes on.
async fn publish(visit: &mut Visit<'_>, model: &str) -> io::Result<()> {
    let adapter = published(visit).await;
    let name = format!("trl-policy-v{}", std::process::id());
    let pause = Call::new(Method::POST, "/pause?mode=keep", "a new policy comes");
    let resume = Call::new(Method::POST, "/resume", "the new policy is there");
    let resume = visit.change(pause, resume).await?;
    let waiting = visit.begin(rollout(model, "an answer over the pause"));
    let mut unload = None;
    match &adapter {
        Ok(adapter) => {
            let body =
                json!({ "lora_name": name, "lora_path": adapter.path, "load_inplace": false });
            let load = Call::post("/v1/load_lora_adapter", "the new policy", body);
            let (path, body) = ("/v1/unload_lora_adapter", json!({ "lora_name": name }));
            unload = visit.change(load, Call::post(path, "the policy is too old", body)).await?;
        }
        Err(why) => visit.skip("POST /v1/load_lora_adapter, /v1/unload_lora_adapter", why)?,
    }
    visit.go_on(resume, waiting, rolled_out).await?;
    if unload.is_some() {
        visit.ask(rollout(&name, "an answer of the new policy"), rolled_out).await?;
        visit.undo(unload).await?;
    }
    Ok(())
}

/// What a worker of asynchronous GRPO asks.
fn rollout(model: &str, what: &'static str) -> Call {
    let body = json!({
        "model": model, "prompt": PROMPTS[0], "max_tokens": MOST, "temperature": 1.0,
        "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0, "n": 1, "return_token_ids": true,
        "logprobs": 0, "seed": SEED, "min_p": 0.0,
    });
    Call::post("/v1/completions", what, body)
}

fn rolled_out(reply: &Part<'_>) {
    let choice = reply.at("choices").item(0);
    let tokens = answers::tokens(&choice.at("token_ids"));
    for own in choice.at("logprobs").at("token_logprobs").items_of(tokens.len()) {
        own.logprob();
    }
}

fn configuration(url: &str, ways: Ways) -> Vec<String> {
    let url = Value::from(url);
    let mut lines = Vec::new();
    if ways.adapters {
        lines.push("# trl.experimental.async_grpo, with a LoRA model:".to_owned());
        lines.push(format!("AsyncGRPOConfig(vllm_server_base_url={url})"));
    }
    if ways.transfer {
        lines.push("# trl, with vLLM's transfer of weights:".to_owned());
        let server = "use_vllm=True, vllm_mode=\"server\"";
        lines.push(format!("GRPOConfig({server}, vllm_server_base_url={url})"));
    }
    lines
}
