//! What a bench is: a name, the work of one call, a check, a body.

use crate::peaks::{Figure, Peaks};
use backends::cpu::{Map, Threads};
use criterion::{BenchmarkId, Criterion, SamplingMode};
use kernels_core::simd::Level;
use kernels_core::workers::{Inline, Workers};
use pagewise_tests::harness::{Case, assert_same_bits};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Memory that a bench walks through when its bar is the memory's: twice what any
/// cache here holds.
const CYCLE_BYTES: usize = 512 << 20;
/// Calls are sampled so often.
const SAMPLES: usize = 10;
/// One bench takes about this long, its warm-up aside.
const MEASURE: Duration = Duration::from_millis(400);
const WARM_UP: Duration = Duration::from_millis(100);

/// What one call moves or computes: the peak that its rate is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Bytes read from memory.
    Read(u64),
    /// Bytes copied: those read and those written, counted both.
    Copied(u64),
    /// 8-bit integer operations: two for each product that is summed.
    Int8(u64),
    /// f32 operations: two for each multiply-add.
    F32(u64),
    /// Things without a peak of their own: rows, tokens.
    Items(u64),
}

impl Work {
    /// How many.
    pub const fn count(self) -> u64 {
        match self {
            Work::Read(n) | Work::Copied(n) | Work::Int8(n) | Work::F32(n) | Work::Items(n) => n,
        }
    }

    /// The unit of its rate, in 10⁹ each second; items are single.
    pub const fn unit(self) -> &'static str {
        match self {
            Work::Read(_) => "GB/s read",
            Work::Copied(_) => "GB/s copied",
            Work::Int8(_) => "Gop/s int8",
            Work::F32(_) => "GF/s f32",
            Work::Items(_) => "items/s",
        }
    }
}

/// The name and the work of a bench.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The kernel's stem.
    pub kernel: &'static str,
    /// The shape, without commas or slashes: `m1 2048x5632 i4-g32`.
    pub shape: String,
    /// What one call moves or computes.
    pub work: Work,
}

/// Where a call runs.
#[derive(Clone, Copy)]
pub struct On<'a> {
    /// The level.
    pub level: Level,
    /// The threads.
    pub workers: &'a dyn Workers,
}

/// The buffers of a bench, and its call.
pub trait Subject {
    /// Makes the call once and panics unless its answer is right: the scalar
    /// level's on a slice of the work that the scalar level can afford, or the
    /// specification's.
    fn check(&mut self, on: On<'_>);
    /// Makes the call. `turn` rises by one each time: it chooses the copy of the
    /// weights or caches, so that memory-bound calls find nothing in a cache.
    fn call(&mut self, on: On<'_>, turn: usize);
    /// What parts of the calls took, by name, since this was last asked: a subject that
    /// times parts of its own is recorded by them, not whole.
    fn parts(&mut self) -> Vec<(&'static str, Duration)> {
        Vec::new()
    }
}

/// A case has the scalar level's bits; for subjects whose case is all that they run.
pub fn assert_scalar_bits<C: Case>(case: &C, on: On<'_>) {
    let scalar = Level::named("scalar").expect("every machine has the scalar level");
    let expected = case.run(scalar, &Inline).expect("the call is a good one");
    let got = case.run(on.level, on.workers).expect("the call is a good one");
    assert_same_bits("as the scalar level", &expected, &got);
}

/// The benches of one run.
pub struct Bench {
    criterion: Criterion,
    peaks: Peaks,
    smoke: bool,
}

impl Bench {
    /// By the process's arguments, which are criterion's.
    pub fn from_args() -> Self {
        let given = |name: &str| std::env::args().any(|argument| argument == name);
        let criterion = Criterion::default()
            .sample_size(SAMPLES)
            .warm_up_time(WARM_UP)
            .measurement_time(MEASURE)
            .nresamples(1000)
            .without_plots()
            .configure_from_args();
        // Without `--bench`, which cargo gives, criterion only tests too.
        let smoke = given("--test") || !given("--bench");
        Self { criterion, peaks: Peaks::new(smoke), smoke }
    }

    /// Whether calls only run once, so that little memory will do.
    pub fn smoke(&self) -> bool {
        self.smoke
    }

    /// How many copies of something make a working set that lies in no cache.
    pub fn cycle(&self, bytes_each: usize) -> usize {
        if self.smoke { 2 } else { CYCLE_BYTES.div_ceil(bytes_each.max(1)).max(2) }
    }

    /// Times the entry at each level worth knowing: the best one on one thread and
    /// on all, lesser vector levels on all. `make` is only called if the run's
    /// filter lets one of them through.
    pub fn time<S: Subject>(&mut self, entry: Entry, make: impl FnOnce(&Bench) -> S) {
        let mut make = Some(make);
        let mut subject = None;
        let best = Level::best();
        let most = self.peaks.threads_max();
        let lesser = Level::all().filter(|level| level.name() != "scalar" && *level != best);
        let mut runs: Vec<(Level, u32)> = lesser.map(|level| (level, most)).collect();
        runs.extend((1..most).filter(|&count| count == 1).map(|count| (best, count)));
        runs.push((best, most));
        for (level, count) in runs {
            let id = BenchmarkId::from_parameter(name(&entry, level, count));
            let mut samples: Vec<f64> = Vec::new();
            let mut parts: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
            let threads = Threads::new(count);
            let on = On { level, workers: &threads };
            let mut turn = 0;
            let mut before = None;
            let mut group = std::mem::take(&mut self.criterion);
            {
                let mut group = group.benchmark_group(entry.kernel);
                group.sampling_mode(SamplingMode::Flat);
                group.bench_function(id, |bencher| {
                    let fresh = samples.is_empty();
                    let subject =
                        subject.get_or_insert_with(|| (make.take().expect("made once"))(self));
                    if fresh {
                        subject.check(on);
                        subject.parts();
                        before = (!self.smoke).then(|| self.peaks.now(entry.work, level, count));
                    }
                    bencher.iter_custom(|calls| {
                        let start = Instant::now();
                        for _ in 0..calls {
                            subject.call(on, turn);
                            turn += 1;
                        }
                        let took = start.elapsed();
                        samples.push(took.as_secs_f64() / calls as f64);
                        for (part, took) in subject.parts() {
                            let samples = parts.entry(part).or_default();
                            samples.push(took.as_secs_f64() / calls as f64);
                        }
                        took
                    });
                });
                group.finish();
            }
            self.criterion = group;
            if self.smoke || samples.len() <= SAMPLES {
                continue;
            }
            // The warm-up's samples come first.
            let after = self.peaks.now(entry.work, level, count);
            let peak = before.flatten().zip(after).map(|(before, after)| before.max(after));
            let seconds = |mut all: Vec<f64>| median(all.split_off(all.len() - SAMPLES));
            if parts.is_empty() {
                Figure { seconds: seconds(samples), peak }.print(&entry, level, count);
            }
            for (part, samples) in parts {
                let entry = Entry { shape: format!("{} {part}", entry.shape), ..entry.clone() };
                Figure { seconds: seconds(samples), peak }.print(&entry, level, count);
            }
        }
    }

    /// The machine's own figures, at its best level.
    pub fn peaks(&mut self) {
        if !self.smoke {
            self.peaks.print();
        }
    }
}

fn name(entry: &Entry, level: Level, threads: u32) -> String {
    format!("{}/{}/{threads}", entry.shape, level.name())
}

/// The middle one.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Copies of one thing side by side in huge pages.
pub struct Copies {
    map: Map,
    bytes: usize,
    stride: usize,
    count: usize,
}

impl Copies {
    /// `count` of them, each at a multiple of 64 bytes.
    pub fn new(original: &[u8], count: usize) -> Self {
        let stride = original.len().next_multiple_of(64);
        let mut map = Map::zeroed(stride * count).expect("the machine has the memory");
        for copy in map.bytes_mut().chunks_exact_mut(stride.max(1)) {
            copy[..original.len()].copy_from_slice(original);
        }
        Self { map, bytes: original.len(), stride, count }
    }

    /// The copy of that turn, round and round.
    pub fn turn(&self, turn: usize) -> &[u8] {
        let start = turn % self.count * self.stride;
        &self.map.bytes()[start..start + self.bytes]
    }

    /// The copy of that turn, to write.
    pub fn turn_mut(&mut self, turn: usize) -> &mut [u8] {
        let start = turn % self.count * self.stride;
        &mut self.map.bytes_mut()[start..start + self.bytes]
    }
}
