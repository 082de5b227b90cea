//! Looks at the weights of a real server: checksums that follow what serves, and numbers of
//! tensors.

use pagewise_tests::server::{Server, checkpoint};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A checkpoint beside that of the server, with another sign of one number.
fn changed(server: &Server, tensor: &str) -> PathBuf {
    let base = checkpoint::open(server.folder());
    let folder = checkpoint::write();
    let mut spoilt = base.tensors[tensor].bytes().to_vec();
    spoilt[3] ^= 0x80;
    let views = base.tensors.iter().map(|(name, own)| {
        let bytes = if name == tensor { &spoilt } else { own.bytes() };
        let shape = own.shape().iter().map(|&extent| extent as usize).collect();
        (name, TensorView::new(Dtype::F32, shape, bytes).expect("whole"))
    });
    let file = safetensors::serialize(views, None).expect("a file");
    std::fs::write(folder.join("model.safetensors"), file).expect("written");
    folder
}

fn gone(folder: &Path) {
    let _ = std::fs::remove_dir_all(folder.parent().expect("of its own"));
}

const Q: &str = "model.layers.0.self_attn.q_proj.weight";

#[test]
fn checksums_follow_the_weights_that_serve() {
    let server = Server::start(&[]);
    let check = |body: Value| server.post("/weights_checker", &body);
    let sums = || {
        let told = check(json!({"action": "checksum"})).json();
        assert_eq!(
            (&told["success"], told["ranks"].as_array().map(Vec::len)),
            (&json!(true), Some(1))
        );
        told
    };
    let before = sums();
    let all = before["ranks"][0]["checksums"].as_object().expect("by tensor").clone();
    assert_eq!(all.len(), 21);
    let digests =
        [&all[Q], &before["ranks"][0]["per_gpu_checksum"], &before["per_engine_checksum"]];
    assert!(digests.iter().all(|it| it.as_str().is_some_and(|it| it.len() == 64)), "{digests:?}");
    assert_eq!(sums(), before, "the same each time");
    let bare = server.get("/weights_checker?action=checksum").json();
    assert_eq!(bare["per_engine_checksum"], before["per_engine_checksum"]);

    let none = check(json!({"action": "compare"}));
    assert_eq!((none.status, &none.json()["success"]), (400, &json!(false)), "no snapshot yet");
    assert_eq!(check(json!({"action": "snapshot"})).status, 200);
    assert_eq!(check(json!({"action": "compare"})).json()["success"], true);
    let folder = changed(&server, Q);
    server.ask("/update_weights_from_disk", &json!({"model_path": folder}));
    gone(&folder);
    let other = check(json!({"action": "compare"}));
    assert_eq!(other.status, 400);
    let told = other.json();
    let words = told["message"].as_str().expect("words");
    assert!(words.starts_with("1 tensors") && words.ends_with(Q), "{words}");
    let without = check(json!({"action": "compare", "skip_tensor_list": [Q]}));
    assert_eq!(without.status, 200);
    let after = sums();
    assert_ne!(after["per_engine_checksum"], before["per_engine_checksum"]);

    // vLLM's call compares with what the client has.
    let body = json!({"action": "compare", "baseline": all});
    let told = server.ask("/weight_checker", &body);
    assert_eq!(told, json!({"match": false, "mismatches": [Q]}));
    let now = server.ask("/weight_checker", &json!({"action": "checksum"}));
    assert_eq!(now["checksums"], after["ranks"][0]["checksums"]);

    for (path, body, field) in [
        ("/weights_checker", json!({}), "action"),
        ("/weights_checker", json!({"action": "reset_tensors"}), "action"),
        ("/weights_checker", json!({"action": "erase"}), "action"),
        (
            "/weights_checker",
            json!({"action": "compare", "allow_quant_error": true}),
            "allow_quant_error",
        ),
        ("/weights_checker", json!({"action": "checksum", "selector": "draft"}), "selector"),
        (
            "/weights_checker",
            json!({"action": "checksum", "skip_tensor_list": 1}),
            "skip_tensor_list",
        ),
        ("/weight_checker", json!({"action": "reset"}), "action"),
        ("/weight_checker", json!({"action": "compare"}), "baseline"),
        ("/weight_checker", json!({"action": "checksum", "baseline": {}}), "baseline"),
    ] {
        let response = server.post(path, &body);
        assert_eq!((response.status, response.param().as_deref()), (400, Some(field)), "{body}");
    }
}

#[test]
fn the_first_rows_of_a_tensor_are_told_by_its_name() {
    let server = Server::start(&[]);
    let base = checkpoint::open(server.folder());
    let floats: Vec<f32> = base.tensors[Q]
        .bytes()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four")))
        .collect();
    let told = server.ask("/get_weights_by_name", &json!({"name": Q, "truncate_size": 2}));
    assert_eq!(told, json!({"parameter": [&floats[..64], &floats[64..128]]}));
    let all = server.get(&format!("/get_weights_by_name?name={Q}")).json();
    assert_eq!(all["parameter"].as_array().map(Vec::len), Some(64), "it has no more");
    let norm = server.ask("/get_weights_by_name", &json!({"name": "model.norm.weight"}));
    assert!(norm["parameter"][63].is_number());
    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": "q_proj"}), "name"),
        (json!({"name": Q, "truncate_size": -1}), "truncate_size"),
        (json!({"name": Q, "rows": 1}), "rows"),
    ] {
        let response = server.post("/get_weights_by_name", &body);
        assert_eq!((response.status, response.param().as_deref()), (400, Some(field)), "{body}");
    }
}
