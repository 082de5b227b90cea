//! What commands become on CUDA: launches of the kernels in `cuda/kernels/`. Pure: the
//! driver (cuda/plugin) and the emulator (tests/emulator) launch the same.

mod lower;
pub mod probes;

pub use lower::lower;
pub use plugin::Facts;

/// The id of the arithmetic of a card of that compute capability: tensor cores of different
/// ones add in different ways, so that the same launches give other bits.
pub fn numerics(capability: u32) -> String {
    format!("cuda-sm{capability}-{ARITHMETIC}")
}

/// Counts changes of the order in which kernels compute.
pub const ARITHMETIC: u32 = 2;
