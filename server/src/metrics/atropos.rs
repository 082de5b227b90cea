//! Groups for Atropos: how many it has, and how many it has not.

use super::Outcome;
use super::names::Names;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// What is counted of groups for Atropos.
pub struct Atropos {
    groups: Family<Outcome, Counter>,
}

impl Atropos {
    pub(super) fn new(names: &mut Names) -> Self {
        let words = "Groups for Atropos, by what became of them";
        Self { groups: names.own("atropos_groups", words, Family::default()) }
    }

    /// One was taken.
    pub fn received(&self) {
        self.groups.get_or_create(&Outcome { outcome: "received" }).inc();
    }

    /// One was not.
    pub fn refused(&self) {
        self.groups.get_or_create(&Outcome { outcome: "refused" }).inc();
    }

    /// So many were not handed over: too many waited, or the server ended.
    pub fn dropped(&self, count: u64) {
        self.groups.get_or_create(&Outcome { outcome: "dropped" }).inc_by(count);
    }
}
