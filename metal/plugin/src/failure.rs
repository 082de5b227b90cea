//! Metal's errors as the table tells them.

use kernels_core::Error;
use kernels_core::error::Fault;
use objc2::runtime::ProtocolObject;
use objc2_foundation::NSError;
use objc2_metal::{MTLCommandBuffer, MTLCommandBufferError};

/// What Metal says of a field.
pub fn of(field: &'static str, error: &NSError) -> Error {
    told(field, error.localizedDescription().to_string(), error.code())
}

/// Why commands failed.
pub fn of_commands(commands: &ProtocolObject<dyn MTLCommandBuffer>) -> Error {
    let field = "command_buffer";
    let Some(error) = commands.error() else { return nothing(field) };
    let kind = MTLCommandBufferError(error.code() as usize);
    if kind == MTLCommandBufferError::OutOfMemory {
        // For what commands take while they run; the device is well.
        return Error::new("device", field, Fault::OutOfMemory { bytes: 0 });
    }
    let said = error.localizedDescription();
    let words = remedy(kind).map_or_else(|| said.to_string(), |words| format!("{said}: {words}"));
    told(field, words, error.code())
}

/// What it comes of.
fn remedy(kind: MTLCommandBufferError) -> Option<&'static str> {
    Some(match kind {
        MTLCommandBufferError::Timeout => "macOS ends what takes too long",
        MTLCommandBufferError::PageFault => "a kernel read or wrote where it must not",
        MTLCommandBufferError::AccessRevoked => "it was too often ended: begin the process anew",
        _ => return None,
    })
}

/// Metal gave nothing where it gives an object, and no reason.
pub fn nothing(field: &'static str) -> Error {
    let says = "Metal gave none, and no reason";
    Error::new("device", field, Fault::Device { says, code: 0 })
}

fn told(field: &'static str, words: String, code: isize) -> Error {
    let says = plugin::lasting(words);
    Error::new("device", field, Fault::Device { says, code: code as i64 })
}
