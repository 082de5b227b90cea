//! `logit_mask`: checks by one block, counts by a block for each row, then a block for each
//! row and tile of its logits.

use crate::Facts;
use kernels_core::Error;
use kernels_core::command::{MaybeSpan, Raw};
use kernels_core::logit_mask::LogitMask;
use plugin::lower::looping;
use plugin::{Launch, Launches};

/// Threads of a block.
const THREADS: u32 = 256;
/// Logits of a block.
const TILE: u32 = 4096;
/// Places for the tokens of a list that are counted side by side.
const HASHES: u32 = 1024;

pub fn lower(mask: &LogitMask<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &mask.params;
    let rows = u64::from(p.rows_max);
    let mut launches = Launches::one(Launch {
        entry: "pw_logit_mask_check",
        grid: [1; 3],
        block: 1024,
        shared_bytes: 4,
        ..Launch::default()
    });
    let mut workspace_bytes = 0;
    if mask.counted.span().is_some() {
        let count = looping("pw_logit_mask_count", THREADS, rows, facts);
        launches.push(Launch { shared_bytes: (HASHES + 2) * 4, ..count });
        workspace_bytes = rows * 4 + u64::from(p.counted_max) * 2;
    }
    let tiles = u64::from(p.vocab.div_ceil(TILE));
    let pass = looping("pw_logit_mask", THREADS, rows * tiles, facts);
    launches.push(Launch { shared_bytes: (TILE + 1) * 4, ..pass });
    Ok(launches.with_workspace(workspace_bytes.next_multiple_of(8)))
}
