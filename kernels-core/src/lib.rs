//! Kernels for rollouts: the contract, the specification and the CPU form of
//! each kernel, the plans that split work, and the contract a device keeps.
//!
//! One folder per kernel: `mod.rs` holds the contract (parameters, buffers,
//! `check`, the order of the arithmetic), `spec.rs` the truth as plain loops,
//! `cpu.rs` the form that runs. The crate is `no_std`; threads, memory, time and
//! settings are the caller's.

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod activation;
pub mod append_kv;
pub mod attention;
pub mod attention_fold;
pub mod command;
pub mod device;
pub mod dtype;
pub mod embed;
pub mod error;
pub mod gather;
pub mod kv_copy;
pub mod kv_layout;
pub mod logit_mask;
pub mod lora;
pub mod math;
pub mod matmul;
pub mod norm;
pub mod packing;
pub mod params;
pub mod pool;
pub mod rope;
pub mod sample;
#[allow(unsafe_code, reason = "instruction sets are reached through intrinsics")]
pub mod simd;
pub mod spec_verify;
pub mod token_logprob;
pub mod varlen_mask;
pub mod vocabulary;
#[expect(unsafe_code, reason = "one output is split between tiles that run at once")]
pub mod workers;

pub use error::Error;
