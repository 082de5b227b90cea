//! `kv_copy`: a block that checks the entries; one for K or V of a head of each entry that
//! meets no other; then one for K or V of a head of those that do.

use super::rows::{CHECK_BYTES, by_rows, checker};
use super::{Facts, looping};
use crate::{Launch, Launches};
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::kv_copy::KvCopy;

const THREADS: u32 = 128;

/// What it becomes.
pub fn lower(copy: &KvCopy<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &copy.params;
    let columns = 2 * u64::from(p.kv.kv_heads);
    let items = [columns * u64::from(THREADS), p.entries_max.into()];
    let free = by_rows("pw_kv_copy", THREADS, items, facts);
    let mut launches = Launches::one(checker("pw_kv_copy_check"));
    launches.push(Launch { shared_bytes: CHECK_BYTES, ..free });
    launches.push(looping("pw_kv_copy_tied", THREADS, columns, facts));
    Ok(launches.with_workspace(4 * (1 + u64::from(p.entries_max))))
}
