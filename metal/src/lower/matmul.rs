//! `matmul`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::matmul::Matmul;
use plugin::Launches;

pub fn lower(_command: &Matmul<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("matmul"))
}
