//! The bodies of the fuzz targets: each turns bytes into a call, and asks for an
//! error or the specification's answer. Their corpora replay in `tests/corpora.rs`.

mod append;

pub use append::append;
pub mod sample;
