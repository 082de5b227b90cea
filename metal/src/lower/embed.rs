//! `embed`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::embed::Embed;
use plugin::Launches;

pub fn lower(_command: &Embed<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("embed"))
}
