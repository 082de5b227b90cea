//! `pool`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::pool::Pool;
use plugin::Launches;

pub fn lower(_command: &Pool<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("pool"))
}
