//! `pool`: eight columns of a sequence a thread; where vectors are normalised, a block for
//! each after that.

use super::rows::{PIECE, by_rows, checked};
use super::{Facts, looping};
use crate::{Launch, Launches};
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::pool::Pool;

const THREADS: u32 = 128;
/// Elements in shared memory at once where vectors are normalised.
const STAGED: u32 = 2048;

/// What it becomes.
pub fn lower(pool: &Pool<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &pool.params;
    let items = [p.columns.div_ceil(PIECE).into(), p.seqs_max.into()];
    let launch = by_rows("pw_pool", THREADS, items, facts);
    let mut launches = checked("pw_pool_check", p.seqs_max, launch);
    if p.normalise == 1 {
        let launch = looping("pw_pool_normalise", THREADS, p.seqs_max.into(), facts);
        launches.push(Launch { shared_bytes: STAGED * 4, ..launch });
    }
    Ok(launches)
}
