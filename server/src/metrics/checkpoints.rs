//! Checkpoints: how many were saved, how many were not, and what they took.

use super::Outcome;
use super::names::{self, Names};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use std::time::Duration;

/// What is counted of checkpoints.
pub struct Checkpoints {
    saves: Family<Outcome, Counter>,
    seconds: Histogram,
    bytes: Counter,
}

impl Checkpoints {
    pub(super) fn new(names: &mut Names) -> Self {
        Self {
            saves: names.own("checkpoint_saves", "Checkpoints, by outcome", Family::default()),
            seconds: names.own(
                "checkpoint_save_seconds",
                "Until the disk had one",
                names::by_seconds(),
            ),
            bytes: names.own("checkpoint_saved_bytes", "Bytes of them", Counter::default()),
        }
    }

    /// One was saved: so many bytes in that time.
    pub fn saved(&self, bytes: u64, took: Duration) {
        self.saves.get_or_create(&Outcome { outcome: "ok" }).inc();
        self.seconds.observe(took.as_secs_f64());
        self.bytes.inc_by(bytes);
    }

    /// One was not.
    pub fn failed(&self) {
        self.saves.get_or_create(&Outcome { outcome: "failed" }).inc();
    }
}
