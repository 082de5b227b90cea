//! `rope`: eight dims a thread, with those that turn with them.

use super::Facts;
use super::rows::{PIECE, by_rows, checked};
use crate::Launches;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::rope::Rope;

const THREADS: u32 = 128;

/// What it becomes.
pub fn lower(rope: &Rope<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &rope.params;
    let pieces = u64::from(p.heads) * u64::from(p.head_dim.div_ceil(PIECE));
    let launch = by_rows("pw_rope", THREADS, [pieces, p.rows_max.into()], facts);
    Ok(checked("pw_rope_check", p.rows_max, launch))
}
