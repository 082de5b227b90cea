//! `append_kv`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::append_kv::AppendKv;
use kernels_core::command::Raw;
use plugin::Launches;

pub fn lower(_command: &AppendKv<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("append_kv"))
}
