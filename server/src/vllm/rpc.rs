//! `/collective_rpc`: methods that trainers call of an engine's workers. Those of SkyRL that
//! mean something here are answered, each as its worker would.

use crate::adapters::spelling::Swap;
use crate::http::routes::Answer;
use crate::http::{Call, Server, json_of};
use crate::openai::Refusal;
use crate::openai::fields::Fields;
use crate::weights;
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Methods that carry tensors between GPUs.
const TRANSFERS: &[&str] = &[
    "init_weight_transfer_engine",
    "init_weight_transfer_engine_rdt",
    "init_weight_update_communicator",
    "update_weights_ipc",
    "update_weights_nccl",
    "update_weights_rdt",
    "load_weights",
];

/// Calls a method.
pub fn collective(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let method: String = fields.must("method")?;
        fields.only("args", &[json!([])])?;
        let kwargs: Map<String, Value> = fields.take("kwargs")?.unwrap_or_default();
        // Nothing here takes longer than its caller may wait.
        fields.take::<f64>("timeout")?;
        fields.done()?;
        if TRANSFERS.contains(&method.as_str()) {
            return Err(weights::no_transfer("method"));
        }
        let told = called(&server, &method, kwargs).await;
        let told = told.map_err(|refusal| match refusal.param.as_deref() {
            Some("method") | None => refusal,
            Some(_) => refusal.within("kwargs"),
        })?;
        Ok(json_of(&json!({ "results": [told] })))
    })
}

/// What a method gives back.
async fn called(
    server: &Arc<Server>,
    method: &str,
    kwargs: Map<String, Value>,
) -> Result<Value, Refusal> {
    let (updates, mut fields) = (&server.served.updates, Fields::of(kwargs));
    match method {
        "skyrl_start_weight_update" => {
            fields.only("is_checkpoint_format", &[true.into()])?;
            let until = weights::deadline(server, fields.take("deadline_seconds")?)?;
            fields.done()?;
            updates.start(until);
        }
        "update_weights_disk" | "update_weights" => {
            let info = fields.must("update_info")?;
            fields.done()?;
            weights::bring(server, info)?;
        }
        "skyrl_finish_weight_update" => {
            let swap = Swap::read(&mut fields)?;
            fields.done()?;
            updates.finish(&server.runtime, swap).await?;
        }
        "fetch_weights" => return weights::fetched(server, fields),
        // What rests keeps its place, and two sets of weights have theirs: nothing has to go
        // before an update, but for pages that shall not be gone on with.
        "skyrl_sleep_for_weight_sync" => {
            let keeps = fields.take("offload_kv")?.unwrap_or(true);
            fields.done()?;
            if !keeps {
                let forget = |engine: &mut engine::engine::Engine| {
                    engine.retract();
                    engine.forget_prefixes();
                };
                server.runtime.with(forget).await?;
            }
        }
        "skyrl_wake_for_weight_sync" => {
            fields.take::<Vec<String>>("tags")?;
            fields.done()?;
        }
        other => {
            let words = format!("workers here have no method `{other}`");
            let mut refusal = Refusal::new(StatusCode::NOT_FOUND, words);
            refusal.param = Some("method".into());
            return Err(refusal);
        }
    }
    Ok(Value::Null)
}
