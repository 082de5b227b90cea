//! A conversation to a prompt: messages checked, then rendered by the model's template.

use super::Refusal;
use super::fields::Fields;
use super::prompts::{self, Reading};
use super::sampling::known;
use crate::served::Served;
use crate::text::template::Conversation;
use serde_json::{Map, Value};
use std::sync::Arc;

/// The field of tokens that a prompt must begin with.
const PREFIX: &str = "required_prefix_token_ids";
/// Who may speak.
const ROLES: &[&str] = &["system", "developer", "user", "assistant", "tool"];

/// The prompt of a request's conversation, and the hash of the template that made it.
pub fn prompt(
    fields: &mut Fields,
    tools: Option<&[Value]>,
    reading: Reading<'_>,
) -> Result<(Arc<[u32]>, u64), Refusal> {
    let (text, template) = text(fields, tools, reading.served)?;
    let tokens = match fields.take::<Vec<u32>>(PREFIX)? {
        None => prompts::encode("messages", &text, reading)?,
        Some(prefix) => after(prefix, &text, reading)?,
    };
    if tokens.is_empty() {
        return Err(Refusal::field("messages", "have no tokens"));
    }
    Ok((tokens, template))
}

/// The tokens of a text that begins with given ones: turns before are not tokenized again,
/// for their text may have come by other tokens than a tokenizer makes of it.
fn after(mut prefix: Vec<u32>, text: &str, reading: Reading<'_>) -> Result<Arc<[u32]>, Refusal> {
    known(PREFIX, &prefix, reading.served)?;
    let said = reading.served.text.tokenizer.decode(&prefix, false)?;
    let Some(rest) = text.strip_prefix(&said) else {
        let same = said.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
        let words = format!(
            "is no beginning of the conversation: they part after {same} of the {} bytes that it \
             reads as",
            said.len()
        );
        let mut refusal = Refusal::field(PREFIX, words);
        refusal.code = Some("prefix_mismatch");
        return Err(refusal);
    };
    prefix.extend(prompts::encode("messages", rest, reading)?.iter());
    Ok(prefix.into())
}

/// What the template makes of a request's conversation.
fn text(
    fields: &mut Fields,
    tools: Option<&[Value]>,
    served: &Served,
) -> Result<(String, u64), Refusal> {
    let messages: Vec<Value> = fields.must("messages")?;
    if messages.is_empty() {
        return Err(Refusal::expected("messages", "at least one", "none"));
    }
    let each = messages.into_iter().enumerate();
    let messages: Vec<Value> =
        each.map(|(at, message)| checked(at, message)).collect::<Result<_, _>>()?;
    let go_on = fields.switch("continue_final_message")?;
    let begin = fields.take("add_generation_prompt")?.unwrap_or(!go_on);
    if go_on && begin {
        let words = "not together with `add_generation_prompt`";
        return Err(Refusal::field("continue_final_message", words));
    }
    fields.only("functions", &[Value::Array(Vec::new())])?;
    let more: Map<String, Value> = fields.take("chat_template_kwargs")?.unwrap_or_default();
    let taken = ["messages", "add_generation_prompt", "tools", "documents"];
    if let Some(name) = taken.iter().find(|name| more.contains_key(**name)) {
        return Err(Refusal::field("chat_template_kwargs", format!("must not hold `{name}`")));
    }
    let template = match fields.take::<String>("chat_template")? {
        Some(_) if !served.trust_request_chat_template => {
            let words = "is taken only under --trust-request-chat-template";
            return Err(Refusal::field("chat_template", words));
        }
        Some(source) => served.text.template_of(source)?,
        None => served.text.template().ok_or_else(|| {
            Refusal::field("messages", "the model has no chat template: use /v1/completions")
        })?,
    };
    let conversation =
        Conversation { messages: &messages, tools, add_generation_prompt: begin, more: &more };
    let text = template.render(&conversation)?;
    let text = if go_on { unfinished(text, &messages)? } else { text };
    Ok((text, template.hash))
}

/// A message with plain text for its content.
fn checked(at: usize, message: Value) -> Result<Value, Refusal> {
    let name = |field: &str| format!("messages[{at}]{field}");
    let Value::Object(mut message) = message else {
        return Err(Refusal::field(name(""), "expected an object"));
    };
    // Clients send back what they were answered, empty lists among it.
    let empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    message.retain(|field, value| !(value.is_null() || field == "annotations" && empty(value)));
    match message.get("role").and_then(Value::as_str) {
        Some(role) if ROLES.contains(&role) => {}
        Some("function") => return Err(Refusal::unsupported(&name(".role"))),
        _ => {
            let words = format!("expected one of {}", ROLES.join(", "));
            return Err(Refusal::field(name(".role"), words));
        }
    }
    let role = message["role"].as_str().unwrap_or("").to_owned();
    let known = ["role", "content", "name", "refusal", "tool_calls", "tool_call_id"];
    let own = |field: &str| match field {
        "tool_calls" => role == "assistant",
        "tool_call_id" => role == "tool",
        field => known.contains(&field),
    };
    if let Some(field) = message.keys().find(|field| !own(field)) {
        return Err(Refusal::unsupported(&name(&format!(".{field}"))));
    }
    if message.get("tool_call_id").is_some_and(|id| !id.is_string()) {
        return Err(Refusal::field(name(".tool_call_id"), "expected a string"));
    }
    let calls = match message.remove("tool_calls") {
        Some(Value::Array(calls)) => calls,
        Some(_) => return Err(Refusal::field(name(".tool_calls"), "expected a list")),
        None => Vec::new(),
    };
    let each = calls.into_iter().enumerate();
    let calls = each.map(|(at, call)| called(&name(&format!(".tool_calls[{at}]")), call));
    let calls: Vec<Value> = calls.collect::<Result<_, _>>()?;
    let content = match message.remove("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => joined(&name(".content"), parts)?,
        Some(_) => {
            return Err(Refusal::field(name(".content"), "expected text or a list of parts"));
        }
        None if !calls.is_empty() => String::new(),
        None => return Err(Refusal::field(name(".content"), "is required")),
    };
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    message.insert("content".into(), Value::String(content));
    Ok(Value::Object(message))
}

/// A call that was made, with its arguments as templates take them: read, where they can be.
fn called(name: &str, mut call: Value) -> Result<Value, Refusal> {
    match call.get("type").map(Value::as_str) {
        None | Some(Some("function")) => {}
        Some(_) => return Err(Refusal::unsupported(&format!("{name}.type"))),
    }
    let Some(function) = call.get_mut("function").and_then(Value::as_object_mut) else {
        return Err(Refusal::field(format!("{name}.function"), "expected an object"));
    };
    if !function.get("name").is_some_and(Value::is_string) {
        return Err(Refusal::field(format!("{name}.function.name"), "expected a string"));
    }
    match function.get_mut("arguments") {
        Some(Value::String(text)) => {
            if let Ok(arguments) = serde_json::from_str::<Map<String, Value>>(text) {
                function.insert("arguments".into(), arguments.into());
            }
        }
        Some(Value::Object(_)) => {}
        _ => {
            let words = "expected a string";
            return Err(Refusal::field(format!("{name}.function.arguments"), words));
        }
    }
    Ok(call)
}

/// Parts of text, one below the other.
fn joined(name: &str, parts: Vec<Value>) -> Result<String, Refusal> {
    let each = parts.into_iter().enumerate().map(|(at, part)| {
        let name = format!("{name}[{at}]");
        match (part["type"].as_str(), part["text"].as_str()) {
            (Some("text"), Some(text)) => Ok(text.to_owned()),
            (Some("text"), None) => {
                Err(Refusal::field(format!("{name}.text"), "expected a string"))
            }
            (Some(_), _) => Err(Refusal::unsupported(&format!("{name}.type"))),
            (None, _) => Err(Refusal::field(format!("{name}.type"), "is required")),
        }
    });
    Ok(each.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// A prompt that ends where its last message does, so that an answer goes on with it.
fn unfinished(mut text: String, messages: &[Value]) -> Result<String, Refusal> {
    let last = messages.last().and_then(|message| message["content"].as_str()).unwrap_or("");
    let last = last.trim();
    let at = text.rfind(last).ok_or_else(|| {
        Refusal::field("continue_final_message", "the template does not print the last message")
    })?;
    text.truncate(at + last.len());
    Ok(text)
}
