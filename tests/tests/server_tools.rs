//! Tools of a real server: the model in the box calls its calculator; a random model calls
//! what it must, in the form that its template teaches.

use pagewise_tests::server::{Server, checkpoint};
use serde_json::{Map, Value, json};

fn function(name: &str, more: Value) -> Value {
    let mut function = json!({"name": name});
    function.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
    json!({"type": "function", "function": function})
}

fn calculator() -> Value {
    let expression = json!({"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]});
    function("calculator", json!({"description": "Computes.", "parameters": expression}))
}

/// Of a few short arguments, so that a random model comes to an end.
fn tools() -> Value {
    let weather = json!({
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": false,
    });
    let light = json!({
        "type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"],
        "additionalProperties": false,
    });
    json!([
        function("weather", json!({"parameters": weather, "strict": true})),
        function("light", json!({"parameters": light})),
    ])
}

fn asked(more: Value) -> Value {
    let mut body = json!({
        "messages": [{"role": "user", "content": "What is 27 + 15?"}], "temperature": 0,
        "max_tokens": 200,
    });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
    body
}

/// What deltas of a stream come to: content, calls, and why it ended.
fn joined(events: &[Value]) -> (String, Vec<Value>, Value) {
    let (mut content, mut calls, mut reason) = (String::new(), Vec::<Value>::new(), Value::Null);
    for choice in events.iter().flat_map(|event| event["choices"].as_array().expect("a list")) {
        content += choice["delta"]["content"].as_str().unwrap_or("");
        for delta in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let at = delta["index"].as_u64().expect("an index") as usize;
            if at == calls.len() {
                let mut begun = delta.clone();
                begun.as_object_mut().expect("an object").remove("index");
                assert!(begun["id"].is_string() && begun["function"]["name"].is_string());
                calls.push(begun);
                continue;
            }
            assert!(delta["id"].is_null() && delta["function"]["name"].is_null(), "told once");
            let more = delta["function"]["arguments"].as_str().expect("text");
            let so_far = calls[at]["function"]["arguments"].as_str().expect("text").to_owned();
            calls[at]["function"]["arguments"] = (so_far + more).into();
        }
        assert!(reason.is_null(), "nothing follows an end");
        reason = choice["finish_reason"].clone();
    }
    (content, calls, reason)
}

#[test]
fn the_model_in_the_box_calls_its_calculator_and_reads_what_it_gives() {
    let server = Server::of_the_box();
    let path = "/v1/chat/completions";
    let body = asked(json!({"tools": [calculator()]}));
    let told = server.ask(path, &body)["choices"][0].clone();
    assert_eq!(told["finish_reason"], "tool_calls");
    assert!(told["message"]["content"].is_null());
    let calls = told["message"]["tool_calls"].as_array().expect("calls").clone();
    assert_eq!((calls.len(), &calls[0]["type"]), (1, &json!("function")));
    assert_eq!(calls[0]["function"]["name"], "calculator");
    let arguments = calls[0]["function"]["arguments"].as_str().expect("text");
    assert_eq!(arguments, "{\"expression\": \"27 + 15\"}");

    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let events = server.post(path, &streamed).events();
    assert!(events.len() > 4, "piece by piece: {}", events.len());
    let (content, mut deltas, reason) = joined(&events);
    assert_eq!((content.as_str(), &reason), ("", &json!("tool_calls")));
    deltas[0]["id"] = calls[0]["id"].clone();
    assert_eq!(deltas, calls);

    let turn = json!([
        {"role": "user", "content": "What is 27 + 15?"},
        {"role": "assistant", "content": null, "tool_calls": calls},
        {"role": "tool", "tool_call_id": calls[0]["id"], "content": "42"},
    ]);
    let told = server.ask(path, &asked(json!({"messages": turn, "tools": [calculator()]})));
    let content = told["choices"][0]["message"]["content"].as_str().expect("text");
    assert!(content.ends_with("42"), "{content}");

    // A call that is cut is no reason to call.
    let told = server.ask(path, &asked(json!({"tools": [calculator()], "stop": "27"})));
    assert_eq!(told["choices"][0]["finish_reason"], "stop", "{told}");

    // It is not told of what is not to be called.
    let told = server.ask(path, &asked(json!({"tools": [calculator()], "tool_choice": "none"})));
    assert_eq!(told["choices"][0]["finish_reason"], "stop");
    assert!(told["choices"][0]["message"]["tool_calls"].is_null());
}

/// A random model, taught to write calls as Llama does, or as Hermes does.
fn server(llama: bool) -> Server {
    let folder = checkpoint::write();
    if llama {
        let template = "{% for m in messages %}{% if m.role == 'ipython' %}\
                        {{ '{\"name\": 1, \"parameters\": 2}' }}\
                        {% endif %}{{ m.content }}{% endfor %}";
        std::fs::write(folder.join("chat_template.jinja"), template).expect("a file");
    }
    Server::of(folder, &[])
}

fn arguments(call: &Value) -> (String, Map<String, Value>) {
    let function = &call["function"];
    let text = function["arguments"].as_str().expect("text");
    let read = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (function["name"].as_str().expect("a name").to_owned(), read)
}

#[test]
fn what_must_be_called_is_called_with_arguments_of_its_schema() {
    for llama in [false, true] {
        let server = server(llama);
        let named = json!({"type": "function", "function": {"name": "light"}});
        for (choice, parallel) in
            [(json!("required"), true), (json!("required"), false), (named.clone(), true)]
        {
            let mut several = 0;
            for seed in 0..6 {
                let body = asked(json!({
                    "tools": tools(), "tool_choice": choice, "parallel_tool_calls": parallel,
                    "temperature": 1, "seed": seed, "n": 4, "max_tokens": 300,
                }));
                let told = server.ask("/v1/chat/completions", &body);
                for answer in told["choices"].as_array().expect("a list") {
                    let calls = answer["message"]["tool_calls"].as_array().expect("calls");
                    several += usize::from(calls.len() > 1);
                    let cut = answer["finish_reason"] == "length";
                    assert!(cut || answer["finish_reason"] == "tool_calls", "{answer}");
                    assert!(cut || answer["message"]["content"].is_null(), "{answer}");
                    for call in &calls[..calls.len() - usize::from(cut)] {
                        let (name, arguments) = arguments(call);
                        match name.as_str() {
                            "light" => assert!(arguments["on"].is_boolean()),
                            "weather" => {
                                assert_eq!(choice, "required");
                                let days = arguments["days"].as_u64().expect("a number");
                                assert!((1..=9).contains(&days) && arguments.len() == 2);
                                let city = arguments["city"].as_str().expect("text");
                                assert!(["Oslo", "Rome"].contains(&city));
                            }
                            other => panic!("no such tool: {other}"),
                        }
                    }
                }
            }
            let may = parallel && choice == "required";
            assert_eq!(several > 0, may, "{several} with several calls: {choice} {parallel}");
        }
    }
}

#[test]
fn where_a_strict_tool_may_be_called_nothing_else_looks_like_a_call() {
    let server = server(false);
    for seed in 0..4 {
        let more =
            json!({"tools": tools(), "temperature": 1, "seed": seed, "n": 8, "max_tokens": 60});
        let told = server.ask("/v1/chat/completions", &asked(more));
        for answer in told["choices"].as_array().expect("a list") {
            let content = answer["message"]["content"].as_str().unwrap_or("");
            assert!(!content.contains("<tool_call>"), "{content}");
        }
    }
    assert!(server.count("masks") > 0);
}

#[test]
fn what_is_wrong_with_tools_is_refused_by_its_name() {
    let server = server(false);
    let unknown =
        function("f", json!({"parameters": {"properties": {"a": {"uniqueItems": true}}}}));
    let strict =
        function("f", json!({"strict": true, "parameters": {"properties": {"a": {"not": {}}}}}));
    let call = |call: Value| json!([{"role": "assistant", "content": "x", "tool_calls": [call]}]);
    for (more, field) in [
        (json!({"tools": [{"type": "web"}]}), "tools[0].type"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"tools": [unknown], "tool_choice": "required"}), "tools[0].function.parameters"),
        (json!({"tools": [calculator(), strict]}), "tools[1].function.parameters"),
        (json!({"tools": [{"type": "function", "function": {"name": "f"}, "x": 1}]}), "tools[0].x"),
        (
            json!({"tools": [function("f", json!({"parameters": {"type": "array"}}))]}),
            "tools[0].function.parameters.type",
        ),
        (json!({"tools": tools(), "response_format": {"type": "json_object"}}), "tools"),
        (json!({"messages": call(json!({"type": "code"}))}), "messages[0].tool_calls[0].type"),
        (json!({"messages": call(json!({}))}), "messages[0].tool_calls[0].function"),
        (
            json!({"messages": call(json!({"function": {"arguments": "{}"}}))}),
            "messages[0].tool_calls[0].function.name",
        ),
        (
            json!({"messages": call(json!({"function": {"name": "f", "arguments": 1}}))}),
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x", "tool_calls": []}]}),
            "messages[0].tool_calls",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "x", "tool_call_id": 1}]}),
            "messages[0].tool_call_id",
        ),
    ] {
        let response = server.post("/v1/chat/completions", &asked(more.clone()));
        assert_eq!((response.status, response.param().as_deref()), (400, Some(field)), "{more}");
    }
}

#[test]
fn tokens_of_a_conversation_count_its_tools() {
    let server = Server::of_the_box();
    let count = |more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
        server.ask("/tokenize", &body)["count"].as_u64().expect("a count")
    };
    let with = json!({"tools": [calculator()]});
    assert!(count(with.clone()) > count(json!({})));
    let told = server.ask("/v1/chat/completions", &asked(with));
    assert!(told["usage"]["prompt_tokens"].as_u64() > Some(20));
}
