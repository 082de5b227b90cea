//! A GPU of a Mac: its kernels and its memory, which the CPU shares. What is next on an idle
//! stream the CPU copies itself, and what no blit can, once the stream has come to it; the rest
//! is a blit in the stream's order.

use crate::kernels::Kernels;
use crate::memory::{Found, Pieces, is_blit};
use crate::refusal;
use crate::work::{Event, Graph, Held, Place, Stream};
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::device::Command;
use kernels_core::error::Fault;
use objc2::rc::autoreleasepool;
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSProcessInfo, NSRange};
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCopyAllDevices, MTLDevice, MTLGPUFamily,
    MTLResourceOptions,
};
use plugin::{About, Driver, Launch, Launches};
use std::ffi::c_void;

/// Metal does not say how many cores a GPU has. This decides only among how many threadgroups
/// a loop over work is spread: as many as the larger ones of Apple's have, more than the others.
const CORES: u32 = 40;

/// A GPU.
pub struct Metal {
    kernels: Kernels,
    /// Memory of the device, by the address that kernels are told.
    pieces: Pieces<Held<dyn MTLBuffer>>,
    /// Memory of the host, by the address of its contents.
    host: Pieces<Held<dyn MTLBuffer>>,
    facts: metal::Facts,
    device: Held<dyn MTLDevice>,
}

/// A copy or a fill within a stream.
struct Move<'a> {
    /// What is copied; where there is none, zeros are.
    from: Option<Found<'a, Held<dyn MTLBuffer>>>,
    to: Found<'a, Held<dyn MTLBuffer>>,
    bytes: usize,
}

impl Metal {
    fn buffer(&self, bytes: u64) -> Result<Held<dyn MTLBuffer>, Error> {
        let refused = Error::new("device", "bytes", Fault::OutOfMemory { bytes });
        let length = usize::try_from(bytes.max(1)).map_err(|_| refused)?;
        if length > self.device.maxBufferLength() {
            return Err(refused);
        }
        let shared = MTLResourceOptions::StorageModeShared;
        let buffer = self.device.newBufferWithLength_options(length, shared).ok_or(refused)?;
        // SAFETY: it is as long, and nobody else has it yet.
        unsafe { buffer.contents().cast::<u8>().write_bytes(0, length) };
        Ok(buffer)
    }

    fn place(&self) -> Place<'_> {
        Place { kernels: &self.kernels, pieces: &self.pieces }
    }
}

impl Driver for Metal {
    type Stream = Stream;
    type Graph = Graph;
    type Event = Event;

    fn open(ordinal: u32) -> Result<Self, Error> {
        autoreleasepool(|_| {
            let system = NSProcessInfo::processInfo().operatingSystemVersion();
            refusal::of_system(system.majorVersion)?;
            let devices = MTLCopyAllDevices();
            refusal::of_ordinal(ordinal, devices.len())?;
            let device = devices.objectAtIndex(ordinal as usize);
            refusal::of_family(device.supportsFamily(MTLGPUFamily::Metal3))?;
            let kernels = Kernels::load(&device)?;
            let shared_bytes_max = device.maxThreadgroupMemoryLength() as u32;
            let facts = metal::Facts { cores: CORES, shared_bytes_max };
            let (pieces, host) = (Pieces::new(), Pieces::new());
            Ok(Self { kernels, pieces, host, facts, device })
        })
    }

    fn about(&self) -> Result<About, Error> {
        autoreleasepool(|_| {
            // The GPU may use more of the Mac's memory, but not fast.
            let memory_bytes = self.device.recommendedMaxWorkingSetSize();
            let taken = self.device.currentAllocatedSize() as u64;
            let name = self.device.name().to_string();
            Ok(About {
                numerics: metal::numerics(&name),
                name,
                memory_bytes,
                free_bytes: memory_bytes.saturating_sub(taken),
            })
        })
    }

    fn lower(&self, command: &Command<Raw>) -> Result<Launches, Error> {
        metal::lower(command, &self.facts)
    }

    fn owns(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        self.pieces.find(address, bytes).map(drop).map_err(|error| error.fault)
    }

    fn alloc(&mut self, bytes: u64) -> Result<u64, Error> {
        let buffer = autoreleasepool(|_| self.buffer(bytes))?;
        let address = buffer.gpuAddress();
        self.pieces.insert(address, bytes, buffer);
        Ok(address)
    }

    fn free(&mut self, address: u64) {
        autoreleasepool(|_| self.pieces.remove(address));
    }

    fn host_alloc(&mut self, bytes: u64) -> Result<*mut c_void, Error> {
        let buffer = autoreleasepool(|_| self.buffer(bytes))?;
        let contents = buffer.contents().as_ptr();
        self.host.insert(contents.expose_provenance() as u64, bytes, buffer);
        Ok(contents)
    }

    fn host_free(&mut self, host: *mut c_void) {
        autoreleasepool(|_| self.host.remove(host.expose_provenance() as u64));
    }

    fn stream(&mut self, native: *mut c_void) -> Result<Stream, Error> {
        refusal::of_native(native.is_null())?;
        autoreleasepool(|_| Stream::own(&self.device))
    }

    unsafe fn write(
        &mut self,
        stream: &mut Stream,
        address: u64,
        host: *const c_void,
        bytes: u64,
    ) -> Result<(), Error> {
        let from = Some(self.host.find(host.expose_provenance() as u64, bytes)?);
        let to = self.pieces.find(address, bytes)?;
        Move { from, to, bytes: bytes as usize }.enqueue(stream)
    }

    unsafe fn read(
        &mut self,
        stream: &mut Stream,
        address: u64,
        host: *mut c_void,
        bytes: u64,
    ) -> Result<(), Error> {
        let from = Some(self.pieces.find(address, bytes)?);
        let to = self.host.find(host.expose_provenance() as u64, bytes)?;
        Move { from, to, bytes: bytes as usize }.enqueue(stream)
    }

    fn zero(&mut self, stream: &mut Stream, address: u64, bytes: u64) -> Result<(), Error> {
        let to = self.pieces.find(address, bytes)?;
        Move { from: None, to, bytes: bytes as usize }.enqueue(stream)
    }

    fn launch(
        &mut self,
        stream: &mut Stream,
        launch: &Launch,
        arguments: &[u8],
    ) -> Result<(), Error> {
        autoreleasepool(|_| stream.launch(&self.place(), launch, arguments))
    }

    fn graph_begin(&mut self, stream: &mut Stream) -> Result<(), Error> {
        stream.begin();
        Ok(())
    }

    fn graph_end(&mut self, stream: &mut Stream) -> Result<Graph, Error> {
        let fault = Fault::Device { says: "no graph was begun", code: 0 };
        stream.end().ok_or(Error::new("device", "graph", fault))
    }

    fn graph_launch(&mut self, stream: &mut Stream, graph: &mut Graph) -> Result<(), Error> {
        autoreleasepool(|_| stream.launch_all(&self.place(), graph))
    }

    fn event(&mut self) -> Result<Event, Error> {
        Ok(Event::default())
    }

    fn event_record(&mut self, stream: &mut Stream, event: &mut Event) -> Result<(), Error> {
        autoreleasepool(|_| event.record(stream));
        Ok(())
    }

    fn event_done(&mut self, event: &Event) -> Result<bool, Error> {
        autoreleasepool(|_| event.is_done())
    }

    fn event_wait(&mut self, event: &Event) -> Result<(), Error> {
        autoreleasepool(|_| event.wait())
    }
}

impl Move<'_> {
    /// Does it in the stream's order.
    fn enqueue(&self, stream: &mut Stream) -> Result<(), Error> {
        if self.bytes == 0 {
            return Ok(());
        }
        autoreleasepool(|_| {
            if !stream.is_idle() {
                let offsets = [self.from.map_or(0, |from| from.offset), self.to.offset];
                if is_blit(offsets, self.bytes) {
                    self.blit(stream.blit()?);
                    return Ok(());
                }
                stream.wait()?;
            }
            self.at_once();
            Ok(())
        })
    }

    fn blit(&self, encoder: &ProtocolObject<dyn MTLBlitCommandEncoder>) {
        let (to, bytes) = (self.to, self.bytes);
        match self.from {
            // SAFETY: both ranges were found within their buffers.
            Some(from) => unsafe {
                encoder.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                    from.buffer,
                    from.offset,
                    to.buffer,
                    to.offset,
                    bytes,
                );
            },
            None => encoder.fillBuffer_range_value(to.buffer, NSRange::new(to.offset, bytes), 0),
        }
    }

    fn at_once(&self) {
        // SAFETY: both ranges were found within their buffers, which are two; and no work that
        // was enqueued before is left to use them.
        unsafe {
            let to = contents(self.to);
            match self.from {
                Some(from) => to.copy_from_nonoverlapping(contents(from), self.bytes),
                None => to.write_bytes(0, self.bytes),
            }
        }
    }
}

/// Where the CPU finds it.
///
/// # Safety
///
/// It was found within its buffer.
unsafe fn contents(found: Found<'_, Held<dyn MTLBuffer>>) -> *mut u8 {
    // SAFETY: as the caller says.
    unsafe { found.buffer.contents().cast::<u8>().as_ptr().add(found.offset) }
}
