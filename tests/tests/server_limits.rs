//! A server in a process with few addresses (`ulimit -v`, which Linux keeps to): what does not
//! fit is refused with numbers, at the start and later, and nothing ends the process.

#![cfg(target_os = "linux")]

use pagewise_tests::lora::adapter;
use pagewise_tests::server::wire::Wire;
use pagewise_tests::server::{Server, checkpoint, command_within};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::channel;

/// Enough for a server's threads, and a few hundred MiB besides.
const KIB: u64 = 2800 << 10;

/// A checkpoint's folder that goes with its holder.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().expect("of its own"));
    }
}

#[test]
fn a_budget_that_does_not_fit_is_refused_with_numbers_at_the_start() {
    let folder = Folder(checkpoint::write());
    let refused = |kib: u64, options: &[&str]| {
        let mut command = command_within(kib);
        command.arg("serve").arg(&folder.0).args(["--port", "0", "--threads", "1"]).args(options);
        let output = command.output().expect("it ends");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        told
    };
    let many = ["--max-batch-size", "4096", "--kv-cache-memory"];
    let told = refused(KIB, &[&many[..], &["512MiB"]].concat());
    assert!(told.contains("--kv-cache-memory: 512.0 MiB are needed, "), "{told}");
    assert!(told.contains("MiB are left: of "), "{told}");
    let told = refused(1 << 20, &["--kv-cache-memory", "8MiB"]);
    assert!(told.contains("8.0 MiB are needed, 0 B are left"), "{told}");
    let told = refused(1 << 20, &[]);
    assert!(told.contains("of 0 B available memory"), "{told}");
    // What is not asked for is made to fit.
    let server = Server::within(KIB, &many[..2]);
    assert!((1..65_536).contains(&server.count("pages_total")));
    server.ask("/v1/completions", &json!({ "prompt": "Hello", "max_tokens": 2 }));
}

/// A call, and what may be answered.
fn call(server: &Server, path: &str, body: &Value) -> u16 {
    let response = server.post(path, body);
    let told = String::from_utf8_lossy(&response.body);
    let status = response.status;
    assert!([200, 400, 413, 429, 503, 507].contains(&status), "{path}: {status} {told}");
    let numbers = status == 200 || told.contains(|c: char| c.is_ascii_digit());
    assert!(numbers, "{path}: {status} without numbers: {told}");
    status
}

fn many_answers(server: &Server) -> Vec<u16> {
    let body = |more: Value| {
        let mut body = json!({ "prompt": "long ".repeat(40), "n": 24, "ignore_eos": true });
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("one"));
        body
    };
    let long = body(json!({ "max_tokens": 60 }));
    let listed = body(json!({ "max_tokens": 1, "prompt_logprobs": 20 }));
    (0..6)
        .map(|at| call(server, "/v1/completions", if at % 2 == 0 { &long } else { &listed }))
        .collect()
}

/// While it rests, answers wait: of three calls for sixty, two find no place among eighty.
fn more_answers_than_wait(server: &Server) {
    assert_eq!(server.post("/pause?mode=keep", &json!({})).status, 200);
    let body = json!({ "prompt": "a", "n": 60, "max_tokens": 2 });
    std::thread::scope(|scope| {
        let (to, told) = channel();
        for to in [to.clone(), to.clone(), to] {
            let body = &body;
            scope.spawn(move || to.send(call(server, "/v1/completions", body)));
        }
        assert_eq!([told.recv(), told.recv()], [Ok(429), Ok(429)]);
        assert_eq!(server.post("/resume", &json!({})).status, 200);
        assert_eq!(told.recv(), Ok(200));
    });
}

fn large_bodies(server: &Server) -> Vec<u16> {
    let each = (0..2).map(|_| {
        let mut body = br#"{"prompt": ["#.to_vec();
        body.resize(24 << 20, b' ');
        body[12..].chunks_exact_mut(2).for_each(|two| two.copy_from_slice(b"0,"));
        body.extend(b"0], \"max_tokens\": 1}");
        let mut wire = Wire::open(server.address);
        wire.post("/v1/completions", &body);
        let status = wire.status().expect("an answer");
        assert!([400, 413, 429].contains(&status), "{status}");
        status
    });
    each.collect()
}

fn many_adapters(server: &Server, folder: &Path, first: u32) -> Vec<u16> {
    let load = |name| {
        let body = json!({ "lora_name": format!("many-{name}"), "lora_path": folder });
        call(server, "/v1/load_lora_adapter", &body)
    };
    (first..first + 6).map(load).collect()
}

fn many_episodes(server: &Server, first: u32) -> Vec<u16> {
    let each = (first..first + 25).map(|number| {
        let name = format!("many-{number}");
        let start = json!({ "episode_id": name, "reserve_tokens": 400 });
        let status = call(server, "/v1/episodes/start", &start);
        if status == 200 {
            let step = json!({ "episode_id": name, "observation": "a", "max_tokens": 40 });
            call(server, "/v1/episodes/step", &step);
        }
        status
    });
    each.collect()
}

#[test]
fn under_load_it_refuses_with_numbers_and_answers_as_before_when_that_has_gone() {
    let options = ["--max-queue", "64", "--max-batch-size", "16", "--max-lora-rank", "64"];
    let server = Server::within(KIB, &options);
    let base = checkpoint::open(server.folder());
    let folder = server.folder().with_file_name("adapter");
    let adapter = adapter(&base, &["_proj"], 64, 3);
    ::checkpoint::write_adapter(&folder, &adapter, &base.config, "base").expect("it is written");
    let ask = || {
        let body = json!({
            "prompt": "As before", "max_tokens": 12, "temperature": 0, "logprobs": 3,
            "return_token_ids": true,
        });
        server.ask("/v1/completions", &body)["choices"][0].clone()
    };
    let before = ask();
    more_answers_than_wait(&server);
    let statuses = Mutex::new(Vec::new());
    let tell = |told: Vec<u16>| statuses.lock().expect("whole").extend(told);
    std::thread::scope(|scope| {
        for at in 0..2 {
            scope.spawn(|| tell(many_answers(&server)));
            scope.spawn(|| tell(large_bodies(&server)));
            let folder = &folder;
            let (tell, server) = (&tell, &server);
            scope.spawn(move || tell(many_adapters(server, folder, at * 100)));
            scope.spawn(move || tell(many_episodes(server, at * 100)));
        }
    });
    let statuses = statuses.into_inner().expect("whole");
    for status in [200, 400, 413] {
        assert!(statuses.contains(&status), "{status} was not met: {statuses:?}");
    }
    for name in (0..130).map(|number| format!("many-{number}")) {
        server.post("/v1/episodes/end", &json!({ "episode_id": name }));
        server.post("/v1/unload_lora_adapter", &json!({ "lora_name": name }));
    }
    assert_eq!(ask(), before);
    server.rests();
}
