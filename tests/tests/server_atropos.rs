//! A server that registers with Atropos' trajectory API, which a few lines here play: what it
//! is handed has the API's fields, and what its environments call is answered.

use pagewise_tests::server::{Server, checkpoint, command};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long what the server does by itself may take.
const SOON: Duration = Duration::from_secs(60);

/// A trajectory API: what it is asked, as it comes. Its trainer begins at the second try.
fn api() -> (SocketAddr, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (asked, asks) = channel();
    std::thread::spawn(move || {
        let mut tries = 0;
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
            let reply = match path.as_str() {
                "POST /register-env" => {
                    tries += 1;
                    match tries {
                        1 => json!({"status": "wait for trainer to start"}),
                        _ => json!({
                            "status": "success", "env_id": 3, "wandb_name": "tiny_0",
                            "checkpoint_dir": "/c", "starting_step": 0, "checkpoint_interval": 10,
                            "num_steps": 100,
                        }),
                    }
                }
                "POST /scored_data" => json!({"status": "received"}),
                _ => json!({"status": "success"}),
            };
            let text = reply.to_string();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            let sent = write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{text}", text.len());
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
