//! The parameter blocks of every kernel, as `include/pagewise/kernel_params.h`
//! declares them for C, C++, CUDA and Metal. Sizes and offsets are asserted there
//! and here, at compile time.

#[rustfmt::skip]
#[expect(
    missing_docs,
    clippy::allow_attributes_without_reason,
    reason = "bindgen's output: the words stand in the header"
)]
mod generated;

pub use generated::*;
