//! `spec_verify`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::spec_verify::SpecVerify;
use plugin::Launches;

pub fn lower(_command: &SpecVerify<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("spec_verify"))
}
