//! Programs: commands recorded once, as a graph, with scratch that stays where it is.

use super::memory::Memory;
use super::table::{Call, Device, FAULT_BYTES, Graph, Held, Stream, refusal};
use kernels_core::Error;
use kernels_core::command::Access;
use kernels_core::device::{Buffer, Command, Program, Slice};
use kernels_core::error::Fault;
use kernels_core::params;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The programs of a device.
pub struct Programs {
    owner: u32,
    slots: Vec<(u32, Option<Arc<Recorded>>)>,
}

/// Where programs are recorded.
pub struct Place<'a> {
    pub device: &'a Device,
    pub memory: &'a Memory,
    pub stream: &'a mut Stream,
}

/// A program. Its graph has nothing but addresses: scratch and fault stay as long as it does,
/// and buffers are asked for before each launch.
pub struct Recorded {
    pub graph: Graph,
    pub fault: Held,
    workspace: Arc<Workspace>,
    /// Kernel of each command, and its buffers' names: what a fault is told by.
    names: Vec<(&'static str, &'static [&'static str])>,
    /// Every buffer, once, with a command and a field that use it.
    buffers: BTreeMap<(u32, u32), (Buffer, &'static str, &'static str)>,
}

struct Workspace {
    held: Held,
    bytes: u64,
}

impl Programs {
    pub fn new(owner: u32) -> Self {
        Self { owner, slots: Vec::new() }
    }

    pub fn record(
        &mut self,
        place: Place<'_>,
        commands: &[Command],
        workspace_bytes: u64,
    ) -> Result<Program, Error> {
        let workspace = self.workspace(place.device, workspace_bytes)?;
        let fault = place.device.alloc(FAULT_BYTES)?;
        let Place { device, memory, stream } = place;
        let mut calls = Vec::new();
        for (number, command) in commands.iter().enumerate() {
            let mut call = Call::new(command, |slice| memory.address(slice))?;
            call.workspace = (workspace.held.address(), workspace.bytes);
            (call.fault, call.number) = (fault.address(), number as u32);
            calls.push(call);
        }
        device.graph_begin(stream)?;
        let launched = calls.iter().try_for_each(|call| device.launch(stream, call));
        // A stream that records is no good to anybody: it ends whatever came.
        let graph = device.graph_end(stream);
        launched?;
        let names = commands.iter().map(|command| (command.kernel(), command.fields())).collect();
        let mut buffers = BTreeMap::new();
        for command in commands {
            command.slices(|field, _, Slice { buffer, .. }| {
                let used = (buffer, command.kernel(), field);
                buffers.entry((buffer.id, buffer.generation)).or_insert(used);
            });
        }
        let recorded = Recorded { graph: graph?, fault, workspace, names, buffers };
        Ok(self.insert(Arc::new(recorded)))
    }

    /// Programs run one after the other, so that they share scratch: the largest there is, or
    /// more of it beside what others have.
    fn workspace(&self, device: &Device, bytes: u64) -> Result<Arc<Workspace>, Error> {
        let recorded = self.slots.iter().filter_map(|(_, recorded)| recorded.as_ref());
        let enough = recorded.map(|it| &it.workspace).find(|it| it.bytes >= bytes);
        match enough {
            Some(workspace) => Ok(workspace.clone()),
            None => Ok(Arc::new(Workspace { held: device.alloc(bytes)?, bytes })),
        }
    }

    fn insert(&mut self, recorded: Arc<Recorded>) -> Program {
        let free = self.slots.iter().position(|(_, recorded)| recorded.is_none());
        let id = free.unwrap_or_else(|| {
            self.slots.push((0, None));
            self.slots.len() - 1
        });
        self.slots[id].1 = Some(recorded);
        Program { owner: self.owner, id: id as u32, generation: self.slots[id].0 }
    }

    pub fn recorded(&self, program: Program) -> Result<Arc<Recorded>, Error> {
        let slot = self.slots.get(program.id as usize);
        match slot {
            Some((generation, Some(recorded)))
                if *generation == program.generation && program.owner == self.owner =>
            {
                Ok(recorded.clone())
            }
            _ => Err(Error::new("plugin", "program", Fault::Stale)),
        }
    }

    /// Takes a program out; it stays as long as the caller keeps it.
    pub fn forget(&mut self, program: Program) -> Result<Arc<Recorded>, Error> {
        let recorded = self.recorded(program)?;
        let slot = &mut self.slots[program.id as usize];
        *slot = (slot.0.wrapping_add(1), None);
        Ok(recorded)
    }
}

impl Recorded {
    /// Whether all that it uses is there: its graph has nothing but addresses.
    pub fn check(&self, memory: &Memory) -> Result<(), Error> {
        self.buffers.values().try_for_each(|&(buffer, kernel, field)| {
            let part = Slice { buffer, offset: 0, bytes: 0 };
            let there = memory.check_slice(Access::Read, part);
            there.map_err(|fault| Error::new(kernel, field, fault))
        })
    }

    /// The refusal that a fault is.
    pub fn refusal(&self, fault: &params::Fault) -> Error {
        let (kernel, fields) =
            self.names.get(fault.command as usize).copied().unwrap_or(("plugin", &[]));
        refusal(fault, kernel, fields)
    }
}
