//! One module per kernel, each with `bench`, and the list of them.

mod logit_mask;
mod lora;
mod norm;
mod sample;

use crate::frame::Bench;

/// Every kernel's benches, the machine's peaks first.
pub fn all(bench: &mut Bench) {
    bench.peaks();
    logit_mask::bench(bench);
    lora::bench(bench);
    norm::bench(bench);
    sample::bench(bench);
}
