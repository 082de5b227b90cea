//! From the archive to the engine: the latest of every name when the server starts.

use super::{Checkpoints, Origin, refused};
use crate::adapters::spelling::Swap;
use crate::adapters::{Given, Load};
use crate::aside::aside;
use crate::openai::Refusal;
use crate::runtime::Runtime;
use crate::served::Served;
use checkpoint::archive::{Of, Saved};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Serves the latest version of every name that loads. What does not is logged, and the one
/// before it is taken; a name of which none does is a refusal.
pub async fn resume(
    checkpoints: &Checkpoints,
    served: &Served,
    runtime: &Runtime,
) -> Result<(), Refusal> {
    // Weights come first: magnitudes of adapters are of them.
    let mut names: BTreeMap<Of, Vec<Saved>> = BTreeMap::new();
    for saved in checkpoints.archive.list() {
        names.entry(saved.version.of.clone()).or_default().push(saved);
    }
    for mut own in names.into_values() {
        own.sort_by_key(Saved::turn);
        let mut outcome = Ok(());
        for saved in own.into_iter().rev() {
            let (id, label) = (saved.id, saved.served_as().to_owned());
            let swap = Swap { label: Some(label.clone()), ..Swap::default() };
            outcome = serve(checkpoints, served, runtime, saved, swap).await.map(drop);
            match &outcome {
                Ok(()) => {
                    tracing::info!(id, version = label, "a checkpoint serves");
                    break;
                }
                Err(refusal) => {
                    tracing::warn!(id, version = label, why = refusal.message, "it does not serve");
                }
            }
        }
        outcome?;
    }
    Ok(())
}

/// Serves a version of the archive as a new one, by its own name if nothing else is said; says
/// what it is called.
pub async fn serve(
    checkpoints: &Checkpoints,
    served: &Served,
    runtime: &Runtime,
    saved: Saved,
    swap: Swap,
) -> Result<Arc<str>, Refusal> {
    let (archive, id) = (checkpoints.archive.clone(), saved.id);
    let verify = aside("checkpoint", move || archive.verify(id));
    swap.until.keep(verify).await??.map_err(|error| refused(&error))?;
    let folder = checkpoints.archive.path(id);
    let label = swap.label.unwrap_or_else(|| saved.version.label.clone());
    let swap = Swap { label: Some(label), origin: Origin::Saved { id }, ..swap };
    // Nobody named an adapter's files.
    let by_id = |refusal: Refusal| match refusal.param.as_deref() {
        Some("lora_name" | "lora_path") => Refusal { param: Some("id".into()), ..refusal },
        _ => refusal,
    };
    match saved.version.of {
        Of::Weights => Ok(served.updates.from_folder(runtime, ("id", folder), swap).await?.label),
        Of::Adapter(name) => {
            let pinned = served.adapters.line(&name).is_some_and(|line| line.pinned);
            let source = Given::Folder(folder);
            let load = Load { name, source, replace: true, pinned, swap, canary: None };
            Ok(served.adapters.load(runtime, load).await.map_err(by_id)?.version)
        }
    }
}
