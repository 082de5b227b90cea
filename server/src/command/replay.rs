//! `pagewise replay`: forces the tokens of stored trajectories through a running server, and
//! compares every log-probability bit for bit.

use super::Failure;
use super::client::Client;
use crate::config::Replay;
use engine::processor::Kept;
use hyper::Method;
use serde_json::{Value, json};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use trajectories::{Masks, Trajectory};

/// Where a trajectory and the server part.
struct Parting {
    /// Which token of the answer.
    at: usize,
    was: f32,
    is: f32,
    why: String,
}

/// Replays a file, and tells; it fails where one parts.
pub fn run(settings: &Replay, out: &mut impl Write) -> Result<(), Failure> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let executor = executor.map_err(Failure::Thread)?;
    let client = Client::new(&settings.remote)?;
    let file = File::open(&settings.file).map_err(Failure::Stream)?;
    let (mut all, mut parted) = (0, 0);
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let Some(trajectory) = trajectory(&line.map_err(Failure::Stream)?, number)? else {
            continue;
        };
        all += 1;
        let parting = executor.block_on(replay(&client, &trajectory))?;
        parted += usize::from(parting.is_some());
        tell(out, &trajectory, parting)?;
    }
    writeln!(out, "{all} trajectories, {parted} part")?;
    match parted {
        0 => Ok(()),
        count => Err(Failure::Parted { count }),
    }
}

/// What a line has, if it is not the counts that an export may end with.
fn trajectory(line: &str, number: usize) -> Result<Option<Trajectory>, Failure> {
    let unusable = |why: &dyn fmt::Display| Failure::Setting(format!("line {number}: {why}"));
    let told: Value = serde_json::from_str(line).map_err(|error| unusable(&error))?;
    if told.get("exported").is_some() {
        return Ok(None);
    }
    let it: Trajectory = serde_json::from_value(told).map_err(|error| unusable(&error))?;
    let (tokens, raw) = (it.answer.len(), it.logprobs.raw.len());
    if it.prompt.is_empty() || tokens == 0 || raw != tokens {
        let prompt = it.prompt.len();
        let why = format!(
            "{prompt} tokens of a prompt, {tokens} of an answer, {raw} of its log-probabilities: nothing to compare"
        );
        return Err(unusable(&why));
    }
    Ok(Some(it))
}

fn tell(out: &mut impl Write, it: &Trajectory, parting: Option<Parting>) -> io::Result<()> {
    let (id, tokens) = (it.id, it.answer.len());
    match parting {
        None => writeln!(out, "trajectory {id}: {tokens} tokens, every bit is the same"),
        Some(Parting { at, was, is, why }) => writeln!(
            out,
            "trajectory {id}: parts at token {at} ({}): {was} was {is} now: {why}",
            it.answer[at]
        ),
    }
}

/// Where the server says otherwise, if it does.
async fn replay(client: &Client, it: &Trajectory) -> Result<Option<Parting>, Failure> {
    let tokens = [&it.prompt[..], &it.answer].concat();
    let asked = json!({
        "model": it.model,
        "token_ids": tokens,
        "sampling_params": {
            "max_tokens": 0, "prompt_logprobs": 0, "prompt_logprob_start": it.prompt.len(),
        },
    });
    let told = client.json(Method::POST, "/inference/v1/generate", Some(asked)).await?;
    let scores = told["prompt_logprobs"].as_array().cloned().unwrap_or_default();
    let of = |at: usize| -> Option<f32> {
        let entry = scores.get(it.prompt.len() + at)?;
        entry[it.answer[at].to_string()]["logprob"].as_f64().map(|x| x as f32)
    };
    for (at, &was) in it.logprobs.raw.iter().enumerate() {
        let missing = || Failure::Server(format!("no log-probability of token {at} came"));
        let is = of(at).ok_or_else(missing)?;
        if is.to_bits() != was.to_bits() {
            let why = of_version(client, it, at).await?;
            return Ok(Some(Parting { at, was, is, why }));
        }
    }
    drawn(client, it).await
}

/// Why what the model itself says is another.
async fn of_version(client: &Client, it: &Trajectory, at: usize) -> Result<String, Failure> {
    let made = it.versions.iter().position(|span| (span.start..span.end).contains(&(at as u32)));
    let serves = serving(client, &it.model).await?;
    let Some(made) = made else {
        return Ok(format!("version: what made it is not told, {serves} serves"));
    };
    let span = &it.versions[made];
    let by = called(&span.version, span.weights.as_deref());
    // A span that says nothing of keys and values has computed all of them.
    let over = it.versions[..=made].iter().rposition(|span| span.kv.is_empty()).unwrap_or(0);
    let over = it.versions[over..=made].iter().flat_map(|span| &span.kv);
    let over = over.map(|over| called(&over.version, over.weights.as_deref()));
    Ok(if by != serves {
        format!("version: {by} made it, {serves} serves")
    } else if span.kv.is_empty() {
        format!("version: {serves} serves by the same name: other weights, or other numerics")
    } else {
        let over: Vec<String> = over.collect();
        format!(
            "version: it stands on keys and values of {}, too, which were kept",
            over.join(", ")
        )
    })
}

/// A version, and the weights under it where it is an adapter's.
fn called(version: &str, weights: Option<&str>) -> String {
    match weights {
        Some(weights) => format!("`{version}` over `{weights}`"),
        None => format!("`{version}`"),
    }
}

/// What the version that serves a model is called.
async fn serving(client: &Client, model: &str) -> Result<String, Failure> {
    let adapters = client.json(Method::GET, "/v1/lora_adapters", None).await?;
    let own = adapters["data"].as_array().into_iter().flatten().find(|it| it["name"] == model);
    let info = client.json(Method::GET, "/weight_info", None).await?;
    let weights = info["weight_version"].as_str().unwrap_or_default();
    Ok(match own.and_then(|own| own["version"].as_str()) {
        Some(version) => called(version, Some(weights)),
        None => called(weights, None),
    })
}

/// Draws the answer once more, for what it was drawn from: where the model says the same, only
/// that can be another.
async fn drawn(client: &Client, it: &Trajectory) -> Result<Option<Parting>, Failure> {
    if it.logprobs.processed.len() != it.answer.len() || it.sampling.choice > 0 {
        return Ok(None);
    }
    let sampling = &it.sampling;
    let mut said = json!({
        "max_tokens": it.answer.len(), "logprobs": 0, "seed": sampling.seed,
        // The model's own end may be among the tokens, and masked before a least of them.
        "ignore_eos": !it.masking.contains_key("min_tokens"),
        "temperature": sampling.temperature, "top_p": sampling.top_p,
        "top_k": sampling.top_k, "min_p": sampling.min_p,
    });
    if let Value::Object(said) = &mut said {
        said.extend(it.masking.clone());
    }
    let mut asked = json!({ "model": it.model, "token_ids": it.prompt, "sampling_params": said });
    if let Some(Masks::Hashes(_)) = it.masks {
        asked["return_sampling_mask"] = true.into();
        asked["sampling_mask"] = "hash".into();
    }
    let told = client.json(Method::POST, "/inference/v1/generate", Some(asked)).await?;
    let choice = &told["choices"][0];
    for (at, &was) in it.logprobs.processed.iter().enumerate() {
        let entry: &Value = &choice["logprobs"]["content"][at];
        let is = entry["processed_logprob"].as_f64().map_or(f32::NAN, |x| x as f32);
        let masked = it.masks.as_ref().is_some_and(|masks| is_other(masks, at, choice));
        let same = entry["token_id"] == it.answer[at] && is.to_bits() == was.to_bits();
        if !same || masked {
            return Ok(Some(Parting { at, was, is, why: of_drawing(it, masked).to_owned() }));
        }
    }
    Ok(None)
}

/// Whether a token is drawn from other tokens than it was.
fn is_other(masks: &Masks, at: usize, choice: &Value) -> bool {
    let Masks::Hashes(hashes) = masks else { return false };
    let now = match &choice["sampling_mask"][at] {
        Value::String(digits) => u64::from_str_radix(digits, 16).ok(),
        Value::Null => Some(Kept::All.hash()),
        _ => None,
    };
    now != Some(hashes[at])
}

/// Why a token is drawn from something else, where the model says the same of it.
fn of_drawing(it: &Trajectory, masked: bool) -> &'static str {
    let follows = it.sampling.top_p < 1.0 || it.sampling.min_p > 0.0;
    match (masked, follows) {
        (true, false) => "mask: the model says the same, and other tokens may be drawn",
        (true, true) => {
            "mask or temperature: the model says the same, and other tokens may be drawn, which \
             `top_p` and `min_p` make depend on the temperature, too"
        }
        (false, _) if it.masks.is_some() => {
            "temperature, penalties or biases: the model says the same, and the same tokens may be \
             drawn, with other probabilities"
        }
        (false, _) => {
            "the model says the same, and what was drawn from is another: another temperature, \
             penalties or biases"
        }
    }
}
