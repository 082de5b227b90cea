//! `attention`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::attention::Attention;
use kernels_core::command::Raw;
use plugin::Launches;

pub fn lower(_command: &Attention<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("attention"))
}
