//! `/v1/embeddings`: one vector for each text.

use super::fields::Fields;
use super::prompts::{self, Cut, Prompt, Reading};
use super::sampling::class;
use super::{Context, Refusal, check_model, written};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::request::{Class, Pooling, Request, Task};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// What is asked.
pub struct Embeddings {
    context: Arc<Context>,
    prompts: Vec<Prompt>,
    pooling: Pooling,
    base64: bool,
    class: Class,
    priority: i32,
}

#[derive(Serialize)]
struct Response<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    data: Vec<Embedding>,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Values,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Values {
    Numbers(Vec<f32>),
    /// Little-endian floats in base64.
    Text(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl Embeddings {
    /// From a body.
    pub fn read(body: &[u8], context: Arc<Context>) -> Result<Self, Refusal> {
        let mut fields = Fields::read(body)?;
        let served = &context.served;
        if check_model(&mut fields, served)?.is_some() {
            return Err(Refusal::field("model", "embeddings are the base model's alone"));
        }
        let special = fields.take("add_special_tokens")?.unwrap_or(true);
        let cut = Cut::read(&mut fields)?;
        let reading = Reading { served, special, cut };
        let mut prompts = prompts::read("input", fields.must("input")?, reading)?;
        prompts.iter_mut().for_each(|prompt| prompt.cut(reading, 0));
        let base64 = match fields.take::<String>("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                return Err(Refusal::expected("encoding_format", "`float` or `base64`", other));
            }
        };
        let pooling = match fields.take::<String>("pooling")?.as_deref() {
            None | Some("last") => Pooling::Last,
            Some("mean") => Pooling::Mean,
            Some(other) => return Err(Refusal::expected("pooling", "`last` or `mean`", other)),
        };
        fields.only("dimensions", &[served.hidden.into()])?;
        fields.only("normalize", &[Value::Bool(true)])?;
        let class = class(&mut fields)?.or(context.class).unwrap_or_default();
        let priority = fields.take("priority")?.unwrap_or(0);
        fields.done()?;
        for prompt in &prompts {
            let (tokens, most) = (prompt.tokens.len(), served.context as usize);
            if tokens > most {
                let words = format!("has {tokens} tokens; the model takes {most}");
                return Err(Refusal::too_long(&prompt.name, words));
            }
        }
        Ok(Self { prompts, pooling, base64, class, priority, context })
    }

    /// One request for each text.
    pub fn requests(&self) -> Vec<Request> {
        let request = |prompt: &Prompt| Request {
            id: 0,
            prompt: prompt.tokens.to_vec(),
            task: Task::Embed(self.pooling),
            class: self.class,
            priority: self.priority,
            adapter: None,
            episode: None,
            salt: Arc::from([]),
            deadline: None,
        };
        self.prompts.iter().map(request).collect()
    }

    /// The response, of one vector for each text.
    pub fn response(&self, vectors: Vec<Vec<f32>>) -> Vec<u8> {
        let tokens = self.prompts.iter().map(|prompt| prompt.tokens.len()).sum();
        let embedding = |(index, values): (usize, Vec<f32>)| Embedding {
            object: "embedding",
            index,
            embedding: if self.base64 {
                Values::Text(base64(&values))
            } else {
                Values::Numbers(values)
            },
        };
        written(&Response {
            id: format!("embd-{}", self.context.request_id),
            object: "list",
            created: self.context.now,
            model: &self.context.served.name,
            data: vectors.into_iter().enumerate().map(embedding).collect(),
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
        })
    }
}

fn base64(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}
