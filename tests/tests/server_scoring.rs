//! What answers of a real server are worth by the schema that they keep to, or do not.

use pagewise_tests::server::Server;
use serde_json::{Value, json};

#[test]
fn an_answer_is_worth_something_where_it_keeps_to_a_schema() {
    let server = Server::start(&[]);
    let schema = json!({
        "type": "object", "properties": {"a": {"enum": [7]}, "b": {"type": "string"}},
        "required": ["a", "b"], "additionalProperties": false,
    });
    let worth = |schema: &Value, regex: &str| {
        let body = json!({
            "prompt": "x", "max_tokens": 60, "structured_outputs": {"regex": regex},
            "scoring_function": {"name": "json_schema", "schema": schema},
        });
        server.ask("/v1/completions", &body)["choices"][0]["reward"].clone()
    };
    let text = json!(schema.to_string());
    for (regex, reward) in [
        (r#"\{"a":7,"b":"x"\}"#, 1.0),
        (" \n\\{ \"a\" :\t7,\n\n\n   \"b\":\"\"\\}\n", 1.0),
        (r#"\{"a":8,"b":"x"\}"#, 0.0),
        (r#"\{"a":7\}"#, 0.0),
        (r#"\{"a":7,"b":"x"\} and more"#, 0.0),
        ("none", 0.0),
    ] {
        assert_eq!(worth(&schema, regex), json!(reward), "{regex}");
        assert_eq!(worth(&text, regex), json!(reward), "{regex}");
    }
    // What only begins as the schema has it does not keep to it.
    let number = json!({"enum": [12]});
    assert_eq!([worth(&number, "12"), worth(&number, "1")], [json!(1.0), json!(0.0)]);
    for (asked, field) in [
        (json!("json_schema"), "scoring_function.schema"),
        (json!({"name": "json_schema", "schema": "{"}), "scoring_function.schema"),
        (json!({"name": "json_schema", "schema": {"not": {}}}), "scoring_function.schema"),
    ] {
        let body = json!({"prompt": "x", "max_tokens": 1, "scoring_function": asked});
        let response = server.post("/v1/completions", &body);
        assert_eq!((response.status, response.param().as_deref()), (400, Some(field)), "{body}");
    }
}
