//! Calls of tools as models write them, by their family: as a grammar, and read from text.

mod object;
pub mod read;

use serde_json::{Value, json};

/// How a model writes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `<tool_call>` around an object of `name` and `arguments`: Hermes, Qwen.
    Hermes,
    /// An object of `name` and `parameters`, several with semicolons: Llama 3.
    Llama3,
}

/// What stands around a call in Hermes' form.
const BEGIN: &str = "<tool_call>";
const END: &str = "</tool_call>";
/// What may stand before calls in Llama's.
const PYTHON: &str = "<|python_tag|>";

impl Form {
    /// The form that a chat template teaches.
    pub fn of_template(source: &str) -> Self {
        let llama = source.contains("\"parameters\":") && source.contains("ipython");
        if llama && !source.contains(BEGIN) { Self::Llama3 } else { Self::Hermes }
    }

    /// The name of the arguments.
    fn arguments(self) -> &'static str {
        match self {
            Self::Hermes => "arguments",
            Self::Llama3 => "parameters",
        }
    }

    /// A call as a structural tag.
    pub fn tag(self, name: &str, parameters: &Value) -> Value {
        let object = format!("{{\"name\": \"{name}\", \"{}\": ", self.arguments());
        let (begin, end) = match self {
            Self::Hermes => (format!("{BEGIN}\n{object}"), format!("}}\n{END}")),
            Self::Llama3 => (object, "}".to_owned()),
        };
        let content = json!({"type": "json_schema", "json_schema": parameters});
        json!({"type": "tag", "begin": begin, "content": content, "end": end})
    }

    /// Text in which calls may stand.
    pub fn among_text(self, tags: Vec<Value>, one: bool) -> Value {
        let trigger = match self {
            Self::Hermes => BEGIN,
            Self::Llama3 => "{\"name\": ",
        };
        json!({
            "type": "triggered_tags", "triggers": [trigger], "tags": tags,
            "at_least_one": false, "stop_after_first": one,
        })
    }

    /// Calls and nothing else.
    pub fn alone(self, tags: Vec<Value>, one: bool) -> Value {
        let separator = match self {
            Self::Hermes => "\n",
            Self::Llama3 => "; ",
        };
        json!({
            "type": "tags_with_separator", "tags": tags, "separator": separator,
            "at_least_one": true, "stop_after_first": one,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Form;

    #[test]
    fn a_template_tells_its_form() {
        let llama = "{%- if role == 'ipython' %}{{ '{\"name\": ' }}{{ '\"parameters\": ' }}";
        assert_eq!(Form::of_template(llama), Form::Llama3);
        assert_eq!(Form::of_template("{{ '<tool_call>\\n' }}"), Form::Hermes);
        assert_eq!(Form::of_template("{{ messages[0].content }}"), Form::Hermes);
    }
}
