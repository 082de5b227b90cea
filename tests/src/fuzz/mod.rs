//! The bodies of the fuzz targets: each turns bytes into a call, and asks for an
//! error or the specification's answer. Their corpora replay in `tests/corpora.rs`.

mod adapter;
mod append;
mod arena;
mod checkpoint;
mod input;
mod packing;
mod plan;
mod program;
pub mod sample;
mod shapes;
pub mod verify;

pub use append::append;
pub use input::Input;

/// A target: its name, which is that of its file and its corpus, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("adapter", adapter::run),
    ("append_kv", append),
    ("arena", arena::run),
    ("attention", shapes::attention),
    ("config", checkpoint::config),
    ("embed", shapes::embed),
    ("lora", shapes::lora),
    ("matmul", shapes::matmul),
    ("packing", packing::run),
    ("plan", plan::run),
    ("pool", shapes::pool),
    ("program", program::run),
    ("safetensors", checkpoint::safetensors),
    ("sample", sample::run),
    ("spec_verify", verify::run),
];

/// The body of a target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, body) = target.expect("every target has a body");
    body(data);
}
