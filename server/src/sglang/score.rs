//! `/v1/score`: how likely some tokens are after a text, in SGLang's form; how near texts
//! are to each other, in vLLM's.
//!
//! Each label is scored as the last token of a prompt of its own, so that its probability is
//! the model's own, however unlikely it is; what the prompts share is computed once.

use crate::http::generate::{embedded, json};
use crate::http::{Answer, Asking, Server, route};
use crate::openai::fields::Fields;
use crate::openai::prompts::{self, Cut, Prompt, Reading};
use crate::openai::sampling::known;
use crate::openai::{Refusal, check_model};
use crate::runtime::Scoring;
use crate::served::Served;
use engine::request::{Class, Pooling, Request, Task};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Items of a request, and labels of each, together.
const SCORES_MAX: usize = 1 << 16;

/// Answers a body.
pub fn score(server: Arc<Server>, asking: Asking) -> Answer {
    Box::pin(async move {
        let Asking { call, begun: _begun, entry, .. } = asking;
        let served = server.served.clone();
        match route::read(call.body, move |body| read(body, &served)).await? {
            Asked::Labels(labels) => labels.answer(&server, &entry.id).await.map(json),
            Asked::Pairs(pairs) => pairs.answer(&server, &entry.id).await.map(json),
        }
    })
}

enum Asked {
    Labels(Labels),
    Pairs(Pairs),
}

fn read(body: &[u8], served: &Served) -> Result<Asked, Refusal> {
    let mut fields = Fields::read(body)?;
    if check_model(&mut fields, served)?.is_some() {
        return Err(Refusal::field("model", "the base model alone scores"));
    }
    match fields.has("text_1") || fields.has("text_2") {
        true => Pairs::read(fields, served).map(Asked::Pairs),
        false => Labels::read(fields, served).map(Asked::Labels),
    }
}

/// Tokens after texts.
struct Labels {
    prompts: Vec<Arc<[u32]>>,
    labels: Vec<u32>,
    /// Shares that add up to one, drawn out by a temperature; or the probabilities themselves.
    shares: Option<f32>,
    show_logprobs: bool,
}

#[derive(Serialize)]
struct Reply<'a> {
    scores: Vec<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_logprobs: Option<&'a [Vec<f32>]>,
    model: &'a str,
    usage: Value,
    object: &'static str,
}

impl Labels {
    fn read(mut fields: Fields, served: &Served) -> Result<Self, Refusal> {
        let query = fields.must::<Value>("query")?;
        let items = fields.must::<Value>("items")?;
        let labels: Vec<u32> = fields.must("label_token_ids")?;
        if labels.is_empty() {
            return Err(Refusal::field("label_token_ids", "expected at least one token"));
        }
        known("label_token_ids", &labels, served)?;
        let apply_softmax = fields.switch("apply_softmax")?;
        let item_first = fields.switch("item_first")?;
        let temperature = fields.take::<f32>("temperature")?.unwrap_or(1.0);
        if !(temperature > 0.0 && temperature <= 100.0) {
            return Err(Refusal::expected("temperature", "above 0, at most 100", temperature));
        }
        if !apply_softmax && temperature != 1.0 {
            let words = "only with `apply_softmax`: probabilities are the model's own";
            return Err(Refusal::field("temperature", words));
        }
        let show_logprobs = fields.switch("return_token_logprobs")?;
        fields.done()?;
        let prompts = joined(query, items, item_first, served)?;
        if prompts.len().saturating_mul(labels.len()) > SCORES_MAX {
            let expected = format!("at most {SCORES_MAX} items x labels");
            let got = prompts.len().saturating_mul(labels.len());
            return Err(Refusal::expected("label_token_ids", &expected, got));
        }
        for prompt in &prompts {
            let (len, most) = (prompt.len() + 1, served.context as usize);
            if len > most {
                let words =
                    format!("has {len} tokens with the query and a label; the model takes {most}");
                return Err(Refusal::too_long("items", words));
            }
        }
        let shares = apply_softmax.then_some(temperature);
        Ok(Self { prompts, labels, shares, show_logprobs })
    }

    async fn answer(&self, server: &Server, name: &str) -> Result<Vec<u8>, Refusal> {
        let scoring = |prompt: &Arc<[u32]>, label: u32| Scoring {
            tokens: [prompt, &[label][..]].concat(),
            from: prompt.len() as u32,
            adapter: None,
            salt: [].into(),
            class: Class::Inference,
            priority: 0,
        };
        let each = self.prompts.iter();
        let all = each.flat_map(|prompt| self.labels.iter().map(move |it| scoring(prompt, *it)));
        let logprobs = server.runtime.score(name, all.collect()).await?.concat();
        let logprobs: Vec<Vec<f32>> =
            logprobs.chunks(self.labels.len()).map(<[f32]>::to_vec).collect();
        let tokens: usize = self.prompts.iter().map(|prompt| prompt.len()).sum();
        let reply = Reply {
            scores: logprobs.iter().map(|of| self.scores(of)).collect(),
            token_logprobs: self.show_logprobs.then_some(&logprobs),
            model: &server.served.name,
            usage: json!({
                "prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens,
            }),
            object: "scoring",
        };
        Ok(serde_json::to_vec(&reply).expect("its maps have strings as keys"))
    }

    fn scores(&self, logprobs: &[f32]) -> Vec<f64> {
        let wide = logprobs.iter().map(|logprob| f64::from(*logprob));
        let Some(temperature) = self.shares else { return wide.map(f64::exp).collect() };
        let cooled: Vec<f64> = wide.map(|logprob| logprob / f64::from(temperature)).collect();
        let most = cooled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let shares: Vec<f64> = cooled.iter().map(|logprob| (logprob - most).exp()).collect();
        let sum: f64 = shares.iter().sum();
        shares.into_iter().map(|share| share / sum).collect()
    }
}

/// The query with each item, as one text or as tokens.
fn joined(
    query: Value,
    items: Value,
    item_first: bool,
    served: &Served,
) -> Result<Vec<Arc<[u32]>>, Refusal> {
    let reading = Reading { served, special: true, cut: Cut::No };
    match (query, items) {
        (Value::String(query), items @ (Value::String(_) | Value::Array(_))) => {
            let items: Vec<String> = match items {
                Value::String(one) => vec![one],
                items => serde_json::from_value(items)
                    .map_err(|_| Refusal::field("items", "expected texts, as the query is one"))?,
            };
            let join = |item: String| match item_first {
                true => format!("{item}{query}").into(),
                false => format!("{query}{item}").into(),
            };
            let texts = items.into_iter().map(join).collect();
            let prompts = prompts::read("items", Value::Array(texts), reading)?;
            Ok(prompts.into_iter().map(|prompt| prompt.tokens).collect())
        }
        (query @ Value::Array(_), items @ Value::Array(_)) => {
            let query: Vec<u32> = serde_json::from_value(query)
                .map_err(|_| Refusal::field("query", "expected a string or a list of tokens"))?;
            known("query", &query, served)?;
            let items: Vec<Vec<u32>> = serde_json::from_value(items).map_err(|_| {
                Refusal::field("items", "expected lists of tokens, as the query is one")
            })?;
            if items.is_empty() {
                return Err(Refusal::expected("items", "at least one", "none"));
            }
            let join = |item: &Vec<u32>| {
                known("items", item, served)?;
                let all = if item_first { [&**item, &query] } else { [&query, &**item] }.concat();
                match all.is_empty() {
                    true => Err(Refusal::field("items", "has no tokens, nor has the query")),
                    false => Ok(all.into()),
                }
            };
            items.iter().map(join).collect()
        }
        _ => {
            let words = "`query` and `items` are both texts, or both lists of tokens";
            Err(Refusal::field("query", words))
        }
    }
}

/// Texts beside texts.
struct Pairs {
    first: Vec<Prompt>,
    second: Vec<Prompt>,
}

impl Pairs {
    fn read(mut fields: Fields, served: &Served) -> Result<Self, Refusal> {
        let reading = Reading { served, special: true, cut: Cut::read(&mut fields)? };
        let mut texts = |name| -> Result<Vec<Prompt>, Refusal> {
            let mut prompts = prompts::read(name, fields.must(name)?, reading)?;
            prompts.iter_mut().for_each(|prompt| prompt.cut(reading, 0));
            let long = prompts.iter().find(|p| p.tokens.len() > served.context as usize);
            match long {
                Some(prompt) => {
                    let (len, most) = (prompt.tokens.len(), served.context);
                    let words = format!("has {len} tokens; the model takes {most}");
                    Err(Refusal::too_long(&prompt.name, words))
                }
                None => Ok(prompts),
            }
        };
        let (first, second) = (texts("text_1")?, texts("text_2")?);
        fields.done()?;
        if first.len() != 1 && first.len() != second.len() {
            let expected = format!("one text, or {} as `text_2` has", second.len());
            return Err(Refusal::expected("text_1", &expected, first.len()));
        }
        Ok(Self { first, second })
    }

    async fn answer(&self, server: &Server, name: &str) -> Result<Vec<u8>, Refusal> {
        let all = self.first.iter().chain(&self.second);
        let request = |prompt: &Prompt| Request {
            id: 0,
            prompt: prompt.tokens.to_vec(),
            task: Task::Embed(Pooling::Last),
            class: Class::Inference,
            priority: 0,
            salt: [].into(),
            adapter: None,
            episode: None,
            deadline: None,
        };
        let tokens: usize = all.clone().map(|prompt| prompt.tokens.len()).sum();
        let vectors = embedded(server, all.map(request).collect()).await?;
        let (first, second) = vectors.split_at(self.first.len());
        let data = second.iter().enumerate().map(|(index, other)| {
            let one = first.get(index).filter(|_| first.len() > 1).unwrap_or(&first[0]);
            // Both have length one.
            let score: f64 =
                one.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            json!({ "index": index, "object": "score", "score": score })
        });
        let body = json!({
            "id": format!("score-{name}"),
            "object": "list",
            "created": server.served.created,
            "model": server.served.name,
            "data": data.collect::<Vec<_>>(),
            "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
        });
        Ok(body.to_string().into_bytes())
    }
}
