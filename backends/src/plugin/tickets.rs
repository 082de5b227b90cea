//! Submissions under way, and what has to outlive them.

use super::memory::Memory;
use super::memory::{of_reads, of_writes};
use super::programs::Recorded;
use super::table::{Device, Event, FAULT_BYTES, Host, Stream, fault};
use kernels_core::Error;
use kernels_core::device::Launch;
use kernels_core::error::Fault;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Parts of staging memory begin at multiples of so many bytes.
const ALIGN: u64 = 64;

/// The submissions of a device.
#[derive(Default)]
pub struct Tickets {
    submitted: u64,
    flights: BTreeMap<u64, Flying>,
    /// What was released while flights before that number may use it.
    kept: Vec<(u64, Box<dyn Any + Send>)>,
    /// Staging memory and events of flights that have ended.
    spare: Vec<(Host, Event)>,
}

/// What a submission needs.
pub struct Flight<'a> {
    pub device: &'a Device,
    pub memory: &'a Memory,
    pub stream: &'a mut Stream,
    pub program: Arc<Recorded>,
}

struct Flying {
    program: Arc<Recorded>,
    /// Writes, then the fault, then the reads, each at a multiple of [`ALIGN`].
    host: Host,
    event: Event,
    fault_at: u64,
    /// Where each read is staged, and how long it is.
    reads: Vec<(u64, u64)>,
}

impl Tickets {
    /// Enqueues it all; nothing waits. Gives its number.
    pub fn fly(&mut self, flight: Flight<'_>, launch: &Launch<'_>) -> Result<u64, Error> {
        let Flight { device, memory, stream, program } = flight;
        let mut bytes = 0u64;
        let mut place = |length: u64| {
            let at = bytes;
            bytes = (bytes + length).next_multiple_of(ALIGN);
            at
        };
        let writes: Vec<u64> = launch.writes.iter().map(|(slice, _)| place(slice.bytes)).collect();
        let fault_at = place(FAULT_BYTES);
        let reads: Vec<(u64, u64)> =
            launch.reads.iter().map(|slice| (place(slice.bytes), slice.bytes)).collect();
        let (mut host, event) = self.room(device, bytes)?;
        for (&at, &(slice, from)) in writes.iter().zip(launch.writes) {
            let part = at..at + slice.bytes;
            host.bytes_mut()[part.start as usize..part.end as usize].copy_from_slice(from);
            let address = memory.address(slice).map_err(of_writes)?;
            device.write(stream, address, &host, part)?;
        }
        device.zero(stream, program.fault.address(), FAULT_BYTES)?;
        device.graph_launch(stream, &program.graph)?;
        let part = fault_at..fault_at + FAULT_BYTES;
        device.read(stream, program.fault.address(), &mut host, part)?;
        for (&(at, length), slice) in reads.iter().zip(launch.reads) {
            let address = memory.address(*slice).map_err(of_reads)?;
            device.read(stream, address, &mut host, at..at + length)?;
        }
        device.record(stream, &event)?;
        self.submitted += 1;
        self.flights.insert(self.submitted, Flying { program, host, event, fault_at, reads });
        Ok(self.submitted)
    }

    /// Waits for a flight and takes what it staged, or its fault.
    pub fn collect(&mut self, device: &Device, number: u64, into: &mut [u8]) -> Result<(), Error> {
        let stale = Error::new("plugin", "ticket", Fault::Stale);
        let flying = self.flights.get(&number).ok_or(stale)?;
        let expected = flying.reads.iter().map(|(_, length)| length).sum();
        if expected != into.len() as u64 {
            let fault = Fault::Bytes { expected, got: into.len() as u64 };
            return Err(Error::new("plugin", "into", fault));
        }
        device.wait(&flying.event)?;
        let Some(Flying { program, host, event, fault_at, reads }) = self.flights.remove(&number)
        else {
            return Err(stale);
        };
        let staged = |at: u64, length: u64| &host.all()[at as usize..(at + length) as usize];
        let outcome = match fault(staged(fault_at, FAULT_BYTES)) {
            Some(fault) => Err(program.refusal(&fault)),
            None => {
                let mut into = into;
                for (at, length) in reads {
                    let (to, rest) = into.split_at_mut(length as usize);
                    to.copy_from_slice(staged(at, length));
                    into = rest;
                }
                Ok(())
            }
        };
        self.spare.push((host, event));
        self.sweep(device)?;
        outcome
    }

    /// Keeps what was released until nothing under way uses it.
    pub fn keep(&mut self, released: impl Any + Send) {
        self.kept.push((self.submitted, Box::new(released)));
    }

    /// Lets go of what nothing under way uses.
    pub fn sweep(&mut self, device: &Device) -> Result<(), Error> {
        if self.kept.is_empty() {
            return Ok(());
        }
        // A flight that was not collected may have ended all the same.
        let mut first = self.submitted + 1;
        for (&number, flying) in &self.flights {
            if !device.done(&flying.event)? {
                first = number;
                break;
            }
        }
        self.kept.retain(|(number, _)| *number >= first);
        Ok(())
    }

    fn room(&mut self, device: &Device, bytes: u64) -> Result<(Host, Event), Error> {
        match self.spare.iter().position(|(host, _)| host.bytes() >= bytes) {
            Some(at) => Ok(self.spare.swap_remove(at)),
            None => {
                // The smaller ones are not wanted any more.
                self.spare.pop();
                Ok((device.host(bytes)?, device.event()?))
            }
        }
    }
}
