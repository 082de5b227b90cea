//! A server that registers with Atropos' trajectory API, which a few lines here play: what it
//! is handed has the API's fields, and what its environments call is answered.

use pagewise_tests::server::{Server, checkpoint, command};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long what the server does by itself may take.
const SOON: Duration = Duration::from_secs(60);

/// A trajectory API: what it is asked, as it comes. Its trainer begins at the second try.
fn api() -> (SocketAddr, Receiver<(String, Value)>) {
    let mut tries = 0;
    api_that(move |path, _| {
        let reply = match path {
            "POST /register-env" => {
                tries += 1;
                if tries == 1 { json!({"status": "wait for trainer to start"}) } else { known(3) }
            }
            "POST /scored_data" => json!({"status": "received"}),
            _ => json!({"status": "success"}),
        };
        (200, reply)
    })
}

/// What who registers is told.
fn known(id: u64) -> Value {
    json!({
        "status": "success", "env_id": id, "wandb_name": "tiny_0", "checkpoint_dir": "/c",
        "starting_step": 0, "checkpoint_interval": 10, "num_steps": 100,
    })
}

/// One that answers so.
fn api_that(
    mut answer: impl FnMut(&str, &Value) -> (u16, Value) + Send + 'static,
) -> (SocketAddr, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (asked, asks) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let (mut bytes, mut part) = (Vec::new(), [0; 4096]);
            let (path, body) = loop {
                let count = stream.read(&mut part).expect("a request");
                bytes.extend_from_slice(&part[..count]);
                if let Some(request) = whole(&bytes) {
                    break request;
                }
            };
            let (status, reply) = answer(&path, &body);
            let text = reply.to_string();
            let head = "Content-Type: application/json\r\nConnection: close";
            let length = text.len();
            let sent = write!(
                stream,
                "HTTP/1.1 {status} X\r\n{head}\r\nContent-Length: {length}\r\n\r\n{text}"
            );
            if sent.is_err() || asked.send((path, body)).is_err() {
                return;
            }
        }
    });
    (address, asks)
}

/// A request's method and path, and its body, once all of it is there.
fn whole(bytes: &[u8]) -> Option<(String, Value)> {
    let text = std::str::from_utf8(bytes).expect("JSON");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let line = head.lines().next().expect("a first line");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let body = body.get(..length.unwrap_or(0))?;
    let path = line.rsplit_once(' ').expect("a version").0.to_owned();
    Some((path, serde_json::from_str(body).unwrap_or_default()))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("a list, not {value}"))
}

#[test]
fn scored_groups_are_handed_to_the_api_that_the_server_is_registered_with() {
    let (address, asks) = api();
    let url = format!("http://{address}");
    let options = ["--atropos-url", &url, "--atropos-name", "tiny", "--atropos-group-size", "3"];
    let mut server = Server::start(&options);
    let next = || asks.recv_timeout(SOON).expect("the server asks");
    let registration = json!({
        "max_token_length": 512, "desired_name": "tiny", "weight": 1.0, "group_size": 3,
    });
    for _ in 0..2 {
        assert_eq!(next(), ("POST /register-env".to_owned(), registration.clone()));
    }
    let answers = json!({
        "prompt": "Hi", "max_tokens": 5, "seed": 4, "logprobs": 0, "return_token_ids": true,
        "temperature": 0.75, "ignore_eos": true, "group": {"size": 3},
        "scoring_function": {"name": "length", "min": 5},
    });
    let told = server.ask("/v1/completions", &answers);
    let (path, group) = next();
    assert_eq!(path, "POST /scored_data");
    let keys: Vec<&String> = group.as_object().expect("an object").keys().collect();
    let expected =
        ["tokens", "masks", "scores", "inference_logprobs", "generation_params", "env_id"];
    assert_eq!(keys, expected);
    assert_eq!((&group["env_id"], &group["scores"]), (&json!(3), &json!([1.0, 1.0, 1.0])));
    assert_eq!(group["generation_params"]["temperature"], 0.75);
    assert_eq!(list(&group["tokens"]).len(), 3);
    for (at, tokens) in list(&group["tokens"]).iter().enumerate() {
        let own = list(tokens);
        assert_eq!((own.len(), &own[..2]), (7, &[json!(72), json!(105)][..]));
        // Answers are handed over as they end: each is one of those that were told.
        let of = |choice: &&Value| list(&choice["token_ids"])[..] == own[2..];
        let choice = list(&told["choices"]).iter().find(of).expect("it was told");
        let masks = list(&group["masks"][at]);
        assert_eq!((&masks[..2], &masks[2..]), (&[json!(-100), json!(-100)][..], &own[2..]));
        let logprobs = list(&group["inference_logprobs"][at]);
        assert_eq!(logprobs[..2], [json!(1.0), json!(1.0)]);
        let told = list(&choice["logprobs"]["token_logprobs"]);
        let bits = |all: &[Value]| -> Vec<Option<u32>> {
            all.iter().map(|it| it.as_f64().map(|it| (it as f32).to_bits())).collect()
        };
        assert_eq!(bits(&logprobs[2..]), bits(told));
    }
    // What is no group is nobody's.
    let mut alone = answers.clone();
    alone.as_object_mut().expect("an object").remove("group");
    server.ask("/v1/completions", &alone);
    server.ask("/v1/completions", &answers);
    assert_eq!(next().1["env_id"], 3, "the next is the next group");

    // What its environments call, each by what kind of server it takes this one for.
    let asks = json!({"input_ids": [72, 105], "return_logprob": true,
        "return_text_in_logprobs": false, "sampling_params": {"max_new_tokens": 2}});
    assert_eq!(
        list(&server.ask("/generate", &asks)["meta_info"]["output_token_logprobs"]).len(),
        2
    );
    let asks = json!({"prompt": {"prompt_token_ids": [72, 105]}, "logprobs": 0, "max_tokens": 2});
    assert_eq!(list(&server.ask("/generate", &asks)["token_ids"][0]).len(), 2);
    let healthy = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1});
    server.ask("/v1/chat/completions", &healthy);

    server.terminate();
    assert_eq!(next(), ("POST /disconnect-env".to_owned(), json!({"env_id": 3})));
    assert!(server.process().wait().expect("it ends").success());
}

#[test]
fn a_server_serves_though_nobody_takes_its_groups() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("one");
    let server = Server::start(&["--atropos-url", &format!("http://{free}")]);
    let answers = json!({
        "prompt": "Hi", "max_tokens": 2, "group": {"size": 2},
        "scoring_function": {"name": "length", "min": 1},
    });
    let told = server.post("/v1/completions", &answers);
    assert_eq!((told.status, list(&told.json()["choices"]).len()), (200, 2));
}

/// A group of so many answers.
fn group(size: u32) -> Value {
    json!({
        "prompt": "Hi", "max_tokens": 2, "ignore_eos": true, "group": {"size": size},
        "scoring_function": {"name": "length", "min": 1},
    })
}

/// What is counted of groups, once it comes to so much.
fn counted(server: &Server, outcome: &str, count: u64) {
    let line = format!("outcome=\"{outcome}\"}} {count}");
    let begun = Instant::now();
    loop {
        let text = String::from_utf8(server.get("/metrics").body).expect("text");
        let mut lines = text.lines().filter(|line| line.starts_with("pagewise:atropos_groups"));
        if lines.any(|it| it.ends_with(&line)) {
            return;
        }
        assert!(begun.elapsed() < SOON, "{line} is not in {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_group_that_is_refused_keeps_no_other_waiting() {
    let mut groups = 0;
    let (address, asks) = api_that(move |path, _| match path {
        "POST /register-env" => (200, known(0)),
        "POST /scored_data" => {
            groups += 1;
            match groups {
                1 => (422, json!({"detail": "too long"})),
                // A fault that is not the registration's, either.
                2 | 3 => (500, json!("Internal Server Error")),
                _ => (200, json!({"status": "buffered", "buffer_size": 2})),
            }
        }
        _ => (200, json!({"status": "success"})),
    });
    let server = Server::start(&["--atropos-url", &format!("http://{address}")]);
    let next = || asks.recv_timeout(SOON).expect("the server asks");
    assert_eq!(next().0, "POST /register-env");
    let sizes = [2, 3, 4];
    sizes.iter().for_each(|size| drop(server.ask("/v1/completions", &group(*size))));
    let mut sent = Vec::new();
    while sent.last() != Some(&4) {
        let (path, body) = next();
        assert_ne!(path, "POST /register-env", "it is known");
        if path == "POST /scored_data" {
            sent.push(list(&body["scores"]).len());
        }
    }
    assert_eq!(sent, [2, 3, 3, 4]);
    counted(&server, "refused", 2);
    counted(&server, "received", 1);
}

#[test]
fn an_api_that_was_started_anew_is_registered_with_again() {
    for status in [404, 500, 200] {
        let mut registered = 0;
        let (address, asks) = api_that(move |path, body| match path {
            "POST /register-env" => {
                registered += 1;
                (200, known(10 + registered))
            }
            // The first one's number is none of its own.
            "POST /scored_data" | "GET /status-env" if body["env_id"] == 11 => {
                (status, json!({"status": "failure", "error": "no such environment"}))
            }
            "POST /scored_data" => (200, json!({"status": "received"})),
            _ => (200, json!({"status": "success"})),
        });
        let mut server = Server::start(&["--atropos-url", &format!("http://{address}")]);
        let next = || asks.recv_timeout(SOON).expect("the server asks");
        assert_eq!(next().0, "POST /register-env");
        server.ask("/v1/completions", &group(2));
        let (path, lost) = next();
        assert_eq!((path.as_str(), &lost["env_id"]), ("POST /scored_data", &json!(11)));
        assert_eq!(next(), ("GET /status-env".to_owned(), json!({"env_id": 11})), "{status}");
        assert_eq!(next().0, "POST /register-env", "{status}");
        let (_, again) = next();
        assert_eq!((&again["env_id"], &again["tokens"]), (&json!(12), &lost["tokens"]));
        counted(&server, "received", 1);
        server.terminate();
        assert_eq!(next(), ("POST /disconnect-env".to_owned(), json!({"env_id": 12})));
        assert!(server.process().wait().expect("it ends").success());
    }
}

#[test]
fn what_was_not_handed_over_and_what_has_another_size_is_told() {
    // Its trainer never begins; then one that takes all.
    for (trainer, words, count) in [
        (false, "3 groups were not handed over", 1),
        (true, "a group of 2 answers is handed over to Atropos, and --atropos-group-size", 1),
    ] {
        let (address, asks) = api_that(move |path, _| match path {
            "POST /register-env" if !trainer => (200, json!({"status": "wait"})),
            "POST /register-env" => (200, known(0)),
            "POST /scored_data" => (200, json!({"status": "received"})),
            _ => (200, json!({"status": "success"})),
        });
        let folder = checkpoint::write();
        let log = folder.join("log");
        let mut serve = command();
        serve.arg("serve").arg(&folder).args(["--port", "0", "--threads", "1"]);
        serve.args(["--atropos-url", &format!("http://{address}"), "--atropos-group-size", "3"]);
        serve.stdout(Stdio::piped()).stderr(File::create(&log).expect("a file"));
        let mut child = serve.spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = lines.find_map(|line| {
            let line = line.expect("text");
            line.strip_prefix("listening http://").map(|it| it.trim().parse().expect("an address"))
        });
        std::thread::spawn(move || lines.for_each(drop));
        let mut server = Server::already(child, address.expect("it listens"));
        for size in [3, 2, 2] {
            server.ask("/v1/completions", &group(size));
        }
        if trainer {
            counted(&server, "received", 3);
        }
        server.terminate();
        assert!(server.process().wait().expect("it ends").success());
        drop(asks);
        let text = std::fs::read_to_string(&log).expect("a file");
        assert_eq!(text.matches(words).count(), count, "{words}: {text}");
        let _ = std::fs::remove_dir_all(folder.parent().expect("of its own"));
    }
}

#[test]
fn an_address_that_is_none_is_refused_at_the_start() {
    let folder = checkpoint::write();
    for (option, value, words) in [
        ("--atropos-url", "127.0.0.1:8000", "--atropos-url: must begin with http://"),
        ("--atropos-weight", "0", "a number above 0"),
        ("--atropos-group-size", "0", "--atropos-group-size"),
    ] {
        let mut serve = command();
        serve.arg("serve").arg(&folder).args(["--port", "0", option, value]);
        let ended = serve.output().expect("it runs");
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && told.contains(words), "{told}");
    }
    let _ = std::fs::remove_dir_all(folder.parent().expect("of its own"));
}
