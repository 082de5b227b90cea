//! `attention_fold`: a thread for each eight elements of a row's head.

use super::{Facts, looping};
use crate::Launches;
use kernels_core::Error;
use kernels_core::attention_fold::AttentionFold;
use kernels_core::command::Raw;

/// Threads of a block.
const THREADS: u32 = 128;

/// What it becomes.
pub fn lower(fold: &AttentionFold<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &fold.params;
    let eights = u64::from(p.rows_max) * u64::from(p.heads) * u64::from(p.head_dim / 8);
    let blocks = eights.div_ceil(THREADS.into());
    Ok(Launches::one(looping("pw_attention_fold", THREADS, blocks, facts)))
}
