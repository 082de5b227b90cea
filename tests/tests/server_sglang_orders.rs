//! SGLang's orders to a real server: requests end, rest, wait and go on with the same bits.

use pagewise_tests::server::wire::Wire;
use pagewise_tests::server::{Response, Server};
use serde_json::{Value, json};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn server() -> Arc<Server> {
    Arc::new(Server::start(&["--max-batch-size", "8"]))
}

/// An answer that takes a while.
fn long(name: &str) -> Value {
    json!({
        "rid": name, "text": "Hello, world", "return_logprob": true,
        "sampling_params": {
            "max_new_tokens": 480, "temperature": 1.0, "sampling_seed": 11, "ignore_eos": true,
        },
    })
}

/// Asks it on a thread of its own.
fn begin(server: &Arc<Server>, body: Value) -> JoinHandle<Response> {
    let server = server.clone();
    std::thread::spawn(move || server.post("/generate", &body))
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn load(server: &Server, name: &str) -> u64 {
    server.get("/v1/loads").json()["loads"][0][name].as_u64().expect("a count")
}

/// Waits until so many tokens are held: by then an answer has some of its own.
fn runs(server: &Server, tokens: u64) {
    until("it runs", || load(server, "num_used_tokens") >= tokens);
}

fn order(server: &Server, path: &str, body: Value) -> Value {
    server.ask(path, &body)
}

#[test]
fn an_aborted_request_tells_what_it_has() {
    let server = server();
    let answer = begin(&server, long("run-1"));
    runs(&server, 64);
    order_empty(&server, json!({"rid": "run-2"}));
    order_empty(&server, json!({"rid": ""}));
    order_empty(&server, json!({}));
    // Names that begin so.
    order_empty(&server, json!({"rid": "run"}));
    let response = answer.join().expect("an answer");
    assert_eq!(response.status, 200);
    let told = response.json();
    let reason = &told["meta_info"]["finish_reason"];
    let fields =
        json!({"type": "abort", "message": "Aborted", "status_code": null, "err_type": null});
    assert_eq!(*reason, fields);
    let ids = told["output_ids"].as_array().expect("tokens").len();
    assert!((1..480).contains(&ids), "{ids}");
    assert!(!told["text"].as_str().expect("text").is_empty());
    let scored = told["meta_info"]["output_token_logprobs"].as_array().expect("a list").len();
    assert_eq!(scored, ids);
    server.rests();
}

fn order_empty(server: &Server, body: Value) {
    let response = server.post("/abort_request", &body);
    assert_eq!((response.status, &response.body[..]), (200, &b""[..]));
}

#[test]
fn an_aborted_stream_ends_with_what_it_has() {
    let server = server();
    let mut wire = Wire::open(server.address);
    let mut body = long("stream");
    body["stream"] = true.into();
    wire.post("/generate", body.to_string().as_bytes());
    let mut text = wire.some(1 << 14);
    while !String::from_utf8_lossy(&text).contains("data: ") {
        text.extend(wire.some(1 << 14));
    }
    order_empty(&server, json!({"abort_all": true}));
    text.extend(wire.rest());
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("\"type\":\"abort\""));
    assert!(text.contains("data: [DONE]"));
    server.rests();
}

#[test]
fn a_client_that_goes_leaves_nothing_behind() {
    let server = server();
    for streamed in [true, false] {
        let mut wire = Wire::open(server.address);
        let mut body = long("gone");
        body["stream"] = streamed.into();
        body["sampling_params"]["n"] = 8.into();
        wire.post("/generate", body.to_string().as_bytes());
        runs(&server, 64);
        drop(wire);
        server.rests();
    }
    // Before the door, too: its name is free again.
    server.ask("/pause_generation", &json!({"mode": "abort"}));
    let mut wire = Wire::open(server.address);
    wire.post("/generate", long("gone").to_string().as_bytes());
    until("it waits", || server.post("/generate", &long("gone")).status == 400);
    drop(wire);
    server.ask("/continue_generation", &json!({}));
    assert_eq!(server.post("/generate", &long("gone")).status, 200);
    server.rests();
}

#[test]
fn a_server_that_closes_keeps_nobody_before_its_door() {
    let server = server();
    server.ask("/pause_generation", &json!({}));
    let answer = begin(&server, long("waits"));
    std::thread::sleep(Duration::from_millis(100));
    server.terminate();
    let begun = Instant::now();
    let response = answer.join().expect("an answer");
    assert_eq!(response.status, 503);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn who_comes_while_it_rests_waits_and_gets_the_same_bits() {
    let server = server();
    let alone = server.ask("/generate", &long("alone"));
    for mode in ["abort", "retract", "in_place"] {
        let paused = order(&server, "/pause_generation", json!({"mode": mode}));
        let told = json!({"message": "Generation paused successfully.", "status": "ok"});
        assert_eq!(paused, told);
        let answer = begin(&server, long("held"));
        std::thread::sleep(Duration::from_millis(150));
        assert!(!answer.is_finished(), "{mode}");
        let told = json!({"message": "Generation continued successfully.", "status": "ok"});
        assert_eq!(order(&server, "/continue_generation", json!({})), told);
        let answer = answer.join().expect("an answer").json();
        same(&answer, &alone);
    }
    assert_eq!(
        server.post("/pause_generation", &json!({"mode": "now"})).param().as_deref(),
        Some("mode")
    );
    server.rests();
}

/// The same tokens, text and floats.
fn same(one: &Value, other: &Value) {
    assert_eq!((&one["output_ids"], &one["text"]), (&other["output_ids"], &other["text"]));
    let scores = "output_token_logprobs";
    assert_eq!(one["meta_info"][scores], other["meta_info"][scores]);
}

#[test]
fn what_rests_goes_on_with_the_same_bits() {
    let server = server();
    let alone = server.ask("/generate", &long("alone"));
    for (mode, flushes) in [("in_place", false), ("retract", true)] {
        let answer = begin(&server, long("paused"));
        runs(&server, 64);
        let flush = server.get("/flush_cache");
        assert_eq!(flush.status, 400, "it runs");
        assert!(String::from_utf8_lossy(&flush.body).contains("not flushed"));
        order(&server, "/pause_generation", json!({"mode": mode}));
        assert!(!answer.is_finished());
        let flushed = server.post("/flush_cache", &json!({})).status == 200;
        assert_eq!(flushed, flushes, "{mode}");
        order(&server, "/continue_generation", json!({"torch_empty_cache": true}));
        same(&answer.join().expect("an answer").json(), &alone);
    }
    server.rests();
}

#[test]
fn pausing_ends_all_by_default_and_one_that_waits_can_be_aborted() {
    let server = server();
    let answer = begin(&server, long("first"));
    runs(&server, 64);
    assert_eq!(server.post("/pause_generation", &json!({})).status, 200);
    let told = answer.join().expect("an answer").json();
    assert_eq!(told["meta_info"]["finish_reason"]["type"], "abort");
    // One that waits before the door.
    let answer = begin(&server, long("second"));
    std::thread::sleep(Duration::from_millis(100));
    let other = begin(&server, long("third"));
    std::thread::sleep(Duration::from_millis(100));
    order_empty(&server, json!({"rid": "second"}));
    let told = answer.join().expect("an answer").json();
    assert_eq!((&told["output_ids"], &told["text"]), (&json!([]), &json!("")));
    assert_eq!(told["meta_info"]["finish_reason"]["type"], "abort");
    assert!(!other.is_finished(), "the other one waits on");
    // Its name is free again, that of who waits is not.
    assert_eq!(server.post("/generate", &long("third")).param().as_deref(), Some("rid"));
    order(&server, "/continue_generation", json!({}));
    let told = other.join().expect("an answer").json();
    assert_eq!(told["meta_info"]["finish_reason"]["type"], "length");
    server.rests();
}

#[test]
fn what_is_flushed_is_not_found_again() {
    let server = server();
    let body = json!({"input_ids": vec![70; 100], "sampling_params": {"max_new_tokens": 1}});
    let cached = || server.ask("/generate", &body)["meta_info"]["cached_tokens"].clone();
    assert_eq!(cached(), 0);
    assert_eq!(cached(), 96, "whole pages of its own prompt");
    for path in ["/flush_cache", "/flush_cache?timeout=1.5"] {
        let flushed = server.get(path);
        assert_eq!(flushed.status, 200);
        assert!(String::from_utf8_lossy(&flushed.body).starts_with("Cache flushed"));
        assert_eq!(cached(), 0);
    }
    assert_eq!(server.get("/flush_cache?timeout=-1").param().as_deref(), Some("timeout"));
    // Waits for its time.
    let answer = begin(&server, long("a"));
    runs(&server, 64);
    assert_eq!(server.get("/flush_cache?timeout=60").status, 200);
    assert_eq!(answer.join().expect("an answer").status, 200);
}

#[test]
fn memory_is_given_back_and_taken_again_with_the_same_bits() {
    // So many answers have 32 MiB of pages.
    let server = Arc::new(Server::start(&["--max-batch-size", "256"]));
    let alone = server.ask("/generate", &long("alone"));
    let answer = begin(&server, long("runs"));
    runs(&server, 64);
    assert_eq!(server.post("/release_memory_occupation", &json!({})).status, 400, "it runs");
    order(&server, "/pause_generation", json!({"mode": "in_place"}));
    assert_eq!(server.post("/release_memory_occupation", &json!({})).status, 400, "it has pages");
    order(&server, "/pause_generation", json!({"mode": "retract"}));
    let before = server.data_kib();
    assert_eq!(
        order(&server, "/release_memory_occupation", json!({"tags": ["kv_cache"]})),
        Value::Null
    );
    if let (Some(before), Some(after)) = (before, server.data_kib()) {
        assert!(after + (24 << 10) < before, "{after} KiB after {before}");
    }
    // Twice is once; nobody is answered without, though nothing rests.
    assert_eq!(order(&server, "/release_memory_occupation", json!({})), Value::Null);
    order(&server, "/continue_generation", json!({}));
    std::thread::sleep(Duration::from_millis(100));
    assert!(!answer.is_finished());
    assert_eq!(server.get("/health_generate").status, 200, "that is no illness");
    assert_eq!(
        order(&server, "/resume_memory_occupation", json!({"tags": ["weights"]})),
        Value::Null
    );
    assert!(!answer.is_finished());
    assert_eq!(order(&server, "/resume_memory_occupation", json!({})), Value::Null);
    same(&answer.join().expect("an answer").json(), &alone);
    same(&server.ask("/generate", &long("again")), &alone);
    for path in ["/release_memory_occupation", "/resume_memory_occupation"] {
        let response = server.post(path, &json!({"tags": ["everything"]}));
        assert_eq!((response.status, response.param().as_deref()), (400, Some("tags")));
    }
    server.rests();
}

#[test]
fn it_tells_of_itself_in_sglangs_words() {
    let server = server();
    assert_eq!(server.get("/health_generate").status, 200);
    for path in ["/model_info", "/get_model_info"] {
        let told = server.get(path).json();
        let mut fields: Vec<&str> =
            told.as_object().expect("an object").keys().map(String::as_str).collect();
        fields.sort_unstable();
        let expected = [
            "architectures",
            "disaggregation_mode",
            "has_audio_understanding",
            "has_image_understanding",
            "is_generation",
            "load_format",
            "model_path",
            "model_type",
            "preferred_sampling_params",
            "reasoning_parser",
            "served_model_name",
            "tokenizer_path",
            "tool_call_parser",
            "weight_version",
        ];
        assert_eq!(fields, expected);
        assert_eq!(
            (&told["served_model_name"], &told["model_type"]),
            (&json!("tiny"), &json!("llama"))
        );
        assert_eq!(
            (&told["weight_version"], &told["is_generation"]),
            (&json!("default"), &json!(true))
        );
        let path = told["model_path"].as_str().expect("a path");
        assert!(std::path::Path::new(path).join("config.json").exists());
    }
    let told = server.get("/get_server_info").json();
    for (field, value) in
        [("tp_size", 1), ("dp_size", 1), ("max_running_requests", 8), ("context_length", 512)]
    {
        assert_eq!(told[field], value, "{field}");
    }
    assert_eq!(told["enable_custom_logit_processor"], true);
    // Also where the checkpoint has another name for it.
    let boxed = Server::of_the_box().get("/get_server_info").json();
    assert_eq!([&told["dtype"], &boxed["dtype"]], ["float32", "bfloat16"]);
    assert!(told["max_total_num_tokens"].as_u64().is_some_and(|tokens| tokens >= 512));
    assert_eq!(told["internal_states"].as_array().map(Vec::len), Some(1));
    assert_eq!(server.get("/get_weight_version").json(), json!({"weight_version": "default"}));
    let load = server.get("/get_load").json();
    assert_eq!(
        load,
        json!([{"dp_rank": 0, "num_reqs": 0, "num_waiting_reqs": 0, "num_tokens": 0}])
    );
    for path in [
        "/init_weights_update_group",
        "/destroy_weights_update_group",
        "/update_weights_from_distributed",
        "/update_weights_from_ipc",
    ] {
        let response = server.post(path, &json!({"group_name": "g"}));
        assert_eq!((response.status, &response.json()["success"]), (400, &json!(false)));
        assert!(response.json()["message"].to_string().contains("/update_weights_from_disk"));
    }
    assert_eq!(server.get("/generate").status, 405);
    assert_eq!(server.post("/configure_logging", &json!({})).status, 404);
}

#[test]
fn guesses_are_counted_in_sglangs_words() {
    let server = Server::start(&["--draft-tokens", "4"]);
    let body = json!({
        "text": "abcabcabcabcabc", "sampling_params": {
            "max_new_tokens": 200, "temperature": 0, "ignore_eos": true,
        },
    });
    let told = server.ask("/generate", &body)["meta_info"].clone();
    let number = |name: &str| told[name].as_f64().unwrap_or_else(|| panic!("{name} in {told}"));
    let (held, guessed) = (number("spec_num_correct_drafts"), number("spec_num_proposed_drafts"));
    assert!((number("spec_accept_rate") - held / guessed).abs() < 1e-9);
    let steps = number("spec_verify_ct");
    assert!((number("spec_accept_length") - 199.0 / steps).abs() < 1e-9);
    let histogram = told["spec_correct_drafts_histogram"].as_array().expect("a list");
    let counts: Vec<f64> = histogram.iter().map(|count| count.as_f64().expect("a count")).collect();
    assert_eq!(counts.iter().sum::<f64>(), steps);
    let correct: f64 = counts.iter().enumerate().map(|(drafts, count)| drafts as f64 * count).sum();
    assert_eq!(correct, held);
}
