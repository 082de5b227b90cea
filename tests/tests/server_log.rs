//! What a server tells about itself: its settings at the start, a line for every request.

use pagewise_tests::server::wire::Wire;
use pagewise_tests::server::{Server, checkpoint, command};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long a line may take.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn settings_are_told_at_the_start_and_every_request_when_it_has_ended() {
    let folder = checkpoint::write();
    let log = folder.join("log");
    let mut serve = command();
    serve.arg("serve").arg(&folder).args(["--threads", "1", "--host", "localhost"]);
    serve.args(["--port", "0", "--log-format", "json", "--max-queue", "77"]);
    serve.env("PAGEWISE_API_KEY", "secret").stdout(Stdio::piped());
    serve.stderr(File::create(&log).expect("a file"));
    let mut child = serve.spawn().expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut told = String::new();
    let address = loop {
        let line = lines.next().expect("it says where it listens").expect("text");
        if let Some(address) = line.strip_prefix("listening http://") {
            break address.trim().parse().expect("an address");
        }
        told.push_str(&line);
        told.push('\n');
    };
    let of = |name: &str| {
        let line = told.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} is not in {told}")).trim()
    };
    assert_eq!((of("max-queue "), of("host "), of("api-key ")), ("77", "localhost", "(not shown)"));
    assert!(!told.contains("secret"));
    std::thread::spawn(move || lines.for_each(drop));
    let server = Server::already(child, address);

    let entry = |id: &str| {
        let begun = Instant::now();
        loop {
            let text = std::fs::read_to_string(&log).expect("a file");
            let entries = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            let mut own = entries.filter(|entry: &Value| entry["request"] == id);
            if let Some(entry) = own.next() {
                assert!(own.next().is_none(), "one line for each");
                break entry;
            }
            assert!(begun.elapsed() < SOON, "{id} is not in {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    let ask = |id: &str, stream: bool, tokens: u32| {
        let body = json!({
            "prompt": "x", "max_tokens": tokens, "n": 2, "ignore_eos": true, "stream": stream,
        });
        let (body, mut wire) = (body.to_string(), Wire::open(address));
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Authorization: Bearer secret\r\nX-Request-Id: {id}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        wire.send(&[head.as_bytes(), body.as_bytes()].concat());
        assert_eq!(wire.status(), Some(200), "{id}");
        wire
    };
    for (id, stream) in [("whole", false), ("streamed", true)] {
        let _wire = ask(id, stream, 20);
        let entry = entry(id);
        let of = |name: &str| entry[name].clone();
        assert_eq!((of("status"), of("tokens")), (json!(200), json!(40)), "{entry}");
        assert_eq!((of("finish"), of("path")), (json!("length"), json!("/v1/completions")));
        assert!(entry["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    }
    drop(ask("gone", true, 480));
    assert_eq!(entry("gone")["finish"], "client gone");
    drop(server);
    std::fs::remove_dir_all(folder.parent().expect("its own")).expect("removed");
}
