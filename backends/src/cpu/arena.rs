//! Memory by id: zeroed pages of our own, and the host's bytes borrowed where they lie.

use kernels_core::command::{Access, Resolve};
use kernels_core::device::{Buffer, HostBytes, Slice};
use kernels_core::error::{Error, Fault};
use memmap2::MmapMut;

/// The buffers of one backend.
pub(super) struct Arena {
    owner: u32,
    slots: Vec<Slot>,
    allocated: u64,
}

struct Slot {
    generation: u32,
    store: Option<Store>,
}

enum Store {
    /// Ours: where the map begins, and the bytes of it that count. It is read and written
    /// through `base` alone; `_map` is there to be dropped.
    Own { _map: MmapMut, base: *mut u8, bytes: u64 },
    /// The host's: read only.
    Host(HostBytes),
}

// SAFETY: memory is only reached through `&mut Arena` or through a `Memory`, whose
// users keep to one command at a time.
unsafe impl Send for Arena {}
// SAFETY: `&Arena` gives out nothing but lengths and `Memory`, which is not `Sync`.
unsafe impl Sync for Arena {}

impl Arena {
    pub(super) fn new(owner: u32) -> Self {
        Self { owner, slots: Vec::new(), allocated: 0 }
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.allocated
    }

    pub(super) fn alloc(&mut self, bytes: u64) -> Result<Buffer, Error> {
        let refuse = || Error::new("arena", "bytes", Fault::OutOfMemory { bytes });
        let length = usize::try_from(bytes.max(1)).map_err(|_| refuse())?;
        if isize::try_from(length).is_err() {
            return Err(refuse());
        }
        let mut map = super::map::map(length).map_err(|_| refuse())?;
        self.allocated += bytes;
        let base = map.as_mut_ptr();
        Ok(self.insert(Store::Own { _map: map, base, bytes }))
    }

    pub(super) fn import(&mut self, bytes: HostBytes) -> Result<Buffer, Error> {
        Ok(self.insert(Store::Host(bytes)))
    }

    pub(super) fn release(&mut self, buffer: Buffer) -> Result<(), Error> {
        let store = self.store(buffer).map_err(|fault| Error::new("arena", "buffer", fault))?;
        if let Store::Own { bytes, .. } = store {
            self.allocated -= *bytes;
        }
        let slot = &mut self.slots[buffer.id as usize];
        *slot = Slot { generation: slot.generation.wrapping_add(1), store: None };
        Ok(())
    }

    /// Whether a command may use the slice so.
    pub(super) fn check(&self, access: Access, slice: Slice) -> Result<(), Fault> {
        let store = self.store(slice.buffer)?;
        let held = match store {
            Store::Own { bytes, .. } => *bytes,
            Store::Host(bytes) => (**bytes).as_ref().len() as u64,
        };
        let end = slice.offset.saturating_add(slice.bytes);
        if end > held {
            return Err(Fault::Bytes { expected: end, got: held });
        }
        match (access, store) {
            (Access::Write | Access::Update, Store::Host(_)) => {
                Err(Fault::Unsupported { expected: "imported memory only to be read", got: 0 })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn check_write(&self, slice: Slice, bytes: &[u8]) -> Result<(), Error> {
        let refuse = |fault| Error::new("arena", "writes", fault);
        self.check(Access::Write, slice).map_err(refuse)?;
        let (expected, got) = (slice.bytes, bytes.len() as u64);
        if expected == got { Ok(()) } else { Err(refuse(Fault::Bytes { expected, got })) }
    }

    pub(super) fn write(&mut self, slice: Slice, bytes: &[u8]) -> Result<(), Error> {
        self.check_write(slice, bytes)?;
        let to =
            self.memory().write(slice).map_err(|fault| Error::new("arena", "writes", fault))?;
        to.copy_from_slice(bytes);
        Ok(())
    }

    pub(super) fn read(&self, slice: Slice) -> Result<&[u8], Fault> {
        self.memory().read(slice)
    }

    /// The memory, for commands in turn.
    pub(super) fn memory(&self) -> Memory<'_> {
        Memory { arena: self }
    }

    fn store(&self, buffer: Buffer) -> Result<&Store, Fault> {
        let slot = self.slots.get(buffer.id as usize).ok_or(Fault::Stale)?;
        if slot.generation != buffer.generation || buffer.owner != self.owner {
            return Err(Fault::Stale);
        }
        slot.store.as_ref().ok_or(Fault::Stale)
    }

    fn insert(&mut self, store: Store) -> Buffer {
        let free = self.slots.iter().position(|slot| slot.store.is_none());
        let id = free.unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, store: None });
            self.slots.len() - 1
        });
        self.slots[id].store = Some(store);
        Buffer { owner: self.owner, id: id as u32, generation: self.slots[id].generation }
    }
}

/// The memory of an arena while commands run on it one after the other.
///
/// The slices it gives out are used by one command and dropped before the next
/// resolves its own; that command's `check()` has refused every overlap of a
/// written slice with another.
pub(super) struct Memory<'a> {
    arena: &'a Arena,
}

impl<'a> Resolve<'a> for Memory<'a> {
    fn read(&mut self, slice: Slice) -> Result<&'a [u8], Fault> {
        self.arena.check(Access::Read, slice)?;
        let (offset, bytes) = (slice.offset as usize, slice.bytes as usize);
        match self.arena.store(slice.buffer)? {
            Store::Host(host) => Ok(&(**host).as_ref()[offset..offset + bytes]),
            // SAFETY: within the map by `check`; no command writes it meanwhile, as
            // the type's comment says.
            Store::Own { base, .. } => unsafe {
                Ok(std::slice::from_raw_parts(base.add(offset), bytes))
            },
        }
    }

    fn write(&mut self, slice: Slice) -> Result<&'a mut [u8], Fault> {
        self.arena.check(Access::Write, slice)?;
        match self.arena.store(slice.buffer)? {
            Store::Host(_) => unreachable!("check() refuses to write imported memory"),
            // SAFETY: within the map by `check`; this command alone uses the slice, as
            // the type's comment says.
            Store::Own { base, .. } => unsafe {
                let first = base.add(slice.offset as usize);
                Ok(std::slice::from_raw_parts_mut(first, slice.bytes as usize))
            },
        }
    }
}
