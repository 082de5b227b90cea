//! The C table of a [`Driver`]: pointers looked at, panics kept in, errors put into words.

use crate::error::tell;
use crate::{
    Arguments, BUILD_ENDED, Driver, PWP_ANYWHERE, put, pwp_about, pwp_buffer, pwp_call, pwp_device,
    pwp_error, pwp_event, pwp_graph, pwp_stream, pwp_table,
};
use core::ffi::c_void;
use kernels_core::Error;
use kernels_core::command::{Address, Raw};
use kernels_core::device::{BUFFERS_MAX, Command};
use kernels_core::error::Fault;
use kernels_core::params;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The table of a driver.
pub const fn table<D: Driver>() -> &'static pwp_table {
    const { &Table::<D>::TABLE }
}

struct Table<D>(core::marker::PhantomData<D>);

impl<D: Driver> Table<D> {
    const TABLE: pwp_table = pwp_table {
        struct_size: size_of::<pwp_table>() as u64,
        build: BUILD_ENDED.as_ptr().cast(),
        open: Some(open::<D>),
        close: Some(close::<D>),
        about: Some(about::<D>),
        alloc: Some(alloc::<D>),
        free: Some(free::<D>),
        host_alloc: Some(host_alloc::<D>),
        host_free: Some(host_free::<D>),
        stream_open: Some(stream_open::<D>),
        stream_close: Some(stream_close::<D>),
        write: Some(write::<D>),
        read: Some(read::<D>),
        zero: Some(zero::<D>),
        needs: Some(needs::<D>),
        launch: Some(launch::<D>),
        graph_begin: Some(graph_begin::<D>),
        graph_end: Some(graph_end::<D>),
        graph_launch: Some(graph_launch::<D>),
        graph_close: Some(graph_close::<D>),
        event_open: Some(event_open::<D>),
        event_record: Some(event_record::<D>),
        event_done: Some(event_done::<D>),
        event_wait: Some(event_wait::<D>),
        event_close: Some(event_close::<D>),
    };
}

/// Does it; what goes wrong, a panic too, is told in C's way.
fn guarded(error: *mut pwp_error, act: impl FnOnce() -> Result<(), Error>) -> i32 {
    let came = catch_unwind(AssertUnwindSafe(act));
    let panicked = Fault::Device { says: "the plugin broke an invariant of its own", code: -1 };
    let came = came.unwrap_or_else(|_| Err(Error::new("plugin", "panic", panicked)));
    let Err(refused) = came else { return 0 };
    // SAFETY: the host gives a pwp_error of its own, or null.
    if let Some(error) = unsafe { error.as_mut() } {
        tell(&refused, error);
    }
    1
}

/// What the host holds of a driver, given to C and taken back by the same name.
macro_rules! held {
    ($pointer:expr => $type:ty) => {
        // SAFETY: the host gives what this table's function of that type gave it, has not
        // given it back, and uses it from one thread at a time.
        unsafe { &mut *$pointer.cast::<$type>() }
    };
}

macro_rules! give {
    ($value:expr => $to:expr) => {{
        let boxed = Box::into_raw(Box::new($value));
        // SAFETY: the host gives a place for one pointer.
        unsafe { $to.write(boxed.cast()) };
        Ok(())
    }};
}

macro_rules! take_back {
    ($($function:ident $c:ty => $type:ty;)*) => {$(
        unsafe extern "C" fn $function<D: Driver>(_: *mut pwp_device, given: *mut $c) {
            if !given.is_null() {
                guarded(core::ptr::null_mut(), || {
                    // SAFETY: as the header says, it is this table's and not given back before.
                    drop(unsafe { Box::from_raw(given.cast::<$type>()) });
                    Ok(())
                });
            }
        }
    )*};
}
take_back! {
    stream_close pwp_stream => D::Stream;
    graph_close pwp_graph => D::Graph;
    event_close pwp_event => D::Event;
}

unsafe extern "C" fn open<D: Driver>(
    ordinal: u32,
    device: *mut *mut pwp_device,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || give!(D::open(ordinal)? => device))
}

unsafe extern "C" fn close<D: Driver>(device: *mut pwp_device) {
    if !device.is_null() {
        guarded(core::ptr::null_mut(), || {
            // SAFETY: it is of `open`, and not closed before.
            drop(unsafe { Box::from_raw(device.cast::<D>()) });
            Ok(())
        });
    }
}

unsafe extern "C" fn about<D: Driver>(
    device: *mut pwp_device,
    to: *mut pwp_about,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || {
        let about = held!(device => D).about()?;
        // SAFETY: the host gives a pwp_about of its own.
        let to = unsafe { &mut *to };
        (to.memory_bytes, to.free_bytes) = (about.memory_bytes, about.free_bytes);
        put(&about.name, &mut to.name);
        put(&about.numerics, &mut to.numerics);
        Ok(())
    })
}

unsafe extern "C" fn alloc<D: Driver>(
    device: *mut pwp_device,
    bytes: u64,
    address: *mut u64,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || {
        let at = held!(device => D).alloc(bytes)?;
        // SAFETY: the host gives a place for the address.
        unsafe { address.write(at) };
        Ok(())
    })
}

unsafe extern "C" fn free<D: Driver>(device: *mut pwp_device, address: u64) {
    guarded(core::ptr::null_mut(), || {
        held!(device => D).free(address);
        Ok(())
    });
}

unsafe extern "C" fn host_alloc<D: Driver>(
    device: *mut pwp_device,
    bytes: u64,
    host: *mut *mut c_void,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || {
        let at = held!(device => D).host_alloc(bytes)?;
        // SAFETY: the host gives a place for the pointer.
        unsafe { host.write(at) };
        Ok(())
    })
}

unsafe extern "C" fn host_free<D: Driver>(device: *mut pwp_device, host: *mut c_void) {
    guarded(core::ptr::null_mut(), || {
        held!(device => D).host_free(host);
        Ok(())
    });
}

unsafe extern "C" fn stream_open<D: Driver>(
    device: *mut pwp_device,
    native: *mut c_void,
    stream: *mut *mut pwp_stream,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || give!(held!(device => D).stream(native)? => stream))
}

unsafe extern "C" fn write<D: Driver>(
    device: *mut pwp_device,
    stream: *mut pwp_stream,
    address: u64,
    host: *const c_void,
    bytes: u64,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || {
        let (device, stream) = (held!(device => D), held!(stream => D::Stream));
        // SAFETY: as the header says of `host`.
        unsafe { device.write(stream, address, host, bytes) }
    })
}

unsafe extern "C" fn read<D: Driver>(
    device: *mut pwp_device,
    stream: *mut pwp_stream,
    address: u64,
    host: *mut c_void,
    bytes: u64,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || {
        let (device, stream) = (held!(device => D), held!(stream => D::Stream));
        // SAFETY: as the header says of `host`.
        unsafe { device.read(stream, address, host, bytes) }
    })
}

unsafe extern "C" fn zero<D: Driver>(
    device: *mut pwp_device,
    stream: *mut pwp_stream,
    address: u64,
    bytes: u64,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || held!(device => D).zero(held!(stream => D::Stream), address, bytes))
}

/// The parts of a call, and the command that they are.
struct Call<'a> {
    call: &'a pwp_call,
    params: &'a [u8],
    buffers: &'a [pwp_buffer],
    command: Command<Raw>,
}

impl<'a> Call<'a> {
    /// # Safety
    ///
    /// The call is one, as the header says.
    unsafe fn new(call: *const pwp_call) -> Result<Self, Error> {
        let unknown = || {
            let fault = Fault::Unsupported { expected: "the kernels of its own build", got: 0 };
            Error::new("plugin", "kernel", fault)
        };
        // SAFETY: as the caller of this says.
        let call = unsafe { call.as_ref() }.ok_or_else(unknown)?;
        let gone = call.kernel.is_null() || call.params.is_null() || call.buffers.is_null();
        if gone || call.buffer_count > BUFFERS_MAX as u64 {
            return Err(unknown());
        }
        // SAFETY: each is there, and so long as the call says.
        let (name, params, buffers) = unsafe {
            let bytes = |at, count: u64| core::slice::from_raw_parts(at, count as usize);
            let name = bytes(call.kernel.cast::<u8>(), call.kernel_bytes);
            let params = bytes(call.params.cast::<u8>(), call.params_bytes);
            let buffers = core::slice::from_raw_parts(call.buffers, call.buffer_count as usize);
            (name, params, buffers)
        };
        let mut addresses = [Address { at: 0, bytes: 0 }; BUFFERS_MAX];
        for (to, from) in addresses.iter_mut().zip(buffers) {
            *to = Address { at: from.address, bytes: from.bytes };
        }
        let name = core::str::from_utf8(name).map_err(|_| unknown())?;
        let command = Command::raw(name, params, &addresses[..buffers.len()]);
        let command = command.ok_or_else(unknown)?;
        // Once more, now on addresses: these show how memory is aligned.
        command.check_shape()?;
        Ok(Self { call, params, buffers, command })
    }
}

unsafe extern "C" fn needs<D: Driver>(
    device: *mut pwp_device,
    call: *const pwp_call,
    workspace_bytes: *mut u64,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || {
        // SAFETY: as the header says of calls.
        let Call { call, buffers, command, .. } = unsafe { Call::new(call)? };
        let device = held!(device => D);
        let beside = [
            ("fault", call.fault, size_of::<params::Fault>() as u64),
            ("workspace", call.workspace, call.workspace_bytes),
        ];
        let named = command.fields().iter().zip(buffers);
        let named = named.map(|(field, buffer)| (*field, buffer.address, buffer.bytes));
        for (field, address, bytes) in beside.into_iter().chain(named) {
            if address != 0 && address != PWP_ANYWHERE {
                let owned = device.owns(address, bytes);
                owned.map_err(|fault| Error::new(command.kernel(), field, fault))?;
            }
        }
        let launches = device.lower(&command)?;
        // SAFETY: the host gives a place for the number.
        unsafe { workspace_bytes.write(launches.workspace_bytes) };
        Ok(())
    })
}

unsafe extern "C" fn launch<D: Driver>(
    device: *mut pwp_device,
    stream: *mut pwp_stream,
    call: *const pwp_call,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || {
        // SAFETY: as the header says of calls.
        let Call { call, params, buffers, command } = unsafe { Call::new(call)? };
        let (device, stream) = (held!(device => D), held!(stream => D::Stream));
        let launches = device.lower(&command)?;
        let (expected, got) = (launches.workspace_bytes, call.workspace_bytes);
        if got < expected {
            return Err(Error::new(command.kernel(), "workspace", Fault::Bytes { expected, got }));
        }
        let addresses = buffers.iter().map(|buffer| buffer.address);
        let mut arguments = Arguments::new(call, params, addresses);
        launches
            .iter()
            .try_for_each(|launch| device.launch(stream, launch, arguments.tell(launch.told)))
    })
}

unsafe extern "C" fn graph_begin<D: Driver>(
    device: *mut pwp_device,
    stream: *mut pwp_stream,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || held!(device => D).graph_begin(held!(stream => D::Stream)))
}

unsafe extern "C" fn graph_end<D: Driver>(
    device: *mut pwp_device,
    stream: *mut pwp_stream,
    graph: *mut *mut pwp_graph,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || give!(held!(device => D).graph_end(held!(stream => D::Stream))? => graph))
}

unsafe extern "C" fn graph_launch<D: Driver>(
    device: *mut pwp_device,
    stream: *mut pwp_stream,
    graph: *mut pwp_graph,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || {
        held!(device => D).graph_launch(held!(stream => D::Stream), held!(graph => D::Graph))
    })
}

unsafe extern "C" fn event_open<D: Driver>(
    device: *mut pwp_device,
    event: *mut *mut pwp_event,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || give!(held!(device => D).event()? => event))
}

unsafe extern "C" fn event_record<D: Driver>(
    device: *mut pwp_device,
    stream: *mut pwp_stream,
    event: *mut pwp_event,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || {
        held!(device => D).event_record(held!(stream => D::Stream), held!(event => D::Event))
    })
}

unsafe extern "C" fn event_done<D: Driver>(
    device: *mut pwp_device,
    event: *mut pwp_event,
    done: *mut u32,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || {
        let is_done = held!(device => D).event_done(held!(event => D::Event))?;
        // SAFETY: the host gives a place for the number.
        unsafe { done.write(is_done.into()) };
        Ok(())
    })
}

unsafe extern "C" fn event_wait<D: Driver>(
    device: *mut pwp_device,
    event: *mut pwp_event,
    error: *mut pwp_error,
) -> i32 {
    guarded(error, || held!(device => D).event_wait(held!(event => D::Event)))
}
