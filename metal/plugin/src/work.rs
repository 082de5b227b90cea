//! What work is enqueued on, recorded as and waited for: streams, graphs and events.
//!
//! A stream is a command queue. What is enqueued is encoded into one open command buffer, which
//! is committed where an event is recorded, and after so many launches: macOS ends one that
//! takes seconds. Buffers of a queue begin in the order of their commits, and dispatches of an
//! encoder run one after the other. Memory that kernels are told by address is named to each
//! encoder by `useResources`, which macOS has since 10.13: that keeps it where the GPU reaches
//! it, and as Metal tracks it, orders encoders that use the same, of one command buffer or two.
//! A residency set (macOS 15) would save naming it anew, and would order nothing.

use crate::failure;
use crate::kernels::{Kernels, Pipeline};
use crate::memory::Pieces;
use crate::sent::{Sent, State};
use kernels_core::Error;
use objc2::rc::Retained;
use objc2::runtime::ProtocolObject;
use objc2_metal::{
    MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandBufferStatus, MTLCommandEncoder,
    MTLCommandQueue, MTLComputeCommandEncoder, MTLDevice, MTLResource, MTLResourceUsage, MTLSize,
};
use plugin::Launch;
use std::ptr::NonNull;

/// An object of Metal's that is held.
pub type Held<T> = Retained<ProtocolObject<T>>;

/// Launches of a command buffer.
const LAUNCHES_MAX: u32 = 32;
/// Command buffers that a queue has not finished; one more would have to wait.
const BUFFERS_MAX: usize = 1024;
/// Threadgroup memory comes in multiples of so many bytes, and every entry takes some.
const SHARED_ALIGN: usize = 16;

/// Work in its order.
pub struct Stream {
    queue: Held<dyn MTLCommandQueue>,
    /// What is not committed yet.
    open: Option<Open>,
    /// Launches in it.
    launches: u32,
    sent: Sent<Held<dyn MTLCommandBuffer>>,
    recorded: Option<Graph>,
}

struct Open {
    commands: Held<dyn MTLCommandBuffer>,
    encoder: Encoder,
}

enum Encoder {
    /// The buffers were named when the pieces had changed so often.
    Compute {
        encoder: Held<dyn MTLComputeCommandEncoder>,
        named_at: u64,
    },
    Blit(Held<dyn MTLBlitCommandEncoder>),
}

/// Launches that were recorded together, to be encoded anew each time. An indirect command
/// buffer would save that, and is a later step: its commands take their arguments from a buffer.
pub type Graph = Vec<Recorded>;

/// A launch with its argument.
pub struct Recorded {
    launch: Launch,
    arguments: Vec<u8>,
}

/// What a kernel needs to be launched: the entries, and the buffers that it is told.
pub struct Place<'a> {
    pub kernels: &'a Kernels,
    pub pieces: &'a Pieces<Held<dyn MTLBuffer>>,
}

impl Stream {
    /// One of its own.
    pub fn own(device: &ProtocolObject<dyn MTLDevice>) -> Result<Self, Error> {
        let queue = device.newCommandQueueWithMaxCommandBufferCount(BUFFERS_MAX);
        let queue = queue.ok_or_else(|| failure::nothing("queue"))?;
        Ok(Self { queue, open: None, launches: 0, sent: Sent::default(), recorded: None })
    }

    /// From here on launches are recorded.
    pub fn begin(&mut self) {
        self.recorded = Some(Graph::new());
    }

    /// Those recorded, if that was begun.
    pub fn end(&mut self) -> Option<Graph> {
        self.recorded.take()
    }

    /// Enqueues a launch, or records it.
    pub fn launch(
        &mut self,
        place: &Place<'_>,
        launch: &Launch,
        arguments: &[u8],
    ) -> Result<(), Error> {
        if let Some(recorded) = &mut self.recorded {
            recorded.push(Recorded { launch: *launch, arguments: arguments.to_vec() });
            return Ok(());
        }
        let pipeline = place.kernels.pipeline(launch.entry);
        let encoder = self.compute(place.pieces)?;
        dispatch(encoder, pipeline, launch, arguments);
        self.launches += 1;
        if self.launches == LAUNCHES_MAX {
            self.commit();
        }
        Ok(())
    }

    /// Enqueues a graph.
    pub fn launch_all(&mut self, place: &Place<'_>, graph: &Graph) -> Result<(), Error> {
        graph
            .iter()
            .try_for_each(|recorded| self.launch(place, &recorded.launch, &recorded.arguments))
    }

    /// The encoder of launches, which knows all pieces there are.
    fn compute(
        &mut self,
        pieces: &Pieces<Held<dyn MTLBuffer>>,
    ) -> Result<&ProtocolObject<dyn MTLComputeCommandEncoder>, Error> {
        if !matches!(self.open, Some(Open { encoder: Encoder::Compute { .. }, .. })) {
            let commands = self.commands()?;
            let Some(encoder) = commands.computeCommandEncoder() else {
                self.send(commands);
                return Err(failure::nothing("encoder"));
            };
            // None is named yet; pieces have changed at least once where there are any.
            let encoder = Encoder::Compute { encoder, named_at: 0 };
            self.open = Some(Open { commands, encoder });
        }
        let Some(Open { encoder: Encoder::Compute { encoder, named_at }, .. }) = &mut self.open
        else {
            unreachable!("it was opened above");
        };
        if *named_at != pieces.changes() {
            name_all(encoder, pieces);
            *named_at = pieces.changes();
        }
        Ok(encoder)
    }

    /// The encoder of copies.
    pub fn blit(&mut self) -> Result<&ProtocolObject<dyn MTLBlitCommandEncoder>, Error> {
        if !matches!(self.open, Some(Open { encoder: Encoder::Blit(_), .. })) {
            let commands = self.commands()?;
            let Some(encoder) = commands.blitCommandEncoder() else {
                self.send(commands);
                return Err(failure::nothing("encoder"));
            };
            self.open = Some(Open { commands, encoder: Encoder::Blit(encoder) });
        }
        match &self.open {
            Some(Open { encoder: Encoder::Blit(encoder), .. }) => Ok(encoder),
            _ => unreachable!("it was opened above"),
        }
    }

    /// The open command buffer, its encoder ended; or a new one.
    fn commands(&mut self) -> Result<Held<dyn MTLCommandBuffer>, Error> {
        match self.open.take() {
            Some(open) => Ok(open.ended()),
            None => self.queue.commandBuffer().ok_or_else(|| failure::nothing("command_buffer")),
        }
    }

    /// Sends what is open to the GPU.
    pub fn commit(&mut self) {
        if let Some(open) = self.open.take() {
            self.send(open.ended());
        }
    }

    /// Sends commands that no encoder is open for: what was enqueued before is done even where
    /// there is none for the next.
    fn send(&mut self, commands: Held<dyn MTLCommandBuffer>) {
        commands.commit();
        self.sent.push(commands, |commands| state(commands));
        self.launches = 0;
    }

    /// Whether nothing is open or under way: then the CPU may do what is next.
    pub fn is_idle(&self) -> bool {
        self.open.is_none() && self.sent.state(|commands| state(commands)) != State::UnderWay
    }

    /// Waits for all that was enqueued.
    pub fn wait(&mut self) -> Result<(), Error> {
        self.commit();
        wait(&self.sent)
    }
}

impl Drop for Stream {
    // What was enqueued is done all the same; and Metal aborts over an encoder that was not ended.
    fn drop(&mut self) {
        self.commit();
    }
}

impl Open {
    fn ended(self) -> Held<dyn MTLCommandBuffer> {
        match &self.encoder {
            Encoder::Compute { encoder, .. } => encoder.endEncoding(),
            Encoder::Blit(encoder) => encoder.endEncoding(),
        }
        self.commands
    }
}

/// Names every buffer to the encoder. Which of them a launch writes is not known here.
fn name_all(
    encoder: &ProtocolObject<dyn MTLComputeCommandEncoder>,
    pieces: &Pieces<Held<dyn MTLBuffer>>,
) {
    let name = |buffer: &Held<dyn MTLBuffer>| {
        let resource: &ProtocolObject<dyn MTLResource> = ProtocolObject::from_ref(&**buffer);
        NonNull::from(resource)
    };
    let mut names: Vec<_> = pieces.iter().map(name).collect();
    if let Some(first) = NonNull::new(names.as_mut_ptr()).filter(|_| !names.is_empty()) {
        let usage = MTLResourceUsage::Read | MTLResourceUsage::Write;
        // SAFETY: so many names begin there, each of a buffer that `pieces` holds.
        unsafe { encoder.useResources_count_usage(first, names.len(), usage) };
    }
}

fn dispatch(
    encoder: &ProtocolObject<dyn MTLComputeCommandEncoder>,
    pipeline: &Pipeline,
    launch: &Launch,
    arguments: &[u8],
) {
    let shared = (launch.shared_bytes as usize).max(1).next_multiple_of(SHARED_ALIGN);
    let [width, height, depth] = launch.grid.map(|blocks| blocks as usize);
    let grid = MTLSize { width, height, depth };
    let block = MTLSize { width: launch.block as usize, height: 1, depth: 1 };
    encoder.setComputePipelineState(pipeline);
    // SAFETY: Metal copies the bytes before it returns; every entry takes its argument and its
    // threadgroup memory at 0; addresses in the argument are of buffers named to the encoder.
    unsafe {
        encoder.setBytes_length_atIndex(NonNull::from(arguments).cast(), arguments.len(), 0);
        encoder.setThreadgroupMemoryLength_atIndex(shared, 0);
    }
    encoder.dispatchThreadgroups_threadsPerThreadgroup(grid, block);
}

/// A point of a stream: what was sent there since the one before.
#[derive(Default)]
pub struct Event {
    sent: Sent<Held<dyn MTLCommandBuffer>>,
}

impl Event {
    /// It is here now.
    pub fn record(&mut self, stream: &mut Stream) {
        stream.commit();
        self.sent = stream.sent.mark(|commands| state(commands));
    }

    /// Whether all before it is done.
    pub fn is_done(&self) -> Result<bool, Error> {
        match self.sent.state(|commands| state(commands)) {
            State::UnderWay => Ok(false),
            State::Done => Ok(true),
            State::Failed(error) => Err(error),
        }
    }

    /// Waits until it is.
    pub fn wait(&self) -> Result<(), Error> {
        wait(&self.sent)
    }
}

/// Waits until all have ended.
fn wait(sent: &Sent<Held<dyn MTLCommandBuffer>>) -> Result<(), Error> {
    sent.iter().for_each(|commands| commands.waitUntilCompleted());
    match sent.state(|commands| state(commands)) {
        State::Failed(error) => Err(error),
        _ => Ok(()),
    }
}

fn state(commands: &ProtocolObject<dyn MTLCommandBuffer>) -> State {
    match commands.status() {
        MTLCommandBufferStatus::Completed => State::Done,
        MTLCommandBufferStatus::Error => State::Failed(failure::of_commands(commands)),
        _ => State::UnderWay,
    }
}
