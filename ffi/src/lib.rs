//! The C ABI: `libpagewise`, behind `include/pagewise.h`, where all of it is explained.
//!
//! [`header`] is that file as bindgen reads it: structs are used as they stand there, and
//! what is exported must have the types that are declared. Each file beside it is one noun of
//! the header: it turns descriptors into parameters and pointers into slices, and calls what
//! does the work. Kernels are in a folder of their own, each under its name.

#[macro_use]
mod guard;

mod backend;
mod error;
mod grammars;
mod handles;
mod kernels;
mod masker;
mod matcher;
mod memory;
mod pages;
mod prefixes;
mod table;
mod weights;

#[rustfmt::skip]
#[expect(
    missing_docs,
    non_camel_case_types,
    clippy::allow_attributes_without_reason,
    reason = "bindgen's output: the words stand in the header"
)]
pub mod header;

#[cfg(panic = "abort")]
compile_error!("a panic must not take its host along: build with panic = \"unwind\"");

/// See `include/pagewise.h`.
#[unsafe(no_mangle)]
extern "C" fn pw_version() -> u32 {
    header::PW_VERSION
}

const _: () = {
    let version: unsafe extern "C" fn() -> u32 = pw_version;
    let _ = [header::pw_version, version];
};
