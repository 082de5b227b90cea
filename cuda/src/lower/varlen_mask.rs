//! `varlen_mask`: checks by one block, then a thread for each row.

use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::varlen_mask::VarlenMask;
use plugin::lower::looping;
use plugin::{Launch, Launches};

/// Threads of a block.
const THREADS: u32 = 128;

pub fn lower(mask: &VarlenMask<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let mut launches = Launches::one(Launch {
        entry: "pw_varlen_mask_check",
        grid: [1; 3],
        block: 256,
        shared_bytes: 4,
        ..Launch::default()
    });
    let blocks = u64::from(mask.params.rows_max.div_ceil(THREADS));
    launches.push(looping("pw_varlen_mask", THREADS, blocks, facts));
    Ok(launches)
}
