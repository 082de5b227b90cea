//! Where a case's command runs: called in this process, or recorded on a backend. A case
//! makes its command once, and every machine takes it.

use super::Bytes;
use kernels_core::Error;
use kernels_core::command::{Host, Lay};
use kernels_core::device::{Backend, Command, Launch, Needs, Program, Slice};
use kernels_core::error::Fault;
use kernels_core::simd::Level;
use kernels_core::workers::Workers;

/// Where a command runs.
pub trait Machine {
    /// Runs it; what it wrote is in its buffers then.
    fn run<C: Kernel>(&mut self, command: C) -> Result<(), Error>;
}

/// A command of any kernel on this process's memory.
pub trait Kernel {
    /// What it takes with so many workers.
    fn needs(&self, workers: u32) -> Result<Needs, Error>;
    /// Runs it.
    fn run(self, level: Level, workers: &dyn Workers, workspace: &mut [u8]) -> Result<(), Error>;
    /// The same on a device's memory.
    fn lay(&mut self, memory: &mut impl Lay) -> Command;
}

macro_rules! kernels {
    ($($kernel:ident $stem:ident $($workspace:ident)?;)*) => {$(
        impl Kernel for kernels_core::$stem::$kernel<Host<'_>> {
            fn needs(&self, workers: u32) -> Result<Needs, Error> {
                self.needs(workers)
            }
            fn run(
                self,
                level: Level,
                workers: &dyn Workers,
                _workspace: &mut [u8],
            ) -> Result<(), Error> {
                kernels!(@run $stem level workers self _workspace $($workspace)?)
            }
            fn lay(&mut self, memory: &mut impl Lay) -> Command {
                self.lay(memory).into()
            }
        }
    )*};
    (@run $stem:ident $level:ident $workers:ident $self:ident $bytes:ident) => {
        kernels_core::$stem::run($level, $workers, $self)
    };
    (@run $stem:ident $level:ident $workers:ident $self:ident $bytes:ident workspace) => {
        kernels_core::$stem::run($level, $workers, $self, $bytes)
    };
}

kernels! {
    Activation activation;
    AppendKv append_kv workspace;
    Attention attention workspace;
    AttentionFold attention_fold;
    Embed embed;
    Gather gather;
    KvCopy kv_copy;
    LogitMask logit_mask;
    Lora lora workspace;
    Matmul matmul workspace;
    Norm norm;
    Pool pool;
    Rope rope;
    Sample sample workspace;
    SpecVerify spec_verify workspace;
    TokenLogprob token_logprob workspace;
    VarlenMask varlen_mask;
}

/// A good call takes megabytes; one with a huge capacity is not run.
const WORKSPACE_BYTES_MAX: u64 = 1 << 28;

/// The kernel called at a level.
pub struct Direct<'a> {
    /// The level.
    pub level: Level,
    /// What its tiles run on.
    pub workers: &'a dyn Workers,
    /// Bytes of workspace that it lacks.
    pub withheld: usize,
}

impl Machine for Direct<'_> {
    fn run<C: Kernel>(&mut self, command: C) -> Result<(), Error> {
        let bytes = command.needs(self.workers.count())?.workspace_bytes;
        if bytes > WORKSPACE_BYTES_MAX {
            return Err(Error::new("harness", "workspace", Fault::OutOfMemory { bytes }));
        }
        // Whatever was there before: a NaN is the worst of it.
        let mut workspace = Bytes::filled((bytes as usize).saturating_sub(self.withheld), 0xff);
        command.run(self.level, self.workers, workspace.as_mut_slice())
    }
}

/// A backend: the command is recorded once and submitted twice, from the same memory.
pub struct Recorded<'a>(pub &'a mut dyn Backend);

impl Machine for Recorded<'_> {
    fn run<C: Kernel>(&mut self, mut command: C) -> Result<(), Error> {
        let mut laid = Laid::on(&mut *self.0);
        let recorded = command.lay(&mut laid);
        let Laid { written, slices, .. } = laid;
        let results = self.twice(recorded, &written);
        // A refused command leaves no buffer behind either.
        slices.iter().try_for_each(|slice| self.0.release(slice.buffer))?;
        command.lay(&mut Back(&results?));
        Ok(())
    }
}

impl Recorded<'_> {
    /// What a command left in the buffers it writes, the same both times.
    fn twice(&mut self, command: Command, written: &[(Slice, Vec<u8>)]) -> Result<Vec<u8>, Error> {
        let program = self.0.record(&[command])?;
        let first = self.submitted(program, written);
        let second = self.submitted(program, written);
        self.0.forget(program)?;
        let (first, second) = (first?, second?);
        assert!(first == second, "a program gives the same the second time");
        Ok(first)
    }

    fn submitted(
        &mut self,
        program: Program,
        written: &[(Slice, Vec<u8>)],
    ) -> Result<Vec<u8>, Error> {
        let writes: Vec<(Slice, &[u8])> =
            written.iter().map(|(slice, bytes)| (*slice, &bytes[..])).collect();
        let reads: Vec<Slice> = written.iter().map(|(slice, _)| *slice).collect();
        let mut results = vec![0; reads.iter().map(|slice| slice.bytes as usize).sum()];
        let ticket = self.0.submit(Launch { writes: &writes, program, reads: &reads })?;
        self.0.collect(ticket, &mut results)?;
        Ok(results)
    }
}

/// Lays buffers out on a backend.
pub struct Laid<'a> {
    backend: &'a mut dyn Backend,
    /// Buffers that are written, and what they held.
    pub written: Vec<(Slice, Vec<u8>)>,
    /// All of them.
    pub slices: Vec<Slice>,
}

impl<'a> Laid<'a> {
    /// None yet.
    pub fn on(backend: &'a mut dyn Backend) -> Self {
        Self { backend, written: Vec::new(), slices: Vec::new() }
    }
}

impl Lay for Laid<'_> {
    fn read(&mut self, bytes: &[u8]) -> Slice {
        let buffer = self.backend.alloc(bytes.len() as u64).expect("cases are small");
        let slice = Slice { buffer, offset: 0, bytes: bytes.len() as u64 };
        self.backend.write(slice, bytes).expect("the slice is its own");
        self.slices.push(slice);
        slice
    }

    fn write(&mut self, bytes: &mut [u8]) -> Slice {
        let slice = self.read(bytes);
        self.written.push((slice, bytes.to_vec()));
        slice
    }
}

/// Takes results back, in the order in which buffers were laid out.
struct Back<'a>(&'a [u8]);

/// Of a command that no one records.
const NOWHERE: Slice = Slice {
    buffer: kernels_core::device::Buffer { owner: 0, id: 0, generation: 0 },
    offset: 0,
    bytes: 0,
};

impl Lay for Back<'_> {
    fn read(&mut self, _bytes: &[u8]) -> Slice {
        NOWHERE
    }

    fn write(&mut self, bytes: &mut [u8]) -> Slice {
        let (own, rest) = self.0.split_at(bytes.len());
        bytes.copy_from_slice(own);
        self.0 = rest;
        NOWHERE
    }
}
