//! A plugin's C table as Rust: each thing of the device is closed when it is dropped, and
//! each error has kernel and field again.

use bytemuck::Zeroable;
use kernels_core::Error;
use kernels_core::device::{BUFFERS_MAX, Command, Slice};
use kernels_core::error::Fault;
use kernels_core::params;
use plugin::{
    About, pwp_about, pwp_buffer, pwp_call, pwp_device, pwp_error, pwp_event, pwp_graph,
    pwp_stream, pwp_table,
};
use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::Arc;

/// An open device. All that it made is used by the thread that uses it.
pub struct Device {
    open: Arc<Open>,
    /// One thread at a time.
    _not_sync: PhantomData<Cell<()>>,
}

/// What everything of a device holds: it is closed after the last of them.
struct Open {
    table: &'static pwp_table,
    device: *mut pwp_device,
}

// SAFETY: the table says that one thread at a time uses a device; all who hold an `Open` are
// parts of one `Plugin`, which is used through `&mut` or by one thread (it is not `Sync`), or
// of one `Embedded`, which has them behind a lock.
unsafe impl Send for Open {}
// SAFETY: as above.
unsafe impl Sync for Open {}

/// Calls a function of the table; what it refuses is an [`Error`] of that kernel.
macro_rules! call {
    ($open:expr, $kernel:expr, $function:ident($($argument:expr),*)) => {{
        let (open, mut error) = (&*$open, pwp_error::default());
        let function = open.table.$function.expect("a table of this build is whole");
        // SAFETY: the arguments are as the header says: pointers of this table's own, or to
        // what lives until the function returns.
        match unsafe { function(open.device, $($argument,)* &mut error) } {
            0 => Ok(()),
            _ => Err(plugin::told($kernel, &error)),
        }
    }};
}

/// Calls a function that cannot fail.
macro_rules! end {
    ($open:expr, $function:ident($($argument:expr),*)) => {{
        let function = $open.table.$function.expect("a table of this build is whole");
        // SAFETY: what is given back is of this table, and given back once: by its `drop`.
        unsafe { function($open.device, $($argument),*) }
    }};
}

impl Drop for Open {
    fn drop(&mut self) {
        if !self.device.is_null() {
            let close = self.table.close.expect("a table of this build is whole");
            // SAFETY: it is of `open`, and whoever held something of it is gone.
            unsafe { close(self.device) };
        }
    }
}

/// A stream of a device.
pub struct Stream {
    open: Arc<Open>,
    stream: *mut pwp_stream,
    /// Where `finish` waits.
    event: Event,
}

/// Memory of a device.
pub struct Held {
    open: Arc<Open>,
    address: u64,
}

/// Memory of the host that the device copies from and to.
pub struct Host {
    open: Arc<Open>,
    host: *mut c_void,
    bytes: u64,
}

/// Launches that were recorded together.
pub struct Graph {
    open: Arc<Open>,
    graph: *mut pwp_graph,
}

/// A point of a stream.
pub struct Event {
    open: Arc<Open>,
    event: *mut pwp_event,
}

macro_rules! ends {
    ($($type:ident $field:ident $function:ident;)*) => {$(
        impl Drop for $type {
            fn drop(&mut self) {
                end!(self.open, $function(self.$field));
            }
        }
        // SAFETY: as for `Open`.
        unsafe impl Send for $type {}
        // SAFETY: as for `Open`.
        unsafe impl Sync for $type {}
    )*};
}
ends! {
    Stream stream stream_close;
    Held address free;
    Host host host_free;
    Graph graph graph_close;
    Event event event_close;
}

impl Held {
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl Host {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn all(&self) -> &[u8] {
        // SAFETY: `host_alloc` gave so many bytes, and zeroed them when it did.
        unsafe { std::slice::from_raw_parts(self.host.cast(), self.bytes as usize) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `&mut self` is the only way to them.
        unsafe { std::slice::from_raw_parts_mut(self.host.cast(), self.bytes as usize) }
    }

    /// Where a part begins.
    fn at(&self, part: &Range<u64>) -> *mut c_void {
        assert!(part.start <= part.end && part.end <= self.bytes, "a part of the memory");
        self.host.wrapping_byte_add(part.start as usize)
    }
}

/// A call's parts, for as long as C looks at them. It allocates nothing.
pub struct Call<'a> {
    kernel: &'static str,
    params: &'a [u8],
    buffers: [pwp_buffer; BUFFERS_MAX],
    count: usize,
    pub workspace: (u64, u64),
    pub fault: u64,
    pub number: u32,
}

impl<'a> Call<'a> {
    /// Of a command, each of whose slices lies at the address that is told.
    pub fn new(
        command: &'a Command,
        address: impl Fn(Slice) -> Result<u64, Fault>,
    ) -> Result<Self, Error> {
        let mut buffers = [pwp_buffer { address: 0, bytes: 0 }; BUFFERS_MAX];
        let (mut count, mut outcome) = (0, Ok(()));
        command.buffers(|field, buffer| {
            if let Some((_, slice)) = buffer {
                match address(slice) {
                    Ok(address) => buffers[count] = pwp_buffer { address, bytes: slice.bytes },
                    Err(fault) => outcome = Err(Error::new(command.kernel(), field, fault)),
                }
            }
            count += 1;
        });
        outcome?;
        let (kernel, params) = (command.kernel(), command.params());
        Ok(Self { kernel, params, buffers, count, workspace: (0, 0), fault: 0, number: 0 })
    }

    fn of_c(&self) -> pwp_call {
        pwp_call {
            kernel: self.kernel.as_ptr().cast(),
            params: self.params.as_ptr().cast(),
            buffers: self.buffers.as_ptr(),
            kernel_bytes: self.kernel.len() as u64,
            params_bytes: self.params.len() as u64,
            buffer_count: self.count as u64,
            workspace: self.workspace.0,
            workspace_bytes: self.workspace.1,
            fault: self.fault,
            command: self.number,
            reserved: 0,
        }
    }
}

impl Device {
    /// The device of that number behind a table.
    pub fn open(table: &'static pwp_table, ordinal: u32) -> Result<Self, Error> {
        let open = table.open.expect("a table of this build is whole");
        let mut opened = Open { table, device: null_mut() };
        let mut error = pwp_error::default();
        // SAFETY: the places are this function's own.
        match unsafe { open(ordinal, &mut opened.device, &mut error) } {
            0 => Ok(Self { open: Arc::new(opened), _not_sync: PhantomData }),
            _ => {
                opened.device = null_mut();
                Err(plugin::told("device", &error))
            }
        }
    }

    pub fn about(&self) -> Result<About, Error> {
        let mut about =
            pwp_about { memory_bytes: 0, free_bytes: 0, name: [0; 96], numerics: [0; 32] };
        call!(self.open, "device", about(&mut about))?;
        Ok(About {
            name: plugin::read(&about.name),
            numerics: plugin::read(&about.numerics),
            memory_bytes: about.memory_bytes,
            free_bytes: about.free_bytes,
        })
    }

    /// Zeroed memory.
    pub fn alloc(&self, bytes: u64) -> Result<Held, Error> {
        let mut address = 0;
        call!(self.open, "device", alloc(bytes.max(1), &mut address))?;
        Ok(Held { open: self.open.clone(), address })
    }

    /// Zeroed memory of the host.
    pub fn host(&self, bytes: u64) -> Result<Host, Error> {
        let (bytes, mut host) = (bytes.max(1), null_mut());
        call!(self.open, "device", host_alloc(bytes, &mut host))?;
        let mut host = Host { open: self.open.clone(), host, bytes };
        host.bytes_mut().fill(0);
        Ok(host)
    }

    /// A stream of the device's own.
    pub fn stream(&self) -> Result<Stream, Error> {
        self.stream_of(null_mut())
    }

    /// A stream of the host's, as the table takes it.
    pub fn stream_of(&self, native: *mut c_void) -> Result<Stream, Error> {
        let (event, mut stream) = (self.event()?, null_mut());
        call!(self.open, "device", stream_open(native, &mut stream))?;
        Ok(Stream { open: self.open.clone(), stream, event })
    }

    pub fn event(&self) -> Result<Event, Error> {
        let mut event = null_mut();
        call!(self.open, "device", event_open(&mut event))?;
        Ok(Event { open: self.open.clone(), event })
    }

    /// Enqueues a copy of a part of `host`, which stays as it is until it is done.
    pub fn write(
        &self,
        stream: &mut Stream,
        address: u64,
        host: &Host,
        part: Range<u64>,
    ) -> Result<(), Error> {
        let (from, bytes) = (host.at(&part), part.end - part.start);
        call!(self.open, "device", write(stream.stream, address, from, bytes))
    }

    /// Enqueues a copy to a part of `host`, which nobody looks at until it is done.
    pub fn read(
        &self,
        stream: &mut Stream,
        address: u64,
        host: &mut Host,
        part: Range<u64>,
    ) -> Result<(), Error> {
        let (to, bytes) = (host.at(&part), part.end - part.start);
        call!(self.open, "device", read(stream.stream, address, to, bytes))
    }

    /// Enqueues zeros.
    pub fn zero(&self, stream: &mut Stream, address: u64, bytes: u64) -> Result<(), Error> {
        call!(self.open, "device", zero(stream.stream, address, bytes))
    }

    /// Waits for all that was enqueued.
    pub fn finish(&self, stream: &mut Stream) -> Result<(), Error> {
        call!(self.open, "device", event_record(stream.stream, stream.event.event))?;
        self.wait(&stream.event)
    }

    /// The scratch that a call takes, or the field that the device cannot serve.
    pub fn needs(&self, call: &Call<'_>) -> Result<u64, Error> {
        let mut bytes = 0;
        call!(self.open, call.kernel, needs(&call.of_c(), &mut bytes))?;
        Ok(bytes)
    }

    /// Enqueues a call.
    pub fn launch(&self, stream: &mut Stream, call: &Call<'_>) -> Result<(), Error> {
        call!(self.open, call.kernel, launch(stream.stream, &call.of_c()))
    }

    /// Launches between this and its end are recorded.
    pub fn graph_begin(&self, stream: &mut Stream) -> Result<(), Error> {
        call!(self.open, "device", graph_begin(stream.stream))
    }

    pub fn graph_end(&self, stream: &mut Stream) -> Result<Graph, Error> {
        let mut graph = null_mut();
        call!(self.open, "device", graph_end(stream.stream, &mut graph))?;
        Ok(Graph { open: self.open.clone(), graph })
    }

    pub fn graph_launch(&self, stream: &mut Stream, graph: &Graph) -> Result<(), Error> {
        call!(self.open, "device", graph_launch(stream.stream, graph.graph))
    }

    pub fn record(&self, stream: &mut Stream, event: &Event) -> Result<(), Error> {
        call!(self.open, "device", event_record(stream.stream, event.event))
    }

    pub fn done(&self, event: &Event) -> Result<bool, Error> {
        let mut done = 0;
        call!(self.open, "device", event_done(event.event, &mut done))?;
        Ok(done != 0)
    }

    pub fn wait(&self, event: &Event) -> Result<(), Error> {
        call!(self.open, "device", event_wait(event.event))
    }
}

/// Bytes of a program's fault.
pub const FAULT_BYTES: u64 = size_of::<params::Fault>() as u64;

/// The fault that these bytes tell, if they tell one.
pub fn fault(bytes: &[u8]) -> Option<params::Fault> {
    let mut fault = params::Fault::zeroed();
    bytemuck::bytes_of_mut(&mut fault).copy_from_slice(bytes);
    (fault.kind != 0).then_some(fault)
}

/// The refusal that a fault is, of a kernel with buffers of these names.
pub fn refusal(
    fault: &params::Fault,
    kernel: &'static str,
    fields: &'static [&'static str],
) -> Error {
    let field = fields.get(fault.field as usize).copied().unwrap_or("fault");
    let params::Fault { at, least, most, got, .. } = *fault;
    let fault = match fault.kind {
        params::FAULT_ELEMENT => Fault::Element { at, least, most, got },
        params::FAULT_REPEATED => Fault::Repeated { at, earlier: least as u64 },
        params::FAULT_NOT_FINITE => Fault::NotFiniteAt { at },
        params::FAULT_BELOW => Fault::BelowAt { at },
        params::FAULT_ABOVE => Fault::AboveAt { at },
        kind => Fault::Device { says: "a fault of a kind that no kernel has", code: kind.into() },
    };
    Error::new(kernel, field, fault)
}
