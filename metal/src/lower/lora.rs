//! `lora`: a look at the adapters, then the down product and the up product.

use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::lora::Lora;
use plugin::{Launch, Launches};

/// Threads of a threadgroup, and outputs of one of the up product.
const THREADS: u32 = 256;
/// SIMD groups of a threadgroup.
const SIMDGROUPS: u32 = THREADS / 32;
/// Ranks of a threadgroup of the down product.
const RANKS: u32 = 32;
/// Rows of a threadgroup at most, where there may be many.
const ROWS: u32 = 8;
/// Up to so many rows, each has threadgroups of its own.
const ALONE_MOST: u32 = 64;
/// Threadgroups along the second axis at most; they loop over what is beyond.
const GRID_MOST: u32 = 32_768;
/// Inputs of a row that a SIMD group has in threadgroup memory.
const STAGED: u32 = 64;
/// The largest rank.
const RANK_MAX: u32 = 256;

pub fn lower(lora: &Lora<Raw>, _facts: &Facts) -> Result<Launches, Error> {
    let p = &lora.params;
    let at_once = if p.rows_max <= ALONE_MOST { 1 } else { ROWS };
    let rows = p.rows_max.div_ceil(at_once).min(GRID_MOST);
    let launch = |entry, across: u32, shared_words: u32| Launch {
        entry,
        grid: [across, rows, 1],
        block: THREADS,
        shared_bytes: shared_words * 4,
        told: [at_once, 0],
    };
    let check = launch("pw_lora_check", 1, SIMDGROUPS);
    let mut launches = Launches::one(Launch { grid: [1, 1, 1], ..check });
    let down = SIMDGROUPS * ROWS * (RANKS + STAGED);
    launches.push(launch("pw_lora_down", p.rank_max.div_ceil(RANKS), down));
    launches.push(launch("pw_lora_up", p.outputs.div_ceil(THREADS), ROWS * RANK_MAX));
    Ok(launches.with_workspace(u64::from(p.rows_max) * u64::from(p.rank_max) * 4))
}
