//! A card: its context, its kernels and its memory. Launches allocate nothing and wait for
//! nothing, so that they may be recorded.

use crate::context::Context;
use crate::driver::{Failure, call};
use crate::kernels::{COMPILED_BY, Kernels};
use crate::refusal::{self, Place};
use crate::work::{Event, Graph, Stream};
use cust::sys::{CUdevice, CUdevice_attribute, CUpointer_attribute};
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::device::Command;
use kernels_core::error::Fault;
use plugin::{About, Driver, Launch, Launches};
use std::ffi::c_void;
use std::ptr::{from_mut, null_mut};
use std::sync::Arc;

/// A card. Fields are in the order in which they go.
pub struct Cuda {
    kernels: Kernels,
    /// Where memory is zeroed.
    stream: Stream,
    facts: cuda::Facts,
    capability: i32,
    device: CUdevice,
    context: Arc<Context>,
}

impl Cuda {
    fn attribute(device: CUdevice, attribute: CUdevice_attribute) -> Result<i32, Failure> {
        let mut value = 0;
        call!(cuDeviceGetAttribute(&mut value, attribute, device))?;
        Ok(value)
    }

    /// What the driver says of an address; nothing where it does not know it.
    fn place(&self, address: u64) -> Option<Place> {
        use CUpointer_attribute::{
            CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL as ORDINAL,
            CU_POINTER_ATTRIBUTE_MEMORY_TYPE as KIND,
        };
        let (mut kind, mut ordinal) = (0u32, 0i32);
        call!(cuPointerGetAttribute(from_mut(&mut kind).cast(), KIND, address)).ok()?;
        call!(cuPointerGetAttribute(from_mut(&mut ordinal).cast(), ORDINAL, address)).ok()?;
        Some(Place { kind, ordinal })
    }
}

impl Driver for Cuda {
    type Stream = Stream;
    type Graph = Graph;
    type Event = Event;

    fn open(ordinal: u32) -> Result<Self, Error> {
        use CUdevice_attribute::*;
        let (mut version, mut count, mut device) = (0, 0, 0);
        call!(cuInit(0))?;
        call!(cuDriverGetVersion(&mut version))?;
        refusal::of_driver(version, COMPILED_BY)?;
        call!(cuDeviceGetCount(&mut count))?;
        refusal::of_ordinal(ordinal, count)?;
        call!(cuDeviceGet(&mut device, ordinal as i32))?;
        let major = Self::attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = Self::attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let capability = major * 10 + minor;
        refusal::of_capability(capability)?;
        let multiprocessors = Self::attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared = CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        let facts = cuda::Facts {
            cores: multiprocessors as u32,
            shared_bytes_max: Self::attribute(device, shared)? as u32,
        };
        let context = Arc::new(Context::of(device)?);
        let kernels = Kernels::load(&context, facts.shared_bytes_max)?;
        let stream = Stream::own(&context)?;
        Ok(Self { kernels, stream, facts, capability, device, context })
    }

    fn about(&self) -> Result<About, Error> {
        let (mut name, mut free, mut total) = ([0; 96], 0, 0);
        let _entered = self.context.enter()?;
        call!(cuDeviceGetName(name.as_mut_ptr(), name.len() as i32, self.device))?;
        call!(cuMemGetInfo_v2(&mut free, &mut total))?;
        Ok(About {
            name: plugin::read(&name),
            numerics: cuda::numerics(self.capability as u32),
            memory_bytes: total as u64,
            free_bytes: free as u64,
        })
    }

    fn lower(&self, command: &Command<Raw>) -> Result<Launches, Error> {
        cuda::lower(command, &self.facts)
    }

    fn owns(&self, address: u64, bytes: u64) -> Result<(), Fault> {
        if bytes == 0 {
            // It may lie behind the last byte of a piece.
            return Ok(());
        }
        let entered = self.context.enter();
        let _entered = entered.map_err(|failure| Error::from(failure).fault)?;
        // Memory that is mapped in pieces has no one range: its two ends are looked at.
        let ends = [address, address.saturating_add(bytes.saturating_sub(1))];
        ends.into_iter().try_for_each(|at| refusal::of_place(self.place(at), at, self.device))
    }

    fn alloc(&mut self, bytes: u64) -> Result<u64, Error> {
        let _entered = self.context.enter()?;
        let (mut address, length) = (0, bytes.max(1) as usize);
        let made = call!(cuMemAlloc_v2(&mut address, length));
        made.map_err(|failure| failure.of_bytes(bytes))?;
        let stream = self.stream.raw();
        let zeroed = call!(cuMemsetD8Async(address, 0, length, stream))
            .and_then(|()| call!(cuStreamSynchronize(stream)));
        if zeroed.is_err() {
            let _ = call!(cuMemFree_v2(address));
        }
        zeroed?;
        Ok(address)
    }

    fn free(&mut self, address: u64) {
        self.context.destroy(|| call!(cuMemFree_v2(address)));
    }

    fn host_alloc(&mut self, bytes: u64) -> Result<*mut c_void, Error> {
        let _entered = self.context.enter()?;
        let mut host = null_mut();
        let made = call!(cuMemHostAlloc(&mut host, bytes.max(1) as usize, 0));
        made.map_err(|failure| failure.of_bytes(bytes))?;
        Ok(host)
    }

    fn host_free(&mut self, host: *mut c_void) {
        self.context.destroy(|| call!(cuMemFreeHost(host)));
    }

    fn stream(&mut self, native: *mut c_void) -> Result<Stream, Error> {
        match native.is_null() {
            true => Stream::own(&self.context),
            false => Stream::of_host(&self.context, native),
        }
    }

    unsafe fn write(
        &mut self,
        stream: &mut Stream,
        address: u64,
        host: *const c_void,
        bytes: u64,
    ) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        Ok(call!(cuMemcpyHtoDAsync_v2(address, host, bytes as usize, stream.raw()))?)
    }

    unsafe fn read(
        &mut self,
        stream: &mut Stream,
        address: u64,
        host: *mut c_void,
        bytes: u64,
    ) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        Ok(call!(cuMemcpyDtoHAsync_v2(host, address, bytes as usize, stream.raw()))?)
    }

    fn zero(&mut self, stream: &mut Stream, address: u64, bytes: u64) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        Ok(call!(cuMemsetD8Async(address, 0, bytes as usize, stream.raw()))?)
    }

    fn launch(
        &mut self,
        stream: &mut Stream,
        launch: &Launch,
        arguments: &[u8],
    ) -> Result<(), Error> {
        let function = self.kernels.function(launch.entry);
        let ([x, y, z], block) = (launch.grid, launch.block);
        // A kernel's one parameter, which the driver copies before it returns.
        let mut parameters = [arguments.as_ptr().cast_mut().cast::<c_void>()];
        let (parameters, none) = (parameters.as_mut_ptr(), null_mut());
        let (shared, stream) = (launch.shared_bytes, stream.raw());
        let _entered = self.context.enter()?;
        call!(cuLaunchKernel(function, x, y, z, block, 1, 1, shared, stream, parameters, none))
            .map_err(|failure| failure.of(launch.entry))
    }

    fn graph_begin(&mut self, stream: &mut Stream) -> Result<(), Error> {
        stream.begin()
    }

    fn graph_end(&mut self, stream: &mut Stream) -> Result<Graph, Error> {
        stream.end()
    }

    fn graph_launch(&mut self, stream: &mut Stream, graph: &mut Graph) -> Result<(), Error> {
        graph.launch(stream)
    }

    fn event(&mut self) -> Result<Event, Error> {
        Event::new(&self.context)
    }

    fn event_record(&mut self, stream: &mut Stream, event: &mut Event) -> Result<(), Error> {
        event.record(stream)
    }

    fn event_done(&mut self, event: &Event) -> Result<bool, Error> {
        event.is_done()
    }

    fn event_wait(&mut self, event: &Event) -> Result<(), Error> {
        event.wait()
    }
}

#[cfg(test)]
mod tests {
    use super::Cuda;
    use kernels_core::error::Fault;
    use plugin::Driver;

    #[test]
    fn where_no_device_is_that_is_what_is_said() {
        let error = Cuda::open(0).err().expect("the stand-in for the driver has none");
        assert!(matches!(error.fault, Fault::Device { code: 100, .. }), "{error}");
        assert!(error.to_string().contains("no CUDA device is here"), "{error}");
    }
}
