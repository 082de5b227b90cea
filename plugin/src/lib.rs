//! What host and device plugins know of each other: the C table of
//! `include/pagewise/plugin.h`, and what every plugin does the same way. A plugin brings a
//! [`Driver`] and says what a command becomes ([`Launches`], by [`lower`] where devices do not
//! differ); [`table`] makes the rest of it.

mod driver;
mod error;
mod export;
#[rustfmt::skip]
#[expect(
    missing_docs,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "bindgen's output: the words stand in the header"
)]
mod generated;
mod launch;
pub mod lower;
mod text;

use kernels_core::device::KERNELS;

pub use driver::{About, Driver};
pub use error::told;
pub use export::table;
pub use generated::*;
pub use launch::{ARGUMENT_BYTES_MAX, Arguments, LAUNCHES_MAX, Launch, Launches};
pub use lower::Facts;
pub use text::{lasting, lasting_name, put, read};

/// Host and plugin are of one build if this is the same: the headers that they share, by
/// their bytes, every kernel's buffers in their order, and the version.
///
/// That is all that both sides take for granted. A kernel's source is the plugin's alone, and
/// so is what a command becomes: what it serves the host asks for each command, and which bits
/// come of it the id of its arithmetic says ([`About::numerics`]), which changes with them.
pub const BUILD: &str = match core::str::from_utf8(&BUILD_BYTES) {
    Ok(build) => build,
    Err(_) => unreachable!(),
};

/// [`BUILD`], ended by 0.
pub static BUILD_ENDED: [u8; 17] = {
    let (mut ended, mut at) = ([0; 17], 0);
    while at < 16 {
        ended[at] = BUILD_BYTES[at];
        at += 1;
    }
    ended
};

const BUILD_BYTES: [u8; 16] = {
    let mut hash = fnv(0xcbf2_9ce4_8422_2325, env!("CARGO_PKG_VERSION").as_bytes());
    hash = fnv(hash, include_bytes!("../../include/pagewise/kernel_params.h"));
    hash = fnv(hash, include_bytes!("../../include/pagewise/plugin.h"));
    let mut at = 0;
    while at < KERNELS.len() {
        let (name, fields) = KERNELS[at];
        hash = fnv(hash, name.as_bytes());
        let mut field = 0;
        while field < fields.len() {
            hash = fnv(fnv(hash, b","), fields[field].as_bytes());
            field += 1;
        }
        at += 1;
    }
    let (mut digits, mut at) = ([0; 16], 0);
    while at < 16 {
        digits[at] = b"0123456789abcdef"[(hash >> (60 - 4 * at)) as usize & 15];
        at += 1;
    }
    digits
};

/// Fowler, Noll and Vo's hash: enough to tell two builds apart.
const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        at += 1;
    }
    hash
}
