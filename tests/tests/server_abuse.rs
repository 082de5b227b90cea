//! What bad clients do: the server answers or refuses each in words, keeps serving the
//! others, and every page is free afterwards.

use pagewise_tests::server::wire::Wire;
use pagewise_tests::server::{Server, Shared};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Steps in which an engine may go on after a client has gone: on a machine that is busy
/// otherwise, many pass until the system tells.
const STEPS_UNTIL_TOLD: u64 = 100;

fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&["--max-batch-size", "16"])
}

fn long(stream: bool) -> Vec<u8> {
    let body = json!({
        "prompt": "a prompt of more than one page, which is thirty-two tokens", "n": 4,
        "max_tokens": 400, "ignore_eos": true, "stream": stream,
    });
    body.to_string().into_bytes()
}

/// Answers that were given up, by `/metrics`.
fn aborted(server: &Server) -> f64 {
    let text = String::from_utf8(server.get("/metrics").body).expect("text");
    let line = text.lines().find(|line| line.contains("finished_reason=\"abort\""));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

/// It answers as if nothing had been.
fn serves(server: &Server) {
    let told = server.ask("/v1/completions", &json!({"prompt": "Hello", "max_tokens": 2}));
    assert_eq!(told["choices"].as_array().map(Vec::len), Some(1));
    server.rests();
}

#[test]
fn malformed_json_is_refused() {
    let server = server();
    let deep = "[".repeat(200_000);
    let bodies: [&[u8]; 12] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\"x\"",
        b"{\"prompt\": }",
        b"{\"prompt\": \"\\ud800\"}",
        b"{\"prompt\": \"\xff\xfe\"}",
        b"{\"prompt\": \"x\", \"max_tokens\": 1e400}",
        b"{\"prompt\": \"x\"} and more",
        b"\x00\x01\x02",
        deep.as_bytes(),
    ];
    for body in bodies {
        let mut wire = Wire::open(server.address);
        wire.post("/v1/completions", body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(wire.status(), Some(400), "{shown}");
    }
    serves(&server);
}

#[test]
fn a_megabyte_is_answered_or_refused() {
    let server = server();
    for prompt in
        ["a".repeat(1 << 20), " ".repeat(1 << 20), "🙂".repeat(1 << 18), "\u{0}".repeat(1 << 20)]
    {
        let response = server.post("/v1/completions", &json!({"prompt": prompt, "max_tokens": 1}));
        assert_eq!(response.status, 400);
        let message = json!({"messages": [{"role": "user", "content": prompt}]});
        assert_eq!(server.post("/v1/chat/completions", &message).status, 400);
    }
    let many: Vec<u32> = vec![65; 1 << 18];
    assert_eq!(server.post("/v1/completions", &json!({"prompt": many})).status, 400);
    serves(&server);
}

#[test]
fn http_that_is_none_is_dropped() {
    let server = server();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let mut wire = Wire::open(server.address);
        wire.send(bytes);
        let status = wire.status();
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{status:?}");
    }
    let mut wire = Wire::open(server.address);
    let head: String = (0..500).map(|n| format!("x-{n}: {}\r\n", "y".repeat(100))).collect();
    wire.send(format!("GET /health HTTP/1.1\r\n{head}\r\n").as_bytes());
    assert!(wire.status().is_none_or(|status| status >= 400));
    serves(&server);
}

#[test]
fn half_requests_do_not_keep_others_waiting() {
    let server = server();
    let half: Vec<Wire> = (0..200)
        .map(|number| {
            let mut wire = Wire::open(server.address);
            wire.send(match number % 4 {
                0 => b"".as_slice(),
                1 => b"POST /v1/compl",
                2 => b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n",
                _ => {
                    b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n\
                       Content-Length: 50\r\n\r\n{\"prompt\""
                }
            });
            wire
        })
        .collect();
    serves(&server);
    drop(half);
    serves(&server);
}

#[test]
fn large_bodies_have_room_together_and_keep_no_small_one_waiting() {
    let server = Server::start(&["--max-body-bytes", "1MiB"]);
    let body = json!({"prompt": "x".repeat(900 << 10)}).to_string();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: server\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let begin = |part: &str| {
        let mut wire = Wire::open(server.address);
        wire.send(head.as_bytes());
        wire.send(part.as_bytes());
        wire
    };
    // Four take the room, and never end.
    let mut half: Vec<Wire> = (0..4).map(|_| begin(&body[..body.len() / 2])).collect();
    std::thread::sleep(Duration::from_millis(500));
    let begun = Instant::now();
    server.ask("/v1/completions", &json!({"prompt": "Hello", "max_tokens": 2}));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    std::thread::scope(|scope| {
        let fifth = scope.spawn(|| begin(&body).status());
        std::thread::sleep(Duration::from_secs(1));
        assert!(!fifth.is_finished(), "it waits for room");
        half.pop();
        assert_eq!(fifth.join().expect("answered"), Some(400), "its turn: its prompt is too long");
    });
    drop(half);
    serves(&server);
}

#[test]
fn a_client_that_goes_gives_its_pages_back_within_steps() {
    // Its own, so that nobody else makes steps.
    let server = Server::start(&[]);
    for stream in [false, true] {
        let mut wire = Wire::open(server.address);
        wire.post("/v1/completions", &long(stream));
        let begun = Instant::now();
        while server.count("running_last") < 4 {
            assert!(begun.elapsed() < Duration::from_secs(30), "it never ran");
        }
        let steps = server.count("batches_processed");
        drop(wire);
        server.rests();
        // The step that has begun, and those until the system tells that the client has
        // gone: of some four hundred.
        let steps = server.count("batches_processed") - steps;
        assert!(steps <= STEPS_UNTIL_TOLD, "{steps} steps");
    }
    let count = aborted(&server);
    assert!(count >= 8.0, "they were given up, not finished: {count}");
}

#[test]
fn a_client_that_goes_while_it_waits_leaves_the_queue() {
    // One seat: of a hundred answers, one is written at a time, and the second client's
    // comes after all of them.
    let server = Server::start(&["--max-batch-size", "1"]);
    let ask = |choices: u32| {
        let mut wire = Wire::open(server.address);
        let body = json!({
            "prompt": "x", "n": choices, "max_tokens": 400, "ignore_eos": true, "stream": true,
        });
        wire.post("/v1/completions", body.to_string().as_bytes());
        wire
    };
    let mut first = ask(100);
    assert!(!first.some(1).is_empty(), "it answers");
    let second = ask(1);
    let begun = Instant::now();
    while server.count("requests") < 2 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is not taken");
    }
    drop(second);
    while aborted(&server) < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "it waits though nobody listens");
    }
    assert!(server.count("queue_depth_last") > 0, "it ran, where others had come before it");
    drop(first);
    server.rests();
}

#[test]
fn a_slow_reader_stalls_nobody_and_holds_no_pages() {
    let server = Server::start(&["--max-batch-size", "40", "--max-concurrent-streams", "1"]);
    let short = |stream: bool| json!({"prompt": "Hello", "max_tokens": 2, "stream": stream});
    // Far more than a connection keeps on its way.
    let body = json!({
        "prompt": "x", "n": 32, "max_tokens": 480, "ignore_eos": true, "stream": true,
        "logprobs": 20, "return_tokens_as_token_ids": true,
    });
    let mut slow = Wire::open(server.address);
    slow.post("/v1/completions", body.to_string().as_bytes());
    assert!(!slow.some(1).is_empty(), "a first byte, and no more are read");
    server.ask("/v1/completions", &short(false));
    assert!(server.count("running_last") > 0, "others are served beside it");
    // All its answers are there, and nobody has their pages,
    serves(&server);
    // but they are not sent: the one stream that may be open still is.
    assert_eq!(server.post("/v1/completions", &short(true)).status, 429);
    let told = slow.rest();
    assert!(told.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n"), "it has all of them");
    assert_eq!(server.post("/v1/completions", &short(true)).status, 200);
    server.rests();
}

#[test]
fn a_thousand_come_and_go() {
    let server = server();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for number in 0..250 {
                    let mut wire = Wire::open(server.address);
                    match (number + part) % 5 {
                        0 => {}
                        1 => wire.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"),
                        2 => wire.post("/v1/completions", &long(false)),
                        3 => wire.post("/v1/completions", &long(true)),
                        _ => {
                            wire.post("/v1/completions", &long(true));
                            wire.some(64);
                        }
                    }
                }
            });
        }
    });
    serves(&server);
    assert!(server.count("requests") >= 100, "many of them were taken");
}

#[test]
fn exhausted_pages_are_shared_out_or_refused_in_words() {
    // So few that four answers at their full length do not fit.
    let server = Server::start(&[
        "--kv-cache-memory",
        "200KiB",
        "--max-batch-size",
        "8",
        "--max-model-len",
        "256",
    ]);
    let pages = server.count("pages_total");
    assert!((8..40).contains(&pages), "{pages}");
    let room = pages * 32;
    let ask = |number: u64| {
        let body = json!({
            "prompt": format!("prompt {number}"), "max_tokens": 200, "ignore_eos": true, "seed": number,
        });
        server.ask("/v1/completions", &body)["choices"][0].clone()
    };
    let alone: Vec<Value> = (0..6).map(ask).collect();
    let together: Vec<Value> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|number| scope.spawn(move || ask(number))).collect();
        asked.into_iter().map(|asked| asked.join().expect("answered")).collect()
    });
    assert!(room < 6 * 200, "{room} tokens fit");
    assert_eq!(alone, together, "who waited gets the same answer");
    assert!(server.count("preemptions") > 0, "somebody had to wait");
    server.rests();
}
