//! A real server whose weights change and which rests: what is in flight is not lost, and
//! who comes later is told by what.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pagewise_tests::lora::{adapter, merged};
use pagewise_tests::server::{Response, Server, checkpoint};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

/// A second checkpoint of the same shape, and the tensors in which it differs as one file.
struct Other {
    folder: PathBuf,
    file: Vec<u8>,
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.folder.parent().expect("of its own"));
    }
}

fn other() -> Other {
    let folder = checkpoint::write();
    let base = checkpoint::open(&folder);
    let changed = merged(&base, &adapter(&base, &["q_proj", "down_proj"], 4, 3));
    let views = |all: &engine::weights::Tensors| -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
        let each = all.iter().map(|(name, tensor)| {
            let shape = tensor.shape().iter().map(|&extent| extent as usize).collect();
            (name.clone(), (shape, tensor.bytes().to_vec()))
        });
        each.collect()
    };
    let all = views(&changed.tensors);
    let file = |names: &dyn Fn(&str) -> bool| {
        let own = all.iter().filter(|(name, _)| names(name)).map(|(name, (shape, bytes))| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("whole"))
        });
        safetensors::serialize(own, None).expect("a file")
    };
    std::fs::write(folder.join("model.safetensors"), file(&|_| true)).expect("written");
    let part = file(&|name| name.contains("q_proj") || name.contains("down_proj"));
    Other { folder, file: part }
}

fn body(max_tokens: u32, more: Value) -> Value {
    let mut body = json!({
        "token_ids": [65, 66, 67, 68, 69, 70],
        "sampling_params": {
            "max_tokens": max_tokens, "temperature": 0, "logprobs": 1, "ignore_eos": true,
        },
    });
    let more = more.as_object().cloned().unwrap_or_default();
    body.as_object_mut().expect("an object").extend(more);
    body
}

fn ask(server: &Server) -> Value {
    let response = server.post("/inference/v1/generate", &body(12, json!({})));
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    response.json()["choices"][0].clone()
}

/// Asks for a long answer aside, which has begun when this returns.
fn begin(server: &'static Server, name: &'static str) -> JoinHandle<Response> {
    let before = server.count("generated_tokens");
    let asking = std::thread::spawn(move || {
        server.post("/inference/v1/generate", &body(250, json!({ "request_id": name })))
    });
    while server.count("generated_tokens") < before + 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    asking
}

/// What came of a try in which the answer was met before its end; it may have been too fast.
fn met<T>(attempt: impl FnMut(usize) -> Option<T>) -> T {
    (0..50).find_map(attempt).expect("one of the answers is met")
}

fn started(options: &[&str]) -> &'static Server {
    Box::leak(Box::new(Server::start(options)))
}

/// A leaked server ends with its test.
struct Ends(&'static Server);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.terminate();
    }
}

fn good(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    response.json()
}

#[test]
fn other_weights_come_from_folders_and_from_bytes_in_every_spelling() {
    let other = other();
    let expected = ask(&Server::of(checkpoint_copy(&other), &[]));
    let server = started(&[]);
    let _ends = Ends(server);
    let before = ask(server);
    assert_ne!(before["logprobs"], expected["logprobs"]);
    let own = server.folder().to_owned();
    let version = |choice: &Value| choice["weight_versions"][0]["version"].clone();
    let there = |label: &str| {
        let choice = ask(server);
        assert_eq!(choice["logprobs"], expected["logprobs"]);
        assert_eq!(version(&choice), label);
        assert_eq!(server.get("/weight_info").json()["weight_version"], label);
    };
    let back = || {
        let reply = server.post(
            "/update_weights_from_disk",
            &json!({
                "model_path": own, "weight_version": "back", "flush_cache": true,
            }),
        );
        assert_eq!(good(&reply)["success"], true);
        let choice = ask(server);
        assert_eq!(
            (choice["logprobs"] == before["logprobs"], version(&choice)),
            (true, json!("back"))
        );
    };
    // prime-rl.
    let reply = server.post("/update_weights", &json!({ "weight_dir": other.folder }));
    assert_eq!(good(&reply)["status"], "ok");
    there("1");
    back();
    // vLLM, with safetensors in the request.
    let file = STANDARD.encode(&other.file);
    good(&server.post("/start_weight_update", &json!({ "is_checkpoint_format": true })));
    good(&server.post("/start_weight_update", &json!({})));
    let info = json!({ "update_info": { "safetensors": file } });
    good(&server.post("/update_weights", &info));
    assert_eq!(version(&ask(server)), "back", "nothing changes before the end");
    good(&server.post("/finish_weight_update", &json!({ "weight_version": "v8" })));
    there("v8");
    back();
    // SGLang, bare and bracketed.
    let tensors = json!({ "serialized_named_tensors": [file], "weight_version": "t" });
    assert_eq!(good(&server.post("/update_weights_from_tensor", &tensors))["success"], true);
    there("t");
    back();
    good(&server.post("/begin_weight_update", &json!({ "selector": "target" })));
    let tensors = json!({ "serialized_named_tensors": [file] });
    good(&server.post("/update_weights_from_tensor", &tensors));
    good(&server.post("/end_weight_update", &json!({ "weight_version": 9 })));
    there("9");
}

/// The same checkpoint, in a folder that goes with its server.
fn checkpoint_copy(other: &Other) -> PathBuf {
    let folder = checkpoint::write();
    let name = "model.safetensors";
    std::fs::copy(other.folder.join(name), folder.join(name)).expect("copied");
    folder
}

#[test]
fn a_bad_update_changes_nothing_and_says_why() {
    let server = Server::start(&[]);
    let before = ask(&server);
    let refuse = |path: &str, body: Value, status: u16, words: &str| {
        let response = server.post(path, &body);
        let told = response.json()["error"]["message"].to_string();
        assert_eq!(response.status, status, "{path}: {told}");
        assert!(told.contains(words), "{path}: {told}");
    };
    let filled = |name: &str, shape: Vec<usize>, float: f32| {
        let bytes = float.to_le_bytes().repeat(shape.iter().product());
        let view = TensorView::new(Dtype::F32, shape, &bytes).expect("whole");
        STANDARD.encode(safetensors::serialize([(name, view)], None).expect("a file"))
    };
    let file = |name: &str, shape: Vec<usize>| filled(name, shape, 0.0);
    let nccl = json!({ "update_info": { "names": [], "dtype_names": [], "shapes": [] } });
    refuse("/update_weights", nccl, 409, "NCCL");
    refuse("/update_weights", json!({ "weights": {} }), 409, "NCCL");
    refuse("/update_weights", json!({}), 400, "weight_dir");
    refuse("/update_weights", json!({ "weight_dir": "/no/such" }), 404, "no folder");
    refuse("/finish_weight_update", json!({}), 409, "no update");
    refuse("/init_weight_transfer_engine", json!({ "init_info": {} }), 409, "disk");
    let sent = |file: String| json!({ "serialized_named_tensors": [file] });
    let path = "/update_weights_from_tensor";
    refuse(path, sent(file("model.norm.weight", vec![3])), 400, "must be");
    refuse(path, sent(file("model.nothing.weight", vec![3])), 400, "no tensor");
    refuse(path, sent("gASVCgAAAAAAAABDBnB3bmVkIZQu".into()), 400, "pickle");
    refuse(path, sent("AAAA".into()), 400, "");
    refuse(path, json!({ "serialized_named_tensors": [] }), 400, "one file");
    let hidden = checkpoint::open(server.folder()).config.hidden as usize;
    let unfit = filled("model.norm.weight", vec![hidden], f32::NAN);
    refuse(path, sent(unfit), 400, "number 0 is not finite");
    // There are no weights of a draft model to replace.
    let mut draft = sent(file("model.norm.weight", vec![hidden]));
    draft["selector"] = "draft".into();
    refuse(path, draft, 400, "selector");
    refuse("/begin_weight_update", json!({ "selector": "draft" }), 400, "selector");
    for name in ["", &"v".repeat(257)] {
        refuse("/update_weight_version", json!({ "new_version": name }), 400, "1 to 256 bytes");
    }
    refuse("/update_weights_from_disk", json!({ "model_path": "/no/such" }), 400, "no folder");
    let half = other();
    let name = half.folder.join("model.safetensors");
    let whole = std::fs::read(&name).expect("there");
    std::fs::write(&name, &whole[..whole.len() / 2]).expect("cut");
    refuse("/update_weights", json!({ "weight_dir": half.folder }), 400, "truncated");
    let after = ask(&server);
    assert_eq!(after, before);
}

#[test]
fn an_update_that_is_not_ended_in_time_is_dropped_and_the_old_weights_stay() {
    let server = Server::start(&["--weight-update-timeout-seconds", "77"]);
    let (other, before) = (other(), ask(&server));
    let refuse = |path: &str, body: Value, status: u16, code: &str| {
        let response = server.post(path, &body);
        let told = response.json()["error"].clone();
        assert_eq!(
            (response.status, told["code"].as_str()),
            (status, Some(code)),
            "{path}: {told}"
        );
    };
    let file = STANDARD.encode(&other.file);
    let info = json!({ "update_info": { "safetensors": file } });
    let sent = json!({ "serialized_named_tensors": [file] });
    let started = good(&server.post("/start_weight_update", &json!({})));
    assert_eq!(started["deadline_seconds"], 77.0);
    // Its time is over at once.
    let at_once = json!({ "deadline_seconds": 0 });
    good(&server.post("/start_weight_update", &at_once));
    refuse("/update_weights", info.clone(), 410, "weight_update_expired");
    // What comes late is not taken for weights that come alone.
    refuse("/update_weights_from_tensor", sent.clone(), 410, "weight_update_expired");
    refuse("/finish_weight_update", json!({}), 410, "weight_update_expired");
    assert_eq!(server.post("/finish_weight_update", &json!({})).status, 409);
    good(&server.post("/begin_weight_update", &at_once));
    refuse("/end_weight_update", json!({}), 400, "weight_update_expired");
    for wrong in [json!(-1), json!("soon"), json!(1e300)] {
        let wrong = server.post("/start_weight_update", &json!({ "deadline_seconds": wrong }));
        assert_eq!((wrong.status, wrong.param().as_deref()), (400, Some("deadline_seconds")));
    }
    // A swap that is not done in time is given up, and its update with it.
    let late = |timeout: f64| json!({ "timeout_seconds": timeout, "weight_version": "late", "in_flight": "keep" });
    good(&server.post("/start_weight_update", &json!({ "deadline_seconds": 600 })));
    good(&server.post("/update_weights", &info));
    refuse("/finish_weight_update", late(0.0), 504, "timed_out");
    assert_eq!(server.post("/finish_weight_update", &json!({})).status, 409);
    assert_eq!(ask(&server), before);
    // Also in its middle; a fast machine may be done by then.
    let mut tries = 0..100;
    loop {
        assert!(tries.next().is_some(), "it was always done in time");
        let mut body = late(2e-4);
        body["weight_dir"] = json!(server.folder());
        if server.post("/update_weights", &body).status == 504 {
            break;
        }
        good(&server.post("/update_weight_version", &json!({ "new_version": "default" })));
    }
    assert_eq!(ask(&server)["weight_versions"], before["weight_versions"]);
    // Nor is a folder looked at for who is late.
    let late = json!({ "weight_dir": "/no/such", "timeout_seconds": 0 });
    assert_eq!(server.post("/update_weights", &late).status, 504);
    let wrong = json!({ "weight_dir": other.folder, "timeout_seconds": -1 });
    let wrong = server.post("/update_weights", &wrong);
    assert_eq!((wrong.status, wrong.param().as_deref()), (400, Some("timeout_seconds")));
    let enough =
        json!({ "weight_dir": other.folder, "timeout_seconds": 100, "weight_version": "w" });
    good(&server.post("/update_weights", &enough));
    assert_ne!(ask(&server)["logprobs"], before["logprobs"]);
    assert_eq!(server.get("/weight_info").json()["weight_version"], "w");
}

#[test]
fn who_is_frozen_goes_on_with_the_same_bits_and_who_is_kept_over_other_weights() {
    let server = started(&[]);
    let _ends = Ends(server);
    let expected = good(&begin(server, "calm").join().expect("an answer"));
    let asking = begin(server, "frozen");
    assert_eq!(
        good(&server.post("/pause?mode=keep&clear_cache=false", &json!({})))["status"],
        "paused"
    );
    assert_eq!(server.get("/is_paused").json()["is_paused"], true);
    let count = server.count("generated_tokens");
    // Who comes now waits, too.
    let later =
        std::thread::spawn(move || server.post("/inference/v1/generate", &body(12, json!({}))));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.count("generated_tokens"), count, "nothing is computed");
    assert_eq!(good(&server.post("/resume", &json!({})))["status"], "resumed");
    let answer = good(&asking.join().expect("an answer"));
    assert_eq!(answer["choices"][0]["logprobs"], expected["choices"][0]["logprobs"]);
    good(&later.join().expect("an answer"));
    // Other weights while it rests: tokens before and after are told apart.
    let other = other();
    let folders = [server.folder().to_owned(), other.folder.clone()];
    let (answer, spans) = met(|_| {
        let back = json!({ "weight_dir": folders[0], "weight_version": "default" });
        good(&server.post("/update_weights", &back));
        let asking = begin(server, "kept");
        good(&server.post("/pause?mode=keep", &json!({})));
        let on = json!({ "weight_dir": folders[1], "weight_version": "1" });
        good(&server.post("/update_weights", &on));
        good(&server.post("/resume", &json!({})));
        let answer = good(&asking.join().expect("an answer"));
        let spans = answer["choices"][0]["weight_versions"].clone();
        spans[1].is_object().then_some((answer, spans))
    });
    assert_eq!((&spans[0]["version"], &spans[1]["version"]), (&json!("default"), &json!("1")));
    assert_eq!((&spans[0]["start"], &spans[1]["end"]), (&json!(0), &json!(250)));
    assert_eq!(spans[0]["end"], spans[1]["start"]);
    let at = spans[0]["end"].as_u64().expect("a number") as usize;
    // Six of the prompt, and all of the answer but the last, stand in keys of the old ones.
    assert_eq!(spans[0].get("kv"), None);
    assert_eq!(spans[1]["kv"], json!([{ "from": 6 + at - 1, "version": "1" }]));
    let tokens = |answer: &Value| answer["choices"][0]["token_ids"].as_array().cloned();
    assert_eq!(tokens(&answer).expect("tokens")[..at], tokens(&expected).expect("tokens")[..at]);
}

#[test]
fn a_base_that_guesses_in_another_format_does_so_by_what_serves() {
    let other = other();
    let guessed = |server: &Server| {
        let before = server.count("draft_tokens_accepted");
        let body = body(200, json!({}));
        let answer = server.post("/inference/v1/generate", &body).json()["choices"].clone();
        (answer[0]["token_ids"].clone(), server.count("draft_tokens_accepted") - before)
    };
    let options = ["--draft", "base", "--draft-quantize", "q4", "--draft-tokens", "3"];
    let moved = Server::start(&options);
    let own = guessed(&moved);
    good(&moved.post("/update_weights", &json!({ "weight_dir": other.folder })));
    let there = guessed(&moved);
    assert!(there.0 != own.0 && there.1 > 0, "{own:?} {there:?}");
    // As much as where it has guessed by them from the start.
    assert_eq!(guessed(&Server::at(&other.folder, &options)), there);
}

#[test]
fn who_is_aborted_has_what_came_and_who_comes_is_told_to_come_again() {
    let server = started(&[]);
    let _ends = Ends(server);
    let expected = good(&begin(server, "calm").join().expect("an answer"));
    let choice = met(|_| {
        good(&server.post("/resume", &json!({})));
        let asking = begin(server, "ended");
        good(&server.post("/pause", &json!({})));
        let answer = good(&asking.join().expect("an answer"));
        let choice = answer["choices"][0].clone();
        (choice["finish_reason"] == "abort").then_some(choice)
    });
    let came = choice["token_ids"].as_array().expect("tokens").clone();
    assert!(came.len() >= 3);
    assert_eq!(
        came[..],
        expected["choices"][0]["token_ids"].as_array().expect("tokens")[..came.len()]
    );
    let refused = server.post("/inference/v1/generate", &body(12, json!({})));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    good(&server.post("/resume", &json!({})));
    ask(server);
    // By name: others go on.
    met(|_| {
        let (two, one) = (begin(server, "two"), begin(server, "one"));
        let body = json!({ "request_ids": ["one", "nobody"] });
        let reply = good(&server.post("/inference/v1/abort_requests", &body));
        let [one, two] = [one, two].map(|asking| good(&asking.join().expect("an answer")));
        let aborted = one["choices"][0]["finish_reason"] == "abort";
        assert_eq!(reply["aborted"], u64::from(aborted));
        assert_eq!(two["choices"][0]["finish_reason"], "length");
        aborted.then_some(())
    });
    // Whom `wait` lets end.
    let asking = begin(server, "waits");
    good(&server.post("/pause?mode=wait", &json!({})));
    let waited = good(&asking.join().expect("an answer"));
    assert_eq!(waited["choices"][0]["finish_reason"], "length");
    good(&server.post("/resume", &json!({})));
    let wrong = server.post("/pause?mode=never", &json!({}));
    assert_eq!((wrong.status, wrong.param().as_deref()), (400, Some("mode")));
}

#[test]
fn a_new_name_of_the_weights_ends_nobody() {
    let server = started(&[]);
    let _ends = Ends(server);
    let (answer, names) = met(|at| {
        let names = [json!(format!("v{at}")), json!(format!("v{}", at + 1))];
        let rename = |name: &Value| {
            good(&server.post("/update_weight_version", &json!({ "new_version": name })))
        };
        rename(&names[0]);
        let asking = begin(server, "named");
        let reply = rename(&names[1]);
        assert_eq!((&reply["success"], &reply["new_version"]), (&json!(true), &names[1]));
        let answer = good(&asking.join().expect("an answer"));
        answer["choices"][0]["weight_versions"][1].is_object().then_some((answer, names))
    });
    let spans = &answer["choices"][0]["weight_versions"];
    assert_eq!([&spans[0]["version"], &spans[1]["version"]], [&names[0], &names[1]]);
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let reset =
        good(&server.post("/reset_prefix_cache", &json!({ "reset_running_requests": false })));
    assert_eq!(reset["success"], true);
    assert_eq!(server.get("/get_world_size?include_dp=true").json(), json!({ "world_size": 1 }));
    let info = server.get("/server_info?config_format=json").json();
    assert!(info["vllm_config"]["lora_config"]["max_loras"].is_u64());
    assert_eq!(info["vllm_config"]["parallel_config"]["data_parallel_size"], 1);
    assert_eq!(good(&server.post("/sleep?level=1", &json!({})))["status"], "sleeping");
    assert_eq!(server.get("/is_sleeping").json()["is_sleeping"], true);
    let awake = good(&server.post("/wake_up?tags=weights&tags=kv_cache", &json!({})));
    assert_eq!(awake["status"], "awake");
    ask(server);
}
