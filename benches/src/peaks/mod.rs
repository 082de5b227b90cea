//! What the machine can do, measured in the same process as the kernels and beside
//! each of them: on a machine that is shared, the peak moves while a kernel is timed.

#[expect(unsafe_code, reason = "the loop of dot products is written in intrinsics")]
mod dot;

use crate::frame::{Entry, Work, median};
use backends::cpu::{Map, Threads, peaks};
use kernels_core::simd::Level;
use std::hint::black_box;
use std::time::Instant;

/// Bytes of each array that is read or copied.
const ARRAY_BYTES: usize = 1 << 30;
const ARRAY_BYTES_SMOKE: usize = 1 << 20;
/// Runs of each loop.
const RUNS: usize = 5;
/// Rounds of the arithmetic loops: some tens of milliseconds at a vector level.
const ROUNDS: u64 = 500_000;

/// Measures peaks.
pub struct Peaks {
    array_bytes: usize,
    /// Kept from the first measure of memory on, for its pages cost time.
    arrays: Option<(Map, Map)>,
}

impl Peaks {
    /// None yet.
    pub fn new(smoke: bool) -> Self {
        let array_bytes = if smoke { ARRAY_BYTES_SMOKE } else { ARRAY_BYTES };
        Self { array_bytes, arrays: None }
    }

    /// The threads of the machine.
    pub fn threads_max(&self) -> u32 {
        std::thread::available_parallelism().map_or(1, |count| count.get() as u32)
    }

    /// The most that the machine now does of that work, per second; items have no
    /// peak.
    pub fn now(&mut self, work: Work, level: Level, threads: u32) -> Option<f64> {
        // Memory has one speed, whichever instructions a kernel uses.
        let level = match work {
            Work::Items(_) => return None,
            Work::Read(_) | Work::Copied(_) => Level::best(),
            Work::Int8(_) | Work::F32(_) => level,
        };
        Some(self.measure(work, level, &Threads::new(threads)))
    }

    fn measure(&mut self, work: Work, level: Level, threads: &Threads) -> f64 {
        match work {
            Work::Read(_) => {
                let (from, _) = self.arrays();
                let bytes = from.bytes();
                rate(|| {
                    black_box(peaks::read(level, threads, bytes));
                    bytes.len() as u64
                })
            }
            Work::Copied(_) => {
                let (from, to) = self.arrays();
                let one = black_box(1.0);
                rate(|| {
                    peaks::copy(level, threads, from.bytes(), to.bytes_mut(), one);
                    2 * from.bytes().len() as u64
                })
            }
            Work::F32(_) => rate(|| peaks::fma(level, threads, ROUNDS, black_box(0.5))),
            Work::Int8(_) => rate(|| dot::dots(level, threads, ROUNDS, black_box(3))),
            Work::Items(_) => unreachable!("items have no peak"),
        }
    }

    fn arrays(&mut self) -> &mut (Map, Map) {
        let bytes = self.array_bytes;
        self.arrays.get_or_insert_with(|| {
            let filled = |value: u8| {
                let mut map = Map::zeroed(bytes).expect("the machine has the memory");
                map.bytes_mut().fill(value);
                map
            };
            (filled(1), filled(2))
        })
    }

    /// Measures and prints all of them, at the best level, on one thread and on all.
    pub fn print(&mut self) {
        let level = Level::best();
        let works = [Work::Read(1), Work::Copied(1), Work::F32(1), Work::Int8(1)];
        for (work, shape) in works.into_iter().zip(["read", "copy", "f32", "int8"]) {
            for threads in [1, self.threads_max()] {
                let peak = self.now(work, level, threads).unwrap_or_default() * 1e-9;
                let (level, unit) = (level.name(), work.unit());
                println!("figure peaks,{shape},{level},{threads},,,{unit},{peak:.2},{peak:.2},1");
            }
        }
    }
}

/// One run of a bench, beside the peak.
pub struct Figure {
    /// Of one call, in seconds.
    pub seconds: f64,
    /// Of such work, the better of the peak before the run and after it.
    pub peak: Option<f64>,
}

impl Figure {
    /// Prints what a call took, its rate and its share of the peak: one line of
    /// `kernel,shape,level,threads,median_ns,work,unit,figure,peak,share`.
    pub fn print(&self, entry: &Entry, level: Level, threads: u32) {
        let Self { seconds, peak } = *self;
        let rate = entry.work.count() as f64 / seconds;
        let scale = if peak.is_some() { 1e-9 } else { 1.0 };
        let (peak_text, share) = match peak {
            Some(peak) => (format!("{:.2}", peak * scale), format!("{:.3}", rate / peak)),
            None => (String::new(), String::new()),
        };
        println!(
            "figure {},{},{},{threads},{:.0},{},{},{:.2},{peak_text},{share}",
            entry.kernel,
            entry.shape,
            level.name(),
            seconds * 1e9,
            entry.work.count(),
            entry.work.unit(),
            rate * scale
        );
    }
}

/// The median rate of a loop that says how much it did.
fn rate(mut run: impl FnMut() -> u64) -> f64 {
    run();
    let rates = (0..RUNS).map(|_| {
        let start = Instant::now();
        let done = run();
        done as f64 / start.elapsed().as_secs_f64()
    });
    median(rates.collect())
}
