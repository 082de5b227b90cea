//! `append_kv`: a threadgroup that checks the step, then one for K or V of a head of 16 rows.

use crate::Facts;
use kernels_core::Error;
use kernels_core::append_kv::AppendKv;
use kernels_core::command::Raw;
use kernels_core::params;
use plugin::lower::looping;
use plugin::lower::rows::{CHECK_BYTES, checker};
use plugin::{Launch, Launches};

const THREADS: u32 = 256;
/// Rows of a threadgroup.
const ROWS: u64 = 16;
/// Up to so many places the table that tells slots apart lies in threadgroup memory.
const SHARED_PLACES_MAX: u64 = 4096;

pub fn lower(append: &AppendKv<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &append.params;
    // At most half of them are in use, so that a search ends soon.
    let places = (2 * u64::from(p.slots_max)).next_power_of_two();
    let is_shared = places <= SHARED_PLACES_MAX;
    let mut check = checker("pw_append_kv_check");
    check.told = [u32::from(is_shared), (places - 1) as u32];
    if is_shared {
        check.shared_bytes = (CHECK_BYTES + 4 * places as u32).next_multiple_of(16);
    }
    let tiles = u64::from(p.rows_max).div_ceil(ROWS) * 2 * u64::from(p.kv.kv_heads);
    let append = looping("pw_append_kv", THREADS, tiles, facts);
    let mut launches = Launches::one(check);
    launches.push(Launch { shared_bytes: staged_bytes(&p.kv), ..append });
    Ok(launches.with_workspace(if is_shared { 0 } else { 4 * places }))
}

/// Bytes of threadgroup memory: its rows' cells, an odd number of words apart.
fn staged_bytes(kv: &params::KvLayout) -> u32 {
    let bits = match kv.dtype {
        params::DTYPE_F32 => 32,
        params::DTYPE_F16 | params::DTYPE_BF16 => 16,
        params::DTYPE_I4 => 4,
        _ => 8,
    };
    ((kv.head_dim * bits / 32) | 1) * 4 * ROWS as u32
}
