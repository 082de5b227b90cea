//! What a server's process holds in memory. Only Linux tells it; what is answered is held to
//! its length anywhere.

use pagewise_tests::server::Server;
use serde_json::json;

/// A file of the system about a server's process.
fn told(server: &mut Server, file: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{}/{file}", server.process().id())).ok()
}

/// The first number of KiB under a name.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("it is told");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The most that it ever held, in KiB.
fn peak(server: &mut Server) -> Option<u64> {
    told(server, "status").map(|text| kib(&text, "VmHWM:"))
}

#[test]
fn many_answers_share_what_was_asked_of_them() {
    let mut server = Server::start(&[]);
    // 8192 answers under 64 stop strings of 1000 bytes: 512 MiB, if each had its own. And
    // lists for 64 prompts: another 64 MiB.
    let stops: Vec<String> = (0..64).map(|stop| format!("{stop:0>1000}")).collect();
    let words: Vec<String> = (0..64).map(|word| format!("{word:0>4000}")).collect();
    let body = json!({
        "prompt": vec!["x"; 64], "n": 128, "max_tokens": 1, "stop": stops, "bad_words": words,
    });
    let told = server.ask("/v1/completions", &body);
    assert_eq!(told["choices"].as_array().map(Vec::len), Some(8192));
    server.rests();
    let Some(peak) = peak(&mut server) else { return };
    assert!(peak < 128 << 10, "{peak} KiB");
}

#[test]
fn many_answers_tell_the_same_of_their_prompt() {
    let mut server = Server::start(&[]);
    let Some(before) = peak(&mut server) else { return };
    let prompt = "What is told of it. ".repeat(25);
    let asked = |more: serde_json::Value| {
        let mut body = json!({"prompt": prompt, "max_tokens": 1, "ignore_eos": true, "n": 100});
        body.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        body
    };
    let scores = asked(json!({"prompt_logprobs": 20}));
    let listed = server.post("/v1/completions", &scores);
    let echo = asked(json!({"echo": true, "logprobs": 20}));
    let echoed = server.post("/v1/completions", &echo);
    for response in [&listed, &echoed] {
        assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    }
    let peak = peak(&mut server).expect("it was told before");
    let longest = listed.body.len().max(echoed.body.len()) as u64 >> 10;
    assert!(longest > 16 << 10, "{longest} KiB were answered");
    // The answer itself, twice while it grows, and little besides.
    assert!(
        peak - before < 3 * longest,
        "{longest} KiB were answered, {} were taken",
        peak - before
    );
}

#[test]
fn what_answers_repeat_of_prompts_is_bounded() {
    let server = Server::start(&[]);
    let asked = |name: &str, more: serde_json::Value| {
        let mut body = json!({"prompt": vec!["x".repeat(500); 8], "max_tokens": 1});
        body.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        let refused = server.post("/v1/completions", &body);
        assert_eq!((refused.status, refused.param().as_deref()), (400, Some(name)), "{more}");
        let told = refused.json()["error"]["message"].to_string();
        assert!(told.contains("at most 268435456 bytes") && told.contains("`echo`"), "{told}");
    };
    asked("n", json!({"n": 128, "prompt_logprobs": 20}));
    asked("n", json!({"n": 128, "logprobs": 20, "echo": true}));
    asked("prompt_logprobs", json!({"prompt": vec!["x".repeat(500); 400], "prompt_logprobs": 20}));
    // The same without what is repeated.
    let body = json!({"prompt": "x".repeat(500), "max_tokens": 1, "n": 128, "logprobs": 20});
    assert_eq!(server.ask("/v1/completions", &body)["choices"].as_array().map(Vec::len), Some(128));
}

#[test]
fn a_text_that_is_to_be_cut_may_be_longer_than_what_the_model_takes() {
    let server = Server::start(&[]);
    let ask = |bytes: usize, cut: serde_json::Value| {
        let text = format!("{}end", "x".repeat(bytes - 3));
        let prompt = json!({
            "prompt": text, "max_tokens": 1, "truncate_prompt_tokens": cut, "return_token_ids": true,
        });
        let message = json!({
            "messages": [{"role": "user", "content": text}], "truncate_prompt_tokens": cut,
            "max_tokens": 1, "return_token_ids": true,
        });
        [
            ("prompt", server.post("/v1/completions", &prompt)),
            ("messages", server.post("/v1/chat/completions", &message)),
        ]
    };
    for (cut, left) in [(json!(5), 5), (json!(-1), 511)] {
        let [(_, completion), (_, chat)] = ask(20_000, cut);
        let ids = &completion.json()["choices"][0]["prompt_token_ids"];
        let ids = ids.as_array().expect("a list");
        assert_eq!(
            (ids.len(), &ids[ids.len() - 3..]),
            (left, &[json!(101), json!(110), json!(100)][..])
        );
        let ids = &chat.json()["prompt_token_ids"];
        assert_eq!(ids.as_array().map(Vec::len), Some(left));
    }
    for (bytes, cut) in [(20_000, json!(null)), ((1 << 20) + 1, json!(5))] {
        for (name, refused) in ask(bytes, cut.clone()) {
            assert_eq!((refused.status, refused.param().as_deref()), (400, Some(name)));
            let told = refused.json();
            assert_eq!(told["error"]["code"], "context_length_exceeded");
            let words = told["error"]["message"].as_str().expect("words");
            assert_eq!(words.contains("`truncate_prompt_tokens`"), !cut.is_null(), "{words}");
        }
    }
}

#[test]
fn weights_that_are_packed_are_not_held_as_they_were() {
    let mut server = Server::start(&[]);
    let Some(maps) = told(&mut server, "smaps") else { return };
    let at = maps.find("model.safetensors").expect("its embedding is read where it lies");
    let file = &maps[at..];
    let (held, all) = (kib(file, "Rss:"), kib(file, "Size:"));
    assert!(4 * held < all, "{held} of {all} KiB are held");
    server.ask("/v1/completions", &json!({"prompt": "Hello", "max_tokens": 2}));
}
