//! The contract a device keeps: memory by id, commands recorded once and
//! submitted many times.
//!
//! Capacity lives in parameters. What changes from step to step (counts, lengths,
//! page ids, seeds) lives in step buffers, written by the [`Launch`] that submits
//! the program; so one program serves every length below its capacity.

mod overlap;

use crate::Error;
use crate::activation::Activation;
use crate::append_kv::AppendKv;
use crate::attention::Attention;
use crate::attention_fold::AttentionFold;
use crate::command::{Access, Address, Memory, Raw, Recorded};
use crate::embed::Embed;
use crate::gather::Gather;
use crate::kv_copy::KvCopy;
use crate::logit_mask::LogitMask;
use crate::lora::Lora;
use crate::matmul::Matmul;
use crate::norm::Norm;
use crate::pool::Pool;
use crate::rope::Rope;
use crate::sample::Sample;
use crate::spec_verify::SpecVerify;
use crate::token_logprob::TokenLogprob;
use crate::varlen_mask::VarlenMask;
use alloc::sync::Arc;

pub use overlap::check_overlap;

/// Memory of a backend, by id. An id is used again with another generation, so a
/// stale one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// Which backend made it.
    pub owner: u32,
    /// Its place in that backend's table.
    pub id: u32,
    /// How often that place was used before.
    pub generation: u32,
}

/// A range of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// The buffer.
    pub buffer: Buffer,
    /// Bytes before the range.
    pub offset: u64,
    /// Bytes in the range.
    pub bytes: u64,
}

/// A slice that a command only reads. Reads may overlap each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read(pub Slice);

/// A slice that a command only writes; it overlaps no other of its slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write(pub Slice);

/// A slice that a command reads and writes: the only legal overlap of in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update(pub Slice);

/// Bytes of the host that a backend may keep using: mapped weights, above all.
pub type HostBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What a command takes beyond its buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of scratch while it runs, aligned to 64.
    pub workspace_bytes: u64,
}

/// Commands that were checked together and run in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// Which backend recorded it.
    pub owner: u32,
    /// Its place in that backend's table.
    pub id: u32,
    /// How often that place was used before.
    pub generation: u32,
}

/// One submission: small writes, then the program, then reads to stage.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Step buffers to fill before the program runs.
    pub writes: &'a [(Slice, &'a [u8])],
    /// What to run.
    pub program: Program,
    /// Results to stage for [`Backend::collect`], one after the other.
    pub reads: &'a [Slice],
}

/// A submission whose results were not collected yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Which backend runs it.
    pub owner: u32,
    /// Its number, ascending with submission.
    pub number: u64,
}

/// Memory of a device that is not the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All that it has.
    pub total_bytes: u64,
    /// What nobody has now, whoever shares the device.
    pub free_bytes: u64,
    /// What buffers of this backend take.
    pub allocated_bytes: u64,
}

/// Where commands run.
pub trait Backend: Send {
    /// The id of the arithmetic: where it is the same, so are the bits.
    fn numerics(&self) -> &str;
    /// Where its buffers lie, asked now; nothing where that is the host's memory.
    fn memory(&self) -> Result<Option<DeviceMemory>, Error> {
        Ok(None)
    }
    /// What the command takes, or the field that this backend cannot serve.
    fn query(&self, command: &Command) -> Result<Needs, Error>;
    /// Zeroed memory.
    fn alloc(&mut self, bytes: u64) -> Result<Buffer, Error>;
    /// The host's bytes, borrowed where the device reads host memory and copied elsewhere.
    /// They can be read by commands, never written.
    fn import(&mut self, bytes: HostBytes) -> Result<Buffer, Error>;
    /// Frees the buffer after the last ticket that uses it.
    fn release(&mut self, buffer: Buffer) -> Result<(), Error>;
    /// Copies bytes into a buffer, outside of any program.
    fn write(&mut self, slice: Slice, bytes: &[u8]) -> Result<(), Error>;
    /// Checks every command, once; a CUDA graph where there is one.
    fn record(&mut self, commands: &[Command]) -> Result<Program, Error>;
    /// Forgets a program.
    fn forget(&mut self, program: Program) -> Result<(), Error>;
    /// Enqueues a launch; never waits for a device.
    fn submit(&mut self, launch: Launch<'_>) -> Result<Ticket, Error>;
    /// Waits for the ticket and copies its staged reads, one after the other.
    fn collect(&mut self, ticket: Ticket, into: &mut [u8]) -> Result<(), Error>;
}

/// The list of kernels: each is a variant of [`Command`] with its contract's
/// checks. A new line here breaks the `match` of every backend that lacks it.
macro_rules! kernels {
    ($($kernel:ident)*) => {
        /// One call of a kernel: its parameters and its buffers.
        #[allow(clippy::large_enum_variant, reason = "a command is copied when it is recorded, once")]
        pub enum Command<M: Memory = Recorded> {
            $(
                #[doc = concat!("See [`", stringify!($kernel), "`].")]
                $kernel($kernel<M>),
            )*
        }

        impl Clone for Command {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl Copy for Command {}

        impl core::fmt::Debug for Command {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match self {
                    $(Command::$kernel(command) => command.fmt(f),)*
                }
            }
        }

        $(
            impl From<$kernel> for Command {
                fn from(command: $kernel) -> Self {
                    Command::$kernel(command)
                }
            }
        )*

        /// Every kernel by its name, with its buffers in the order of their declaration.
        pub const KERNELS: &[(&str, &[&str])] =
            &[$((<$kernel>::CHECKS.0, <$kernel>::FIELDS),)*];

        impl<M: Memory> Command<M> {
            /// The name of its kernel, as errors spell it.
            pub const fn kernel(&self) -> &'static str {
                match self {
                    $(Command::$kernel(_) => <$kernel<M>>::CHECKS.0,)*
                }
            }

            /// The names of its buffers, as declared.
            pub const fn fields(&self) -> &'static [&'static str] {
                match self {
                    $(Command::$kernel(_) => <$kernel<M>>::FIELDS,)*
                }
            }

            /// The bytes of its parameters.
            pub fn params(&self) -> &[u8] {
                match self {
                    $(Command::$kernel(command) => command.params(),)*
                }
            }

            /// Refuses what its contract does not allow: shapes, sizes, numbers.
            pub fn check_shape(&self) -> Result<(), Error> {
                match self {
                    $(Command::$kernel(command) => command.check(),)*
                }
            }
        }

        impl Command<Raw> {
            /// Of a kernel by its name, the bytes of its parameters and its buffers as
            /// declared, an absent one at 0; nothing where these do not go together.
            pub fn raw(kernel: &str, params: &[u8], buffers: &[Address]) -> Option<Self> {
                $(if kernel == <$kernel>::CHECKS.0 {
                    return Some(Command::$kernel(<$kernel<Raw>>::raw(params, buffers)?));
                })*
                None
            }

            /// The same command on slices, buffer by buffer as declared.
            pub fn sliced(&self, slice: impl FnMut(Address) -> Slice) -> Command {
                match self {
                    $(Command::$kernel(command) => Command::$kernel(command.sliced(slice)),)*
                }
            }
        }

        impl Command {
            /// Refuses what the contract does not allow: shapes, sizes, numbers,
            /// overlap.
            pub fn check(&self) -> Result<(), Error> {
                self.check_shape()?;
                check_overlap(self)
            }

            /// Calls `f` with every buffer as declared, those that are absent too.
            pub fn buffers(&self, f: impl FnMut(&'static str, Option<(Access, Slice)>)) {
                match self {
                    $(Command::$kernel(command) => command.buffers(f),)*
                }
            }

            /// Calls `f` with every buffer there is.
            pub fn slices(&self, mut f: impl FnMut(&'static str, Access, Slice)) {
                self.buffers(|field, buffer| {
                    if let Some((access, slice)) = buffer {
                        f(field, access, slice);
                    }
                });
            }
        }
    };
}

kernels! { Activation AppendKv Attention AttentionFold Embed Gather KvCopy LogitMask Lora Matmul Norm Pool Rope Sample SpecVerify TokenLogprob VarlenMask }

/// Buffers of a command at most.
pub const BUFFERS_MAX: usize = {
    let (mut most, mut at) = (0, 0);
    while at < KERNELS.len() {
        let fields = KERNELS[at].1.len();
        most = if fields > most { fields } else { most };
        at += 1;
    }
    most
};
