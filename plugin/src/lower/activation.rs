//! `activation`: eight elements a thread.

use super::Facts;
use super::rows::{PIECE, by_rows};
use crate::Launches;
use kernels_core::Error;
use kernels_core::activation::Activation;
use kernels_core::command::Raw;

const THREADS: u32 = 128;

/// What it becomes.
pub fn lower(activation: &Activation<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &activation.params;
    let items = [p.columns.div_ceil(PIECE).into(), p.rows_max.into()];
    Ok(Launches::one(by_rows("pw_activation", THREADS, items, facts)))
}
