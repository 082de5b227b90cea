//! `processors` of a real server, on every surface that generates, and what was kept.

use pagewise_tests::server::{Server, Shared, checkpoint};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

const THINK: u32 = 259;
const THOUGHT: u32 = 260;

/// One whose tokenizer has the tokens of thinking, with a set of actions.
fn server() -> Arc<Server> {
    static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let folder = checkpoint::write();
    let path = folder.join("tokenizer.json");
    let text = std::fs::read(&path).expect("a tokenizer");
    let mut tokenizer: Value = serde_json::from_slice(&text).expect("JSON");
    let added = tokenizer["added_tokens"].as_array_mut().expect("a list");
    for (id, content) in [(THINK, "<think>"), (THOUGHT, "</think>")] {
        let mut token = added[0].clone();
        (token["id"], token["content"]) = (id.into(), content.into());
        added.push(token);
    }
    std::fs::write(&path, tokenizer.to_string()).expect("a file");
    let set = folder.join("moves.json");
    std::fs::write(&set, "[97, 98, 99]").expect("a file");
    let set = format!("moves={}", set.display());
    let server = Arc::new(Server::of(folder, &["--action-set", &set]));
    *shared = Arc::downgrade(&server);
    server
}

/// One that has neither.
fn plain() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&[])
}

const PATHS: [&str; 3] = ["/v1/completions", "/v1/chat/completions", "/inference/v1/generate"];

/// A request of 12 tokens with more fields.
fn body(path: &str, more: &Value) -> Value {
    let mut asked = json!({
        "max_tokens": 12, "temperature": 1, "seed": 5, "return_token_ids": true, "ignore_eos": true,
    });
    asked.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
    match path {
        "/v1/completions" => asked["prompt"] = "Say:".into(),
        "/v1/chat/completions" => asked["messages"] = json!([{"role": "user", "content": "Say:"}]),
        _ => return json!({"token_ids": [83, 97, 121, 58], "sampling_params": asked}),
    }
    asked
}

fn choice(path: &str, more: &Value) -> Value {
    server().ask(path, &body(path, more))["choices"][0].clone()
}

fn tokens(choice: &Value) -> Vec<u64> {
    let all = choice["token_ids"].as_array().expect("a list").iter();
    all.map(|token| token.as_u64().expect("a token")).collect()
}

#[test]
fn masks_hold_on_every_surface() {
    let _server = server();
    for path in PATHS {
        let of = |processors: Value| choice(path, &json!({"processors": processors}));
        let allowed = tokens(&of(json!({"type": "action_mask", "allowed_token_ids": [65, 66]})));
        assert!(allowed.len() == 12 && allowed.iter().all(|token| [65, 66].contains(token)));
        let named = tokens(&of(json!([
            {"type": "action_mask", "set": "moves"},
            {"type": "disallowed_tokens", "token_ids": [98]},
        ])));
        assert!(named.iter().all(|token| [97, 99].contains(token)), "{named:?}");
        let most: Vec<u32> = (0..264).filter(|token| *token != 70).collect();
        assert_eq!(tokens(&of(json!({"type": "disallowed_tokens", "token_ids": most}))), [70; 12]);
        let steps = json!({"type": "action_mask", "steps": [[72], [105], [33, 46]], "then": "end"});
        let ended = of(steps.clone());
        assert_eq!(ended["finish_reason"], "stop", "{ended}");
        let got = tokens(&ended);
        assert!(got.len() == 3 && got[..2] == [72, 105] && [33, 46].contains(&got[2]));
        let stuck = of(json!([steps, {"type": "disallowed_tokens", "token_ids": [105]}]));
        assert_eq!(stuck["finish_reason"], "abort");
        assert_eq!(stuck["stop_reason"], "no token is allowed to come next");
        assert_eq!(tokens(&stuck), [72]);
    }
}

#[test]
fn a_schedule_that_ends_at_zero_draws_what_is_most_likely() {
    let _server = server();
    let greedy = choice(PATHS[0], &json!({"temperature": 0}));
    let cold = json!({"type": "temperature_schedule", "start": 0, "end": 0, "tokens": 1});
    assert_eq!(tokens(&choice(PATHS[0], &json!({"processors": cold}))), tokens(&greedy));
    let hot = json!({"type": "temperature_schedule", "start": 2, "end": 1, "decay": 0.9});
    let answer = || choice(PATHS[0], &json!({"processors": hot, "logprobs": 1}));
    let first = answer();
    assert_ne!(tokens(&first), tokens(&greedy));
    assert_eq!(first, answer(), "replayed, it is the same");
}

#[test]
fn thinking_ends_after_its_budget_under_every_name() {
    let server = server();
    let forced = |more: Value, prompt: &[u32]| {
        let mut asked = body(PATHS[0], &more);
        asked["prompt"] = json!(prompt);
        let told = server.ask(PATHS[0], &asked);
        tokens(&told["choices"][0]).iter().position(|token| *token == u64::from(THOUGHT))
    };
    // `Glm4MoeThinkingBudgetLogitProcessor`, pickled by reference.
    let class =
        "csglang.srt.sampling.custom_logit_processor\nGlm4MoeThinkingBudgetLogitProcessor\n.";
    let digits: String = class.bytes().map(|byte| format!("{byte:02x}")).collect();
    let callable = json!({"callable": digits}).to_string();
    for more in [
        json!({"thinking_token_budget": 4}),
        json!({"max_thinking_tokens": 4}),
        json!({"processors": [{"type": "thinking_budget", "tokens": 4}]}),
        json!({"custom_logit_processor": callable, "custom_params": {"thinking_budget": 4}}),
    ] {
        assert_eq!(forced(more.clone(), &[65, THINK, 10]), Some(4), "{more}");
        assert_eq!(forced(more.clone(), &[65, THINK, 10, THOUGHT]), None, "{more}");
    }
    let own = json!({"type": "thinking_budget", "tokens": 2, "start": [65], "end": [70, 71]});
    let mut asked = body(PATHS[0], &json!({"processors": own}));
    asked["prompt"] = json!([65]);
    assert_eq!(tokens(&server.ask(PATHS[0], &asked)["choices"][0])[2..4], [70, 71]);
    // Where the tokenizer has no such token, it has to be said.
    let plain = plain();
    for (more, field) in [
        (json!({"thinking_token_budget": 4}), "thinking_token_budget"),
        (json!({"processors": {"type": "thinking_budget", "tokens": 4}}), "processors"),
    ] {
        let response = plain.post(PATHS[0], &body(PATHS[0], &more));
        assert_eq!((response.status, response.param()), (400, Some(field.into())));
        assert!(String::from_utf8_lossy(&response.body).contains("no token `</think>`"));
    }
}

#[test]
fn what_was_kept_is_told_on_every_surface() {
    let server = server();
    let mask = json!({"type": "action_mask", "steps": [[65, 66], [67]]});
    for path in PATHS {
        let more = json!({"processors": mask, "max_tokens": 3, "return_sampling_mask": true});
        let told = choice(path, &more)["sampling_mask"].clone();
        assert_eq!(told, json!([[65, 66], [67], null]), "{path}");
        let mut hashed = more.clone();
        hashed["sampling_mask"] = "hash".into();
        let told = choice(path, &hashed)["sampling_mask"].clone();
        let hash = |tokens: &[u32]| {
            let bytes = tokens.iter().flat_map(|token| token.to_le_bytes());
            let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            format!("{hash:016x}")
        };
        assert_eq!(told, json!([hash(&[65, 66]), hash(&[67]), null]), "{path}");
        let silent = choice(path, &json!({"max_tokens": 1}));
        assert!(silent["sampling_mask"].is_null());
        // A stream tells the same.
        let filtered = json!({"top_p": 0.8, "return_sampling_mask": true});
        let whole = choice(path, &filtered)["sampling_mask"].clone();
        let mut asked = body(path, &filtered);
        match path {
            "/inference/v1/generate" => asked["sampling_params"]["stream"] = true.into(),
            _ => asked["stream"] = true.into(),
        }
        let events = server.post(path, &asked).events();
        let choices = events.iter().flat_map(|event| event["choices"].as_array().expect("a list"));
        let masks = choices.flat_map(|it| it["sampling_mask"].as_array().cloned());
        let streamed: Vec<Value> = masks.flatten().collect();
        assert_eq!((whole, streamed.len()), (json!(streamed), 12));
    }
}

#[test]
fn what_is_wrong_is_refused_by_its_field_on_every_surface() {
    let server = server();
    let mask =
        |name: &str, value: Value| json!({"processors": {"type": "action_mask", name: value}});
    let schedule = json!({"type": "temperature_schedule", "start": 1, "end": 1, "decay": 1});
    for (more, field, said) in [
        (mask("set", json!("nowhere")), "processors.set", "(moves), got `nowhere`"),
        (mask("allowed_token_ids", json!([264])), "processors.allowed_token_ids", "below 264"),
        (mask("steps", json!([[1], [264]])), "processors.steps[1]", "below 264"),
        (mask("steps", json!([])), "processors.steps", "at least one list"),
        (mask("set", json!(null)), "processors.allowed_token_ids", "expected one of"),
        (
            json!({"processors": [{"type": "disallowed_tokens", "token_ids": [1, 999]}]}),
            "processors[0].token_ids",
            "got 999",
        ),
        (json!({"processors": [{"type": "python"}]}), "processors[0].type", "`python`"),
        (
            json!({"processors": {"type": "thinking_budget", "tokens": 1, "end": [999]}}),
            "processors.end",
            "got 999",
        ),
        (json!({"processors": [schedule, schedule]}), "processors", "at most one temperature"),
        (json!({"thinking_token_budget": -1}), "thinking_token_budget", "0 or more"),
        (json!({"custom_params": {"a": 1}}), "custom_params", "custom_logit_processor"),
        (
            json!({"custom_logit_processor": "{\"callable\": \"80\"}"}),
            "custom_logit_processor",
            "no code of a request is executed",
        ),
        (json!({"sampling_mask": "hash"}), "sampling_mask", "return_sampling_mask"),
        (
            json!({"return_sampling_mask": true, "sampling_mask": "md5"}),
            "sampling_mask",
            "`tokens` or `hash`",
        ),
    ] {
        for path in PATHS {
            let response = server.post(path, &body(path, &more));
            let told = String::from_utf8_lossy(&response.body).into_owned();
            assert_eq!((response.status, response.param()), (400, Some(field.into())), "{told}");
            assert!(told.contains(&said.replace('"', "\\\"")), "{said} is not in {told}");
        }
    }
}

#[test]
fn masks_that_would_not_fit_are_refused_with_numbers() {
    let server = server();
    // What is refused last says that all before it was good.
    let asked = |more: Value| {
        let mut asked = body(
            PATHS[0],
            &json!({
                "n": 128, "max_tokens": 400, "return_sampling_mask": true, "temperature": 1,
                "structured_outputs": {"regex": "("},
            }),
        );
        asked["prompt"] = json!(["a", "b", "c"]);
        asked.as_object_mut().expect("an object").extend(more.as_object().expect("fields").clone());
        let response = server.post(PATHS[0], &asked);
        assert_eq!(response.status, 400);
        (response.param().expect("a field"), String::from_utf8_lossy(&response.body).into_owned())
    };
    let (field, told) = asked(json!({}));
    assert_eq!(field, "return_sampling_mask", "{told}");
    for number in [128 * 1200 * 264, 1 << 25, 264] {
        assert!(told.contains(&number.to_string()), "{number} is not in {told}");
    }
    let schedule = json!({"type": "temperature_schedule", "start": 1, "end": 0, "tokens": 9});
    let wide = asked(json!({"temperature": 0, "processors": schedule})).0;
    assert_eq!(wide, "return_sampling_mask");
    for more in [
        json!({"sampling_mask": "hash"}),
        json!({"top_k": 50}),
        json!({"temperature": 0}),
        json!({"allowed_token_ids": [1, 2]}),
        json!({"processors": {"type": "action_mask", "set": "moves"}}),
        json!({"processors": {"type": "action_mask", "steps": [[1, 2]], "then": "last"}}),
    ] {
        assert_eq!(asked(more.clone()).0, "structured_outputs.regex", "{more}");
    }
}

#[test]
fn a_set_that_is_none_keeps_a_server_from_starting() {
    let folder: PathBuf = checkpoint::write();
    let set = folder.join("moves.json");
    std::fs::write(&set, "[97, 264]").expect("a file");
    let mut command = pagewise_tests::server::command();
    command.arg("serve").arg(&folder).args(["--port", "0", "--threads", "1", "--action-set"]);
    let outcome = command.arg(format!("moves={}", set.display())).output().expect("it runs");
    let said = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(!outcome.status.success());
    let words = ["--action-set moves", "moves.json", "tokens below 264, got 264"];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    std::fs::remove_dir_all(folder.parent().expect("its own")).expect("it was there");
}
