//! Which backend runs the kernels: the one place that chooses.

mod available;
mod timed;

use crate::config;
use backends::cpu::{Cpu, Map, Threads, peaks};
use kernels_core::device::Backend;
use kernels_core::workers::Workers;
use std::hint::black_box;
use std::io;
use std::time::Instant;
use timed::Timed;

pub use available::{addresses_left, available_at_start, available_bytes};
pub use timed::Busy;

/// Times that memory is read to know its bandwidth.
const READS: usize = 7;

/// The machine that was chosen.
pub struct Machine {
    cpu: Cpu,
}

impl Machine {
    /// By its settings.
    pub fn open(settings: &config::Machine) -> Self {
        Self { cpu: Cpu::new(settings.level(), settings.threads()) }
    }

    /// Where the kernels run.
    pub fn backend(&mut self) -> &mut dyn Backend {
        &mut self.cpu
    }

    /// For an engine, which keeps them: one for its model, one on the same threads for a
    /// model that guesses; and how long they are busy.
    pub fn into_backends(self) -> (Box<dyn Backend>, Box<dyn Backend>, Busy) {
        let busy = Busy::default();
        let beside = Timed::new(self.cpu.beside(), busy.clone());
        (Box::new(Timed::new(self.cpu, busy.clone())), Box::new(beside), busy)
    }

    /// Threads beside its own, for what is done before it runs.
    pub fn more_workers(&self) -> impl Workers + use<> {
        Threads::new(self.cpu.workers().count())
    }

    /// Its threads.
    pub fn threads(&self) -> usize {
        self.cpu.workers().count() as usize
    }

    /// The id of its arithmetic.
    pub fn numerics(&self) -> String {
        self.cpu.numerics().to_owned()
    }

    /// What it is, in a line.
    pub fn describe(&self) -> String {
        let threads = self.cpu.workers().count();
        let plural = if threads == 1 { "" } else { "s" };
        let (level, numerics) = (self.cpu.level().name(), self.cpu.numerics());
        format!("{}, level {level}, {threads} thread{plural}, numerics {numerics}", cpu_name())
    }

    /// Bytes that it reads from memory in a second: the median of several walks
    /// through so many bytes.
    pub fn read_bandwidth(&self, bytes: usize) -> io::Result<f64> {
        let mut map = Map::zeroed(bytes)?;
        // Written once: untouched pages would all be the same one.
        map.bytes_mut().fill(1);
        let mut rates: Vec<f64> = (0..READS)
            .map(|_| {
                let start = Instant::now();
                black_box(peaks::read(self.cpu.level(), self.cpu.workers(), map.bytes()));
                bytes as f64 / start.elapsed().as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        Ok(rates[READS / 2])
    }
}

fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
    model.unwrap_or(std::env::consts::ARCH).to_owned()
}
