//! What a request says of drawing besides temperature and filters, as it came: trajectories
//! keep it, so that it can be said again. What an answer keeps to is told by itself, for it
//! comes in several fields.

use super::fields::Fields;
use serde_json::{Map, Value};

const FIELDS: &[&str] = &[
    "allowed_token_ids",
    "bad_words",
    "custom_logit_processor",
    "custom_params",
    "frequency_penalty",
    "ignore_eos",
    "logit_bias",
    "max_thinking_tokens",
    "min_tokens",
    "presence_penalty",
    "processors",
    "repetition_penalty",
    "stop_token_ids",
    "thinking_token_budget",
];

/// What is said, where it is to be kept.
pub fn given(fields: &Fields) -> Map<String, Value> {
    let collects = fields.look("collect_trajectory") == Some(&Value::Bool(true));
    let said = FIELDS.iter().filter(|name| collects && fields.has(name));
    let said = said.filter_map(|name| Some(((*name).to_owned(), fields.look(name)?.clone())));
    said.collect()
}
