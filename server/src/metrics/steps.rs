//! What `/debug/metrics` tells of the engine's steps.

use engine::engine::Counters;
use serde_json::json;
use std::time::Duration;

/// A step, as it is counted.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The engine's own counts after it.
    pub counters: Counters,
    /// Whether it served a stream.
    pub streamed: bool,
    /// How long it took.
    pub took: Duration,
    /// How long it took with all that was done since the step before.
    pub cycle: Duration,
    /// Of that, what the backend was busy.
    pub kernels: Duration,
}

/// Steps so far.
#[derive(Debug, Default)]
pub struct Steps {
    last: Counters,
    streamed: u64,
    cycles: Duration,
    kernels: Duration,
    prompt: Rate,
    decode: Rate,
}

/// Tokens over the time of the steps that had such.
#[derive(Debug, Default)]
struct Rate {
    tokens: u64,
    seconds: f64,
    last: f64,
}

impl Rate {
    fn add(&mut self, tokens: u32, took: Duration) {
        if tokens == 0 {
            return;
        }
        let seconds = took.as_secs_f64().max(1e-9);
        self.last = f64::from(tokens) / seconds;
        self.tokens += u64::from(tokens);
        self.seconds += seconds;
    }

    fn average(&self) -> f64 {
        if self.seconds > 0.0 { self.tokens as f64 / self.seconds } else { 0.0 }
    }
}

impl Steps {
    /// One more; answers what was counted before it.
    pub fn add(&mut self, step: &Step) -> Counters {
        let counters = &step.counters;
        if counters.steps > self.last.steps {
            self.streamed += u64::from(step.streamed);
            self.cycles += step.cycle;
            self.kernels += step.kernels;
            self.prompt.add(counters.last_prompt_tokens, step.took);
            self.decode.add(counters.last_tokens - counters.last_prompt_tokens, step.took);
        }
        std::mem::replace(&mut self.last, counters.clone())
    }

    /// All of it.
    pub fn json(&self) -> Vec<u8> {
        let Counters { steps, fill_sum, fill_tenths, .. } = &self.last;
        let told = json!({
            "batches_processed": steps,
            "avg_batch_fill_pct": fill_sum / (*steps).max(1) as f64 * 100.0,
            "batch_fill_hist": fill_tenths,
            // Kernels, and all: what lies between is the scheduler's and the server's.
            "kernel_seconds": self.kernels.as_secs_f64(),
            "step_seconds": self.cycles.as_secs_f64(),
            "queue_depth_last": self.last.waiting,
            "stream_batches_processed": self.streamed,
            "prompt_tps_last": self.prompt.last,
            "prompt_tps_avg": self.prompt.average(),
            "decode_tps_last": self.decode.last,
            "decode_tps_avg": self.decode.average(),
            "running_last": self.last.running,
            "pages_total": self.last.pages_total,
            // Those of prefixes that nobody uses can be had at any time.
            "pages_free": self.last.pages_free + self.last.pages_idle,
            "pages_cached": self.last.pages_idle,
            "page_copies": self.last.page_copies,
            "evictions": self.last.evictions,
            "preemptions": self.last.preemptions,
            "chunks": self.last.chunks,
            "forks": self.last.forks,
            "computed_prompt_tokens": self.last.prompt_tokens,
            "generated_tokens": self.last.generated_tokens,
            "prefix_hits": self.last.hits,
            "prefix_hit_tokens": self.last.cached_tokens,
            "drafts": self.last.guesses,
            "draft_tokens": self.last.guessed,
            "draft_tokens_accepted": self.last.held,
            "draft_failures": self.last.failed_guesses,
            // Of inference, then of rollouts.
            "class_tokens": self.last.tokens_of,
            "class_running": self.last.running_of,
            "class_waiting": self.last.waiting_of,
            "masks": self.last.masks,
            "late_masks": self.last.late_masks,
            "requests": self.last.requests,
            "failures": self.last.failures,
        });
        told.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, Steps};
    use engine::engine::Counters;
    use std::time::Duration;

    #[test]
    fn steps_are_told_by_their_fill_and_rates() {
        let mut steps = Steps::default();
        let step = |steps, prompt, all, fill_sum| Step {
            counters: Counters {
                steps,
                fill_sum,
                last_prompt_tokens: prompt,
                last_tokens: all,
                pages_total: 9,
                pages_free: 6,
                pages_idle: 3,
                ..Counters::default()
            },
            streamed: steps == 1,
            took: Duration::from_millis(100),
            cycle: Duration::from_millis(125),
            kernels: Duration::from_millis(75),
        };
        for step in [step(1, 50, 50, 0.5), step(2, 0, 4, 1.5), step(2, 0, 4, 1.5)] {
            steps.add(&step);
        }
        let told: serde_json::Value = serde_json::from_slice(&steps.json()).expect("JSON");
        assert_eq!(
            (&told["batches_processed"], &told["stream_batches_processed"]),
            (&2.into(), &1.into())
        );
        assert_eq!(told["avg_batch_fill_pct"], 75.0);
        assert_eq!(
            (told["prompt_tps_avg"].as_f64(), told["decode_tps_avg"].as_f64()),
            (Some(500.0), Some(40.0))
        );
        assert_eq!(told["pages_free"], told["pages_total"]);
        assert_eq!((&told["kernel_seconds"], &told["step_seconds"]), (&0.15.into(), &0.25.into()));
    }
}
