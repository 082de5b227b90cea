//! What a client chooses of an answer: tokens whose log-probabilities are listed with each of
//! its own, and expressions that end it.

use pagewise_tests::server::{Server, Shared};
use serde_json::{Value, json};
use std::sync::Arc;

/// One server for all tests: each holds it, so that it stays for the next.
fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&["--max-batch-size", "32"])
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("a list, not {value}"))
}

/// A request for a greedy answer of some tokens, with more parameters.
fn asked(tokens: u32, more: &Value) -> Value {
    let mut params = json!({"max_new_tokens": tokens, "temperature": 0, "ignore_eos": true});
    let fields = params.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    json!({"text": "Hello, world", "sampling_params": params})
}

#[test]
fn chosen_tokens_have_the_bits_that_they_have_where_they_come() {
    let server = server();
    let mut body = asked(6, &json!({}));
    for (name, value) in [
        ("return_logprob", json!(true)),
        ("logprob_start_len", json!(0)),
        ("top_logprobs_num", json!(3)),
    ] {
        body[name] = value;
    }
    let plain = server.ask("/generate", &body);
    assert!(plain["meta_info"].get("output_token_ids_logprobs").is_none(), "nobody asked");
    // The tokens that came, then those of the prompt.
    let ids = list(&plain["output_ids"]);
    let chosen = [&ids[..], &[json!(72), json!(101)]].concat();
    body["token_ids_logprob"] = json!(chosen);
    let told = server.ask("/generate", &body);
    assert_eq!(told["output_ids"], plain["output_ids"]);
    let meta = &told["meta_info"];
    let (own, listed) =
        (list(&meta["output_token_logprobs"]), list(&meta["output_token_ids_logprobs"]));
    assert_eq!(listed.len(), ids.len());
    for (at, entries) in listed.iter().map(list).enumerate() {
        let tokens: Vec<Value> = entries.iter().map(|entry| entry[1].clone()).collect();
        assert_eq!(tokens, chosen, "in the order that they were asked in");
        assert_eq!(entries[at], own[at], "the token that came");
        // Likely ones have the same bits where they are listed for that.
        for top in list(&meta["output_top_logprobs"][at]) {
            let same = entries.iter().find(|entry| entry[1] == top[1]);
            assert!(same.is_none_or(|entry| entry == top), "{entries:?} {top}");
        }
    }
    let prompt = list(&meta["input_token_ids_logprobs"]);
    assert_eq!((prompt.len(), &prompt[0]), (12, &Value::Null));
    assert_eq!(prompt[1][ids.len() + 1], meta["input_token_logprobs"][1], "an e");
    // Each of several prompts may choose its own, or all choose the same.
    for (given, expected) in [(json!([[65], [66, 67]]), [1, 2]), (json!([65, 66, 67]), [3, 3])] {
        let mut body = asked(2, &json!({}));
        body["text"] = json!(["a", "b"]);
        body["return_logprob"] = json!(true);
        body["token_ids_logprob"] = given;
        let told = server.ask("/generate", &body);
        for (reply, count) in list(&told).iter().zip(expected) {
            let meta = &reply["meta_info"];
            assert_eq!(meta["input_token_ids_logprobs"], json!([]));
            let all = list(&meta["output_token_ids_logprobs"]);
            assert!(all.len() == 2 && all.iter().all(|of| list(of).len() == count), "{meta}");
        }
    }
}

#[test]
fn an_expression_that_is_found_ends_an_answer_and_stays_in_it() {
    let server = server();
    let whole = server.ask("/generate", &asked(12, &json!({})));
    let (text, ids) = (whole["text"].as_str().expect("text"), list(&whole["output_ids"]));
    // The first letter or digit, of what the model says greedily; it says some.
    let at = text.find(|c: char| c.is_ascii_alphanumeric()).expect("it says a letter");
    let upto = &text[..=at];
    let regex = json!({"stop_regex": ["never said", "[0-9a-zA-Z]"]});
    let ended = server.ask("/generate", &asked(12, &regex));
    assert_eq!(ended["text"], upto);
    let reason = json!({"type": "stop", "matched": "[0-9a-zA-Z]"});
    assert_eq!(ended["meta_info"]["finish_reason"], reason);
    let count = list(&ended["output_ids"]).len();
    assert_eq!(list(&ended["output_ids"])[..], ids[..count]);
    // Not before the least that is asked for.
    let more = json!({"stop_regex": ".", "min_new_tokens": 5});
    let later = server.ask("/generate", &asked(12, &more));
    assert!(list(&later["output_ids"]).len() >= 5, "{later}");
    for none in [json!({"stop_regex": ""}), json!({"stop_regex": []}), json!({"stop_regex": null})]
    {
        assert_eq!(server.ask("/generate", &asked(12, &none))["output_ids"], whole["output_ids"]);
    }
    // The same on OpenAI's surfaces, which say so in their own words.
    let body = json!({
        "prompt": "Hello, world", "max_tokens": 12, "temperature": 0, "ignore_eos": true,
        "stop_regex": "[0-9a-zA-Z]",
    });
    let choice = &server.ask("/v1/completions", &body)["choices"][0];
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(upto), &json!("stop")));
    assert_eq!(choice["stop_reason"], "[0-9a-zA-Z]");
    let chat = json!({
        "messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "stop_regex": "(",
    });
    let refused = server.post("/v1/chat/completions", &chat);
    assert_eq!((refused.status, refused.param().as_deref()), (400, Some("stop_regex")));
}
