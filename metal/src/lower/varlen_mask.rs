//! `varlen_mask`: checks by one threadgroup, then a thread for each row.

use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::varlen_mask::VarlenMask;
use plugin::lower::looping;
use plugin::lower::rows::checker;
use plugin::{Launch, Launches};

/// Threads of a threadgroup, and of the one that checks.
const THREADS: u32 = 128;
const CHECKERS: u32 = 256;

pub fn lower(mask: &VarlenMask<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let check = checker("pw_varlen_mask_check");
    let mut launches = Launches::one(Launch { block: CHECKERS, ..check });
    let groups = u64::from(mask.params.rows_max.div_ceil(THREADS));
    launches.push(looping("pw_varlen_mask", THREADS, groups, facts));
    Ok(launches)
}
