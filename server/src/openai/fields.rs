//! The fields of a request's JSON object, taken one by one: what nobody took is refused
//! by name.

use super::Refusal;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::ops::RangeInclusive;

/// Fields of things that this server does not do.
const UNSUPPORTED: &[&str] = &[
    "audio",
    "beam_width",
    "documents",
    "function_call",
    "functions",
    "group",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "kv_transfer_params",
    "length_penalty",
    "logits_processors",
    "lora",
    "lora_path",
    "mm_processor_kwargs",
    "prediction",
    "prompt_embeds",
    "reasoning",
    "reasoning_effort",
    "routed_experts_prompt_start",
    "tool_choice",
    "tools",
    "parallel_tool_calls",
    "use_beam_search",
    "vllm_xargs",
    "web_search_options",
];

/// Fields that say something about the request and ask for nothing.
const REMARKS: &[&str] = &["metadata", "safety_identifier", "session_id", "user"];

/// What is left of a request.
pub struct Fields {
    left: Map<String, Value>,
}

impl Fields {
    /// Where nothing was sent.
    pub fn none() -> Self {
        Self { left: Map::new() }
    }

    /// From an object.
    pub fn of(left: Map<String, Value>) -> Self {
        Self { left }
    }

    /// A field as it is there.
    pub fn look(&self, name: &str) -> Option<&Value> {
        self.left.get(name)
    }

    /// One more field, or another value of it.
    pub fn put(&mut self, name: String, value: Value) {
        self.left.insert(name, value);
    }

    /// Whether a field is there.
    pub fn has(&self, name: &str) -> bool {
        self.left.get(name).is_some_and(|value| !value.is_null())
    }

    /// From a body; it must be an object.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(body).map_err(|error| {
            Refusal::malformed(format!("the body must be UTF-8: byte {}", error.valid_up_to()))
        })?;
        match serde_json::from_str(text) {
            Ok(Value::Object(left)) => Ok(Self { left }),
            Ok(_) => Err(Refusal::malformed("the body must be a JSON object")),
            Err(error) => Err(Refusal::malformed(format!("the body is no JSON: {error}"))),
        }
    }

    /// A field, if it is there; null is as if it were not.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        match self.left.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                serde_json::from_value(value).map(Some).map_err(|error| misread(name, &error))
            }
        }
    }

    /// A field that must be there.
    pub fn must<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Refusal> {
        self.take(name)?.ok_or_else(|| Refusal::field(name, "is required"))
    }

    /// A switch, off where it is not given.
    pub fn switch(&mut self, name: &str) -> Result<bool, Refusal> {
        Ok(self.take(name)?.unwrap_or(false))
    }

    /// A number within bounds.
    pub fn within<T>(&mut self, name: &str, bounds: RangeInclusive<T>) -> Result<Option<T>, Refusal>
    where
        T: DeserializeOwned + PartialOrd + Display,
    {
        let value: Option<T> = self.take(name)?;
        match value {
            Some(value) if !bounds.contains(&value) => {
                let expected = format!("a number from {} to {}", bounds.start(), bounds.end());
                Err(Refusal::expected(name, &expected, value))
            }
            value => Ok(value),
        }
    }

    /// A field that may only say what holds anyway.
    pub fn only(&mut self, name: &str, allowed: &[Value]) -> Result<(), Refusal> {
        match self.take::<Value>(name)? {
            Some(value) if !allowed.contains(&value) => Err(Refusal::unsupported(name)),
            _ => Ok(()),
        }
    }

    /// Nothing is left.
    pub fn done(mut self) -> Result<(), Refusal> {
        self.left.retain(|name, value| !value.is_null() && !REMARKS.contains(&name.as_str()));
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) if UNSUPPORTED.contains(&name.as_str()) => Err(Refusal::unsupported(name)),
            Some(name) => Err(Refusal::unknown(name)),
        }
    }
}

/// What serde says, in the words of an API.
pub fn misread(name: &str, error: &serde_json::Error) -> Refusal {
    let said = error.to_string();
    let (said, kind) = said.split_once("expected ").unwrap_or((&said, ""));
    let kind = match kind {
        "u8" | "u16" | "u32" | "u64" | "usize" => "expected a whole number, 0 or more",
        "i32" | "i64" | "i128" => "expected a whole number",
        "f32" | "f64" => "expected a number",
        "" => "",
        other => return Refusal::field(name, format!("{said}expected {other}")),
    };
    Refusal::field(name, format!("{said}{kind}"))
}

#[cfg(test)]
mod tests {
    use super::Fields;

    fn fields(text: &str) -> Fields {
        Fields::read(text.as_bytes()).expect("an object")
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for body in [&b"[1]"[..], b"{", b"", b"\xff{}", b"{\"a\": 1e999}", b"nul"] {
            assert_eq!(Fields::read(body).err().expect("refused").status, 400);
        }
        // Deeper than anybody means it.
        assert!(Fields::read("[".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        let refused = fields(r#"{"n": "two"}"#).take::<u32>("n").expect_err("a string");
        assert_eq!(refused.param.as_deref(), Some("n"));
        assert!(refused.message.ends_with("expected a whole number, 0 or more"));
        let refused = fields(r#"{"n": -1}"#).within::<u32>("n", 1..=4).expect_err("negative");
        assert_eq!(refused.param.as_deref(), Some("n"));
        let refused = fields(r#"{"p": 1.5}"#).within::<f32>("p", 0.0..=1.0).expect_err("too large");
        assert_eq!(refused.message, "p: expected a number from 0 to 1, got 1.5");
    }

    #[test]
    fn what_is_left_is_refused_by_name() {
        let refused = fields(r#"{"user": "me", "tools": []}"#).done().expect_err("tools");
        assert_eq!(refused.code, Some("unsupported_parameter"));
        let refused = fields(r#"{"temprature": 1}"#).done().expect_err("a slip");
        assert_eq!(refused.param.as_deref(), Some("temprature"));
        assert!(fields(r#"{"tools": null, "metadata": {}}"#).done().is_ok());
    }
}
