//! What an answer is asked to keep to: `response_format`, as OpenAI spells it, and
//! `structured_outputs`, as vLLM does.

use super::Refusal;
use super::fields::Fields;
use crate::served::Served;
use grammar::{Grammar, Source};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// When to come again, where too many grammars wait to be compiled.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A source, and the field that it came in.
#[derive(Debug)]
pub struct Structure {
    field: &'static str,
    source: Source,
    /// Parts of the source that came in fields of their own: where they stand in it, and
    /// the fields.
    places: Vec<(String, String)>,
}

impl Structure {
    /// Of a field, with parts of others.
    pub fn new(field: &'static str, source: Source, places: Vec<(String, String)>) -> Self {
        Self { field, source, places }
    }

    /// From a request's fields, of which one may ask.
    pub fn read(fields: &mut Fields) -> Result<Option<Self>, Refusal> {
        let format = match fields.take("response_format")? {
            Some(format) => response_format(format)?,
            None => None,
        };
        match fields.take("structured_outputs")? {
            Some(_) if format.is_some() => {
                let words = "not together with a `response_format` that is not text";
                Err(Refusal::field("structured_outputs", words))
            }
            Some(asked) => structured_outputs(asked),
            None => Ok(format),
        }
    }

    /// As `structured_outputs` says it.
    pub fn told(&self) -> Value {
        match &self.source {
            Source::Schema(text) => json!({ "json": text }),
            Source::Compact(text) => json!({ "json": text, "disable_any_whitespace": true }),
            Source::Object => json!({ "json_object": true }),
            Source::Expression(text) => json!({ "regex": text }),
            Source::Choice(texts) => json!({ "choice": texts }),
            Source::Lark(text) => json!({ "grammar": text }),
            Source::Tags(text) => json!({ "structural_tag": text }),
        }
    }

    /// Compiled for the model; waits for it.
    pub fn compile(&self, served: &Served) -> Result<Grammar, Refusal> {
        let compiled = served.grammars.compile(&self.source);
        compiled.map(Grammar::new).map_err(|refusal| self.refused(&refusal))
    }

    fn refused(&self, refusal: &grammar::Refusal) -> Refusal {
        let (mut field, mut refusal) = (self.field, refusal.clone());
        if let grammar::Refusal::Invalid { at, .. } | grammar::Refusal::Unsupported { at, .. } =
            &mut refusal
        {
            let part = self.places.iter().find_map(|(within, field)| {
                let rest =
                    at.strip_prefix(within).filter(|x| x.is_empty() || x.starts_with('/'))?;
                Some((field, rest.to_owned()))
            });
            if let Some((part, rest)) = part {
                (field, *at) = (part, rest);
            }
        }
        match refusal {
            grammar::Refusal::Busy => Refusal::busy(refusal.to_string(), RETRY_AFTER),
            grammar::Refusal::Unsupported { .. } => Refusal {
                code: Some("unsupported_keyword"),
                ..Refusal::field(field, refusal.to_string())
            },
            _ => Refusal::field(field, refusal.to_string()),
        }
    }
}

fn response_format(mut format: Map<String, Value>) -> Result<Option<Structure>, Refusal> {
    if format.get("type") == Some(&"structural_tag".into()) {
        let source = Source::Tags(Value::Object(format).to_string());
        return Ok(Some(Structure::new("response_format", source, Vec::new())));
    }
    let kind = format.remove("type");
    let kind = kind.as_ref().and_then(Value::as_str).unwrap_or("");
    let schema = |field, value| Ok(Some(Structure::new(field, schema(field, value)?, Vec::new())));
    let asked = match kind {
        "text" => Ok(None),
        // Some servers take a schema here, too.
        "json_object" => match format.remove("schema") {
            None | Some(Value::Null) => {
                Ok(Some(Structure::new("response_format", Source::Object, Vec::new())))
            }
            Some(value) => schema("response_format.schema", value),
        },
        "json_schema" => schema("response_format.json_schema.schema", named_schema(&mut format)?),
        "" => Err(Refusal::field("response_format.type", "is required")),
        kind => {
            let expected = "text, json_object, json_schema or structural_tag";
            Err(Refusal::expected("response_format.type", expected, kind))
        }
    }?;
    nothing_left("response_format", &format)?;
    Ok(asked)
}

/// The schema within `json_schema`. Its name and description are for models that read them;
/// strict or not, an answer keeps to it.
fn named_schema(format: &mut Map<String, Value>) -> Result<Value, Refusal> {
    let name = "response_format.json_schema";
    let Some(Value::Object(mut named)) = format.remove("json_schema") else {
        return Err(Refusal::field(name, "expected an object with a `schema`"));
    };
    for (field, is) in [
        ("name", Value::is_string as fn(&Value) -> bool),
        ("description", Value::is_string),
        ("strict", Value::is_boolean),
    ] {
        if named.remove(field).is_some_and(|value| !value.is_null() && !is(&value)) {
            let kind = if field == "strict" { "true or false" } else { "a string" };
            return Err(Refusal::field(format!("{name}.{field}"), format!("expected {kind}")));
        }
    }
    let schema = named.remove("schema");
    nothing_left(name, &named)?;
    schema.ok_or_else(|| Refusal::field(format!("{name}.schema"), "is required"))
}

fn structured_outputs(mut asked: Map<String, Value>) -> Result<Option<Structure>, Refusal> {
    asked.retain(|_, value| !value.is_null());
    let compact = match asked.remove("disable_any_whitespace") {
        None => false,
        Some(Value::Bool(compact)) => compact,
        Some(_) => {
            let name = "structured_outputs.disable_any_whitespace";
            return Err(Refusal::field(name, "expected true or false"));
        }
    };
    // What holds anyway.
    for option in ["disable_additional_properties", "disable_fallback"] {
        if asked.get(option) == Some(&Value::Bool(false)) {
            asked.remove(option);
        }
    }
    let text = |field: &str, value: Value| match value {
        Value::String(text) => Ok(text),
        _ => Err(Refusal::field(field, "expected a string")),
    };
    let mut structure = None;
    for (name, field) in [
        ("json", "structured_outputs.json"),
        ("json_object", "structured_outputs.json_object"),
        ("regex", "structured_outputs.regex"),
        ("choice", "structured_outputs.choice"),
        ("grammar", "structured_outputs.grammar"),
        ("structural_tag", "structured_outputs.structural_tag"),
    ] {
        let Some(value) = asked.remove(name) else { continue };
        let source = match (name, value) {
            ("json", value) => schema(field, value)?,
            ("json_object", Value::Bool(true)) => Source::Object,
            ("json_object", Value::Bool(false)) => continue,
            ("json_object", _) => return Err(Refusal::field(field, "expected true or false")),
            ("regex", value) => Source::Expression(text(field, value)?),
            ("grammar", value) => Source::Lark(text(field, value)?),
            ("structural_tag", Value::String(text)) => Source::Tags(text),
            ("structural_tag", Value::Object(tags)) => {
                Source::Tags(Value::Object(tags).to_string())
            }
            ("structural_tag", _) => {
                return Err(Refusal::field(field, "expected an object, or its text"));
            }
            (_, value) => Source::Choice(
                serde_json::from_value(value)
                    .map_err(|_| Refusal::field(field, "expected a list of strings"))?,
            ),
        };
        let source = if compact { without_blanks(source) } else { source };
        if structure.replace(Structure::new(field, source, Vec::new())).is_some() {
            return Err(Refusal::field("structured_outputs", "expected one grammar, got several"));
        }
    }
    nothing_left("structured_outputs", &asked)?;
    Ok(structure)
}

/// Where blanks are of a schema's own, none.
fn without_blanks(source: Source) -> Source {
    match source {
        Source::Schema(text) => Source::Compact(text),
        Source::Object => Source::Compact(r#"{"type": "object"}"#.into()),
        other => other,
    }
}

/// A schema, as itself or as its text.
fn schema(field: &str, value: Value) -> Result<Source, Refusal> {
    match value {
        Value::String(text) => Ok(Source::Schema(text)),
        Value::Object(_) | Value::Bool(_) => Ok(Source::Schema(value.to_string())),
        _ => Err(Refusal::field(field, "expected a JSON schema: an object, true or false")),
    }
}

fn nothing_left(name: &str, left: &Map<String, Value>) -> Result<(), Refusal> {
    match left.iter().find(|(_, value)| !value.is_null()) {
        None => Ok(()),
        Some((field, _)) => Err(Refusal::unsupported(&format!("{name}.{field}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::Structure;
    use crate::openai::fields::Fields;
    use grammar::Source;
    use serde_json::{Value, json};

    fn read(body: Value) -> Result<Option<Source>, String> {
        let mut fields = Fields::read(body.to_string().as_bytes()).expect("an object");
        let structure = Structure::read(&mut fields);
        structure.map(|s| s.map(|s| s.source)).map_err(|refusal| refusal.param.expect("a field"))
    }

    #[test]
    fn every_spelling_of_a_source_is_read() {
        let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
        let text = Source::Schema(schema.to_string());
        for (body, source) in [
            (json!({}), None),
            (json!({"response_format": {"type": "text"}}), None),
            (json!({"response_format": {"type": "json_object"}}), Some(Source::Object)),
            (
                json!({"response_format": {"type": "json_schema", "json_schema":
                    {"name": "x", "strict": true, "schema": schema}}}),
                Some(text.clone()),
            ),
            (
                json!({"response_format": {"type": "json_object", "schema": schema}}),
                Some(text.clone()),
            ),
            (json!({"structured_outputs": {"json": schema, "regex": null}}), Some(text.clone())),
            (json!({"structured_outputs": {"json": schema.to_string()}}), Some(text)),
            (json!({"structured_outputs": {"json_object": true}}), Some(Source::Object)),
            (json!({"structured_outputs": {"json_object": false}}), None),
            (
                json!({"structured_outputs": {"json": "true", "disable_any_whitespace": true}}),
                Some(Source::Compact("true".into())),
            ),
            (json!({"structured_outputs": {"regex": "a+"}}), Some(Source::Expression("a+".into()))),
            (
                json!({"structured_outputs": {"choice": ["a", "b"]}}),
                Some(Source::Choice(vec!["a".into(), "b".into()])),
            ),
            (
                json!({"response_format": {"type": "structural_tag", "format": {"type": "any_text"}}}),
                Some(Source::Tags(
                    r#"{"type":"structural_tag","format":{"type":"any_text"}}"#.into(),
                )),
            ),
            (
                json!({"structured_outputs": {"structural_tag": "{}"}}),
                Some(Source::Tags("{}".into())),
            ),
            (
                json!({"structured_outputs": {"grammar": "start: \"a\""}}),
                Some(Source::Lark("start: \"a\"".into())),
            ),
        ] {
            assert_eq!(read(body.clone()), Ok(source.clone()), "{body}");
            // And told again it is read as the same.
            let Some(source) = source else { continue };
            let told = Structure::new("", source.clone(), Vec::new()).told();
            assert_eq!(read(json!({ "structured_outputs": told })), Ok(Some(source)), "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_by_its_field() {
        for (body, field) in [
            (json!({"response_format": {}}), "response_format.type"),
            (json!({"response_format": {"type": "yaml"}}), "response_format.type"),
            (json!({"response_format": "text"}), "response_format"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}),
                "response_format.json_schema.schema",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema":
                    {"schema": {}, "strict": "yes"}}}),
                "response_format.json_schema.strict",
            ),
            (
                json!({"response_format": {"type": "json_schema", "json_schema":
                    {"schema": {}, "lax": true}}}),
                "response_format.json_schema.lax",
            ),
            (json!({"structured_outputs": {"json": 3}}), "structured_outputs.json"),
            (json!({"structured_outputs": {"choice": "a"}}), "structured_outputs.choice"),
            (json!({"structured_outputs": {"regex": "a", "choice": ["a"]}}), "structured_outputs"),
            (
                json!({"structured_outputs": {"structural_tag": 1}}),
                "structured_outputs.structural_tag",
            ),
            (json!({"structured_outputs": {"regx": "a"}}), "structured_outputs.regx"),
            (
                json!({"structured_outputs": {"regex": "a", "whitespace_pattern": " "}}),
                "structured_outputs.whitespace_pattern",
            ),
            (
                json!({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}),
                "structured_outputs",
            ),
        ] {
            assert_eq!(read(body.clone()), Err(field.to_owned()), "{body}");
        }
    }
}
