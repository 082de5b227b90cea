//! `lora`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::lora::Lora;
use plugin::Launches;

pub fn lower(_command: &Lora<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("lora"))
}
