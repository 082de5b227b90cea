//! What is counted, by vLLM's names so that dashboards made for it work.

mod atropos;
mod checkpoints;
mod device;
mod episodes;
mod format;
mod names;
mod steps;
mod trajectories;

pub use atropos::Atropos;
pub use format::Format;
pub use steps::Step;

use self::checkpoints::Checkpoints;
use self::device::Device;
use self::episodes::Episodes;
use self::trajectories::Trajectories;
use crate::backend::Named;
use engine::request::{Class, Miss};
use kernels_core::device::DeviceMemory;
use names::Names;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use steps::Steps;

/// A response, as it is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Response {
    /// Its path.
    pub handler: &'static str,
    /// Its method.
    pub method: String,
    /// Its status.
    pub status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    finished_reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// A version that came.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Swap {
    of: &'static str,
}

/// What became of an answer in flight when it did.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Moved {
    how: &'static str,
}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    class: &'static str,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    /// From its arrival until it was admitted.
    pub queued: Duration,
    /// From there to its first token, or to its end where it has none.
    pub prefill: Duration,
    /// From there to its end.
    pub decode: Duration,
    /// Tokens of its answers.
    pub tokens: u32,
    /// Of its longest one.
    pub longest: u32,
}

/// What is counted.
pub struct Metrics {
    registry: Registry,
    steps: Mutex<Steps>,
    running: Gauge,
    waiting: Gauge,
    usage: Gauge<f64, AtomicU64>,
    queries: Counter,
    hits: Counter,
    missed: Family<Reason, Counter>,
    prompt_tokens: Counter,
    generation_tokens: Counter,
    ended: Family<Ended, Counter>,
    preemptions: Counter,
    drafts: Counter,
    draft_tokens: Counter,
    draft_tokens_accepted: Counter,
    masks: Counter,
    late_masks: Counter,
    requests: Requests,
    step_tokens: Histogram,
    running_of: Family<Of, Gauge>,
    waiting_of: Family<Of, Gauge>,
    tokens_of: Family<Of, Counter>,
    responses: Family<Response, Counter>,
    swaps: Family<Swap, Counter>,
    moved: Family<Moved, Counter>,
    swap_seconds: Histogram,
    /// Of the device, unless that is the CPU.
    device: Option<Device>,
    /// Of groups for Atropos.
    pub atropos: Atropos,
    /// Of checkpoints.
    pub checkpoints: Checkpoints,
    /// Of episodes.
    pub episodes: Episodes,
    /// Of trajectories.
    pub trajectories: Trajectories,
}

/// Of requests that have ended.
struct Requests {
    first: Histogram,
    between: Histogram,
    whole: Histogram,
    queued: Histogram,
    prefill: Histogram,
    decode: Histogram,
    inference: Histogram,
    prompt_tokens: Histogram,
    tokens: Histogram,
    longest: Histogram,
    choices: Histogram,
    asked: Histogram,
}

impl Metrics {
    /// Of a model whose cache has so many pages of so many tokens, and of the device that it
    /// runs on, unless that is the CPU.
    pub fn new(model: &str, page_len: u32, pages: u32, device: Option<&Named>) -> Self {
        let mut names = Names::new(model);
        let facts = [("block_size", page_len), ("num_gpu_blocks", pages)];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_string()));
        names.fact("cache_config", "Pages of keys and values", facts.to_vec());
        Self {
            steps: Mutex::default(),
            running: names.add("num_requests_running", "Answers in steps", Gauge::default()),
            waiting: names.add("num_requests_waiting", "Answers that wait", Gauge::default()),
            usage: names.add(
                "kv_cache_usage_perc",
                "Part of the pages that is held",
                Gauge::default(),
            ),
            queries: names.add(
                "prefix_cache_queries",
                "Tokens looked for in pages",
                Counter::default(),
            ),
            hits: names.add("prefix_cache_hits", "Tokens found in pages", Counter::default()),
            missed: names.own("prefix_cache_missed_tokens", "Tokens not found", Family::default()),
            prompt_tokens: names.add("prompt_tokens", "Tokens of prompts", Counter::default()),
            generation_tokens: names.add(
                "generation_tokens",
                "Tokens of answers",
                Counter::default(),
            ),
            ended: names.add("request_success", "Answers that ended", Family::default()),
            preemptions: names.add("num_preemptions", "Pages given back", Counter::default()),
            drafts: names.add("spec_decode_num_drafts", "Guesses", Counter::default()),
            draft_tokens: names.add(
                "spec_decode_num_draft_tokens",
                "Tokens guessed",
                Counter::default(),
            ),
            draft_tokens_accepted: names.add(
                "spec_decode_num_accepted_tokens",
                "Tokens guessed that came",
                Counter::default(),
            ),
            masks: names.own("grammar_masks", "Tokens drawn under a grammar", Counter::default()),
            late_masks: names.own(
                "grammar_masks_late",
                "Times that a mask came too late for a step",
                Counter::default(),
            ),
            requests: Requests::new(&mut names),
            step_tokens: names.add("iteration_tokens_total", "Tokens of a step", names::by_steps()),
            running_of: names.own(
                "class_requests_running",
                "Answers in steps, by who asked",
                Family::default(),
            ),
            waiting_of: names.own(
                "class_requests_waiting",
                "Answers that wait, by who asked",
                Family::default(),
            ),
            tokens_of: names.own(
                "class_tokens",
                "Tokens computed, by who asked",
                Family::default(),
            ),
            swaps: names.own("version_swaps", "Versions that came", Family::default()),
            moved: names.own(
                "version_swap_answers",
                "Answers in flight when a version came, by what became of them",
                Family::default(),
            ),
            swap_seconds: names.own(
                "version_swap_seconds",
                "What a version kept steps waiting when it came",
                names::by_swaps(),
            ),
            device: device.map(|device| Device::new(&mut names, device)),
            atropos: Atropos::new(&mut names),
            checkpoints: Checkpoints::new(&mut names),
            episodes: Episodes::new(&mut names),
            trajectories: Trajectories::new(&mut names),
            responses: names.plain("http_requests", "Responses", Family::default()),
            registry: names.registry,
        }
    }

    /// As Prometheus reads it.
    pub fn text(&self, format: Format) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a string can be written to");
        format.of(text)
    }

    /// As people and tests read it.
    pub fn debug(&self) -> Vec<u8> {
        self.steps().json()
    }

    /// The memory of the device is so now; nothing is told where it did not say.
    pub fn device_memory(&self, memory: Option<DeviceMemory>) {
        if let (Some(device), Some(memory)) = (&self.device, memory) {
            device.memory(&memory);
        }
    }

    /// A version of an adapter, or of the weights, is the current one.
    pub fn swapped(&self, adapter: bool, moved: &engine::engine::Moved, took: Duration) {
        self.swap_seconds.observe(took.as_secs_f64());
        let of = if adapter { "adapter" } else { "weights" };
        self.swaps.get_or_create(&Swap { of }).inc();
        for (how, count) in [
            ("waited", moved.waited),
            ("recomputed", moved.recomputed),
            ("kept", moved.kept),
            ("aborted", moved.aborted),
        ] {
            self.moved.get_or_create(&Moved { how }).inc_by(count.into());
        }
    }

    /// A response was sent.
    pub fn request(&self, response: &Response) {
        self.responses.get_or_create(response).inc();
    }

    /// A step was made.
    pub fn step(&self, step: &Step) {
        let now = &step.counters;
        let before = self.steps().add(step);
        self.running.set(i64::from(now.running));
        self.waiting.set(i64::from(now.waiting));
        let held = now.pages_total.saturating_sub(now.pages_free + now.pages_idle);
        self.usage.set(f64::from(held) / f64::from(now.pages_total.max(1)));
        self.preemptions.inc_by(now.preemptions - before.preemptions);
        self.episodes.evicted(now.episode_evictions - before.episode_evictions);
        self.drafts.inc_by(now.guesses - before.guesses);
        self.draft_tokens.inc_by(now.guessed - before.guessed);
        self.draft_tokens_accepted.inc_by(now.held - before.held);
        self.masks.inc_by(now.masks - before.masks);
        for class in Class::ALL {
            let (of, at) = (Of { class: class.name() }, class as usize);
            self.running_of.get_or_create(&of).set(now.running_of[at].into());
            self.waiting_of.get_or_create(&of).set(now.waiting_of[at].into());
            self.tokens_of.get_or_create(&of).inc_by(now.tokens_of[at] - before.tokens_of[at]);
        }
        self.late_masks.inc_by(now.late_masks - before.late_masks);
        if now.steps > before.steps {
            self.step_tokens.observe(f64::from(now.last_tokens));
        }
    }

    /// A request was taken.
    pub fn taken(&self, choices: u32, max_new: u32) {
        self.requests.choices.observe(f64::from(choices));
        self.requests.asked.observe(f64::from(max_new));
    }

    /// A prompt was computed.
    pub fn prompt(&self, tokens: usize, cached: u32, miss: Miss) {
        let missed = (tokens as u64).saturating_sub(u64::from(cached));
        self.queries.inc_by(tokens as u64);
        self.hits.inc_by(u64::from(cached));
        self.prompt_tokens.inc_by(tokens as u64);
        self.missed.get_or_create(&Reason { reason: miss.name() }).inc_by(missed);
        self.requests.prompt_tokens.observe(tokens as f64);
    }

    /// A token came: so long after the request, if it is the first, or after the last.
    pub fn token(&self, first: bool, after: Duration) {
        self.generation_tokens.inc();
        let kind = if first { &self.requests.first } else { &self.requests.between };
        kind.observe(after.as_secs_f64());
    }

    /// An answer has ended: `stop`, `length` or `abort`.
    pub fn ended(&self, finished_reason: &'static str) {
        self.ended.get_or_create(&Ended { finished_reason }).inc();
    }

    /// All answers of a request have ended.
    pub fn course(&self, course: &Course) {
        let Course { queued, prefill, decode, tokens, longest } = *course;
        let requests = &self.requests;
        requests.queued.observe(queued.as_secs_f64());
        requests.prefill.observe(prefill.as_secs_f64());
        requests.decode.observe(decode.as_secs_f64());
        requests.inference.observe((prefill + decode).as_secs_f64());
        requests.whole.observe((queued + prefill + decode).as_secs_f64());
        requests.tokens.observe(f64::from(tokens));
        requests.longest.observe(f64::from(longest));
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Requests {
    fn new(names: &mut Names) -> Self {
        let by = names::by_seconds;
        let count = names::by_tokens;
        Self {
            first: names.add("time_to_first_token_seconds", "To the first token", by()),
            between: names.add("inter_token_latency_seconds", "Between tokens", names::by_gaps()),
            whole: names.add("e2e_request_latency_seconds", "To the end", by()),
            queued: names.add("request_queue_time_seconds", "Until it was admitted", by()),
            prefill: names.add(
                "request_prefill_time_seconds",
                "From there to the first token",
                by(),
            ),
            decode: names.add(
                "request_decode_time_seconds",
                "From the first token to the end",
                by(),
            ),
            inference: names.add("request_inference_time_seconds", "From there to the end", by()),
            prompt_tokens: names.add("request_prompt_tokens", "Tokens of a prompt", count()),
            tokens: names.add("request_generation_tokens", "Tokens of its answers", count()),
            longest: names.add("request_max_num_generation_tokens", "Of the longest", count()),
            choices: names.add("request_params_n", "Answers asked", names::by_choices()),
            asked: names.add("request_params_max_tokens", "Tokens asked at most", count()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, Metrics, Step};
    use crate::backend::Named;
    use engine::engine::Counters;
    use engine::request::Miss;
    use kernels_core::device::DeviceMemory;
    use std::time::Duration;

    #[test]
    fn names_are_those_of_dashboards() {
        let metrics = Metrics::new("abacus", 32, 100, None);
        metrics.prompt(40, 32, Miss::PartialPage);
        metrics.token(true, Duration::from_millis(5));
        metrics.ended("stop");
        let counters = Counters {
            pages_total: 100,
            pages_free: 70,
            pages_idle: 5,
            preemptions: 2,
            running: 1,
            running_of: [0, 1],
            tokens_of: [0, 40],
            ..Counters::default()
        };
        let step = Step { counters, ..Step::default() };
        metrics.step(&step);
        metrics.step(&step);
        let text = metrics.text(Format::Text);
        for line in [
            r#"vllm:num_requests_running{model_name="abacus",engine="0"} 1"#,
            r#"vllm:kv_cache_usage_perc{model_name="abacus",engine="0"} 0.25"#,
            r#"vllm:prefix_cache_hits_total{model_name="abacus",engine="0"} 32"#,
            r#"vllm:prompt_tokens_total{model_name="abacus",engine="0"} 40"#,
            r#"vllm:generation_tokens_total{model_name="abacus",engine="0"} 1"#,
            r#"vllm:num_preemptions_total{model_name="abacus",engine="0"} 2"#,
            r#"vllm:time_to_first_token_seconds_count{model_name="abacus",engine="0"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let named = |start: &str, label: &str| {
            text.lines().any(|line| line.starts_with(start) && line.contains(label))
        };
        assert!(
            named("pagewise:class_tokens_total", r#"engine="0",class="rollout"} 40"#),
            "{text}"
        );
        assert!(named("pagewise:class_requests_running", r#"engine="0",class="rollout"} 1"#));
        assert!(named("vllm:request_success_total", r#"finished_reason="stop""#), "{text}");
        assert!(named("pagewise:prefix_cache_missed_tokens_total", r#"reason="partial_page""#));
        assert!(named("vllm:cache_config_info", r#"block_size="32""#), "{text}");
        assert!(!text.contains("device"), "the CPU is none: {text}");
    }

    #[test]
    fn a_device_is_told_with_its_memory() {
        let device = Named { kind: "cuda", name: "a card".into() };
        let metrics = Metrics::new("abacus", 32, 100, Some(&device));
        let memory = DeviceMemory { total_bytes: 9, free_bytes: 2, allocated_bytes: 5 };
        metrics.device_memory(Some(memory));
        // What it did not say stays as it was.
        metrics.device_memory(None);
        let text = metrics.text(Format::Text);
        for (part, bytes) in [("total", 9), ("free", 2), ("allocated", 5)] {
            let start = format!("pagewise:device_memory_{part}_bytes{{");
            let told = text.lines().find(|line| line.starts_with(&start));
            assert!(told.is_some_and(|line| line.ends_with(&format!(" {bytes}"))), "{text}");
        }
        assert!(text.contains(r#"kind="cuda",name="a card""#), "{text}");
    }
}
