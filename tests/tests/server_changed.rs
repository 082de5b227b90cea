//! Bodies that were good and had something changed in them, at random: each is answered or
//! refused in words.

use pagewise_tests::server::{Server, Shared};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&["--max-batch-size", "8", "--request-timeout-seconds", "60"])
}

/// Good bodies, with as many fields as go together.
fn good() -> Vec<(&'static str, Value)> {
    vec![
        (
            "/v1/completions",
            json!({
                "prompt": ["Hello", "you"], "max_tokens": 4, "n": 2, "temperature": 0.7,
                "top_p": 0.9, "top_k": 20, "min_p": 0.01, "seed": 7, "stop": ["x", "yz"],
                "logprobs": 2, "echo": true, "presence_penalty": 0.1, "frequency_penalty": 0.2,
                "repetition_penalty": 1.1, "logit_bias": {"65": 1.5}, "min_tokens": 1,
                "stop_token_ids": [3], "allowed_token_ids": [65, 66, 67], "bad_words": ["no"],
                "prompt_logprobs": 1, "return_token_ids": true, "priority": 1,
                "cache_salt": "mine", "user": "somebody", "stream": false,
            }),
        ),
        (
            "/v1/completions",
            json!({
                "prompt": [[65, 66, 67], [68]], "max_tokens": 3, "stream": true,
                "stream_options": {"include_usage": true}, "ignore_eos": true,
            }),
        ),
        (
            "/v1/chat/completions",
            json!({
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                ],
                "max_completion_tokens": 4, "logprobs": true, "top_logprobs": 2, "n": 1,
                "temperature": 1, "seed": 1, "stream": false, "add_generation_prompt": true,
                "chat_template_kwargs": {"a": 1}, "stop": "z",
            }),
        ),
        (
            "/generate",
            json!({
                "text": ["Hello", "you"], "rid": "r", "return_logprob": true,
                "logprob_start_len": 0, "top_logprobs_num": 2, "stream": false, "priority": 1,
                "cache_salt": "a", "extra_key": "b", "return_text_in_logprobs": true,
                "sampling_params": {
                    "max_new_tokens": 3, "n": 2, "temperature": 0.7, "top_p": 0.9, "top_k": 20,
                    "min_p": 0.01, "sampling_seed": 7, "stop": ["x"], "stop_token_ids": [3],
                    "min_new_tokens": 1, "no_stop_trim": true, "logit_bias": {"65": 1.5},
                    "regex": null, "ignore_eos": true,
                },
            }),
        ),
        (
            "/generate",
            json!({
                "input_ids": [[65, 66], [67]], "rid": ["a", "b"], "stream": true,
                "sampling_params": [{"max_new_tokens": 2}, {"max_new_tokens": 3}],
            }),
        ),
        (
            "/v1/score",
            json!({
                "query": "What", "items": ["one", "two"], "label_token_ids": [65, 66],
                "apply_softmax": true, "temperature": 0.5, "item_first": false,
            }),
        ),
        ("/v1/score", json!({"text_1": "one", "text_2": ["two", "three"]})),
        ("/v1/embeddings", json!({"input": ["one", "two"], "encoding_format": "float"})),
        ("/tokenize", json!({"prompt": "Hello", "add_special_tokens": true})),
        ("/detokenize", json!({"tokens": [72, 105]})),
    ]
}

/// What takes a value's place.
fn strange() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![
            json!(null),
            json!(true),
            json!(0),
            json!(-1),
            json!(1),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1e300),
            json!(-0.0),
            json!(0.5),
            json!(4_294_967_296_u64),
            json!(""),
            json!("\u{0}"),
            json!("🙂é"),
            json!("NaN"),
            json!([]),
            json!({}),
            json!([[]]),
            json!([null]),
            json!([""]),
            json!([-1]),
            json!({"": null}),
            json!([1, "two", 3.5]),
            json!({"-5": "x"}),
            json!([{"type": "image_url"}]),
            json!("x".repeat(5000)),
            json!(vec![65; 700]),
            json!({"role": "tool"}),
        ]),
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_filter("JSON has no other", |x| x.is_finite()).prop_map(|x| json!(x)),
        "\\PC{0,12}".prop_map(|text| json!(text)),
    ]
}

/// One change: where, by a number that is taken modulo the places there are; to what, or
/// nothing, where the place itself goes.
type Change = (usize, Option<Value>);

fn change() -> impl Strategy<Value = Change> {
    (any::<usize>(), prop::option::weighted(0.9, strange()))
}

/// The paths of all values but the whole.
fn places(value: &Value, path: &str, found: &mut Vec<String>) {
    let keys: Vec<String> = match value {
        Value::Object(fields) => fields.keys().cloned().collect(),
        Value::Array(items) => (0..items.len()).map(|at| at.to_string()).collect(),
        _ => return,
    };
    for key in keys {
        let below = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
        places(value.pointer(&below[path.len()..]).expect("it is there"), &below, found);
        found.push(below);
    }
}

fn apply(body: &mut Value, (at, to): Change) {
    let mut found = Vec::new();
    places(body, "", &mut found);
    if found.is_empty() {
        return;
    }
    let path = &found[at % found.len()];
    if let Some(to) = to {
        *body.pointer_mut(path).expect("it is there") = to;
        return;
    }
    let (parent, key) = path.rsplit_once('/').expect("a path begins with one");
    match body.pointer_mut(parent).expect("it is there") {
        Value::Object(fields) => {
            fields.remove(&key.replace("~1", "/").replace("~0", "~"));
        }
        Value::Array(items) => {
            items.remove(key.parse().expect("a number"));
        }
        _ => unreachable!("only these have places"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 200, ..Default::default() })]

    #[test]
    fn a_changed_body_is_answered_or_refused_in_words(
        which in 0usize..10,
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let server = server();
        let (path, mut body) = good().swap_remove(which);
        for change in changes {
            apply(&mut body, change);
        }
        let response = server.post(path, &body);
        if response.status == 200 {
            // A stream says in its events if it ends badly.
            let text = String::from_utf8_lossy(&response.body);
            prop_assert!(!text.contains("\"error\""), "{path} {body}: {text}");
        } else {
            prop_assert!((400..500).contains(&response.status), "{} {path} {body}", response.status);
            let told = response.json();
            let message = told["error"]["message"].as_str().unwrap_or_default();
            prop_assert!(message.len() > 5, "{path} {body}: {told}");
        }
    }
}

#[test]
fn the_bodies_are_good_before_they_are_changed() {
    let server = server();
    for (path, body) in good() {
        let response = server.post(path, &body);
        let text = String::from_utf8_lossy(&response.body);
        assert_eq!(response.status, 200, "{path} {body}: {text}");
    }
    server.rests();
}
