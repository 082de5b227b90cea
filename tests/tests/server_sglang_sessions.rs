//! SGLang's sessions and scores of a real server.

use pagewise_tests::server::{Response, Server, Shared};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// One server for all tests: each holds it, so that it stays for the next.
fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&["--max-batch-size", "16"])
}

/// Opens a session of that name.
fn open(name: &str, more: Value) -> Response {
    let mut body = json!({"capacity_of_str_len": 10_000, "session_id": name});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    server().post("/open_session", &body)
}

/// A request of a session.
fn ask(session: &Value, name: &str, ids: &[u32]) -> Value {
    json!({
        "rid": name, "input_ids": ids, "session_params": session, "return_prompt_token_ids": true,
        "sampling_params": {"max_new_tokens": 5, "temperature": 0, "ignore_eos": true},
    })
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .expect("a list")
        .iter()
        .map(|id| id.as_u64().expect("a token") as u32)
        .collect()
}

fn turn(session: &Value, name: &str, new: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let told = server().ask("/generate", &ask(session, name, new));
    (ids(&told["prompt_token_ids"]), ids(&told["output_ids"]))
}

/// The field that a request is refused for.
fn refused(session: &Value, name: &str) -> String {
    let response = server().post("/generate", &ask(session, name, &[65]));
    assert_eq!(response.status, 400, "{session}");
    response.param().unwrap_or_default()
}

#[test]
fn a_streaming_session_grows_by_what_is_new() {
    let _server = server();
    assert_eq!(open("line", json!({"streaming": true})).json(), "line");
    assert_eq!(open("line", json!({})).status, 400, "it is open");
    let session = json!({"id": "line"});
    let first: Vec<u32> = (65..97).collect();
    let (prompt, one) = turn(&session, "a", &first);
    assert_eq!(prompt, first);
    let told = server().ask("/generate", &ask(&session, "b", &[48, 49]));
    let all = [&first[..], &one, &[48, 49]].concat();
    assert_eq!(ids(&told["prompt_token_ids"]), all);
    assert!(told["meta_info"]["cached_tokens"].as_u64().is_some_and(|cached| cached >= 32));
    // The same as where all is sent anew.
    let mut body = ask(&json!(null), "c", &all);
    body["cache_salt"] = "other".into();
    assert_eq!(server().ask("/generate", &body)["output_ids"], told["output_ids"]);
    for more in [
        json!({"offset": 1}),
        json!({"replace": true}),
        json!({"rid": "a"}),
        json!({"drop_previous_output": true}),
    ] {
        let mut session = session.clone();
        session.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        assert_eq!(refused(&session, "d"), "session_params");
    }
    // What was refused changed nothing.
    assert_eq!(turn(&session, "e", &[50]).0.len(), all.len() + 5 + 1);
    assert_eq!(server().post("/close_session", &json!({"session_id": "line"})).status, 200);
    assert_eq!(refused(&session, "f"), "session_params.id");
}

#[test]
fn one_request_of_a_streaming_session_at_a_time() {
    let server = Arc::new(Server::start(&["--max-batch-size", "4"]));
    let opened = json!({"capacity_of_str_len": 2000, "session_id": "busy", "streaming": true});
    server.ask("/open_session", &opened);
    let session = json!({"id": "busy"});
    let mut long = ask(&session, "long", &[65, 66]);
    long["sampling_params"]["max_new_tokens"] = 480.into();
    let own = server.clone();
    let answer = std::thread::spawn(move || own.post("/generate", &long));
    let held = || server.get("/v1/loads").json()["loads"][0]["num_used_tokens"].as_u64();
    while held().is_none_or(|tokens| tokens < 64) {
        assert!(!answer.is_finished(), "it is over too soon");
    }
    server.ask("/pause_generation", &json!({"mode": "in_place"}));
    let short = server.post("/generate", &ask(&session, "short", &[67]));
    let message = short.json()["error"]["message"].to_string();
    assert!(message.contains("already has an active request"), "{message}");
    // Ended from outside, it keeps what it has.
    server.post("/abort_request", &json!({"rid": "long"}));
    let told = answer.join().expect("an answer").json();
    assert_eq!(told["meta_info"]["finish_reason"]["type"], "abort");
    server.ask("/continue_generation", &json!({}));
    let mut all = ids(&told["prompt_token_ids"]);
    all.extend(ids(&told["output_ids"]));
    assert!(all.len() > 2);
    all.push(68);
    let next = server.ask("/generate", &ask(&session, "next", &[68]));
    assert_eq!(ids(&next["prompt_token_ids"]), all);
}

#[test]
fn a_tree_goes_on_from_any_request_that_has_ended() {
    let _server = server();
    let name = open("tree", json!({})).json();
    let from = |rid: Value, more: Value| {
        let mut session = json!({"id": name, "rid": rid});
        session.as_object_mut().expect("an object").extend(more.as_object().expect("one").clone());
        session
    };
    let (root, answer) = turn(&from(Value::Null, json!({})), "root", &[65, 66, 67]);
    assert_eq!(root, [65, 66, 67]);
    let whole = [&root[..], &answer].concat();
    let after = |more: Value, name: &str| turn(&from(json!("root"), more), name, &[80]).0;
    assert_eq!(after(json!({}), "left"), [&whole[..], &[80]].concat());
    assert_eq!(after(json!({"drop_previous_output": true}), "right"), [65, 66, 67, 80]);
    assert_eq!(after(json!({"offset": 2}), "cut"), [65, 66, 80]);
    // A branch goes on from a branch.
    let (deep, _) = turn(&from(json!("right"), json!({})), "deep", &[81]);
    assert_eq!(deep.len(), 4 + 5 + 1);
    assert_eq!(refused(&from(json!("nobody"), json!({})), "x"), "session_params.rid");
    // Replaced, what came after is no more.
    after(json!({"replace": true}), "new");
    for gone in ["left", "right", "deep"] {
        assert_eq!(refused(&from(json!(gone), json!({})), "x"), "session_params.rid");
    }
    assert_eq!(
        turn(&from(json!("new"), json!({})), "newer", &[82]).0.len(),
        whole.len() + 1 + 5 + 1
    );
    turn(&from(Value::Null, json!({"replace": true})), "other", &[90]);
    assert_eq!(refused(&from(json!("root"), json!({})), "x"), "session_params.rid");
}

#[test]
fn a_session_that_is_closed_is_another_one_when_it_is_opened_again() {
    let server = Server::start(&["--max-batch-size", "4"]);
    let opened = json!({"capacity_of_str_len": 2000, "session_id": "again", "streaming": true});
    server.ask("/open_session", &opened);
    let session = json!({"id": "again"});
    server.ask("/pause_generation", &json!({"mode": "in_place"}));
    let mut long = ask(&session, "first", &[65, 66]);
    long["sampling_params"]["max_new_tokens"] = 200.into();
    let told = std::thread::scope(|scope| {
        let first = scope.spawn(|| server.ask("/generate", &long));
        std::thread::sleep(Duration::from_millis(100));
        server.ask("/close_session", &json!({"session_id": "again"}));
        server.ask("/open_session", &opened);
        let other = scope.spawn(|| server.ask("/generate", &ask(&session, "other", &[70])));
        std::thread::sleep(Duration::from_millis(100));
        server.ask("/continue_generation", &json!({}));
        first.join().expect("it is answered, though nobody remembers it");
        other.join().expect("an answer")
    });
    let all = [ids(&told["prompt_token_ids"]), ids(&told["output_ids"]), vec![71]].concat();
    let next = server.ask("/generate", &ask(&session, "next", &[71]));
    assert_eq!(ids(&next["prompt_token_ids"]), all);
}

#[test]
fn a_session_keeps_what_it_may_and_as_long_as_it_may() {
    let _server = server();
    open("small", json!({"capacity_of_str_len": 20}));
    let session = json!({"id": "small"});
    turn(&session, "kept-a", &[65; 8]);
    assert_eq!(refused(&json!({"id": "small", "rid": "kept-a"}), "kept-b"), "session_params");
    turn(&session, "kept-c", &[65; 2]);
    assert_eq!(refused(&session, "kept-d"), "session_params");
    open("brief", json!({"timeout": 0.2, "streaming": true}));
    turn(&json!({"id": "brief"}), "kept-a", &[65]);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(refused(&json!({"id": "brief"}), "kept-b"), "session_params.id");
    assert_eq!(open("brief", json!({})).status, 200, "its name is free");
}

#[test]
fn what_is_wrong_with_a_session_is_refused_by_its_field() {
    let _server = server();
    for (body, field) in [
        (json!({}), "capacity_of_str_len"),
        (json!({"capacity_of_str_len": -1}), "capacity_of_str_len"),
        (json!({"capacity_of_str_len": 9, "timeout": -1}), "timeout"),
        (json!({"capacity_of_str_len": 9, "timeout": 1e300}), "timeout"),
        (json!({"capacity_of_str_len": 9, "session_id": ""}), "session_id"),
        (json!({"capacity_of_str_len": 9, "session_id": 5}), "session_id"),
        (json!({"capacity_of_str_len": 9, "size": 5}), "size"),
    ] {
        let response = server().post("/open_session", &body);
        assert_eq!((response.status, response.param().as_deref()), (400, Some(field)), "{body}");
    }
    assert_eq!(server().post("/close_session", &json!({})).param().as_deref(), Some("session_id"));
    assert_eq!(server().get("/open_session?capacity_of_str_len=9").status, 200);
    open("wrong", json!({}));
    for (session, field) in [
        (json!({}), "session_params.id"),
        (json!({"id": "nobody"}), "session_params.id"),
        (json!({"id": "wrong", "offset": -1}), "session_params.offset"),
        (json!({"id": "wrong", "ofset": 1}), "session_params.ofset"),
    ] {
        assert_eq!(refused(&session, "wrong-a"), field, "{session}");
    }
    let mut many = ask(&json!({"id": "wrong"}), "wrong-a", &[65]);
    many["input_ids"] = json!([[65], [66]]);
    assert_eq!(server().post("/generate", &many).param().as_deref(), Some("session_params"));
    let mut several = ask(&json!({"id": "wrong"}), "wrong-a", &[65]);
    several["sampling_params"]["n"] = 2.into();
    assert_eq!(server().post("/generate", &several).param().as_deref(), Some("sampling_params.n"));
}

/// The log-probabilities of two labels after a text, by completions.
fn by_completions(prompt: &str) -> Vec<f64> {
    let labels = ["a", "b"].map(|label| {
        let body = json!({
            "prompt": format!("{prompt}{label}"), "max_tokens": 0, "echo": true, "logprobs": 0,
        });
        let told = server().ask("/v1/completions", &body);
        let all = told["choices"][0]["logprobs"]["token_logprobs"].clone();
        all.as_array().and_then(|all| all.last()?.as_f64()).expect("a number")
    });
    labels.to_vec()
}

#[test]
fn scores_are_the_models_own_probabilities() {
    let _server = server();
    let body = json!({
        "query": "What? ", "items": ["one", "three"], "label_token_ids": [97, 98],
        "return_token_logprobs": true, "model": "tiny",
    });
    let told = server().ask("/v1/score", &body);
    let mut fields: Vec<&str> =
        told.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["model", "object", "scores", "token_logprobs", "usage"]);
    assert_eq!(told["object"], "scoring");
    let mut shares = body.clone();
    shares["apply_softmax"] = true.into();
    shares["temperature"] = 2.0.into();
    let shares = server().ask("/v1/score", &shares);
    for (at, item) in ["one", "three"].iter().enumerate() {
        let expected = by_completions(&format!("What? {item}"));
        for label in 0..2 {
            assert_eq!(told["token_logprobs"][at][label], expected[label], "the same bits");
            let score = told["scores"][at][label].as_f64().expect("a number");
            assert!((score - f64::from(expected[label] as f32).exp()).abs() < 1e-12);
        }
        let warm: Vec<f64> = expected.iter().map(|x| (f64::from(*x as f32) / 2.0).exp()).collect();
        let share = shares["scores"][at][0].as_f64().expect("a number");
        assert!((share - warm[0] / (warm[0] + warm[1])).abs() < 1e-12);
    }
    // As tokens, and the other way round.
    let tokens = json!({
        "query": [87, 104], "items": [[111], [110, 101]], "label_token_ids": [97, 98],
        "item_first": true, "return_token_logprobs": true,
    });
    let tokens = server().ask("/v1/score", &tokens);
    assert_eq!(tokens["token_logprobs"][1][1], by_completions("neWh")[1]);
    server().rests();
}

#[test]
fn texts_are_scored_by_their_embeddings() {
    let _server = server();
    let body = json!({"text_1": "Hello", "text_2": ["Hello", "Something else"]});
    let told = server().ask("/v1/score", &body);
    let score = |at: usize| told["data"][at]["score"].as_f64().expect("a number");
    assert!((score(0) - 1.0).abs() < 1e-5, "a text is next to itself");
    assert!(score(1) < 0.999);
    assert_eq!((&told["object"], &told["data"][1]["index"]), (&json!("list"), &json!(1)));
}

#[test]
fn what_is_wrong_with_scores_is_refused_by_its_field() {
    let _server = server();
    for (body, field) in [
        (json!({}), "query"),
        (json!({"query": "a", "items": ["b"]}), "label_token_ids"),
        (json!({"query": "a", "items": ["b"], "label_token_ids": []}), "label_token_ids"),
        (json!({"query": "a", "items": ["b"], "label_token_ids": [264]}), "label_token_ids"),
        (json!({"query": "a", "items": [], "label_token_ids": [1]}), "items"),
        (json!({"query": "a", "items": [[1]], "label_token_ids": [1]}), "items"),
        (json!({"query": [1], "items": "a", "label_token_ids": [1]}), "query"),
        (json!({"query": [1], "items": [[999]], "label_token_ids": [1]}), "items"),
        (json!({"query": [], "items": [[]], "label_token_ids": [1]}), "items"),
        (json!({"query": vec![65; 512], "items": [[]], "label_token_ids": [1]}), "items"),
        (
            json!({"query": "a", "items": ["b"], "label_token_ids": [1], "temperature": 0.5}),
            "temperature",
        ),
        (
            json!({"query": "a", "items": ["b"], "label_token_ids": [1], "temperature": 0, "apply_softmax": true}),
            "temperature",
        ),
        (json!({"query": "a", "items": ["b"], "label_token_ids": [1], "model": "x"}), "model"),
        (json!({"text_1": "a"}), "text_2"),
        (json!({"text_1": ["a", "b"], "text_2": ["c"]}), "text_1"),
    ] {
        let response = server().post("/v1/score", &body);
        assert!([400, 404].contains(&response.status), "{body}");
        assert_eq!(response.param().as_deref(), Some(field), "{body}");
    }
}
