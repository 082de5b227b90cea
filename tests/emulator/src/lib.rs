//! CUDA's and Metal's kernels on a CPU: the sources that a card runs, built with g++ and run
//! thread by thread, as a device behind the same C table as a card. docs/devices.md says what
//! that proves and what it cannot.

#[cfg(emulated)]
mod driver;
#[cfg(emulated)]
mod embedder;
#[cfg(emulated)]
mod memory;
#[cfg(emulated)]
mod probes;
#[cfg(emulated)]
mod run;
#[cfg(emulated)]
mod watch;

#[cfg(emulated)]
pub use driver::{cuda, memory_bytes, metal, seed, shared_bytes_max};
#[cfg(emulated)]
pub use probes::{Probe, probes, table, words};
#[cfg(emulated)]
pub use run::{Adds, Counts, Entry, Fault, Run, counts, entries, run, tensor_cores};
#[cfg(emulated)]
pub use watch::{Piece, Watched, Work, watch};

/// The emulated CUDA device, for who loads this library as a plugin.
#[cfg(emulated)]
#[unsafe(no_mangle)]
extern "C" fn pagewise_plugin() -> *const plugin::pwp_table {
    cuda()
}

/// The emulated Metal device, for a plugin that is linked to this library.
#[cfg(emulated)]
#[unsafe(no_mangle)]
extern "C" fn emulated_metal() -> *const plugin::pwp_table {
    metal()
}
