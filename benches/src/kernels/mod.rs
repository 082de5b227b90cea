//! One module per kernel, each with `bench`, and the list of them.

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
mod sample;
mod spec_verify;
mod step;
mod token_logprob;
mod varlen_mask;

use crate::frame::Bench;

/// Every kernel's benches, the machine's peaks first.
pub fn all(bench: &mut Bench) {
    bench.peaks();
    activation::bench(bench);
    append_kv::bench(bench);
    attention::bench(bench);
    attention_fold::bench(bench);
    embed::bench(bench);
    gather::bench(bench);
    kv_copy::bench(bench);
    logit_mask::bench(bench);
    lora::bench(bench);
    matmul::bench(bench);
    norm::bench(bench);
    pool::bench(bench);
    rope::bench(bench);
    sample::bench(bench);
    spec_verify::bench(bench);
    step::bench(bench);
    token_logprob::bench(bench);
    varlen_mask::bench(bench);
}
