//! Every kernel, timed beside the machine's own peaks.
//!
//! `cargo bench -p pagewise-benches` runs all; `-- attention` runs those whose name
//! holds the word, `-- --test` runs each once, on little memory. A bench is named
//! `kernel/shape/level/threads` and checks its answer before it counts.

#![allow(clippy::print_stdout, reason = "figures are read from the output")]

pub mod frame;
pub mod kernels;
pub mod peaks;

pub use frame::{Bench, Copies, Entry, On, Subject, Work};
