//! One request of the load, timed piece by piece.

use super::Noise;
use crate::command::Failure;
use crate::command::client::Client;
use crate::config::Bench;
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// What came of a request.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From the asking to the first token.
    pub first: Option<Duration>,
    /// Between tokens.
    pub gaps: Vec<Duration>,
    /// Tokens of the answer.
    pub tokens: u64,
    /// Tokens of the prompt that pages held already.
    pub cached: u64,
    /// Why it failed, if it did.
    pub failed: Option<String>,
}

/// Asks a server.
pub struct Asker {
    client: Client,
    /// That requests ask for in turn.
    models: Vec<String>,
    prompts: Prompts,
    max_tokens: u32,
    /// Fields of each request besides.
    extra: Map<String, Value>,
}

/// Prompts of random tokens.
struct Prompts {
    seed: u64,
    /// Of the vocabulary, the tokens below this are used.
    below: u64,
    tokens: u32,
    shared: u32,
}

impl Asker {
    /// Finds out what is served there.
    pub async fn open(settings: &Bench) -> Result<Self, Failure> {
        let prompts = Prompts {
            seed: settings.seed,
            below: 0,
            tokens: settings.prompt_tokens,
            shared: settings.shared_tokens,
        };
        let client = Client::new(&settings.remote)?;
        let (models, max_tokens) = (settings.models.clone(), settings.max_tokens);
        let extra = settings.extra_body.clone().unwrap_or_default();
        let mut asker = Self { client, models, prompts, max_tokens, extra };
        let models = asker.client.json(Method::GET, "/v1/models", None).await?;
        let named = models["data"][0]["id"].as_str();
        let named = named.ok_or_else(|| Failure::Server("/v1/models names no model".into()))?;
        if asker.models.is_empty() {
            asker.models.push(named.to_owned());
        }
        asker.prompts.below = match settings.token_ids_below {
            Some(below) => below.into(),
            None => asker.vocabulary().await?,
        };
        Ok(asker)
    }

    /// A bound that all tokens below are known: plain text is read for that, so that no
    /// token is one that ends an answer.
    async fn vocabulary(&self) -> Result<u64, Failure> {
        let letters: String = ('a'..='z').chain('0'..='9').collect();
        let body = json!({"model": self.models[0], "prompt": letters, "add_special_tokens": false});
        let read = self.client.json(Method::POST, "/tokenize", Some(body)).await?;
        let tokens = read["tokens"].as_array().into_iter().flatten();
        let largest = tokens.filter_map(Value::as_u64).max();
        let none = || Failure::Server("/tokenize gives no tokens".into());
        Ok(largest.ok_or_else(none)?.max(2))
    }

    /// One request, to its end.
    pub async fn ask(&self, number: u32) -> Outcome {
        let mut outcome = Outcome::default();
        if let Err(why) = self.stream(number, &mut outcome).await {
            outcome.failed = Some(why);
        }
        outcome
    }

    async fn stream(&self, number: u32, outcome: &mut Outcome) -> Result<(), String> {
        let mut body = json!({
            "model": self.models[number as usize % self.models.len()],
            "prompt": self.prompts.of(number),
            "max_tokens": self.max_tokens,
            "temperature": 1.0,
            "seed": number,
            "ignore_eos": true,
            "stream": true,
            "return_token_ids": true,
            "stream_options": {"include_usage": true},
        });
        if let Value::Object(body) = &mut body {
            body.extend(self.extra.clone());
        }
        let begun = Instant::now();
        let response = self.client.send(Method::POST, "/v1/completions", Some(body)).await?;
        let (status, mut body) = (response.status(), response.into_body());
        let (mut buffer, mut last) = (Vec::new(), begun);
        let mut told = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| error.to_string())?;
            buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            let now = Instant::now();
            while let Some(end) = buffer.windows(2).position(|two| two == b"\n\n") {
                let event: Vec<u8> = buffer.drain(..end + 2).collect();
                told = event_of(&event, (&mut last, now), outcome)?.or(told);
            }
        }
        // Some servers tell no tokens, and send a character only when it is whole.
        outcome.tokens = told.unwrap_or(outcome.tokens);
        match outcome.tokens {
            0 => Err(format!("{status}: {}", String::from_utf8_lossy(&buffer))),
            _ => Ok(()),
        }
    }
}

/// Takes an event of a stream in; gives the count of all tokens, where the server tells it.
fn event_of(
    event: &[u8],
    (last, now): (&mut Instant, Instant),
    outcome: &mut Outcome,
) -> Result<Option<u64>, String> {
    // Some servers keep a stream awake by comments.
    let mut lines = event.split(|byte| *byte == b'\n');
    let data = lines.find_map(|line| line.strip_prefix(b"data:"));
    let Some(data) = data.map(<[u8]>::trim_ascii).filter(|data| *data != b"[DONE]") else {
        return Ok(None);
    };
    let told: Value = serde_json::from_slice(data).map_err(|error| error.to_string())?;
    if let Some(words) = told["error"]["message"].as_str() {
        return Err(words.to_owned());
    }
    let usage = &told["usage"];
    if let Some(cached) = usage["prompt_tokens_details"]["cached_tokens"].as_u64() {
        outcome.cached = cached;
    }
    let choice = &told["choices"][0];
    let tokens = match choice["token_ids"].as_array() {
        Some(tokens) => tokens.len(),
        // An event is a token, but for the one that only tells the end.
        None => usize::from(choice["text"].is_string() && choice["finish_reason"].is_null()),
    };
    for _ in 0..tokens {
        match outcome.first {
            None => outcome.first = Some(now - *last),
            Some(_) => outcome.gaps.push(now - *last),
        }
        *last = now;
    }
    outcome.tokens += tokens as u64;
    Ok(usage["completion_tokens"].as_u64())
}

impl Prompts {
    /// The tokens of a request's prompt: the shared ones first.
    fn of(&self, number: u32) -> Vec<u64> {
        let draw = |seed: u64, count: u32| {
            let mut noise = Noise(seed);
            (0..count).map(move |_| noise.next() % self.below).collect::<Vec<_>>()
        };
        let own = draw(self.seed ^ (u64::from(number) + 1) << 20, self.tokens - self.shared);
        [draw(self.seed, self.shared), own].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, event_of};
    use std::time::{Duration, Instant};

    #[test]
    fn tokens_are_counted_of_any_server() {
        let begun = Instant::now();
        let (mut last, mut outcome) = (begun, Outcome::default());
        let mut told = None;
        let events = [
            ": still here\n\n",
            "data: {\"choices\":[{\"text\":\"a\",\"token_ids\":[1,2]}]}\n\n",
            ": still here\ndata: {\"choices\":[{\"text\":\"b\",\"finish_reason\":null}]}\n\n",
            "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":4}}\n\n",
            "data: [DONE]\n\n",
        ];
        for (at, event) in (1..).zip(events) {
            let now = begun + Duration::from_secs(at);
            told =
                event_of(event.as_bytes(), (&mut last, now), &mut outcome).expect("good").or(told);
        }
        assert_eq!((outcome.tokens, told), (3, Some(4)));
        assert_eq!(outcome.first, Some(Duration::from_secs(2)));
        assert_eq!(outcome.gaps, [Duration::ZERO, Duration::from_secs(1)]);
        let broken = event_of(b"data: {", (&mut last, begun), &mut outcome);
        assert!(broken.is_err());
    }
}
