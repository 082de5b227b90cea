//! One list of cases per kernel: the ugly shapes first.

pub mod activation;
pub mod append_kv;
pub mod attention;
pub mod attention_fold;
pub mod embed;
pub mod gather;
pub mod kv_copy;
pub mod kv_pages;
pub mod logit_mask;
pub mod lora;
pub mod matmul;
pub mod norm;
pub mod pool;
pub mod rope;
pub mod sample;
mod sample_answers;
pub mod spec_verify;
pub mod token_logprob;
pub mod varlen_mask;
