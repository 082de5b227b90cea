//! Trajectories as lines of JSON, one after the other as they are read, and those that come
//! as they come.

use super::routes::{filter, parsed, shelf};
use super::shelf::Shelf;
use crate::http::routes::Answer;
use crate::http::{Call, Held, Reply, Server};
use crate::openai::Refusal;
use bytes::Bytes;
use hyper::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Sender, channel};
use trajectories::{Error, Filter, Trajectory};

/// Pieces that wait to be sent, and bytes of one, unless a line is longer.
const PIECES_WAITING: usize = 4;
const PIECE_BYTES: usize = 64 << 10;
/// How long it waits for more before it looks whether anybody still listens.
const LOOK: Duration = Duration::from_millis(200);

/// What is left out.
struct Fresh {
    /// Versions that may have come since; `None`: all are fresh.
    max_staleness: Option<u64>,
    /// The version that they are compared with, by its number; without one, each has what
    /// had come when it ended.
    current: Option<u64>,
}

/// What was written, and what was not.
#[derive(Default)]
struct Count {
    lines: u64,
    stale: u64,
    damaged: Vec<String>,
}

/// Why nothing more is written.
enum Over {
    /// Nobody listens.
    Gone,
    /// The store cannot be read.
    Failed(Error),
}

/// A line each; the last one says what was left out, where anything was to be.
pub fn export(server: Arc<Server>, call: Call) -> Answer {
    Box::pin(async move {
        let shelf = shelf(&server)?;
        let filter = filter(&call, &["max_staleness", "current", "follow"])?;
        let fresh = Fresh::read(&call)?;
        let follow = parsed(&call, "follow", "true or false")?.unwrap_or(false);
        // Exports are streams as answers are, and a server that closes waits for them.
        let held = server.hold()?;
        let (sender, receiver) = channel(PIECES_WAITING);
        let work = move || {
            let mut count = Count::default();
            let to = Lines { to: sender, waiting: Vec::new() };
            run(&shelf, (filter, fresh, follow), &held, &mut count, to);
        };
        // It waits for slow readers, for as long as they take something.
        let thread = std::thread::Builder::new().name("export".into()).spawn(work);
        thread.map_err(|error| Refusal::internal(format!("an export: {error}")))?;
        let mut response = Response::new(Reply::Stream(receiver));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jsonl; charset=utf-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    })
}

fn run(
    shelf: &Shelf,
    (mut filter, fresh, follow): (Filter, Fresh, bool),
    held: &Held,
    count: &mut Count,
    mut to: Lines,
) {
    let most = filter.limit.take().map_or(u64::MAX, |most| most as u64);
    let outcome = loop {
        let newest = shelf.store.stats().newest.unwrap_or(0);
        if let Err(over) = lines(shelf, &mut filter, &fresh, (most, &mut *count), &mut to) {
            break Err(over);
        }
        // What comes while it reads is among what was read, or beyond this.
        filter.beyond = filter.beyond.max(newest);
        if !follow || count.lines >= most {
            break Ok(());
        }
        if to.flush().is_err() {
            break Err(Over::Gone);
        }
        while shelf.store.wait_beyond(filter.beyond, LOOK).is_none() {
            if to.to.is_closed() || held.closing() {
                break;
            }
        }
        if to.to.is_closed() {
            break Err(Over::Gone);
        }
        if held.closing() {
            break Ok(());
        }
    };
    let last = match outcome {
        Err(Over::Gone) => return,
        Err(Over::Failed(error)) => Some(json!({ "error": error.to_string() })),
        Ok(()) if fresh.max_staleness.is_some() || !count.damaged.is_empty() => Some(json!({
            "exported": count.lines, "stale": count.stale, "damaged": count.damaged,
        })),
        Ok(()) => None,
    };
    // Whoever has gone misses nothing.
    let _ = last.map_or(Ok(()), |last| to.push(last.to_string().into_bytes()));
    let _ = to.flush();
}

fn lines(
    shelf: &Shelf,
    filter: &mut Filter,
    fresh: &Fresh,
    (most, count): (u64, &mut Count),
    to: &mut Lines,
) -> Result<(), Over> {
    for found in shelf.store.query(filter.clone()).map_err(Over::Failed)? {
        if count.lines >= most {
            break;
        }
        match found {
            Ok(trajectory) => {
                filter.beyond = trajectory.id;
                if fresh.is_stale(&trajectory) {
                    count.stale += 1;
                    continue;
                }
                to.push(crate::openai::written(&trajectory))?;
                count.lines += 1;
            }
            Err(Error::Damaged(damage)) => count.damaged.push(damage.to_string()),
            Err(error) => return Err(Over::Failed(error)),
        }
    }
    Ok(())
}

impl Fresh {
    fn read(call: &Call) -> Result<Self, Refusal> {
        let max_staleness = parsed(call, "max_staleness", "a whole number, 0 or more")?;
        let Some(text) = call.asked("current") else {
            return Ok(Self { max_staleness, current: None });
        };
        if max_staleness.is_none() {
            return Err(Refusal::field("current", "only together with `max_staleness`"));
        }
        let words = "a version that ends in a number";
        let current = number(text).ok_or_else(|| Refusal::expected("current", words, text))?;
        Ok(Self { max_staleness, current: Some(current) })
    }

    fn is_stale(&self, of: &Trajectory) -> bool {
        let Some(most) = self.max_staleness else { return false };
        let Some(current) = self.current else {
            return of.staleness.is_none_or(|staleness| u64::from(staleness) > most);
        };
        // A version without a number cannot be shown to be fresh.
        of.versions.iter().any(|span| {
            number(&span.version).is_none_or(|version| current.saturating_sub(version) > most)
        })
    }
}

/// The number that a version's name ends in, as trainers count them: 7, step-7, name@7.
fn number(version: &str) -> Option<u64> {
    let digits = version.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    version[digits..].parse().ok()
}

/// Lines on their way.
struct Lines {
    to: Sender<Bytes>,
    waiting: Vec<u8>,
}

impl Lines {
    fn push(&mut self, line: Vec<u8>) -> Result<(), Over> {
        self.waiting.extend(line);
        self.waiting.push(b'\n');
        if self.waiting.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Over> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.waiting);
        self.to.blocking_send(piece.into()).map_err(|_| Over::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::{Fresh, number};
    use trajectories::{Span, Trajectory};

    #[test]
    fn versions_are_compared_by_the_numbers_that_they_end_in() {
        for (version, expected) in [
            ("", None),
            ("default", None),
            ("7", Some(7)),
            ("a@12", Some(12)),
            ("1a", None),
            ("step-007", Some(7)),
            ("99999999999999999999", None),
            ("é3", Some(3)),
        ] {
            assert_eq!(number(version), expected, "{version}");
        }
    }

    #[test]
    fn the_oldest_version_of_a_trajectory_decides() {
        let span = |version: &str| Span { version: version.into(), end: 1, ..Span::default() };
        let of = |versions: &[&str], staleness| Trajectory {
            versions: versions.iter().map(|version| span(version)).collect(),
            staleness,
            ..Trajectory::default()
        };
        let fresh = |max_staleness, current| Fresh { max_staleness, current };
        let mixed = of(&["a@3", "a@5"], Some(2));
        assert!(fresh(Some(1), Some(5)).is_stale(&mixed));
        assert!(!fresh(Some(2), Some(5)).is_stale(&mixed));
        assert!(!fresh(Some(0), Some(1)).is_stale(&mixed), "it is ahead");
        assert!(fresh(Some(1), None).is_stale(&mixed) && !fresh(Some(2), None).is_stale(&mixed));
        assert!(fresh(Some(9), Some(5)).is_stale(&of(&["default"], Some(0))));
        assert!(fresh(Some(9), None).is_stale(&of(&["a@1"], None)), "nobody counted");
        assert!(!fresh(None, None).is_stale(&mixed));
    }
}
