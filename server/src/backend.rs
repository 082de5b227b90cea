//! Which backend runs the kernels: the one place that chooses.

mod available;
mod timed;

use crate::config::{self, Device};
use backends::cpu::{Cpu, Map, Threads, peaks};
use backends::plugin::Plugin;
use kernels_core::device::Backend;
use kernels_core::workers::Workers;
use std::hint::black_box;
use std::io;
use std::time::Instant;
use timed::Timed;

pub use available::{addresses_left, available_at_start, available_bytes};
pub use backends::plugin::Refused;
pub use timed::Busy;

/// Kinds of device, in the order in which they are looked for.
const KINDS: [&str; 2] = ["cuda", "metal"];
/// Times that memory is read to know its bandwidth.
const READS: usize = 7;

/// The machine that was chosen.
pub struct Machine {
    kernels: Kernels,
    threads: u32,
}

/// Where its kernels run.
enum Kernels {
    Cpu(Cpu),
    /// A device, and once more for a model that guesses.
    Device(Box<Plugin>, Box<Plugin>),
}

impl Machine {
    /// By its settings; or why a device that they name is not there.
    pub fn open(settings: &config::Machine) -> Result<Self, Refused> {
        let kernels = match settings.device() {
            Device::Cpu => cpu(settings),
            Device::Plugin(kind, ordinal) => device(settings, kind, ordinal)?,
            Device::Auto => first(settings),
        };
        Ok(Self { kernels, threads: settings.threads() })
    }

    /// Where the kernels run.
    pub fn backend(&mut self) -> &mut dyn Backend {
        match &mut self.kernels {
            Kernels::Cpu(cpu) => cpu,
            Kernels::Device(device, _) => device.as_mut(),
        }
    }

    /// For an engine, which keeps them: one for its model, one for a model that guesses, on
    /// the same threads or device; and how long they are busy.
    pub fn into_backends(self) -> (Box<dyn Backend>, Box<dyn Backend>, Busy) {
        let busy = Busy::default();
        match self.kernels {
            Kernels::Cpu(cpu) => {
                let beside = Timed::new(cpu.beside(), busy.clone());
                (Box::new(Timed::new(cpu, busy.clone())), Box::new(beside), busy)
            }
            Kernels::Device(device, beside) => {
                let beside = Timed::new(*beside, busy.clone());
                (Box::new(Timed::new(*device, busy.clone())), Box::new(beside), busy)
            }
        }
    }

    /// Threads beside its own, for what is done before it runs.
    pub fn more_workers(&self) -> impl Workers + use<> {
        Threads::new(self.threads)
    }

    /// Its threads.
    pub fn threads(&self) -> usize {
        self.threads as usize
    }

    /// The id of its arithmetic.
    pub fn numerics(&self) -> String {
        match &self.kernels {
            Kernels::Cpu(cpu) => cpu.numerics().to_owned(),
            Kernels::Device(device, _) => device.numerics().to_owned(),
        }
    }

    /// Bytes that a model may take, if somebody tells.
    pub fn available_bytes(&self) -> Option<u64> {
        match &self.kernels {
            Kernels::Cpu(_) => available_at_start(),
            Kernels::Device(device, _) => Some(device.about().free_bytes),
        }
    }

    /// What it is, in a line.
    pub fn describe(&self) -> String {
        let numerics = self.numerics();
        match &self.kernels {
            Kernels::Cpu(cpu) => {
                let (threads, level) = (self.threads, cpu.level().name());
                let plural = if threads == 1 { "" } else { "s" };
                format!(
                    "{}, level {level}, {threads} thread{plural}, numerics {numerics}",
                    cpu_name()
                )
            }
            Kernels::Device(device, _) => format!("{}, numerics {numerics}", device.about().name),
        }
    }

    /// Bytes that its CPU reads from memory in a second: the median of several walks through
    /// so many bytes. Nothing for a device, whose own benches tell.
    pub fn read_bandwidth(&self, bytes: usize) -> io::Result<Option<f64>> {
        let Kernels::Cpu(cpu) = &self.kernels else { return Ok(None) };
        let mut map = Map::zeroed(bytes)?;
        // Written once: untouched pages would all be the same one.
        map.bytes_mut().fill(1);
        let mut rates: Vec<f64> = (0..READS)
            .map(|_| {
                let start = Instant::now();
                black_box(peaks::read(cpu.level(), cpu.workers(), map.bytes()));
                bytes as f64 / start.elapsed().as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        Ok(Some(rates[READS / 2]))
    }
}

fn cpu(settings: &config::Machine) -> Kernels {
    Kernels::Cpu(Cpu::new(settings.level(), settings.threads()))
}

fn device(settings: &config::Machine, kind: &str, ordinal: u32) -> Result<Kernels, Refused> {
    let open = || Plugin::load(&settings.plugins(), kind, ordinal).map(Box::new);
    Ok(Kernels::Device(open()?, open()?))
}

/// The first device whose plugin finds one; the CPU goes on where none does, and the log says
/// why.
fn first(settings: &config::Machine) -> Kernels {
    for kind in KINDS {
        match device(settings, kind, 0) {
            Ok(kernels) => return kernels,
            Err(refused @ Refused::Absent(_)) => tracing::info!(kind, %refused, "no device"),
            Err(refused) => tracing::warn!(kind, %refused, "no device"),
        }
    }
    tracing::warn!("kernels run on the CPU");
    cpu(settings)
}

fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
    model.unwrap_or(std::env::consts::ARCH).to_owned()
}
