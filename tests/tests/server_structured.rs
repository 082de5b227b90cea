//! `response_format` and `structured_outputs` of a real server: whatever its random model
//! would say, what comes keeps to what was asked, in the distribution that is reported.

use pagewise_tests::server::{Server, Shared};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One server for all tests: each holds it, so that it stays for the next.
fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&["--max-batch-size", "16"])
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "zeta": {"type": "integer", "minimum": -3, "maximum": 40},
            "alpha": {"enum": ["red", "green", null]},
            "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        },
        "required": ["zeta", "alpha", "list"],
        "additionalProperties": false,
    })
}

/// With many answers, so that a random model would stray.
fn texts(path: &str, more: &Value) -> Vec<String> {
    let server = server();
    let mut body = json!({"max_tokens": 200, "n": 8, "temperature": 1, "seed": 3});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
    let named = match path {
        "/v1/completions" => ("prompt", json!("Say:")),
        _ => ("messages", json!([{"role": "user", "content": "Say:"}])),
    };
    body[named.0] = named.1;
    let told = server.ask(path, &body);
    let choices = told["choices"].as_array().expect("a list").iter();
    let text = |choice: &Value| {
        assert_eq!(choice["finish_reason"], "stop", "{choice}");
        let text = choice["text"].as_str().or(choice["message"]["content"].as_str());
        text.expect("text").to_owned()
    };
    choices.map(text).collect()
}

fn keeps(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let fields = value.as_object().expect("an object");
    // In the order of the schema.
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["zeta", "alpha", "list"]);
    assert!((-3..=40).contains(&value["zeta"].as_i64().expect("an integer")), "{text}");
    assert!(
        ["red", "green"].map(Value::from).contains(&value["alpha"]) || value["alpha"].is_null()
    );
    let list = value["list"].as_array().expect("a list");
    assert!((1..=3).contains(&list.len()) && list.iter().all(Value::is_boolean), "{text}");
}

#[test]
fn every_way_to_ask_for_a_schema_is_kept_to() {
    let _server = server();
    let named = json!({"name": "thing", "schema": schema(), "strict": true});
    let asked = [
        json!({"response_format": {"type": "json_schema", "json_schema": named}}),
        json!({"structured_outputs": {"json": schema()}}),
        json!({"structured_outputs": {"json": schema().to_string()}}),
    ];
    for more in asked {
        for path in ["/v1/completions", "/v1/chat/completions"] {
            texts(path, &more).iter().for_each(|text| keeps(text));
        }
    }
}

#[test]
fn objects_expressions_choices_and_grammars_are_kept_to() {
    let _server = server();
    for text in
        texts("/v1/completions", &json!({"structured_outputs": {"regex": "[ab]{2,4}(-[0-9]{2})?"}}))
    {
        let (head, tail) = text.split_once('-').unwrap_or((&text, "00"));
        assert!((2..=4).contains(&head.len()) && head.bytes().all(|byte| b"ab".contains(&byte)));
        assert!(tail.len() == 2 && tail.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
    }
    let choice = ["yes", "no", "yes, but"];
    let mut seen = Vec::new();
    for text in texts("/v1/chat/completions", &json!({"structured_outputs": {"choice": choice}})) {
        assert!(choice.contains(&text.as_str()), "{text}");
        seen.push(text);
    }
    seen.sort();
    seen.dedup();
    assert!(seen.len() > 1, "not one of them alone: {seen:?}");
    let lark = "start: \"<\" word (\",\" word){0,2} \">\"\nword: /[xyz]{1,3}/";
    for text in texts("/v1/completions", &json!({"structured_outputs": {"grammar": lark}})) {
        let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>')).expect("<…>");
        let words: Vec<&str> = inner.split(',').collect();
        assert!((1..=3).contains(&words.len()), "{text}");
        assert!(words.iter().all(|word| (1..=3).contains(&word.len())), "{text}");
    }
    // Any object: what comes before its end is the beginning of one.
    let told = server().ask(
        "/v1/completions",
        &json!({"prompt": "x", "max_tokens": 3, "response_format": {"type": "json_object"}}),
    );
    assert!(told["choices"][0]["text"].as_str().expect("text").starts_with('{'));
}

#[test]
fn what_is_complete_ends_before_the_least_that_is_asked_and_what_is_stuck_says_so() {
    let server = server();
    let body = json!({"prompt": "x", "max_tokens": 40, "min_tokens": 30, "structured_outputs": {"choice": ["yes", "no"]}});
    let told = server.ask("/v1/completions", &body)["choices"][0].clone();
    assert_eq!(told["finish_reason"], "stop", "{told}");
    assert!(["yes", "no"].map(Value::from).contains(&told["text"]), "{told}");

    // After the first letter nothing may come that both allow: it has what came.
    let body = json!({
        "prompt": "x", "structured_outputs": {"choice": ["yes"]},
        "allowed_token_ids": [u32::from(b'y')],
    });
    let told = server.ask("/v1/completions", &body)["choices"][0].clone();
    assert_eq!((&told["text"], &told["finish_reason"]), (&json!("y"), &json!("abort")));
    assert_eq!(told["stop_reason"], "no token is allowed to come next");
}

#[test]
fn streamed_and_whole_answers_are_the_same() {
    let server = server();
    let mut body = json!({
        "prompt": "Say:", "max_tokens": 200, "seed": 9, "logprobs": 2, "return_token_ids": true,
        "structured_outputs": {"json": schema()},
    });
    let whole = server.ask("/v1/completions", &body);
    body["stream"] = true.into();
    let events = server.post("/v1/completions", &body).events();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    for choice in events.iter().flat_map(|event| event["choices"].as_array().expect("a list")) {
        text += choice["text"].as_str().expect("text");
        tokens.extend(choice["token_ids"].as_array().expect("a list").clone());
    }
    assert_eq!(whole["choices"][0]["text"], text.as_str());
    assert_eq!(whole["choices"][0]["token_ids"], json!(tokens));
    keeps(&text);
    assert!(server.count("masks") > 0);
}

#[test]
fn tokens_follow_the_models_distribution_over_what_is_allowed() {
    let server = server();
    // One byte each: so one token of this model's.
    let asked = |more: Value| {
        let mut body = json!({
            "prompt": "Say:", "max_tokens": 1, "temperature": 1, "logprobs": 0, "seed": 1,
            "return_token_ids": true,
        });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
        body
    };
    // What the model gives each byte, each forced alone: raw, as if nothing were asked.
    let letters = ["a", "q", "~", "7"];
    let raw = letters.map(|letter| {
        let more = json!({"structured_outputs": {"choice": [letter]}});
        let told = server.ask("/v1/completions", &asked(more));
        let choice = &told["choices"][0];
        assert_eq!(choice["text"], letter);
        let of = |name: &str| choice["logprobs"][name][0].as_f64().expect("a number");
        assert!(of("processed_token_logprobs").abs() < 1e-6, "nothing else could come");
        of("token_logprobs")
    });
    let mass: f64 = raw.iter().map(|x| x.exp()).sum();
    let mut counts = BTreeMap::new();
    let rounds = 24;
    for seed in 0..rounds {
        let more = json!({"structured_outputs": {"choice": letters}, "n": 128, "seed": seed});
        let told = server.ask("/v1/completions", &asked(more));
        for choice in told["choices"].as_array().expect("a list") {
            let text = choice["text"].as_str().expect("text").to_owned();
            let at = letters.iter().position(|letter| *letter == text).expect("one of them");
            let said = choice["logprobs"]["processed_token_logprobs"][0].as_f64();
            let expected = raw[at] - mass.ln();
            assert!((said.expect("a number") - expected).abs() < 1e-4, "{text}: {expected}");
            assert_eq!(choice["logprobs"]["token_logprobs"][0].as_f64(), Some(raw[at]));
            *counts.entry(at).or_insert(0u32) += 1;
        }
    }
    let all = f64::from(rounds) * 128.0;
    let squares = (0..letters.len()).map(|at| {
        let expected = raw[at].exp() / mass * all;
        let got = f64::from(counts.get(&at).copied().unwrap_or(0));
        (got - expected) * (got - expected) / expected
    });
    // Three degrees of freedom: one in ten thousand is above.
    let squares: f64 = squares.sum();
    assert!(squares < 21.1, "{counts:?} {raw:?}: {squares}");
}

#[test]
fn what_cannot_be_kept_to_is_refused_by_its_name() {
    let server = server();
    let schema = |schema: Value| json!({"json": schema});
    let deep = (0..100).fold(json!({}), |inner, _| json!({"properties": {"a": inner}}));
    for (outputs, field, word) in [
        (schema(json!({"type": "array", "uniqueItems": true})), "json", "uniqueItems"),
        (schema(json!({"not": {"type": "null"}})), "json", "not"),
        (schema(json!({"if": {}, "then": {}})), "json", "if"),
        (schema(json!({"propertyNames": {}})), "json", "propertyNames"),
        (schema(json!({"$ref": "#/$defs/none"})), "json", "$defs"),
        (schema(json!({"type": "strin"})), "json", "strin"),
        (json!({"json": deep.to_string()}), "json", "recursion limit"),
        (json!({"json": "{"}), "json", "EOF"),
        (json!({"regex": "a{1,9999}{1,9999}"}), "regex", "repetitions"),
        (json!({"regex": "("}), "regex", ""),
        (json!({"choice": []}), "choice", "at least one"),
        (json!({"grammar": "start: nothing"}), "grammar", "nothing"),
    ] {
        let body = json!({"prompt": "x", "structured_outputs": outputs});
        let response = server.post("/v1/completions", &body);
        let told = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!(response.status, 400, "{told}");
        assert_eq!(response.param(), Some(format!("structured_outputs.{field}")), "{told}");
        assert!(told.contains(word), "{word} is not in {told}");
    }
}
