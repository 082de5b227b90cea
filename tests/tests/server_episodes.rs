//! Episodes of a real server over JSON: steps append, retries are safe, what rests too long
//! ends.

use pagewise_tests::server::{Response, Server, Shared};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&[])
}

fn good(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    response.json()
}

fn start(server: &Server, more: Value) -> String {
    let reply = good(&server.post("/v1/episodes/start", &more));
    reply["episode_id"].as_str().expect("a name").to_owned()
}

fn step(server: &Server, id: &str, tokens: &[u32], more: Value) -> Response {
    let mut body = json!({
        "episode_id": id, "observation_token_ids": tokens, "max_tokens": 6, "temperature": 0,
        "ignore_eos": true, "logprobs": 1,
    });
    body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    server.post("/v1/episodes/step", &body)
}

fn tokens(reply: &Value) -> Vec<u32> {
    serde_json::from_value(reply["token_ids"].clone()).expect("tokens")
}

#[test]
fn steps_append_and_say_what_one_request_over_all_tokens_would() {
    let server = server();
    let id = start(&server, json!({}));
    let mut all: Vec<u32> = Vec::new();
    for (round, new) in
        [vec![65, 66, 67, 68], vec![70], vec![], vec![80, 81, 82]].iter().enumerate()
    {
        let reply = good(&step(&server, &id, new, json!({ "expected_position": all.len() })));
        assert_eq!(reply["position_before"], all.len());
        all.extend(new);
        let plain = good(&server.post(
            "/inference/v1/generate",
            &json!({
                "token_ids": all, "sampling_params":
                    { "max_tokens": 6, "temperature": 0, "ignore_eos": true, "logprobs": 1 },
            }),
        ));
        assert_eq!(reply["token_ids"], plain["choices"][0]["token_ids"], "step {round}");
        let (own, plain) = (&reply["logprobs"], &plain["choices"][0]["logprobs"]["content"]);
        for at in 0..6 {
            assert_eq!(own[at]["logprob"], plain[at]["logprob"]);
        }
        assert_eq!(reply["computed_tokens"], new.len() + usize::from(round > 0));
        assert_eq!(reply["rebuilt_tokens"], 0);
        assert_eq!(reply["finish_reason"], "length");
        assert_eq!(reply["weight_versions"][0]["end"], 6);
        all.extend(tokens(&reply));
        assert_eq!(reply["position"], all.len());
    }
    let shown = good(&server.post("/v1/episodes/get", &json!({ "episode_id": id })));
    assert_eq!((&shown["token_ids"], &shown["step_in_flight"]), (&json!(all), &json!(false)));
    let ended = good(&server.post("/v1/episodes/end", &json!({ "episode_id": id })));
    assert_eq!(ended["position"], all.len());
    assert_eq!(server.post("/v1/episodes/end", &json!({ "episode_id": id })).status, 404);
    assert_eq!(step(&server, &id, &[65], json!({})).status, 404);
}

#[test]
fn a_step_that_is_sent_again_is_told_again_and_computed_once() {
    // Its own: what it counts, nobody else adds to.
    let server = Server::start(&[]);
    let id = start(&server, json!({ "episode_id": "again" }));
    assert_eq!(id, "again");
    let first = step(&server, &id, &[65, 66, 67], json!({ "expected_position": 0 }));
    let count = server.count("generated_tokens");
    let again = step(&server, &id, &[65, 66, 67], json!({ "expected_position": 0 }));
    assert_eq!(again.json(), first.json());
    assert_eq!(server.count("generated_tokens"), count);
    let other = step(&server, &id, &[65, 66, 68], json!({ "expected_position": 0 }));
    assert_eq!((other.status, other.param().as_deref()), (409, Some("expected_position")));
    let words = other.json()["error"]["message"].to_string();
    assert!(words.contains("9 tokens"), "{words}");
    // As a stream, too.
    let streamed = json!({ "expected_position": 9, "stream": true });
    let events = step(&server, &id, &[70], streamed.clone()).events();
    let came: Vec<u32> = events.iter().flat_map(tokens).collect();
    assert_eq!(came.len(), 6);
    let last = events.last().expect("pieces");
    assert_eq!((&last["position"], &last["finish_reason"]), (&json!(16), &json!("length")));
    let again = step(&server, &id, &[70], streamed).events();
    assert_eq!((again.len(), tokens(&again[0])), (1, came));
    let taken = server.post("/v1/episodes/start", &json!({ "episode_id": "again" }));
    assert_eq!((taken.status, taken.param().as_deref()), (409, Some("episode_id")));
}

#[test]
fn forks_go_their_own_ways_from_where_one_stands() {
    let server = server();
    let id = start(&server, json!({ "seed": 7 }));
    good(&step(&server, &id, &[65, 66, 67], json!({})));
    let sampled = json!({ "temperature": 1.0, "max_tokens": 12 });
    let forks: Vec<String> = (0..3)
        .map(|_| {
            let body = json!({ "from_episode_id": id });
            let reply = good(&server.post("/v1/episodes/fork", &body));
            assert_eq!(reply["position"], 9);
            reply["episode_id"].as_str().expect("a name").to_owned()
        })
        .collect();
    let mut answers: Vec<Vec<u32>> = forks
        .iter()
        .chain([&id])
        .map(|id| tokens(&good(&step(&server, id, &[70], sampled.clone()))))
        .collect();
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 4);
}

#[test]
fn who_leaves_in_the_middle_finds_the_episode_as_far_as_it_came() {
    let server = &Server::start(&[]);
    // Where the machine has much to do, a step may end before anybody looks.
    assert!((0..50).any(|_| is_left(server)), "no step was ever in flight");
}

/// One leaves while its step is in flight; else it is false.
fn is_left(server: &Server) -> bool {
    let id = start(server, json!({}));
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| {
            step(server, &id, &[65, 66], json!({ "max_tokens": 250, "request_id": "leaves" }))
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        let shown = || good(&server.post("/v1/episodes/get", &json!({ "episode_id": id })));
        while shown()["position"].as_u64() < Some(4) {
            assert!(Instant::now() < deadline, "it goes on");
        }
        server.post("/pause?mode=keep", &json!({}));
        let in_flight = shown()["step_in_flight"] == true;
        if in_flight {
            assert_eq!(step(server, &id, &[70], json!({})).status, 409);
            let fork = server.post("/v1/episodes/fork", &json!({ "from_episode_id": id }));
            assert_eq!(fork.status, 409);
            server.post("/inference/v1/abort_requests", &json!({ "request_ids": ["leaves"] }));
        }
        server.post("/resume", &json!({}));
        let reply = good(&asking.join().expect("an answer"));
        if in_flight {
            assert_eq!(reply["finish_reason"], "abort");
            assert_eq!(shown()["position"], reply["position"]);
            let expected = json!({ "expected_position": reply["position"] });
            good(&step(server, &id, &[70], expected));
        }
        in_flight
    })
}

#[test]
fn who_rests_too_long_ends_and_its_pages_are_free() {
    let server = Server::start(&[]);
    let id = start(&server, json!({ "timeout_seconds": 0.2, "reserve_tokens": 100 }));
    good(&step(&server, &id, &[65, 66], json!({})));
    let deadline = Instant::now() + Duration::from_secs(20);
    while server.post("/v1/episodes/get", &json!({ "episode_id": id })).status != 404 {
        assert!(Instant::now() < deadline, "it ends");
        std::thread::sleep(Duration::from_millis(20));
    }
    good(&server.post("/reset_prefix_cache", &json!({})));
    // Counters are those of the last step.
    good(&server.post("/v1/completions", &json!({ "prompt": [65], "max_tokens": 1 })));
    server.rests();
}

#[test]
fn what_becomes_of_episodes_is_counted() {
    let server = Server::start(&[]);
    let count = |name: &str| -> u64 {
        let text = String::from_utf8(server.get("/metrics").body).expect("text");
        let (name, label) = name.split_once(' ').unwrap_or((name, ""));
        let named = |line: &&str| line.starts_with(&format!("pagewise:{name}{{"));
        let mut lines = text.lines().filter(named).filter(|line| line.contains(label));
        let line = lines.next().unwrap_or_else(|| panic!("{name} is not in {text}"));
        line.rsplit_once(' ').and_then(|(_, count)| count.parse().ok()).expect("a count")
    };
    let id = start(&server, json!({}));
    let first = tokens(&good(&step(&server, &id, &[65, 66], json!({})))).len() as u64;
    let fork = json!({ "from_episode_id": id, "episode_id": "fork" });
    good(&server.post("/v1/episodes/fork", &fork));
    start(&server, json!({ "episode_id": "late", "timeout_seconds": 0.2 }));
    let refused = json!({ "reserve_tokens": 300, "episode_id": "fork" });
    assert_eq!(server.post("/v1/episodes/start", &refused).status, 409);
    assert_eq!(count("episodes_started_total"), 3);
    let begun = Instant::now();
    while count("episodes_open") > 2 {
        assert!(begun.elapsed() < Duration::from_secs(20), "one rests too long");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(count("episodes_ended_total expired"), 1);
    good(&server.post("/v1/episodes/end", &json!({ "episode_id": "fork" })));
    assert_eq!(count("episodes_ended_total asked"), 1);
    assert_eq!((count("episodes_open"), count("episode_evictions_total")), (1, 0));
    // Its pages go, and what they held is computed again.
    good(&server.post("/sleep", &json!({})));
    good(&server.post("/wake_up", &json!({})));
    let rebuilt = good(&step(&server, &id, &[70], json!({})))["rebuilt_tokens"].clone();
    assert_eq!(rebuilt, 2 + first - 1, "all but the last one, which was never computed");
    assert_eq!(count("episode_evictions_total"), 1);
    assert_eq!(count("episode_rebuilt_tokens_total"), 2 + first - 1);
}

#[test]
fn a_wrong_call_is_refused_by_its_field() {
    let server = server();
    let refuse = |path: &str, body: Value, field: &str| {
        let response = server.post(path, &body);
        let told = String::from_utf8_lossy(&response.body).into_owned();
        assert!((400..500).contains(&response.status), "{path} {body}: {told}");
        assert_eq!(response.param().as_deref(), Some(field), "{path} {body}: {told}");
    };
    let path = "/v1/episodes/start";
    refuse(path, json!({ "on_swap": "never" }), "on_swap");
    refuse(path, json!({ "reserve_tokens": 1_000_000 }), "reserve_tokens");
    refuse(path, json!({ "timeout_seconds": 0 }), "timeout_seconds");
    refuse(path, json!({ "episode_id": "a\nb" }), "episode_id");
    refuse(path, json!({ "model": "nobody" }), "model");
    refuse(path, json!({ "colour": 1 }), "colour");
    let id = start(&server, json!({}));
    let step = |more: Value| {
        let mut body = json!({ "episode_id": id, "observation_token_ids": [65] });
        body.as_object_mut().expect("object").extend(more.as_object().cloned().unwrap_or_default());
        body
    };
    let path = "/v1/episodes/step";
    refuse(path, step(json!({ "observation": "A" })), "observation");
    refuse(path, step(json!({ "observation_token_ids": [999_999] })), "observation_token_ids");
    refuse(path, step(json!({ "observation_token_ids": [] })), "observation");
    refuse(path, step(json!({ "expected_position": 3 })), "expected_position");
    refuse(path, step(json!({ "n": 2 })), "n");
    refuse(path, step(json!({ "collect_trajectory": true })), "collect_trajectory");
    refuse(path, step(json!({ "scoring_function": "eval" })), "scoring_function.name");
    refuse(path, step(json!({ "return_ref_logprobs": "base" })), "return_ref_logprobs");
    refuse(path, step(json!({ "max_tokens": 100_000 })), "max_tokens");
    refuse(path, step(json!({ "temperature": -1 })), "temperature");
    refuse(path, step(json!({ "sampling_params": { "top_p": 3 } })), "top_p");
    refuse(path, json!({ "observation_token_ids": [65] }), "episode_id");
    refuse("/v1/episodes/fork", json!({ "from_episode_id": "nobody" }), "episode_id");
    refuse("/v1/episodes/get", json!({}), "episode_id");
}
