//! Answers, as several trainers read them.

use super::part::Part;
use serde_json::{Value, json};

/// Prompts of tokens that every vocabulary has.
pub const PROMPTS: [[u32; 6]; 2] = [[72, 101, 108, 108, 111, 44], [87, 104, 97, 116, 32, 105]];
/// Tokens of an answer, at most.
pub const MOST: usize = 12;

/// Why an answer of vLLM's ended.
const ENDS: &[&str] = &["stop", "length", "abort", "repetition"];

/// The model that is listed first, by its name.
pub fn card(reply: &Part<'_>) -> Option<String> {
    let card = reply.at("data").item(0);
    card.at("max_model_len").count();
    card.at("id").text().map(str::to_owned)
}

/// Tokens of an answer.
pub fn tokens(ids: &Part<'_>) -> Vec<u64> {
    let tokens = ids.tokens();
    if tokens.len() > MOST {
        ids.differs(format!("at most {MOST} tokens"));
    }
    tokens
}

/// A token by vLLM's older spelling.
pub fn spelled(token: u64) -> Value {
    json!(format!("token_id:{token}"))
}

/// Which versions made the tokens of an answer: spans that follow each other and leave none
/// out.
pub fn spans(spans: &Part<'_>, len: usize) {
    let mut at = 0;
    for span in spans.items() {
        span.at("version").text();
        span.at("start").is(&json!(at));
        let end = span.at("end").count().unwrap_or(at);
        if end < at {
            span.at("end").differs(format!("{at} or more"));
        }
        at = end.max(at);
    }
    if at != len as u64 {
        spans.differs(format!("spans of all {len} tokens"));
    }
}

/// Whether a trainer looks for a token in its log-probability's entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// It has the tokens besides.
    Unread,
    /// As `token_id:N`.
    TokenId,
}

/// An answer of `/inference/v1/generate`.
pub fn generated(reply: &Part<'_>, spelling: Spelling) -> Vec<u64> {
    let choice = reply.at("choices").item(0);
    let tokens = tokens(&choice.at("token_ids"));
    choice.at("finish_reason").one_of(ENDS);
    let entries = choice.at("logprobs").at("content").items_of(tokens.len());
    for (entry, &token) in entries.iter().zip(&tokens) {
        if spelling == Spelling::TokenId {
            entry.at("token").is(&spelled(token));
        }
        // vLLM writes this where a log-probability is infinite.
        if entry.at("logprob").logprob() == Some(-9999.0) {
            entry.at("logprob").differs("a log-probability");
        }
    }
    if let Some(versions) = choice.at("weight_versions").maybe() {
        spans(&versions, tokens.len());
    }
    tokens
}

/// An answer of a chat.
pub fn chat(reply: &Part<'_>) {
    let choice = reply.at("choices").item(0);
    choice.at("message").at("role").is(&json!("assistant"));
    choice.at("finish_reason").text();
}

/// A message for a chat.
pub fn messages() -> Value {
    json!([{ "role": "user", "content": "What is 12 + 34?" }])
}
