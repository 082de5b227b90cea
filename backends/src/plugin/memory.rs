//! A device's memory by id, and which slices of it a command may use.

use super::table::Held;
use kernels_core::command::Access;
use kernels_core::device::{Buffer, Command, Slice};
use kernels_core::error::{Error, Fault};

/// The buffers of a device.
pub struct Memory {
    owner: u32,
    slots: Vec<Slot>,
    allocated: u64,
}

struct Slot {
    generation: u32,
    store: Option<Store>,
}

struct Store {
    held: Held,
    bytes: u64,
    /// Of the host's bytes: commands only read it.
    imported: bool,
}

/// A fault of what is written before a program.
pub fn of_writes(fault: Fault) -> Error {
    Error::new("plugin", "writes", fault)
}

/// A fault of what is read after it.
pub fn of_reads(fault: Fault) -> Error {
    Error::new("plugin", "reads", fault)
}

impl Memory {
    pub fn new(owner: u32) -> Self {
        Self { owner, slots: Vec::new(), allocated: 0 }
    }

    pub fn allocated_bytes(&self) -> u64 {
        self.allocated
    }

    pub fn insert(&mut self, held: Held, bytes: u64, imported: bool) -> Buffer {
        let free = self.slots.iter().position(|slot| slot.store.is_none());
        let id = free.unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, store: None });
            self.slots.len() - 1
        });
        self.allocated += bytes;
        self.slots[id].store = Some(Store { held, bytes, imported });
        Buffer { owner: self.owner, id: id as u32, generation: self.slots[id].generation }
    }

    /// Takes a buffer out; its memory is the caller's to keep until nobody uses it.
    pub fn release(&mut self, buffer: Buffer) -> Result<Held, Error> {
        self.store(buffer).map_err(|fault| Error::new("plugin", "buffer", fault))?;
        let slot = &mut self.slots[buffer.id as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let store = slot.store.take().expect("looked at above");
        self.allocated -= store.bytes;
        Ok(store.held)
    }

    /// Whether every slice of the command is one that it may use so.
    pub fn check(&self, command: &Command) -> Result<(), Error> {
        let mut outcome = Ok(());
        command.slices(|field, access, slice| {
            if let (Ok(()), Err(fault)) = (outcome, self.check_slice(access, slice)) {
                outcome = Err(Error::new(command.kernel(), field, fault));
            }
        });
        outcome
    }

    /// Whether a command may use the slice so.
    pub fn check_slice(&self, access: Access, slice: Slice) -> Result<(), Fault> {
        let store = self.store(slice.buffer)?;
        let end = slice.offset.saturating_add(slice.bytes);
        if end > store.bytes {
            return Err(Fault::Bytes { expected: end, got: store.bytes });
        }
        if store.imported && access != Access::Read {
            return Err(Fault::Unsupported { expected: "imported memory only to be read", got: 0 });
        }
        Ok(())
    }

    pub fn check_write(&self, slice: Slice, bytes: &[u8]) -> Result<(), Error> {
        self.check_slice(Access::Write, slice).map_err(of_writes)?;
        let (expected, got) = (slice.bytes, bytes.len() as u64);
        if expected == got { Ok(()) } else { Err(of_writes(Fault::Bytes { expected, got })) }
    }

    /// Where a slice lies.
    pub fn address(&self, slice: Slice) -> Result<u64, Fault> {
        Ok(self.store(slice.buffer)?.held.address() + slice.offset)
    }

    fn store(&self, buffer: Buffer) -> Result<&Store, Fault> {
        let slot = self.slots.get(buffer.id as usize).ok_or(Fault::Stale)?;
        if slot.generation != buffer.generation || buffer.owner != self.owner {
            return Err(Fault::Stale);
        }
        slot.store.as_ref().ok_or(Fault::Stale)
    }
}
