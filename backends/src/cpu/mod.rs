//! The CPU: threads that stay, memory by id, programs recorded once.

#[expect(unsafe_code, reason = "one memory is read and written by commands in turn")]
mod arena;
mod map;
pub mod peaks;
#[expect(unsafe_code, reason = "threads borrow a caller's tiles while it waits")]
mod threads;

use arena::Arena;
use kernels_core::Error;
use kernels_core::device::{
    Backend, Buffer, Command, HostBytes, Launch, Needs, Program, Slice, Ticket,
};
use kernels_core::error::Fault;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Workers;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub use map::Map;
pub use threads::Threads;

/// The id of the arithmetic of every level: committed hashes change only with it.
pub const NUMERICS: &str = "cpu-1";

/// The kernels on this process's CPU.
pub struct Cpu {
    owner: u32,
    level: Level,
    threads: Arc<Threads>,
    arena: Arena,
    programs: Vec<(u32, Option<Box<[Command]>>)>,
    /// The largest workspace of any program recorded, in 64-byte lines.
    workspace: Vec<Line>,
    staged: BTreeMap<u64, Vec<u8>>,
    submitted: u64,
}

/// One cache line, so that workspaces are aligned to it.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Cpu {
    /// A backend at a level with its own threads, the calling one included.
    pub fn new(level: Level, threads: u32) -> Self {
        Self::on(level, Arc::new(Threads::new(threads)))
    }

    /// Another one with memory of its own, on the same threads: they run one at a time.
    pub fn beside(&self) -> Self {
        Self::on(self.level, self.threads.clone())
    }

    fn on(level: Level, threads: Arc<Threads>) -> Self {
        static OWNERS: AtomicU32 = AtomicU32::new(1);
        let owner = OWNERS.fetch_add(1, Ordering::Relaxed);
        Self {
            owner,
            level,
            threads,
            arena: Arena::new(owner),
            programs: Vec::new(),
            workspace: Vec::new(),
            staged: BTreeMap::new(),
            submitted: 0,
        }
    }

    /// The level its kernels run at.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Its threads.
    pub fn workers(&self) -> &dyn Workers {
        &*self.threads
    }

    /// Bytes in use by buffers that were allocated, imports aside.
    pub fn allocated_bytes(&self) -> u64 {
        self.arena.allocated_bytes()
    }

    fn recorded(&self, program: Program) -> Result<&[Command], Error> {
        let slot = self.programs.get(program.id as usize);
        match slot {
            Some((generation, Some(commands)))
                if *generation == program.generation && program.owner == self.owner =>
            {
                Ok(commands)
            }
            _ => Err(Error::new("cpu", "program", Fault::Stale)),
        }
    }

    /// The command's own checks, those of its slices, and the workspace it needs.
    fn needs(&self, command: &Command) -> Result<Needs, Error> {
        command.check()?;
        let kernel = command.kernel();
        let mut outcome = Ok(());
        command.slices(|field, access, slice| {
            let checked = self.arena.check(access, slice);
            if let (Ok(()), Err(fault)) = (outcome, checked) {
                outcome = Err(Error::new(kernel, field, fault));
            }
        });
        outcome?;
        let workers = self.threads.count();
        let mut memory = self.arena.memory();
        // Checked again on the addresses, which show how mapped weights are aligned.
        match command {
            Command::Attention(command) => command.resolve(&mut memory)?.needs(workers),
            Command::AttentionFold(command) => command.resolve(&mut memory)?.needs(workers),
            Command::LogitMask(command) => command.resolve(&mut memory)?.needs(workers),
            Command::AppendKv(command) => command.resolve(&mut memory)?.needs(workers),
            Command::KvCopy(command) => command.resolve(&mut memory)?.needs(workers),
            Command::Rope(command) => command.resolve(&mut memory)?.needs(workers),
            Command::Gather(command) => command.resolve(&mut memory)?.needs(workers),
            Command::Activation(command) => command.resolve(&mut memory)?.needs(workers),
            Command::Embed(command) => command.resolve(&mut memory)?.needs(workers),
            Command::Lora(command) => command.resolve(&mut memory)?.needs(workers),
            Command::Norm(command) => command.resolve(&mut memory)?.needs(workers),
            Command::Pool(command) => command.resolve(&mut memory)?.needs(workers),
            Command::SpecVerify(command) => command.resolve(&mut memory)?.needs(workers),
            Command::VarlenMask(command) => command.resolve(&mut memory)?.needs(workers),
            Command::Sample(command) => command.resolve(&mut memory)?.needs(workers),
            Command::TokenLogprob(command) => command.resolve(&mut memory)?.needs(workers),
            Command::Matmul(command) => command.resolve(&mut memory)?.needs(workers),
        }
    }
}

/// Runs one command on memory that its checks have gone over.
fn run(
    level: Level,
    workers: &dyn Workers,
    command: &Command,
    memory: &mut arena::Memory<'_>,
    workspace: &mut [u8],
) -> Result<(), Error> {
    match command {
        Command::Attention(command) => {
            kernels_core::attention::run(level, workers, command.resolve(memory)?, workspace)
        }
        Command::AttentionFold(command) => {
            kernels_core::attention_fold::run(level, workers, command.resolve(memory)?)
        }
        Command::LogitMask(command) => {
            kernels_core::logit_mask::run(level, workers, command.resolve(memory)?)
        }
        Command::AppendKv(command) => {
            kernels_core::append_kv::run(level, workers, command.resolve(memory)?, workspace)
        }
        Command::KvCopy(command) => {
            kernels_core::kv_copy::run(level, workers, command.resolve(memory)?)
        }
        Command::Rope(command) => kernels_core::rope::run(level, workers, command.resolve(memory)?),
        Command::Gather(command) => {
            kernels_core::gather::run(level, workers, command.resolve(memory)?)
        }
        Command::Activation(command) => {
            kernels_core::activation::run(level, workers, command.resolve(memory)?)
        }
        Command::Embed(command) => {
            kernels_core::embed::run(level, workers, command.resolve(memory)?)
        }
        Command::Lora(command) => {
            kernels_core::lora::run(level, workers, command.resolve(memory)?, workspace)
        }
        Command::Norm(command) => kernels_core::norm::run(level, workers, command.resolve(memory)?),
        Command::Pool(command) => kernels_core::pool::run(level, workers, command.resolve(memory)?),
        Command::SpecVerify(command) => {
            kernels_core::spec_verify::run(level, workers, command.resolve(memory)?, workspace)
        }
        Command::VarlenMask(command) => {
            kernels_core::varlen_mask::run(level, workers, command.resolve(memory)?)
        }
        Command::TokenLogprob(command) => {
            kernels_core::token_logprob::run(level, workers, command.resolve(memory)?, workspace)
        }
        Command::Sample(command) => {
            kernels_core::sample::run(level, workers, command.resolve(memory)?, workspace)
        }
        Command::Matmul(command) => {
            kernels_core::matmul::run(level, workers, command.resolve(memory)?, workspace)
        }
    }
}

impl Backend for Cpu {
    fn numerics(&self) -> &str {
        NUMERICS
    }

    fn query(&self, command: &Command) -> Result<Needs, Error> {
        self.needs(command)
    }

    fn alloc(&mut self, bytes: u64) -> Result<Buffer, Error> {
        self.arena.alloc(bytes)
    }

    fn import(&mut self, bytes: HostBytes) -> Result<Buffer, Error> {
        self.arena.import(bytes)
    }

    fn release(&mut self, buffer: Buffer) -> Result<(), Error> {
        self.arena.release(buffer)
    }

    fn write(&mut self, slice: Slice, bytes: &[u8]) -> Result<(), Error> {
        self.arena.write(slice, bytes)
    }

    fn record(&mut self, commands: &[Command]) -> Result<Program, Error> {
        let mut bytes = 0;
        for command in commands {
            bytes = bytes.max(self.needs(command)?.workspace_bytes);
        }
        let lines = usize::try_from(bytes.div_ceil(64))
            .map_err(|_| Error::new("cpu", "workspace", Fault::OutOfMemory { bytes }))?;
        if lines > self.workspace.len() {
            let more = lines - self.workspace.len();
            self.workspace
                .try_reserve_exact(more)
                .map_err(|_| Error::new("cpu", "workspace", Fault::OutOfMemory { bytes }))?;
            self.workspace.resize(lines, Line([0; 64]));
        }
        let recorded = Some(commands.into());
        let free = self.programs.iter().position(|(_, commands)| commands.is_none());
        let id = free.unwrap_or_else(|| {
            self.programs.push((0, None));
            self.programs.len() - 1
        });
        self.programs[id].1 = recorded;
        Ok(Program { owner: self.owner, id: id as u32, generation: self.programs[id].0 })
    }

    fn forget(&mut self, program: Program) -> Result<(), Error> {
        self.recorded(program)?;
        let slot = &mut self.programs[program.id as usize];
        *slot = (slot.0.wrapping_add(1), None);
        Ok(())
    }

    fn submit(&mut self, launch: Launch<'_>) -> Result<Ticket, Error> {
        let stage = |fault| Error::new("cpu", "reads", fault);
        self.recorded(launch.program)?;
        let mut staged_bytes = 0u64;
        for &slice in launch.reads {
            self.arena.check(kernels_core::command::Access::Read, slice).map_err(stage)?;
            staged_bytes = staged_bytes.saturating_add(slice.bytes);
        }
        for &(slice, bytes) in launch.writes {
            self.arena.check_write(slice, bytes)?;
        }
        let mut staged = Vec::new();
        staged
            .try_reserve_exact(staged_bytes as usize)
            .map_err(|_| stage(Fault::OutOfMemory { bytes: staged_bytes }))?;
        for &(slice, bytes) in launch.writes {
            self.arena.write(slice, bytes)?;
        }
        let mut workspace = std::mem::take(&mut self.workspace);
        let outcome = {
            let _normal = environment::Normal::enter();
            let bytes = bytemuck::cast_slice_mut(&mut workspace);
            let mut memory = self.arena.memory();
            self.recorded(launch.program)?.iter().try_for_each(|command| {
                run(self.level, &*self.threads, command, &mut memory, bytes)
            })
        };
        self.workspace = workspace;
        outcome?;
        for &slice in launch.reads {
            staged.extend_from_slice(self.arena.read(slice).map_err(stage)?);
        }
        self.submitted += 1;
        self.staged.insert(self.submitted, staged);
        Ok(Ticket { owner: self.owner, number: self.submitted })
    }

    fn collect(&mut self, ticket: Ticket, into: &mut [u8]) -> Result<(), Error> {
        let stale = Error::new("cpu", "ticket", Fault::Stale);
        if ticket.owner != self.owner {
            return Err(stale);
        }
        let staged = self.staged.get(&ticket.number).ok_or(stale)?;
        if staged.len() != into.len() {
            let fault = Fault::Bytes { expected: staged.len() as u64, got: into.len() as u64 };
            return Err(Error::new("cpu", "into", fault));
        }
        into.copy_from_slice(staged);
        self.staged.remove(&ticket.number);
        Ok(())
    }
}
