//! slime: engines of SGLang that it did not start (`--rollout-external-engine-addrs`).

use super::answers::{MOST, PROMPTS, spans};
use super::call::{Call, Reply};
use super::part::Part;
use super::visit::{BETWEEN_GPUS, Visit};
use serde_json::{Value, json};
use std::io;

/// Tokens of an answer that is ended before its time.
const LONG: usize = 128;
/// The weights' name while they are published anew.
const VERSION: &str = "pagewise-doctor";

/// Its calls, and its configuration.
pub async fn step(visit: &mut Visit<'_>) -> io::Result<Vec<String>> {
    visit.tell(Call::get("/health_generate", "whether a token comes")).await?;
    flush(visit, "nothing is left of others").await?;
    let info = Call::get("/server_info", "its ranks and memory");
    let saver = visit.ask(info, |reply| {
        reply.at("tp_size").count();
        reply.at("pp_size").count();
        reply.at("disaggregation_mode").text();
        reply.at("enable_memory_saver").switch()
    });
    let saver = saver.await?.flatten();
    visit.ask(rollout(MOST, "a sample"), sampled).await?;
    abort(visit).await?;
    publish(visit).await?;
    let path = "POST /init_weights_update_group, /update_weights_from_distributed, \
                /update_weights_from_tensor";
    visit.skip(path, BETWEEN_GPUS)?;
    let bare = "SGLang's weights are gone after that, and only the trainer brings them back";
    visit.skip("POST /release_memory_occupation, /resume_memory_occupation", bare)?;
    Ok(configuration(&visit.url(), saver))
}

/// Asked until nobody runs.
async fn flush(visit: &mut Visit<'_>, what: &'static str) -> io::Result<()> {
    visit.until_well(Call::get("/flush_cache", what)).await
}

fn rollout(most: usize, what: &'static str) -> Call {
    let body = json!({
        "sampling_params": {
            "temperature": 1.0, "top_p": 1.0, "top_k": -1, "max_new_tokens": most,
            "stop": null, "stop_token_ids": null, "skip_special_tokens": true,
            "no_stop_trim": true, "spaces_between_special_tokens": false,
        },
        "return_logprob": true,
        "input_ids": PROMPTS[0],
    });
    Call::post("/generate", what, body)
}

/// A sample; gives the name of the weights that made it.
fn sampled(reply: &Part<'_>) -> Option<String> {
    reply.at("text").text();
    let meta = reply.at("meta_info");
    let ended = meta.at("finish_reason").at("type").one_of(&["stop", "length", "abort"]);
    let logprobs = meta.at("output_token_logprobs");
    // Who is ended before a token comes has none.
    let entries = match (ended, logprobs.clone().maybe()) {
        (Some("abort"), None) => Vec::new(),
        _ => logprobs.items(),
    };
    for entry in &entries {
        entry.item(0).logprob();
        entry.item(1).count();
    }
    meta.at("completion_tokens").is(&json!(entries.len()));
    for counted in ["prompt_tokens", "cached_tokens"] {
        meta.at(counted).maybe().map(|counted| counted.count());
    }
    if let Some(versions) = meta.at("weight_versions").maybe() {
        spans(&versions, entries.len());
    }
    meta.at("weight_version").text().map(str::to_owned)
}

/// A batch is full: what is in flight ends with what it has.
async fn abort(visit: &mut Visit<'_>) -> io::Result<()> {
    let sample = visit.begin(rollout(LONG, "a sample that is ended"));
    let all = json!({ "abort_all": true });
    visit.tell(Call::post("/abort_request", "the batch is full", all)).await?;
    let path = "/v1/loads?include=core,disagg,queues";
    let idle = |reply: &Reply| reply.value().is_some_and(|load| requests(&load) == Some(0));
    let load = Call::get(path, "whether all have ended");
    let check = |reply: &Part<'_>| {
        for rank in reply.at("loads").items() {
            rank.at("num_running_reqs").count();
            rank.at("num_waiting_reqs").count();
        }
    };
    visit.until(load, idle, check).await?;
    visit.end(sample, |reply| drop(sampled(reply))).await
}

/// Requests that a server has.
fn requests(load: &Value) -> Option<u64> {
    let ranks = load["loads"].as_array()?.iter();
    let each = ranks
        .map(|rank| Some(rank["num_running_reqs"].as_u64()? + rank["num_waiting_reqs"].as_u64()?));
    each.sum()
}

/// Weights from a folder, while nothing runs.
async fn publish(visit: &mut Visit<'_>) -> io::Result<()> {
    let folder = visit.settings.weights.clone();
    if folder.is_some() {
        visit.keep_version().await;
    }
    let pause = Call::post("/pause_generation", "weights come", json!({}));
    let resume = Call::post("/continue_generation", "the weights are there", json!({}));
    let resume = visit.change(pause, resume).await?;
    flush(visit, "nothing of the old weights is left").await?;
    match &folder {
        Some(folder) => {
            let body = json!({ "model_path": folder, "weight_version": VERSION });
            let update = Call::post("/update_weights_from_disk", "the weights", body);
            visit.ask(update, |reply| reply.at("success").is(&json!(true))).await?;
        }
        None => {
            let why = "--weights FOLDER gives what to publish";
            visit.skip("POST /update_weights_from_disk", why)?;
        }
    }
    visit.undo(resume).await?;
    let version = Call::get("/get_weight_version", "which weights serve");
    let check = |part: &Part<'_>| match folder {
        Some(_) => part.at("weight_version").is(&json!(VERSION)),
        None => {
            part.at("weight_version").text();
        }
    };
    visit.ask(version, check).await?;
    let sample = rollout(MOST, "a sample of the new weights");
    let check = |reply: &Part<'_>| {
        sampled(reply);
        check(&reply.at("meta_info"));
    };
    visit.ask(sample, check).await?;
    Ok(())
}

fn configuration(url: &str, saver: Option<bool>) -> Vec<String> {
    let mut lines = vec![
        "# flags; the folder is one that trainer and server both see".to_owned(),
        format!("--rollout-external-engine-addrs {}", url.trim_start_matches("http://")),
        "--update-weight-mode full".to_owned(),
        "--update-weight-transport disk".to_owned(),
        "--update-weight-disk-dir FOLDER".to_owned(),
    ];
    // It refuses a server that says otherwise.
    if saver == Some(true) {
        lines.push("--offload-rollout".to_owned());
    }
    lines
}
