//! Where kernels run: the CPU, and devices behind plugins' C tables.

#![deny(unsafe_code)]

pub mod cpu;
#[expect(unsafe_code, reason = "the system maps files")]
pub mod mapped;
pub mod plugin;
