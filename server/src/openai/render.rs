//! `/v1/chat/completions/render` and `/v1/completions/render`: what the same body would ask
//! of the model, as tokens and sampling parameters. `/inference/v1/generate` takes it as it
//! is.

use super::fields::Fields;
use super::{Chat, Completions, Context, Refusal, Surface, written};
use crate::vllm::OUTER;
use engine::request::Task;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Parameters of sampling that both have.
const SAMPLING: &[&str] = &[
    "allowed_token_ids",
    "bad_words",
    "custom_logit_processor",
    "custom_params",
    "frequency_penalty",
    "ignore_eos",
    "include_stop_str_in_output",
    "logit_bias",
    "min_p",
    "min_tokens",
    "n",
    "presence_penalty",
    "prompt_logprobs",
    "repetition_penalty",
    "response_format",
    "seed",
    "skip_special_tokens",
    "stop",
    "stop_regex",
    "stop_token_ids",
    "structured_outputs",
    "temperature",
    "thinking_token_budget",
    "top_k",
    "top_p",
];

/// Of a conversation.
pub fn chat(body: &[u8], context: Arc<Context>) -> Result<Vec<u8>, Refusal> {
    let mut fields = Fields::read(body)?;
    // Tokens alone do not say that an answer has to be a call.
    fields.only("tool_choice", &["none".into(), "auto".into()])?;
    let asks = Chat::read(body, context.clone())?;
    let body = rendered(&mut fields, &asks, &context)?.into_iter().next();
    Ok(written(&body.expect("a conversation is one prompt")))
}

/// Of prompts: a list, for there may be several.
pub fn completions(body: &[u8], context: Arc<Context>) -> Result<Vec<u8>, Refusal> {
    let mut fields = Fields::read(body)?;
    // Answers do not repeat their prompts there.
    fields.only("echo", &[false.into()])?;
    let asks = Completions::read(body, context.clone())?;
    Ok(written(&rendered(&mut fields, &asks, &context)?))
}

/// A body for each prompt of what was read of the fields.
fn rendered(
    fields: &mut Fields,
    asks: &impl Surface,
    context: &Context,
) -> Result<Vec<Value>, Refusal> {
    let mut sampling = Map::new();
    for name in SAMPLING {
        sampling.extend(fields.take(name)?.map(|value| ((*name).to_owned(), value)));
    }
    sampling.extend(asks.asked().top.map(|top| ("logprobs".to_owned(), top.into())));
    let mut outer = Map::new();
    for name in OUTER {
        outer.extend(fields.take(name)?.map(|value| (name.to_owned(), value)));
    }
    let requests = asks.requests();
    let many = requests.len() > 1;
    let name = asks.asked().request_id.as_ref().unwrap_or(&context.request_id);
    let each = requests.into_iter().enumerate().map(|(at, request)| {
        let Task::Generate(generate) = request.task else { unreachable!("these do not embed") };
        let mut sampling = sampling.clone();
        sampling.insert("max_tokens".to_owned(), generate.max_new.into());
        let own = json!({
            "request_id": if many { format!("{name}-{at}") } else { name.clone() },
            "model": asks.asked().model(&context.served),
            "token_ids": request.prompt,
            "features": null,
            "sampling_params": sampling,
        });
        let Value::Object(own) = own else { unreachable!("it is written as one") };
        let mut body = outer.clone();
        body.extend(own);
        Value::Object(body)
    });
    Ok(each.collect())
}
