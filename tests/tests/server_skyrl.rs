//! What SkyRL calls of a real server besides vLLM's own: its generation, weights that are
//! fetched ahead, methods of workers, and prompts that are rendered for it.

use pagewise_tests::lora::{adapter, merged};
use pagewise_tests::server::{Server, Shared, checkpoint};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::sync::Arc;

fn server() -> Arc<Server> {
    static SHARED: Shared = Shared::new();
    SHARED.of(&[])
}

fn generate(server: &Server, path: &str) -> Value {
    let body = json!({
        "token_ids": [65, 66, 67], "cache_salt": "3",
        "sampling_params": {"max_tokens": 8, "temperature": 0, "logprobs": 0, "ignore_eos": true},
    });
    server.ask(path, &body)["choices"][0].clone()
}

#[test]
fn its_generation_is_that_of_vllm() {
    let server = server();
    let (own, theirs) =
        (generate(&server, "/skyrl/v1/generate"), generate(&server, "/inference/v1/generate"));
    assert_eq!(own, theirs);
    assert_eq!(own["routed_experts"], Value::Null, "no model here has experts");
    let full = json!({"token_ids": [65], "sampling_params": {}, "return_full_logprobs": true});
    let refused = server.post("/skyrl/v1/generate", &full);
    assert_eq!((refused.status, refused.param().as_deref()), (400, Some("return_full_logprobs")));
}

#[test]
fn weights_are_fetched_ahead_and_swapped_in_by_their_version() {
    let server = Server::start(&[]);
    let base = checkpoint::open(server.folder());
    let changed = merged(&base, &adapter(&base, &["q_proj", "down_proj"], 4, 3));
    let views = changed.tensors.iter().map(|(name, tensor)| {
        let shape = tensor.shape().iter().map(|&extent| extent as usize).collect();
        (name, TensorView::new(Dtype::F32, shape, tensor.bytes()).expect("whole"))
    });
    let folder = checkpoint::write();
    let file = safetensors::serialize(views, None).expect("a file");
    std::fs::write(folder.join("model.safetensors"), file).expect("written");
    let before = generate(&server, "/skyrl/v1/generate");
    let rpc = |method: &str, kwargs: Value| {
        server.post("/collective_rpc", &json!({"method": method, "kwargs": kwargs}))
    };

    let told = server.ask("/fetch_weights", &json!({"target_version": 7, "sync_dir": folder}));
    assert_eq!(told, json!({"status": "ok", "result": [{"status": "ok", "target_version": 7}]}));
    assert_eq!(generate(&server, "/skyrl/v1/generate"), before, "nothing has changed yet");
    server.ask("/pause?mode=keep&clear_cache=false", &json!({}));
    let begun = rpc("skyrl_start_weight_update", json!({"is_checkpoint_format": true}));
    assert_eq!((begun.status, begun.json()), (200, json!({"results": [null]})));
    let info =
        |version: u32| json!({"update_info": {"target_version": version, "sync_dir": folder}});
    let other = server.post("/update_weights", &info(8));
    assert_eq!(other.status, 409, "8 was not fetched");
    server.ask("/update_weights", &info(7));
    assert_eq!(rpc("skyrl_finish_weight_update", json!({})).status, 200);
    server.ask("/resume", &json!({}));
    let after = generate(&server, "/skyrl/v1/generate");
    assert_ne!(after["logprobs"], before["logprobs"]);
    assert_eq!(after["weight_versions"][0]["version"], "7");
    // Once: what was swapped in is not fetched any more.
    server.ask("/start_weight_update", &json!({}));
    assert_eq!(server.post("/update_weights", &info(7)).status, 409);
    // The same by a worker's method, which takes its place in an update, too.
    let told = rpc("fetch_weights", json!({"target_version": 9, "sync_dir": folder}));
    assert_eq!(told.json(), json!({"results": [{"status": "ok", "target_version": 9}]}));
    assert_eq!(rpc("update_weights_disk", info(9)).status, 200);
    assert_eq!(rpc("skyrl_finish_weight_update", json!({})).status, 200);
    assert_eq!(generate(&server, "/skyrl/v1/generate")["weight_versions"][0]["version"], "9");
    let _ = std::fs::remove_dir_all(folder.parent().expect("of its own"));

    for (body, status, field) in [
        (json!({"sync_dir": "/"}), 400, "target_version"),
        (json!({"target_version": 1}), 400, "sync_dir"),
        (json!({"target_version": "x", "sync_dir": "/"}), 400, "target_version"),
        (json!({"target_version": 1, "uri": "bucket/weights"}), 400, "uri"),
        (json!({"target_version": 1, "sync_dir": "/nowhere"}), 404, "sync_dir"),
        (json!({"target_version": 1, "sync_dir": std::env::temp_dir()}), 400, "sync_dir"),
    ] {
        let response = server.post("/fetch_weights", &body);
        assert_eq!((response.status, response.param().as_deref()), (status, Some(field)), "{body}");
    }
}

#[test]
fn methods_of_workers_that_mean_something_are_answered() {
    let server = server();
    let rpc = |body: Value| server.post("/collective_rpc", &body);
    for body in [
        json!({"method": "skyrl_sleep_for_weight_sync", "args": [], "timeout": 60.0}),
        json!({"method": "skyrl_sleep_for_weight_sync", "kwargs": {"offload_kv": false}}),
        json!({"method": "skyrl_wake_for_weight_sync", "kwargs": {"tags": ["weights"]}}),
    ] {
        let told = rpc(body);
        assert_eq!((told.status, told.json()), (200, json!({"results": [null]})));
    }
    for (body, status, field) in [
        (json!({}), 400, "method"),
        (json!({"method": "reload"}), 404, "method"),
        (json!({"method": "update_weights_ipc", "kwargs": {"update_info": {}}}), 409, "method"),
        (json!({"method": "skyrl_start_weight_update", "args": [1]}), 400, "args"),
        (
            json!({"method": "skyrl_start_weight_update", "kwargs": {"is_checkpoint_format": false}}),
            400,
            "kwargs.is_checkpoint_format",
        ),
        (json!({"method": "update_weights", "kwargs": {}}), 400, "kwargs.update_info"),
        (
            json!({"method": "update_weights", "kwargs": {"update_info": []}}),
            400,
            "kwargs.update_info",
        ),
    ] {
        let response = rpc(body.clone());
        assert_eq!((response.status, response.param().as_deref()), (status, Some(field)), "{body}");
    }
}

#[test]
fn what_is_rendered_generates_the_same() {
    let server = server();
    let chat = json!({
        "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "seed": 4,
        "temperature": 0.8, "logprobs": true, "return_token_ids": true, "cache_salt": "s",
        "response_format": {"type": "json_object"},
    });
    let rendered = server.ask("/v1/chat/completions/render", &chat);
    assert_eq!(rendered["features"], Value::Null);
    assert_eq!(rendered["sampling_params"]["max_tokens"], 9);
    let told = server.ask("/tokenize", &json!({"messages": chat["messages"]}));
    assert_eq!(rendered["token_ids"], told["tokens"]);
    let (whole, own) = (
        server.ask("/v1/chat/completions", &chat),
        server.ask("/inference/v1/generate", &rendered),
    );
    assert_eq!(own["choices"][0]["token_ids"], whole["choices"][0]["token_ids"]);
    let logprobs = |of: &Value| -> Vec<Value> {
        let content = of["choices"][0]["logprobs"]["content"].as_array().expect("a list");
        content.iter().map(|entry| entry["logprob"].clone()).collect()
    };
    assert_eq!(logprobs(&own), logprobs(&whole));

    let prompts =
        json!({"prompt": ["Hello", [65, 66]], "max_tokens": 4, "temperature": 0, "stop": "z"});
    let rendered = server.ask("/v1/completions/render", &prompts);
    let all = rendered.as_array().expect("one for each prompt");
    assert_eq!((all.len(), &all[1]["token_ids"]), (2, &json!([65, 66])));
    let texts = server.ask("/v1/completions", &prompts);
    for (at, body) in all.iter().enumerate() {
        let mut body = body.clone();
        body["output_mode"] = json!("text");
        let own = server.ask("/inference/v1/generate", &body);
        assert_eq!(own["choices"][0]["text"], texts["choices"][at]["text"]);
    }
    for (path, body, field) in [
        ("/v1/chat/completions/render", json!({}), "messages"),
        (
            "/v1/chat/completions/render",
            json!({"messages": chat["messages"], "temprature": 1}),
            "temprature",
        ),
        (
            "/v1/chat/completions/render",
            json!({"messages": chat["messages"], "tool_choice": "required"}),
            "tool_choice",
        ),
        ("/v1/completions/render", json!({"prompt": "a", "echo": true}), "echo"),
        ("/v1/completions/render", json!({"prompt": "a", "max_tokens": 600}), "max_tokens"),
    ] {
        let response = server.post(path, &body);
        assert_eq!((response.status, response.param().as_deref()), (400, Some(field)), "{body}");
    }
}
