//! The C ABI: `libpagewise`, behind `include/pagewise.h`, where all of it is explained.
//!
//! [`header`] is that file as bindgen reads it: structs are used as they stand there, and
//! what is exported must have the types that are declared. Each file beside it is one noun of
//! the header: it turns descriptors into parameters and pointers into slices, and calls the
//! kernel.

mod attention;
mod backend;
mod error;
mod guard;
mod layout;
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
    let version: unsafe extern "C" fn() -> u32 = pw_version;
    let _ = [header::pw_version, version];
};
