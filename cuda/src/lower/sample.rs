//! `sample`: five launches, by turns for each block of 4096 logits and for each row.

use crate::Facts;
use kernels_core::Error;
use kernels_core::command::{MaybeSpan, Raw};
use kernels_core::sample::Sample;
use kernels_core::vocabulary::BLOCK;
use plugin::lower::looping;
use plugin::{Launch, Launches};

/// Threads of a block of logits: its partial sums.
const SUMS: u32 = 64;
/// Logits of a group.
const GROUP: u32 = 128;
/// Words of shared memory of the first pass: sums, whole groups of either warp, and leaders.
const SURVEY_WORDS: u32 = SUMS + 2 + BLOCK as u32 / GROUP;
/// Threads for a row.
const CUT_THREADS: u32 = 256;
/// Bytes of a row's state in the workspace, and of its bins.
const ROW_BYTES: u32 = 64 + 512 * 8;
/// Bytes of a block's tally.
const TALLY_BYTES: u32 = 36;
/// Blocks of a multiprocessor that the passes over logits are given.
const BLOCKS_EACH: u32 = 32;
/// Shared memory of the selection: bins, tokens set aside, and a few words.
const CUT_BYTES: u32 = 1024 * 8 + 10 * 8 + 3072 * 8 + 8;

pub fn lower(sample: &Sample<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &sample.params;
    let rows = u64::from(p.rows_max);
    let blocks = p.vocab.div_ceil(BLOCK as u32);
    let row_bytes = ROW_BYTES + blocks * TALLY_BYTES + p.vocab.div_ceil(GROUP) * 9;
    let row_words = row_bytes.next_multiple_of(64) / 4;
    let pass = |entry, matrices: u64, shared_words: u32| {
        let most = u64::from(facts.cores * BLOCKS_EACH);
        let grid = [(rows * u64::from(blocks) * matrices).clamp(1, most) as u32, 1, 1];
        Launch { entry, grid, block: SUMS, shared_bytes: shared_words * 4, told: [row_words, 0] }
    };
    let matrices = if sample.raw_logits.span().is_some() { 2 } else { 1 };
    let roles = if sample.top_token.span().is_some() { 2 } else { 1 };
    let mut launches = Launches::one(pass("pw_sample_survey", matrices, SURVEY_WORDS));
    launches.push(pass("pw_sample_weigh", 1, 512 * 2));
    let cut = looping("pw_sample_cut", CUT_THREADS, rows * roles, facts);
    launches.push(Launch { shared_bytes: CUT_BYTES, told: [row_words, 0], ..cut });
    launches.push(pass("pw_sample_draw", 1, SUMS + 3));
    let finish = looping("pw_sample_finish", 128, rows.div_ceil(4), facts);
    launches.push(Launch { told: [row_words, 0], ..finish });
    Ok(launches.with_workspace(rows * u64::from(row_words) * 4))
}
