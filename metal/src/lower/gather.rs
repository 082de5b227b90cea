//! `gather`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::gather::Gather;
use plugin::Launches;

pub fn lower(_command: &Gather<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("gather"))
}
