//! `attention`: a look at the step buffers, then 8 queries of a head of K for each threadgroup;
//! with few of them over many positions, each split apart, and a fold.

use crate::Facts;
use kernels_core::Error;
use kernels_core::attention::Attention;
use kernels_core::command::Raw;
use plugin::lower::looping;
use plugin::{Launch, Launches};

/// Threads of the check, and of a threadgroup that attends.
const CHECK_THREADS: u32 = 512;
const THREADS: u32 = 128;
/// Queries of a threadgroup.
const QUERIES: u64 = 8;
/// Positions of a split.
const SPLIT: u64 = 256;
/// Threadgroup memory, as `attention_desk` takes it.
const SHARED_BYTES: u32 = 28 * 1024;
/// Threadgroups along the first axis at most; they loop over what is beyond.
const GRID_MOST: u64 = 32_768;
/// Threadgroups of a core from which on splits are not apart.
const ENOUGH_EACH: u64 = 2;
/// Bytes of states of splits at most: those of a million positions of eight heads of 128 dims
/// that four queries share.
const STATE_BYTES: u64 = 64 << 20;

pub fn lower(attention: &Attention<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &attention.params;
    let group = u64::from(p.q_heads / p.kv.kv_heads);
    let units = (u64::from(p.rows_max) * group).div_ceil(QUERIES);
    let queries = u64::from(p.rows_max) * u64::from(p.q_heads);
    let splits = u64::from(p.kv_len_max).div_ceil(SPLIT);
    let state_bytes = queries * splits * (2 + u64::from(p.kv.head_dim)) * 4;
    let few = units * u64::from(p.kv.kv_heads) < u64::from(facts.cores) * ENOUGH_EACH;
    let apart = few && splits > 1 && state_bytes <= STATE_BYTES;
    let told = [0, if apart { splits as u32 } else { 0 }];
    let check = looping("pw_attention_check", CHECK_THREADS, 1, facts);
    let mut launches = Launches::one(Launch { shared_bytes: CHECK_THREADS / 32 * 4, ..check });
    launches.push(Launch {
        entry: "pw_attention",
        grid: [units.min(GRID_MOST) as u32, p.kv.kv_heads, told[1].max(1)],
        block: THREADS,
        shared_bytes: SHARED_BYTES,
        told,
    });
    if !apart {
        return Ok(launches);
    }
    let merge = looping("pw_attention_merge", THREADS, queries.div_ceil(QUERIES), facts);
    launches.push(Launch { told, ..merge });
    Ok(launches.with_workspace(state_bytes))
}
