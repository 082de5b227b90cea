//! What a server refuses, and in which words; and what it says of itself.

use pagewise_tests::server::wire::Wire;
use pagewise_tests::server::{Server, Shared, checkpoint, command};
use serde_json::{Map, Value, json};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&["--max-body-bytes", "2MiB", "--allowed-origins", "http://page.example"])
}

/// Of one token, which many keys spell.
fn many_biases() -> Map<String, Value> {
    (0..1025).map(|zeros| (format!("{}65", "0".repeat(zeros)), json!(1))).collect()
}

#[test]
fn a_wrong_field_is_refused_by_its_name() {
    let wrong = [
        ("temperature", json!(-1)),
        ("temperature", json!("hot")),
        ("top_p", json!(1.5)),
        ("min_p", json!(-0.1)),
        ("top_k", json!(-2)),
        ("n", json!(0)),
        ("n", json!(1e9)),
        ("n", json!(1.5)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(100_000)),
        ("max_tokens", json!(18_446_744_073_709_551_615u64)),
        ("min_tokens", json!(301)),
        ("presence_penalty", json!(3)),
        ("frequency_penalty", json!(-3)),
        ("repetition_penalty", json!(0)),
        ("seed", json!("seven")),
        ("logprobs", json!(21)),
        ("logprobs", json!(true)),
        ("prompt_logprobs", json!(-1)),
        ("logit_bias", json!({"264": 1})),
        ("logit_bias", json!({"A": 1})),
        ("logit_bias", json!({"65": 101})),
        ("allowed_token_ids", json!([])),
        ("allowed_token_ids", json!([264])),
        ("stop", json!("")),
        ("stop", json!([1])),
        ("stop", json!(vec!["x"; 65])),
        // More than the engine takes, which knows the fields by other names.
        ("stop", json!("x".repeat(1025))),
        ("stop_token_ids", json!(vec![65; 1025])),
        ("bad_words", json!((0..600).map(|word| word.to_string()).collect::<Vec<_>>())),
        ("logit_bias", Value::Object(many_biases())),
        ("prompt_logprob_start", json!(1)),
        ("stop_token_ids", json!([999_999])),
        ("bad_words", json!([""])),
        ("stream_options", json!({"include_usage": true})),
        ("prompt", json!([])),
        ("prompt", json!([264])),
        ("prompt", json!({"text": "x"})),
        ("prompt[1]", json!(["x", 1.5])),
        ("prompt", json!("")),
        ("prompt", json!("x".repeat(600))),
        ("suffix", json!("x")),
        ("stream", json!("yes")),
        ("request_id", json!("x".repeat(129))),
        ("request_id", json!("")),
        ("request_id", json!("naïve")),
        ("request_id", json!("a\nb")),
        ("temprature", json!(1)),
        ("cache_salt", json!("")),
        ("cache_salt", json!("s".repeat(1025))),
    ];
    for (name, value) in wrong {
        let mut body = json!({"prompt": "x", "max_tokens": 300});
        let field = name.split('[').next().expect("a name");
        body[field] = value.clone();
        let response = server().post("/v1/completions", &body);
        assert_eq!(response.status, 400, "{name}: {value}");
        let told = response.json();
        assert_eq!(told["error"]["type"], "invalid_request_error");
        assert_eq!(response.param().as_deref(), Some(name), "{name}: {value}: {told}");
    }
    server().rests();
}

#[test]
fn what_is_not_there_yet_is_refused_not_ignored() {
    for (name, value) in [
        ("functions", json!([{"name": "add"}])),
        ("guided_json", json!({})),
        ("best_of", json!(4)),
        ("service_tier", json!("flex")),
        ("stream_interval", json!(4)),
        ("vllm_xargs", json!({})),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        body[name] = value;
        let response = server().post("/v1/chat/completions", &body);
        assert_eq!((response.status, response.param().as_deref()), (400, Some(name)));
        assert_eq!(response.json()["error"]["code"], "unsupported_parameter");
    }
}

/// What clients send though nobody asked them, and what holds anyway.
#[test]
fn fields_that_ask_for_what_holds_anyway_are_taken() {
    let both = [
        ("best_of", json!(1)),
        ("best_of", json!(null)),
        ("store", json!(true)),
        ("store", json!(false)),
        ("metadata", json!({"run": "7"})),
        ("user", json!("me")),
        ("logit_bias", json!({})),
        ("service_tier", json!("auto")),
        ("service_tier", json!("default")),
        ("response_format", json!({"type": "text"})),
    ];
    let chat = [
        ("tools", json!([])),
        ("tools", json!(null)),
        ("functions", json!([])),
        ("tool_choice", json!("none")),
        ("tool_choice", json!("auto")),
        ("tool_choice", json!(null)),
        ("parallel_tool_calls", json!(true)),
        ("parallel_tool_calls", json!(false)),
    ];
    let taken = |path: &str, mut body: Value, (name, value): (&str, Value)| {
        body[name] = value.clone();
        let response = server().post(path, &body);
        let told = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!(response.status, 200, "{path} {name}: {value}: {told}");
    };
    let conversation = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1});
    for field in both {
        taken("/v1/completions", json!({"prompt": "x", "max_tokens": 1}), field.clone());
        taken("/v1/chat/completions", conversation.clone(), field);
    }
    for field in chat {
        taken("/v1/chat/completions", conversation.clone(), field);
    }
    let several = json!({"prompt": "x", "max_tokens": 1, "n": 3});
    taken("/v1/completions", several, ("best_of", json!(3)));
    for padded in [true, false] {
        let body = json!({"prompt": "x", "max_tokens": 1, "stream": true});
        let options = json!({"include_obfuscation": padded});
        taken("/v1/completions", body, ("stream_options", options));
    }
    // As many as the small checkpoint's hidden states have.
    taken("/v1/embeddings", json!({"input": "x"}), ("dimensions", json!(64)));
    let fewer = server().post("/v1/embeddings", &json!({"input": "x", "dimensions": 32}));
    assert_eq!((fewer.status, fewer.param().as_deref()), (400, Some("dimensions")));
}

#[test]
fn a_message_is_refused_by_its_place() {
    for (name, messages) in [
        ("messages", json!([])),
        ("messages", json!("hi")),
        ("messages[0]", json!(["hi"])),
        ("messages[0].role", json!([{"content": "x"}])),
        ("messages[0].role", json!([{"role": "function", "content": "x"}])),
        ("messages[1].content", json!([{"role": "user", "content": "x"}, {"role": "user"}])),
        (
            "messages[0].content[0].type",
            json!([{"role": "user", "content": [{"type": "image_url"}]}]),
        ),
    ] {
        let response = server().post("/v1/chat/completions", &json!({"messages": messages}));
        assert_eq!((response.status, response.param().as_deref()), (400, Some(name)));
    }
}

#[test]
fn another_model_is_not_found_and_the_served_one_is_named() {
    let response = server().post("/v1/completions", &json!({"model": "gpt-4", "prompt": "x"}));
    let told = response.json();
    assert_eq!((response.status, &told["error"]["code"]), (404, &json!("model_not_found")));
    assert!(told["error"]["message"].as_str().expect("words").contains("`tiny`"));
    let listed = server().get("/v1/models").json();
    assert_eq!(
        (&listed["data"][0]["id"], &listed["data"][0]["max_model_len"]),
        (&json!("tiny"), &json!(512))
    );
    assert_eq!(server().get("/v1/models/tiny").json()["id"], "tiny");
    assert_eq!(server().get("/v1/models/other").status, 404);
}

#[test]
fn a_models_name_may_hold_what_a_path_must_not() {
    let server = Server::start(&["--served-model-name", "my org/modèle 1%"]);
    for path in ["my%20org/mod%C3%A8le%201%25", "my%20org%2Fmod%c3%a8le%201%25"] {
        let told = server.get(&format!("/v1/models/{path}"));
        assert_eq!((told.status, &told.json()["id"]), (200, &json!("my org/modèle 1%")), "{path}");
    }
    for path in ["my%20org", "my%2520org/mod%C3%A8le%201%25", "%FF"] {
        let told = server.get(&format!("/v1/models/{path}"));
        assert_eq!((told.status, &told.json()["error"]["code"]), (404, &json!("model_not_found")));
    }
}

#[test]
fn paths_methods_and_sizes_have_their_own_status() {
    assert_eq!(server().get("/nowhere").status, 404);
    let wrong = server().get("/v1/completions");
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    let large = json!({"prompt": "x".repeat(3 << 20)});
    assert_eq!(server().post("/v1/completions", &large).status, 413);
    let long = server().post("/v1/completions", &json!({"prompt": "x".repeat(1 << 20)}));
    assert_eq!(
        (long.status, &long.json()["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
    for path in ["/health", "/ready", "/version", "/metrics", "/debug/metrics"] {
        assert_eq!(server().get(path).status, 200, "{path}");
    }
}

#[test]
fn what_is_too_long_is_named() {
    // The small checkpoint takes 512 tokens, each a byte.
    let (long, full) = ("x".repeat(600), "x".repeat(512));
    let spoken = |text: &str| json!({"messages": [{"role": "user", "content": text}]});
    for (path, name, body) in [
        ("/v1/completions", "prompt", json!({"prompt": long})),
        ("/v1/completions", "prompt", json!({"prompt": full})),
        ("/v1/completions", "prompt[1]", json!({"prompt": ["x", full]})),
        ("/v1/completions", "prompt", json!({"prompt": vec![65; 600]})),
        ("/v1/completions", "max_tokens", json!({"prompt": "x", "max_tokens": 512})),
        ("/v1/chat/completions", "messages", spoken(&long)),
        ("/v1/chat/completions", "messages", spoken(&full)),
        ("/v1/embeddings", "input", json!({"input": long})),
        ("/v1/embeddings", "input[1]", json!({"input": [[65], vec![65; 513]]})),
    ] {
        let response = server().post(path, &body);
        assert_eq!((response.status, response.param().as_deref()), (400, Some(name)), "{path}");
        assert_eq!(response.json()["error"]["code"], "context_length_exceeded");
    }
}

#[test]
fn a_request_has_a_name_in_and_out() {
    let (server, agent) = (server(), ureq::Agent::new_with_defaults());
    let ask = |name: Option<&str>, origin: Option<&str>| {
        let mut request = agent.get(format!("http://{}/health", server.address));
        if let Some(name) = name {
            request = request.header("x-request-id", name);
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.call().expect("an answer")
    };
    let named = ask(Some("run-7"), None);
    assert_eq!(named.headers()["x-request-id"], "run-7");
    let endless = "x".repeat(129);
    let told = ask(Some(&endless), None).headers()["x-request-id"].to_str().map(str::to_owned);
    assert!(told.expect("text").len() < 64, "a name of the server's own instead");
    assert_ne!(
        ask(None, None).headers()["x-request-id"],
        ask(None, None).headers()["x-request-id"]
    );
    let allowed = ask(None, Some("http://page.example"));
    assert_eq!(allowed.headers()["access-control-allow-origin"], "http://page.example");
    assert!(
        !ask(None, Some("http://evil.example"))
            .headers()
            .contains_key("access-control-allow-origin")
    );
}

#[test]
fn a_page_may_send_what_its_client_sends_and_read_the_name() {
    let (server, agent) = (server(), ureq::Agent::new_with_defaults());
    let url = format!("http://{}/v1/models", server.address);
    let asked = agent.options(&url).header("origin", "http://page.example");
    let asked = asked.header("access-control-request-headers", "authorization, x-stainless-lang");
    let told = asked.call().expect("an answer");
    assert_eq!(told.headers()["access-control-allow-headers"], "authorization, x-stainless-lang");
    assert_eq!(told.headers()["access-control-expose-headers"], "x-request-id, retry-after");
}

#[test]
fn methods_that_clients_make_up_are_counted_as_one() {
    let server = Server::start(&[]);
    for made_up in ["M1", "M2"] {
        let mut wire = Wire::open(server.address);
        wire.send(format!("{made_up} /health HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        assert_eq!(wire.status(), Some(405));
    }
    let text = String::from_utf8(server.get("/metrics").body).expect("text");
    assert!(text.contains(r#"method="other""#) && !text.contains(r#"method="M"#), "{text}");
}

#[test]
fn a_timeout_past_all_time_is_none() {
    let server = Server::start(&["--request-timeout-seconds", &u64::MAX.to_string()]);
    // Within its first second the sum is not past all time yet.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(
        server.post("/v1/completions", &json!({"prompt": "x", "max_tokens": 1})).status,
        200
    );
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn a_key_opens_what_is_not_for_everybody() {
    let server = Server::start(&["--api-key", "one,two"]);
    assert_eq!(server.get("/health").status, 200);
    for path in ["/v1/models", "/debug/metrics"] {
        let response = server.get(path);
        assert_eq!(
            (response.status, &response.json()["error"]["code"]),
            (401, &json!("invalid_api_key"))
        );
    }
    let request = ureq::get(format!("http://{}/v1/models", server.address));
    let opened = request.header("authorization", "Bearer two").call().expect("an answer");
    assert_eq!(opened.status(), 200);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = Server::start(&["--max-batch-size", "1", "--max-queue", "63"]);
    // One after the other, so that it lasts.
    let long =
        json!({"prompt": "x", "max_tokens": 480, "ignore_eos": true, "n": 64, "stream": true});
    let mut wire = Wire::open(server.address);
    wire.post("/v1/completions", long.to_string().as_bytes());
    assert_eq!(wire.status(), Some(200));
    let refused = server.post("/v1/completions", &json!({"prompt": "x"}));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.json()["error"]["code"], "queue_full");
    drop(wire);
    comes_free(&server);
}

/// Whoever comes is answered, soon.
fn comes_free(server: &Server) {
    let begun = Instant::now();
    while server.post("/v1/completions", &json!({"prompt": "x"})).status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing comes free");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn streams_are_counted() {
    let server = Server::start(&["--max-batch-size", "1", "--max-concurrent-streams", "1"]);
    let long =
        json!({"prompt": "x", "max_tokens": 480, "ignore_eos": true, "n": 64, "stream": true});
    let mut wire = Wire::open(server.address);
    wire.post("/v1/completions", long.to_string().as_bytes());
    assert_eq!(wire.status(), Some(200));
    let second = server.post("/v1/completions", &json!({"prompt": "x", "stream": true}));
    assert_eq!((second.status, second.header("retry-after")), (429, Some("1")));
    drop(wire);
    server.rests();
}

#[test]
fn a_request_that_takes_too_long_ends_with_what_it_has() {
    let server = Server::start(&["--request-timeout-seconds", "1", "--max-batch-size", "1"]);
    // One at a time: those that wait for their turn run out of time.
    let long = json!({"prompt": "x", "max_tokens": 500, "ignore_eos": true, "n": 64});
    let told = server.ask("/v1/completions", &long);
    let ends: Vec<&Value> = told["choices"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|choice| choice["finish_reason"] == "abort")
        .collect();
    assert!(!ends.is_empty());
    assert!(ends.iter().all(|choice| choice["stop_reason"] == "timeout"));
    server.rests();
}

#[test]
fn a_busy_port_is_answered_in_words() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let folder = checkpoint::write();
    let output =
        command().arg("serve").arg(&folder).args(["--port", &port]).output().expect("it runs");
    assert!(!output.status.success());
    let words = String::from_utf8(output.stderr).expect("text");
    assert!(words.contains(&format!("port {port} of 127.0.0.1 is taken")), "{words}");
    std::fs::remove_dir_all(folder.parent().expect("its own")).expect("removed");
}

#[test]
fn a_model_that_is_nowhere_is_answered_in_words() {
    let home = std::env::temp_dir();
    for (name, words) in
        [("no-such-folder", "is no folder"), ("some/model", "could not be downloaded")]
    {
        let mut command = command();
        command.args(["info", name]).env("HF_HOME", &home).env("HF_ENDPOINT", "http://127.0.0.1:1");
        let output = command.output().expect("it runs");
        let told = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success() && told.contains(words), "{told}");
    }
}

#[test]
fn a_short_body_cannot_ask_for_ever_so_many_answers() {
    let asked = json!({"prompt": vec!["a"; 600], "n": 128, "max_tokens": 1});
    let refused = server().post("/v1/completions", &asked);
    assert_eq!((refused.status, refused.param().as_deref()), (400, Some("n")));
}
