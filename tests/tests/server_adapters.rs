//! Adapters of a real server: loaded and unloaded as each client spells it, asked for by
//! name, swapped while answers are in flight.

use pagewise_tests::lora::adapter;
use pagewise_tests::server::{Server, Shared, checkpoint};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&["--max-loras", "4", "--max-lora-rank", "8"])
}

/// A folder that goes with its holder.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The folder of an adapter for the servers of these tests.
fn folder(server: &Server, seed: u64) -> Folder {
    let base = checkpoint::open(server.folder());
    let adapter = adapter(&base, &["_proj"], 4, seed);
    let name = format!("pagewise-adapter-{}-{seed}-{:p}", std::process::id(), &raw const adapter);
    let folder = std::env::temp_dir().join(name);
    ::checkpoint::write_adapter(&folder, &adapter, &base.config, "base").expect("it is written");
    Folder(folder)
}

fn load(server: &Server, path: &str, name: &str, folder: &Path, more: Value) -> Value {
    let mut body = json!({ "lora_name": name, "lora_path": folder });
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    let response = server.post(path, &body);
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    serde_json::from_slice(&response.body).unwrap_or_default()
}

fn ask(server: &Server, model: Option<&str>, more: Value) -> Value {
    let mut body = json!({
        "token_ids": [65, 66, 67, 68, 69, 70],
        "sampling_params": { "max_tokens": 12, "temperature": 0, "logprobs": 1, "ignore_eos": true },
    });
    if let Value::Object(body) = &mut body {
        body.extend(model.map(|model| ("model".to_owned(), model.into())));
        body.extend(more.as_object().cloned().unwrap_or_default());
    }
    let response = server.post("/inference/v1/generate", &body);
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    response.json()
}

#[test]
fn tokens_in_and_out_have_the_fields_that_clients_read() {
    let reply = ask(&server(), None, json!({ "request_id": "r1", "return_token_ids": true }));
    let keys = |value: &Value| {
        let mut keys: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort();
        keys
    };
    let expected = [
        "choices",
        "created",
        "kv_transfer_params",
        "metrics",
        "mm_placeholders",
        "model",
        "output_mode",
        "prompt_logprobs",
        "prompt_token_id_logprobs",
        "prompt_token_ids",
        "request_id",
        "usage",
    ];
    assert_eq!(keys(&reply), expected);
    assert_eq!(reply["request_id"], "r1");
    assert_eq!(reply["prompt_token_ids"], json!([65, 66, 67, 68, 69, 70]));
    let choice = &reply["choices"][0];
    let expected = [
        "finish_reason",
        "index",
        "logprobs",
        "routed_experts",
        "sampling_mask",
        "stop_reason",
        "token_ids",
        "weight_versions",
    ];
    assert_eq!(keys(choice), expected);
    let tokens = choice["token_ids"].as_array().expect("tokens");
    let entries = choice["logprobs"]["content"].as_array().expect("log-probabilities");
    assert_eq!((tokens.len(), entries.len()), (12, 12));
    for (token, entry) in tokens.iter().zip(entries) {
        assert_eq!(entry["token"], format!("token_id:{token}"));
        assert_eq!(entry["token_id"], *token);
        assert_eq!(entry["rank"], 1);
        assert!(entry["logprob"].as_f64().is_some_and(|x| x.is_finite() && x <= 0.0));
        assert_eq!(entry["top_logprobs"][0]["token_id"], *token);
    }
    let spans = json!([{ "version": "default", "start": 0, "end": 12 }]);
    assert_eq!(choice["weight_versions"], spans);
    assert_eq!(choice["finish_reason"], "length");
}

#[test]
fn an_adapter_is_asked_for_by_its_name_and_goes_by_it() {
    let server = server();
    let plain = ask(&server, None, json!({}));
    let (one, two) = (folder(&server, 1), folder(&server, 2));
    let body = json!({ "lora_name": "one", "lora_path": one.0, "load_inplace": false });
    let response = server.post("/v1/load_lora_adapter", &body);
    let words = "Success: LoRA adapter 'one' added successfully.";
    assert_eq!((response.status, &response.body[..]), (200, words.as_bytes()));
    let again = server.post("/v1/load_lora_adapter", &body);
    assert_eq!((again.status, again.param().as_deref()), (400, Some("lora_name")));
    let first = ask(&server, Some("one"), json!({}));
    assert_ne!(first["choices"][0]["token_ids"], plain["choices"][0]["token_ids"]);
    assert_eq!(first["model"], "one");
    assert_eq!(first["choices"][0]["weight_versions"][0]["version"], "one@1");
    // prime-rl's spelling: the same name again, in place, with what SGLang's clients read.
    let reply = load(&server, "/load_lora_adapter", "one", &two.0, json!({ "weight_version": 7 }));
    assert_eq!((&reply["status"], &reply["success"]), (&json!("ok"), &json!(true)));
    assert_eq!(reply["loaded_adapters"]["one"], json!(two.0));
    let second = ask(&server, Some("one"), json!({}));
    assert_ne!(second["choices"][0]["token_ids"], first["choices"][0]["token_ids"]);
    assert_eq!(second["choices"][0]["weight_versions"][0]["version"], "7");
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    // One call back.
    let reply = server.post("/v1/rollback_lora_adapter", &json!({ "lora_name": "one" }));
    assert_eq!(reply.json()["weight_version"], "one@1");
    assert_eq!(reply.json()["loaded_adapters"]["one"], json!(one.0), "and where it came from");
    let back = ask(&server, Some("one"), json!({}));
    assert_eq!(back["choices"][0]["logprobs"], first["choices"][0]["logprobs"]);
    let models = server.get("/v1/models").json();
    let card = models["data"].as_array().expect("cards").iter().find(|card| card["id"] == "one");
    let card = card.expect("it is listed");
    assert_eq!(card["parent"], models["data"][0]["id"]);
    assert!(card["max_model_len"].is_u64());
    // By OpenAI's surfaces, too.
    let completion = json!({
        "model": "one", "prompt": [65, 66, 67, 68, 69, 70], "max_tokens": 12, "temperature": 0,
        "ignore_eos": true, "return_token_ids": true, "return_weight_versions": true,
    });
    let completion = server.post("/v1/completions", &completion).json();
    assert_eq!(completion["choices"][0]["token_ids"], first["choices"][0]["token_ids"]);
    assert_eq!(completion["choices"][0]["weight_versions"][0]["version"], "one@1");
    let gone = server.post("/v1/unload_lora_adapter", &json!({ "lora_name": "one" }));
    let words = "Success: LoRA adapter 'one' removed successfully.";
    assert_eq!((gone.status, &gone.body[..]), (200, words.as_bytes()));
    let unknown = json!({ "model": "one", "token_ids": [65], "sampling_params": {} });
    assert_eq!(server.post("/inference/v1/generate", &unknown).status, 404);
    let gone = server.post("/v1/unload_lora_adapter", &json!({ "lora_name": "one" }));
    assert_eq!(gone.status, 404);
}

#[test]
fn an_adapter_may_be_there_from_the_start() {
    let first = server();
    let there = folder(&first, 31);
    load(&first, "/load_lora_adapter", "early", &there.0, json!({}));
    let expected = ask(&first, Some("early"), json!({}));
    let module = format!("early={}", there.0.display());
    let server = Server::start(&["--lora-modules", &module]);
    let early = ask(&server, Some("early"), json!({}));
    assert_eq!(early["choices"][0]["logprobs"], expected["choices"][0]["logprobs"]);
}

#[test]
fn more_adapters_than_slots_take_turns_and_come_back_as_they_were() {
    let server = Server::start(&["--max-loras", "2", "--max-lora-rank", "8"]);
    let folders: Vec<Folder> = (0..5).map(|seed| folder(&server, seed)).collect();
    for (at, folder) in folders.iter().enumerate() {
        load(&server, "/load_lora_adapter", &format!("a{at}"), &folder.0, json!({}));
    }
    let all = || -> Vec<Value> {
        let each = (0..5).map(|at| ask(&server, Some(&format!("a{at}")), json!({})));
        each.map(|reply| reply["choices"][0]["logprobs"].clone()).collect()
    };
    let first = all();
    // The files are no longer needed.
    drop(folders);
    assert_eq!(all(), first);
    assert!((1..5).all(|at| first[at] != first[0]));
    let list = server.get("/v1/lora_adapters").json();
    assert_eq!((&list["slots"], list["data"].as_array().map(Vec::len)), (&json!(2), Some(5)));
    assert!(list["data"][0]["bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    assert!(list["slot_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
}

#[test]
fn a_bad_adapter_is_refused_whole_and_the_one_before_stays() {
    let server = server();
    let good = folder(&server, 11);
    load(&server, "/load_lora_adapter", "kept", &good.0, json!({}));
    let before = ask(&server, Some("kept"), json!({}));
    let half = folder(&server, 12);
    let tensors = half.0.join("adapter_model.safetensors");
    let whole = std::fs::read(&tensors).expect("it is there");
    std::fs::write(&tensors, &whole[..whole.len() - 7]).expect("cut");
    let refuse = |body: Value| server.post("/load_lora_adapter", &body);
    let cut = refuse(json!({ "lora_name": "kept", "lora_path": half.0 }));
    assert_eq!((cut.status, cut.param().as_deref()), (400, Some("lora_path")));
    assert_eq!(refuse(json!({ "lora_name": "kept", "lora_path": "/no/such" })).status, 404);
    assert_eq!(refuse(json!({ "lora_name": "kept" })).param().as_deref(), Some("lora_path"));
    assert_eq!(refuse(json!({ "lora_path": good.0 })).param().as_deref(), Some("lora_name"));
    let named = refuse(json!({ "lora_name": "a\nb", "lora_path": good.0 }));
    assert_eq!(named.param().as_deref(), Some("lora_name"));
    let wide = checkpoint::open(server.folder());
    let adapter = adapter(&wide, &["q_proj"], 17, 1);
    let wide_folder = Folder(half.0.with_extension("wide"));
    ::checkpoint::write_adapter(&wide_folder.0, &adapter, &wide.config, "base").expect("written");
    let wide = refuse(json!({ "lora_name": "kept", "lora_path": wide_folder.0 }));
    let words = wide.json()["error"]["message"].to_string();
    assert!(wide.status == 400 && words.contains("rank must be 1 to 16"), "{words}");
    let pickled = json!({
        "lora_name": "kept", "config_dict": { "r": 4 },
        "serialized_named_tensors": ["gASVCgAAAAAAAABDBnB3bmVkIZQu"],
    });
    let pickled = server.post("/load_lora_adapter_from_tensors", &pickled);
    let words = pickled.json()["error"]["message"].to_string();
    assert!(pickled.status == 400 && words.contains("pickle"), "{words}");
    let after = ask(&server, Some("kept"), json!({}));
    assert_eq!(after["choices"], before["choices"]);
}

#[test]
fn who_finds_all_slots_pinned_is_told_to_come_again() {
    let server = Server::start(&["--max-loras", "1", "--max-lora-rank", "8"]);
    let (one, two) = (folder(&server, 63), folder(&server, 64));
    load(&server, "/load_lora_adapter", "a", &one.0, json!({ "pinned": true }));
    let body = json!({ "lora_name": "b", "lora_path": two.0 });
    let full = server.post("/load_lora_adapter", &body);
    assert_eq!((full.status, full.header("retry-after")), (429, Some("1")), "{}", full.json());
    assert_eq!(full.json()["error"]["code"], "no_slot");
    server.post("/unload_lora_adapter", &json!({ "lora_name": "a" }));
    assert_eq!(server.post("/load_lora_adapter", &body).status, 200);
}

#[test]
fn a_version_that_finds_no_slot_in_time_is_given_up_and_the_one_before_stays() {
    let limits = ["--max-loras", "1", "--max-lora-rank", "8", "--max-batch-size", "1"];
    let server = Server::start(&limits);
    let (one, two) = (folder(&server, 61), folder(&server, 62));
    load(&server, "/load_lora_adapter", "a", &one.0, json!({}));
    let before = ask(&server, Some("a"), json!({}));
    let body =
        |timeout: f64| json!({ "lora_name": "a", "lora_path": two.0, "timeout_seconds": timeout });
    std::thread::scope(|scope| {
        // So many answers, one after the other, that they have the only slot for long.
        let long = json!({ "sampling_params": { "max_tokens": 490, "n": 64, "ignore_eos": true } });
        let count = server.count("generated_tokens");
        let asking = scope.spawn(|| ask(&server, Some("a"), long));
        while server.count("generated_tokens") < count + 3 {
            std::thread::yield_now();
        }
        let late = server.post("/load_lora_adapter", &body(0.05));
        assert_eq!(late.status, 504);
        assert_eq!(late.json()["error"]["code"], "timed_out");
        let spans = json!([{ "version": "a@1", "start": 0, "end": 490, "weights": "default" }]);
        let answer = asking.join().expect("an answer");
        let choices = answer["choices"].as_array().expect("a list");
        assert!(choices.iter().all(|choice| choice["weight_versions"] == spans), "{choices:?}");
    });
    assert_eq!(ask(&server, Some("a"), json!({}))["choices"], before["choices"]);
    assert_eq!(server.post("/load_lora_adapter", &body(0.0)).status, 504);
    assert_eq!(server.get("/v1/lora_adapters").json()["data"][0]["version"], "a@1");
    let back = json!({ "lora_name": "a", "timeout_seconds": "soon" });
    let wrong = server.post("/v1/rollback_lora_adapter", &back);
    assert_eq!((wrong.status, wrong.param().as_deref()), (400, Some("timeout_seconds")));
    assert_eq!(server.post("/load_lora_adapter", &body(100.0)).status, 200);
    let after = ask(&server, Some("a"), json!({}));
    assert_ne!(after["choices"][0]["logprobs"], before["choices"][0]["logprobs"]);
}

#[test]
fn an_adapter_may_come_with_its_request() {
    use base64::Engine as _;
    let server = server();
    let there = folder(&server, 21);
    load(&server, "/load_lora_adapter", "there", &there.0, json!({}));
    let expected = ask(&server, Some("there"), json!({}));
    let read = |name: &str| std::fs::read(there.0.join(name)).expect("it is there");
    let config: Value = serde_json::from_slice(&read("adapter_config.json")).expect("JSON");
    let tensors =
        base64::engine::general_purpose::STANDARD.encode(read("adapter_model.safetensors"));
    let body = json!({
        "lora_name": "sent", "config_dict": config, "serialized_named_tensors": [tensors],
    });
    let response = server.post("/load_lora_adapter_from_tensors", &body);
    assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
    let sent = ask(&server, Some("sent"), json!({}));
    assert_eq!(sent["choices"][0]["logprobs"], expected["choices"][0]["logprobs"]);
}

#[test]
fn a_canary_refuses_what_strays_and_the_one_before_stays() {
    let server = server();
    let (calm, wild) = (folder(&server, 41), folder(&server, 42));
    load(&server, "/load_lora_adapter", "watched", &calm.0, json!({}));
    let before = ask(&server, Some("watched"), json!({}));
    let load_with = |folder: &Path, bound: f64| {
        let canary = json!({ "prompt": [65, 66, 67, 68, 69], "max_divergence": bound });
        let body = json!({ "lora_name": "watched", "lora_path": folder, "canary": canary });
        server.post("/load_lora_adapter", &body)
    };
    let strayed = load_with(&wild.0, 1e-4);
    assert_eq!((strayed.status, strayed.param().as_deref()), (422, Some("canary")));
    assert_eq!(ask(&server, Some("watched"), json!({}))["choices"], before["choices"]);
    // The same numbers again are no other.
    assert_eq!(load_with(&calm.0, 0.0).status, 200);
    assert_eq!(load_with(&wild.0, 100.0).status, 200);
    let after = ask(&server, Some("watched"), json!({}));
    assert_ne!(after["choices"][0]["logprobs"], before["choices"][0]["logprobs"]);
    let wrong =
        json!({ "lora_name": "watched", "lora_path": calm.0, "canary": { "prompt": [65] } });
    let wrong = server.post("/load_lora_adapter", &wrong);
    assert_eq!((wrong.status, wrong.param().as_deref()), (400, Some("canary.prompt")));
}

#[test]
fn the_frozen_base_scores_what_an_adapter_draws_in_the_same_reply() {
    let server = server();
    let there = folder(&server, 51);
    load(&server, "/load_lora_adapter", "drawn", &there.0, json!({}));
    let asked = json!({ "return_ref_logprobs": "base" });
    let reply = ask(&server, Some("drawn"), asked.clone());
    let choice = &reply["choices"][0];
    let own: Vec<f64> = choice["logprobs"]["content"]
        .as_array()
        .expect("entries")
        .iter()
        .map(|entry| entry["logprob"].as_f64().expect("a number"))
        .collect();
    let references: Vec<f64> =
        serde_json::from_value(choice["ref_logprobs"].clone()).expect("numbers");
    // What the base says of the same tokens as a prompt.
    let mut tokens = vec![65, 66, 67, 68, 69, 70];
    tokens.extend::<Vec<u32>>(serde_json::from_value(choice["token_ids"].clone()).expect("tokens"));
    let scored = json!({ "token_ids": tokens,
        "sampling_params": { "max_tokens": 1, "prompt_logprobs": 0 } });
    let scored = server.post("/inference/v1/generate", &scored).json();
    let expected: Vec<f64> = tokens
        .iter()
        .zip(scored["prompt_logprobs"].as_array().expect("scores"))
        .skip(6)
        .map(|(token, entry)| entry[token.to_string()]["logprob"].as_f64().expect("a number"))
        .collect();
    assert_eq!(references, expected);
    assert_ne!(references, own, "the adapter says otherwise");
    // Of the base itself they are its own.
    let reply = ask(&server, None, asked);
    let choice = &reply["choices"][0];
    for (entry, reference) in choice["logprobs"]["content"]
        .as_array()
        .expect("entries")
        .iter()
        .zip(choice["ref_logprobs"].as_array().expect("numbers"))
    {
        assert_eq!(entry["logprob"], *reference);
    }
    let wrong = json!({ "token_ids": [65], "sampling_params": {}, "return_ref_logprobs": "other" });
    let wrong = server.post("/inference/v1/generate", &wrong);
    assert_eq!((wrong.status, wrong.param().as_deref()), (400, Some("return_ref_logprobs")));
}

#[test]
fn the_base_drafts_for_an_adapter_and_no_bit_tells() {
    let limits = ["--max-loras", "2", "--max-lora-rank", "8"];
    let answer = |more: &[&str]| {
        let server = Server::start(&[&limits[..], more].concat());
        let folder = folder(&server, 5);
        load(&server, "/v1/load_lora_adapter", "policy", &folder.0, json!({}));
        let sampled = json!({ "sampling_params": {
            "max_tokens": 40, "temperature": 0.3, "seed": 7, "logprobs": 1, "ignore_eos": true,
        } });
        let reply = ask(&server, Some("policy"), sampled);
        (reply["choices"].clone(), server.count("draft_tokens_accepted"))
    };
    let (plain, none) = answer(&[]);
    assert_eq!(none, 0);
    for more in [&["--draft", "base"][..], &["--draft", "base", "--draft-quantize", "q4"]] {
        let (told, accepted) = answer(more);
        assert_eq!(told, plain, "{more:?}");
        assert!(accepted > 0, "{more:?}");
    }
}
