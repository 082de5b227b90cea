//! A device that computes nothing: all results are zeros, so that an engine draws the first
//! token always. For thousands of histories in which only who runs, and which pages it has,
//! is asked.

use kernels_core::Error;
use kernels_core::device::{
    Backend, Buffer, Command, HostBytes, Launch, Needs, Program, Slice, Ticket,
};

/// The device; it counts what it gives out.
#[derive(Debug, Default)]
pub struct Blank {
    buffers: u32,
    programs: u32,
    tickets: u64,
}

impl Blank {
    fn buffer(&mut self) -> Buffer {
        self.buffers += 1;
        Buffer { owner: 0, id: self.buffers, generation: 0 }
    }
}

impl Backend for Blank {
    fn numerics(&self) -> &str {
        "blank"
    }

    fn query(&self, command: &Command) -> Result<Needs, Error> {
        command.check().map(|()| Needs::default())
    }

    fn alloc(&mut self, _bytes: u64) -> Result<Buffer, Error> {
        Ok(self.buffer())
    }

    fn import(&mut self, _bytes: HostBytes) -> Result<Buffer, Error> {
        Ok(self.buffer())
    }

    fn release(&mut self, _buffer: Buffer) -> Result<(), Error> {
        Ok(())
    }

    fn write(&mut self, _slice: Slice, _bytes: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn record(&mut self, commands: &[Command]) -> Result<Program, Error> {
        commands.iter().try_for_each(Command::check)?;
        self.programs += 1;
        Ok(Program { owner: 0, id: self.programs, generation: 0 })
    }

    fn forget(&mut self, _program: Program) -> Result<(), Error> {
        Ok(())
    }

    fn submit(&mut self, _launch: Launch<'_>) -> Result<Ticket, Error> {
        self.tickets += 1;
        Ok(Ticket { owner: 0, number: self.tickets })
    }

    fn collect(&mut self, _ticket: Ticket, into: &mut [u8]) -> Result<(), Error> {
        into.fill(0);
        Ok(())
    }
}
