//! What a load tells: rates, and how they are spread.

use super::client::Outcome;
use crate::config::Bench;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// Of all requests together.
pub struct Report {
    requests: usize,
    failed: Vec<String>,
    seconds: f64,
    tokens: u64,
    cached: u64,
    /// To the first token, in milliseconds.
    first: Spread,
    /// Between tokens, in milliseconds.
    gap: Spread,
    /// Requests whose first token and whose gaps all came in time.
    good: usize,
}

/// The mean; of what is below, half, 95 and 99 of a hundred; and the largest.
struct Spread {
    mean: f64,
    p50: f64,
    p95: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |part: f64| {
            // The least that so many are not above.
            let rank = (part * all.len() as f64).ceil() as usize;
            all.get(rank.saturating_sub(1)).map_or(0.0, |took| took.as_secs_f64() * 1e3)
        };
        let sum: Duration = all.iter().sum();
        let mean = sum.as_secs_f64() * 1e3 / all.len().max(1) as f64;
        Self { mean, p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
    }

    fn json(&self) -> Value {
        let Self { mean, p50, p95, p99, max } = self;
        json!({ "mean": mean, "p50": p50, "p95": p95, "p99": p99, "max": max })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean, p50, p95, p99, max } = self;
        write!(
            to,
            "{mean:.1} ms on average, {p50:.1} at p50, {p95:.1} at p95, {p99:.1} at p99, {max:.1} at most"
        )
    }
}

impl Report {
    /// Of what came in so long.
    pub fn of(outcomes: &[Outcome], took: Duration, settings: &Bench) -> Self {
        let good = |outcome: &&Outcome| {
            let first = outcome.first.is_some_and(|it| it.as_secs_f64() <= settings.ttft_within);
            let within = settings.gap_within * 1e-3;
            let gaps = outcome.gaps.iter().all(|gap| gap.as_secs_f64() <= within);
            outcome.failed.is_none() && first && gaps
        };
        Self {
            requests: outcomes.len(),
            failed: outcomes.iter().filter_map(|outcome| outcome.failed.clone()).collect(),
            seconds: took.as_secs_f64(),
            tokens: outcomes.iter().map(|outcome| outcome.tokens).sum(),
            cached: outcomes.iter().map(|outcome| outcome.cached).sum(),
            first: Spread::of(outcomes.iter().filter_map(|outcome| outcome.first).collect()),
            gap: Spread::of(outcomes.iter().flat_map(|outcome| outcome.gaps.clone()).collect()),
            good: outcomes.iter().filter(good).count(),
        }
    }

    /// Why the first failed, if all did.
    pub fn all_failed(&self) -> Option<&str> {
        let all = self.failed.len() == self.requests;
        self.failed.first().filter(|_| all).map(String::as_str)
    }

    /// As a line for programs.
    pub fn json(&self) -> Value {
        json!({
            "requests": self.requests,
            "failed": self.failed.len(),
            "seconds": self.seconds,
            "tokens_per_second": self.tokens as f64 / self.seconds,
            "requests_per_second": self.requests as f64 / self.seconds,
            "cached_tokens": self.cached,
            "ttft_ms": self.first.json(),
            "gap_ms": self.gap.json(),
            "attainment": self.good as f64 / self.requests.max(1) as f64,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, seconds, tokens, cached, first, gap, good, .. } = self;
        let rate = *tokens as f64 / seconds;
        writeln!(to, "requests  {requests} in {seconds:.1} s, {} failed", self.failed.len())?;
        if let Some(words) = self.failed.first() {
            writeln!(to, "          {words}")?;
        }
        writeln!(to, "tokens    {tokens}: {rate:.1} a second; {cached} of prompts from the cache")?;
        writeln!(to, "first     {first}")?;
        writeln!(to, "between   {gap}")?;
        writeln!(to, "in time   {good} of {requests}")
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;
    use std::time::Duration;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let spread = Spread::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((spread.p50, spread.p95, spread.p99, spread.max), (50.0, 95.0, 99.0, 100.0));
        assert_eq!(Spread::of(Vec::new()).p95, 0.0);
    }
}
