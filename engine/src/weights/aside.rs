//! Memory of the host in which a model is made ready, while the device goes on with another:
//! a backend that runs nothing. What lies there moves to a real one at once, where that
//! borrows the host's bytes.

use super::lines::Lines;
use crate::model::Model;
use kernels_core::device::{
    Backend, Buffer, Command, HostBytes, Launch, Needs, Program, Slice, Ticket,
};
use kernels_core::error::{Checks, Error, Fault};
use std::collections::HashMap;
use std::sync::Arc;

const CHECKS: Checks = Checks("aside");

/// Buffers that no device has yet.
#[derive(Default)]
pub struct Aside {
    buffers: HashMap<u32, Held>,
    next: u32,
}

enum Held {
    /// That is written to.
    Own(Lines, u64),
    /// Of a file.
    Host(HostBytes),
}

impl Aside {
    /// Brings a model that was loaded here to a backend.
    pub fn bring(mut self, model: Model, to: &mut dyn Backend) -> Result<Model, Error> {
        let mut brought = HashMap::new();
        let mut outcome = Ok(());
        for (id, held) in self.buffers.drain() {
            let bytes: HostBytes = match held {
                Held::Own(lines, bytes) => Arc::new(Whole(lines, bytes as usize)),
                Held::Host(bytes) => bytes,
            };
            match to.import(bytes) {
                Ok(buffer) => drop(brought.insert(id, buffer)),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if let Err(error) = outcome {
            // The first error is the one to tell.
            for buffer in brought.into_values() {
                let _ = to.release(buffer);
            }
            return Err(error);
        }
        Ok(model.moved(&|buffer: Buffer| brought[&buffer.id]))
    }

    fn held(&mut self, slice: Slice) -> Result<&mut [u8], Error> {
        let refused = CHECKS.refuse("slice", Fault::OutOfMemory { bytes: slice.bytes });
        let (first, last) = (slice.offset as usize, (slice.offset + slice.bytes) as usize);
        match self.buffers.get_mut(&slice.buffer.id) {
            Some(Held::Own(lines, _)) => lines.bytes_mut().get_mut(first..last).ok_or(refused),
            _ => Err(refused),
        }
    }

    fn take(&mut self, held: Held) -> Buffer {
        self.next += 1;
        self.buffers.insert(self.next, held);
        Buffer { owner: 0, id: self.next, generation: 0 }
    }
}

/// As many bytes as were asked for.
struct Whole(Lines, usize);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes()[..self.1]
    }
}

/// It runs nothing.
fn runs_nothing<T>() -> Result<T, Error> {
    Err(CHECKS.refuse("command", Fault::Unsupported { expected: "memory alone", got: 0 }))
}

impl Backend for Aside {
    fn numerics(&self) -> &str {
        "aside"
    }

    fn query(&self, _: &Command) -> Result<Needs, Error> {
        runs_nothing()
    }

    fn alloc(&mut self, bytes: u64) -> Result<Buffer, Error> {
        Ok(self.take(Held::Own(Lines::zeroed(bytes as usize), bytes)))
    }

    fn import(&mut self, bytes: HostBytes) -> Result<Buffer, Error> {
        Ok(self.take(Held::Host(bytes)))
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), Error> {
        self.buffers.remove(&buffer.id);
        Ok(())
    }

    fn write(&mut self, slice: Slice, bytes: &[u8]) -> Result<(), Error> {
        self.held(slice)?.copy_from_slice(bytes);
        Ok(())
    }

    fn record(&mut self, _: &[Command]) -> Result<Program, Error> {
        runs_nothing()
    }

    fn forget(&mut self, _: Program) -> Result<(), Error> {
        runs_nothing()
    }

    fn submit(&mut self, _: Launch<'_>) -> Result<Ticket, Error> {
        runs_nothing()
    }

    fn collect(&mut self, _: Ticket, _: &mut [u8]) -> Result<(), Error> {
        runs_nothing()
    }
}
