//! Tools: functions that a model may ask its client to call. What a request offers, and
//! the grammar that a call keeps to.

use super::Refusal;
use super::fields::Fields;
use super::structured::Structure;
use crate::text::calls::Form;
use grammar::Source;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Tools of a request, at most; and bytes of a name.
const TOOLS_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 64;

/// What a request offers, and what of it is to be called.
pub struct Tools {
    list: Vec<Tool>,
    choice: Choice,
    /// Several calls in one answer.
    parallel: bool,
    form: Form,
}

/// A function.
struct Tool {
    name: String,
    /// The schema of its arguments.
    parameters: Value,
    /// Its arguments keep to their schema, whoever chooses it.
    strict: bool,
    /// As it came, for the template.
    told: Value,
}

/// What is to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// Nothing.
    None,
    /// What the model likes.
    Auto,
    /// At least one.
    Required,
    /// This one.
    Named(usize),
}

impl Tools {
    /// From a request's fields; `form` is how the model writes a call.
    pub fn read(fields: &mut Fields, form: Form) -> Result<Option<Self>, Refusal> {
        let tools: Vec<Value> = fields.take("tools")?.unwrap_or_default();
        if tools.len() > TOOLS_MAX {
            return Err(Refusal::expected("tools", &format!("at most {TOOLS_MAX}"), tools.len()));
        }
        let each = tools.into_iter().enumerate();
        let list: Vec<Tool> =
            each.map(|(at, tool)| Tool::read(at, tool)).collect::<Result<_, _>>()?;
        for (at, tool) in list.iter().enumerate() {
            if list[..at].iter().any(|other| other.name == tool.name) {
                let words = format!("there is another `{}`", tool.name);
                return Err(Refusal::field(format!("tools[{at}].function.name"), words));
            }
        }
        let choice = choice(fields.take("tool_choice")?, &list)?;
        let parallel = fields.take("parallel_tool_calls")?.unwrap_or(true);
        let tools = Self { list, choice, parallel, form };
        Ok(Some(tools).filter(|tools| !tools.list.is_empty()))
    }

    /// As the template is told of them: those that are not to be called are not there.
    pub fn told(&self) -> Option<Vec<Value>> {
        let told = self.list.iter().map(|tool| tool.told.clone());
        (self.choice != Choice::None).then(|| told.collect())
    }

    /// How calls are read from an answer, and of what, if there may be such.
    pub fn calls(&self) -> Option<(Form, Arc<[String]>)> {
        let names = self.list.iter().map(|tool| tool.name.clone());
        (self.choice != Choice::None).then(|| (self.form, names.collect()))
    }

    /// What an answer keeps to, where it may not say what it likes.
    pub fn structure(&self) -> Option<Structure> {
        let all = 0..self.list.len();
        let tag = |tool: &Tool, parameters: &Value| self.form.tag(&tool.name, parameters);
        let any = json!({"type": "object"});
        let format = match self.choice {
            Choice::None => return None,
            Choice::Auto if self.list.iter().all(|tool| !tool.strict) => return None,
            Choice::Auto => {
                let kept =
                    |tool: &Tool| tag(tool, if tool.strict { &tool.parameters } else { &any });
                self.form.among_text(self.list.iter().map(kept).collect(), !self.parallel)
            }
            Choice::Required => {
                let kept = self.list.iter().map(|tool| tag(tool, &tool.parameters));
                self.form.alone(kept.collect(), !self.parallel)
            }
            Choice::Named(at) => {
                let tool = &self.list[at];
                self.form.alone(vec![tag(tool, &tool.parameters)], true)
            }
        };
        let source = json!({"type": "structural_tag", "format": format});
        let at = match self.choice {
            Choice::Named(at) => at..at + 1,
            _ => all,
        };
        // Where each schema stands in the tags, and in the request.
        let place = |(tag, tool)| {
            let within = format!("/format/tags/{tag}/content/json_schema");
            (within, format!("tools[{tool}].function.parameters"))
        };
        let places = (0..).zip(at).map(place).collect();
        Some(Structure::new("tools", Source::Tags(source.to_string()), places))
    }
}

impl Tool {
    fn read(at: usize, told: Value) -> Result<Self, Refusal> {
        let name = |field: &str| format!("tools[{at}]{field}");
        match told["type"].as_str() {
            Some("function") => {}
            Some(_) => return Err(Refusal::unsupported(&name(".type"))),
            None => return Err(Refusal::field(name(".type"), "is required")),
        }
        let Some(function) = told["function"].as_object() else {
            return Err(Refusal::field(name(".function"), "expected an object"));
        };
        let own = ["type", "function"];
        let fields = told.as_object().into_iter().flat_map(Map::keys);
        if let Some(field) = fields.into_iter().find(|field| !own.contains(&field.as_str())) {
            return Err(Refusal::unknown(&name(&format!(".{field}"))));
        }
        if function.get("description").is_some_and(|text| !text.is_null() && !text.is_string()) {
            return Err(Refusal::field(name(".function.description"), "expected a string"));
        }
        let known = ["name", "description", "parameters", "strict"];
        if let Some(field) = function.keys().find(|field| !known.contains(&field.as_str())) {
            return Err(Refusal::unknown(&name(&format!(".function.{field}"))));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let called = function.get("name").and_then(Value::as_str).unwrap_or("");
        if called.is_empty() || called.len() > NAME_BYTES_MAX || !called.chars().all(plain) {
            let words = format!("expected 1 to {NAME_BYTES_MAX} of a-z, A-Z, 0-9, _, - and .");
            return Err(Refusal::field(name(".function.name"), words));
        }
        let parameters = match function.get("parameters") {
            None | Some(Value::Null) => json!({"type": "object", "additionalProperties": false}),
            Some(Value::Object(schema)) => match schema.get("type") {
                None => of_objects(schema.clone()),
                Some(kind) if kind == "object" => of_objects(schema.clone()),
                Some(_) => {
                    let words = "arguments are an object";
                    return Err(Refusal::field(name(".function.parameters.type"), words));
                }
            },
            Some(_) => {
                let words = "expected a JSON schema";
                return Err(Refusal::field(name(".function.parameters"), words));
            }
        };
        let strict = match function.get("strict") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(strict)) => *strict,
            Some(_) => {
                return Err(Refusal::field(name(".function.strict"), "expected true or false"));
            }
        };
        Ok(Self { name: called.to_owned(), parameters, strict, told })
    }
}

/// Arguments are an object, whether or not their schema says so.
fn of_objects(mut schema: Map<String, Value>) -> Value {
    if !schema.contains_key("$ref") {
        schema.entry("type").or_insert_with(|| "object".into());
    }
    Value::Object(schema)
}

fn choice(asked: Option<Value>, list: &[Tool]) -> Result<Choice, Refusal> {
    let name = "tool_choice";
    let Some(asked) = asked else { return Ok(Choice::Auto) };
    let choice = match &asked {
        Value::String(word) => match word.as_str() {
            "none" => return Ok(Choice::None),
            "auto" => return Ok(Choice::Auto),
            "required" => Choice::Required,
            word => {
                let expected = "none, auto, required or a function";
                return Err(Refusal::expected(name, expected, word));
            }
        },
        Value::Object(fields) if asked["type"] == "function" => {
            let other = fields.keys().find(|field| !["type", "function"].contains(&field.as_str()));
            if let Some(field) = other {
                return Err(Refusal::unknown(&format!("tool_choice.{field}")));
            }
            let called = asked["function"]["name"].as_str().unwrap_or("");
            match list.iter().position(|tool| tool.name == called) {
                Some(at) => Choice::Named(at),
                None => {
                    let words = format!("there is no tool `{called}`");
                    return Err(Refusal::field("tool_choice.function.name", words));
                }
            }
        }
        Value::Object(_) => return Err(Refusal::unsupported("tool_choice.type")),
        _ => return Err(Refusal::field(name, "expected a word or an object")),
    };
    if list.is_empty() {
        return Err(Refusal::field(name, "only where there are `tools`"));
    }
    Ok(choice)
}

#[cfg(test)]
mod tests {
    use super::Tools;
    use crate::openai::fields::Fields;
    use crate::text::calls::Form;
    use serde_json::{Value, json};

    fn read(body: Value) -> Result<Option<Tools>, String> {
        let mut fields = Fields::read(body.to_string().as_bytes()).expect("an object");
        let tools = Tools::read(&mut fields, Form::Hermes);
        tools.map_err(|refusal| refusal.param.expect("a field"))
    }

    fn tool(name: &str, more: Value) -> Value {
        let mut function = json!({"name": name});
        let fields = more.as_object().expect("an object").clone();
        function.as_object_mut().expect("an object").extend(fields);
        json!({"type": "function", "function": function})
    }

    #[test]
    fn what_is_to_be_called_decides_what_an_answer_keeps_to() {
        let both =
            |strict: bool| json!([tool("a", json!({"strict": strict})), tool("b", json!({}))]);
        let kept = |body: Value| {
            let tools = read(body).expect("good").expect("some");
            (tools.told().is_some(), tools.structure().is_some())
        };
        assert_eq!(kept(json!({"tools": both(false)})), (true, false));
        assert_eq!(kept(json!({"tools": both(true)})), (true, true));
        assert_eq!(kept(json!({"tools": both(true), "tool_choice": "none"})), (false, false));
        assert_eq!(kept(json!({"tools": both(false), "tool_choice": "required"})), (true, true));
        let named = json!({"type": "function", "function": {"name": "b"}});
        assert_eq!(kept(json!({"tools": both(false), "tool_choice": named})), (true, true));
        assert!(read(json!({})).expect("good").is_none());
        assert!(read(json!({"tools": [], "tool_choice": "auto"})).expect("good").is_none());
    }

    #[test]
    fn what_is_wrong_is_refused_by_its_field() {
        let many: Vec<Value> = (0..129).map(|at| tool(&format!("f{at}"), json!({}))).collect();
        let none = json!({"type": "function", "function": {"name": "c"}});
        for (body, field) in [
            (json!({"tools": many}), "tools"),
            (json!({"tools": [{}]}), "tools[0].type"),
            (json!({"tools": [{"type": "retrieval"}]}), "tools[0].type"),
            (json!({"tools": [{"type": "function"}]}), "tools[0].function"),
            (json!({"tools": [tool("", json!({}))]}), "tools[0].function.name"),
            (json!({"tools": [tool("a b", json!({}))]}), "tools[0].function.name"),
            (
                json!({"tools": [tool("a", json!({})), tool("a", json!({}))]}),
                "tools[1].function.name",
            ),
            (
                json!({"tools": [tool("a", json!({"parameters": 1}))]}),
                "tools[0].function.parameters",
            ),
            (json!({"tools": [tool("a", json!({"strict": 1}))]}), "tools[0].function.strict"),
            (json!({"tools": [tool("a", json!({"code": 1}))]}), "tools[0].function.code"),
            (json!({"tool_choice": "required"}), "tool_choice"),
            (json!({"tools": [tool("a", json!({}))], "tool_choice": "any"}), "tool_choice"),
            (json!({"tools": [tool("a", json!({}))], "tool_choice": 1}), "tool_choice"),
            (
                json!({"tools": [tool("a", json!({}))], "tool_choice": none}),
                "tool_choice.function.name",
            ),
            (
                json!({"tools": [tool("a", json!({}))], "tool_choice": {"type": "allowed_tools"}}),
                "tool_choice.type",
            ),
        ] {
            assert_eq!(read(body.clone()).err().as_deref(), Some(field), "{body}");
        }
    }
}
