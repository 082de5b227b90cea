//! The gRPC contract as Rust types, made from `pagewise.proto`.

#[allow(
    missing_docs,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated; its words are in the .proto file"
)]
mod v1 {
    tonic::include_proto!("pagewise.v1");
}

pub use v1::*;

/// The contract itself, as reflection tells it.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pagewise.bin"));
