//! A backend that remembers how its device failed: one that did computes nothing any more.

use kernels_core::device::{
    Backend, Buffer, Command, DeviceMemory, HostBytes, Launch, Needs, Program, Slice, Ticket,
};
use kernels_core::error::{Error, Fault};

/// Another backend, and the first failure of its device.
pub(super) struct Watched {
    inner: Box<dyn Backend>,
    failure: Option<Error>,
}

impl Watched {
    pub fn new(inner: Box<dyn Backend>) -> Self {
        Self { inner, failure: None }
    }

    /// Itself, as others take it.
    pub fn as_mut(&mut self) -> &mut dyn Backend {
        self
    }

    /// How its device failed, if it did.
    pub fn failure(&self) -> Option<Error> {
        self.failure
    }

    fn watch<T>(&mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        if let Err(error @ Error { fault: Fault::Device { .. }, .. }) = &outcome {
            self.failure.get_or_insert(*error);
        }
        outcome
    }
}

/// What asks a device to do something is watched. What a device does not have, or has no memory
/// for, is no failure: it goes on.
impl Backend for Watched {
    fn numerics(&self) -> &str {
        self.inner.numerics()
    }

    fn memory(&self) -> Result<Option<DeviceMemory>, Error> {
        self.inner.memory()
    }

    fn query(&self, command: &Command) -> Result<Needs, Error> {
        self.inner.query(command)
    }

    fn alloc(&mut self, bytes: u64) -> Result<Buffer, Error> {
        let outcome = self.inner.alloc(bytes);
        self.watch(outcome)
    }

    fn import(&mut self, bytes: HostBytes) -> Result<Buffer, Error> {
        let outcome = self.inner.import(bytes);
        self.watch(outcome)
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), Error> {
        self.inner.release(buffer)
    }

    fn write(&mut self, slice: Slice, bytes: &[u8]) -> Result<(), Error> {
        let outcome = self.inner.write(slice, bytes);
        self.watch(outcome)
    }

    fn record(&mut self, commands: &[Command]) -> Result<Program, Error> {
        let outcome = self.inner.record(commands);
        self.watch(outcome)
    }

    fn forget(&mut self, program: Program) -> Result<(), Error> {
        self.inner.forget(program)
    }

    fn submit(&mut self, launch: Launch<'_>) -> Result<Ticket, Error> {
        let outcome = self.inner.submit(launch);
        self.watch(outcome)
    }

    fn collect(&mut self, ticket: Ticket, into: &mut [u8]) -> Result<(), Error> {
        let outcome = self.inner.collect(ticket, into);
        self.watch(outcome)
    }
}
