//! One list of cases per kernel: the ugly shapes first.

pub mod append_kv;
pub mod kv_copy;
pub mod kv_pages;
pub mod logit_mask;
pub mod lora;
pub mod norm;
pub mod rope;
pub mod sample;
pub mod varlen_mask;
