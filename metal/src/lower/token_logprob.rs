//! `token_logprob`.

use super::absent;
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::token_logprob::TokenLogprob;
use plugin::Launches;

pub fn lower(_command: &TokenLogprob<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    Err(absent("token_logprob"))
}
