//! The emulator as a device: what a driver does on a card, done at once on this CPU.

use crate::embedder;
use crate::memory::{Memory, pointer};
use crate::run::{Run, run};
use crate::watch::launched;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::device::Command;
use kernels_core::error::Fault;
use plugin::{About, Driver, Launch, Launches, pwp_table};
use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;

/// A device of few multiprocessors, so that blocks loop over their work.
const CORES: u32 = 2;
const METAL: metal::Facts = metal::Facts { cores: CORES, shared_bytes_max: 32 << 10 };

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(1) };
    static MEMORY_BYTES: Cell<u64> = const { Cell::new(4 << 30) };
    static SHARED_BYTES_MAX: Cell<u32> = const { Cell::new(163 << 10) };
}

/// Sets the schedule of what this thread launches from here on.
pub fn seed(seed: u64) {
    SEED.set(seed);
}

/// Sets the shared memory that a block of CUDA may have: what this thread launches from here
/// on is lowered for such a card.
pub fn shared_bytes_max(bytes: u32) {
    SHARED_BYTES_MAX.set(bytes);
}

/// Sets the memory of devices that this thread opens from here on: there is no more to be had.
pub fn memory_bytes(bytes: u64) {
    MEMORY_BYTES.set(bytes);
}

/// Whose kernels are emulated.
pub trait Dialect: 'static {
    /// As the device calls itself.
    const NAME: &'static str;
    /// The id of the emulator's arithmetic of it.
    fn numerics() -> String;
    /// What names of its entries begin with in the emulator.
    const PREFIX: &'static str;
    /// What a command becomes.
    fn lower(command: &Command<Raw>) -> Result<Launches, Error>;
}

/// CUDA's kernels.
pub struct Cuda;

impl Dialect for Cuda {
    const NAME: &'static str = "CUDA, emulated";
    const PREFIX: &'static str = "";
    fn numerics() -> String {
        format!("cuda-emulated-{}", cuda::ARITHMETIC)
    }
    fn lower(command: &Command<Raw>) -> Result<Launches, Error> {
        let shared_bytes_max = SHARED_BYTES_MAX.get();
        cuda::lower(command, &cuda::Facts { cores: CORES, shared_bytes_max })
    }
}

/// Metal's kernels.
pub struct Metal;

impl Dialect for Metal {
    const NAME: &'static str = "Metal, emulated";
    const PREFIX: &'static str = "metal:";
    fn numerics() -> String {
        format!("metal-emulated-{}", metal::ARITHMETIC)
    }
    fn lower(command: &Command<Raw>) -> Result<Launches, Error> {
        metal::lower(command, &METAL)
    }
}

/// An emulated device.
pub struct Device<D> {
    memory: Memory,
    memory_bytes: u64,
    dialect: PhantomData<D>,
    host: Memory,
}

impl<D> Device<D> {
    fn free_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.memory.bytes())
    }
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
    /// What the host calls it.
    native: u64,
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
            0 => Ok(Self {
                memory: Memory::new(),
                memory_bytes: MEMORY_BYTES.get(),
                host: Memory::new(),
                dialect: PhantomData,
            }),
            got => {
                let fault =
                    Fault::Unsupported { expected: "one device, number 0", got: got.into() };
                Err(Error::new("device", "ordinal", fault))
            }
        }
    }

    fn about(&self) -> Result<About, Error> {
        let name = D::NAME.to_owned();
        let memory_bytes = self.memory_bytes;
        Ok(About { name, numerics: D::numerics(), memory_bytes, free_bytes: self.free_bytes() })
    }

    fn lower(&self, command: &Command<Raw>) -> Result<Launches, Error> {
        D::lower(command)
    }

    fn owns(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        if self.memory.has(address, bytes) || embedder::has(address, bytes) {
            return Ok(());
        }
        Err(Fault::Unsupported { expected: "memory of the device alone", got: address as i64 })
    }

    fn alloc(&mut self, bytes: u64) -> Result<u64, Error> {
        if bytes > self.free_bytes() {
            return Err(Error::new("emulator", "bytes", Fault::OutOfMemory { bytes }));
        }
        self.memory.alloc(bytes)
    }

    fn free(&mut self, address: u64) {
        self.memory.free(address);
    }

    fn host_alloc(&mut self, bytes: u64) -> Result<*mut c_void, Error> {
        self.host.alloc(bytes).map(pointer)
    }

    fn host_free(&mut self, host: *mut c_void) {
        self.host.free(host.expose_provenance() as u64);
    }

    fn stream(&mut self, native: *mut c_void) -> Result<Schedule, Error> {
        Ok(Schedule { recorded: None, native: native.addr() as u64 })
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
        let mut words = vec![0; arguments.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut words)[..arguments.len()].copy_from_slice(arguments);
        let launch = Recorded { launch: *launch, arguments: words, bytes: arguments.len() };
        if let Some(recorded) = &mut stream.recorded {
            recorded.push(launch);
            return Ok(());
        }
        let left = embedder::captured(stream.native, launch);
        left.map_or(Ok(()), |launch| act::<D>(&self.memory, &launch))
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
        graph.iter().try_for_each(|recorded| act::<D>(&self.memory, recorded))
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
pub fn act<D: Dialect>(memory: &Memory, recorded: &Recorded) -> Result<(), Error> {
    let Recorded { launch, arguments, bytes } = recorded;
    let arguments = &bytemuck::cast_slice::<u64, u8>(arguments)[..*bytes];
    let entry = [D::PREFIX, launch.entry].concat();
    let asked = Run {
        entry: &entry,
        grid: launch.grid,
        block: launch.block,
        shared_bytes: launch.shared_bytes,
        seed: SEED.get(),
    };
    // SAFETY: the host has checked the command's buffers against its shape.
    let came = launched(memory, &asked, || unsafe { run(&asked, arguments) });
    came.map_err(|fault| {
        let fault = Fault::Device { says: plugin::lasting(fault.message), code: fault.code.into() };
        Error::new("emulator", launch.entry, fault)
    })
}

#[cfg(test)]
mod tests {
    use super::{Cuda, Device, cuda, pointer};
    use kernels_core::params;
    use plugin::{Driver, PWP_UNSUPPORTED, pwp_buffer, pwp_call, pwp_error};
    use std::ptr::{from_mut, from_ref};

    /// What `needs` says of a norm of one row of 64 columns, whose buffers lie there.
    fn needs(device: &mut Device<Cuda>, [x, weight, out]: [u64; 3]) -> (i32, pwp_error) {
        let params = params::Norm {
            rows_max: 1,
            heads: 1,
            columns: 64,
            x_dtype: params::DTYPE_F32,
            weight_dtype: params::DTYPE_F32,
            out_dtype: params::DTYPE_F32,
            x_row_stride: 64,
            out_row_stride: 64,
            epsilon: 1e-6,
            ..Default::default()
        };
        let buffers = [x, weight, 0, out, 0].map(|address| pwp_buffer { address, bytes: 256 });
        let kernel = "norm";
        let call = pwp_call {
            kernel: kernel.as_ptr().cast(),
            params: from_ref(&params).cast(),
            buffers: buffers.as_ptr(),
            kernel_bytes: kernel.len() as u64,
            params_bytes: size_of_val(&params) as u64,
            buffer_count: buffers.len() as u64,
            workspace: 0,
            workspace_bytes: 0,
            fault: 0,
            command: 0,
            reserved: 0,
        };
        let mut error = pwp_error::default();
        let (mut bytes, needs) = (0, cuda().needs.expect("the table is whole"));
        // SAFETY: the device is a `Cuda`, as this table has it, and the rest is as the header
        // says.
        let came = unsafe { needs(from_mut(device).cast(), &call, &mut bytes, &mut error) };
        (came, error)
    }

    #[test]
    fn memory_of_the_host_is_refused_by_the_name_of_its_buffer() {
        let mut device = Device::<Cuda>::open(0).expect("the emulator is there");
        let [x, weight, out] = [256; 3].map(|bytes| device.alloc(bytes).expect("it is little"));
        assert_eq!(needs(&mut device, [x, weight, out]).0, 0);
        let host = device.host_alloc(256).expect("it is little").expose_provenance() as u64;
        let stranger = [0f32; 64].as_ptr().expose_provenance() as u64;
        // The last one is the device's, and ends too early.
        for wrong in [host, stranger, weight + 4] {
            let (came, error) = needs(&mut device, [x, wrong, out]);
            assert_eq!((came, error.kind, error.got), (1, PWP_UNSUPPORTED, wrong as i64));
            assert_eq!(plugin::read(&error.field), "weight");
        }
        device.host_free(pointer(host));
    }
}
