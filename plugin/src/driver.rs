//! What a plugin brings: its device, and what commands become on it.

use crate::Launches;
use core::ffi::c_void;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::device::Command;
use kernels_core::error::Fault;

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The card.
    pub name: String,
    /// The id of its arithmetic.
    pub numerics: String,
    /// All of its memory.
    pub memory_bytes: u64,
    /// What is left of it.
    pub free_bytes: u64,
}

/// A device behind the C table: one thread uses it at a time. Addresses are of its own
/// [`alloc`](Driver::alloc), or what an embedder has of the same device.
pub trait Driver: Sized + 'static {
    /// Work in its order.
    type Stream: 'static;
    /// Launches that were recorded together.
    type Graph: 'static;
    /// A point of a stream.
    type Event: 'static;

    /// The device of that number.
    fn open(ordinal: u32) -> Result<Self, Error>;
    /// What it is.
    fn about(&self) -> Result<About, Error>;
    /// What a command becomes, or the field that the device cannot serve. Pure.
    fn lower(&self, command: &Command<Raw>) -> Result<Launches, Error>;

    /// Refuses a range that the device cannot reach, as far as it can tell: memory of the
    /// host, or another device's. Asked where a call is recorded, or an embedder makes it.
    fn owns(&self, _address: u64, _bytes: u64) -> Result<(), Fault> {
        Ok(())
    }

    /// Zeroed memory.
    fn alloc(&mut self, bytes: u64) -> Result<u64, Error>;
    /// Gives it back.
    fn free(&mut self, address: u64);
    /// Memory of the host that the device copies from and to.
    fn host_alloc(&mut self, bytes: u64) -> Result<*mut c_void, Error>;
    /// Gives it back.
    fn host_free(&mut self, host: *mut c_void);

    /// A stream of the host's, or the one that [`PWP_STREAM_DEFAULT`](crate::PWP_STREAM_DEFAULT)
    /// asks for; one of its own where that is null.
    fn stream(&mut self, native: *mut c_void) -> Result<Self::Stream, Error>;
    /// Enqueues a copy to the device.
    ///
    /// # Safety
    ///
    /// `host` is of `host_alloc` and stays as it is until the copy is done.
    unsafe fn write(
        &mut self,
        stream: &mut Self::Stream,
        address: u64,
        host: *const c_void,
        bytes: u64,
    ) -> Result<(), Error>;
    /// Enqueues a copy from the device.
    ///
    /// # Safety
    ///
    /// `host` is of `host_alloc` and nobody's until the copy is done.
    unsafe fn read(
        &mut self,
        stream: &mut Self::Stream,
        address: u64,
        host: *mut c_void,
        bytes: u64,
    ) -> Result<(), Error>;
    /// Enqueues zeros.
    fn zero(&mut self, stream: &mut Self::Stream, address: u64, bytes: u64) -> Result<(), Error>;
    /// Enqueues a launch, whose kernel takes `arguments`.
    fn launch(
        &mut self,
        stream: &mut Self::Stream,
        launch: &crate::Launch,
        arguments: &[u8],
    ) -> Result<(), Error>;

    /// From here on launches on the stream are recorded.
    fn graph_begin(&mut self, stream: &mut Self::Stream) -> Result<(), Error>;
    /// Those recorded, as a graph. The stream records no more, whatever comes of it.
    fn graph_end(&mut self, stream: &mut Self::Stream) -> Result<Self::Graph, Error>;
    /// Enqueues a graph.
    fn graph_launch(
        &mut self,
        stream: &mut Self::Stream,
        graph: &mut Self::Graph,
    ) -> Result<(), Error>;

    /// A point that no stream has.
    fn event(&mut self) -> Result<Self::Event, Error>;
    /// It is here now.
    fn event_record(
        &mut self,
        stream: &mut Self::Stream,
        event: &mut Self::Event,
    ) -> Result<(), Error>;
    /// Whether all before it is done.
    fn event_done(&mut self, event: &Self::Event) -> Result<bool, Error>;
    /// Waits until it is.
    fn event_wait(&mut self, event: &Self::Event) -> Result<(), Error>;
}
