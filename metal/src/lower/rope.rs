//! `rope`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::rope::Rope;
use plugin::Launches;

pub fn lower(_command: &Rope<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("rope"))
}
