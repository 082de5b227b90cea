//! What commands become on Metal: launches of the kernels in `metal/kernels/`. Pure: the
//! plugin with Apple's driver (metal/plugin) and the emulator (tests/emulator) launch the same.

mod lower;

pub use lower::lower;

/// The id of the arithmetic of SIMD groups and their 8 x 8 matrices.
pub const NUMERICS: &str = "metal-simd8-1";

/// What of a device decides how work is cut. It never decides the order of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Cores of the GPU.
    pub cores: u32,
    /// Threadgroup memory that a threadgroup may have.
    pub shared_bytes_max: u32,
}
