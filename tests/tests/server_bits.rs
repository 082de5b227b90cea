//! The same request has the same tokens and the same bits of its log-probabilities over
//! HTTP, whatever the company it keeps; and what each case is about did happen.

use pagewise_tests::server::Server;
use serde_json::{Value, json};

/// More than four pages of a token for each byte.
const PROMPT: &str = "The request whose bits are compared has a prompt of more than four pages, so \
                      that it can be found in the cache, cut into chunks, and computed anew.";
/// Answers that are generated beside it.
const STRANGERS: u64 = 31;

fn asked(salt: &str) -> Value {
    json!({
        "prompt": PROMPT, "n": 2, "max_tokens": 40, "seed": 2026, "temperature": 0.9, "top_p": 0.95,
        "presence_penalty": 0.5, "logprobs": 2, "return_token_ids": true, "ignore_eos": true,
        "cache_salt": salt,
    })
}

/// What must not change of an answer.
fn bits(choices: &[Value]) -> Vec<Value> {
    let kept = |choice: &Value| {
        let told = &choice["logprobs"];
        json!([
            choice["text"],
            choice["token_ids"],
            told["token_logprobs"],
            told["processed_token_logprobs"],
            told["top_logprobs"],
        ])
    };
    choices.iter().map(kept).collect()
}

fn whole(server: &Server, salt: &str) -> (Vec<Value>, Value) {
    let told = server.ask("/v1/completions", &asked(salt));
    (bits(told["choices"].as_array().expect("a list")), told["usage"].clone())
}

fn streamed(server: &Server, salt: &str) -> Vec<Value> {
    let mut body = asked(salt);
    body["stream"] = true.into();
    let events = server.post("/v1/completions", &body).events();
    let join = |index: usize| {
        let (mut text, mut lists) = (String::new(), vec![Vec::new(); 4]);
        let choices = events.iter().flat_map(|event| event["choices"].as_array().expect("a list"));
        for choice in choices.filter(|choice| choice["index"] == index) {
            text += choice["text"].as_str().expect("text");
            let told = &choice["logprobs"];
            let names = ["token_logprobs", "processed_token_logprobs", "top_logprobs"];
            let parts = [&choice["token_ids"]].into_iter().chain(names.map(|name| &told[name]));
            for (list, part) in lists.iter_mut().zip(parts) {
                list.extend(part.as_array().expect("a list").clone());
            }
        }
        let [tokens, raw, processed, top] = lists.try_into().expect("four");
        json!([text, tokens, raw, processed, top])
    };
    (0..2).map(join).collect()
}

/// In the company of strangers of many lengths.
fn crowded(server: &Server, salt: &str) -> Vec<Value> {
    std::thread::scope(|scope| {
        for number in 0..STRANGERS {
            scope.spawn(move || {
                let prompt = "stranger ".repeat(1 + number as usize % 9);
                let body = json!({
                    "prompt": format!("{number} {prompt}"), "max_tokens": 120, "seed": number,
                    "ignore_eos": true, "logprobs": number % 3,
                });
                server.ask("/v1/completions", &body)
            });
        }
        while server.count("running_last") < 2 {
            std::thread::yield_now();
        }
        whole(server, salt).0
    })
}

fn same_bits(format: &[&str]) {
    let start =
        |more: &[&str]| Server::start(&[format, &["--max-batch-size", "32"], more].concat());
    let server = start(&[]);
    let (alone, usage) = whole(&server, "mine");
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert_ne!(alone[0], alone[1], "answers draw their own noise");

    let (again, usage) = whole(&server, "mine");
    assert!(usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count") >= 128);
    assert_eq!(alone, again, "after a hit in the prefix cache");
    assert_eq!(alone, streamed(&server, "mine"), "streamed");
    assert_eq!(alone, crowded(&server, "theirs"), "among strangers");
    let fill = server.get("/debug/metrics").json()["batch_fill_hist"].clone();
    let full: u64 = fill.as_array().expect("a list")[5..].iter().filter_map(Value::as_u64).sum();
    assert!(full > 0, "steps were at least half full: {fill}");

    let server = start(&["--max-num-batched-tokens", "37", "--threads", "2"]);
    assert_eq!(alone, whole(&server, "mine").0, "in chunks, on two threads");
    assert_eq!(alone, crowded(&server, "theirs"), "in chunks among strangers, on two threads");
    assert!(server.count("chunks") > 0);

    let server = start(&["--kv-cache-memory", "240KiB"]);
    assert_eq!(alone, crowded(&server, "mine"), "where pages run out");
    assert!(server.count("preemptions") > 0, "somebody gave pages back");
    server.rests();
}

#[test]
fn f16_pages_keep_the_bits() {
    same_bits(&["--kv-cache-dtype", "f16"]);
}

#[test]
fn f16_pages_under_quantised_weights_keep_the_bits() {
    same_bits(&["--kv-cache-dtype", "f16", "--quantize", "q4"]);
}

#[test]
fn int8_pages_keep_the_bits() {
    same_bits(&["--kv-cache-dtype", "int8"]);
}

#[test]
fn int8_pages_under_quantised_weights_keep_the_bits() {
    same_bits(&["--kv-cache-dtype", "int8", "--quantize", "q8"]);
}
