//! Which backend runs the kernels: the one place that chooses.

mod available;
mod timed;

use crate::command::sized;
use crate::config::{self, Device};
use backends::cpu::{Cpu, Map, Threads, peaks};
use backends::plugin::Plugin;
use kernels_core::device::{Backend, DeviceMemory};
use kernels_core::workers::Workers;
use std::hint::black_box;
use std::io;
use std::path::PathBuf;
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
    /// A device, and by what it is opened once more.
    Device(Box<Plugin>, Place),
}

/// Where a device is found.
struct Place {
    /// Of its plugin.
    folder: PathBuf,
    kind: &'static str,
    ordinal: u32,
}

impl Place {
    fn open(&self) -> Result<Box<Plugin>, Refused> {
        Plugin::load(&self.folder, self.kind, self.ordinal).map(Box::new)
    }
}

/// What an engine keeps.
pub struct Backends {
    /// For its model.
    pub own: Box<dyn Backend>,
    /// For a model that guesses, on the same threads or device, where one does.
    pub beside: Option<Box<dyn Backend>>,
    /// How long both are busy.
    pub busy: Busy,
}

/// A device, as people call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `"cuda"`.
    pub kind: &'static str,
    /// What it says it is.
    pub name: String,
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

    /// For an engine, which keeps them; `guessed` says that another model guesses for its own.
    pub fn into_backends(self, guessed: bool) -> Result<Backends, Refused> {
        let busy = Busy::default();
        let (own, beside): (Box<dyn Backend>, Option<Box<dyn Backend>>) = match self.kernels {
            Kernels::Cpu(cpu) => {
                let beside = guessed.then(|| timed(cpu.beside(), &busy));
                (timed(cpu, &busy), beside)
            }
            Kernels::Device(device, place) => {
                let beside = guessed.then(|| place.open()).transpose()?;
                (timed(*device, &busy), beside.map(|beside| timed(*beside, &busy)))
            }
        };
        Ok(Backends { own, beside, busy })
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

    /// Its device, unless it is the CPU.
    pub fn device(&self) -> Option<Named> {
        match &self.kernels {
            Kernels::Cpu(_) => None,
            Kernels::Device(device, place) => {
                Some(Named { kind: place.kind, name: device.about().name.clone() })
            }
        }
    }

    /// The memory of its device as it is now, if it has one that tells.
    pub fn device_memory(&self) -> Option<DeviceMemory> {
        match &self.kernels {
            Kernels::Cpu(_) => None,
            Kernels::Device(device, _) => device.memory().ok().flatten(),
        }
    }

    /// Bytes that a model may take now, if somebody tells.
    pub fn available_bytes(&self) -> Option<u64> {
        match &self.kernels {
            Kernels::Cpu(_) => available_at_start(),
            Kernels::Device(..) => self.device_memory().map(|memory| memory.free_bytes),
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
            Kernels::Device(device, _) => {
                let all = sized(device.about().memory_bytes);
                format!("{}, {all}, numerics {numerics}", device.about().name)
            }
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

fn device(
    settings: &config::Machine,
    kind: &'static str,
    ordinal: u32,
) -> Result<Kernels, Refused> {
    let place = Place { folder: settings.plugins(), kind, ordinal };
    Ok(Kernels::Device(place.open()?, place))
}

fn timed(backend: impl Backend + 'static, busy: &Busy) -> Box<dyn Backend> {
    Box::new(Timed::new(backend, busy.clone()))
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
