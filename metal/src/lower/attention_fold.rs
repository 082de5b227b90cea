//! `attention_fold`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::attention_fold::AttentionFold;
use kernels_core::command::Raw;
use plugin::Launches;

pub fn lower(_command: &AttentionFold<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("attention_fold"))
}
