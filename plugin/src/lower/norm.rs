//! `norm`: a block of two warps for each vector.

use super::{Facts, looping};
use crate::{Launch, Launches};
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::norm::Norm;

/// Partial sums of a vector, and threads.
const SUMS: u32 = 64;

/// What it becomes.
pub fn lower(norm: &Norm<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &norm.params;
    let vectors = u64::from(p.rows_max) * u64::from(p.heads);
    let launch = looping("pw_norm", SUMS, vectors, facts);
    Ok(Launches::one(Launch { shared_bytes: SUMS * 4, ..launch }))
}
