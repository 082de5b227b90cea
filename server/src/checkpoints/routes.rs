//! Versions of the archive as clients save them, look at them, mark them and return to them.

use super::resume::serve;
use super::{Checkpoints, refused};
use crate::adapters::spelling::{Swap, label_of};
use crate::adapters::whole;
use crate::aside::aside;
use crate::http::routes::{Answer, Route, controls};
use crate::http::{Call, Reply, Server, json_of};
use crate::openai::Refusal;
use crate::openai::fields::Fields;
use checkpoint::archive::{Archive, Better, Error, Leading, Of, Saved, Which};
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];

/// Paths of checkpoints.
pub const ROUTES: &[Route] = &[
    controls("/v1/checkpoints", GET, |server, call| list(server, call)),
    controls("/v1/checkpoints/save", POST, |server, call| save(server, call)),
    controls("/v1/checkpoints/rollback", POST, |server, call| roll_back(server, call)),
    controls("/v1/checkpoints/mark", POST, |server, call| mark(server, call)),
    controls("/v1/checkpoints/delete", POST, |server, call| delete(server, call)),
];

/// The archive, if there is one.
fn checkpoints(server: &Server) -> Result<Arc<Checkpoints>, Refusal> {
    server.served.checkpoints.clone().ok_or_else(|| {
        let words = "this server keeps no checkpoints: --checkpoint-dir names a folder for them";
        Refusal::malformed(words)
    })
}

/// Whose versions a name's are.
fn of(server: &Server, name: String) -> Of {
    if name == server.served.name { Of::Weights } else { Of::Adapter(name) }
}

/// The version that a call is about.
fn which(server: &Server, archive: &Archive, fields: &mut Fields) -> Result<Saved, Refusal> {
    let id: Option<u64> = fields.take("id")?;
    let name: Option<String> = fields.take("name")?;
    let version = fields.take::<Value>("version")?;
    let version = version.map(|label| label_of("version", label)).transpose()?;
    let at: Option<String> = fields.take("at")?;
    let (name, which) = match (id, name, version, at.as_deref()) {
        (Some(id), None, None, None) => return archive.find(id).map_err(|error| refused(&error)),
        (None, Some(name), Some(label), None) => (name, Which::Called(label)),
        (None, Some(name), None, Some("latest")) => (name, Which::Latest),
        (None, Some(name), None, Some("best")) => (name, Which::Best),
        (None, Some(_), None, Some(other)) => {
            return Err(Refusal::expected("at", "latest or best", other));
        }
        _ => {
            let words = "expected `id`, or `name` with `version` or `at` beside it";
            return Err(Refusal::field("id", words));
        }
    };
    archive.pick(&of(server, name.clone()), &which).ok_or_else(|| {
        let words = match which {
            Which::Latest => format!("no checkpoint of `{name}` is kept"),
            Which::Best => format!("no checkpoint of `{name}` has a metric"),
            Which::Called(label) => format!("no checkpoint `{label}` of `{name}` is kept"),
        };
        let mut refusal = Refusal::new(StatusCode::NOT_FOUND, words);
        (refusal.param, refusal.code) = (Some("name".into()), Some("checkpoint_not_found"));
        refusal
    })
}

/// One of them alone.
fn alone(server: &Server, archive: &Archive, saved: &Saved) -> Value {
    line(server, archive, &archive.leading(&archive.list()), saved)
}

/// One of them, as it is listed.
fn line(server: &Server, archive: &Archive, leading: &Leading, saved: &Saved) -> Value {
    let version = &saved.version;
    let (kind, name) = match &version.of {
        Of::Weights => ("weights", &server.served.name),
        Of::Adapter(name) => ("adapter", name),
    };
    json!({
        "id": saved.id,
        "name": name,
        "kind": kind,
        "version": version.label,
        "count": version.count,
        "step": version.step,
        "metric": version.metric,
        "latest": leading.latest.contains(&saved.id),
        "best": leading.best.contains(&saved.id),
        "bytes": saved.bytes(),
        "created": version.saved_ms / 1000,
        "path": archive.path(saved.id),
    })
}

fn list(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        call.only(&["name"])?;
        let checkpoints = checkpoints(&server)?;
        let archive = &checkpoints.archive;
        let asked = call.asked("name").map(|name| of(&server, name.to_owned()));
        let mut all = archive.list();
        all.retain(|saved| asked.as_ref().is_none_or(|of| saved.version.of == *of));
        let leading = archive.leading(&all);
        let data = all.iter().map(|saved| line(&server, archive, &leading, saved));
        let data: Vec<Value> = data.collect();
        let settings = archive.settings();
        Ok(json_of(&json!({
            "object": "list",
            "folder": archive.folder(),
            "every": checkpoints.every,
            "keep": settings.keep,
            "better": match settings.better {
                Better::Higher => "higher",
                Better::Lower => "lower",
            },
            "data": data,
        })))
    })
}

/// Saves what serves now.
fn save(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let checkpoints = checkpoints(&server)?;
        let name: String = fields.must("name")?;
        let (step, metric) = (fields.take("step")?, fields.take("metric")?);
        fields.done()?;
        let served = &server.served;
        let (mut version, what) = match of(&server, name) {
            Of::Weights => served.updates.saveable(&server.runtime).await?,
            Of::Adapter(name) => served.adapters.saveable(&name).map_err(|refusal| {
                // By what it is called here.
                Refusal { param: Some("name".into()), ..refusal }
            })?,
        };
        (version.step, version.metric) = (step, metric);
        let saved = checkpoints.save(version, what).await?;
        Ok(json_of(&alone(&server, &checkpoints.archive, &saved)))
    })
}

/// Serves a version again, as a new one.
fn roll_back(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let checkpoints = checkpoints(&server)?;
        let saved = which(&server, &checkpoints.archive, &mut fields)?;
        let swap = Swap::read(&mut fields)?;
        fields.done()?;
        let id = saved.id;
        let version = whole(async move {
            serve(&checkpoints, &server.served, &server.runtime, saved, swap).await
        });
        let version = version.await?;
        let told = json!({ "status": "ok", "success": true, "id": id, "weight_version": version });
        Ok(json_of(&told))
    })
}

fn mark(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let checkpoints = checkpoints(&server)?;
        let saved = which(&server, &checkpoints.archive, &mut fields)?;
        let (metric, step): (Option<f64>, _) = (fields.take("metric")?, fields.take("step")?);
        fields.done()?;
        if metric.is_none() && step.is_none() {
            return Err(Refusal::field("metric", "is required, or `step`"));
        }
        change(server, checkpoints, move |archive| archive.mark(saved.id, metric, step)).await
    })
}

fn delete(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let mut fields = call.fields()?;
        let checkpoints = checkpoints(&server)?;
        let saved = which(&server, &checkpoints.archive, &mut fields)?;
        fields.done()?;
        change(server, checkpoints, move |archive| archive.delete(saved.id)).await
    })
}

/// Changes what is kept where the disk keeps nobody waiting; tells the version.
async fn change(
    server: Arc<Server>,
    checkpoints: Arc<Checkpoints>,
    how: impl FnOnce(&Archive) -> Result<Saved, Error> + Send + 'static,
) -> Result<Response<Reply>, Refusal> {
    let archive = checkpoints.archive.clone();
    let changed = aside("checkpoint", move || how(&archive)).await?;
    let changed = changed.map_err(|error| refused(&error))?;
    Ok(json_of(&alone(&server, &checkpoints.archive, &changed)))
}
