//! Requests whose grammars mean harm: each with the field that it comes in.

use serde_json::{Map, Value, json};

/// A request that means harm.
pub struct Hostile {
    /// What of it is hostile.
    pub name: String,
    /// Where it is sent.
    pub path: &'static str,
    /// Its fields but those of the prompt and the answer's length.
    pub body: Value,
    /// What a refusal names.
    pub field: &'static str,
}

/// All of them.
pub fn all() -> Vec<Hostile> {
    let mut all = Vec::new();
    for count in [100, 1000, 10_000, 100_000] {
        let name = format!("{count} references");
        all.push(format(&name, &chain(count)));
        all.push(tool(&name, chain(count)));
    }
    // As text: no body of JSON is as deep.
    for depth in [60, 1000, 100_000] {
        for (what, open, close) in [("lists", "{\"items\":", "}"), ("all", "{\"allOf\":[", "]}")] {
            let text = format!("{}{{}}{}", open.repeat(depth), close.repeat(depth));
            all.push(outputs(&format!("{depth} levels of {what}"), "json", text));
        }
    }
    let fields: Map<_, _> = (0..20_000).map(|at| (format!("p{at}"), json!({}))).collect();
    let names: Vec<&String> = fields.keys().collect();
    all.push(format("20000 properties", &json!({"properties": fields, "required": names})));
    all.push(format("20000 that may be left out", &json!({"properties": fields})));
    let values: Vec<String> = (0..100_000).map(|at| format!("value {at}")).collect();
    all.push(format("100000 values", &json!({"enum": values})));
    all.push(outputs("100000 choices", "choice", values));
    for (name, expression) in [
        ("nested repetitions", "((a{1,900}){1,900}){1,900}".to_owned()),
        ("states", "(a|b)*a(a|b){18}x".to_owned()),
        ("nothing, often", "(((a*)*)*)*b".to_owned()),
        ("brackets", "(".repeat(1 << 20)),
        ("pairs of brackets", format!("{}{}", "(".repeat(1 << 19), ")".repeat(1 << 19))),
    ] {
        all.push(outputs(name, "regex", expression));
    }
    for (name, grammar) in [
        ("ambiguous", "start: s\ns: s s | s s s | \"a\"".to_owned()),
        ("ambiguous, and nothing", "start: s\ns: s s | s s s | \"a\" | \"\"".to_owned()),
        ("itself", "start: start".to_owned()),
        ("brackets in rules", format!("start: {}", "(".repeat(1 << 20))),
    ] {
        all.push(outputs(name, "grammar", grammar));
    }
    for count in [2000, 30_000] {
        let name = format!("{count} tags");
        all.push(outputs(&name, "structural_tag", tags(count)));
        let mut body = json!({"response_format": tags(count)});
        body["response_format"]["type"] = "structural_tag".into();
        all.push(Hostile { name, path: "/v1/completions", body, field: "response_format" });
    }
    all
}

/// As a `response_format`.
fn format(name: &str, schema: &Value) -> Hostile {
    let named = json!({"name": "x", "schema": schema});
    Hostile {
        name: name.to_owned(),
        path: "/v1/completions",
        body: json!({"response_format": {"type": "json_schema", "json_schema": named}}),
        field: "response_format.json_schema.schema",
    }
}

/// As one of the `structured_outputs`.
fn outputs(name: &str, kind: &'static str, source: impl Into<Value>) -> Hostile {
    let field = match kind {
        "json" => "structured_outputs.json",
        "choice" => "structured_outputs.choice",
        "regex" => "structured_outputs.regex",
        "grammar" => "structured_outputs.grammar",
        _ => "structured_outputs.structural_tag",
    };
    let body = json!({"structured_outputs": {kind: source.into()}});
    Hostile { name: name.to_owned(), path: "/v1/completions", body, field }
}

/// As the arguments of a tool that must be called.
fn tool(name: &str, mut parameters: Value) -> Hostile {
    parameters["type"] = "array".into();
    let function = json!({"name": "f", "parameters": parameters});
    let tools = json!([{"type": "function", "function": function}]);
    Hostile {
        name: format!("{name} of a tool"),
        path: "/v1/chat/completions",
        body: json!({"tools": tools, "tool_choice": "required"}),
        field: "tools",
    }
}

/// Schemas that refer to each other, one after the other.
fn chain(count: usize) -> Value {
    let next = |at: usize| match at + 1 < count {
        true => json!({"type": "array", "items": {"$ref": format!("#/$defs/d{}", at + 1)}}),
        false => json!({"type": "null"}),
    };
    let defs: Map<_, _> = (0..count).map(|at| (format!("d{at}"), next(at))).collect();
    json!({"$ref": "#/$defs/d0", "$defs": defs})
}

fn tags(count: usize) -> Value {
    let content = json!({"type": "json_schema", "json_schema": {"type": "object"}});
    let tag = |at: usize| json!({"type": "tag", "begin": format!("<f=f{at}>"), "content": content, "end": "</f>"});
    let tags: Vec<Value> = (0..count).map(tag).collect();
    let format = json!({"type": "triggered_tags", "triggers": ["<f="], "tags": tags});
    json!({"type": "structural_tag", "format": format})
}
