//! `sample`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::sample::Sample;
use plugin::Launches;

pub fn lower(_command: &Sample<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("sample"))
}
