//! What commands become on Metal: launches of the kernels in `metal/kernels/`. Pure: the
//! plugin with Apple's driver (metal/plugin) and the emulator (tests/emulator) launch the same.

mod lower;

pub use lower::lower;

/// The id of the arithmetic of a GPU of that name: matrices of different ones may add in
/// different ways.
pub fn numerics(gpu: &str) -> String {
    let gpu = gpu.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    format!("metal-{gpu}-{ARITHMETIC}")
}

/// Counts changes of the order in which kernels compute.
pub const ARITHMETIC: u32 = 1;

/// What of a device decides how work is cut. It never decides the order of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Cores of the GPU.
    pub cores: u32,
    /// Threadgroup memory that a threadgroup may have.
    pub shared_bytes_max: u32,
}
