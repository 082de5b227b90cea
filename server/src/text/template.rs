//! A conversation to a prompt, by a template in Jinja's language as checkpoints carry it:
//! with what `transformers` gives templates besides the language.

use super::Error;
use super::calls::Form;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Work that a template may do for a conversation, in the language's instructions.
const FUEL: u64 = 10_000_000;
/// The name it is compiled under, which its errors tell.
const NAME: &str = "chat_template";

/// A compiled template.
pub struct Template {
    environment: Environment<'static>,
    /// Such as `bos_token`, by the names that templates use.
    special: BTreeMap<String, String>,
    /// How it has calls of tools written.
    pub form: Form,
    /// Of its source: FNV-1a, in 64 bits, which is the same wherever it is computed.
    pub hash: u64,
}

/// What a template is told.
#[derive(Serialize)]
pub struct Conversation<'a> {
    /// Each with its role and content.
    pub messages: &'a [serde_json::Value],
    /// Functions that may be called, as the request has them.
    pub tools: Option<&'a [serde_json::Value]>,
    /// Whether the prompt ends where an answer begins.
    pub add_generation_prompt: bool,
    /// More that the template asks for, by the request.
    #[serde(flatten)]
    pub more: &'a serde_json::Map<String, serde_json::Value>,
}

/// What a checkpoint's folder says of its conversations.
pub struct Told {
    /// The template's source: what `chat_template.jinja` holds, else what
    /// `tokenizer_config.json` does.
    pub source: Option<String>,
    /// Special tokens by their names.
    pub special: BTreeMap<String, String>,
    /// Tokens that the model was trained on, where that is said.
    pub len_max: Option<u32>,
}

/// Of a folder.
pub fn of_checkpoint(folder: &Path) -> Result<Told, Error> {
    let config = folder.join("tokenizer_config.json");
    let file = |why: String| Error::File { path: config.clone(), why };
    let json: serde_json::Value = match std::fs::read(&config) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| file(error.to_string()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => serde_json::Value::Null,
        Err(error) => return Err(file(error.to_string())),
    };
    let path = folder.join("chat_template.jinja");
    let source = match std::fs::read_to_string(&path) {
        Ok(source) => Some(source),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => in_config(&json),
        Err(error) => return Err(Error::File { path, why: error.to_string() }),
    };
    // Some say 1e30 for none; a cast takes the nearest there is.
    let len_max = json["model_max_length"].as_f64().map(|tokens| tokens as u32);
    Ok(Told { source, special: special(&json), len_max: len_max.filter(|tokens| *tokens > 0) })
}

impl Template {
    /// From its source.
    pub fn compile(source: String, special: BTreeMap<String, String>) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise);
        environment.add_function("strftime_now", now);
        let form = Form::of_template(&source);
        let hash = hash(&source);
        let source = without_generation(&source);
        environment.add_template_owned(NAME, source).map_err(|error| refusal(&error))?;
        Ok(Self { environment, special, form, hash })
    }

    /// The prompt of a conversation.
    pub fn render(&self, conversation: &Conversation<'_>) -> Result<String, Error> {
        let template = self.environment.get_template(NAME).map_err(|error| refusal(&error))?;
        let told = Value::from_serialize(conversation);
        let special = Value::from_serialize(&self.special);
        // Null, not undefined: templates ask `if tools is not none`.
        let absent = context! { documents => () };
        let context = context! { ..told, ..special, ..absent };
        template.render(context).map_err(|error| refusal(&error))
    }
}

fn hash(source: &str) -> u64 {
    let mix = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
    source.bytes().fold(0xCBF2_9CE4_8422_2325, mix)
}

/// An error with what caused it, which holds the words of `raise_exception`.
fn refusal(error: &minijinja::Error) -> Error {
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let words = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    Error::Template(format!("{words}{line}"))
}

/// Special tokens that a configuration names: as strings, or as objects with a content.
fn special(config: &serde_json::Value) -> BTreeMap<String, String> {
    let entries = config.as_object().into_iter().flatten();
    let tokens =
        entries.filter(|(name, _)| name.ends_with("_token")).filter_map(|(name, value)| {
            let text = value.as_str().or_else(|| value["content"].as_str())?;
            Some((name.clone(), text.to_owned()))
        });
    tokens.collect()
}

/// A template within a configuration: one, or a list of named ones.
fn in_config(config: &serde_json::Value) -> Option<String> {
    let entry = &config["chat_template"];
    if let Some(source) = entry.as_str() {
        return Some(source.to_owned());
    }
    let default = entry.as_array()?.iter().find(|named| named["name"] == "default")?;
    default["template"].as_str().map(str::to_owned)
}

/// Without the marks of `{% generation %}`, which say what a trainer masks and print nothing.
fn without_generation(source: &str) -> String {
    let (mut rest, mut kept) = (source, String::with_capacity(source.len()));
    while let Some(at) = rest.find("{%") {
        let Some(end) = rest[at..].find("%}") else { break };
        let mark = &rest[at + 2..at + end];
        let word = mark.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let whole = &rest[..at + end + 2];
        if word == "generation" || word == "endgeneration" {
            // A comment trims around it as the mark did.
            let (left, right) = (mark.starts_with('-'), mark.ends_with('-'));
            kept.push_str(&rest[..at]);
            kept.push_str(if left { "{#-" } else { "{#" });
            kept.push_str(if right { "-#}" } else { "#}" });
        } else {
            kept.push_str(whole);
        }
        rest = &rest[at + end + 2..];
    }
    kept.push_str(rest);
    kept
}

fn raise(words: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, words))
}

/// The time in UTC, as `strftime` spells it.
fn now(format: &str) -> Result<String, minijinja::Error> {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = seconds.map_or(0, |since| since.as_secs() as i64);
    let wrong = |error: jiff::Error| {
        minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}"))
    };
    let time = jiff::Timestamp::from_second(seconds).map_err(wrong)?;
    jiff::fmt::strtime::format(format, &time.to_zoned(jiff::tz::TimeZone::UTC)).map_err(wrong)
}

/// As Python's `json.dumps(value, ensure_ascii=False)` spells it: with spaces after
/// colons and commas, which models have seen in training.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return raise("tojson with ensure_ascii is not known here".to_owned());
    }
    options.assert_all_used()?;
    let wrong = |error: serde_json::Error| {
        minijinja::Error::new(ErrorKind::BadSerialization, error.to_string())
    };
    let mut bytes = Vec::new();
    let written = match indent {
        Some(width) => {
            let width = " ".repeat(width.min(16));
            let form = serde_json::ser::PrettyFormatter::with_indent(width.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, form))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Python)),
    };
    written.map_err(wrong)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Value::from_safe_string(text))
}

/// Python's spaces on one line.
struct Python;

impl serde_json::ser::Formatter for Python {
    fn begin_array_value<W>(&mut self, to: &mut W, first: bool) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_key<W>(&mut self, to: &mut W, first: bool) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        if first { Ok(()) } else { to.write_all(b", ") }
    }

    fn begin_object_value<W>(&mut self, to: &mut W) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        to.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::{Conversation, Template};
    use serde_json::{Map, Value, json};
    use std::collections::BTreeMap;

    fn render(source: &str, messages: Value) -> Result<String, String> {
        let special = BTreeMap::from([("eos_token".to_owned(), "</s>".to_owned())]);
        let template = Template::compile(source.to_owned(), special).map_err(|e| e.to_string())?;
        let messages = messages.as_array().expect("a list").clone();
        let more = Map::new();
        let told = Conversation {
            messages: &messages,
            tools: None,
            add_generation_prompt: true,
            more: &more,
        };
        template.render(&told).map_err(|error| error.to_string())
    }

    #[test]
    fn blocks_are_trimmed_and_special_tokens_known() {
        let source = "{% for m in messages %}\n  {% if m.role == 'user' %}\nU:{{ m['content'].strip() }}\
                      {{ eos_token }}\n  {% endif %}\n{% endfor %}\n{%- if add_generation_prompt %}A:{% endif %}";
        let text = render(source, json!([{"role": "user", "content": " <b>&  "}]));
        assert_eq!(text.as_deref(), Ok("U:<b>&</s>\nA:"));
    }

    #[test]
    fn json_is_spelled_as_python_does() {
        let text =
            render("{{ messages[0] | tojson }}", json!([{"z": [1, "é<"], "a": {"b": null}}]));
        assert_eq!(text.as_deref(), Ok(r#"{"z": [1, "é<"], "a": {"b": null}}"#));
    }

    #[test]
    fn what_a_template_raises_comes_out_in_its_words() {
        let refused = render("{{ raise_exception('roles must alternate') }}", json!([]));
        assert!(refused.unwrap_err().contains("roles must alternate"));
    }

    #[test]
    fn marks_for_trainers_print_nothing() {
        let source =
            "a {%- generation -%} b {%- endgeneration %} c{% if tools is not none %}T{% endif %}";
        assert_eq!(render(source, json!([])).as_deref(), Ok("ab c"));
    }

    #[test]
    fn a_template_without_end_is_stopped() {
        let source =
            "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(render(source, json!([])).is_err());
    }

    #[test]
    fn the_year_is_told() {
        let text = render("{{ strftime_now('%Y') }}", json!([])).expect("a year");
        assert!(text.parse::<u32>().expect("digits") >= 2024);
        assert!(render("{{ strftime_now('%!') }}", json!([])).is_err());
    }
}
