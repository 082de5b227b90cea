//! Looks at the weights that serve, as their files have them: checksums, whether they are
//! those of before, and numbers of one tensor.

use super::Updates;
use crate::http::routes::Answer;
use crate::http::{Call, Reply, Server, json_of};
use crate::openai::Refusal;
use engine::weights::{Element, Tensor, widen};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use tokio::task::block_in_place;

/// Numbers of a tensor that are told at most.
const NUMBERS_MAX: u64 = 1 << 20;
/// Rows that are told where nobody says how many.
const ROWS: u64 = 100;
/// Tensors that words name at most.
const NAMED: usize = 5;

/// SHA-256 of each tensor's bytes.
pub type Sums = BTreeMap<String, String>;

impl Updates {
    /// Those that serve, but for some.
    fn sums(&self, without: &BTreeSet<String>) -> Sums {
        let checkpoint = self.base.checkpoint();
        let kept = checkpoint.tensors.iter().filter(|(name, _)| !without.contains(*name));
        // It takes seconds for large models: others are answered meanwhile.
        let sums = block_in_place(|| {
            kept.map(|(name, tensor)| (name.clone(), hex(Sha256::digest(tensor.bytes())))).collect()
        });
        checkpoint.let_go();
        sums
    }
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `/weights_checker`.
pub fn of_sglang(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let action: String = call
            .either(&mut fields, "action")?
            .ok_or_else(|| Refusal::field("action", "is required"))?;
        fields.only("allow_quant_error", &[false.into()])?;
        fields.only("selector", &["all".into(), "target".into()])?;
        let without: Option<BTreeSet<String>> = fields.take("skip_tensor_list")?;
        let without = without.unwrap_or_default();
        fields.done()?;
        let updates = &server.served.updates;
        match action.as_str() {
            "checksum" => Ok(told_sums(&updates.sums(&without))),
            "snapshot" => {
                let sums = updates.sums(&without);
                let words = format!("{} tensors are kept by their checksums", sums.len());
                *updates.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Some(sums);
                Ok(told(true, &words))
            }
            "compare" => {
                let snapshot = updates.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(before) = snapshot.clone() else {
                    return Ok(told(false, "there is no snapshot to compare with"));
                };
                drop(snapshot);
                let others = differing(&before, &updates.sums(&without), &without);
                Ok(match others.is_empty() {
                    true => told(true, "all tensors are those of the snapshot"),
                    false => told(false, &named(&others)),
                })
            }
            "reset_tensors" => {
                let words = "this server fills no weights with noise: /update_weights_from_disk \
                             brings others";
                Err(Refusal::field("action", words))
            }
            other => {
                let expected = "checksum, snapshot or compare";
                Err(Refusal::expected("action", expected, other))
            }
        }
    })
}

/// `/weight_checker`.
pub fn of_vllm(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let action: String = fields.must("action")?;
        let baseline: Option<Sums> = fields.take("baseline")?;
        fields.done()?;
        let sums = || server.served.updates.sums(&BTreeSet::new());
        match (action.as_str(), baseline) {
            ("checksum", None) => Ok(json_of(&json!({ "checksums": sums() }))),
            ("compare", Some(before)) => {
                let others = differing(&before, &sums(), &BTreeSet::new());
                Ok(json_of(&json!({ "match": others.is_empty(), "mismatches": others })))
            }
            ("compare", None) => Err(Refusal::field("baseline", "is required")),
            ("checksum", Some(_)) => Err(Refusal::field("baseline", "only to `compare` with")),
            (other, _) => Err(Refusal::expected("action", "checksum or compare", other)),
        }
    })
}

/// Names of tensors that are not the same here and there.
fn differing(before: &Sums, now: &Sums, without: &BTreeSet<String>) -> BTreeSet<String> {
    let all = before.keys().chain(now.keys()).filter(|name| !without.contains(*name));
    all.filter(|name| before.get(*name) != now.get(*name)).cloned().collect()
}

fn named(others: &BTreeSet<String>) -> String {
    let some: Vec<&str> = others.iter().take(NAMED).map(String::as_str).collect();
    let more = if others.len() > NAMED { " and others" } else { "" };
    format!("{} tensors are not those of the snapshot: {}{more}", others.len(), some.join(", "))
}

/// As one rank of one engine tells them.
fn told_sums(sums: &Sums) -> Response<Reply> {
    let mut all = Sha256::new();
    for (name, sum) in sums {
        all.update(name);
        all.update(sum);
    }
    let rank = hex(all.finalize());
    json_of(&json!({
        "success": true,
        "message": "Success.",
        "ranks": [{
            "checksums": sums,
            "per_gpu_checksum": rank,
            "parallelism_info": {
                "tp_rank": 0, "tp_size": 1, "pp_rank": 0, "pp_size": 1, "dp_rank": 0, "dp_size": 1,
            },
        }],
        "per_engine_checksum": hex(Sha256::digest(&rank)),
    }))
}

fn told(success: bool, message: &str) -> Response<Reply> {
    let mut response = json_of(&json!({ "success": success, "message": message }));
    if !success {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    response
}

/// `/get_weights_by_name`: the first rows of a tensor.
pub fn by_name(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let name: String = call
            .either(&mut fields, "name")?
            .ok_or_else(|| Refusal::field("name", "is required"))?;
        let rows = call.either(&mut fields, "truncate_size")?.unwrap_or(ROWS);
        fields.done()?;
        let checkpoint = server.served.updates.base.checkpoint();
        let Some(tensor) = checkpoint.tensors.get(&name) else {
            return Err(Refusal::field("name", format!("the model has no tensor {name}")));
        };
        Ok(json_of(&json!({ "parameter": first_rows(tensor, rows)? })))
    })
}

fn first_rows(tensor: &Tensor, rows: u64) -> Result<Value, Refusal> {
    let Element::Float(dtype) = tensor.element() else {
        let words = format!("holds {}, and no floats", tensor.element().name());
        return Err(Refusal::field("name", words));
    };
    let mut shape = tensor.shape().to_vec();
    if let Some(first) = shape.first_mut() {
        *first = rows.min(*first);
    }
    let count: u64 = shape.iter().product();
    if count > NUMBERS_MAX {
        let expected = format!("so many rows that they have {NUMBERS_MAX} numbers at most");
        return Err(Refusal::expected("truncate_size", &expected, count));
    }
    let mut floats = Vec::new();
    widen(dtype, &tensor.bytes()[..(count * dtype.align()) as usize], &mut floats);
    Ok(nested(&floats, &shape))
}

/// Numbers as lists within each other.
fn nested(floats: &[f32], shape: &[u64]) -> Value {
    match shape {
        [] => floats.first().copied().into(),
        [_] => floats.into(),
        [0, ..] => Value::Array(Vec::new()),
        [count, rest @ ..] => {
            let each = floats.len() / *count as usize;
            (0..*count as usize).map(|at| nested(&floats[at * each..][..each], rest)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::nested;
    use serde_json::json;

    #[test]
    fn rows_are_lists_of_their_numbers() {
        let floats = [0.0, 1.0, 2.0, 3.0, 4.0, f32::NAN];
        assert_eq!(nested(&floats[..4], &[2, 2]), json!([[0.0, 1.0], [2.0, 3.0]]));
        assert_eq!(nested(&floats, &[3, 1, 2])[2], json!([[4.0, null]]), "no NaN is in JSON");
        assert_eq!(nested(&floats[..1], &[1]), json!([0.0]));
        assert_eq!([nested(&[], &[0, 3]), nested(&[], &[2, 0])], [json!([]), json!([[], []])]);
    }
}
