//! Where kernels run. The CPU is here; devices join as plugins behind one C table.

#![deny(unsafe_code)]

pub mod cpu;
#[expect(unsafe_code, reason = "the system maps files")]
pub mod mapped;
