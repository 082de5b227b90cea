//! A command as launches: one file for each kernel, with the tiling that the head of its
//! `.metal` draws.

mod activation;
mod append_kv;
mod attention;
mod attention_fold;
mod embed;
mod gather;
mod kv_copy;
mod logit_mask;
mod lora;
mod matmul;
mod norm;
mod pool;
mod rope;
mod rows;
mod sample;
mod spec_verify;
mod token_logprob;
mod varlen_mask;

use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::device::Command;
use plugin::{Launch, Launches};

/// Threadgroups of a core that a kernel which loops over its work is given.
const BLOCKS_EACH: u32 = 8;

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

/// A launch of an entry whose threadgroups loop over so many pieces of work.
fn looping(entry: &'static str, block: u32, pieces: u64, facts: &Facts) -> Launch {
    let most = u64::from(facts.cores * BLOCKS_EACH);
    let blocks = pieces.clamp(1, most) as u32;
    Launch { entry, grid: [blocks, 1, 1], block, ..Launch::default() }
}
