//! The same request has the same tokens and the same bits of its log-probabilities over
//! HTTP, whatever the company it keeps; and what each case is about did happen.

use pagewise_tests::server::{Server, checkpoint};
use serde_json::{Value, json};

/// More than four pages of a token for each byte.
const PROMPT: &str = "The request whose bits are compared has a prompt of more than four pages, so \
                      that it can be found in the cache, cut into chunks, and computed anew.";
/// Its answers, and the tokens of each.
const ANSWERS: u64 = 2;
const TOKENS: u64 = 40;
/// Answers that are generated beside it; and where these take most of the pages.
const STRANGERS: u64 = 30;
const HUNGRY: u64 = 5;
const TRIES: usize = 5;
/// An idle server waits for a full batch, longer than a client takes to ask for it.
const FILLS_FIRST: &[&str] = &["--batch-timeout", "60000"];

fn asked(guided: bool) -> Value {
    let mut asked = json!({
        "prompt": PROMPT, "n": ANSWERS, "max_tokens": TOKENS, "seed": 2026, "temperature": 0.9, "top_p": 0.95,
        "presence_penalty": 0.5, "logprobs": 2, "return_token_ids": true, "ignore_eos": true,
        "cache_salt": "mine",
    });
    if guided {
        // Few words, so that what came before comes again.
        asked["structured_outputs"] = json!({"regex": "((ab|ba|c)[ .]){99}"});
        asked["repetition_penalty"] = 1.1.into();
    }
    asked
}

/// What must not change of an answer.
fn bits(choices: &[Value]) -> Vec<Value> {
    let kept = |choice: &Value| {
        let told = &choice["logprobs"];
        json!([
            choice["text"],
            choice["token_ids"],
            told["token_logprobs"],
            told["processed_token_logprobs"],
            told["top_logprobs"],
        ])
    };
    choices.iter().map(kept).collect()
}

fn whole(server: &Server, asked: &Value) -> (Vec<Value>, Value) {
    let told = server.ask("/v1/completions", asked);
    (bits(told["choices"].as_array().expect("a list")), told["usage"].clone())
}

fn streamed(server: &Server, asked: &Value) -> Vec<Value> {
    let mut body = asked.clone();
    body["stream"] = true.into();
    let events = server.post("/v1/completions", &body).events();
    let join = |index: usize| {
        let (mut text, mut lists) = (String::new(), vec![Vec::new(); 4]);
        let choices = events.iter().flat_map(|event| event["choices"].as_array().expect("a list"));
        for choice in choices.filter(|choice| choice["index"] == index) {
            text += choice["text"].as_str().expect("text");
            let told = &choice["logprobs"];
            let names = ["token_logprobs", "processed_token_logprobs", "top_logprobs"];
            let parts = [&choice["token_ids"]].into_iter().chain(names.map(|name| &told[name]));
            for (list, part) in lists.iter_mut().zip(parts) {
                list.extend(part.as_array().expect("a list").clone());
            }
        }
        let [tokens, raw, processed, top] = lists.try_into().expect("four");
        json!([text, tokens, raw, processed, top])
    };
    (0..ANSWERS as usize).map(join).collect()
}

/// The answers to `asked` beside those to `strangers`. The server waits until its batch is
/// full, so that all of them begin at once.
fn among(server: &Server, strangers: &[Value], asked: &Value) -> Vec<Value> {
    std::thread::scope(|scope| {
        for stranger in strangers {
            scope.spawn(|| server.ask("/v1/completions", stranger));
        }
        let told = server.ask("/v1/completions", asked);
        bits(told["choices"].as_array().expect("a list"))
    })
}

/// In the company of strangers of many lengths, each of which goes on for longer.
fn crowded(format: &[&str], more: &[&str], asked: &Value) -> (Server, Vec<Value>) {
    let rows = (STRANGERS + ANSWERS).to_string();
    let server = Server::start(&[format, FILLS_FIRST, &["--max-batch-size", &rows], more].concat());
    let stranger = |number: u64| {
        let prompt = "stranger ".repeat(1 + number as usize % 3);
        json!({
            "prompt": format!("{number} {prompt}"), "max_tokens": 3 * TOKENS, "seed": number,
            "ignore_eos": true, "logprobs": number % 3,
        })
    };
    let strangers: Vec<Value> = (0..STRANGERS).map(stranger).collect();
    let told = among(&server, &strangers, asked);
    // It draws a token a step, at least: in a quarter of them there were four or more.
    let fill = server.get("/debug/metrics").json()["batch_fill_hist"].clone();
    let lonely = fill[0].as_u64().expect("a count");
    assert!(lonely <= TOKENS * 3 / 4, "its steps were shared: {fill}");
    (server, told)
}

/// Where pages run out, and it is the last in rank: the one that gives its pages back.
fn preempted(format: &[&str], memory: &str, asked: &Value) -> Vec<Value> {
    let rows = (HUNGRY + ANSWERS).to_string();
    let tight = ["--kv-cache-memory", memory, "--max-batch-size", &rows];
    let server = Server::start(&[format, FILLS_FIRST, &tight].concat());
    let stranger = |number: u64| {
        json!({
            "prompt": number.to_string().repeat(90), "max_tokens": 70, "seed": number,
            "ignore_eos": true,
        })
    };
    let strangers: Vec<Value> = (0..HUNGRY).map(stranger).collect();
    among(&server, &strangers, &json!({"prompt": "x", "n": ANSWERS, "max_tokens": 1}));
    // Strangers come to five pages each; it takes up to eight itself.
    assert!((26..=30).contains(&server.count("pages_total")));
    assert_eq!(server.count("preemptions"), 0, "without it pages are enough");
    let mut asked = asked.clone();
    asked["priority"] = 9.into();
    // On a machine that is busy otherwise, strangers may come when it has gone already.
    for _ in 0..TRIES {
        server.rests();
        let told = among(&server, &strangers, &asked);
        if server.count("preemptions") > 0 {
            return told;
        }
    }
    panic!("it never gave its pages back");
}

fn start(options: &[&[&str]]) -> Server {
    Server::start(&options.concat())
}

fn same_bits(format: &[&str], memory: &str) {
    let asked = asked(false);
    let server = start(&[format]);
    let (alone, usage) = whole(&server, &asked);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);
    assert_ne!(alone[0], alone[1], "answers draw their own noise");
    let (again, usage) = whole(&server, &asked);
    assert!(usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count") >= 128);
    assert_eq!(alone, again, "after a hit in the prefix cache");
    keeps(&alone, format, memory, &asked);
}

/// However an answer is asked for, and in whatever company, it is this one.
fn keeps(alone: &[Value], format: &[&str], memory: &str, asked: &Value) {
    assert_eq!(alone, streamed(&start(&[format]), asked), "streamed");
    assert_eq!(alone, crowded(format, &[], asked).1, "among strangers");

    let chunked = ["--max-num-batched-tokens", "37", "--threads", "2"];
    let server = start(&[format, &chunked, &["--max-batch-size", "32"]]);
    assert_eq!(alone, whole(&server, asked).0, "in chunks, on two threads");
    assert!(server.count("chunks") > 0);
    let (server, told) = crowded(format, &chunked, asked);
    assert_eq!(alone, told, "in chunks among strangers, on two threads");
    assert!(server.count("chunks") > 0);

    assert_eq!(alone, preempted(format, memory, asked), "computed anew where pages ran out");
}

/// With a grammar and penalties, guessed or not.
#[test]
fn what_is_guessed_keeps_the_bits() {
    let asked = asked(true);
    let (alone, _) = whole(&start(&[]), &asked);
    for choice in &alone {
        let text = choice[0].as_str().expect("text");
        assert!(text.chars().all(|c| "abc .".contains(c)) && text.len() as u64 == TOKENS, "{text}");
    }
    let folder = checkpoint::write();
    let path = folder.to_str().expect("plain");
    let chain = ["--draft-tokens", "4", "--draft-batch", "200"];
    let tree = ["--draft-tokens", "3", "--draft-paths", "3", "--draft-batch", "200"];
    let model = ["--draft-model", path];
    let base = ["--draft", "base", "--draft-quantize", "q4"];
    for (guessing, memory) in [
        // It is faster, and has to meet them all the same.
        (chain.to_vec(), "208KiB"),
        (tree.to_vec(), "208KiB"),
        ([&chain[..], &base].concat(), "208KiB"),
        ([&chain[..], &model].concat(), "416KiB"),
        ([&tree[..], &model].concat(), "416KiB"),
    ] {
        let server = start(&[&guessing]);
        let (told, usage) = whole(&server, &asked);
        assert_eq!(alone, told, "{guessing:?}");
        let accepted = &usage["completion_tokens_details"]["accepted_prediction_tokens"];
        assert!(accepted.as_u64().expect("a count") > 0, "{guessing:?}: {usage}");
        assert_eq!(accepted, &server.count("draft_tokens_accepted"));
        keeps(&alone, &guessing, memory, &asked);
    }
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn f16_pages_keep_the_bits() {
    same_bits(&["--kv-cache-dtype", "f16"], "240KiB");
}

#[test]
fn f16_pages_under_quantised_weights_keep_the_bits() {
    same_bits(&["--kv-cache-dtype", "f16", "--quantize", "q4"], "240KiB");
}

#[test]
fn int8_pages_keep_the_bits() {
    same_bits(&["--kv-cache-dtype", "int8"], "150KiB");
}

#[test]
fn int8_pages_under_quantised_weights_keep_the_bits() {
    same_bits(&["--kv-cache-dtype", "int8", "--quantize", "q8"], "150KiB");
}
