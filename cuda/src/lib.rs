//! What commands become on CUDA: launches of the kernels in `cuda/kernels/`. Pure: the
//! driver (cuda/plugin) and the emulator (tests/emulator) launch the same.

mod lower;

pub use lower::lower;

/// The id of the arithmetic of the mma.sync family, from sm_80 on.
pub const NUMERICS: &str = "cuda-sm80-1";

/// What of a device decides how work is cut. It never decides the order of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Shared memory that a block may have.
    pub shared_bytes_max: u32,
}
