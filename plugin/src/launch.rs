//! What a command becomes on a device: a few launches, and the bytes that each is given.

use crate::pwp_call;
use kernels_core::params;

/// Launches of one command at most.
pub const LAUNCHES_MAX: usize = 8;
/// Bytes of a kernel's argument at most: CUDA takes 4096.
pub const ARGUMENT_BYTES_MAX: usize = 512;

/// One launch of an entry of a kernel's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Launch {
    /// The entry, as the file's list at its bottom calls it.
    pub entry: &'static str,
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
    /// Two numbers that the kernel is told.
    pub told: [u32; 2],
}

/// What a command becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Launches {
    launches: [Launch; LAUNCHES_MAX],
    count: usize,
    /// Bytes of scratch that they take together.
    pub workspace_bytes: u64,
}

impl Launches {
    /// One launch without scratch.
    pub fn one(launch: Launch) -> Self {
        let mut launches = Self::default();
        launches.push(launch);
        launches
    }

    /// The same with so much scratch.
    pub fn with_workspace(self, workspace_bytes: u64) -> Self {
        Self { workspace_bytes, ..self }
    }

    /// One more, after those before it.
    pub fn push(&mut self, launch: Launch) {
        assert!(self.count < LAUNCHES_MAX, "a command becomes a few launches");
        self.launches[self.count] = launch;
        self.count += 1;
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Launch> {
        self.launches[..self.count].iter()
    }
}

/// The bytes of a kernel's one argument: its parameters, the address of each buffer as
/// declared (0 where it is absent), and a `pwk_launch`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Arguments {
    bytes: [u8; ARGUMENT_BYTES_MAX],
    len: usize,
}

impl Arguments {
    /// Of a call, without what a launch is told: [`Arguments::tell`] comes first.
    ///
    /// `params` and `addresses` are those of the call.
    pub fn new(call: &pwp_call, params: &[u8], addresses: impl Iterator<Item = u64>) -> Self {
        let mut arguments = Self { bytes: [0; ARGUMENT_BYTES_MAX], len: 0 };
        arguments.push(params);
        addresses.for_each(|address| arguments.push(&address.to_ne_bytes()));
        arguments.push(bytemuck::bytes_of(&params::Launch {
            workspace: call.workspace,
            fault: call.fault,
            command: call.command,
            ..Default::default()
        }));
        arguments
    }

    /// For a launch that is told these.
    pub fn tell(&mut self, [tile, part]: [u32; 2]) -> &[u8] {
        let at = self.len - size_of::<params::Launch>();
        let launch = bytemuck::from_bytes_mut::<params::Launch>(&mut self.bytes[at..self.len]);
        (launch.tile, launch.part) = (tile, part);
        &self.bytes[..self.len]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}
