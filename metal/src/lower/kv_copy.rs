//! `kv_copy`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::kv_copy::KvCopy;
use plugin::Launches;

pub fn lower(_command: &KvCopy<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("kv_copy"))
}
