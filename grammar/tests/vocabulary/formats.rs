//! Formats of structural tags.

use grammar::Source;
use serde_json::{Value, json};

pub fn tags(format: Value) -> Source {
    Source::Tags(json!({"type": "structural_tag", "format": format}).to_string())
}

pub fn constant(value: &str) -> Value {
    json!({"type": "const_string", "value": value})
}

pub fn tag(begin: &str, content: Value, end: &str) -> Value {
    json!({"type": "tag", "begin": begin, "content": content, "end": end})
}

pub fn number() -> Value {
    json!({"type": "json_schema", "json_schema": {"type": "integer"}})
}

pub fn any_text() -> Value {
    json!({"type": "any_text"})
}
