//! How a server begins and ends: what clients are told while its model is loaded and while
//! it shuts down, and how it ends.

use pagewise_tests::server::wire::Wire;
use pagewise_tests::server::{Response, Server, checkpoint, command};
use serde_json::{Value, json};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take for what it does at once.
const SOON: Duration = Duration::from_secs(30);

/// Answers of so many tokens that they outlast what happens meanwhile.
fn endless(stream: bool) -> Value {
    json!({"prompt": "x", "max_tokens": 480, "ignore_eos": true, "n": 128, "stream": stream})
}

/// Waits until something is so.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server that answers, at most one at a time, and is told to stop.
fn draining(options: &[&str]) -> (Server, Wire) {
    let server = Server::start(&[&["--max-batch-size", "1"], options].concat());
    let mut wire = Wire::open(server.address);
    wire.post("/v1/completions", endless(true).to_string().as_bytes());
    assert_eq!(wire.status(), Some(200));
    server.terminate();
    until("it is ready though it shuts down", || server.get("/ready").status == 503);
    (server, wire)
}

fn is_refused(response: &Response, code: &str, words: &str) {
    assert_eq!((response.status, response.header("retry-after")), (503, Some("5")));
    let error = &response.json()["error"];
    assert_eq!((&error["code"], &error["message"]), (&json!(code), &json!(words)));
    assert_eq!(error["type"], "server_error");
}

#[test]
fn a_server_that_is_told_to_stop_finishes_what_is_begun() {
    let mut server = Server::start(&[]);
    let long = json!({"prompt": "x", "max_tokens": 400, "ignore_eos": true, "n": 8});
    let answer = std::thread::scope(|scope| {
        let asked = scope.spawn(|| server.ask("/v1/completions", &long));
        until("it never ran", || server.count("running_last") > 0);
        server.terminate();
        asked.join().expect("answered")
    });
    let choices = answer["choices"].as_array().expect("a list");
    assert_eq!(choices.len(), 8);
    assert!(choices.iter().all(|choice| choice["finish_reason"] == "length"));
    assert!(server.process().wait().expect("it ends").success());
}

#[test]
fn while_it_shuts_down_clients_are_told_so() {
    let (mut server, wire) = draining(&[]);
    assert_eq!(server.get("/ready").json()["status"], "shutting down");
    assert_eq!(server.get("/health").status, 200);
    let body = json!({"prompt": "x", "max_tokens": 1});
    let refused = server.post("/v1/completions", &body);
    is_refused(&refused, "shutting_down", "the server is shutting down");
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(server.count("running_last") > 0, "what is begun goes on");
    // Nothing is left to do when its only client goes.
    drop(wire);
    assert!(server.process().wait().expect("it ends").success());
}

#[test]
fn answers_that_outlast_the_drain_end_in_words() {
    let mut server = Server::start(&["--max-batch-size", "1", "--drain-timeout-seconds", "1"]);
    let [whole, streamed] = std::thread::scope(|scope| {
        let ask = |stream| {
            let server = &server;
            scope.spawn(move || server.post("/v1/completions", &endless(stream)))
        };
        let asked = [ask(false), ask(true)];
        until("they are not taken", || server.count("requests") == 2);
        server.terminate();
        asked.map(|asked| asked.join().expect("answered"))
    });
    is_refused(&whole, "shutting_down", "the server is shutting down");
    assert_eq!(streamed.status, 200);
    let events = streamed.events();
    let last = events.last().expect("an event before the end");
    assert_eq!(last["error"]["message"], "the server is shutting down");
    assert_eq!(last["error"]["code"], "shutting_down");
    assert!(server.process().wait().expect("it ends").success());
}

#[test]
fn a_server_that_is_told_twice_ends_at_once() {
    let (mut server, _wire) = draining(&["--drain-timeout-seconds", "600"]);
    server.terminate();
    let mut status = None;
    until("it goes on", || {
        status = server.process().try_wait().expect("its state");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(1));
}

#[test]
fn while_the_model_is_loaded_clients_are_told_so() {
    let Loading { mut server, folder, tokenizer, words: _words } = Loading::start();
    for path in ["/health", "/ready"] {
        let told = server.get(path);
        assert_eq!((told.status, &told.json()["status"]), (503, &json!("loading")), "{path}");
    }
    let body = json!({"prompt": "x", "max_tokens": 1});
    let refused = server.post("/v1/completions", &body);
    is_refused(&refused, "loading", "the model is being loaded");
    is_refused(&server.get("/v1/models"), "loading", "the model is being loaded");
    assert_eq!(server.get("/").status, 200, "the page shows that it is loaded");
    std::fs::write(folder.join("tokenizer.json"), tokenizer).expect("written");
    until("the model is not loaded", || server.get("/ready").status == 200);
    assert_eq!(server.post("/v1/completions", &body).status, 200);
    server.terminate();
    assert!(server.process().wait().expect("it ends").success());
    std::fs::remove_dir_all(folder.parent().expect("its own")).expect("removed");
}

#[test]
fn told_to_stop_while_its_model_is_loaded_a_server_says_so_and_ends() {
    for signal in ["-TERM", "-INT"] {
        let Loading { mut server, folder, mut words, .. } = Loading::start();
        assert_eq!(server.get("/ready").status, 503);
        server.signal(signal);
        let begun = Instant::now();
        let status = server.process().wait().expect("it ends");
        assert!(status.success() && begun.elapsed() < Duration::from_secs(20), "{status}");
        let mut told = String::new();
        words.read_to_string(&mut told).expect("text");
        assert_eq!(
            told.matches("told to stop while the model is being loaded").count(),
            1,
            "{told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
        std::fs::remove_dir_all(folder.parent().expect("its own")).expect("removed");
    }
}

/// A server whose model is not loaded until somebody writes its tokenizer.
struct Loading {
    server: Server,
    folder: PathBuf,
    /// What its tokenizer is.
    tokenizer: Vec<u8>,
    /// What it says.
    words: ChildStderr,
}

impl Loading {
    fn start() -> Self {
        let folder = checkpoint::write();
        // A pipe: who opens it waits until somebody writes.
        let pipe = folder.join("tokenizer.json");
        let tokenizer = std::fs::read(&pipe).expect("a file");
        std::fs::remove_file(&pipe).expect("removed");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        let address = free();
        let mut serve = command();
        serve.arg("serve").arg(&folder).args(["--threads", "1", "--log-level", "warn"]);
        serve.args(["--port", &address.port().to_string()]).stdout(Stdio::null());
        let mut child = serve.stderr(Stdio::piped()).spawn().expect("the binary starts");
        let words = child.stderr.take().expect("piped");
        let server = Server::already(child, address);
        until("it listens", || std::net::TcpStream::connect(address).is_ok());
        Self { server, folder, tokenizer, words }
    }
}

/// An address that nobody listens at.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}
