//! `activation`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::activation::Activation;
use kernels_core::command::Raw;
use plugin::Launches;

pub fn lower(_command: &Activation<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("activation"))
}
