//! Episodes: how many live, how they ended, and what it took that they rested.

use super::Reason;
use super::names::Names;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// What is counted of episodes.
pub struct Episodes {
    open: Gauge,
    started: Counter,
    ended: Family<Reason, Counter>,
    evictions: Counter,
    rebuilt: Counter,
}

impl Episodes {
    pub(super) fn new(names: &mut Names) -> Self {
        Self {
            open: names.own("episodes_open", "Episodes that live", Gauge::default()),
            started: names.own(
                "episodes_started",
                "Episodes that began, forks among them",
                Counter::default(),
            ),
            ended: names.own("episodes_ended", "Episodes that ended, by why", Family::default()),
            evictions: names.own(
                "episode_evictions",
                "Times that one that rested gave its pages up",
                Counter::default(),
            ),
            rebuilt: names.own(
                "episode_rebuilt_tokens",
                "Tokens of episodes that were computed again",
                Counter::default(),
            ),
        }
    }

    /// One began.
    pub fn started(&self) {
        self.started.inc();
        self.open.inc();
    }

    /// One ended: `asked`, or `expired` where it rested too long.
    pub fn ended(&self, reason: &'static str) {
        self.ended.get_or_create(&Reason { reason }).inc();
        self.open.dec();
    }

    /// So many gave their pages up.
    pub(super) fn evicted(&self, count: u64) {
        self.evictions.inc_by(count);
    }

    /// So many tokens of one were computed again.
    pub fn rebuilt(&self, tokens: u64) {
        self.rebuilt.inc_by(tokens);
    }
}
