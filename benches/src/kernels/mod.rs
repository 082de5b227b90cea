//! One module per kernel, each with `bench`, and the list of them.

mod norm;

use crate::frame::Bench;

/// Every kernel's benches, the machine's peaks first.
pub fn all(bench: &mut Bench) {
    bench.peaks();
    norm::bench(bench);
}
