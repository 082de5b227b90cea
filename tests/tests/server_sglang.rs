//! SGLang's `/generate` of a real server: what is asked comes, in exactly its fields.

use pagewise_tests::server::{Server, Shared};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One server for all tests: each holds it, so that it stays for the next.
fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&["--max-batch-size", "32"])
}

fn with(mut body: Value, more: Value) -> Value {
    let fields = body.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    body
}

/// A short greedy answer, with more asked.
fn generate(more: Value) -> Value {
    server().ask("/generate", &asked(more))
}

fn asked(more: Value) -> Value {
    let params = json!({"max_new_tokens": 6, "temperature": 0, "ignore_eos": true});
    with(json!({"text": "Hello, world", "sampling_params": params}), more)
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("a list, not {value}"))
}

/// The first field that a body is refused for.
fn refused(body: &Value) -> String {
    let response = server().post("/generate", body);
    assert_eq!(response.status, 400, "{body}: {}", String::from_utf8_lossy(&response.body));
    let param = response.param();
    param.unwrap_or_else(|| panic!("{body} is refused for no field: {}", response.json()))
}

/// What every reply tells of itself.
const META: [&str; 9] = [
    "completion_tokens",
    "cached_tokens",
    "e2e_latency",
    "finish_reason",
    "id",
    "prompt_tokens",
    "reasoning_tokens",
    "weight_version",
    "weight_versions",
];
const LOGPROBS: [&str; 3] =
    ["input_token_logprobs", "output_token_logprobs", "output_token_logprobs_length"];
const TOPS: [&str; 2] = ["input_top_logprobs", "output_top_logprobs"];

#[test]
fn a_reply_has_exactly_the_fields_of_sglang() {
    let _server = server();
    let set = |parts: &[&[&'static str]]| parts.concat().into_iter().collect::<BTreeSet<_>>();
    let plain = generate(json!({}));
    assert_eq!(keys(&plain), set(&[&["text", "output_ids", "meta_info"]]));
    assert_eq!(keys(&plain["meta_info"]), set(&[&META]));
    let scored = generate(json!({"return_logprob": true, "return_prompt_token_ids": true}));
    assert_eq!(keys(&scored), set(&[&["text", "output_ids", "meta_info", "prompt_token_ids"]]));
    assert_eq!(keys(&scored["meta_info"]), set(&[&META, &LOGPROBS]));
    let tops = generate(json!({"return_logprob": true, "top_logprobs_num": 2}));
    assert_eq!(keys(&tops["meta_info"]), set(&[&META, &LOGPROBS, &TOPS]));
    let meta = &plain["meta_info"];
    assert_eq!(meta["finish_reason"], json!({"type": "length", "length": 6}));
    assert_eq!((&meta["prompt_tokens"], &meta["completion_tokens"]), (&json!(12), &json!(6)));
    assert_eq!(meta["weight_version"], "default");
    assert_eq!(meta["weight_versions"], json!([{"version": "default", "start": 0, "end": 6}]));
    assert!(meta["e2e_latency"].as_f64().is_some_and(|seconds| seconds > 0.0));
}

#[test]
fn it_answers_with_the_bits_of_completions() {
    let _server = server();
    for (temperature, more) in [(1.0, json!({})), (0.0, json!({})), (1.0, json!({"top_k": 5}))] {
        let params = json!({"max_new_tokens": 9, "temperature": temperature, "sampling_seed": 5});
        let body = json!({
            "text": "Hello", "sampling_params": with(params, more.clone()), "return_logprob": true,
        });
        let ours = server().ask("/generate", &body);
        let body = json!({
            "prompt": "Hello", "max_tokens": 9, "temperature": temperature, "seed": 5,
            "logprobs": 0, "return_token_ids": true,
        });
        let theirs = server().ask("/v1/completions", &with(body, more));
        let choice = &theirs["choices"][0];
        assert_eq!((&ours["text"], &ours["output_ids"]), (&choice["text"], &choice["token_ids"]));
        let entries = list(&ours["meta_info"]["output_token_logprobs"]);
        let logprobs: Vec<&Value> = entries.iter().map(|entry| &entry[0]).collect();
        let raw: Vec<&Value> = list(&choice["logprobs"]["token_logprobs"]).iter().collect();
        assert_eq!(logprobs, raw);
        let ids: Vec<&Value> = entries.iter().map(|entry| &entry[1]).collect();
        assert_eq!(ids, list(&ours["output_ids"]).iter().collect::<Vec<_>>());
    }
}

#[test]
fn where_all_tokens_may_come_a_logprob_is_of_the_temperature() {
    let _server = server();
    let tempered =
        json!({"temperature": 0.5, "max_new_tokens": 8, "sampling_seed": 3, "ignore_eos": true});
    let ours = generate(json!({"return_logprob": true, "sampling_params": tempered}));
    let body = json!({
        "prompt": "Hello, world", "max_tokens": 8, "temperature": 0.5, "seed": 3, "logprobs": 0,
        "ignore_eos": true,
    });
    let told = server().ask("/v1/completions", &body)["choices"][0]["logprobs"].clone();
    assert_ne!(told["processed_token_logprobs"], told["token_logprobs"]);
    let entries = list(&ours["meta_info"]["output_token_logprobs"]);
    let logprobs: Vec<Value> = entries.iter().map(|entry| entry[0].clone()).collect();
    assert_eq!(Value::Array(logprobs), told["processed_token_logprobs"]);
}

#[test]
fn a_batch_answers_as_its_prompts_alone() {
    let _server = server();
    let tokens = json!({"text": null, "input_ids": [72, 105]});
    let (hi, hello) = (generate(tokens), generate(json!({})));
    let batch = generate(json!({"text": ["Hi", "Hello, world"], "rid": "b"}));
    for (at, alone) in [hi, hello].iter().enumerate() {
        assert_eq!(batch[at]["output_ids"], alone["output_ids"]);
        assert_eq!(batch[at]["meta_info"]["id"], format!("b_{at}"));
    }
    // A list of one is a list; so are several answers.
    assert_eq!(list(&generate(json!({"text": ["Hi"]}))).len(), 1);
    let many = json!({"max_new_tokens": 4, "n": 3, "sampling_seed": 1});
    let many = generate(json!({"rid": "m", "sampling_params": many, "text": ["Hi", "Hello"]}));
    assert_eq!(list(&many).len(), 6);
    let ids: BTreeSet<String> =
        list(&many).iter().map(|reply| reply["meta_info"]["id"].to_string()).collect();
    assert_eq!(ids.len(), 6, "each has its own name");
    // Parameters of its own for each, and names.
    let own = generate(json!({
        "text": ["Hi", "Hi"], "rid": ["x", "y"], "return_logprob": [true, false],
        "sampling_params": [{"max_new_tokens": 2, "ignore_eos": true}, {"max_new_tokens": 3, "ignore_eos": true}],
    }));
    let told = |at: usize| (list(&own[at]["output_ids"]).len(), own[at]["meta_info"]["id"].clone());
    assert_eq!((told(0), told(1)), ((2, json!("x")), (3, json!("y"))));
    assert!(own[0]["meta_info"].get("output_token_logprobs").is_some());
    assert!(own[1]["meta_info"].get("output_token_logprobs").is_none());
}

#[test]
fn a_stream_tells_all_so_far_and_ends_as_the_whole() {
    let _server = server();
    let more = json!({"return_logprob": true, "top_logprobs_num": 1});
    let whole = generate(more.clone());
    let events = server()
        .post("/generate", &asked(with(more, json!({"stream": true, "rid": "s"}))))
        .events();
    assert_eq!(events.len(), 6, "one for each token");
    for (at, event) in events.iter().enumerate() {
        assert_eq!(list(&event["output_ids"]), &list(&whole["output_ids"])[..=at]);
        let logprobs = &event["meta_info"]["output_token_logprobs"];
        assert_eq!(list(logprobs), &list(&whole["meta_info"]["output_token_logprobs"])[..=at]);
        assert_eq!(event["meta_info"]["finish_reason"].is_null(), at < 5);
        let text = event["text"].as_str().expect("text");
        assert!(whole["text"].as_str().expect("text").starts_with(text));
    }
    let last = &events[5];
    assert_eq!((&last["text"], &last["meta_info"]["id"]), (&whole["text"], &json!("s")));
    assert_eq!(keys(&last["meta_info"]), keys(&whole["meta_info"]));
    // Of several, each tells its place; at intervals, fewer are told.
    let params = json!({"max_new_tokens": 6, "ignore_eos": true, "stream_interval": 4});
    let body = asked(json!({"text": ["Hi", "Ho"], "stream": true, "sampling_params": params}));
    let events = server().post("/generate", &body).events();
    for index in 0..2 {
        let own = events.iter().filter(|event| event["index"] == index);
        let counts: Vec<usize> = own.map(|event| list(&event["output_ids"]).len()).collect();
        assert_eq!(counts, [4, 6]);
    }
}

#[test]
fn a_prompt_is_scored_from_where_it_is_asked() {
    let _server = server();
    let read = |start: i64| {
        let more =
            json!({"return_logprob": true, "logprob_start_len": start, "top_logprobs_num": 2});
        generate(with(more, json!({"return_text_in_logprobs": true})))["meta_info"].clone()
    };
    let all = read(0);
    let scored = list(&all["input_token_logprobs"]);
    assert_eq!(scored.len(), 12);
    assert_eq!(scored[0], json!([null, 72, "H"]), "nothing comes before the first");
    assert!(scored[1..].iter().all(|entry| entry[0].as_f64().is_some_and(|x| x < 0.0)));
    let tops = list(&all["input_top_logprobs"]);
    assert!(tops[0].is_null() && tops[1..].iter().all(|top| list(top).len() == 2));
    assert!(list(&all["output_top_logprobs"]).iter().all(|top| list(top).len() == 2));
    for start in [5, 11, 12] {
        let some = read(start);
        let entries = list(&some["input_token_logprobs"]);
        assert_eq!(entries.len(), 12 - start as usize);
        assert!(entries.first().is_none_or(|first| first[0].is_null()));
        for (entry, whole) in entries.iter().zip(&scored[start as usize..]).skip(1) {
            assert_eq!(entry, whole, "the same bits");
        }
    }
    assert_eq!(read(-1)["input_token_logprobs"], json!([]));
    // Without answers: the prompt alone.
    let params = json!({"max_new_tokens": 0});
    let none = generate(
        json!({"return_logprob": true, "logprob_start_len": 0, "sampling_params": params}),
    );
    assert_eq!(none["meta_info"]["input_token_logprobs"].as_array().map(Vec::len), Some(12));
    assert_eq!((&none["output_ids"], &none["text"]), (&json!([]), &json!("")));
    assert_eq!(none["meta_info"]["finish_reason"], json!({"type": "length", "length": 0}));
}

#[test]
fn it_says_what_stopped_an_answer() {
    let _server = server();
    let whole = generate(json!({}));
    let (text, ids) = (whole["text"].as_str().expect("text"), list(&whole["output_ids"]));
    let stopped = |more: Value| {
        let params = with(json!({"max_new_tokens": 6, "temperature": 0, "ignore_eos": true}), more);
        generate(json!({"sampling_params": params}))
    };
    let by_token = stopped(json!({"stop_token_ids": [ids[2]]}));
    let reason = json!({"type": "stop", "matched": ids[2]});
    assert_eq!(by_token["meta_info"]["finish_reason"], reason);
    let first = ids.iter().position(|id| *id == ids[2]).expect("it is there");
    assert_eq!(list(&by_token["output_ids"]).len(), first + 1, "with what stopped it");
    let letter: String = text.chars().filter(char::is_ascii_graphic).take(1).collect();
    if !letter.is_empty() {
        let by_text = stopped(json!({"stop": [letter]}));
        let reason = json!({"type": "stop", "matched": letter});
        assert_eq!(by_text["meta_info"]["finish_reason"], reason);
        assert!(!by_text["text"].as_str().expect("text").contains(&letter));
        let kept = stopped(json!({"stop": letter, "no_stop_trim": true}));
        assert!(kept["text"].as_str().expect("text").ends_with(&letter));
    }
    // As one trainer's clients ask: nothing in lists, no spaces between special tokens.
    let usual = stopped(json!({
        "stop": null, "stop_token_ids": [], "skip_special_tokens": false, "no_stop_trim": true,
        "spaces_between_special_tokens": false, "top_k": -1, "top_p": 1.0, "min_p": 0.0,
    }));
    assert_eq!(usual["output_ids"], whole["output_ids"]);
}

#[test]
fn structures_are_kept_to() {
    let _server = server();
    let kept = |more: Value| {
        let params =
            with(json!({"max_new_tokens": 40, "temperature": 1.0, "sampling_seed": 2}), more);
        generate(json!({"sampling_params": params}))["text"].as_str().expect("text").to_owned()
    };
    assert_eq!(kept(json!({"regex": "yes"})), "yes");
    let schema = json!({"type": "object", "properties": {"a": {"enum": [7]}}, "required": ["a"], "additionalProperties": false});
    for schema in [schema.clone(), json!(schema.to_string())] {
        let value: Value =
            serde_json::from_str(&kept(json!({"json_schema": schema}))).expect("JSON");
        assert_eq!(value, json!({"a": 7}));
    }
}

#[test]
fn the_defaults_are_those_of_sglang() {
    let _server = server();
    // 128 tokens, or what is left; as many as fit, where null is asked.
    let short = json!({"text": "Hi", "sampling_params": {"ignore_eos": true}});
    assert_eq!(server().ask("/generate", &short)["meta_info"]["completion_tokens"], 128);
    let long = json!({"input_ids": vec![65; 500], "sampling_params": {"ignore_eos": true}});
    assert_eq!(server().ask("/generate", &long)["meta_info"]["completion_tokens"], 12);
    let all = json!({"input_ids": vec![65; 200], "sampling_params": {"ignore_eos": true, "max_new_tokens": null}});
    assert_eq!(server().ask("/generate", &all)["meta_info"]["completion_tokens"], 312);
    // Nearly nothing is none.
    let params = json!({"max_new_tokens": 6, "temperature": 1e-7, "ignore_eos": true});
    assert_eq!(
        generate(json!({"sampling_params": params}))["output_ids"],
        generate(json!({}))["output_ids"]
    );
    // And what concerns logs and ways between servers changes nothing.
    let remarks = json!({
        "log_metrics": true, "no_logs": true, "custom_labels": {"a": "b"}, "routing_key": "k",
        "session_id": "s", "routed_dp_rank": null, "return_hidden_states": false, "priority": 3,
        "lora_path": null, "custom_logit_processor": null, "return_routed_experts": false,
    });
    assert_eq!(generate(remarks)["output_ids"], generate(json!({}))["output_ids"]);
}

#[test]
fn salts_and_keys_keep_pages_apart() {
    let _server = server();
    let tokens: Vec<u32> = (0..100).map(|at| 40 + at % 60).collect();
    let cached = |more: Value| {
        let body = asked(with(json!({"text": null, "input_ids": tokens}), more));
        server().ask("/generate", &body)["meta_info"]["cached_tokens"].as_u64().expect("a count")
    };
    cached(json!({}));
    assert!(cached(json!({})) >= 32, "its own prompt is found");
    for more in [
        json!({"cache_salt": "a"}),
        json!({"extra_key": "a"}),
        json!({"cache_salt": "a", "extra_key": "b"}),
        json!({"cache_salt": "ab"}),
    ] {
        assert_eq!(cached(more.clone()), 0, "{more}");
        assert!(cached(more.clone()) >= 32, "{more}");
    }
}

#[test]
fn what_is_wrong_is_refused_by_its_field() {
    let _server = server();
    let params = |more: Value| asked(json!({"sampling_params": more}));
    let chosen =
        |tokens: Value| asked(json!({"return_logprob": true, "token_ids_logprob": tokens}));
    for (body, field) in [
        (json!({}), "text"),
        (asked(json!({"input_ids": [1]})), "text"),
        (asked(json!({"text": 5})), "text"),
        (asked(json!({"text": []})), "text"),
        (asked(json!({"text": ["a", 5]})), "text"),
        (asked(json!({"text": ""})), "text"),
        (json!({"input_ids": []}), "input_ids"),
        (json!({"input_ids": [[]]}), "input_ids[0]"),
        (json!({"input_ids": [1, [2]]}), "input_ids"),
        (json!({"input_ids": [-1]}), "input_ids"),
        (json!({"input_ids": [264]}), "input_ids"),
        (json!({"input_ids": vec![65; 513]}), "input_ids"),
        (json!({"text": vec!["a"; 4097]}), "text"),
        (asked(json!({"input_embeds": [[0.5]]})), "input_embeds"),
        (asked(json!({"lora_path": "a"})), "lora_path"),
        (chosen(json!([264])), "token_ids_logprob"),
        (chosen(json!("1")), "token_ids_logprob"),
        (chosen(json!([-1])), "token_ids_logprob"),
        (chosen(json!([1, [2]])), "token_ids_logprob"),
        (chosen(json!(vec![1; 33])), "token_ids_logprob"),
        (with(chosen(json!([[1]])), json!({"text": ["a", "b"]})), "token_ids_logprob"),
        (asked(json!({"custom_logit_processor": "{}"})), "custom_logit_processor"),
        (asked(json!({"return_hidden_states": true})), "return_hidden_states"),
        (asked(json!({"return_routed_experts": true})), "return_routed_experts"),
        (asked(json!({"return_sampling_mask": true})), "return_sampling_mask"),
        (asked(json!({"max_thinking_tokens": 5})), "max_thinking_tokens"),
        (asked(json!({"routed_dp_rank": 1})), "routed_dp_rank"),
        (asked(json!({"temprature": 1})), "temprature"),
        (asked(json!({"rid": ["a"]})), "rid"),
        (asked(json!({"rid": ""})), "rid"),
        (asked(json!({"rid": "é"})), "rid"),
        (asked(json!({"text": ["a", "b"], "rid": ["a"]})), "rid"),
        (asked(json!({"text": ["a", "b"], "rid": ["a", "a"]})), "rid"),
        (asked(json!({"text": ["a", "b"], "sampling_params": [{}]})), "sampling_params"),
        (asked(json!({"text": ["a", "b"], "sampling_params": [{}, {"n": 2}]})), "sampling_params"),
        (
            asked(json!({"text": ["a", "b"], "sampling_params": [{}, {"top_p": 2}]})),
            "sampling_params[1].top_p",
        ),
        (asked(json!({"sampling_params": [{}]})), "sampling_params"),
        (asked(json!({"return_logprob": true, "logprob_start_len": 13})), "logprob_start_len"),
        (asked(json!({"return_logprob": true, "logprob_start_len": -2})), "logprob_start_len"),
        (asked(json!({"return_logprob": true, "top_logprobs_num": 129})), "top_logprobs_num"),
        (params(json!({"max_new_tokens": 501})), "sampling_params.max_new_tokens"),
        (params(json!({"max_new_tokens": -1})), "sampling_params.max_new_tokens"),
        (
            params(json!({"max_new_tokens": 2, "min_new_tokens": 3})),
            "sampling_params.min_new_tokens",
        ),
        (params(json!({"temperature": -1})), "sampling_params.temperature"),
        (params(json!({"n": 0})), "sampling_params.n"),
        (params(json!({"sampling_seed": "x"})), "sampling_params.sampling_seed"),
        (params(json!({"frequency_penalty": 3})), "sampling_params.frequency_penalty"),
        (params(json!({"logit_bias": {"x": 1}})), "sampling_params.logit_bias"),
        (params(json!({"stop": [""]})), "sampling_params.stop"),
        (params(json!({"stop_token_ids": [999]})), "sampling_params.stop_token_ids"),
        (params(json!({"stop_regex": "("})), "sampling_params.stop_regex"),
        (params(json!({"stop_regex": ["a", "(a|b)*a(a|b){20}"]})), "sampling_params.stop_regex"),
        (params(json!({"stop_regex": vec!["a"; 17]})), "sampling_params.stop_regex"),
        (params(json!({"stop_regex": 1})), "sampling_params.stop_regex"),
        (params(json!({"ebnf": "root ::= \"a\""})), "sampling_params.ebnf"),
        (params(json!({"regex": "("})), "sampling_params.regex"),
        (params(json!({"json_schema": "{"})), "sampling_params.json_schema"),
        (params(json!({"json_schema": {}, "regex": "a"})), "sampling_params.regex"),
        (params(json!({"beam_width": 2})), "sampling_params.beam_width"),
        (params(json!({"stream_interval": 0})), "sampling_params.stream_interval"),
        (params(json!({"min_tokens": 5})), "sampling_params.min_tokens"),
        (params(json!({"max_tokens": 5})), "sampling_params.max_tokens"),
    ] {
        assert_eq!(refused(&body), field, "{body}");
    }
    for (salt, key, field) in
        [(1025, 1, "cache_salt"), (1, 1025, "extra_key"), (600, 600, "extra_key")]
    {
        let more = json!({ "cache_salt": "s".repeat(salt), "extra_key": "k".repeat(key) });
        assert_eq!(refused(&asked(more)), field, "{salt} {key}");
    }
    // There an empty one is none.
    let none = asked(json!({ "cache_salt": "", "extra_key": "" }));
    assert_eq!(server().post("/generate", &none).status, 200);
    // One list of parameters, read anew for each of many salts.
    let salts: Vec<String> = (0..4000).map(|salt| salt.to_string()).collect();
    let stops: Vec<String> = (0..32).map(|stop| format!("{stop:0>1000}")).collect();
    let body =
        json!({"text": vec!["a"; 4000], "cache_salt": salts, "sampling_params": {"stop": stops}});
    assert_eq!(refused(&body), "sampling_params");
    // A class that it does not know, by a pickle's bytes.
    let callable = json!({"callable": "636f730a73797374656d0a2e"}).to_string();
    let told = server().post("/generate", &asked(json!({"custom_logit_processor": callable})));
    let words = told.json()["error"]["message"].to_string();
    assert!(told.status == 400 && words.contains("no code of a request is executed"), "{words}");
    for body in [json!([]), json!("x"), json!({"text": "a", "sampling_params": "b"})] {
        assert_eq!(server().post("/generate", &body).status, 400, "{body}");
    }
    server().rests();
}

#[test]
fn a_server_of_atropos_answers_by_the_same_path() {
    let _server = server();
    let body = json!({
        "prompt": {"prompt_token_ids": [72, 105]}, "logprobs": 0, "n": 2, "max_tokens": 3,
        "temperature": 0, "ignore_eos": true,
    });
    let told = server().ask("/generate", &body);
    let fields = ["text", "prompt", "finish_reasons", "logprobs", "prompt_token_ids", "token_ids"];
    assert_eq!(keys(&told), fields.into_iter().collect());
    assert_eq!(told["finish_reasons"], json!(["length", "length"]));
    assert_eq!((&told["prompt"], &told["prompt_token_ids"]), (&json!("Hi"), &json!([72, 105])));
    for choice in 0..2 {
        for (token, tables) in
            list(&told["token_ids"][choice]).iter().zip(list(&told["logprobs"][choice]))
        {
            let (name, logprob) =
                tables[0].as_object().and_then(|table| table.iter().next()).expect("a table");
            assert_eq!(*name, token.to_string());
            assert!(logprob.as_f64().is_some_and(|logprob| logprob <= 0.0));
        }
    }
    let scored = server().ask("/generate", &with(body, json!({"prompt_logprobs": 1})));
    assert_eq!(list(&scored["prompt_logprobs"]).len(), 2);
    for (body, field) in [
        (json!({"prompt": {}}), "prompt_token_ids"),
        (json!({"prompt": 5}), "prompt"),
        (json!({"prompt": {"prompt_token_ids": [[1], [2]]}}), "prompt"),
        (json!({"prompt": "a", "stream": true}), "stream"),
    ] {
        assert_eq!(refused(&body), field, "{body}");
    }
}
