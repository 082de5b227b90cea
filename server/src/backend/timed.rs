//! A backend that tells how long its commands took: what a step spends beside them is
//! the scheduler's and the server's.

use kernels_core::Error;
use kernels_core::device::{
    Backend, Buffer, Command, DeviceMemory, HostBytes, Launch, Needs, Program, Slice, Ticket,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a backend has been busy, for those who do not own it.
#[derive(Clone, Debug, Default)]
pub struct Busy(Arc<AtomicU64>);

impl Busy {
    /// So far.
    pub fn so_far(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let outcome = work();
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.fetch_add(took, Ordering::Relaxed);
        outcome
    }
}

/// Another backend, timed where it computes or is waited for.
pub struct Timed<B> {
    inner: B,
    busy: Busy,
}

impl<B: Backend> Timed<B> {
    /// Of a backend, whose time is added to `busy`.
    pub fn new(inner: B, busy: Busy) -> Self {
        Self { inner, busy }
    }
}

impl<B: Backend> Backend for Timed<B> {
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
        self.inner.alloc(bytes)
    }

    fn import(&mut self, bytes: HostBytes) -> Result<Buffer, Error> {
        self.inner.import(bytes)
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), Error> {
        self.inner.release(buffer)
    }

    fn write(&mut self, slice: Slice, bytes: &[u8]) -> Result<(), Error> {
        self.inner.write(slice, bytes)
    }

    fn record(&mut self, commands: &[Command]) -> Result<Program, Error> {
        self.inner.record(commands)
    }

    fn forget(&mut self, program: Program) -> Result<(), Error> {
        self.inner.forget(program)
    }

    fn submit(&mut self, launch: Launch<'_>) -> Result<Ticket, Error> {
        self.busy.during(|| self.inner.submit(launch))
    }

    fn collect(&mut self, ticket: Ticket, into: &mut [u8]) -> Result<(), Error> {
        self.busy.during(|| self.inner.collect(ticket, into))
    }
}
