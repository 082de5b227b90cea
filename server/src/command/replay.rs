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
use std::io::{BufRead, BufReader, Write};
use trajectories::{Masks, Span, Trajectory};

/// Where a trajectory and the server part.
struct Parting {
    /// Which token of the answer.
    at: usize,
    was: f32,
    is: f32,
    why: String,
}

/// What came of all lines.
#[derive(Default)]
struct Counts {
    all: usize,
    parted: usize,
    uncompared: usize,
}

/// Replays a file, and tells; it fails where one parts, or cannot be compared.
pub fn run(settings: &Replay, out: &mut impl Write) -> Result<(), Failure> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let executor = executor.map_err(Failure::Thread)?;
    let client = Client::new(&settings.remote)?;
    let file = File::open(&settings.file).map_err(Failure::Stream)?;
    let mut counts = Counts::default();
    for (line, number) in BufReader::new(file).split(b'\n').zip(1..) {
        let told = match trajectory(&line.map_err(Failure::Stream)?) {
            Ok(None) => continue,
            Ok(Some(it)) => {
                let replayed = executor.block_on(replay(&client, &it));
                format!("trajectory {}: {}", it.id, counts.told(&it, replayed)?)
            }
            Err(why) => format!("line {number}: {}", counts.uncomparable(&why)),
        };
        writeln!(out, "{told}")?;
    }
    let Counts { all, parted, uncompared } = counts;
    writeln!(out, "{all} trajectories, {parted} part, {uncompared} not compared")?;
    match (parted, uncompared) {
        (0, 0) => Ok(()),
        (0, count) => Err(Failure::Uncompared { count }),
        (count, _) => Err(Failure::Parted { count }),
    }
}

impl Counts {
    /// What came of a trajectory, in words: only a server that cannot be asked at all ends
    /// the others, too.
    fn told(
        &mut self,
        it: &Trajectory,
        replayed: Result<Option<Parting>, Failure>,
    ) -> Result<String, Failure> {
        Ok(match replayed {
            Ok(None) => {
                self.all += 1;
                format!("{} tokens, every bit is the same", it.answer.len())
            }
            Ok(Some(Parting { at, was, is, why })) => {
                (self.all, self.parted) = (self.all + 1, self.parted + 1);
                let token = it.answer[at];
                format!("parts at token {at} ({token}): {was} was {is} now: {why}")
            }
            Err(Failure::Server(why)) => self.uncomparable(&why),
            Err(failure) => return Err(failure),
        })
    }

    fn uncomparable(&mut self, why: &dyn fmt::Display) -> String {
        (self.all, self.uncompared) = (self.all + 1, self.uncompared + 1);
        format!("cannot be compared: {why}")
    }
}

/// What a line has, if it is not the counts that an export may end with, nor empty.
fn trajectory(line: &[u8]) -> Result<Option<Trajectory>, String> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    let told: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if told.get("exported").is_some() {
        return Ok(None);
    }
    let it: Trajectory = serde_json::from_value(told).map_err(|error| error.to_string())?;
    // As it was before the store gave it a number.
    let given = Trajectory { id: 0, rewards: Vec::new(), ..it.clone() };
    given.check().map_err(|error| error.to_string())?;
    let (tokens, raw) = (it.answer.len(), it.logprobs.raw.len());
    if it.prompt.is_empty() || tokens == 0 || raw != tokens {
        let prompt = it.prompt.len();
        return Err(format!(
            "{prompt} tokens of a prompt, {tokens} of an answer, {raw} of its log-probabilities: nothing to compare"
        ));
    }
    Ok(Some(it))
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
    // From the last span on that leaves nothing of those before it.
    let alone = |span: &Span| span.kv.first().is_none_or(|over| over.from == 0);
    let first = it.versions[..=made].iter().rposition(alone).unwrap_or(0);
    let over = it.versions[first..=made].iter().flat_map(|span| match &span.kv[..] {
        [] => vec![called(&span.version, span.weights.as_deref())],
        kv => kv.iter().map(|over| called(&over.version, over.weights.as_deref())).collect(),
    });
    Ok(if by != serves {
        format!("version: {by} made it, {serves} serves")
    } else if span.kv.is_empty() {
        format!("version: {serves} serves by the same name: other weights, or other numerics")
    } else {
        let over: Vec<String> = over.filter(|over| *over != by).collect();
        format!("version: it stands on keys and values of {}, which were kept", over.join(", "))
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
/// that can be another, or the noise.
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
    let asked = json!({
        "model": it.model, "token_ids": it.prompt, "sampling_params": said,
        "return_sampling_mask": true, "sampling_mask": "hash",
    });
    let told = client.json(Method::POST, "/inference/v1/generate", Some(asked)).await?;
    let choice = &told["choices"][0];
    for (at, &was) in it.logprobs.processed.iter().enumerate() {
        let Some(draw) = Draw::read(choice, at) else {
            let why = "mask: the model says the same, and the answer ends before it".to_owned();
            return Ok(Some(Parting { at, was, is: f32::NAN, why }));
        };
        let masked = masked(it, at).is_some_and(|hash| hash != draw.mask);
        let same = draw.token == it.answer[at] && draw.processed.to_bits() == was.to_bits();
        if !same || masked {
            let why = of_drawing(it, at, &draw, masked);
            return Ok(Some(Parting { at, was, is: draw.processed, why }));
        }
    }
    Ok(None)
}

/// A token that was drawn once more.
struct Draw {
    token: u32,
    raw: f32,
    processed: f32,
    /// Hash of what it was drawn from.
    mask: u64,
}

impl Draw {
    fn read(choice: &Value, at: usize) -> Option<Self> {
        let entry: &Value = &choice["logprobs"]["content"][at];
        let float = |name: &str| entry[name].as_f64().map(|x| x as f32);
        let mask = match &choice["sampling_mask"][at] {
            Value::String(digits) => u64::from_str_radix(digits, 16).ok()?,
            _ => Kept::All.hash(),
        };
        Some(Self {
            token: u32::try_from(entry["token_id"].as_u64()?).ok()?,
            raw: float("logprob")?,
            processed: float("processed_logprob")?,
            mask,
        })
    }
}

/// Hash of what a token was drawn from. Where nothing is kept of that it was everything, but
/// for a temperature of 0, which leaves one token and is no mask.
fn masked(it: &Trajectory, at: usize) -> Option<u64> {
    match &it.masks {
        Some(Masks::Hashes(hashes)) => Some(hashes[at]),
        Some(Masks::Kept(sets)) => Some(Kept::Tokens(sets[at].as_slice().into()).hash()),
        None => (it.sampling.temperature > 0.0).then(|| Kept::All.hash()),
    }
}

/// Why a token is drawn from something else, or is another, where the model says the same.
fn of_drawing(it: &Trajectory, at: usize, draw: &Draw, masked: bool) -> String {
    let filtered = it.masks.is_some() && (it.sampling.top_p < 1.0 || it.sampling.min_p > 0.0);
    let other = draw.token != it.answer[at];
    let why = if masked && filtered {
        "mask or temperature: the model says the same, and other tokens may be drawn, which \
         `top_p` and `min_p` make depend on the temperature, too"
    } else if masked {
        "mask: the model says the same, and other tokens may be drawn"
    } else if other && is_as_likely(it, at, draw) {
        "seed: the same tokens may be drawn, with the same probabilities, and another one was"
    } else if other && it.sampling.temperature == 0.0 {
        "mask, temperature, penalties or biases: the model says the same, and another token is \
         the most likely"
    } else if other && weighs(it) {
        "temperature, penalties, biases or seed: the model says the same, and another token was \
         drawn"
    } else {
        "temperature, penalties or biases: the model says the same, and the same tokens may be \
         drawn, with other probabilities"
    };
    match other {
        true => format!("{why}: {}", draw.token),
        false => why.to_owned(),
    }
}

/// Whether what another token was drawn from gives the recorded one what it had: what two
/// tokens are apart is what the model says of them, over the temperature, whichever masks
/// and filters there are.
fn is_as_likely(it: &Trajectory, at: usize, draw: &Draw) -> bool {
    let temperature = f64::from(it.sampling.temperature);
    if temperature == 0.0 {
        return false;
    }
    let [raw, was] = [&it.logprobs.raw, &it.logprobs.processed].map(|all| f64::from(all[at]));
    let (drawn, is) = (f64::from(draw.raw) / temperature, f64::from(draw.processed));
    let would_be = is + raw / temperature - drawn;
    // Each of the four is an f32 that was rounded a few times.
    let sizes = [1.0, would_be, was, is, drawn, raw / temperature];
    let size: f64 = sizes.iter().map(|size| size.abs()).sum();
    (would_be - was).abs() <= 16.0 * f64::from(f32::EPSILON) * size
}

/// Whether the request said more of drawing than the temperature and which tokens may be
/// drawn, so that two tokens may be apart by something else.
fn weighs(it: &Trajectory) -> bool {
    let weights = [
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "logit_bias",
        "processors",
        "custom_logit_processor",
    ];
    weights.iter().any(|name| it.masking.contains_key(*name))
}
