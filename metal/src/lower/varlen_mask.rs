//! `varlen_mask`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::varlen_mask::VarlenMask;
use plugin::Launches;

pub fn lower(_command: &VarlenMask<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("varlen_mask"))
}
