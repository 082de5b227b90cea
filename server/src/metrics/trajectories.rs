//! Trajectories: how many were kept, how many were not, and why.

use super::Reason;
use super::names::{self, Names};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

/// What is counted of trajectories.
pub struct Trajectories {
    collected: Counter,
    rewarded: Counter,
    refused: Family<Reason, Counter>,
    bytes: Gauge,
    staleness: Histogram,
}

impl Trajectories {
    pub(super) fn new(names: &mut Names) -> Self {
        Self {
            collected: names.own("trajectories_collected", "Kept", Counter::default()),
            rewarded: names.own("trajectories_rewarded", "Rewards given", Counter::default()),
            refused: names.own(
                "trajectories_refused",
                "Trajectories, rewards and requests that were not kept",
                Family::default(),
            ),
            bytes: names.own("trajectory_store_bytes", "Bytes of the store", Gauge::default()),
            staleness: names.own(
                "trajectory_staleness",
                "Versions that came while an answer was made",
                names::by_versions(),
            ),
        }
    }

    /// One was kept.
    pub fn collected(&self) {
        self.collected.inc();
    }

    /// One was given a reward.
    pub fn rewarded(&self) {
        self.rewarded.inc();
    }

    /// One was not kept.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// The store has so many bytes.
    pub fn bytes(&self, bytes: u64) {
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So many versions came while an answer was made.
    pub fn staleness(&self, versions: u64) {
        self.staleness.observe(versions as f64);
    }
}
