//! `embed`: eight elements a thread.

use super::Facts;
use super::rows::{PIECE, by_rows, checked};
use crate::Launches;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::embed::Embed;

const THREADS: u32 = 128;

/// What it becomes.
pub fn lower(embed: &Embed<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &embed.params;
    let items = [p.weight.inputs.div_ceil(PIECE).into(), p.rows_max.into()];
    let launch = by_rows("pw_embed", THREADS, items, facts);
    Ok(checked("pw_embed_check", p.rows_max, launch))
}
