//! The bodies of the fuzz targets: each turns bytes into a call, and asks for an
//! error or the specification's answer. Their corpora replay in `tests/corpora.rs`.

mod append;

pub use append::append;
pub mod arena;
mod input;
pub mod program;
pub mod sample;
pub mod verify;

pub use input::Input;

/// A target: its name, which is that of its file and its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[("arena", arena::run), ("program", program::run)];
