//! Metal's errors as the table tells them.

use kernels_core::Error;
use kernels_core::error::Fault;
use objc2_foundation::NSError;

/// What Metal says of a field.
pub fn of(field: &'static str, error: &NSError) -> Error {
    let says = plugin::lasting(error.localizedDescription().to_string());
    Error::new("device", field, Fault::Device { says, code: error.code() as i64 })
}

/// Metal gave nothing where it gives an object, and no reason.
pub fn nothing(field: &'static str) -> Error {
    let says = "Metal gave none, and no reason";
    Error::new("device", field, Fault::Device { says, code: 0 })
}
