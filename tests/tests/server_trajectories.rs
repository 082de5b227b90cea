//! Trajectories of a real server: collected as each surface asks, there after a kill, with
//! the bits of the reply.

use pagewise_tests::lora::adapter;
use pagewise_tests::server::wire::Wire;
use pagewise_tests::server::{Server, Shared, checkpoint, command};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A folder of its own that goes with its holder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static FOLDERS: AtomicU32 = AtomicU32::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let name = format!("pagewise-rollouts-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("plain")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server with a store that several tests use, each with sessions of its own.
struct Kept {
    server: Server,
    _folder: Folder,
}

fn keeping(options: &[&str]) -> Kept {
    let folder = Folder::new();
    let store = ["--trajectory-dir", folder.text(), "--trajectory-sync", "batched"];
    let server = Server::start(&[&store[..], options].concat());
    Kept { server, _folder: folder }
}

fn shared() -> Arc<Kept> {
    use std::sync::{Mutex, PoisonError, Weak};
    static SHARED: Mutex<Weak<Kept>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let kept = Arc::new(keeping(&["--max-loras", "4", "--max-lora-rank", "8"]));
        *shared = Arc::downgrade(&kept);
        kept
    })
}

/// With more fields.
fn with(mut body: Value, more: Value) -> Value {
    let fields = more.as_object().cloned().expect("an object");
    body.as_object_mut().expect("an object").extend(fields);
    body
}

/// A request of tokens that is collected.
fn tokens(more: Value) -> Value {
    let sampling = json!({ "max_tokens": 12, "seed": 7, "ignore_eos": true, "logprobs": 0 });
    let body = json!({
        "token_ids": [65, 66, 67], "sampling_params": sampling, "collect_trajectory": true,
    });
    with(body, more)
}

fn trajectory(server: &Server, id: &Value) -> Value {
    let response = server.get(&format!("/v1/trajectories/{id}"));
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    response.json()
}

/// Numbers as the bits of f32.
fn bits(values: &Value) -> Vec<u32> {
    let values = values.as_array().expect("a list").iter();
    values.map(|value| (value.as_f64().expect("a number") as f32).to_bits()).collect()
}

/// Lines of an export.
fn lines(server: &Server, query: &str) -> Vec<Value> {
    let response = server.get(&format!("/v1/trajectories/export?{query}"));
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    let text = String::from_utf8(response.body).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn an_answer_of_every_surface_is_in_the_store_with_the_bits_of_its_reply() {
    let kept = shared();
    let server = &kept.server;
    let session = json!({
        "session_id": "bits", "group_id": "g", "metadata": { "a": [1, "é"] }, "max_staleness": 3,
    });
    let reply = server.ask("/inference/v1/generate", &tokens(session.clone()));
    let choice = &reply["choices"][0];
    assert_eq!(reply["trajectory_ids"], json!([choice["trajectory_id"]]));
    assert_eq!((&choice["staleness"], choice.get("stale")), (&json!(0), None));
    let kept = trajectory(server, &choice["trajectory_id"]);
    let entries = choice["logprobs"]["content"].as_array().expect("entries").iter();
    let listed = |name: &str| entries.clone().map(|entry| entry[name].clone()).collect();
    let (raw, processed): (Value, Value) = (listed("logprob"), listed("processed_logprob"));
    assert_eq!(bits(&kept["logprobs"]["raw"]), bits(&raw));
    assert_eq!(bits(&kept["logprobs"]["processed"]), bits(&processed));
    assert_eq!(bits(&raw).len(), 12);
    let exported = lines(server, "session=bits&limit=1");
    assert_eq!(exported, std::slice::from_ref(&kept));
    assert_eq!(kept["answer"], choice["token_ids"]);
    assert_eq!(kept["prompt"], json!([65, 66, 67]));
    assert_eq!((&kept["group"], &kept["session"]), (&json!("g"), &json!("bits")));
    assert_eq!(kept["metadata"], json!({ "a": [1, "é"] }));
    assert_eq!(kept["model"], reply["model"]);
    assert_eq!(kept["versions"], json!([{ "version": "default", "start": 0, "end": 12 }]));
    assert_eq!((&kept["finish"], &kept["sampling"]["seed"]), (&json!("length"), &json!(7)));
    assert!(kept["created_ms"].as_u64().is_some_and(|ms| ms > 1_600_000_000_000));

    // Nobody asks to see the log-probabilities; each choice is one of its own.
    let body = json!({
        "prompt": "A", "max_tokens": 5, "n": 3, "ignore_eos": true, "return_token_ids": true,
        "collect_trajectory": true, "temperature": 0.5, "top_k": 50, "session_id": "n",
    });
    let reply = server.ask("/v1/completions", &body);
    for (at, choice) in reply["choices"].as_array().expect("choices").iter().enumerate() {
        let kept = trajectory(server, &choice["trajectory_id"]);
        assert_eq!(reply["trajectory_ids"][at], choice["trajectory_id"]);
        assert_eq!(kept["answer"], choice["token_ids"]);
        assert_eq!(
            (&kept["sampling"]["choice"], &kept["sampling"]["top_k"]),
            (&json!(at), &json!(50))
        );
        let [raw, processed] = ["raw", "processed"].map(|name| bits(&kept["logprobs"][name]));
        assert!(raw.len() == 5 && processed.len() == 5 && raw != processed);
        assert!(raw.iter().all(|bits| f32::from_bits(*bits) < 0.0));
        assert!(kept.get("template_hash").is_none());
    }

    let talk = json!({
        "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 4, "ignore_eos": true,
        "collect_trajectory": true, "session_id": "talk",
    });
    let [one, two] = [(); 2].map(|()| server.ask("/v1/chat/completions", &talk));
    let [one, two] = [one, two].map(|reply| trajectory(server, &reply["trajectory_ids"][0]));
    assert!(one["template_hash"].is_u64());
    assert_eq!(one["template_hash"], two["template_hash"]);
    assert_eq!(one["prompt"], two["prompt"]);
}

#[test]
fn a_stream_tells_the_trajectory_with_the_last_piece_of_its_answer() {
    let kept = shared();
    let surfaces = [
        ("/inference/v1/generate", tokens(json!({ "stream": true, "session_id": "stream" }))),
        (
            "/v1/completions",
            json!({
                "prompt": [65, 66, 67], "max_tokens": 12, "ignore_eos": true, "stream": true,
                "collect_trajectory": true, "session_id": "stream",
            }),
        ),
        (
            "/v1/chat/completions",
            json!({
                "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 12, "n": 2,
                "ignore_eos": true, "stream": true, "collect_trajectory": true,
                "scoring_function": { "name": "length", "min": 12 }, "session_id": "stream",
            }),
        ),
    ];
    for (path, body) in surfaces {
        let events = kept.server.post(path, &body).events();
        let choices = events.iter().filter_map(|event| event["choices"].get(0));
        let mut told = 0;
        for choice in choices {
            let ended = !choice["finish_reason"].is_null();
            assert_eq!(choice.get("trajectory_id").is_some(), ended, "{path}: {choice}");
            if ended {
                let kept = trajectory(&kept.server, &choice["trajectory_id"]);
                assert_eq!(kept["answer"].as_array().map(Vec::len), Some(12), "{path}");
                let rewarded = body.get("scoring_function").map(|_| json!(1.0));
                assert_eq!(choice.get("reward"), rewarded.as_ref(), "{path}");
                let rewards = rewarded.map(|value| json!([{ "value": value, "by": "length" }]));
                assert_eq!(kept["rewards"], rewards.unwrap_or(json!([])));
                told += 1;
            }
        }
        assert_eq!(told, body["n"].as_u64().unwrap_or(1), "{path}");
    }
}

#[test]
fn a_header_names_the_session_unless_the_body_does() {
    let kept = shared();
    for (more, session) in [(json!({}), "of-header"), (json!({ "session_id": "own" }), "own")] {
        let body = tokens(more).to_string();
        let mut wire = Wire::open(kept.server.address);
        let head = format!(
            "POST /inference/v1/generate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             X-Session-ID: of-header\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        wire.send(head.as_bytes());
        let text = String::from_utf8(wire.rest()).expect("text");
        let (_, body) = text.split_once("\r\n\r\n").expect("a body");
        let reply: Value = serde_json::from_str(body).expect("JSON");
        let kept = trajectory(&kept.server, &reply["trajectory_ids"][0]);
        assert_eq!(kept["session"], session);
    }
}

#[test]
fn a_wrong_field_is_refused_by_its_name() {
    let kept = shared();
    let deep = (0..70).fold(json!(1), |inner, _| json!([inner]));
    let wrong = [
        ("collect_trajectory", json!("yes")),
        ("group_id", json!(7)),
        ("group_id", json!("")),
        ("group_id", json!("x".repeat(513))),
        ("session_id", json!([])),
        ("session_id", json!("x".repeat(513))),
        ("metadata", json!("text")),
        ("metadata", json!({ "a": "x".repeat(70_000) })),
        ("metadata", json!({ "a": deep })),
        ("max_staleness", json!(-1)),
        ("max_staleness", json!(0.5)),
        ("lora_adapter", json!("nobody")),
        ("scoring_function.name", json!("eval")),
        ("scoring_function.pattern", json!({ "name": "regex", "pattern": "(" })),
    ];
    for (field, value) in wrong {
        let name = field.split('.').next().expect("a name");
        for body in [tokens(json!({})), json!({ "prompt": "A", "collect_trajectory": true })] {
            let generates = body.get("token_ids").is_some();
            let path = if generates { "/inference/v1/generate" } else { "/v1/completions" };
            let refused = kept.server.post(path, &with(body, json!({ name: value })));
            assert_eq!(refused.param().as_deref(), Some(field), "{path}: {value}");
            let status = if field == "lora_adapter" { 404 } else { 400 };
            assert_eq!(refused.status, status);
        }
    }
    for (more, field) in [
        (json!({ "collect_trajectory": false, "group_id": "g" }), "group_id"),
        (json!({ "collect_trajectory": false, "max_staleness": 1 }), "max_staleness"),
        (json!({ "group": { "size": 2 } }), "group"),
        (json!({ "model": "tiny", "lora_adapter": "other" }), "lora_adapter"),
    ] {
        let refused = kept.server.post("/inference/v1/generate", &tokens(more));
        assert_eq!((refused.status, refused.param().as_deref()), (400, Some(field)));
    }
    let path = |path: &str| {
        let refused = kept.server.get(&format!("/v1/trajectories{path}"));
        (refused.status, refused.param().unwrap_or_default())
    };
    for (asked, field) in [
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?beyond=-1", "beyond"),
        ("?min_reward=nan", "min_reward"),
        ("?sesion=a", "sesion"),
        ("/export?current=3", "current"),
        ("/export?current=new&max_staleness=1", "current"),
        ("/export?follow=maybe", "follow"),
        ("/stats?a=1", "a"),
        ("/seven", "id"),
    ] {
        assert_eq!(path(asked), (400, field.to_owned()), "{asked}");
    }
    assert_eq!(path("/9999999"), (404, "id".to_owned()));
    let reward = |id: &str, body: Value| {
        let refused = kept.server.post(&format!("/v1/trajectories/{id}/reward"), &body);
        (refused.status, refused.param().unwrap_or_default())
    };
    assert_eq!(reward("9999999", json!({ "reward": 1 })), (404, "id".to_owned()));
    assert_eq!(reward("1", json!({ "reward": "much" })), (400, "reward".to_owned()));
    assert_eq!(reward("1", json!({ "reward": 1, "by": "x".repeat(513) })), (400, "by".to_owned()));
    assert_eq!(reward("1", json!({ "value": 1 })), (400, "reward".to_owned()));
}

#[test]
fn without_a_folder_nothing_is_collected_and_that_is_said() {
    static SHARED: Shared = Shared::new();
    let server = SHARED.of(&[]);
    for (path, body) in [
        ("/inference/v1/generate", tokens(json!({}))),
        ("/v1/completions", json!({ "prompt": "A", "collect_trajectory": true })),
        (
            "/v1/chat/completions",
            json!({
                "messages": [{ "role": "user", "content": "Hi" }], "collect_trajectory": true,
            }),
        ),
    ] {
        let refused = server.post(path, &body);
        assert_eq!(refused.param().as_deref(), Some("collect_trajectory"));
        let words = refused.json()["error"]["message"].to_string();
        assert!(refused.status == 400 && words.contains("--trajectory-dir"), "{words}");
    }
    assert_eq!(server.get("/v1/trajectories").status, 400);
    assert_eq!(server.get("/v1/trajectories/export").status, 400);
    // What is no more than a remark, and a score alone, need no store.
    let body = json!({
        "prompt": "A", "max_tokens": 2, "metadata": { "a": 1 }, "session_id": "s",
        "collect_trajectory": false, "scoring_function": { "name": "length", "max": 1 },
        "ignore_eos": true,
    });
    let reply = server.ask("/v1/completions", &body);
    assert_eq!(reply["choices"][0]["reward"], 0.0);
    assert!(reply.get("trajectory_ids").is_none());
    assert!(reply["choices"][0].get("trajectory_id").is_none());
}

#[test]
fn a_full_store_refuses_before_anything_is_computed_and_loses_nothing() {
    let kept = keeping(&["--trajectory-max-bytes", "16KiB"]);
    let server = &kept.server;
    // Its prompt alone would pass the cap.
    let long = json!({
        "prompt": vec![65; 400], "n": 60, "max_tokens": 1, "collect_trajectory": true,
    });
    let refused = server.post("/v1/completions", &long);
    let error = refused.json()["error"].clone();
    assert_eq!((refused.status, &error["code"]), (507, &json!("trajectories_full")));
    assert!(error["message"].as_str().is_some_and(|words| words.contains("16384")), "{error}");
    let (mut ids, mut untold) = (Vec::new(), 0);
    let before = server.count("generated_tokens");
    assert_eq!(before, 0);
    loop {
        let reply = server.post(
            "/v1/completions",
            &json!({
                "prompt": "A", "max_tokens": 40, "ignore_eos": true, "collect_trajectory": true,
            }),
        );
        if reply.status == 507 {
            break;
        }
        let choice = reply.json()["choices"][0].clone();
        match choice.get("trajectory_id") {
            Some(id) => ids.push(id.clone()),
            None => {
                let words = choice["trajectory_error"].to_string();
                assert!(words.contains("the store is full"), "{words}");
                untold += 1;
            }
        }
        assert!(ids.len() < 100);
        if untold == 3 {
            break;
        }
    }
    assert!(ids.len() > 5, "{}", ids.len());
    ids.iter().for_each(|id| drop(trajectory(server, id)));
    let stats = server.get("/v1/trajectories/stats").json();
    assert_eq!((&stats["count"], &stats["dropped"]), (&json!(ids.len()), &json!(0)));
    assert!(stats["bytes"].as_u64() <= stats["bytes_max"].as_u64());
}

#[test]
fn a_full_store_may_drop_its_oldest() {
    let kept = keeping(&["--trajectory-max-bytes", "16KiB", "--trajectory-policy", "drop-oldest"]);
    let server = &kept.server;
    for _ in 0..60 {
        let reply = server.ask("/inference/v1/generate", &tokens(json!({})));
        assert!(reply["trajectory_ids"][0].is_u64());
    }
    let stats = server.get("/v1/trajectories/stats").json();
    assert!(stats["dropped"].as_u64().is_some_and(|dropped| dropped > 0), "{stats}");
    assert_eq!(stats["newest"], 60);
    assert_eq!(server.get("/v1/trajectories/1").status, 404);
}

#[test]
fn two_servers_do_not_share_a_folder() {
    let kept = shared();
    let folder = checkpoint::write();
    let mut second = command();
    second.arg("serve").arg(&folder).args(["--port", "0", "--trajectory-dir", kept._folder.text()]);
    let output = second.stdout(Stdio::null()).stderr(Stdio::piped()).output().expect("it runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(words.contains("another process has this store open"), "{words}");
    let _ = std::fs::remove_dir_all(folder.parent().expect("its own"));
    kept.server.ask("/inference/v1/generate", &tokens(json!({})));
}

/// Loads an adapter, or a new version of it.
fn load(server: &Server, name: &str, seed: u64, more: Value) {
    let base = checkpoint::open(server.folder());
    let folder = Folder::new();
    let adapter = adapter(&base, &["_proj"], 4, seed);
    ::checkpoint::write_adapter(&folder.0, &adapter, &base.config, "base").expect("it is written");
    let body = with(json!({ "lora_name": name, "lora_path": folder.0 }), more);
    let response = server.post("/load_lora_adapter", &body);
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
}

#[test]
fn an_answer_that_versions_have_overtaken_is_stale_and_not_collected() {
    let kept = keeping(&["--max-loras", "4", "--max-lora-rank", "8"]);
    let server = &kept.server;
    load(server, "a", 1, json!({}));
    let long = |most: Option<u64>| {
        let mut body = json!({
            "prompt": "A", "lora_adapter": "a", "max_tokens": 400, "ignore_eos": true,
            "stream": true, "collect_trajectory": true,
        });
        if let Some(most) = most {
            body["max_staleness"] = most.into();
        }
        body
    };
    let last = |most: Option<u64>, meanwhile: &dyn Fn()| {
        let mut wire = Wire::open(server.address);
        wire.post("/v1/completions", long(most).to_string().as_bytes());
        let mut text = begun(&mut wire);
        // It has begun: it rests while versions come.
        server.ask("/pause?mode=keep", &json!({}));
        meanwhile();
        server.ask("/resume", &json!({}));
        text.extend(wire.rest());
        ended(&text)
    };
    let adapters = |seed: u64| {
        load(server, "a", seed, json!({}));
        load(server, "a", seed + 1, json!({}));
        load(server, "other", seed, json!({}));
    };
    let fine = last(Some(2), &|| adapters(10));
    assert_eq!((&fine["staleness"], fine.get("stale")), (&json!(2), None));
    let old = trajectory(server, &fine["trajectory_id"]);
    assert_eq!((&old["staleness"], &old["model"]), (&json!(2), &json!("a")));
    let versions: Vec<&Value> =
        old["versions"].as_array().expect("spans").iter().map(|span| &span["version"]).collect();
    assert_eq!((versions[0], versions[1]), (&json!("a@1"), &json!("a@3")));

    assert_eq!(old["versions"][0]["weights"], "default");

    let stale = last(Some(1), &|| adapters(20));
    assert_eq!((&stale["staleness"], &stale["stale"]), (&json!(2), &json!(true)));
    assert!(stale.get("trajectory_id").is_none());
    let words = stale["trajectory_error"].as_str().expect("words");
    assert!(words.contains("2 versions") && words.contains("at most 1"), "{words}");
    let metrics = String::from_utf8(server.get("/metrics").body).expect("text");
    let counted = |name: &str, value: &str| {
        let mut lines =
            metrics.lines().filter(|line| line.starts_with(&format!("pagewise:{name}")));
        assert!(lines.any(|line| line.ends_with(&format!(" {value}"))), "{name}: {metrics}");
    };
    counted("trajectories_collected_total", "1");
    counted("trajectories_refused_total", "1");
    assert!(metrics.contains("reason=\"stale\"") && !metrics.contains("store_bytes 0\n"));
    counted("trajectory_staleness_sum", "4.0");
    counted("trajectory_staleness_count", "2");

    // An export leaves out what a trainer is too far beyond.
    let fresh = server.ask(
        "/v1/completions",
        &json!({
            "prompt": "A", "model": "a", "max_tokens": 3, "collect_trajectory": true,
            "ignore_eos": true,
        }),
    );
    let fresh = &fresh["trajectory_ids"][0];
    let told = |query: &str| {
        let mut lines = lines(server, query);
        let summary = lines.pop().expect("a last line");
        let ids: Vec<Value> = lines.iter().map(|line| line["id"].clone()).collect();
        (ids, summary["exported"].clone(), summary["stale"].clone())
    };
    let both = vec![fine["trajectory_id"].clone(), fresh.clone()];
    assert_eq!(told("max_staleness=2"), (both.clone(), json!(2), json!(0)));
    assert_eq!(told("max_staleness=1"), (vec![fresh.clone()], json!(1), json!(1)));
    assert_eq!(told("max_staleness=1&current=a@5"), (vec![fresh.clone()], json!(1), json!(1)));
    assert_eq!(told("max_staleness=4&current=5"), (both, json!(2), json!(0)));
    assert_eq!(lines(server, "").len(), 2, "nothing was asked to be left out");

    // Other weights under the same version of the adapter are no less.
    let weights = || {
        server.ask("/update_weights", &json!({ "weight_dir": server.folder() }));
    };
    let moved = last(Some(1), &weights);
    assert_eq!(moved["staleness"], 1);
    let spans = trajectory(server, &moved["trajectory_id"])["versions"].clone();
    assert_eq!(spans[0]["version"], spans[1]["version"]);
    assert_eq!([&spans[0]["weights"], &spans[1]["weights"]], ["default", "1"]);
    let over = &spans[1]["kv"][0];
    assert_eq!((&over["version"], &over["weights"]), (&spans[1]["version"], &json!("1")));
    assert_eq!(last(Some(0), &weights)["stale"], true);
}

#[test]
fn an_adapter_that_comes_back_makes_nothing_stale() {
    let kept = keeping(&["--max-loras", "2", "--max-lora-rank", "8"]);
    let server = &kept.server;
    load(server, "a", 1, json!({}));
    let mut wire = Wire::open(server.address);
    let long = json!({
        "prompt": "A", "lora_adapter": "a", "max_tokens": 400, "ignore_eos": true,
        "stream": true, "collect_trajectory": true,
    });
    wire.post("/v1/completions", long.to_string().as_bytes());
    let mut text = begun(&mut wire);
    server.ask("/pause?mode=keep", &json!({}));
    // Its version stays in its slot; the next one has the other, and makes room there.
    load(server, "a", 2, json!({ "in_flight": "wait" }));
    load(server, "b", 3, json!({}));
    std::thread::scope(|scope| {
        let back = json!({ "lora_adapter": "a" });
        let back = scope.spawn(|| server.ask("/inference/v1/generate", &tokens(back)));
        // While nothing is computed, it comes back all the same.
        std::thread::sleep(std::time::Duration::from_millis(300));
        server.ask("/resume", &json!({}));
        let back = back.join().expect("an answer");
        assert_eq!(back["choices"][0]["weight_versions"][0]["version"], "a@2");
        assert_eq!(back["choices"][0]["staleness"], 0);
    });
    text.extend(wire.rest());
    let old = ended(&text);
    assert_eq!(old["staleness"], 1);
    let versions = json!([{ "version": "a@1", "start": 0, "end": 400, "weights": "default" }]);
    assert_eq!(trajectory(server, &old["trajectory_id"])["versions"], versions);
}

/// What comes of a stream until it has begun.
fn begun(wire: &mut Wire) -> Vec<u8> {
    let mut text = wire.some(1 << 16);
    while !text.windows(6).any(|bytes| bytes == b"data: ") {
        text.extend(wire.some(1 << 16));
    }
    text
}

/// The last piece of a stream's answer.
fn ended(text: &[u8]) -> Value {
    let text = String::from_utf8_lossy(text).into_owned();
    let event = text.lines().find(|line| line.contains("\"finish_reason\":\"length\""));
    let event = event.and_then(|line| line.strip_prefix("data: ")).expect("it ends");
    let event: Value = serde_json::from_str(event).expect("JSON");
    event["choices"][0].clone()
}

#[test]
fn rewards_come_with_the_answer_or_later_and_are_searched_by() {
    let kept = shared();
    let server = &kept.server;
    let ask = |group: &str, scoring: Option<Value>| {
        let mut body = tokens(json!({ "session_id": "rewards", "group_id": group }));
        if let Some(scoring) = scoring {
            body["scoring_function"] = scoring;
        }
        let reply = server.ask("/inference/v1/generate", &body);
        (reply["choices"][0].clone(), reply["trajectory_ids"][0].clone())
    };
    let (right, one) = ask("g1", Some(json!({ "name": "length", "min": 12, "max": 12 })));
    let (wrong, two) = ask("g1", Some(json!({ "name": "contains", "text": "no such words" })));
    let (none, three) = ask("g2", None);
    assert_eq!((&right["reward"], &wrong["reward"]), (&json!(1.0), &json!(0.0)));
    assert!(none.get("reward").is_none());
    assert_eq!(trajectory(server, &two)["rewards"], json!([{ "value": 0.0, "by": "contains" }]));
    let given = json!({ "reward": 0.75, "by": "judge" });
    server.ask(&format!("/v1/trajectories/{three}/reward"), &given);
    let rewards = trajectory(server, &three)["rewards"].clone();
    assert_eq!(rewards, json!([{ "value": 0.75, "by": "judge" }]));
    let list = |query: &str| {
        let list = server.get(&format!("/v1/trajectories?session=rewards&{query}")).json();
        let data = list["data"].as_array().expect("a list");
        let ids: Vec<Value> = data.iter().map(|it| it["id"].clone()).collect();
        (ids, list["has_more"].clone(), list["next"].clone())
    };
    let [yes, no] = [true, false].map(Value::Bool);
    assert_eq!(list("min_reward=0.7").0, [one.clone(), three.clone()]);
    assert_eq!(list("group=g1").0, [one.clone(), two.clone()]);
    assert_eq!(list("version=default&limit=2"), (vec![one, two.clone()], yes, two.clone()));
    let next = list(&format!("limit=2&beyond={two}"));
    assert_eq!(next, (vec![three.clone()], no.clone(), three.clone()));
    assert_eq!(list(&format!("beyond={three}")), (vec![], no, three));
    assert_eq!(list("model=nobody").0, Vec::<Value>::new());
}

#[test]
fn an_export_that_follows_tells_what_comes_as_it_comes() {
    let kept = keeping(&[]);
    let server = &kept.server;
    let ask =
        || server.ask("/inference/v1/generate", &tokens(json!({})))["trajectory_ids"][0].clone();
    let first = ask();
    let mut wire = Wire::open(server.address);
    wire.send(b"GET /v1/trajectories/export?follow=true&limit=3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let mut text = String::new();
    let mut ids = vec![first];
    while !text.contains("\"id\":1,") {
        text += &String::from_utf8_lossy(&wire.some(1 << 16));
    }
    for _ in 0..2 {
        let id = ask();
        while !text.contains(&format!("\"id\":{id},")) {
            let more = wire.some(1 << 16);
            assert!(!more.is_empty(), "it ended: {text}");
            text += &String::from_utf8_lossy(&more);
        }
        ids.push(id);
    }
    text += &String::from_utf8_lossy(&wire.rest());
    assert_eq!(text.matches("\"answer\":").count(), ids.len(), "each once");
    // One that follows does not keep a server from closing.
    let mut wire = Wire::open(server.address);
    wire.send(
        b"GET /v1/trajectories/export?follow=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert!(!wire.some(1 << 16).is_empty());
    let begun = std::time::Instant::now();
    server.terminate();
    while !wire.some(1 << 16).is_empty() {}
    assert!(begun.elapsed().as_secs() < 10);
}

#[test]
fn a_group_ends_when_it_has_enough_and_gives_all_pages_back() {
    let kept = shared();
    let server = &kept.server;
    // Answers end where the model's own end comes, which differs between them.
    let ask = |path: &str, body: Value, group: Value| {
        let body = with(
            body,
            json!({
                "group": group, "scoring_function": { "name": "length", "min": 1 },
                "collect_trajectory": true, "session_id": "group",
            }),
        );
        server.ask(path, &body)
    };
    let completion = json!({ "prompt": "A", "max_tokens": 500, "seed": 3 });
    let talk = json!({
        "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 400, "seed": 3,
    });
    let tokens = json!({
        "token_ids": [65], "sampling_params": { "max_tokens": 500, "seed": 3 },
    });
    for (path, body) in [
        ("/v1/completions", completion),
        ("/v1/chat/completions", talk),
        ("/inference/v1/generate", tokens),
    ] {
        let reply = ask(path, body.clone(), json!({ "size": 3, "oversample": 9 }));
        let group = &reply["group"];
        let [begun, finished, returned, cancelled] = counts(group);
        assert_eq!((begun, begun), (12, finished + cancelled), "{group}");
        assert!(finished >= 3 && returned == 3 && cancelled > 0, "{group}");
        assert_eq!((&group["mean"], &group["variance"]), (&json!(1.0), &json!(0.0)));
        assert_eq!((&group["enough"], reply.get("groups")), (&json!(true), None));
        let choices = reply["choices"].as_array().expect("choices");
        assert_eq!(choices.len(), returned);
        for choice in choices {
            assert_ne!(choice["finish_reason"], "abort");
            let kept = trajectory(server, &choice["trajectory_id"]);
            assert_eq!(kept["sampling"]["choice"], choice["index"]);
            assert_eq!(kept.get("template_hash").is_some(), path.contains("chat"));
        }
        server.rests();
        let rule = json!({ "successes": 1, "threshold": 1 });
        let early = ask(path, body, json!({ "size": 12, "stop_when": rule }));
        let finished = early["group"]["finished"].as_u64().expect("a count");
        assert!((1..12).contains(&finished), "{}", early["group"]);
        server.rests();
    }
}

/// Answers of a group: begun, finished, returned, cancelled.
fn counts(group: &Value) -> [usize; 4] {
    ["begun", "finished", "returned", "cancelled"]
        .map(|name| group[name].as_u64().unwrap_or_else(|| panic!("{name}: {group}")) as usize)
}

#[test]
fn of_answers_that_end_in_one_step_no_more_than_wanted_are_told() {
    let kept = shared();
    let ask = |group: Value| {
        let body = json!({
            "prompt": "A", "max_tokens": 4, "seed": 3, "ignore_eos": true, "group": group,
            "scoring_function": { "name": "contains", "text": "e" }, "temperature": 2,
        });
        kept.server.ask("/v1/completions", &body)
    };
    let all = ask(json!({ "size": 64 }));
    let choices = all["choices"].as_array().expect("choices");
    let rewards: Vec<&Value> = choices.iter().map(|choice| &choice["reward"]).collect();
    let other = rewards.iter().position(|reward| *reward != rewards[0]).expect("one that differs");
    assert!(other > 1, "the first {other} are worth the same");
    let wanted = json!({ "size": 2, "oversample": 62 });
    let told = ask(wanted.clone());
    let [begun, finished, returned, _] = counts(&told["group"]);
    assert!((begun, returned) == (64, 2) && finished > other, "{}", told["group"]);
    let indices = |told: &Value| -> Vec<u64> {
        let choices = told["choices"].as_array().expect("choices").iter();
        choices.map(|choice| choice["index"].as_u64().expect("a number")).collect()
    };
    assert_eq!((indices(&told), &told["group"]["variance"]), (vec![0, 1], &json!(0.0)));
    // What made it enough is among them.
    let told = ask(with(wanted, json!({ "stop_when": { "variance": true } })));
    assert_eq!((counts(&told["group"])[2], indices(&told)), (2, vec![0, other as u64]));
    assert_eq!(told["group"]["variance"], 0.25);
}

#[test]
fn of_several_prompts_the_rest_ends_once_so_many_groups_differ() {
    let kept = shared();
    let server = &kept.server;
    let ask = |group: Value| {
        let body = json!({
            "prompt": ["A", "B", "C", "D"], "max_tokens": 300, "seed": 5, "group": group,
            "scoring_function": { "name": "length", "min": 40 },
        });
        let reply = server.ask("/v1/completions", &body);
        let groups = reply["groups"].as_array().expect("groups").clone();
        assert_eq!((groups.len(), reply.get("group")), (4, None));
        let choices = reply["choices"].as_array().expect("choices");
        for (at, group) in groups.iter().enumerate() {
            let [begun, finished, returned, cancelled] = counts(group);
            assert_eq!((begun, begun), (finished + cancelled, 4));
            assert!(returned <= 3);
            let own =
                |choice: &&Value| choice["index"].as_u64().expect("a number") / 4 == at as u64;
            assert_eq!(choices.iter().filter(own).count(), returned, "{at}: {reply}");
        }
        server.rests();
        groups
    };
    // By itself each prompt's group comes to its end.
    let groups = ask(json!({ "size": 3, "oversample": 1 }));
    assert!(groups.iter().all(|it| it["enough"] == true && counts(it)[2] == 3), "{groups:?}");
    let differ = |it: &&Value| it["enough"] == true && it["variance"] != json!(0.0);
    assert!(groups.iter().filter(differ).count() > 1, "{groups:?}");
    // One that differs ends all of them.
    for rule in [json!({ "groups": 1 }), json!({ "groups": 1, "variance": true })] {
        let groups = ask(json!({ "size": 3, "oversample": 1, "stop_when": rule }));
        let enough = groups.iter().filter(|it| it["enough"] == true);
        assert!(groups.iter().filter(differ).count() >= 1, "{groups:?}");
        let cut = groups.len() - enough.count();
        assert!(cut > 0, "{groups:?}");
    }
    for (group, field) in [
        (json!({ "size": 3, "stop_when": { "groups": 5 } }), "group.stop_when.groups"),
        (json!({ "size": 3, "stop_when": {} }), "group.stop_when.successes"),
    ] {
        let body = json!({
            "prompt": ["A", "B", "C", "D"], "group": group,
            "scoring_function": { "name": "length", "min": 1 },
        });
        let refused = server.post("/v1/completions", &body);
        assert_eq!((refused.status, refused.param().as_deref()), (400, Some(field)));
    }
}

/// What a client has read of a server that is killed meanwhile: ids, and their answers.
fn ask_until_killed(server: &mut Server) -> BTreeMap<u64, Value> {
    let (address, killed) = (server.address, AtomicBool::new(false));
    let asking = || {
        let mut read = BTreeMap::new();
        while !killed.load(Ordering::Relaxed) {
            let mut wire = Wire::open_maybe(address);
            let Some(wire) = &mut wire else { break };
            let body = json!({
                "prompt": "A", "max_tokens": 20, "n": 4, "ignore_eos": true, "stream": true,
                "return_token_ids": true, "collect_trajectory": true,
            });
            wire.post("/v1/completions", body.to_string().as_bytes());
            let text = String::from_utf8_lossy(&wire.rest()).into_owned();
            let mut tokens = vec![Vec::new(); 4];
            for event in text.lines().filter_map(|line| line.strip_prefix("data: {")) {
                // The last one may be cut.
                let Ok(event) = serde_json::from_str::<Value>(&format!("{{{event}")) else {
                    continue;
                };
                let choice = &event["choices"][0];
                let index = choice["index"].as_u64().expect("an index") as usize;
                tokens[index].extend(choice["token_ids"].as_array().cloned().unwrap_or_default());
                if let Some(id) = choice["trajectory_id"].as_u64() {
                    read.insert(id, Value::Array(tokens[index].clone()));
                }
            }
        }
        read
    };
    let process = server.process();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(asking)).collect();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        process.kill().expect("killed");
        killed.store(true, Ordering::Relaxed);
        clients.into_iter().flat_map(|client| client.join().expect("it reads")).collect()
    })
}

#[test]
fn what_a_client_has_read_of_is_in_the_store_after_a_kill() {
    for sync in ["always", "batched"] {
        let folder = Folder::new();
        let options = ["--trajectory-dir", folder.text(), "--trajectory-sync", sync];
        let mut first = Server::start(&options);
        let read = ask_until_killed(&mut first);
        assert!(read.len() > 8, "{sync}: {}", read.len());
        let _ = first.process().wait();
        let second = Server::start(&options);
        for (id, answer) in &read {
            assert_eq!(trajectory(&second, &json!(id))["answer"], *answer, "{sync}: {id}");
        }
        let stats = second.get("/v1/trajectories/stats").json();
        assert!(stats["count"].as_u64().is_some_and(|count| count >= read.len() as u64));
        let next = second.ask("/inference/v1/generate", &tokens(json!({})));
        let next = next["trajectory_ids"][0].as_u64().expect("an id");
        assert!(Some(&next) > read.keys().last());
    }
}

#[test]
fn what_is_damaged_is_told_and_the_rest_is_there() {
    let folder = Folder::new();
    let options = ["--trajectory-dir", folder.text()];
    let first = Server::start(&options);
    let ids: Vec<Value> = (0..3)
        .map(|_| {
            first.ask("/inference/v1/generate", &tokens(json!({})))["trajectory_ids"][0].clone()
        })
        .collect();
    drop(first);
    let segment = segment(&folder.0);
    let mut bytes = std::fs::read(&segment).expect("it is there");
    let end = bytes.len() - 5;
    bytes[end] ^= 1;
    std::fs::write(&segment, &bytes).expect("written");
    let second = Server::start(&options);
    assert_eq!(trajectory(&second, &ids[1])["id"], ids[1]);
    assert_eq!(second.get(&format!("/v1/trajectories/{}", ids[2])).status, 404);
    let damages = second.get("/v1/trajectories/stats").json()["damages"].clone();
    assert_eq!(damages.as_array().map(Vec::len), Some(1), "{damages}");
}

fn segment(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder).expect("a folder").map(|file| file.expect("a file"));
    let large = files.max_by_key(|file| file.metadata().expect("a file").len());
    large.expect("a segment").path()
}
