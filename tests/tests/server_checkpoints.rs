//! Versions that outlive their server: saved as they come, marked, returned to, and served
//! again by the next one.

use ::checkpoint::archive::{Archive, Better, Settings};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pagewise_tests::lora::adapter;
use pagewise_tests::server::{Response, Server, checkpoint, command};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the writer may take.
const SAVED_WITHIN: Duration = Duration::from_secs(60);

/// A folder that goes with its holder: an archive, and adapters beside it.
struct Room(PathBuf);

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Room {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("pagewise-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("there is room");
        Self(folder)
    }

    fn archive(&self) -> PathBuf {
        self.0.join("archive")
    }

    /// A server that saves there.
    fn server(&self, more: &[&str]) -> Server {
        let folder = self.archive();
        let folder = folder.to_str().expect("plain");
        Server::start(&[&["--checkpoint-dir", folder, "--max-lora-rank", "8"], more].concat())
    }

    /// The folder of an adapter of that seed.
    fn adapter(&self, server: &Server, seed: u64) -> PathBuf {
        let base = checkpoint::open(server.folder());
        let folder = self.0.join(format!("adapter-{seed}"));
        let adapter = adapter(&base, &["_proj"], 4, seed);
        ::checkpoint::write_adapter(&folder, &adapter, &base.config, "base").expect("written");
        folder
    }
}

fn load(server: &Server, name: &str, folder: &Path) {
    server.ask("/load_lora_adapter", &json!({ "lora_name": name, "lora_path": folder }));
}

/// What is drawn, and by which version.
fn ask(server: &Server, model: Option<&str>) -> (Value, Value) {
    let mut body = json!({
        "token_ids": [65, 66, 67, 68],
        "sampling_params": { "max_tokens": 8, "temperature": 0, "logprobs": 1, "ignore_eos": true },
    });
    if let Some(model) = model {
        body["model"] = model.into();
    }
    let choice = server.ask("/inference/v1/generate", &body)["choices"][0].clone();
    (choice["logprobs"].clone(), choice["weight_versions"][0]["version"].clone())
}

fn list(server: &Server) -> Vec<Value> {
    let told = server.get("/v1/checkpoints").json();
    told["data"].as_array().expect("a list").clone()
}

fn versions(all: &[Value]) -> Vec<&str> {
    all.iter().map(|line| line["version"].as_str().expect("text")).collect()
}

/// Waits until the writer has come so far that the list is as it is to be.
fn until(server: &Server, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let all = list(server);
        if holds(&all) {
            return all;
        }
        assert!(begun.elapsed() < SAVED_WITHIN, "{all:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn latest(all: &[Value]) -> &str {
    let latest = all.iter().find(|line| line["latest"] == true).expect("one is");
    latest["version"].as_str().expect("text")
}

fn refused(response: &Response, status: u16, word: &str) {
    let told = &response.json()["error"];
    let words = [&told["param"], &told["code"]].map(|word| word.as_str().unwrap_or(""));
    assert_eq!(response.status, status, "{told}");
    assert!(words.contains(&word), "{word} is not in {told}");
}

#[test]
fn versions_are_saved_as_they_come_returned_to_and_there_after_a_kill() {
    let room = Room::new("versions");
    let server = room.server(&["--checkpoint-keep", "2"]);
    let folders = [1, 2, 3, 4].map(|seed| room.adapter(&server, seed));
    load(&server, "a", &folders[0]);
    let first = ask(&server, Some("a"));
    let all = until(&server, |all| all.len() == 1);
    let best = json!({ "id": all[0]["id"], "metric": 0.83, "step": 12 });
    let marked = server.ask("/v1/checkpoints/mark", &best);
    assert_eq!((&marked["metric"], &marked["step"]), (&json!(0.83), &json!(12)));
    assert_eq!((&marked["best"], &marked["kind"]), (&json!(true), &json!("adapter")));
    for folder in &folders[1..] {
        load(&server, "a", folder);
    }
    let third_and_more = ["a@1", "a@3", "a@4"];
    let all = until(&server, |all| versions(all) == third_and_more);
    assert_eq!(latest(&all), "a@4");
    let fourth = ask(&server, Some("a"));
    assert_ne!(fourth.0, first.0);
    // One call back, to what the best one was.
    let back = json!({ "name": "a", "at": "best", "in_flight": "recompute" });
    let rolled = server.ask("/v1/checkpoints/rollback", &back);
    assert_eq!((&rolled["id"], &rolled["weight_version"]), (&all[0]["id"], &json!("a@1")));
    assert_eq!(ask(&server, Some("a")), first);
    assert_eq!(server.get("/v1/lora_adapters").json()["data"][0]["versions"], 5);
    until(&server, |all| latest(all) == "a@1" && versions(all) == third_and_more);
    // The same again by name, and forth.
    let forth = json!({ "name": "a", "version": "a@4", "weight_version": "four" });
    server.ask("/v1/checkpoints/rollback", &forth);
    assert_eq!(ask(&server, Some("a")), (fourth.0.clone(), json!("four")));
    until(&server, |all| latest(all) == "a@4");
    let metrics = String::from_utf8(server.get("/metrics").body).expect("text");
    let saves = metrics.lines().find(|line| line.starts_with("pagewise:checkpoint_saves_total"));
    let saves = saves.unwrap_or_else(|| panic!("{metrics}"));
    assert!(saves.contains("outcome=\"ok\"") && saves.ends_with(" 4"), "{saves}");
    // A rollback that is late changes nothing.
    let late = json!({ "name": "a", "at": "best", "timeout_seconds": 0 });
    refused(&server.post("/v1/checkpoints/rollback", &late), 504, "timed_out");
    assert_eq!(ask(&server, Some("a")).0, fourth.0);
    // Killed; the next one goes on where it was.
    drop(server);
    let server = room.server(&["--checkpoint-keep", "2", "--checkpoint-resume"]);
    assert_eq!(ask(&server, Some("a")), (fourth.0, json!("four")));
    load(&server, "a", &folders[0]);
    // Five and six were the two that came back.
    assert_eq!(ask(&server, Some("a")), (first.0, json!("a@7")), "it counts on");
    let best = until(&server, |all| versions(all) == ["a@1", "a@4", "a@7"]);
    let path = best[0]["path"].as_str().expect("a path");
    // As PEFT has it: other readers find their files.
    let base = checkpoint::open(server.folder());
    ::checkpoint::adapter(Path::new(path), &base.config).expect("it is whole");
    let gone = server.ask("/v1/checkpoints/delete", &json!({ "id": best[0]["id"] }));
    assert_eq!(gone["version"], "a@1");
    assert_eq!(versions(&list(&server)), ["a@4", "a@7"]);
    refused(&server.post("/v1/checkpoints/delete", &json!({ "id": 1 })), 404, "id");
}

#[test]
fn no_name_is_given_twice_whatever_was_saved_of_it() {
    let room = Room::new("twice");
    let more = ["--checkpoint-every", "3"];
    let server = room.server(&more);
    let folders = [1, 2].map(|seed| room.adapter(&server, seed));
    let version = |server: &Server| ask(server, Some("a")).1;
    for at in 0..4 {
        load(&server, "a", &folders[at % 2]);
    }
    assert_eq!(version(&server), "a@4");
    let kept = until(&server, |all| versions(all) == ["a@3"]);
    // Who unloads it does not begin anew.
    let gone = server.post("/v1/unload_lora_adapter", &json!({ "lora_name": "a" }));
    assert_eq!(gone.status, 200);
    load(&server, "a", &folders[0]);
    assert_eq!(version(&server), "a@5");
    // The writer comes to what is asked of it after all that came before.
    server.ask("/v1/checkpoints/save", &json!({ "name": "a" }));
    server.ask("/v1/checkpoints/rollback", &json!({ "id": kept[0]["id"] }));
    assert_eq!(version(&server), "a@3");
    until(&server, |all| latest(all) == "a@3");
    drop(server);
    let server = room.server(&[&more[..], &["--checkpoint-resume"]].concat());
    assert_eq!(version(&server), "a@3");
    load(&server, "a", &folders[0]);
    assert_eq!(version(&server), "a@7", "the sixth was the one that came back");
    server.ask("/v1/checkpoints/save", &json!({ "name": "a" }));
    for line in list(&server) {
        server.ask("/v1/checkpoints/delete", &json!({ "id": line["id"] }));
    }
    drop(server);
    // Of one that is gone, too, and where nobody goes on with it.
    let server = room.server(&more);
    load(&server, "a", &folders[0]);
    assert_eq!(version(&server), "a@8");
}

#[test]
fn weights_that_came_in_a_request_are_saved_and_served_again() {
    let room = Room::new("weights");
    let server = room.server(&["--served-model-name", "m", "--checkpoint-every", "2"]);
    let before = ask(&server, None);
    // The norm of the layers' end, doubled and tripled.
    let sent = |factor: f32| {
        let base = checkpoint::open(server.folder());
        let norm = &base.tensors["model.norm.weight"];
        let floats = norm.bytes().chunks_exact(4);
        let floats = floats.map(|it| f32::from_le_bytes(it.try_into().expect("four")) * factor);
        let bytes: Vec<u8> = floats.flat_map(f32::to_le_bytes).collect();
        let shape = norm.shape().iter().map(|&extent| extent as usize).collect();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes);
        let file = [("model.norm.weight", view.expect("whole"))];
        let file = STANDARD.encode(safetensors::serialize(file, None).expect("a file"));
        json!({ "serialized_named_tensors": [file] })
    };
    server.ask("/update_weights_from_tensor", &sent(2.0));
    let first = ask(&server, None);
    // Only every second one by itself; this one because it is asked for.
    let asked = json!({ "name": "m", "step": 7, "metric": -0.5 });
    let saved = server.ask("/v1/checkpoints/save", &asked);
    assert_eq!((&saved["version"], &saved["kind"]), (&json!("1"), &json!("weights")));
    assert_eq!((&saved["step"], &saved["count"]), (&json!(7), &json!(1)));
    server.ask("/update_weights_from_tensor", &sent(3.0));
    let second = ask(&server, None);
    let all = until(&server, |all| versions(all) == ["1", "2"]);
    server.ask("/update_weights_from_tensor", &sent(4.0));
    assert_eq!([&first.1, &second.1, &ask(&server, None).1], ["1", "2", "3"]);
    server.ask("/v1/checkpoints/rollback", &json!({ "id": all[0]["id"], "in_flight": "keep" }));
    assert_eq!(ask(&server, None), first);
    assert_ne!(first.0, before.0);
    until(&server, |all| latest(all) == "1");
    drop(server);
    let server =
        room.server(&["--served-model-name", "m", "--checkpoint-resume", "--lora-dtype", "f32"]);
    assert_eq!(ask(&server, None), first);
    let names = server.get("/v1/checkpoints?name=nobody").json();
    assert_eq!(names["data"], json!([]));
}

#[test]
fn what_is_published_when_the_server_is_told_to_stop_is_saved() {
    let room = Room::new("stopped");
    let mut server = room.server(&[]);
    let folders = [1, 2, 3].map(|seed| room.adapter(&server, seed));
    folders.iter().for_each(|folder| load(&server, "a", folder));
    server.terminate();
    assert!(server.process().wait().expect("it ends").success());
    let settings = Settings { keep: 0, better: Better::Higher };
    let archive = Archive::open(&room.archive(), settings).expect("nobody has it");
    let labels: Vec<String> = archive.list().into_iter().map(|it| it.version.label).collect();
    assert_eq!(labels, ["a@1", "a@2", "a@3"]);
}

#[test]
fn what_cannot_be_saved_or_read_is_told_and_what_serves_stays() {
    let room = Room::new("faults");
    let server = room.server(&["--checkpoint-every", "0"]);
    let folders = [1, 2].map(|seed| room.adapter(&server, seed));
    let mut answers = Vec::new();
    let mut saved = Vec::new();
    for folder in &folders {
        load(&server, "a", folder);
        answers.push(ask(&server, Some("a")));
        saved.push(server.ask("/v1/checkpoints/save", &json!({ "name": "a" })));
    }
    // Two are there: none was saved by itself.
    assert_eq!(versions(&list(&server)), ["a@1", "a@2"]);
    let spoil = |at: usize| {
        let path = Path::new(saved[at]["path"].as_str().expect("a path"));
        let path = path.join("adapter_model.safetensors");
        let mut bytes = std::fs::read(&path).expect("it is there");
        *bytes.last_mut().expect("some") ^= 1;
        std::fs::write(&path, bytes).expect("there is room");
    };
    spoil(1);
    let damaged = server.post("/v1/checkpoints/rollback", &json!({ "name": "a", "at": "latest" }));
    refused(&damaged, 409, "checkpoint_damaged");
    assert_eq!(ask(&server, Some("a")), answers[1]);
    // Nobody else has the folder meanwhile.
    let folder = room.archive();
    let mut other = command();
    other.arg("serve").arg(server.folder()).args(["--port", "0", "--checkpoint-dir"]).arg(&folder);
    let other = other.output().expect("it starts");
    let words = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success() && words.contains("another process"), "{words}");
    drop(server);
    // The one before the damaged one serves.
    let server = room.server(&["--checkpoint-resume"]);
    assert_eq!(ask(&server, Some("a")), answers[0]);
    until(&server, |all| latest(all) == "a@1");
    // A disk that takes nothing.
    std::fs::remove_dir_all(&folder).expect("it was there");
    let full = server.post("/v1/checkpoints/save", &json!({ "name": "a" }));
    refused(&full, 507, "checkpoint_not_saved");
    load(&server, "a", &folders[1]);
    assert_eq!(ask(&server, Some("a")).0, answers[1].0, "it is served all the same");
}

#[test]
fn bad_calls_are_refused_by_field() {
    let room = Room::new("refused");
    let server = room.server(&["--served-model-name", "m"]);
    for (path, body, status, word) in [
        ("save", json!({}), 400, "name"),
        ("save", json!({ "name": "nobody" }), 404, "name"),
        ("save", json!({ "name": "m", "step": -1 }), 400, "step"),
        ("save", json!({ "name": "m", "metric": "good" }), 400, "metric"),
        ("save", json!({ "name": "m", "at": "best" }), 400, "at"),
        ("rollback", json!({}), 400, "id"),
        ("rollback", json!({ "id": 3 }), 404, "id"),
        ("rollback", json!({ "id": "three" }), 400, "id"),
        ("rollback", json!({ "id": 3, "name": "m" }), 400, "id"),
        ("rollback", json!({ "name": "m", "at": "worst" }), 400, "at"),
        ("rollback", json!({ "name": "m", "version": [] }), 400, "version"),
        ("rollback", json!({ "name": "m", "at": "latest" }), 404, "checkpoint_not_found"),
        ("delete", json!({ "name": "m" }), 400, "id"),
        ("mark", json!({ "name": "m", "at": "best", "metric": 1 }), 404, "name"),
    ] {
        refused(&server.post(&format!("/v1/checkpoints/{path}"), &body), status, word);
    }
    let saved = server.ask("/v1/checkpoints/save", &json!({ "name": "m" }));
    let id = &saved["id"];
    for (path, body, word) in [
        ("mark", json!({ "id": id }), "metric"),
        ("mark", json!({ "id": id, "metric": [] }), "metric"),
        ("mark", json!({ "id": id, "metric": 1, "better": "lower" }), "better"),
        ("rollback", json!({ "id": id, "in_flight": "drop" }), "in_flight"),
        ("rollback", json!({ "id": id, "timeout_seconds": -1 }), "timeout_seconds"),
        ("delete", json!({ "id": id, "all": true }), "all"),
    ] {
        refused(&server.post(&format!("/v1/checkpoints/{path}"), &body), 400, word);
    }
    assert_eq!(list(&server), [saved]);
    refused(&server.get("/v1/checkpoints?names=m"), 400, "names");
    let none = Server::start(&[]);
    for path in ["save", "rollback", "mark", "delete"] {
        let refused = none.post(&format!("/v1/checkpoints/{path}"), &json!({ "name": "m" }));
        let words = refused.json()["error"]["message"].to_string();
        assert!(refused.status == 400 && words.contains("--checkpoint-dir"), "{words}");
    }
    let mut resumed = command();
    resumed.arg("serve").arg(none.folder()).args(["--port", "0", "--checkpoint-resume"]);
    let resumed = resumed.output().expect("it starts");
    let words = String::from_utf8_lossy(&resumed.stderr);
    assert!(!resumed.status.success() && words.contains("--checkpoint-dir"), "{words}");
}
