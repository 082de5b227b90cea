//! Grammars that mean harm, all at once, beside a client that means none: each is refused
//! by its field or answered, and the other's answers are those it has alone, in time.
#![expect(clippy::print_stdout, reason = "a test says how long the gaps were")]

use pagewise_tests::server::Server;
use pagewise_tests::server::hostile::{self, Hostile};
use pagewise_tests::server::wire::Wire;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Clients that mean harm.
const CROWD: usize = 6;
/// Answers of the other that are measured before they come.
const ANSWERS: u64 = 4;
/// How often as long an answer may take beside them: they compile on all cores of a machine
/// that may do other things, too.
const TIMES_MAX: f64 = 4.0;
/// How long a gap between two tokens may be: far above a step, far below what compiling or
/// a mask of theirs may take.
const GAP_MAX: Duration = Duration::from_secs(2);

/// An answer as it came.
struct Came {
    text: String,
    took: Duration,
    /// The longest time without a token.
    gap: Duration,
}

/// Streams an answer.
fn streamed(address: SocketAddr, seed: u64) -> Came {
    let body = json!({
        "prompt": "Hello", "max_tokens": 300, "ignore_eos": true, "seed": seed, "stream": true,
    });
    let (begun, mut gap, mut bytes) = (Instant::now(), Duration::ZERO, Vec::new());
    let mut wire = Wire::open(address);
    wire.post("/v1/completions", body.to_string().as_bytes());
    let mut last = begun;
    while !bytes.ends_with(b"\r\n0\r\n\r\n") {
        let more = wire.some(1 << 16);
        assert!(!more.is_empty(), "the stream breaks off");
        bytes.extend(more);
        (gap, last) = (gap.max(last.elapsed()), Instant::now());
    }
    let told = String::from_utf8(bytes).expect("UTF-8");
    let events = told.lines().filter_map(|line| line.strip_prefix("data: {"));
    let text = |event: &str| {
        let event: Value = serde_json::from_str(&format!("{{{event}")).expect("JSON");
        event["choices"][0]["text"].as_str().unwrap_or_default().to_owned()
    };
    Came { text: events.map(text).collect(), took: begun.elapsed(), gap }
}

/// Sends one; says whether it was answered.
fn is_answered(server: &Server, hostile: &Hostile) -> bool {
    let Hostile { name, path, body, field } = hostile;
    let mut body = body.clone();
    body["max_tokens"] = 4.into();
    match *path {
        "/v1/completions" => body["prompt"] = "x".into(),
        _ => body["messages"] = json!([{"role": "user", "content": "x"}]),
    }
    let response = server.post(path, &body);
    if response.status == 200 {
        return true;
    }
    let told = String::from_utf8_lossy(&response.body);
    assert_eq!(response.status, 400, "{name}: {told:.300}");
    // Of a tool, the field is within it.
    let named = response.param().is_some_and(|param| param.starts_with(*field));
    assert!(named, "{name}: {field}: {told:.300}");
    assert!(told.len() < 600, "{name}: it repeats what was sent");
    false
}

#[test]
fn hostile_grammars_all_at_once_neither_stop_nor_change_anybody_elses_answers() {
    let server = Server::start(&["--max-batch-size", "16"]);
    let address = server.address;
    let alone: Vec<Came> = (0..ANSWERS).map(|seed| streamed(address, seed)).collect();
    let usual = alone.iter().map(|came| came.took).max().expect("there are some");

    let hostile = hostile::all();
    let (verdicts, beside) = std::thread::scope(|scope| {
        let ask = |first: usize| {
            let (server, hostile) = (&server, &hostile);
            scope.spawn(move || {
                // Each begins elsewhere.
                let at = |number: usize| (number + first * hostile.len() / CROWD) % hostile.len();
                let verdict = |number| (at(number), is_answered(server, &hostile[at(number)]));
                let mut verdicts: Vec<_> = (0..hostile.len()).map(verdict).collect();
                verdicts.sort_unstable();
                verdicts
            })
        };
        let crowd: Vec<_> = (0..CROWD).map(ask).collect();
        let mut beside = Vec::new();
        while !crowd.iter().all(|client| client.is_finished()) {
            beside.push(streamed(address, beside.len() as u64 % ANSWERS));
        }
        let verdicts: Vec<_> =
            crowd.into_iter().map(|client| client.join().expect("fine")).collect();
        (verdicts, beside)
    });

    let answered = verdicts[0].iter().filter(|(_, answered)| *answered);
    let names: Vec<&str> = answered.map(|(at, _)| hostile[*at].name.as_str()).collect();
    assert!(!names.is_empty() && names.len() < hostile.len() / 2, "{names:?}");

    let longest = |came: &[Came]| came.iter().map(|came| came.gap).max().expect("there are some");
    let slowest = beside.iter().map(|came| came.took).max().expect("there are some");
    println!("answered: {names:?}");
    println!("alone: {usual:?}, gaps up to {:?}", longest(&alone));
    println!("beside: {} answers, {slowest:?}, gaps up to {:?}", beside.len(), longest(&beside));
    for (number, came) in beside.iter().enumerate() {
        assert_eq!(came.text, alone[number % ANSWERS as usize].text, "answer {number}");
    }
    assert!(longest(&beside) <= GAP_MAX, "somebody was kept waiting");
    assert!(slowest.as_secs_f64() <= TIMES_MAX * usual.as_secs_f64().max(0.5), "{slowest:?}");
    server.rests();
}
