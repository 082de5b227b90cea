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
use std::ops::Range;
use std::sync::Arc;

/// Parts of staging memory begin at multiples of so many bytes.
const ALIGN: u64 = 64;
/// Staging memory at least.
const ROOM_BYTES: u64 = 64 << 10;

/// Bytes of staging memory for so many: more than they are, for those that come may be more.
pub fn rounded(bytes: u64) -> u64 {
    bytes.next_power_of_two().max(ROOM_BYTES)
}

/// The submissions of a device.
#[derive(Default)]
pub struct Tickets {
    submitted: u64,
    flights: BTreeMap<u64, Flying>,
    /// What was released while flights up to that number may use it.
    kept: Vec<(u64, Box<dyn Any + Send>)>,
    /// The flight after whose end nothing of work that failed is under way any more: one that
    /// is still to come, where the failure is the last thing that happened.
    settles: u64,
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

/// A part of staging memory.
type Part = Range<u64>;

struct Flying {
    program: Arc<Recorded>,
    /// Writes, then the fault, then the reads, each at a multiple of [`ALIGN`].
    host: Host,
    event: Event,
    /// Where the program's fault is staged.
    fault: Part,
    /// Where each read is.
    reads: Vec<Part>,
}

impl Flying {
    fn enqueue(
        &mut self,
        device: &Device,
        memory: &Memory,
        stream: &mut Stream,
        launch: &Launch<'_>,
        writes: &[Part],
    ) -> Result<(), Error> {
        for (part, &(slice, _)) in writes.iter().zip(launch.writes) {
            if part.is_empty() {
                continue;
            }
            let address = memory.address(slice).map_err(of_writes)?;
            device.write(stream, address, &self.host, part.clone())?;
        }
        let fault = self.program.fault.address();
        device.zero(stream, fault, FAULT_BYTES)?;
        device.graph_launch(stream, &self.program.graph)?;
        device.read(stream, fault, &mut self.host, self.fault.clone())?;
        for (part, &slice) in self.reads.iter().zip(launch.reads) {
            if part.is_empty() {
                continue;
            }
            let address = memory.address(slice).map_err(of_reads)?;
            device.read(stream, address, &mut self.host, part.clone())?;
        }
        device.record(stream, &self.event)
    }

    /// What a part holds, once it is done.
    fn staged(&self, part: &Part) -> &[u8] {
        &self.host.all()[part.start as usize..part.end as usize]
    }
}

impl Tickets {
    /// Enqueues it all; nothing waits. Gives its number.
    pub fn fly(&mut self, flight: Flight<'_>, launch: &Launch<'_>) -> Result<u64, Error> {
        let mut bytes = 0u64;
        let mut place = |length: u64| {
            let at = bytes;
            bytes = (bytes + length).next_multiple_of(ALIGN);
            at..at + length
        };
        let writes: Vec<Part> = launch.writes.iter().map(|(slice, _)| place(slice.bytes)).collect();
        let fault = place(FAULT_BYTES);
        let reads: Vec<Part> = launch.reads.iter().map(|slice| place(slice.bytes)).collect();
        let (mut host, event) = self.room(flight.device, bytes)?;
        for (part, (_, from)) in writes.iter().zip(launch.writes) {
            host.bytes_mut()[part.start as usize..part.end as usize].copy_from_slice(from);
        }
        let Flight { device, memory, stream, program } = flight;
        let mut flying = Flying { program, host, event, fault, reads };
        if let Err(error) = flying.enqueue(device, memory, stream, launch, &writes) {
            self.unsettled(flying);
            return Err(error);
        }
        self.submitted += 1;
        self.flights.insert(self.submitted, flying);
        Ok(self.submitted)
    }

    /// Waits for a flight and takes what it staged, or its fault.
    pub fn collect(&mut self, device: &Device, number: u64, into: &mut [u8]) -> Result<(), Error> {
        let stale = Error::new("plugin", "ticket", Fault::Stale);
        let flying = self.flights.get(&number).ok_or(stale)?;
        let expected = flying.reads.iter().map(|part| part.end - part.start).sum();
        if expected != into.len() as u64 {
            let fault = Fault::Bytes { expected, got: into.len() as u64 };
            return Err(Error::new("plugin", "into", fault));
        }
        let ended = device.wait(&flying.event);
        let flying = self.flights.remove(&number).ok_or(stale)?;
        if let Err(error) = ended {
            self.unsettled(flying);
            return Err(error);
        }
        self.sweep(device);
        let outcome = match fault(flying.staged(&flying.fault)) {
            Some(fault) => Err(flying.program.refusal(&fault)),
            None => {
                let mut into = into;
                for part in &flying.reads {
                    let (to, rest) = into.split_at_mut((part.end - part.start) as usize);
                    to.copy_from_slice(flying.staged(part));
                    into = rest;
                }
                Ok(())
            }
        };
        self.spare.push((flying.host, flying.event));
        outcome
    }

    /// Keeps what was released until nothing under way uses it.
    pub fn keep(&mut self, released: impl Any + Send) {
        self.kept.push((self.submitted.max(self.settles), Box::new(released)));
    }

    /// Keeps what work uses of which nobody knows how far it came: the stream keeps its order,
    /// so it has ended when the next flight has.
    pub fn unsettled(&mut self, used: impl Any + Send) {
        self.settles = self.submitted + 1;
        self.keep(used);
    }

    /// Waits for every flight, as far as the device still answers.
    pub fn end(&self, device: &Device) {
        for flying in self.flights.values() {
            let _ = device.wait(&flying.event);
        }
    }

    /// Lets go of what nothing under way uses.
    pub fn sweep(&mut self, device: &Device) {
        if self.kept.is_empty() {
            return;
        }
        // A flight that was not collected may have ended all the same.
        let under_way = |flying: &Flying| !device.done(&flying.event).unwrap_or(false);
        let first = self.flights.iter().find(|(_, flying)| under_way(flying));
        let first = first.map_or(self.submitted + 1, |(number, _)| *number);
        self.kept.retain(|(number, _)| *number >= first);
    }

    /// Staging memory of at least so many bytes: steps that grow find it larger than they need.
    fn room(&mut self, device: &Device, bytes: u64) -> Result<(Host, Event), Error> {
        match self.spare.iter().position(|(host, _)| host.bytes() >= bytes) {
            Some(at) => Ok(self.spare.swap_remove(at)),
            None => {
                // The smaller ones are not wanted any more.
                self.spare.pop();
                Ok((device.host(rounded(bytes))?, device.event()?))
            }
        }
    }
}
