//! `spec_verify`: checks by one block, a block that walks for each sequence, and one that
//! lists what is to be moved.

use crate::Facts;
use kernels_core::Error;
use kernels_core::command::{MaybeSpan, Raw};
use kernels_core::params;
use kernels_core::spec_verify::SpecVerify;
use plugin::{Launch, Launches};

/// Threads of a block that walks.
const WALK_THREADS: u32 = 512;
/// Its shared memory: partial sums, sums of blocks, the best of warps, a path, two words.
const WALK_BYTES: u32 = 18 * 1024 + 128 + 256 + 8;
/// Threads of the block that lists moves.
const MOVE_THREADS: u32 = 256;

pub fn lower(verify: &SpecVerify<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &verify.params;
    let walks = p.sequences_max.min(facts.cores * 2);
    let one = |entry, block, shared_bytes| Launch {
        entry,
        grid: [1; 3],
        block,
        shared_bytes,
        ..Launch::default()
    };
    let mut launches = Launches::one(one("pw_spec_verify_check", 256, 4));
    let walk = one("pw_spec_verify", WALK_THREADS, WALK_BYTES);
    launches.push(Launch { grid: [walks, 1, 1], ..walk });
    if verify.places.span().is_some() {
        launches.push(one("pw_spec_verify_move", MOVE_THREADS, MOVE_THREADS / 32 * 4));
    }
    let weights = if p.mode == params::VERIFY_REJECTION { u64::from(walks) } else { 0 };
    Ok(launches.with_workspace((weights * u64::from(p.vocab) * 4).next_multiple_of(8)))
}
