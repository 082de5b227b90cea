//! `logit_mask`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::logit_mask::LogitMask;
use plugin::Launches;

pub fn lower(_command: &LogitMask<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("logit_mask"))
}
