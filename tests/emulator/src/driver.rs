//! The emulator as a device: what a driver does on a card, done at once on this CPU.

use crate::memory::{Memory, pointer};
use crate::run::{Run, run};
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::device::Command;
use kernels_core::error::Fault;
use plugin::{About, Driver, Launch, Launches, pwp_table};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::sync::Mutex;

/// A device of few multiprocessors, so that blocks loop over their work.
const CUDA: cuda::Facts = cuda::Facts { multiprocessors: 2, shared_bytes_max: 164 << 10 };
const METAL: metal::Facts = metal::Facts { cores: 2, shared_bytes_max: 32 << 10 };

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(1) };
}

/// Sets the schedule of what this thread launches from here on.
pub fn seed(seed: u64) {
    SEED.set(seed);
}

/// Whose kernels are emulated.
pub trait Dialect: 'static {
    /// As the device calls itself.
    const NAME: &'static str;
    /// The id of its arithmetic on a real device.
    const NUMERICS: &'static str;
    /// What names of its entries begin with in the emulator.
    const PREFIX: &'static str;
    /// What a command becomes.
    fn lower(command: &Command<Raw>) -> Result<Launches, Error>;
}

/// CUDA's kernels.
pub struct Cuda;

impl Dialect for Cuda {
    const NAME: &'static str = "CUDA, emulated";
    const NUMERICS: &'static str = cuda::NUMERICS;
    const PREFIX: &'static str = "";
    fn lower(command: &Command<Raw>) -> Result<Launches, Error> {
        cuda::lower(command, &CUDA)
    }
}

/// Metal's kernels.
pub struct Metal;

impl Dialect for Metal {
    const NAME: &'static str = "Metal, emulated";
    const NUMERICS: &'static str = metal::NUMERICS;
    const PREFIX: &'static str = "metal:";
    fn lower(command: &Command<Raw>) -> Result<Launches, Error> {
        metal::lower(command, &METAL)
    }
}

/// An emulated device.
pub struct Device<D> {
    memory: Memory,
    dialect: PhantomData<D>,
}

/// The emulated CUDA device behind its C table.
pub fn cuda() -> &'static pwp_table {
    plugin::table::<Device<Cuda>>()
}

/// The emulated Metal device behind its C table.
pub fn metal() -> &'static pwp_table {
    plugin::table::<Device<Metal>>()
}

/// Work in its order: it is done when it is enqueued, unless it is recorded.
pub struct Schedule {
    recorded: Option<Vec<Recorded>>,
}

/// A launch with its argument.
pub struct Recorded {
    launch: Launch,
    arguments: Vec<u64>,
    bytes: usize,
}

impl<D: Dialect> Driver for Device<D> {
    type Stream = Schedule;
    type Graph = Vec<Recorded>;
    type Event = ();

    fn open(ordinal: u32) -> Result<Self, Error> {
        match ordinal {
            0 => Ok(Self { memory: Memory::default(), dialect: PhantomData }),
            got => {
                let fault =
                    Fault::Unsupported { expected: "one device, number 0", got: got.into() };
                Err(Error::new("device", "ordinal", fault))
            }
        }
    }

    fn about(&self) -> Result<About, Error> {
        let numerics = format!("{}-emulated", D::NUMERICS);
        let name = D::NAME.to_owned();
        Ok(About { name, numerics, memory_bytes: 1 << 32, free_bytes: 1 << 32 })
    }

    fn lower(&self, command: &Command<Raw>) -> Result<Launches, Error> {
        D::lower(command)
    }

    fn alloc(&mut self, bytes: u64) -> Result<u64, Error> {
        self.memory.alloc(bytes)
    }

    fn free(&mut self, address: u64) {
        self.memory.free(address);
    }

    fn host_alloc(&mut self, bytes: u64) -> Result<*mut c_void, Error> {
        self.memory.alloc(bytes).map(pointer)
    }

    fn host_free(&mut self, host: *mut c_void) {
        self.memory.free(host.expose_provenance() as u64);
    }

    fn stream(&mut self, _native: *mut c_void) -> Result<Schedule, Error> {
        Ok(Schedule { recorded: None })
    }

    unsafe fn write(
        &mut self,
        _stream: &mut Schedule,
        address: u64,
        host: *const c_void,
        bytes: u64,
    ) -> Result<(), Error> {
        // SAFETY: the host's part is as the caller says; the device's was checked by it.
        unsafe { pointer(address).cast::<u8>().copy_from(host.cast(), bytes as usize) };
        Ok(())
    }

    unsafe fn read(
        &mut self,
        _stream: &mut Schedule,
        address: u64,
        host: *mut c_void,
        bytes: u64,
    ) -> Result<(), Error> {
        // SAFETY: as for `write`.
        unsafe { host.cast::<u8>().copy_from(pointer(address).cast(), bytes as usize) };
        Ok(())
    }

    fn zero(&mut self, _stream: &mut Schedule, address: u64, bytes: u64) -> Result<(), Error> {
        // SAFETY: the host has checked the range.
        unsafe { pointer(address).cast::<u8>().write_bytes(0, bytes as usize) };
        Ok(())
    }

    fn launch(
        &mut self,
        stream: &mut Schedule,
        launch: &Launch,
        arguments: &[u8],
    ) -> Result<(), Error> {
        match &mut stream.recorded {
            None => act::<D>(launch, arguments),
            Some(recorded) => {
                let mut words = vec![0; arguments.len().div_ceil(8)];
                bytemuck::cast_slice_mut(&mut words)[..arguments.len()].copy_from_slice(arguments);
                let (launch, bytes) = (*launch, arguments.len());
                recorded.push(Recorded { launch, arguments: words, bytes });
                Ok(())
            }
        }
    }

    fn graph_begin(&mut self, stream: &mut Schedule) -> Result<(), Error> {
        stream.recorded = Some(Vec::new());
        Ok(())
    }

    fn graph_end(&mut self, stream: &mut Schedule) -> Result<Vec<Recorded>, Error> {
        let fault = Fault::Device { says: "no graph was begun", code: 0 };
        stream.recorded.take().ok_or(Error::new("device", "graph", fault))
    }

    fn graph_launch(&mut self, _: &mut Schedule, graph: &mut Vec<Recorded>) -> Result<(), Error> {
        graph.iter().try_for_each(|recorded| {
            let bytes: &[u8] = bytemuck::cast_slice(&recorded.arguments);
            act::<D>(&recorded.launch, &bytes[..recorded.bytes])
        })
    }

    fn event(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn event_record(&mut self, _: &mut Schedule, _: &mut ()) -> Result<(), Error> {
        Ok(())
    }

    fn event_done(&mut self, _: &()) -> Result<bool, Error> {
        Ok(true)
    }

    fn event_wait(&mut self, _: &()) -> Result<(), Error> {
        Ok(())
    }
}

/// Runs a launch; what the emulator finds is the device's failure.
fn act<D: Dialect>(launch: &Launch, arguments: &[u8]) -> Result<(), Error> {
    let entry = [D::PREFIX, launch.entry].concat();
    let asked = Run {
        entry: &entry,
        grid: launch.grid,
        block: launch.block,
        shared_bytes: launch.shared_bytes,
        seed: SEED.get(),
    };
    // SAFETY: the host has checked the command's buffers against its shape.
    let came = unsafe { run(&asked, arguments) };
    came.map_err(|fault| {
        let fault = Fault::Device { says: lasting(fault.message), code: fault.code.into() };
        Error::new("emulator", launch.entry, fault)
    })
}

/// The words, for good, each once: errors are plain. Few are ever said.
fn lasting(words: String) -> &'static str {
    static KEPT: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut kept = KEPT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match kept.get(words.as_str()) {
        Some(known) => known,
        None => {
            let words: &'static str = words.leak();
            kept.insert(words);
            words
        }
    }
}
