//! Trajectories as clients read them, reward them and watch them come.

use super::export;
use super::shelf::{NONE, Shelf, refused};
use crate::http::routes::{Answer, Route, controls};
use crate::http::{Call, Server, json, json_of};
use crate::openai::{Refusal, written};
use hyper::Method;
use serde::Serialize;
use serde_json::Value;
use std::str::FromStr;
use std::sync::Arc;
use trajectories::{Error, Filter, Id, Trajectory};

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];

/// Trajectories of a page of the list, at most, and where nothing is said.
const PAGE_MAX: usize = 1000;
const PAGE: usize = 100;
/// A page ends when it has so many tokens.
const PAGE_TOKENS: usize = 1 << 18;
/// What a list is asked by.
const FILTERS: [&str; 7] =
    ["beyond", "group", "session", "model", "version", "min_reward", "limit"];

/// Paths of trajectories.
pub const ROUTES: &[Route] = &[
    controls("/v1/trajectories", GET, |server, call| list(server, call)),
    controls("/v1/trajectories/stats", GET, |server, call| stats(server, call)),
    controls("/v1/trajectories/export", GET, |server, call| export::export(server, call)),
    controls("/v1/trajectories/{id}", GET, |server, call| one(server, call)),
    controls("/v1/trajectories/{id}/reward", POST, |server, call| reward(server, call)),
];

/// The store, if there is one.
pub fn shelf(server: &Server) -> Result<Arc<Shelf>, Refusal> {
    server.served.shelf.clone().ok_or_else(|| Refusal::malformed(NONE))
}

/// What a call asks for.
pub fn filter(call: &Call, more: &[&str]) -> Result<Filter, Refusal> {
    call.only(&[&FILTERS[..], more].concat())?;
    let text = |name: &str| call.asked(name).map(str::to_owned);
    let min_reward: Option<f64> = parsed(call, "min_reward", "a number")?;
    if let Some(least) = min_reward.filter(|least| !least.is_finite()) {
        return Err(Refusal::expected("min_reward", "a finite number", least));
    }
    Ok(Filter {
        ids: None,
        beyond: parsed(call, "beyond", "a trajectory's number")?.unwrap_or(0),
        group: text("group"),
        session: text("session"),
        model: text("model"),
        version: text("version"),
        min_reward,
        limit: parsed(call, "limit", "a number of trajectories")?,
    })
}

/// A value from behind the path.
pub fn parsed<T: FromStr>(call: &Call, name: &str, what: &str) -> Result<Option<T>, Refusal> {
    let Some(text) = call.asked(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Refusal::expected(name, what, format!("{text:?}")))
}

/// Works where the disk keeps nobody waiting.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Refusal> {
    let fault = |_| Refusal::internal("the store was not read: this is a fault of the server");
    tokio::task::spawn_blocking(work).await.map_err(fault)?.map_err(|error| refused(&error))
}

/// A page of them, and where the next one begins. Floats keep their digits: they are written
/// straight, not by way of a value.
#[derive(Serialize)]
struct Page {
    object: &'static str,
    data: Vec<Trajectory>,
    /// What could not be read.
    damaged: Vec<String>,
    has_more: bool,
    /// `beyond` of the next one.
    next: Id,
}

fn list(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let shelf = shelf(&server)?;
        let mut filter = filter(&call, &[])?;
        let limit = filter.limit.unwrap_or(PAGE);
        if !(1..=PAGE_MAX).contains(&limit) {
            let expected = format!("a number from 1 to {PAGE_MAX}");
            return Err(Refusal::expected("limit", &expected, limit));
        }
        filter.limit = None;
        let page = beside(move || page(&shelf, filter, limit)).await?;
        Ok(json(written(&page)))
    })
}

fn page(shelf: &Shelf, filter: Filter, limit: usize) -> Result<Page, Error> {
    let (object, next) = ("list", filter.beyond);
    let mut page = Page { object, data: Vec::new(), damaged: Vec::new(), has_more: false, next };
    let mut tokens = 0;
    for found in shelf.store.query(filter)? {
        if page.data.len() == limit || tokens >= PAGE_TOKENS {
            page.has_more = true;
            break;
        }
        match found {
            Ok(trajectory) => {
                tokens += trajectory.prompt.len() + trajectory.answer.len();
                page.next = trajectory.id;
                page.data.push(trajectory);
            }
            Err(error @ Error::Damaged(_)) => page.damaged.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(page)
}

fn number(call: &Call) -> Result<Id, Refusal> {
    let text = call.part();
    text.parse().map_err(|_| Refusal::expected("id", "a trajectory's number", format!("{text:?}")))
}

fn one(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let shelf = shelf(&server)?;
        call.only(&[])?;
        let id = number(&call)?;
        let found = beside(move || shelf.store.get(id)).await?;
        let found = found.ok_or_else(|| refused(&Error::Unknown { id }))?;
        Ok(json(written(&found)))
    })
}

fn reward(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let shelf = shelf(&server)?;
        let id = number(&call)?;
        let mut fields = call.fields()?;
        let value: f64 = fields.must("reward")?;
        let by: String = fields.take("by")?.unwrap_or_else(|| "client".to_owned());
        fields.done()?;
        let metrics = server.metrics.clone();
        beside(move || {
            let given = shelf.store.reward(id, value, &by);
            given.inspect(|()| metrics.trajectories.rewarded()).inspect_err(|error| {
                metrics.trajectories.refused(super::shelf::reason(error));
            })
        })
        .await?;
        Ok(json_of(&serde_json::json!({ "id": id, "reward": value })))
    })
}

fn stats(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let shelf = shelf(&server)?;
        call.only(&[])?;
        let stats = shelf.store.stats();
        let damages = shelf.store.damages().iter();
        let damages: Vec<Value> = damages.map(|damage| damage.to_string().into()).collect();
        Ok(json_of(&serde_json::json!({
            "count": stats.count,
            "rewards": stats.rewards,
            "bytes": stats.bytes,
            "bytes_max": shelf.bytes_max(),
            "policy": shelf.policy(),
            "segments": stats.segments,
            "dropped": stats.dropped,
            "oldest": stats.oldest,
            "newest": stats.newest,
            "damages": damages,
        })))
    })
}
