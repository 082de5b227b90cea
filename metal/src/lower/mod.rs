//! A command as launches: one file for each kernel, with the tiling that the head of its
//! `.metal` draws.

mod append_kv;
mod attention;
mod logit_mask;
mod lora;
mod matmul;
mod sample;
mod spec_verify;
mod token_logprob;
mod varlen_mask;

use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::device::Command;
use plugin::Launches;
use plugin::lower::{activation, attention_fold, embed, gather, kv_copy, norm, pool, rope};

/// What a command becomes, or the field that the device cannot serve.
pub fn lower(command: &Command<Raw>, facts: &Facts) -> Result<Launches, Error> {
    match command {
        Command::Activation(command) => activation::lower(command, facts),
        Command::AppendKv(command) => append_kv::lower(command, facts),
        Command::Attention(command) => attention::lower(command, facts),
        Command::AttentionFold(command) => attention_fold::lower(command, facts),
        Command::Embed(command) => embed::lower(command, facts),
        Command::Gather(command) => gather::lower(command, facts),
        Command::KvCopy(command) => kv_copy::lower(command, facts),
        Command::LogitMask(command) => logit_mask::lower(command, facts),
        Command::Lora(command) => lora::lower(command, facts),
        Command::Matmul(command) => matmul::lower(command, facts),
        Command::Norm(command) => norm::lower(command, facts),
        Command::Pool(command) => pool::lower(command, facts),
        Command::Rope(command) => rope::lower(command, facts),
        Command::Sample(command) => sample::lower(command, facts),
        Command::SpecVerify(command) => spec_verify::lower(command, facts),
        Command::TokenLogprob(command) => token_logprob::lower(command, facts),
        Command::VarlenMask(command) => varlen_mask::lower(command, facts),
    }
}
