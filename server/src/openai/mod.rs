//! The surfaces of OpenAI's API, with the fields that vLLM adds: JSON to requests of the
//! engine, and its events to JSON.

pub mod answer;
pub mod embeddings;
pub mod fields;
pub mod kept;
pub mod processors;
pub mod prompts;
pub mod refusal;
pub mod render;
pub mod sampling;
pub mod shape;
pub mod tokens;

mod chat;
mod completions;
mod logprobs;
mod masking;
mod messages;
mod structured;
mod tools;

pub use chat::Chat;
pub use completions::Completions;
pub use refusal::Refusal;

use crate::adapters::{Known, Line};
use crate::served::Served;
use answer::{Answers, Piece};
use engine::request::{Class, Request};
use fields::Fields;
use sampling::Asked;
use serde::Serialize;
use std::sync::Arc;

/// What a surface is told besides the body.
pub struct Context {
    /// The model.
    pub served: Arc<Served>,
    /// The request's name, which its response carries.
    pub request_id: String,
    /// The episode that it is a turn of, if its headers say so.
    pub session: Option<String>,
    /// Who asks, if its headers say so.
    pub class: Option<Class>,
    /// Seconds since 1970.
    pub now: u64,
}

/// A surface of generation: what it asks of the engine, and how it tells what comes.
pub trait Surface: Send + Sync + 'static {
    /// What it asks of every answer.
    fn asked(&self) -> &Asked;
    /// Whether its pieces tell tokens, also where they tell no text.
    fn tells_tokens(&self) -> bool {
        self.asked().top.is_some() || self.asked().show_tokens
    }
    /// The response, if it is known without an answer.
    fn ready(&self) -> Option<Vec<u8>> {
        None
    }
    /// One request for each prompt.
    fn requests(&self) -> Vec<Request>;
    /// The response, of one piece for each answer.
    fn whole(&self, pieces: Vec<Piece>, answers: &Answers) -> Vec<u8>;
    /// What a stream begins with.
    fn beginning(&self) -> Vec<Vec<u8>>;
    /// One piece in a stream; `first` says that none came before of this answer.
    fn chunk(&self, piece: Piece, first: bool, answers: &Answers) -> Vec<u8>;
    /// What a stream ends with, if it was asked what was used.
    fn last(&self, answers: &Answers) -> Vec<u8>;
}

/// The list of what is served.
pub fn models(served: &Served) -> Vec<u8> {
    let adapters = served.adapters.list().into_iter();
    let cards = adapters.map(|line| card(served, &line.name, Some(&line)));
    let all: Vec<_> = std::iter::once(card(served, &served.name, None)).chain(cards).collect();
    written(&serde_json::json!({ "object": "list", "data": all }))
}

/// One model, by its name.
pub fn model(name: &str, served: &Served) -> Result<Vec<u8>, Refusal> {
    let line = served.adapters.line(name);
    if name == served.name || line.is_some() {
        Ok(written(&card(served, name, line.as_ref())))
    } else {
        Err(Refusal::model(name, &served.name))
    }
}

fn card(served: &Served, name: &str, adapter: Option<&Line>) -> serde_json::Value {
    serde_json::json!({
        "id": name,
        "object": "model",
        "created": served.created,
        "owned_by": "pagewise",
        "root": adapter.map_or(&served.name, |line| &line.path),
        "parent": adapter.map(|_| &served.name),
        "max_model_len": served.context,
    })
}

/// A request may leave the model out, or name an adapter; it may not ask for another model.
pub fn check_model(fields: &mut Fields, served: &Served) -> Result<Option<Known>, Refusal> {
    let (model, adapter) = (fields.take::<String>("model")?, fields.take("lora_adapter")?);
    if let Some(name) = adapter {
        return check_adapter(model, name, served).map(Some);
    }
    let Some(name) = model else { return Ok(None) };
    if name == served.name {
        return Ok(None);
    }
    // SGLang's clients put the base before it.
    let own = name.strip_prefix(&served.name).and_then(|rest| rest.strip_prefix(':'));
    let known = served.adapters.find(&name).or_else(|| served.adapters.find(own?));
    known.map(Some).ok_or_else(|| Refusal::model(&name, &served.name))
}

/// An adapter by a field of its own, which may not say another than the model's.
fn check_adapter(model: Option<String>, name: String, served: &Served) -> Result<Known, Refusal> {
    if let Some(model) = model.filter(|model| *model != name) {
        let expected = format!("the same name as `model`, `{model}`, or that one alone");
        return Err(Refusal::expected("lora_adapter", &expected, format!("`{name}`")));
    }
    let unknown =
        || Refusal { param: Some("lora_adapter".into()), ..Refusal::model(&name, &served.name) };
    served.adapters.find(&name).ok_or_else(unknown)
}

/// As JSON.
pub fn written(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).expect("its maps have strings as keys")
}
