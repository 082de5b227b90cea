//! One module per kernel, each with `bench`, and the list of them.

mod attention;
mod logit_mask;
mod lora;
mod matmul;
mod norm;
mod sample;
mod spec_verify;
mod step;

use crate::frame::Bench;

/// Every kernel's benches, the machine's peaks first.
pub fn all(bench: &mut Bench) {
    bench.peaks();
    attention::bench(bench);
    logit_mask::bench(bench);
    lora::bench(bench);
    matmul::bench(bench);
    norm::bench(bench);
    sample::bench(bench);
    spec_verify::bench(bench);
    step::bench(bench);
}
