//! A device behind a plugin: memory by id, programs as graphs, results staged in memory of
//! the host.
//!
//! What a step's buffers hold is not known to the host, so a device finds faults as it
//! runs: the first is kept, commands after it do nothing, and [`Backend::collect`] tells it.

mod embedded;
#[expect(unsafe_code, reason = "a library is loaded, and its one function called")]
mod load;
mod memory;
mod programs;
#[expect(unsafe_code, reason = "C functions of a table are called")]
mod table;
mod tickets;

use kernels_core::Error;
use kernels_core::command::Access;
use kernels_core::device::{
    Backend, Buffer, Command, DeviceMemory, HostBytes, Launch, Needs, Program, Slice, Ticket,
};
use kernels_core::error::Fault;
use memory::Memory;
use programs::Programs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use table::{Device, Host, Stream};
use tickets::Tickets;

pub use embedded::{Embedded, Scratch, fault};
pub use load::{Refused, library_name};

/// In a question for what a call takes: a buffer that is somewhere.
pub const ANYWHERE: u64 = plugin::PWP_ANYWHERE;

/// Bytes copied to the device at once outside of programs.
const CHUNK_BYTES: u64 = 16 << 20;

/// A device behind a plugin.
///
/// Fields are in the order in which they go: what the device holds, its stream, the device.
pub struct Plugin {
    owner: u32,
    about: plugin::About,
    /// What copies outside of programs go through, once there was one.
    copies: Option<Host>,
    tickets: Tickets,
    programs: Programs,
    memory: Memory,
    stream: Stream,
    device: Device,
}

impl Plugin {
    /// The device of that number behind the library in `folder`, of this kind: `"cuda"`.
    pub fn load(folder: &Path, kind: &str, ordinal: u32) -> Result<Self, Refused> {
        let table = load::open(&folder.join(library_name(kind)))?;
        Device::open(table, ordinal).and_then(Self::on).map_err(Refused::Device)
    }

    /// The device of that number behind a table of this process.
    pub fn of_table(table: &'static plugin::pwp_table, ordinal: u32) -> Result<Self, Error> {
        Self::on(Device::open(table, ordinal)?)
    }

    fn on(device: Device) -> Result<Self, Error> {
        static OWNERS: AtomicU32 = AtomicU32::new(1 << 31);
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            owner,
            about: device.about()?,
            copies: None,
            tickets: Tickets::default(),
            programs: Programs::new(owner),
            memory: Memory::new(owner),
            stream: device.stream()?,
            device,
        })
    }

    /// What the device is.
    pub fn about(&self) -> &plugin::About {
        &self.about
    }

    /// Bytes of the device in use by buffers.
    pub fn allocated_bytes(&self) -> u64 {
        self.memory.allocated_bytes()
    }

    /// The command's own checks, those of its slices, and the scratch it takes.
    fn needs(&self, command: &Command) -> Result<Needs, Error> {
        command.check()?;
        self.memory.check(command)?;
        let call = table::Call::new(command, |slice| self.memory.address(slice))?;
        let workspace_bytes = self.device.needs(&call)?;
        Ok(Needs { workspace_bytes })
    }

    /// Copies bytes to the device through memory of the host, in pieces; waits until they are
    /// there.
    fn copy(&mut self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        let room = tickets::rounded(bytes.len() as u64).min(CHUNK_BYTES);
        let mut host = match self.copies.take().filter(|host| host.bytes() >= room) {
            Some(host) => host,
            None => self.device.host(room)?,
        };
        for (at, piece) in bytes.chunks(CHUNK_BYTES as usize).enumerate() {
            host.bytes_mut()[..piece.len()].copy_from_slice(piece);
            let to = address + at as u64 * CHUNK_BYTES;
            let enqueued = self.device.write(&mut self.stream, to, &host, 0..piece.len() as u64);
            let copied = enqueued.and_then(|()| self.device.finish(&mut self.stream));
            if let Err(error) = copied {
                self.tickets.unsettled(host);
                return Err(error);
            }
        }
        self.copies = Some(host);
        Ok(())
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // What is under way uses what goes now.
        if self.device.finish(&mut self.stream).is_err() {
            self.tickets.end(&self.device);
        }
    }
}

impl Backend for Plugin {
    fn numerics(&self) -> &str {
        &self.about.numerics
    }

    fn memory(&self) -> Result<Option<DeviceMemory>, Error> {
        let plugin::About { memory_bytes, free_bytes, .. } = self.device.about()?;
        let (total_bytes, allocated_bytes) = (memory_bytes, self.allocated_bytes());
        Ok(Some(DeviceMemory { total_bytes, free_bytes, allocated_bytes }))
    }

    fn query(&self, command: &Command) -> Result<Needs, Error> {
        self.needs(command)
    }

    fn alloc(&mut self, bytes: u64) -> Result<Buffer, Error> {
        let held = self.device.alloc(bytes)?;
        Ok(self.memory.insert(held, bytes, false))
    }

    fn import(&mut self, bytes: HostBytes) -> Result<Buffer, Error> {
        let bytes = (*bytes).as_ref();
        let held = self.device.alloc(bytes.len() as u64)?;
        if let Err(error) = self.copy(held.address(), bytes) {
            self.tickets.unsettled(held);
            return Err(error);
        }
        Ok(self.memory.insert(held, bytes.len() as u64, true))
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), Error> {
        let held = self.memory.release(buffer)?;
        self.tickets.keep(held);
        self.tickets.sweep(&self.device);
        Ok(())
    }

    fn write(&mut self, slice: Slice, bytes: &[u8]) -> Result<(), Error> {
        self.memory.check_write(slice, bytes)?;
        let address = self.memory.address(slice).map_err(memory::of_writes)?;
        self.copy(address, bytes)
    }

    fn record(&mut self, commands: &[Command]) -> Result<Program, Error> {
        let mut workspace_bytes = 0;
        for command in commands {
            workspace_bytes = workspace_bytes.max(self.needs(command)?.workspace_bytes);
        }
        let place = programs::Place {
            device: &self.device,
            memory: &self.memory,
            stream: &mut self.stream,
        };
        self.programs.record(place, commands, workspace_bytes)
    }

    fn forget(&mut self, program: Program) -> Result<(), Error> {
        let forgotten = self.programs.forget(program)?;
        self.tickets.keep(forgotten);
        self.tickets.sweep(&self.device);
        Ok(())
    }

    fn submit(&mut self, launch: Launch<'_>) -> Result<Ticket, Error> {
        let program = self.programs.recorded(launch.program)?;
        program.check(&self.memory)?;
        for &slice in launch.reads {
            self.memory.check_slice(Access::Read, slice).map_err(memory::of_reads)?;
        }
        for &(slice, bytes) in launch.writes {
            self.memory.check_write(slice, bytes)?;
        }
        let (device, memory, stream) = (&self.device, &self.memory, &mut self.stream);
        let flight = tickets::Flight { device, memory, stream, program };
        let number = self.tickets.fly(flight, &launch)?;
        Ok(Ticket { owner: self.owner, number })
    }

    fn collect(&mut self, ticket: Ticket, into: &mut [u8]) -> Result<(), Error> {
        if ticket.owner != self.owner {
            return Err(Error::new("plugin", "ticket", Fault::Stale));
        }
        self.tickets.collect(&self.device, ticket.number, into)
    }
}
