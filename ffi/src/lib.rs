//! The C ABI: `libpagewise`, behind `include/pagewise.h`, where all of it is explained.
//!
//! [`header`] is that file as bindgen reads it: structs are used as they stand there, and
//! what is exported must have the types that are declared. Each file beside it is one noun of
//! the header: it turns descriptors into parameters and pointers into slices, and calls the
//! kernel.

mod attention;
mod backend;
mod error;
mod grammars;
mod guard;
mod layout;
mod matcher;
mod memory;
mod plan;

#[rustfmt::skip]
#[expect(
    missing_docs,
    non_camel_case_types,
    clippy::allow_attributes_without_reason,
    reason = "bindgen's output: the words stand in the header"
)]
pub mod header;

pub use attention::{pw_attention_plan, pw_attention_query, pw_attention_run};
pub use backend::{pw_device_destroy, pw_device_numerics, pw_device_open};
pub use grammars::{pw_grammars_create, pw_grammars_destroy};
pub use matcher::{
    pw_matcher_accept, pw_matcher_allowed, pw_matcher_create, pw_matcher_destroy,
    pw_matcher_forced, pw_matcher_fork, pw_matcher_mask, pw_matcher_may_end, pw_matcher_take_back,
    pw_matcher_tree_masks,
};

#[cfg(panic = "abort")]
compile_error!("a panic must not take its host along: build with panic = \"unwind\"");

/// See `include/pagewise.h`.
#[unsafe(no_mangle)]
pub extern "C" fn pw_version() -> u32 {
    header::PW_VERSION
}

// Two functions are of one type, or there is no array of them.
const _: () = {
    let _ = [header::pw_attention_plan, pw_attention_plan];
    let _ = [header::pw_attention_query, pw_attention_query];
    let _ = [header::pw_attention_run, pw_attention_run];
    let _ = [header::pw_device_destroy, pw_device_destroy];
    let _ = [header::pw_device_numerics, pw_device_numerics];
    let _ = [header::pw_device_open, pw_device_open];
    let _ = [header::pw_grammars_create, pw_grammars_create];
    let _ = [header::pw_grammars_destroy, pw_grammars_destroy];
    let _ = [header::pw_matcher_accept, pw_matcher_accept];
    let _ = [header::pw_matcher_allowed, pw_matcher_allowed];
    let _ = [header::pw_matcher_create, pw_matcher_create];
    let _ = [header::pw_matcher_destroy, pw_matcher_destroy];
    let _ = [header::pw_matcher_forced, pw_matcher_forced];
    let _ = [header::pw_matcher_fork, pw_matcher_fork];
    let _ = [header::pw_matcher_mask, pw_matcher_mask];
    let _ = [header::pw_matcher_may_end, pw_matcher_may_end];
    let _ = [header::pw_matcher_take_back, pw_matcher_take_back];
    let _ = [header::pw_matcher_tree_masks, pw_matcher_tree_masks];
    let version: unsafe extern "C" fn() -> u32 = pw_version;
    let _ = [header::pw_version, version];
};
