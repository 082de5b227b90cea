//! `gather`: 16 bytes a thread.

use super::Facts;
use super::rows::{by_rows, checked};
use crate::Launches;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::gather::Gather;
use kernels_core::params;

const THREADS: u32 = 128;

/// What it becomes.
pub fn lower(gather: &Gather<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &gather.params;
    let bytes = match p.dtype {
        params::DTYPE_F32 => 4,
        params::DTYPE_F16 | params::DTYPE_BF16 => 2,
        _ => 1,
    };
    let pieces = (u64::from(p.columns) * bytes).div_ceil(16);
    let launch = by_rows("pw_gather", THREADS, [pieces, p.rows_max.into()], facts);
    Ok(checked("pw_gather_check", p.rows_max, launch))
}
