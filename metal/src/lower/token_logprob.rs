//! `token_logprob`: tokens are looked at and rows quantised; logits and their sums, of few rows
//! or of many; then the fold.

use super::matmul::{
    FEW_MOST, FEW_ROWS, MANY_ROWS, THREADS, convert, converted_bytes, few_bytes, is_grouped,
    many_bytes,
};
use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::error::Checks;
use kernels_core::packing::Weight;
use kernels_core::token_logprob::TokenLogprob;
use kernels_core::vocabulary::BLOCK;
use plugin::lower::looping;
use plugin::{Launch, Launches};

/// Threads of a threadgroup that folds.
const FOLD_THREADS: u32 = 64;
/// Where the parts of the workspace start: at a multiple of so many bytes.
const ALIGN: u64 = 256;
/// Threadgroups of a core, each with a place for its logits.
const FEW_EACH: u64 = 4;
const MANY_EACH: u64 = 2;

pub fn lower(command: &TokenLogprob<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &command.params;
    let weight = Weight::parse(Checks("token_logprob"), &p.weight)?;
    let blocks = weight.outputs.div_ceil(BLOCK) as u64;
    let many = !is_grouped(&weight) && p.rows_max > FEW_MOST;
    let told = [if many { FEW_MOST } else { 0 }, 0];
    let check = looping("pw_token_logprob_check", THREADS, 1, facts);
    let mut launches = Launches::one(Launch { shared_bytes: THREADS / 32 * 4, ..check });
    if is_grouped(&weight) {
        launches.push(convert("pw_token_logprob_convert", &weight, p.rows_max, facts));
    }
    let sums = |entry, rows: u32, each: u32, places: u64, shared_bytes| {
        let pieces = u64::from(rows.div_ceil(each)) * blocks;
        let grid = [pieces.min(u64::from(facts.cores) * places) as u32, 1, 1];
        Launch { entry, grid, block: THREADS, shared_bytes, told }
    };
    let rows = if many { FEW_MOST } else { p.rows_max };
    let few = sums("pw_token_logprob_few", rows, FEW_ROWS, FEW_EACH, few_bytes(&weight));
    let mut logits = u64::from(few.grid[0] * FEW_ROWS);
    launches.push(few);
    if many {
        let many = sums("pw_token_logprob_many", p.rows_max, MANY_ROWS, MANY_EACH, many_bytes());
        logits = logits.max(u64::from(many.grid[0] * MANY_ROWS));
        launches.push(many);
    }
    let folds = u64::from(p.rows_max.div_ceil(FOLD_THREADS));
    launches.push(looping("pw_token_logprob_fold", FOLD_THREADS, folds, facts));
    let parts = [
        converted_bytes(&weight, p.rows_max),
        u64::from(p.rows_max) * (blocks * 8 + 4),
        logits * BLOCK as u64 * 4,
    ];
    let bytes = parts.iter().map(|bytes| bytes.next_multiple_of(ALIGN)).sum();
    Ok(launches.with_workspace(bytes))
}
