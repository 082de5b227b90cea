//! Who asks, as a real server understands it: by a field, by a header, or by the surface.

use pagewise_tests::server::{Server, command};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const COUNTED_WITHIN: Duration = Duration::from_secs(20);

/// Tokens computed of inference and of rollouts, while nothing runs.
fn tokens(server: &Server) -> [u64; 2] {
    let begun = Instant::now();
    loop {
        let told = server.get("/debug/metrics").json();
        if told["running_last"] == 0 && told["queue_depth_last"] == 0 {
            return serde_json::from_value(told["class_tokens"].clone()).expect("two counts");
        }
        assert!(begun.elapsed() < COUNTED_WITHIN, "something runs: {told}");
    }
}

/// The class that a call is counted for.
fn class(server: &Server, call: impl FnOnce()) -> &'static str {
    let before = tokens(server);
    call();
    let begun = Instant::now();
    loop {
        let after = tokens(server);
        match (after[0] > before[0], after[1] > before[1]) {
            (true, false) => return "inference",
            (false, true) => return "rollout",
            (true, true) => return "both",
            (false, false) => assert!(begun.elapsed() < COUNTED_WITHIN, "nothing is counted"),
        }
    }
}

fn with(mut body: Value, class: Option<&str>) -> Value {
    if let Some(class) = class {
        body["class"] = class.into();
    }
    body
}

/// What is said to a call with a header.
fn headed(server: &Server, path: &str, body: &Value, class: &str) -> (u16, String) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let request = agent.post(format!("http://{}{path}", server.address));
    let request = request.content_type("application/json").header("x-request-class", class);
    let mut response = request.send(body.to_string()).expect("an answer");
    (response.status().as_u16(), response.body_mut().read_to_string().expect("text"))
}

/// Every surface with the class that mostly asks there, where nothing is said.
fn surfaces(episode: &str) -> Vec<(&'static str, Value, &'static str)> {
    let sampling = json!({ "max_tokens": 2 });
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    vec![
        ("/v1/completions", json!({ "prompt": "a", "max_tokens": 2 }), "inference"),
        ("/v1/chat/completions", json!({ "messages": messages, "max_tokens": 2 }), "inference"),
        ("/v1/embeddings", json!({ "input": "a" }), "inference"),
        (
            "/inference/v1/generate",
            json!({ "token_ids": [65, 66], "sampling_params": sampling }),
            "rollout",
        ),
        (
            "/generate",
            json!({ "input_ids": [65, 66], "sampling_params": { "max_new_tokens": 2 } }),
            "rollout",
        ),
        (
            "/v1/episodes/step",
            json!({ "episode_id": episode, "observation": "a", "max_tokens": 2 }),
            "rollout",
        ),
    ]
}

#[test]
fn a_field_comes_before_a_header_and_both_before_what_a_surface_is_for() {
    let server = Server::start(&["--rollout-share", "0.3"]);
    let started = server.ask("/v1/episodes/start", &json!({}));
    let episode = started["episode_id"].as_str().expect("a name");
    for (path, body, mostly) in surfaces(episode) {
        let asked = |field| class(&server, || drop(server.ask(path, &with(body.clone(), field))));
        assert_eq!(asked(None), mostly, "{path}");
        let headed = |field, header| {
            let call =
                || assert_eq!(headed(&server, path, &with(body.clone(), field), header).0, 200);
            class(&server, call)
        };
        for other in ["inference", "rollout"] {
            assert_eq!(asked(Some(other)), other, "{path}");
            assert_eq!(headed(None, other), other, "{path}");
        }
        assert_eq!(headed(Some("inference"), "rollout"), "inference", "{path}");
    }
    let metrics = String::from_utf8(server.get("/metrics").body).expect("text");
    for name in ["requests_running", "requests_waiting", "tokens_total"] {
        for class in ["inference", "rollout"] {
            let told = metrics.lines().any(|line| {
                line.starts_with(&format!("pagewise:class_{name}"))
                    && line.contains(&format!("class=\"{class}\""))
            });
            assert!(told, "{name} of {class} is not in\n{metrics}");
        }
    }
}

#[test]
fn what_is_collected_is_of_a_rollout() {
    let store = std::env::temp_dir().join(format!("pagewise-classes-{}", std::process::id()));
    let server = Server::start(&["--trajectory-dir", store.to_str().expect("a path")]);
    let body = json!({ "prompt": "a", "max_tokens": 2, "collect_trajectory": true });
    assert_eq!(class(&server, || drop(server.ask("/v1/completions", &body))), "rollout");
    let said = with(body, Some("inference"));
    assert_eq!(class(&server, || drop(server.ask("/v1/completions", &said))), "inference");
    drop(server);
    std::fs::remove_dir_all(store).expect("it was made");
}

#[test]
fn a_class_that_there_is_not_is_refused_by_field_or_header() {
    let server = Server::start(&[]);
    let started = server.ask("/v1/episodes/start", &json!({}));
    let episode = started["episode_id"].as_str().expect("a name");
    for (path, body, _) in surfaces(episode) {
        for wrong in [json!("Rollout"), json!(""), json!(1), json!(["rollout"])] {
            let mut body = body.clone();
            body["class"] = wrong;
            let refused = server.post(path, &body);
            let told = String::from_utf8_lossy(&refused.body).into_owned();
            assert_eq!(refused.status, 400, "{path}: {told}");
            assert!(told.contains("class"), "{path}: {told}");
        }
        let (status, told) = headed(&server, path, &body, "urgent");
        assert_eq!(status, 400, "{path}: {told}");
        assert!(told.contains("X-Request-Class") && told.contains("urgent"), "{path}: {told}");
    }
    for share in ["0", "1", "-0.1", "1.5", "nan", "much"] {
        let output = command().args(["serve", &format!("--rollout-share={share}")]).output();
        let output = output.expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("--rollout-share") && told.contains("above 0 and below 1"), "{told}");
    }
}
