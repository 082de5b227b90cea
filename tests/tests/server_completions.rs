//! `/v1/completions` and `/v1/chat/completions` of a real server: what is asked comes,
//! the same however it is sent and in whatever company.

use pagewise_tests::server::checkpoint::{self, SPECIAL};
use pagewise_tests::server::{Server, Shared, command};
use serde_json::{Value, json};
use std::sync::Arc;

/// One server for all tests: each holds it, so that it stays for the next.
fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&["--max-batch-size", "32"])
}

fn complete(more: Value) -> Value {
    server().ask("/v1/completions", &with(json!({"prompt": "Hello, world"}), more))
}

fn with(mut body: Value, more: Value) -> Value {
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    body
}

/// The text of a stream's choice, its tokens, and why it ended.
fn gathered(events: &[Value], index: u64) -> (String, Vec<u64>, String) {
    let (mut text, mut tokens, mut reason) = (String::new(), Vec::new(), String::new());
    for choice in events.iter().flat_map(|event| event["choices"].as_array().expect("a list")) {
        if choice["index"] != index {
            continue;
        }
        assert!(reason.is_empty(), "nothing comes after an end: {choice}");
        text += choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or("");
        tokens.extend(ids(&choice["token_ids"]));
        reason = choice["finish_reason"].as_str().unwrap_or("").to_owned();
    }
    (text, tokens, reason)
}

fn ids(tokens: &Value) -> Vec<u64> {
    tokens.as_array().into_iter().flatten().map(|token| token.as_u64().expect("a token")).collect()
}

#[test]
fn a_completion_has_the_shape_of_openai() {
    let _server = server();
    let answer = complete(json!({"max_tokens": 5, "temperature": 0, "ignore_eos": true}));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["model"], "tiny");
    assert!(answer["id"].as_str().expect("an id").starts_with("cmpl-"));
    let choice = &answer["choices"][0];
    assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("length")));
    assert_eq!(choice["logprobs"], Value::Null);
    let usage = &answer["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(12), &json!(5)));
    assert_eq!(usage["total_tokens"], 17);
}

#[test]
fn streamed_and_whole_answers_are_the_same() {
    let _server = server();
    let asked = json!({
        "prompt": ["Hello, world", [72, 101, 108]], "n": 3, "max_tokens": 24, "seed": 7,
        "temperature": 1.0, "return_token_ids": true, "ignore_eos": true,
    });
    let whole = server().ask("/v1/completions", &asked);
    let streamed = with(asked, json!({"stream": true, "stream_options": {"include_usage": true}}));
    let events = server().post("/v1/completions", &streamed).events();
    let choices = whole["choices"].as_array().expect("a list");
    assert_eq!(choices.len(), 6);
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], index, "prompts first, then their answers");
        let prompt = if index < 3 { 12 } else { 3 };
        assert_eq!(ids(&choice["prompt_token_ids"]).len(), prompt);
        let (text, tokens, reason) = gathered(&events, index as u64);
        assert_eq!(choice["text"], text);
        assert_eq!(ids(&choice["token_ids"]), tokens);
        assert_eq!(choice["finish_reason"], reason);
    }
    let distinct: std::collections::BTreeSet<_> =
        choices.iter().map(|choice| choice["text"].to_string()).collect();
    assert!(distinct.len() > 3, "answers to one prompt draw their own noise");
    let last = events.last().expect("a last event");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
}

#[test]
fn chat_streams_what_it_answers_whole() {
    let _server = server();
    let asked = json!({
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        "max_completion_tokens": 16, "seed": 3, "n": 2, "ignore_eos": true,
        "logprobs": true, "top_logprobs": 2, "return_token_ids": true,
    });
    let whole = server().ask("/v1/chat/completions", &asked);
    assert_eq!(whole["object"], "chat.completion");
    let response = server().post("/v1/chat/completions", &with(asked, json!({"stream": true})));
    assert!(response.header("content-type").expect("a type").starts_with("text/event-stream"));
    let events = response.events();
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    for index in 0..2 {
        let choice = &whole["choices"][index];
        let (text, tokens, reason) = gathered(&events, index as u64);
        assert_eq!(choice["message"]["content"], text);
        assert_eq!((ids(&choice["token_ids"]), &choice["finish_reason"]), (tokens, &json!(reason)));
        let scored = choice["logprobs"]["content"].as_array().expect("a list");
        assert_eq!(scored.len(), 16);
        for entry in scored {
            assert_eq!(entry["top_logprobs"].as_array().expect("a list").len(), 2);
            assert!(entry["logprob"].as_f64().expect("a number") <= 0.0);
        }
    }
}

#[test]
fn a_prompt_of_tokens_is_the_prompt_of_its_text() {
    let _server = server();
    let text = complete(json!({"temperature": 0}));
    let read = server().ask("/tokenize", &json!({"prompt": "Hello, world"}));
    assert_eq!((read["count"].as_u64(), read["max_model_len"].as_u64()), (Some(12), Some(512)));
    let tokens = complete(json!({"prompt": read["tokens"], "temperature": 0}));
    assert_eq!(text["choices"], tokens["choices"]);
    let back = server().ask("/detokenize", &json!({"tokens": read["tokens"]}));
    assert_eq!(back["prompt"], "Hello, world");
}

#[test]
fn logprobs_are_the_shortest_decimals_of_their_floats() {
    let _server = server();
    let body = json!({"prompt": "Hello", "max_tokens": 8, "logprobs": 3, "seed": 1, "top_p": 0.7});
    let response = server().post("/v1/completions", &body);
    let answer = response.json();
    let told = &answer["choices"][0]["logprobs"];
    let text = String::from_utf8(response.body).expect("UTF-8");
    for (name, below) in [("token_logprobs", 0.0), ("processed_token_logprobs", 1e-6)] {
        for value in told[name].as_array().expect("a list") {
            let wide = value.as_f64().expect("a number");
            let float = wide as f32;
            let shortest = serde_json::to_string(&float).expect("a float");
            assert!(text.contains(&shortest), "{wide} is {float}, told as {shortest}");
            assert!(wide <= below, "{name}: {wide}");
        }
    }
    // Top-p leaves fewer tokens: each that is left is likelier than it was.
    let (raw, processed) = (&told["token_logprobs"], &told["processed_token_logprobs"]);
    assert_ne!(raw, processed);
    for top in told["top_logprobs"].as_array().expect("a list") {
        let count = top.as_object().expect("a map").len();
        assert!((1..=4).contains(&count), "three, and the one that was drawn");
    }
}

#[test]
fn an_echo_scores_the_prompt_as_lm_eval_asks_for_it() {
    let _server = server();
    let asked = json!({"max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": true});
    let answer = complete(asked);
    let choice = &answer["choices"][0];
    assert!(choice["text"].as_str().expect("text").starts_with("Hello, world"));
    let told = &choice["logprobs"];
    let scores = told["token_logprobs"].as_array().expect("a list");
    assert_eq!(scores.len(), 13);
    assert!(scores[0].is_null() && scores[1..].iter().all(Value::is_number));
    assert_eq!(told["tokens"][0], "H");
    assert_eq!(
        told["text_offset"].as_array().expect("a list")[..3],
        [json!(0), json!(1), json!(2)]
    );
    let only = complete(json!({"max_tokens": 0, "logprobs": 1, "echo": true}));
    assert_eq!(only["choices"][0]["text"], "Hello, world");
    let told = &only["choices"][0]["logprobs"]["token_logprobs"];
    assert_eq!(told.as_array().expect("a list")[..], scores[..12], "the same bits");
}

#[test]
fn prompt_logprobs_list_what_stands_there_and_what_is_likely() {
    let _server = server();
    let answer = complete(json!({"max_tokens": 1, "prompt_logprobs": 2}));
    let told = answer["choices"][0]["prompt_logprobs"].as_array().expect("a list").clone();
    assert_eq!(told.len(), 12);
    assert!(told[0].is_null());
    for (at, byte) in "Hello, world".bytes().enumerate().skip(1) {
        let own = &told[at][byte.to_string()];
        assert_eq!(own["decoded_token"], char::from(byte).to_string());
        let all = told[at].as_object().expect("a map");
        assert!((2..=3).contains(&all.len()));
        let mut ranks: Vec<_> = all.values().map(|it| it["rank"].as_u64().expect("one")).collect();
        ranks.sort_unstable();
        assert_eq!(ranks, [1, 2, 3][..all.len()]);
    }
}

#[test]
fn a_stream_brings_what_is_known_of_its_prompt_with_the_first_event() {
    let _server = server();
    // The first that is of this answer and has the field.
    let first = |events: &[Value], index: usize, of: fn(&Value) -> &Value| {
        let own = |event: &&Value| event["choices"][0]["index"] == index;
        let told: Vec<Value> = events.iter().filter(own).map(|event| of(event).clone()).collect();
        let at = told.iter().position(|value| !value.is_null()).expect("it comes");
        assert!(told[at + 1..].iter().all(Value::is_null), "and once: {told:?}");
        told[at].clone()
    };
    let asked =
        json!({"n": 2, "max_tokens": 3, "ignore_eos": true, "seed": 4, "prompt_logprobs": 2});
    let prompted = with(json!({"prompt": ["Hello, world", "Hi"]}), asked.clone());
    let whole = server().ask("/v1/completions", &prompted);
    let streamed = with(prompted, json!({"stream": true}));
    let events = server().post("/v1/completions", &streamed).events();
    for index in 0..4 {
        let told = first(&events, index, |event| &event["choices"][0]["prompt_logprobs"]);
        assert_eq!(told, whole["choices"][index]["prompt_logprobs"]);
    }
    let spoken = with(json!({"messages": [{"role": "user", "content": "Hi"}]}), asked);
    let whole = server().ask("/v1/chat/completions", &spoken);
    let streamed = with(spoken, json!({"stream": true}));
    let events = server().post("/v1/chat/completions", &streamed).events();
    // Of a chat there is one prompt, whatever the answers.
    let told: Vec<&Value> = events
        .iter()
        .map(|event| &event["prompt_logprobs"])
        .filter(|told| !told.is_null())
        .collect();
    assert_eq!(told, [&whole["prompt_logprobs"]]);
}

#[test]
fn an_echo_with_scores_streams_as_it_comes_whole() {
    let _server = server();
    for max_new in [0, 1, 5] {
        let asked = json!({
            "prompt": "Hello, world", "echo": true, "logprobs": 2, "max_tokens": max_new,
            "ignore_eos": true, "seed": 4,
        });
        let whole = server().ask("/v1/completions", &asked)["choices"][0].clone();
        let streamed = with(asked, json!({"stream": true}));
        let events = server().post("/v1/completions", &streamed).events();
        assert_eq!(whole["text"], gathered(&events, 0).0);
        for (name, told) in whole["logprobs"].as_object().expect("lists") {
            let parts = events.iter().flat_map(|event| {
                event["choices"][0]["logprobs"][name].as_array().cloned().unwrap_or_default()
            });
            assert_eq!(told, &Value::Array(parts.collect()), "{name} after {max_new}");
        }
    }
}

#[test]
fn stop_strings_end_an_answer_wherever_tokens_divide_them() {
    let _server = server();
    let asked = json!({"max_tokens": 40, "seed": 11, "return_token_ids": true, "ignore_eos": true});
    let free = complete(asked.clone());
    // Tokens are bytes: three of them that read as text are a string across three tokens.
    let tokens = ids(&free["choices"][0]["token_ids"]);
    let text = free["choices"][0]["text"].as_str().expect("text");
    let plain: Vec<char> = text.chars().collect();
    let three = plain.windows(3).enumerate().skip(2).find(|(_, three)| {
        three.iter().all(|letter| letter.is_ascii() && !letter.is_ascii_control())
    });
    let Some((_, three)) = three else { panic!("no three letters in {text:?}; take another seed") };
    let stop: String = three.iter().collect();
    let before = &text[..text.find(&stop).expect("it is there")];
    let asked = with(asked, json!({"stop": ["never this", &stop]}));
    let stopped = complete(asked.clone());
    let choice = &stopped["choices"][0];
    assert_eq!(
        (choice["text"].as_str(), choice["finish_reason"].as_str()),
        (Some(before), Some("stop"))
    );
    assert_eq!(choice["stop_reason"], stop.as_str());
    assert!(ids(&choice["token_ids"]).len() < tokens.len());
    let streamed = with(asked.clone(), json!({"stream": true, "prompt": "Hello, world"}));
    let events = server().post("/v1/completions", &streamed).events();
    assert_eq!(gathered(&events, 0).0, before, "nothing of the string was ever sent");
    let kept = complete(with(asked, json!({"include_stop_str_in_output": true})));
    assert_eq!(kept["choices"][0]["text"], format!("{before}{stop}"));
}

#[test]
fn stop_tokens_bans_and_biases_hold() {
    let _server = server();
    let only = complete(json!({"allowed_token_ids": [65, 66], "max_tokens": 12, "seed": 5}));
    let text = only["choices"][0]["text"].as_str().expect("text");
    assert!(text.len() == 12 && text.chars().all(|letter| "AB".contains(letter)), "{text}");
    let asked = json!({"allowed_token_ids": [65, 66], "max_tokens": 12, "temperature": 0});
    let biased = complete(with(asked.clone(), json!({"logit_bias": {"66": 100.0}})));
    assert_eq!(biased["choices"][0]["text"], "BBBBBBBBBBBB");
    let stopped = complete(with(asked, json!({"logit_bias": {"66": 100}, "stop_token_ids": [66]})));
    let choice = &stopped["choices"][0];
    assert_eq!((choice["text"].as_str(), &choice["stop_reason"]), (Some(""), &json!(66)));
    assert_eq!(stopped["usage"]["completion_tokens"], 1);
    let long = json!({
        "allowed_token_ids": [65, 258], "logit_bias": {"258": 100}, "min_tokens": 4, "max_tokens": 9,
    });
    let ended = complete(long);
    assert_eq!(ended["choices"][0]["text"], "AAAA", "the end comes when it may");
    assert_eq!(ended["choices"][0]["finish_reason"], "stop");
    assert_eq!(ended["choices"][0]["stop_reason"], Value::Null);
    let banned =
        complete(json!({"allowed_token_ids": [65, 66], "bad_words": ["A"], "max_tokens": 8}));
    assert_eq!(banned["choices"][0]["text"], "BBBBBBBB");
}

#[test]
fn special_tokens_have_text_where_it_is_asked_for() {
    let _server = server();
    let (name, token) = SPECIAL[1];
    let asked = json!({"allowed_token_ids": [token], "max_tokens": 2});
    assert_eq!(complete(asked.clone())["choices"][0]["text"], "");
    let shown = complete(with(asked.clone(), json!({"skip_special_tokens": false})));
    assert_eq!(shown["choices"][0]["text"], format!("{name}{name}"));
    let numbered =
        complete(with(asked, json!({"logprobs": 1, "return_tokens_as_token_ids": true})));
    assert_eq!(numbered["choices"][0]["logprobs"]["tokens"][0], format!("token_id:{token}"));
}

#[test]
fn a_template_goes_on_with_the_last_message() {
    let _server = server();
    let read = |more| {
        let body = json!({"messages": [
            {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"},
        ]});
        let read = server().ask("/tokenize", &with(body, more));
        let body = json!({"tokens": read["tokens"]});
        server().ask("/detokenize", &body)["prompt"].as_str().expect("text").to_owned()
    };
    assert!(read(json!({})).ends_with("Well<|im_end|>\n<|im_start|>assistant\n"));
    assert!(read(json!({"continue_final_message": true})).ends_with("assistant\nWell"));
}

#[test]
fn embeddings_are_of_length_one_and_the_same_in_both_formats() {
    let _server = server();
    let asked = json!({"input": ["Hello", "world", "Hello"], "encoding_format": "float"});
    let told = server().ask("/v1/embeddings", &asked);
    let vectors: Vec<Vec<f64>> = told["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| serde_json::from_value(one["embedding"].clone()).expect("numbers"))
        .collect();
    assert_eq!(vectors.len(), 3);
    assert_eq!(vectors[0], vectors[2]);
    assert_ne!(vectors[0], vectors[1]);
    for vector in &vectors {
        let square: f64 = vector.iter().map(|value| value * value).sum();
        assert!((square - 1.0).abs() < 1e-5, "{square}");
    }
    assert_eq!(told["usage"]["prompt_tokens"], 15);
    let coded = server().ask("/v1/embeddings", &with(asked, json!({"encoding_format": "base64"})));
    let letters = coded["data"][0]["embedding"].as_str().expect("letters");
    assert_eq!(letters.len(), (vectors[0].len() * 4).div_ceil(3) * 4);
}

#[test]
fn a_prompt_beside_answers_comes_in_parts_as_small_as_was_set() {
    let server = Server::start(&[
        "--max-batch-size",
        "4",
        "--max-num-batched-tokens",
        "64",
        "--prefill-beside-decode",
        "20",
    ]);
    let prompts = json!(["x", "y".repeat(200)]);
    server
        .ask("/v1/completions", &json!({"prompt": prompts, "max_tokens": 100, "ignore_eos": true}));
    // The first step has both: 63 tokens of the second. Then the first one answers.
    assert_eq!(server.count("chunks"), 1 + (200 - 63) / 20);
}

#[test]
fn what_an_echo_leaves_out_takes_no_room_in_it() {
    // A special token that the text does not show, then two bytes.
    let asked = json!({"prompt": [257, 72, 105], "max_tokens": 0, "logprobs": 0, "echo": true});
    let choice = &server().ask("/v1/completions", &asked)["choices"][0];
    assert_eq!(choice["text"], "Hi");
    assert_eq!(choice["logprobs"]["text_offset"], json!([0, 0, 1]));
}

#[test]
fn the_parts_of_a_requests_time_add_up() {
    // One after the other: two of the three wait for a seat.
    let server = Server::start(&["--max-batch-size", "1"]);
    let body = json!({"prompt": ["a", "b", "c"], "max_tokens": 60, "ignore_eos": true});
    server.ask("/v1/completions", &body);
    let text = String::from_utf8(server.get("/metrics").body).expect("text");
    let sum = |name: &str| -> f64 {
        let start = format!("vllm:{name}_seconds_sum{{");
        let line = text.lines().find(|line| line.starts_with(&start));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("a sum")
    };
    let [queue, prefill, decode] =
        ["queue", "prefill", "decode"].map(|part| sum(&format!("request_{part}_time")));
    // Sums of three floats each, in another order.
    let same = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}: {text}");
    same(sum("time_to_first_token"), queue + prefill);
    same(sum("request_inference_time"), prefill + decode);
    same(sum("e2e_request_latency"), queue + prefill + decode);
    // The second waits for one answer, the third for two; a prompt is a single token.
    assert!(queue > decode / 2.0 && prefill < decode / 2.0, "{queue} {prefill} {decode}");
}

#[test]
fn the_prefix_cache_is_told_in_usage() {
    let _server = server();
    let prompt = "a prefix that fills more than one page of thirty-two tokens, and some more";
    let usage = |salt: &str| {
        let body = json!({"prompt": prompt, "max_tokens": 1, "cache_salt": salt});
        server().ask("/v1/completions", &body)["usage"]["prompt_tokens_details"].clone()
    };
    let cold = usage("mine");
    assert_eq!(
        (&cold["cached_tokens"], &cold["miss_tokens"]["cold"]),
        (&json!(0), &json!(prompt.len()))
    );
    let warm = usage("mine");
    assert_eq!(warm["cached_tokens"], 64);
    assert_eq!(warm["miss_tokens"]["partial_page"], prompt.len() - 64);
    let other = usage("yours");
    assert_eq!(
        (&other["cached_tokens"], &other["miss_tokens"]["salt"]),
        (&json!(0), &json!(prompt.len()))
    );
}

#[test]
fn scaled_positions_are_served_as_far_as_they_were_stretched() {
    let folder = checkpoint::write();
    let path = folder.join("config.json");
    let read = std::fs::read(&path).expect("it was written");
    let mut config: Value = serde_json::from_slice(&read).expect("JSON");
    config["rope_scaling"] = json!({"rope_type": "dynamic", "factor": 2.0});
    std::fs::write(&path, config.to_string()).expect("a file");
    // The file's own 512, and what is asked for.
    let mut command = command();
    command.arg("info").arg(&folder).args(["--max-model-len", "1025"]);
    let told = command.output().expect("it runs");
    let words = String::from_utf8_lossy(&told.stderr);
    assert!(!told.status.success() && words.contains("made for 1024 tokens, not 1025"), "{words}");
    let prompt =
        json!({"prompt": "x".repeat(900), "max_tokens": 4, "temperature": 0, "logprobs": 0});
    let server = Server::of(folder, &["--max-model-len", "1024"]);
    let told = server.ask("/v1/completions", &prompt);
    assert_eq!(told["usage"]["prompt_tokens"], 900);
    assert_eq!(told["choices"][0]["logprobs"]["tokens"].as_array().map(Vec::len), Some(4));
}

#[test]
fn a_prompt_cut_to_what_fits_leaves_room_for_its_answer() {
    let words = |text: &str| json!({"prompt": text, "max_tokens": 12, "temperature": 0});
    let cut = |text: &str, keep: i64| with(words(text), json!({"truncate_prompt_tokens": keep}));
    let long: Vec<u32> = (0..600).map(|at| 65 + at % 26).collect();
    let told = server().ask("/v1/completions", &with(cut("", -1), json!({"prompt": long})));
    assert_eq!(told["usage"]["prompt_tokens"], 500);
    let kept = with(words(""), json!({"prompt": long[100..]}));
    assert_eq!(told["choices"], server().ask("/v1/completions", &kept)["choices"]);
    let told = server().ask("/v1/completions", &cut("Hello", 3));
    assert_eq!(told["usage"]["prompt_tokens"], 3);
    let message = json!([{"role": "user", "content": "x".repeat(505)}]);
    let asked = json!({"messages": message, "truncate_prompt_tokens": -1, "max_tokens": 9});
    let told = server().ask("/v1/chat/completions", &asked);
    assert_eq!(told["usage"]["prompt_tokens"], 503);
    let refused = server().post("/v1/completions", &cut("Hello", 0));
    assert_eq!((refused.status, refused.param().as_deref()), (400, Some("truncate_prompt_tokens")));
}

#[test]
fn nobody_waits_for_company_that_has_no_room() {
    // Two answers fill the batch: there is nothing to wait half a minute for.
    let server = Server::start(&["--max-batch-size", "2", "--batch-timeout", "30000"]);
    let begun = std::time::Instant::now();
    server.ask("/v1/completions", &json!({"prompt": "Hello", "max_tokens": 2, "n": 2}));
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}
