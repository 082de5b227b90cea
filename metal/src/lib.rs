//! What commands become on Metal: launches of the kernels in `metal/kernels/`. Pure: the
//! plugin with Apple's driver (metal/plugin) and the emulator (tests/emulator) launch the same.

mod lower;

pub use lower::lower;
pub use plugin::Facts;

/// The id of the arithmetic of a GPU of that name: matrices of different ones may add in
/// different ways.
pub fn numerics(gpu: &str) -> String {
    let gpu = gpu.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    format!("metal-{gpu}-{ARITHMETIC}")
}

/// Counts changes of the order in which kernels compute.
pub const ARITHMETIC: u32 = 1;
