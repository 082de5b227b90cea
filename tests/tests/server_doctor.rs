//! `pagewise doctor`: each trainer finds what it needs, what differs is told by call and field,
//! and the server is left as it was, whatever happens.

use pagewise_tests::server::{Server, command, send};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TRAINERS: [(&str, &str); 4] = [
    ("trl", "AsyncGRPOConfig(vllm_server_base_url="),
    ("prime-rl", "[orchestrator.model.client]\nbase_url = "),
    ("skyrl", "generator.inference_engine.external_proxy_url="),
    ("slime", "--rollout-external-engine-addrs "),
];

fn doctor(trainer: &str, address: SocketAddr) -> Command {
    let mut doctor = command();
    doctor.args(["doctor", "--as", trainer, &format!("http://{address}")]);
    doctor
}

fn told(output: &Output) -> (String, Option<i32>) {
    let words = [&output.stdout[..], &output.stderr].concat();
    (String::from_utf8(words).expect("text"), output.status.code())
}

/// What a visit could change.
fn state(server: &Server) -> Vec<Value> {
    let paths = ["/v1/models", "/v1/lora_adapters", "/is_paused", "/weight_info", "/is_sleeping"];
    paths.iter().map(|path| server.get(path).json()).collect()
}

/// What is between a server and its client: the path, and the server's status and body for who
/// calls it.
type Between = dyn Fn(&str, &mut dyn FnMut() -> (u16, String)) -> (u16, String) + Send + Sync;

/// Stands before a server, and may say something else; ends with the process.
fn between(server: SocketAddr, answer: Box<Between>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            std::thread::spawn(move || pass(stream.expect("a connection"), server, &**answer));
        }
    });
    address
}

fn pass(mut client: TcpStream, server: SocketAddr, answer: &Between) {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut some = [0; 4096];
        let count = client.read(&mut some).unwrap_or(0);
        if count == 0 {
            return;
        }
        bytes.extend_from_slice(&some[..count]);
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).expect("text").to_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|it| it.lines().next());
            break (end, length.map_or(0, |length| length.parse().expect("a number")));
        }
    };
    let mut body = vec![0; (head + 4 + length) - bytes.len()];
    client.read_exact(&mut body).expect("the body comes");
    bytes.extend(body);
    let request = String::from_utf8(bytes).expect("text");
    let path = request.split(' ').nth(1).expect("a path").to_owned();
    let closing = request.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    let mut kind = "content-type: application/json".to_owned();
    let mut forward = || {
        let mut own = TcpStream::connect(server).expect("a connection");
        own.write_all(closing.as_bytes()).expect("sent");
        let mut reply = String::new();
        own.read_to_string(&mut reply).expect("text");
        let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
        let told = head.lines().find(|line| line.to_lowercase().starts_with("content-type"));
        kind = told.unwrap_or("content-type: text/plain").to_owned();
        (head[9..12].parse().expect("a status"), body.to_owned())
    };
    let (status, body) = answer(&path, &mut forward);
    let length = body.len();
    let reply = format!("HTTP/1.1 {status} So\r\n{kind}\r\ncontent-length: {length}\r\n\r\n{body}");
    // Who is interrupted reads no more.
    let _ = client.write_all(reply.as_bytes());
}

#[test]
fn each_trainer_finds_what_it_needs_and_the_server_is_as_it_was() {
    let server = Server::of_the_box();
    let before = state(&server);
    for (trainer, line) in TRAINERS {
        let (words, code) = told(&doctor(trainer, server.address).output().expect("it runs"));
        assert_eq!(code, Some(0), "{trainer}: {words}");
        assert!(words.contains(line), "{trainer}: {words}");
        assert!(words.contains(&server.address.to_string()), "{trainer}: {words}");
        assert_eq!(state(&server), before, "{trainer}: {words}");
    }
    server.rests();
}

#[test]
fn adapters_and_weights_that_are_given_are_published() {
    let server = Server::start(&[]);
    let before = state(&server);
    for trainer in ["prime-rl", "slime"] {
        let mut doctor = doctor(trainer, server.address);
        let (words, code) =
            told(&doctor.arg("--weights").arg(server.folder()).output().expect("it runs"));
        assert_eq!(code, Some(0), "{words}");
        let update = words.lines().find(|line| line.starts_with("POST /update_weights"));
        assert!(update.is_some_and(|line| line.ends_with(": ok")), "{words}");
        assert_eq!(state(&server), before, "{words}");
    }
    // No adapter is there: the call is told as it was refused.
    let mut doctor = doctor("skyrl", server.address);
    let (words, code) =
        told(&doctor.arg("--adapter").arg(server.folder()).output().expect("it runs"));
    assert_eq!(code, Some(1), "{words}");
    let load = "POST /skyrl/v1/load_lora_adapter (the new policy): status: expected 200, got 4";
    assert!(words.contains(load), "{words}");
    assert_eq!(state(&server), before, "{words}");
}

/// Changes replies to such a path.
fn changed(server: &Server, path: &'static str, change: fn(&str) -> String) -> SocketAddr {
    let answer = move |called: &str, forward: &mut dyn FnMut() -> (u16, String)| {
        let (status, body) = forward();
        let own = called.split('?').next() == Some(path);
        (status, if own { change(&body) } else { body })
    };
    between(server.address, Box::new(answer))
}

#[test]
fn what_differs_is_told_by_call_and_field() {
    type Case = (&'static str, &'static str, fn(&str) -> String, &'static str);
    let cases: [Case; 9] = [
        (
            "trl",
            "/v1/completions",
            |body| body.replace("\"token_ids\"", "\"ids\""),
            "choices[0].token_ids: expected a list, got nothing",
        ),
        (
            "trl",
            "/v1/completions",
            |body| body.replace("\"token_logprobs\":[", "\"token_logprobs\":[NaN,"),
            "choices[0].logprobs.token_logprobs[0]: expected a finite number, got \"NaN\"",
        ),
        (
            "trl",
            "/server_info",
            |body| body.replace("\"lora_config\":{", "\"other\":{"),
            "vllm_config.lora_config: expected an object, here or as weight_transfer_config, got nothing",
        ),
        (
            "prime-rl",
            "/inference/v1/generate",
            |body| body.replace("\"token_id:", "\""),
            "choices[0].logprobs.content[0].token: expected \"token_id:",
        ),
        (
            "prime-rl",
            "/inference/v1/generate",
            |body| body.replace("\"start\":0", "\"start\":1"),
            "choices[0].weight_versions[0].start: expected 0, got 1",
        ),
        (
            "prime-rl",
            "/v1/models",
            |body| body.replace("max_model_len", "length"),
            "data[0].max_model_len: expected a whole number from 0, got nothing",
        ),
        (
            "skyrl",
            "/skyrl/v1/load_lora_adapter",
            |body| body.replace("lora_int_id", "id"),
            "lora_int_id: expected a whole number from 0, got nothing",
        ),
        (
            "slime",
            "/generate",
            |body| {
                body.replace(
                    "\"output_token_logprobs\":[[",
                    "\"output_token_logprobs\":[[-Infinity,",
                )
            },
            "meta_info.output_token_logprobs[0][0]: expected a finite number, got \"-Infinity\"",
        ),
        (
            "slime",
            "/get_weight_version",
            |_| "default".to_owned(),
            "body: expected application/json, got default",
        ),
    ];
    let server = Server::start(&[]);
    let before = state(&server);
    for (trainer, path, change, field) in cases {
        let address = changed(&server, path, change);
        let (words, code) = told(&doctor(trainer, address).output().expect("it runs"));
        assert_eq!(code, Some(1), "{trainer} {path}: {words}");
        let calls =
            words.lines().filter(|line| line.starts_with("GET") || line.starts_with("POST"));
        let differing: Vec<&str> = calls
            .filter(|line| !line.ends_with(": ok") && !line.contains(": not tried: "))
            .collect();
        assert!(differing.iter().any(|line| line.contains(field)), "{trainer} {path}: {words}");
        for line in differing {
            let called = line.split(' ').nth(1).and_then(|called| called.split('?').next());
            assert_eq!(called, Some(path), "{trainer}: {words}");
        }
        assert_eq!(state(&server), before, "{trainer} {path}: {words}");
    }
}

#[test]
fn what_a_failure_leaves_is_put_back() {
    let server = Server::start(&[]);
    let before = state(&server);
    // The server never hears of the first of these calls.
    for path in ["/resume", "/v1/unload_lora_adapter"] {
        let first = AtomicBool::new(true);
        let answer = move |called: &str, forward: &mut dyn FnMut() -> (u16, String)| {
            let broken = called == path && first.swap(false, Ordering::SeqCst);
            if broken { (500, "broken".to_owned()) } else { forward() }
        };
        let address = between(server.address, Box::new(answer));
        let (words, code) = told(&doctor("prime-rl", address).output().expect("it runs"));
        assert_eq!(code, Some(1), "{words}");
        assert!(words.contains("status: expected 200, got 500: broken"), "{words}");
        assert_eq!(state(&server), before, "{words}");
    }
}

#[test]
fn who_ends_a_visit_leaves_nothing_behind() {
    let server = Server::start(&[]);
    let before = state(&server);
    let answer = |called: &str, forward: &mut dyn FnMut() -> (u16, String)| {
        let reply = forward();
        if called == "/v1/load_lora_adapter" {
            loop {
                std::thread::park();
            }
        }
        reply
    };
    let address = between(server.address, Box::new(answer));
    let temporary = std::env::temp_dir().join(format!("pagewise-ended-{}", std::process::id()));
    std::fs::create_dir_all(&temporary).expect("a folder");
    let folders = || std::fs::read_dir(&temporary).expect("it is there").map(|it| it.expect("one"));
    for signal in ["-INT", "-TERM", "-HUP"] {
        let mut doctor = doctor("trl", address);
        doctor.env("TMPDIR", &temporary).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = doctor.spawn().expect("it runs");
        // The server has the adapter, and nobody has heard of it.
        while server.get("/v1/lora_adapters").json()["data"] == json!([]) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(server.get("/is_paused").json(), json!({ "is_paused": true }));
        // Nobody else writes where the adapter is, nor knows before where that will be.
        let own = folders().next().expect("the adapter's");
        assert_eq!(own.metadata().expect("it is there").permissions().mode() & 0o777, 0o700);
        assert!(!own.file_name().to_string_lossy().ends_with(&format!("-{}", child.id())));
        send(signal, &child);
        let (words, code) = told(&child.wait_with_output().expect("it ends"));
        assert_eq!(code, Some(1), "{signal}: {words}");
        assert!(words.contains("interrupted"), "{signal}: {words}");
        assert_eq!(state(&server), before, "{signal}: {words}");
        assert_eq!(folders().count(), 0, "{signal}");
    }
    std::fs::remove_dir(&temporary).expect("nothing is left in it");
}

#[test]
fn a_server_that_cannot_be_asked_is_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let (words, code) = told(&doctor("trl", free).output().expect("it runs"));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains(&format!("http://{free}: ")), "{words}");

    let (words, code) = told(&doctor("verl", free).output().expect("it runs"));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("trl, prime-rl, skyrl, slime"), "{words}");

    // By what it was given.
    let (words, code) =
        told(&command().args(["doctor", "--as", "trl", "localhost:1"]).output().expect("it runs"));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("URL: must begin with http://, not `localhost:1`"), "{words}");
    assert!(!words.contains("--base-url"), "{words}");

    // Somebody else's pause is not ended.
    let server = Server::start(&[]);
    server.post("/pause?mode=keep", &json!({}));
    let (words, code) = told(&doctor("trl", server.address).output().expect("it runs"));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("paused"), "{words}");
    assert_eq!(server.get("/is_paused").json(), json!({ "is_paused": true }));
}

#[test]
fn programs_read_lines_of_json() {
    let server = Server::start(&[]);
    let address = changed(&server, "/get_world_size", |_| "{\"world_size\": \"1\"}".to_owned());
    let output = doctor("skyrl", address).arg("--json").output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(
        lines[0],
        json!({
            "call": "GET /get_world_size", "for": "its ranks", "outcome": "differs",
            "differences": [
                { "field": "world_size", "expected": "a whole number from 0", "got": "\"1\"" },
            ],
        })
    );
    let (last, calls) = lines.split_last().expect("there are some");
    let count = |outcome: &str| calls.iter().filter(|line| line["outcome"] == outcome).count();
    assert_eq!((count("differs"), &last["differing"]), (1, &json!(1)));
    assert!(count("ok") > 8 && count("not tried") > 0, "{text}");
    let configuration = last["configuration"].as_array().expect("a list");
    assert!(configuration.contains(&json!("generator.inference_engine.run_engines_locally=false")));
}
